package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// To servers that make variables of headers, X_Y is X-Y: what is not to reach
// them as the one must not reach them as the other.
func TestUnderscoresInHeaderNames(t *testing.T) {
	inBubble(t, func(r *rig) {
		conn, in := r.dialRaw()
		defer conn.Close()
		io.WriteString(conn, "POST /v1/embeddings HTTP/1.1\r\nHost: g\r\nX_Data_Parallel_Rank: 3\r\nx_data_parallel_rank: 4\r\nTransfer_Encoding: chunked\r\nX-Y_Z: 1\r\n_: 1\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\n{}")
		if _, err := http.ReadResponse(in, nil); err != nil {
			t.Fatal(err)
		}
		got := r.backends[0].requests()[0]
		for name := range got.header {
			if strings.Contains(name, "_") {
				t.Errorf("%s reached the backend", name)
			}
		}
		if got.header.Get("X-Kept") != "1" || got.body != "{}" {
			t.Errorf("the backend got %v and %q", got.header, got.body)
		}
	}, answer200("application/json", "{}"))
}

// Where two servers may see the end of a request in two places, nothing behind it
// is read, whoever answers it.
func TestDoubtfulFramingEndsTheConnection(t *testing.T) {
	const next = "GET /version HTTP/1.1\r\nHost: g\r\n\r\n"
	for _, path := range []string{"POST /v1/embeddings", "GET /health", "POST /nowhere", "DELETE /version"} {
		for name, rest := range map[string]string{
			"chunks":            " HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
			"length and chunks": " HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
			"HTTP/1.0, chunks":  " HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
			"HTTP/1.0":          " HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
		} {
			inBubble(t, func(r *rig) {
				conn, in := r.dialRaw()
				defer conn.Close()
				go io.WriteString(conn, path+rest+next)
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatalf("%s, %s: %v", path, name, err)
				}
				io.Copy(io.Discard, resp.Body)
				conn.SetReadDeadline(time.Now().Add(time.Minute))
				if left, err := io.ReadAll(in); len(left) > 0 || err != nil || !resp.Close {
					t.Errorf("%s, %s: Connection: close is %v; then came %q, %v", path, name, resp.Close, left, err)
				}
			}, answer200("application/json", "{}"))
		}
	}
}

// A query goes on as it is spelled, so it must mean the same to everybody.
func TestQueries(t *testing.T) {
	inBubble(t, func(r *rig) {
		for query, status := range map[string]int{
			"a=b&c=%20": 200, "": 200, "a=[b]": 200, "?": 200, "a=http://g/": 200,
			"a#b": 400, "#": 400, "a=\xc3\xbc": 400, "\xff": 400, "a;b": 400, "a=%zz": 400,
		} {
			before := len(r.backends[0].requests())
			conn, in := r.dialRaw()
			fmt.Fprintf(conn, "GET /version?%s HTTP/1.1\r\nHost: g\r\n\r\n", query)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("%q: %v", query, err)
			}
			if reached := len(r.backends[0].requests()) - before; resp.StatusCode != status || (reached == 1) != (status == 200) {
				t.Errorf("%q: %d, and %d requests reached the backend; want %d", query, resp.StatusCode, reached, status)
			}
			conn.Close()
		}
	}, answer200("application/json", "{}"))
}
