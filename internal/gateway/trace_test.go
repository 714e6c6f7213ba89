package gateway

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// traced is a rig whose gateway makes spans.
type traced struct {
	*rig
	spans *tracetest.SpanRecorder
	began time.Time
	drawn int
}

func inTracedBubble(t *testing.T, change func(*Config), test func(*traced), handlers ...http.HandlerFunc) {
	t.Helper()
	r := &traced{spans: tracetest.NewSpanRecorder()}
	inBubbleWith(t, func(c *Config) {
		c.Tracer = sdk.NewTracerProvider(sdk.WithSpanProcessor(r.spans)).Tracer("test")
		change(c)
	}, func(plain *rig) {
		r.rig, r.began = plain, time.Now()
		test(r)
	}, handlers...)
	if began, ended := len(r.spans.Started()), len(r.spans.Ended()); began != ended {
		t.Errorf("%d spans began, %d ended", began, ended)
	}
	for _, s := range r.spans.Ended() {
		if text := fmt.Sprint(s.Name(), s.Attributes(), s.Status(), s.Events()); strings.Contains(text, "secret prompt") || strings.Contains(text, "sk-1") {
			t.Errorf("a span tells too much: %s", text)
		}
	}
}

func asIs(*Config) {}

// tree draws what has ended since the last call: a line for each span, below its
// parent, with when it began and ended, and some of its attributes.
func (r *traced) tree(show ...attribute.Key) string {
	r.t.Helper()
	synctest.Wait()
	all := r.spans.Ended()[r.drawn:]
	r.drawn += len(all)
	slices.SortStableFunc(all, func(a, b sdk.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
	var out strings.Builder
	var draw func(parent trace.SpanID, indent string)
	draw = func(parent trace.SpanID, indent string) {
		for _, s := range all {
			local := s.Parent().SpanID()
			if s.Parent().IsRemote() {
				local = trace.SpanID{}
			}
			if local != parent {
				continue
			}
			fmt.Fprintf(&out, "%s%s %v-%v", indent, s.Name(), s.StartTime().Sub(r.began), s.EndTime().Sub(r.began))
			if s.Status().Code.String() == "Error" {
				out.WriteString(" Error")
			}
			for _, key := range append([]attribute.Key{attrErrorType}, show...) {
				if v, ok := value(s, key); ok {
					fmt.Fprintf(&out, " %s", v.String())
				}
			}
			out.WriteString("\n")
			draw(s.SpanContext().SpanID(), indent+"  ")
		}
	}
	draw(trace.SpanID{}, "")
	return out.String()
}

func value(s sdk.ReadOnlySpan, key attribute.Key) (attribute.Value, bool) {
	for _, kv := range s.Attributes() {
		if kv.Key == key {
			return kv.Value, true
		}
	}
	return attribute.Value{}, false
}

func (r *traced) wantTree(want string, show ...attribute.Key) {
	r.t.Helper()
	want = strings.TrimPrefix(strings.ReplaceAll(want, "\n\t\t", "\n"), "\n")
	if got := r.tree(show...); got != want {
		r.t.Errorf("the spans are\n%swant\n%s", got, want)
	}
}

// slowDial has a connection to a backend take 10 ms.
func slowDial(c *Config) {
	dial := c.Dial
	c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		time.Sleep(10 * time.Millisecond)
		return dial(ctx, network, addr)
	}
}

// Each part of a stream's time is a span, and they are exact.
func TestSpansOfAStream(t *testing.T) {
	inTracedBubble(t, func(c *Config) { c.MaxInFlight, c.MaxWaiting = 1, 10; slowDial(c) }, func(r *traced) {
		r.began = r.began.Add(4 * time.Second)
		time.Sleep(4 * time.Second) // the probe's connection is closed by now
		var both sync.WaitGroup
		both.Go(func() { r.mustPost("/v1/chat/completions", ask) })
		synctest.Wait()
		both.Go(func() {
			time.Sleep(100 * time.Millisecond)
			r.mustPost("/v1/chat/completions", ask)
		})
		both.Wait()
		r.wantTree(`
		POST /v1/chat/completions 0s-610ms 200 ok
		  chat tiny 0s-610ms 200 5 2
		    connect 0s-10ms false
		    first token 10ms-310ms
		    stream 310ms-610ms
		POST /v1/chat/completions 100ms-1.21s 200 ok
		  wait 100ms-610ms
		  chat tiny 610ms-1.21s 200 5 2
		    connect 610ms-610ms true
		    first token 610ms-910ms
		    stream 910ms-1.21s
		`, attrStatus, attrOutcome, attrInput, attrOutput, attrReused)
	}, sse(headers, 300*time.Millisecond, token("a"), 200*time.Millisecond, token("b"), stop, usage(5, 2), 100*time.Millisecond, done))
}

// Two attempts, two spans; the first says why it was not enough.
func TestSpansOfARetry(t *testing.T) {
	for name, tt := range map[string]struct {
		first http.HandlerFunc
		want  string
	}{
		"broken before its first token": {sse(headers, role, time.Second, abort), `
		POST /v1/chat/completions 0s-1.2s 200
		  chat tiny 0s-1s Error reset 200
		    connect 0s-0s
		    first token 0s-1s Error reset
		  chat tiny 1s-1.2s 1 200
		    connect 1s-1s
		    first token 1s-1.1s
		    stream 1.1s-1.2s
		`},
		"503": {func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Second); status(503)(w, r) }, `
		POST /v1/chat/completions 0s-1.2s 200
		  chat tiny 0s-1s Error 503 503
		    connect 0s-0s
		    first token 0s-1s Error 503
		  chat tiny 1s-1.2s 1 200
		    connect 1s-1s
		    first token 1s-1.1s
		    stream 1.1s-1.2s
		`},
	} {
		t.Run(name, func(t *testing.T) {
			inTracedBubble(t, asIs, func(r *traced) {
				r.mustPost("/v1/chat/completions", ask)
				r.wantTree(tt.want, attrResend, attrStatus)
			}, tt.first, sse(headers, 100*time.Millisecond, token("a"), 100*time.Millisecond, stop, done))
		})
	}
}

