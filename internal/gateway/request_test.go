package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// dialRaw gives a connection to the gateway for bytes that no client would send.
func (r *rig) dialRaw() (net.Conn, *bufio.Reader) {
	r.t.Helper()
	conn, err := r.net.Dial(r.t.Context(), "tcp", "gateway:9000")
	if err != nil {
		r.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func TestHeaders(t *testing.T) {
	inBubble(t, func(r *rig) {
		resp, _ := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`,
			"X-Data-Parallel-Rank", "3",
			"Connection", "X-Hop, keep-alive", "X-Hop", "1", "Keep-Alive", "timeout=5", "Te", "trailers", "Proxy-Authorization", "Basic x",
			"Accept-Encoding", "gzip", "Expect", "",
			"Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
			"Authorization", "Bearer sk-1", "X-Custom", "kept", "User-Agent", "curl/8", "X-Request-Id", "id-1")
		got := r.backends[0].requests()[0].header
		for name, want := range map[string]string{
			"X-Data-Parallel-Rank": "", "X-Hop": "", "Keep-Alive": "", "Te": "", "Proxy-Authorization": "", "Accept-Encoding": "", "Connection": "",
			"Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "Authorization": "Bearer sk-1", "X-Custom": "kept", "User-Agent": "curl/8",
			"X-Request-Id": "id-1", "Content-Type": "application/json", "Content-Length": "16", "Idempotency-Key": "",
		} {
			if got.Get(name) != want {
				t.Errorf("backend got %s: %q; want %q", name, got.Get(name), want)
			}
		}
		for name, want := range map[string]string{"X-Up-Hop": "", "Keep-Alive": "", "X-Up": "kept", "X-Request-Id": "id-1", "Retry-After": "7"} {
			if resp.Header.Get(name) != want {
				t.Errorf("client got %s: %q; want %q", name, resp.Header.Get(name), want)
			}
		}
	}, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Connection", "X-Up-Hop")
		h.Set("X-Up-Hop", "1")
		h.Set("Keep-Alive", "timeout=5")
		h.Set("X-Up", "kept")
		h.Set("Retry-After", "7")
		h.Set("X-Request-Id", "the backend's own")
		io.WriteString(w, "{}")
	})
}

// An id is kept if it can do no harm and no running request has it.
func TestRequestID(t *testing.T) {
	inBubble(t, func(r *rig) {
		for _, bad := range []string{"", "a b", "x\"y", "a/b", "../x", "ü", strings.Repeat("x", 129)} {
			resp, _ := r.mustPost("/v1/chat/completions", `{}`, "X-Request-Id", bad)
			if id := resp.Header.Get("X-Request-Id"); id == bad || !openai.WellFormedID(id) {
				t.Errorf("X-Request-Id %q came back as %q; want a new one", bad, id)
			}
		}
		first, _ := r.mustPost("/v1/chat/completions", `{}`, "X-Request-Id", "same")
		again, _ := r.mustPost("/v1/chat/completions", `{}`, "X-Request-Id", "same")
		if first.Header.Get("X-Request-Id") != "same" || again.Header.Get("X-Request-Id") != "same" {
			t.Error("one after the other, an id may come again")
		}
		ids := make(chan string)
		for range 2 {
			go func() {
				resp, _ := r.mustPost("/v1/chat/completions", `{}`, "X-Request-Id", "same", "Slow", "1")
				ids <- resp.Header.Get("X-Request-Id")
			}()
		}
		if a, b := <-ids, <-ids; a == b || a != "same" && b != "same" {
			t.Errorf("two at once got %q and %q; want same and a new one", a, b)
		}
	}, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Slow") != "" {
			time.Sleep(time.Second)
		}
		io.WriteString(w, "{}")
	})
}

// A client that has its answer may come again with the same id at once, also
// where the backend lingers behind the end mark.
func TestRequestIDComesAgain(t *testing.T) {
	inBubble(t, func(r *rig) {
		for range 300 {
			if resp, _ := r.mustPost("/v1/chat/completions", `{}`, "X-Request-Id", "same"); resp.Header.Get("X-Request-Id") != "same" {
				t.Fatalf("came back as %q", resp.Header.Get("X-Request-Id"))
			}
		}
	}, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "{}")
	})
	for name, steps := range map[string][]any{
		"in one read": {role + token("a") + stop + done, time.Second},
		"in several":  {role, token("a"), stop, 100 * time.Millisecond, done, time.Second},
	} {
		inBubble(t, func(r *rig) {
			for range 3 {
				resp, err := r.post("/v1/chat/completions", ask, "X-Request-Id", "same")
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				io.ReadFull(resp.Body, make([]byte, len(role+token("a")+stop+done)))
				if id := resp.Header.Get("X-Request-Id"); id != "same" {
					t.Errorf("%s: came back as %q", name, id)
				}
			}
			time.Sleep(10 * time.Second)
		}, sse(steps...))
	}
}

// Bodies are limited in size and in time, and a broken one goes nowhere.
func TestBodies(t *testing.T) {
	const head = "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\n"
	for name, tt := range map[string]struct {
		raw     string
		status  int
		after   time.Duration
		reaches bool
	}{
		"whole":                {head + "Content-Length: 2\r\n\r\n{}", 200, 0, true},
		"chunked":              {head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, 0, true},
		"too large, announced": {head + "Content-Length: 1048577\r\n\r\n", 413, 0, false},
		"too large, chunked":   {head + "Transfer-Encoding: chunked\r\n\r\n100001\r\n" + strings.Repeat("x", 1<<20+1) + "\r\n0\r\n\r\n", 413, 0, false},
		"too slow":             {head + "Content-Length: 10\r\n\r\n{", 408, time.Minute, false},
		"bad chunk":            {head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400, 0, false},
		"length and chunks":    {head + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, 0, true},
		"nobody reads it":      {"POST /nowhere HTTP/1.1\r\nHost: g\r\nContent-Length: 10\r\n\r\n{", 404, time.Minute, false},
		"no such method":       {"DELETE /version HTTP/1.1\r\nHost: g\r\nContent-Length: 10\r\n\r\n{", 405, time.Minute, false},
		"two lengths":          {head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, 0, false},
		"no HTTP at all":       {strings.Repeat("hello ", 9) + "\r\n\r\n", 400, 0, false},
		"broken query":         {"GET /version?a=%zz HTTP/1.1\r\nHost: g\r\n\r\n", 400, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				start := time.Now()
				conn, in := r.dialRaw()
				defer conn.Close()
				go io.WriteString(conn, tt.raw)
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); resp.StatusCode != tt.status || took != tt.after {
					t.Errorf("%d after %v; want %d after %v", resp.StatusCode, took, tt.status, tt.after)
				}
				io.Copy(io.Discard, resp.Body)
				if n := len(r.backends[0].requests()); (n > 0) != tt.reaches {
					t.Errorf("%d requests reached the backend", n)
				}
				if strings.Contains(tt.raw, "Transfer-Encoding") && !resp.Close {
					t.Error("the connection stays open after a chunked request")
				}
				if tt.status == 400 || tt.status == 413 || tt.status == 408 {
					conn.SetReadDeadline(time.Now().Add(time.Minute))
					if _, err := in.ReadByte(); err != io.EOF && name != "broken query" {
						t.Errorf("the connection is not closed: %v", err)
					}
				}
			}, answer200("application/json", "{}"))
		})
	}
}

// A client that leaves during its upload has left, and is no error.
func TestClientLeavesDuringUpload(t *testing.T) {
	inBubble(t, func(r *rig) {
		conn, _ := r.dialRaw()
		io.WriteString(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 10\r\n\r\n{")
		time.Sleep(time.Second)
		conn.Close()
		time.Sleep(time.Second)
		r.want(1, "gateway_requests_total", "outcome", "cancelled")
		r.want(1, "gateway_cancelled_requests_total", "phase", beforeFirstByte)

		var h2c http.Protocols
		h2c.SetUnencryptedHTTP2(true)
		tr := &http.Transport{DialContext: r.net.Dial, Protocols: &h2c}
		defer tr.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		body, never := io.Pipe()
		defer never.Close()
		req, _ := http.NewRequestWithContext(ctx, "POST", gatewayURL+"/v1/chat/completions", body)
		if _, err := tr.RoundTrip(req); err == nil {
			t.Error("the upload was not cancelled")
		}
		time.Sleep(time.Second)
		r.want(2, "gateway_requests_total", "outcome", "cancelled")
	}, answer200("application/json", "{}"))
}

// What a backend sends that is no HTTP is no answer, and is not quoted.
func TestMalformedAnswers(t *testing.T) {
	for name, raw := range map[string]string{
		"header":           "HTTP/1.1 200 OK\r\nthe completion's words\r\n\r\n",
		"status line":      "the completion's words\r\n\r\n",
		"status below 100": "HTTP/1.1 007 OK\r\nContent-Length: 0\r\n\r\n",
		"unasked upgrade":  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
		"empty JSON":       "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n",
		"gzip framing":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				resp, body := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`)
				if resp.StatusCode != 502 {
					t.Errorf("%d %s; want 502", resp.StatusCode, body)
				}
				if strings.Contains(r.logged(), "completion's words") {
					t.Errorf("the log quotes the answer:\n%s", r.logged())
				}
				r.want(1, "gateway_requests_total", "outcome", "backend_error")
			}, unframed(raw))
		})
	}
}

