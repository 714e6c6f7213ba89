package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

// Clients that trickle their headers are gone after ten seconds, in any way of
// trickling, and cost the others nothing.
func TestTrickledHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Net
		back, _ := network.Listen("vllm:8000")
		record(back, "")
		front, _ := network.Listen("gateway:9000")
		log := slog.New(slog.DiscardHandler)
		g, err := gateway.New(gateway.Config{Backends: []string{"http://vllm:8000"}, FirstByteTimeout: time.Minute, StreamIdleTimeout: time.Minute, MaxBody: 1 << 20, Log: log, Dial: network.Dial})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- daemon.Server{Name: name, Handler: g, Drain: g.Drain, Log: log}.Serve(ctx, front) }()
		synctest.Wait()

		// Ten seconds count from a request's first byte; of a connection that says
		// nothing at all, from its beginning.
		var trickling sync.WaitGroup
		for i := range 200 {
			trickling.Go(func() {
				conn, err := network.Dial(ctx, "tcp", "gateway:9000")
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				began := time.Now()
				trickling.Go(func() {
					text := "POST /v1/embeddings HTTP/1.1\r\nHost: g\r\n" + strings.Repeat("X-A: b\r\n", 1000)
					switch i % 4 {
					case 1:
						text = ""
					case 2:
						text = "GET /" + strings.Repeat("a", 1000)
					case 3: // faster, and never done
						io.WriteString(conn, text[:1000])
						text = text[1000:]
					}
					for j := range len(text) {
						if _, err := io.WriteString(conn, text[j:j+1]); err != nil {
							return
						}
						time.Sleep(time.Second / 10)
					}
				})
				io.Copy(io.Discard, conn)
				if took := time.Since(began); took != 10*time.Second {
					t.Errorf("connection %d was closed after %v; want 10s", i, took)
				}
			})
		}
		client := &http.Client{Transport: &http.Transport{DialContext: network.Dial}}
		for range 100 {
			began := time.Now()
			resp, err := client.Post("http://gateway:9000/v1/embeddings", "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if took := time.Since(began); resp.StatusCode != relayedStatus || took != 0 {
				t.Errorf("an honest request: %d after %v", resp.StatusCode, took)
			}
			time.Sleep(time.Second / 10)
		}
		trickling.Wait()
		client.CloseIdleConnections()
		cancel()
		<-ended
		back.Close()
	})
}

// Names that clients invent make no series: not of models, not of paths, methods,
// ids, keys or hosts, however they are spelled.
func TestHostileNamesMakeNoSeries(t *testing.T) {
	t.Run("models not listed", func(t *testing.T) { hostileNames(t, "", 4) })
	t.Run("models listed", func(t *testing.T) { hostileNames(t, "m", 1) }) // others are refused
}

// hostileNames: of the six requests of a connection so many reach the backend.
func hostileNames(t *testing.T, listed string, relayed int) {
	p := startInProcess(t, listed)
	series := func() (n int, text string) {
		c := p.open([]byte("GET /metrics HTTP/1.1\r\nHost: g\r\n\r\n"), 4096)
		resp, err := http.ReadResponse(bufio.NewReader(&c.out), nil)
		if err != nil {
			t.Fatal(err)
		}
		all, _ := io.ReadAll(resp.Body)
		for line := range strings.Lines(string(all)) {
			if strings.HasPrefix(line, "gateway_") {
				n++
			}
		}
		return n, string(all)
	}
	until(t, "the backend's models are known", func() bool {
		_, text := series()
		return listed == "" || strings.Contains(text, `model="m"`)
	})
	one := func(i int) {
		// One connection, six requests: what is at all possible is answered.
		odd := []string{"m-%d", "\xff%d", `\u0000%d`, "\\ud800%d", "a\\\"b%d", "{x=\\\"%d\\\"}", "\\n%d", "ü%d", "%dm", " %d"}[i%10]
		model := fmt.Sprintf(odd, i)
		body := `{"model":"` + model + `"}`
		request := func(line, headers, body string) string {
			return fmt.Sprintf("%s HTTP/1.1\r\nHost: h%d\r\nAuthorization: Bearer k%d\r\nX-Request-Id: i%d\r\n%sContent-Length: %d\r\n\r\n%s", line, i, i, i, headers, len(body), body)
		}
		raw := request("POST /v1/chat/completions", "", body) +
			request("POST /v1/embeddings", "", body) +
			request(fmt.Sprintf("GET /v1/responses/r%d", i), "", "") +
			request(fmt.Sprintf("GET /invented/%d", i), "", "") +
			request(fmt.Sprintf("M%d /version", i), "", "") +
			request(fmt.Sprintf("POST /v1/audio/translations?model=%d", i), "Content-Type: multipart/form-data; boundary=b\r\n", fmt.Sprintf("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nf%d\r\n--b--", i))
		if o := p.say([]byte(raw), 4096); len(o.statuses) != 6 || len(o.got) != relayed {
			t.Fatalf("%q: answered %v, %d requests reached the backend", raw, o.statuses, len(o.got))
		}
	}
	one(0)
	before, _ := series()
	for i := range 1000 {
		one(i)
	}
	if after, _ := series(); after != before || before == 0 {
		t.Errorf("%d series became %d", before, after)
	}
}