// A backend that is gone shows as a connection that there never was.
func TestSpansOfADeadBackend(t *testing.T) {
	inTracedBubble(t, asIs, func(r *traced) {
		r.backends[0].kill()
		time.Sleep(4 * time.Second) // its idle connections are closed
		synctest.Wait()
		r.began = time.Now()
		r.mustPost("/v1/chat/completions", ask)
		r.wantTree(`
		POST /v1/chat/completions 0s-0s Error connect 502 backend_error
		  chat tiny 0s-0s Error connect
		    connect 0s-0s Error connect
		`, attrStatus, attrOutcome)
	}, sse(done))
}

// Clients may leave: that is no error, wherever it finds the request.
func TestSpansOfACancel(t *testing.T) {
	for name, tt := range map[string]struct {
		after time.Duration
		want  string
	}{
		"before the first token": {50 * time.Millisecond, `
		POST /v1/chat/completions 0s-50ms cancelled
		  chat tiny 0s-50ms 200
		    connect 0s-0s
		    first token 0s-50ms
		`},
		"in mid stream": {150 * time.Millisecond, `
		POST /v1/chat/completions 0s-150ms 200 cancelled
		  chat tiny 0s-150ms 200
		    connect 0s-0s
		    first token 0s-100ms
		    stream 100ms-150ms
		`},
	} {
		t.Run(name, func(t *testing.T) {
			inTracedBubble(t, asIs, func(r *traced) {
				ctx, cancel := context.WithTimeout(r.t.Context(), tt.after)
				defer cancel()
				if resp, err := r.postAs(ctx, "/v1/chat/completions", ask); err == nil {
					r.broken(resp)
				}
				r.wantTree(tt.want, attrStatus, attrOutcome)
			}, sse(headers, 100*time.Millisecond, token("a"), hang))
		})
	}
}