// Clients that trickle their body hold nothing of the backend.
func TestSlowClientHoldsNoBackend(t *testing.T) {
	inBubble(t, func(r *rig) {
		conn, _ := r.dialRaw()
		defer conn.Close()
		io.WriteString(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 10\r\n\r\n{")
		time.Sleep(30 * time.Second)
		r.want(0, "gateway_backend_in_flight")
		r.want(1, "gateway_queue_depth")
		conn.Close()
		time.Sleep(time.Second)
	}, answer200("application/json", "{}"))
}

// Who asks for 100 Continue gets it, and the first-token rule holds.
func TestExpectContinue(t *testing.T) {
	inBubble(t, func(r *rig) {
		conn, in := r.dialRaw()
		defer conn.Close()
		fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(ask))
		line, _ := in.ReadString('\n')
		if !strings.Contains(line, "100 Continue") {
			t.Fatalf("got %q", line)
		}
		in.ReadString('\n')
		start := time.Now()
		io.WriteString(conn, ask)
		if _, err := http.ReadResponse(in, nil); err != nil || time.Since(start) != time.Second {
			t.Errorf("head after %v, %v; want 1s", time.Since(start), err)
		}
		if up := r.backends[0].requests()[0].header.Get("Expect"); up != "" {
			t.Errorf("backend got Expect: %s", up)
		}
	}, sse(headers, role, time.Second, token("a"), stop, done))
}

func TestPaths(t *testing.T) {
	inBubble(t, func(r *rig) {
		for _, rt := range routes {
			if rt.path == modelsPath || rt.path == realtimePath {
				continue // have tests of their own
			}
			target := strings.ReplaceAll(rt.path, "{id}", "resp_1-a")
			req, _ := http.NewRequest(rt.method, gatewayURL+target+"?a=b%20c", nil)
			resp, err := r.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			r.read(resp)
			all := r.backends[0].requests()
			if last := all[len(all)-1]; resp.StatusCode != 200 || last.uri != target+"?a=b%20c" || last.method != rt.method {
				t.Errorf("%s %s: %d, backend got %s %s", rt.method, target, resp.StatusCode, last.method, last.uri)
			}
			r.want(1, "gateway_requests_total", "path", rt.path)
		}
		before := len(r.backends[0].requests())
		for _, target := range closed {
			conn, in := r.dialRaw()
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n", target)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("%s: %v", target, err)
			}
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != 404 && resp.StatusCode != 400 && resp.StatusCode != 405 {
				t.Errorf("POST %s: %d; want 404", target, resp.StatusCode)
			}
			if resp.StatusCode == 404 && !strings.HasPrefix(string(body), `{"error":{"message":"`) {
				t.Errorf("POST %s: %s; want an error in OpenAI's shape", target, body)
			}
			conn.Close()
		}
		if n := len(r.backends[0].requests()) - before; n != 0 {
			t.Errorf("%d of them reached the backend", n)
		}
	}, answer200("application/json", "{}"))
}

