package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// HTTP/2 carries anything in a field, and what the backend gets is lines of text.
// Each of these is one request; reach says whether it may become one there.
func TestHostileHTTP2(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := record(l, "")
	p := start(t, r.url())

	type request struct {
		what   string
		fields []string // name, value, …
		data   []string // DATA frames; the last one ends the request, unless trailers follow
		trail  []string
		reach  bool
		target string // as the backend must get it
	}
	pseudo := func(method, path string, more ...string) []string {
		return append([]string{":method", method, ":scheme", "http", ":authority", "g", ":path", path}, more...)
	}
	post := func(more ...string) []string { return pseudo("POST", "/v1/embeddings", more...) }
	var all []request
	add := func(what string, reach bool, fields []string, data ...string) {
		target := ""
		for i := 0; i < len(fields); i += 2 {
			if fields[i] == ":path" {
				target = fields[i+1]
			}
		}
		all = append(all, request{what: what, fields: fields, data: data, reach: reach, target: target})
	}
	add("honest", true, post(), "{}")
	add("honest, with a length", true, post("content-length", "2"), "{}")
	add("honest, in frames", true, post("content-length", "2"), "{", "", "}")
	add("honest, without a body", true, pseudo("GET", "/version"))
	for _, v := range []string{"a\r\nX-Y: z", "a\nX-Y: z", "a\rX-Y: z", "\x00", "a\x00b", "\x7f", "a\x0bb", "\r\n\r\n" + inner} {
		add("line ends in a value", false, post("x-a", v), "{}")
		add("line ends in a host", false, []string{":method", "POST", ":scheme", "http", ":authority", "g" + v, ":path", "/v1/embeddings"}, "{}")
		add("line ends in a path", false, pseudo("POST", "/v1/embeddings"+v), "{}")
		add("line ends in a query", false, pseudo("POST", "/v1/embeddings?a="+v), "{}")
		add("line ends in a method", false, pseudo("POST"+v, "/v1/embeddings"), "{}")
		add("line ends in a scheme", false, []string{":method", "GET", ":scheme", "http" + v, ":authority", "g", ":path", "/nowhere"})
	}
	for _, n := range []string{"X-A", "x a", "x-a ", " x-a", "x-a:", "x:a", ":x", "x\r\ny", "x\x00", "", "x\xff", "ü", "x\r\ntransfer-encoding"} {
		add("no name", false, post(n, "b"), "{}")
	}
	for _, h := range [][]string{{"transfer-encoding", "chunked"}, {"connection", "close"}, {"connection", "x-a", "x-a", "b"}, {"keep-alive", "1"}, {"proxy-connection", "x"}, {"upgrade", "websocket"}, {"te", "gzip"}, {"te", "trailers", "te", "x"}} {
		add("a matter of HTTP/1", false, post(h...), "{}")
	}
	for _, h := range [][]string{{"te", "trailers"}, {"x-data-parallel-rank", "1"}, {"x_data_parallel_rank", "1"}, {"transfer_encoding", "chunked"}, {"content_length", "9"}, {"proxy-authorization", "x"}, {"trailer", "x-a"}, {"cookie", "a=b", "cookie", "c=d"}, {"expect", "100-continue"}, {"x-request-id", "a", "x-request-id", "b"}, {"host", "g"}, {"accept-encoding", "gzip"}, {"x-a", ""}, {"x-a", "\xff"}} {
		add("stays here, or does no harm", true, post(h...), "{}")
	}
	for _, cl := range []string{"1", "3", "0", "2, 2", "+2", "x", "-2", "2 ", "18446744073709551618", "2\x00"} {
		add("a length that is not the body's", false, post("content-length", cl), "{}")
	}
	add("two lengths", false, post("content-length", "3", "content-length", "2"), "{}")
	for _, q := range []string{"a b", "a HTTP/1.1", " HTTP/1.1", "a#b", "ü", "\xff", ";", "%zz", "a\tb"} {
		add("no query", false, pseudo("GET", "/version?"+q))
	}
	for _, path := range []string{"/v1/embeddings HTTP/1.1", "/v1/embeddings ", " /v1/embeddings", "v1/embeddings", "//v1/embeddings", "/v1/%65mbeddings", "/v1/x/../embeddings", "/v1/embeddings#", "/v1/embeddings;x", "*", "", "http://other/sleep", "/sleep", "/v1/responses/a b", "/v1/responses/a\\b", "?", "/v1\\embeddings"} {
		add("no path of the table", false, pseudo("POST", path), "{}")
		add("no path of the table", false, pseudo("GET", path))
	}
	for _, m := range []string{"post", "GET /sleep", "PO ST", "", "TRACE", "CONNECT", "PRI", "P\u00d6ST"} {
		add("no method of the path", false, pseudo(m, "/v1/embeddings"), "{}")
	}
	add("pseudo-headers", false, append(post(), ":path", "/sleep"), "{}")
	add("pseudo-headers", false, append(post(), ":method", "GET"), "{}")
	add("pseudo-headers", false, []string{":method", "POST", ":scheme", "http", "x-a", "b", ":authority", "g", ":path", "/v1/embeddings"}, "{}")
	add("pseudo-headers", false, post(":protocol", "websocket"), "{}")
	add("pseudo-headers", false, []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "g", ":path", "/v1/realtime"})
	add("pseudo-headers", false, []string{":method", "CONNECT", ":authority", "127.0.0.1:22"})
	add("pseudo-headers", false, []string{":method", "POST", ":scheme", "http", ":authority", "g"}, "{}")
	add("pseudo-headers", false, []string{":scheme", "http", ":authority", "g", ":path", "/v1/embeddings"}, "{}")
	add("pseudo-headers", false, append(post(), ":status", "200"), "{}")
	add("pseudo-headers", true, []string{":method", "POST", ":scheme", "http", ":authority", "other:1", ":path", "/v1/embeddings"}, "{}")
	add("a WebSocket", false, pseudo("GET", "/v1/realtime"))
	add("too much", false, post("x-a", strings.Repeat("b", 80_000)), "{}")
	all = append(all, request{what: "trailers", fields: post(), data: []string{"{}"}, trail: []string{"x-data-parallel-rank", "1", "content-length", "9", "x-a", "b"}, reach: true, target: "/v1/embeddings"},
		request{what: "trailers", fields: post("trailer", "x-a"), data: []string{"{}"}, trail: []string{"x-a", "b"}, reach: true, target: "/v1/embeddings"},
		request{what: "trailers", fields: post(), data: []string{"{}"}, trail: []string{":path", "/sleep"}, target: "/v1/embeddings"})

	reached := 0
	for _, q := range all {
		sayHTTP2(t, p.addr, q.fields, q.data, q.trail)
		got, problems := r.take()
		if len(problems) > 0 || len(got) > 1 || (len(got) == 1) != q.reach {
			t.Errorf("%s: %.300q: %d requests reached the backend, want one: %v; %.300q", q.what, q.fields, len(got), q.reach, problems)
			continue
		}
		if len(got) == 1 {
			reached++
			if body := strings.Join(q.data, ""); string(got[0].body) != body || got[0].path != q.target || got[0].method != q.fields[1] {
				t.Errorf("%s: %q came as %q and %q", q.what, q.fields, got[0].raw, got[0].body)
			}
		}
	}
	if strings.Contains(p.stderr.String(), "panic") || strings.Contains(p.stderr.String(), "level=ERROR") {
		t.Errorf("its log:\n%s", tail(p.stderr.String()))
	}
	t.Logf("%d requests, of which %d reached the backend", len(all), reached)
}