// In the line there is no backend yet, and no span of one.
func TestSpansOfTheLine(t *testing.T) {
	inTracedBubble(t, func(c *Config) {
		c.MaxInFlight, c.MaxWaiting, c.MaxWait = 1, 2, 5*time.Second
	}, func(r *traced) {
		ctx, cancel := context.WithCancel(r.t.Context())
		defer cancel()
		go r.postAs(ctx, "/v1/chat/completions", ask)
		synctest.Wait()
		var waiting sync.WaitGroup
		waiting.Go(func() { // leaves
			ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Second)
			defer cancel()
			r.postAs(ctx, "/v1/chat/completions", ask)
		})
		synctest.Wait()
		waiting.Go(func() { r.mustPost("/v1/chat/completions", ask) }) // waits for too long
		synctest.Wait()
		r.mustPost("/v1/chat/completions", ask)                          // its caller has filled the line
		r.mustPost("/v1/chat/completions", ask, "Authorization", "sk-1") // has pushed another out: one of the two above
		waiting.Wait()
		got := r.tree(attrStatus, attrOutcome)
		for _, want := range []string{
			"POST /v1/chat/completions 0s-0s 429 refused\n",
			"POST /v1/chat/completions 0s-0s 429 refused\n",
			"POST /v1/chat/completions 0s-3s cancelled\n  wait 0s-3s\n",
			"POST /v1/chat/completions 0s-5s Error wait_too_long 503 refused\n  wait 0s-5s Error wait_too_long\n",
		} {
			var ok bool
			if got, ok = cutOut(got, want); !ok {
				t.Errorf("no\n%s\nin\n%s", want, got)
			}
		}
		if got != "" {
			t.Errorf("besides there are\n%s", got)
		}
		cancel()
	}, sse(headers, hang))
}

func cutOut(s, what string) (string, bool) {
	before, after, ok := strings.Cut(s, what)
	return before + after, ok
}

// What fails with its status long sent is an error all the same.
func TestSpansOfFailures(t *testing.T) {
	const failure = `data: {"error":{"message":"the secret prompt","type":"InternalServerError","param":null,"code":500}}` + "\n\n"
	for name, tt := range map[string]struct {
		handle http.HandlerFunc
		want   string
	}{
		"cut": {sse(headers, token("a"), time.Second, abort), `
		POST /v1/chat/completions 0s-1s Error cut 200 backend_error
		  chat tiny 0s-1s Error cut 200
		    connect 0s-0s
		    first token 0s-0s
		    stream 0s-1s Error cut
		`},
		"silent": {sse(headers, token("a"), hang), `
		POST /v1/chat/completions 0s-5m0s Error timeout 200 timeout
		  chat tiny 0s-5m0s Error timeout 200
		    connect 0s-0s
		    first token 0s-0s
		    stream 0s-5m0s Error timeout
		`},
		"no first token": {sse(headers, hang), `
		POST /v1/chat/completions 0s-10m0s Error timeout 504 timeout
		  chat tiny 0s-10m0s Error timeout 200
		    connect 0s-0s
		    first token 0s-10m0s Error timeout
		`},
		"error in the stream": {sse(token("a"), time.Second, failure, done), `
		POST /v1/chat/completions 0s-1s Error stream 200 backend_error
		  chat tiny 0s-1s Error stream 200
		    connect 0s-0s
		    first token 0s-0s
		    stream 0s-1s Error stream
		`},
		"error before it": {sse(headers, time.Second, failure, done), `
		POST /v1/chat/completions 0s-1s Error 500 500 backend_error
		  chat tiny 0s-1s Error stream
		    connect 0s-0s
		    first token 0s-1s Error stream
		`},
		"the client's fault": {status(400), `
		POST /v1/chat/completions 0s-0s 400 client_error
		  chat tiny 0s-0s Error 400 400
		    connect 0s-0s
		    first token 0s-0s Error 400
		`},
	} {
		t.Run(name, func(t *testing.T) {
			inTracedBubble(t, asIs, func(r *traced) {
				if resp, err := r.post("/v1/chat/completions", ask); err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				time.Sleep(10 * time.Second)
				r.wantTree(tt.want, attrStatus, attrOutcome)
			}, tt.handle)
		})
	}
}