// closed are paths that must not reach a backend, in every spelling.
var closed = []string{
	"/", "/sleep", "/wake_up", "/is_sleeping", "/collective_rpc", "/reset_prefix_cache", "/reset_mm_cache", "/server_info", "/pause", "/resume",
	"/update_weights", "/init_weight_transfer_engine", "/abort_requests", "/scale_elastic_ep", "/is_scaling_elastic_ep", "/invocations", "/ping", "/load",
	"/inference/v1/generate", "/inference/v1/abort_requests", "/fault_tolerance/apply", "/release_kv_cache_memory", "/weight_checker", "/kv_event_sources", "/start_profile", "/stop_profile", "/docs", "/openapi.json", "/debug/pprof/",
	"/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/chat/completions/render", "/v1/chat/completions/derender", "/v1", "/v1/",
	"/v1/chat/completions/", "//v1/chat/completions", "/v1//chat/completions", "/v1/./chat/completions", "/v1/x/../chat/completions",
	"/v1/chat%2fcompletions", "/v1%2Fchat%2Fcompletions", "/V1/chat/completions", "/v1/Chat/completions", "/v1/chat/completions;x", "/v1/chat/completions%20",
	"/%73leep", "/v1/%2e%2e/sleep", "/v1/../sleep", "/v1/chat/completions/../../../sleep", "/v1/chat/completions%00", "/v1/chat/completions%3f",
	"/v1/responses/", "/v1/responses/..", "/v1/responses/../sleep", "/v1/responses/%2e%2e/sleep", "/v1/responses/a%2fb", "/v1/responses/a/b", "/v1/responses/a/cancel/", "/v1/responses//cancel",
	"/metrics", "/health", "http://other/sleep", "http://other:80/v1/%2e%2e/sleep", "*",
}