// sayHTTP2 sends one request and waits for its end, whatever that is.
func sayHTTP2(t *testing.T, addr string, fields, data, trail []string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second)) // a hang is a failure, not a wait
	var out, head bytes.Buffer
	out.WriteString(http2.ClientPreface)
	write := http2.NewFramer(&out, nil)
	write.AllowIllegalWrites = true
	write.WriteSettings()
	encoder := hpack.NewEncoder(&head)
	headers := func(fields []string, end bool) {
		head.Reset()
		for i := 0; i < len(fields); i += 2 {
			encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		block := bytes.Clone(head.Bytes())
		first := block[:min(len(block), 16<<10)]
		write.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: len(first) == len(block), EndStream: end})
		for rest := block[len(first):]; len(rest) > 0; {
			n := min(len(rest), 16<<10)
			write.WriteContinuation(1, n == len(rest), rest[:n])
			rest = rest[n:]
		}
	}
	headers(fields, len(data) == 0)
	for i, d := range data {
		write.WriteData(1, i == len(data)-1 && trail == nil, []byte(d))
	}
	if trail != nil {
		headers(trail, true)
	}
	go conn.Write(out.Bytes())
	read := http2.NewFramer(io.Discard, conn)
	for {
		f, err := read.ReadFrame()
		if err, ok := err.(net.Error); ok && err.Timeout() {
			t.Error(fmt.Errorf("%.300q: no answer: %w", fields, err))
		}
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				return
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				return
			}
		}
	}
}