// Not everything is a stream.
func TestSpansOfOtherRequests(t *testing.T) {
	const answer = `{"object":"list","data":[],"usage":{"prompt_tokens":7,"total_tokens":7,"completion_tokens":0}}`
	for name, tt := range map[string]struct{ method, path, want string }{
		"embeddings": {"POST", "/v1/embeddings", `
		POST /v1/embeddings 0s-1s 200 ok
		  embeddings tiny 0s-1s embeddings 200 7
		    connect 0s-0s
		`},
		"no word of GenAI's": {"POST", "/v1/rerank", `
		POST /v1/rerank 0s-1s 200 ok
		  POST /v1/rerank 0s-1s 200
		    connect 0s-0s
		`},
		"preflight": {"OPTIONS", "/v1/chat/completions", `
		OPTIONS /v1/chat/completions 0s-1s 200 ok
		  OPTIONS /v1/chat/completions 0s-1s 200
		    connect 0s-0s
		`},
		"an answer by its id": {"GET", "/v1/responses/resp_1", `
		GET /v1/responses/{id} 0s-1s 200 ok
		  GET /v1/responses/{id} 0s-1s 200
		    connect 0s-0s
		`},
		"method of another path": {"DELETE", "/v1/rerank", `
		DELETE /v1/rerank 0s-0s 405 client_error
		`},
		"method of nobody": {"SECRET", "/v1/rerank", `
		HTTP /v1/rerank 0s-0s 405 client_error
		`},
	} {
		t.Run(name, func(t *testing.T) {
			inTracedBubble(t, asIs, func(r *traced) {
				req, _ := http.NewRequest(tt.method, gatewayURL+tt.path, strings.NewReader(`{"model":"tiny","input":"the secret prompt"}`))
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("Authorization", "Bearer sk-1")
				r.whole(r.client.Do(req))
				r.wantTree(tt.want, attrOperation, attrStatus, attrOutcome, attrInput)
			}, answer200("application/json", time.Second, answer))
		})
	}
}

func TestSpansOfAWebSocket(t *testing.T) {
	inTracedBubble(t, asIs, func(r *traced) {
		conn, in := r.dialRaw()
		defer conn.Close()
		io.WriteString(conn, "GET /v1/realtime?model=tiny HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
		if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 101 {
			t.Fatalf("%v %+v; want 101", err, resp)
		}
		time.Sleep(time.Hour)
		conn.Close()
		r.wantTree(`
		GET /v1/realtime 0s-1h0m0s 101 ok
		  GET /v1/realtime 0s-1h0m0s 101
		    connect 0s-0s
		`, attrStatus, attrOutcome)
	}, func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: yes\r\n\r\n")
		io.Copy(conn, buffered)
	})
}

const (
	clientsTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientsParent = "00-" + clientsTrace + "-00f067aa0ba902b7-01"
)

// docs/tracing.md has a row for each attribute that some span has, and no row too
// many.
func TestSpansAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/tracing.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+[.][a-z0-9._]+)` \\| ([^|]+) \\| .{10,} \\|$").FindAllStringSubmatch(string(doc), -1) {
		for span := range strings.SplitSeq(row[2], ",") {
			documented = append(documented, strings.TrimSpace(span)+" "+row[1])
		}
	}
	seen := map[string]bool{}
	note := func(r *traced) {
		synctest.Wait()
		for _, s := range r.spans.Ended() {
			of := s.Name()
			switch s.SpanKind() {
			case trace.SpanKindServer:
				of = "request"
			case trace.SpanKindClient:
				of = "attempt"
			}
			for _, kv := range s.Attributes() {
				seen[of+" "+string(kv.Key)] = true
			}
		}
	}
	inTracedBubble(t, asIs, func(r *traced) {
		r.mustPost("/v1/chat/completions", ask) // with a second attempt
		note(r)
	}, sse(headers, abort), sse(token("a"), usage(1, 1), done))
	inTracedBubble(t, asIs, func(r *traced) {
		resp, err := r.post("/v1/chat/completions", ask)
		if err != nil {
			t.Fatal(err)
		}
		r.broken(resp)
		note(r)
	}, sse(token("a"), abort))
	inTracedBubble(t, asIs, func(r *traced) {
		r.backends[0].kill()
		time.Sleep(4 * time.Second)
		r.mustPost("/v1/chat/completions", ask)
		note(r)
	}, sse(done))
	inTracedBubble(t, func(c *Config) { c.MaxInFlight, c.MaxWaiting, c.MaxWait = 1, 10, time.Second }, func(r *traced) {
		var both sync.WaitGroup
		both.Go(func() { r.mustPost("/v1/chat/completions", ask) })
		synctest.Wait()
		r.mustPost("/v1/chat/completions", ask) // waits for too long
		both.Wait()
		note(r)
	}, sse(headers, time.Minute, token("a"), done))
	got := slices.Sorted(maps.Keys(seen))
	slices.Sort(documented)
	if !slices.Equal(got, documented) {
		t.Errorf("docs/tracing.md:\n%s\nspans:\n%s", strings.Join(documented, "\n"), strings.Join(got, "\n"))
	}
}