func TestMethods(t *testing.T) {
	inBubble(t, func(r *rig) {
		for _, tt := range []struct {
			method, path string
			status       int
			allow        string
		}{
			{"GET", "/v1/chat/completions", 405, "POST, OPTIONS"},
			{"HEAD", "/v1/models", 405, "GET, OPTIONS"},
			{"DELETE", "/v1/responses/r1", 405, "GET, OPTIONS"},
			{"TRACE", "/v1/models", 405, "GET, OPTIONS"},
			{"POST", "/health", 405, "GET, HEAD"},
			{"DELETE", "/metrics", 405, "GET, HEAD"},
			{"OPTIONS", "/v1/chat/completions", 200, ""}, // a browser's preflight: vLLM's to answer
		} {
			req, _ := http.NewRequest(tt.method, gatewayURL+tt.path, nil)
			resp, err := r.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			r.read(resp)
			if resp.StatusCode != tt.status || resp.Header.Get("Allow") != tt.allow {
				t.Errorf("%s %s: %d, Allow %q; want %d, %q", tt.method, tt.path, resp.StatusCode, resp.Header.Get("Allow"), tt.status, tt.allow)
			}
		}
	}, answer200("application/json", "{}"))
}

// Whatever the spelling, a path is either one of the list, byte for byte, or
// closed.
func FuzzFind(f *testing.F) {
	for _, p := range closed {
		f.Add(p)
	}
	for _, rt := range routes {
		f.Add(rt.path)
	}
	f.Add("/v1/responses/abc/cancel")
	f.Fuzz(func(t *testing.T, path string) {
		rt, ok := find(path)
		if !ok {
			return
		}
		want := rt.path
		if i := strings.Index(want, "{id}"); i >= 0 {
			id := strings.TrimSuffix(strings.TrimPrefix(path, want[:i]), want[i+4:])
			if !openai.WellFormedID(id) {
				t.Fatalf("%q was let through with the id %q", path, id)
			}
			want = strings.Replace(want, "{id}", id, 1)
		}
		if path != want || rt.target(path) != want {
			t.Fatalf("%q was taken for %q and goes out as %q", path, want, rt.target(path))
		}
	})
}

func TestWebSocket(t *testing.T) {
	inBubble(t, func(r *rig) {
		conn, in := r.dialRaw()
		// the first frame comes right behind the request
		io.WriteString(conn, "GET /v1/realtime?model=tiny HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\nhello")
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "yes" {
			t.Fatalf("%v %+v; want 101", err, resp)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(in, got); err != nil || string(got) != "hello" {
			t.Errorf("echo %q, %v", got, err)
		}
		time.Sleep(time.Hour)
		io.WriteString(conn, "again")
		io.ReadFull(in, got)
		if string(got) != "again" {
			t.Errorf("echo %q", got)
		}
		r.want(1, "gateway_queue_depth")
		conn.Close()
		time.Sleep(time.Second)
		r.want(1, "gateway_requests_total", "path", realtimePath, "model", "tiny", "status", "1xx", "outcome", "ok")
		if up := r.backends[0].requests()[0]; up.uri != "/v1/realtime?model=tiny" || up.header.Get("Sec-Websocket-Key") != "k" {
			t.Errorf("backend got %+v", up)
		}
		resp, _ = r.mustGet(realtimePath)
		if resp.StatusCode != 426 {
			t.Errorf("without an upgrade: %d; want 426", resp.StatusCode)
		}
	}, func(w http.ResponseWriter, req *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: yes\r\n\r\n")
		io.Copy(conn, buffered)
	})
}

// A backend that takes no WebSockets answers for itself.
func TestWebSocketRefused(t *testing.T) {
	inBubble(t, func(r *rig) {
		conn, in := r.dialRaw()
		defer conn.Close()
		io.WriteString(conn, "GET /v1/realtime HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != 403 {
			t.Errorf("%v %+v; want 403", err, resp)
		}
	}, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) })
}

// A WebSocket ends with the drain.
func TestWebSocketDrain(t *testing.T) {
	inBubble(t, func(r *rig) {
		conn, in := r.dialRaw()
		defer conn.Close()
		io.WriteString(conn, "GET /v1/realtime HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		if _, err := http.ReadResponse(in, nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		r.g.Drain(ctx)
		if took := time.Since(start); took != time.Minute {
			t.Errorf("drained after %v; want 1m", took)
		}
		r.want(1, "gateway_requests_total", "outcome", "unavailable")
		if _, err := in.ReadByte(); err == nil {
			t.Error("the connection is still open")
		}
	}, func(w http.ResponseWriter, req *http.Request) {
		conn, _, _ := http.NewResponseController(w).Hijack()
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: yes\r\n\r\n")
		io.Copy(io.Discard, conn)
	})
}
