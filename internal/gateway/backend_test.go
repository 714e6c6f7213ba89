package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// named answers with the backend's own name.
func named(name string) http.HandlerFunc { return answer200("text/plain", name) }

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"error":{"message":"from the backend","code":%d}}`, code)
	}
}

// Until the first token a failure is mended by another backend, and the client
// notices nothing but the time.
func TestAnotherBackendIsTried(t *testing.T) {
	whole := role + token("a") + stop + done
	for name, tt := range map[string]struct {
		bad    http.HandlerFunc
		status int
		body   string
		tried  int // requests that the second backend got
	}{
		"503":                           {status(503), 200, whole, 1},
		"429":                           {status(429), 200, whole, 1},
		"502":                           {status(502), 200, whole, 1},
		"504":                           {status(504), 200, whole, 1},
		"connection reset":              {sse(abort), 200, whole, 1},
		"cut before the first token":    {sse(headers, role, abort), 200, whole, 1},
		"ended before the first token":  {sse(headers, role), 200, whole, 1},
		"503 within the stream":         {sse(headers, "data: {\"error\":{\"message\":\"full\",\"code\":503}}\n\n"), 200, whole, 1},
		"given up in the queue":         {sse(headers, role, done), 200, whole, 1},
		"given up at once":              {sse(headers, role, aborted, usage(5, 1), done), 200, whole, 1},
		"500 is the request's own":      {status(500), 500, `{"error":{"message":"from the backend","code":500}}`, 0},
		"400 is the client's":           {status(400), 400, `{"error":{"message":"from the backend","code":400}}`, 0},
		"404 is the client's":           {status(404), 404, `{"error":{"message":"from the backend","code":404}}`, 0},
		"after the first token no more": {sse(role, token("a"), abort), 200, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				resp, err := r.post("/v1/chat/completions", ask)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != tt.status || tt.body != "" && string(body) != tt.body {
					t.Errorf("%d %q; want %d %q", resp.StatusCode, body, tt.status, tt.body)
				}
				second := r.backends[1].requests()
				if len(second) != tt.tried {
					t.Errorf("the second backend got %d requests; want %d", len(second), tt.tried)
				}
				for _, got := range second {
					if got.body != asked || got.header.Get("X-Request-Id") == "" {
						t.Errorf("the second backend got %+v", got)
					}
				}
				r.want(float64(tt.tried), "gateway_retries_total")
				r.want(1, "gateway_requests_total")
			}, tt.bad, sse(role, token("a"), stop, done))
		})
	}
}

// vLLM's API server outlives its engine for some seconds, and answers 500 to
// everything at once: with the least in flight it would draw all requests. What
// it answers to the first one has it looked at, and that one is mended too.
func TestDeadEngineIsNotAnswered(t *testing.T) {
	for name, dead := range map[string]http.HandlerFunc{
		"500":                    status(500),
		"an error in the stream": sse(headers, "data: {\"error\":{\"message\":\"EngineCore encountered an issue.\",\"code\":500}}\n\n", done),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.backends[0].set(func(b *fakeVLLM) { b.sick = true })
				for range 4 {
					if resp, body := r.mustPost("/v1/chat/completions", ask); resp.StatusCode != 200 {
						t.Errorf("%d %s", resp.StatusCode, body)
					}
				}
				r.want(0, "gateway_backend_up", "backend", "vllm-0:8000")
				r.want(1, "gateway_retries_total")
				r.want(4, "gateway_requests_total", "outcome", "ok")
			}, dead, sse(role, token("a"), stop, done))
		})
	}
}

// What the engine has said is the answer, if the other backend says less.
func TestDeadEngineAlone(t *testing.T) {
	const event = `data: {"error":{"message":"EngineCore encountered an issue.","code":500}}` + "\n\n"
	inBubble(t, func(r *rig) {
		r.backends[0].set(func(b *fakeVLLM) { b.sick = true })
		resp, body := r.mustPost("/v1/chat/completions", ask)
		if resp.StatusCode != 500 || !strings.Contains(body, "EngineCore") {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		r.want(1, "gateway_retries_total")
	}, sse(headers, event, done), sse(abort))
}

// A backend that nobody has asked yet is better than one whose engine is dead.
func TestDeadEngineBesideAnUnknown(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.backends[0].set(func(b *fakeVLLM) { b.sick = true })
		r.g.pool.setState(r.g.pool.backends[1], unknown, "")
		if resp, body := r.mustPost("/v1/chat/completions", ask); resp.StatusCode != 200 {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}, status(500), sse(role, token("a"), stop, done))
}

// Whether the engine lives is a question of a second at most; slow is not dead.
func TestSlowHealthAfterA500(t *testing.T) {
	inBubble(t, func(r *rig) {
		for _, b := range r.backends {
			b.set(func(b *fakeVLLM) { b.slow = 4 * time.Second })
		}
		start := time.Now()
		if resp, _ := r.mustPost("/v1/chat/completions", ask); resp.StatusCode != 500 || time.Since(start) != time.Second {
			t.Errorf("%d after %v; want 500 after 1s", resp.StatusCode, time.Since(start))
		}
		r.want(0, "gateway_retries_total")

		ctx, leave := context.WithTimeout(r.t.Context(), time.Second/2)
		defer leave()
		if _, err := r.postAs(ctx, "/v1/chat/completions", ask); err == nil {
			t.Error("an answer to a client that has left")
		}
		synctest.Wait()
		r.want(1, "gateway_requests_total", "outcome", "cancelled")
		r.want(1, "gateway_cancelled_requests_total", "phase", "before_first_byte")
	}, status(500), status(500))
}

// Where there is no other backend the question would be idle.
func TestOneBackendIsNotQuestioned(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.backends[0].set(func(b *fakeVLLM) { b.slow = 4 * time.Second })
		start := time.Now()
		if resp, _ := r.mustPost("/v1/chat/completions", ask); resp.StatusCode != 500 || time.Since(start) != 0 {
			t.Errorf("%d after %v; want 500 at once", resp.StatusCode, time.Since(start))
		}
	}, status(500))
}

// Two tries are enough: what fails twice is told, as the last backend told it.
func TestTriesAreBounded(t *testing.T) {
	inBubble(t, func(r *rig) {
		resp, _ := r.mustPost("/v1/chat/completions", ask)
		if resp.StatusCode != 503 {
			t.Errorf("status %d; want 503", resp.StatusCode)
		}
		total := 0
		for _, b := range r.backends {
			total += len(b.requests())
		}
		if total != 2 {
			t.Errorf("%d attempts; want 2", total)
		}
		r.want(2, "gateway_upstream_errors_total", "cause", causeStatus)
	}, status(503), status(503), status(503))
}

// A refusal that says when to come again is not traded for the news that the
// other backend is gone.
func TestRefusalOutlivesADeadBackend(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.backends[1].kill()
		for range 2 { // not known to be down, and known
			resp, body := r.mustPost("/v1/chat/completions", ask)
			if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "7" || !strings.Contains(body, "from the backend") {
				t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
			}
		}
		r.want(1, "gateway_retries_total")
		r.want(2, "gateway_requests_total", "outcome", "backend_error", "status", "5xx")
	}, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Retry-After", "7")
		status(503)(w, req)
	}, named("x"))
}

// A pooled connection that breaks as a request goes out on it is nobody's
// trouble.
func TestBrokenPooledConnectionIsNoError(t *testing.T) {
	seen := map[string]bool{}
	inBubble(t, func(r *rig) {
		for range 5 {
			r.mustGet("/version") // leaves a connection in the pool
			if resp, _ := r.mustPost("/v1/chat/completions", ask); resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
			time.Sleep(5 * time.Second)
		}
		if n := len(r.backends[0].requests()); n != 15 {
			t.Errorf("5 requests were sent %d times; want each twice", n-5)
		}
		r.want(0, "gateway_upstream_errors_total")
	}, func(w http.ResponseWriter, req *http.Request) {
		if id := req.Header.Get("X-Request-Id"); req.Method == "POST" && !seen[id] {
			seen[id] = true
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, "x")
	})
}

// A request that breaks its connection is sent once more at most, however many
// idle connections there are.
func TestOneMoreTryOnAFreshConnection(t *testing.T) {
	inBubble(t, func(r *rig) {
		ended := make(chan bool)
		for range 50 {
			go func() {
				r.mustPost("/v1/chat/completions", ask, "Mode", "slow")
				ended <- true
			}()
		}
		for range 50 {
			<-ended
		}
		before := len(r.backends[0].requests())
		for _, header := range []string{"X-Nothing", "Idempotency-Key"} {
			if resp, _ := r.mustPost("/v1/chat/completions", ask, header, "1", "Mode", "break"); resp.StatusCode != 502 {
				t.Errorf("status %d", resp.StatusCode)
			}
		}
		if n := len(r.backends[0].requests()) - before; n != 4 {
			t.Errorf("two such requests were sent %d times; want 4", n)
		}
		r.backends[0].srv.SetKeepAlivesEnabled(false) // from here on every connection is fresh
		time.Sleep(time.Minute)
		r.mustPost("/v1/chat/completions", ask, "Mode", "break")
		if n := len(r.backends[0].requests()) - before; n != 5 {
			t.Errorf("on a fresh connection it was sent %d times; want once", n-4)
		}
		r.want(3, "gateway_upstream_errors_total")
	}, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Mode") == "break" {
			panic(http.ErrAbortHandler)
		}
		play(w, req, []any{time.Second, "x"})
	})
}

// Adapters come and go; the series of metrics do not pile up.
func TestKnownModelsAreBounded(t *testing.T) {
	inBubble(t, func(r *rig) {
		for round := range 10 {
			var models []string
			for i := range 100 {
				models = append(models, fmt.Sprintf("adapter-%d-%d", round, i))
			}
			r.backends[0].set(func(b *fakeVLLM) { b.models = models })
			time.Sleep(6 * time.Second)
		}
		if n := len(r.g.pool.models); n != maxKnown {
			t.Errorf("%d models are known; want %d", n, maxKnown)
		}
		r.mustPost("/v1/chat/completions", `{"model":"adapter-9-99"}`)
		r.mustPost("/v1/chat/completions", `{"model":"adapter-0-99"}`)
		r.want(1, "gateway_requests_total", "model", "other")
		r.want(1, "gateway_requests_total", "model", "adapter-0-99")
	}, answer200("application/json", `{}`))
}

// With one backend its 503 is the answer.
func TestOneBackendsRefusalIsPassedOn(t *testing.T) {
	inBubble(t, func(r *rig) {
		resp, body := r.mustPost("/v1/chat/completions", ask)
		if resp.StatusCode != 503 || !strings.Contains(body, "from the backend") {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		r.want(1, "gateway_requests_total", "status", "5xx", "outcome", "backend_error")
	}, status(503))
}

// A backend that is killed is noticed by the first request that meets it, is no
// longer asked, and is asked again soon after it is back.
func TestKilledBackend(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.backends[0].kill()
		for range 10 {
			if _, body := r.mustPost("/v1/chat/completions", ask); body != "second" {
				t.Errorf("answered by %q", body)
			}
		}
		r.want(0, "gateway_backend_up", "backend", "vllm-0:8000")
		r.want(1, "gateway_retries_total")
		_, body := r.mustGet("/health")
		var health struct {
			Status   string
			Backends []struct{ Backend, State, Trouble string }
		}
		json.Unmarshal([]byte(body), &health)
		if health.Status != "ok" || health.Backends[0].State != "down" || health.Backends[0].Trouble == "" || health.Backends[1].State != "up" {
			t.Errorf("/health says %s", body)
		}
		r.backends[0].start(t)
		time.Sleep(6 * time.Second)
		r.want(1, "gateway_backend_up", "backend", "vllm-0:8000")
	}, named("first"), named("second"))
}

// Killed under live streams: those without a token go on elsewhere, the others
// end in an error event; none ends silently.
func TestKillUnderLoad(t *testing.T) {
	early := func(token0 time.Duration) http.HandlerFunc {
		return sse(headers, role, token0, token("a"), time.Minute, stop, done)
	}
	inBubble(t, func(r *rig) {
		type end struct {
			body string
			err  error
		}
		ends := make(chan end)
		for range 200 {
			go func() {
				resp, err := r.post("/v1/chat/completions", ask)
				if err != nil {
					ends <- end{err: err}
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				ends <- end{string(body), err}
			}()
		}
		time.Sleep(10 * time.Second) // half of them run on each, all have a token but 100
		r.backends[0].kill()
		whole, failed := 0, 0
		for range 200 {
			switch e := <-ends; {
			case e.err == nil && strings.HasSuffix(e.body, done):
				whole++
			case e.err != nil && strings.HasSuffix(e.body, "\"code\":502}}\n\n"):
				failed++
			default:
				t.Errorf("a stream ended with %q, %v", e.body, e.err)
			}
		}
		if whole != 100 || failed != 100 {
			t.Errorf("%d whole, %d with an error event; want 100 and 100", whole, failed)
		}
	}, early(time.Second), early(time.Second))
	inBubble(t, func(r *rig) {
		ends := make(chan string)
		for range 200 {
			go func() {
				_, body := r.mustPost("/v1/chat/completions", ask)
				ends <- body
			}()
		}
		time.Sleep(10 * time.Second)
		r.backends[0].kill()
		for range 200 {
			if body := <-ends; !strings.HasSuffix(body, done) {
				t.Errorf("a stream without a token was lost: %q", body)
			}
		}
	}, early(time.Minute), early(time.Second))
}

// vLLM's server closes connections that have been idle for 5 s. A request that
// meets one as it closes is not the client's trouble.
func TestIdleCloseIsNoError(t *testing.T) {
	inBubble(t, func(r *rig) {
		for i := range 200 {
			if resp, _ := r.mustPost("/v1/chat/completions", ask); resp.StatusCode != 200 {
				t.Fatalf("request %d: %d", i, resp.StatusCode)
			}
			r.backends[0].srv.SetKeepAlivesEnabled(false) // closes what is idle
			r.backends[0].srv.SetKeepAlivesEnabled(true)
			if i%2 == 0 {
				time.Sleep(time.Duration(i) * 50 * time.Millisecond)
			}
		}
		r.want(0, "gateway_upstream_errors_total")
	}, named("x"))
}

// Least in flight by our own count; equals share.
func TestLeastInFlight(t *testing.T) {
	slow := sse(role, token("a"), 10*time.Second, stop, done)
	inBubble(t, func(r *rig) {
		for range 30 {
			go r.mustPost("/v1/chat/completions", ask)
			time.Sleep(time.Millisecond)
		}
		for _, b := range r.backends {
			r.want(10, "gateway_backend_in_flight", "backend", b.addr)
		}
		time.Sleep(time.Minute)
		for range 9 { // one after the other
			r.mustPost("/v1/chat/completions", ask)
		}
		for _, b := range r.backends {
			if n := len(b.requests()); n != 13 {
				t.Errorf("%s got %d requests; want 13", b.addr, n)
			}
		}
	}, slow, slow, slow)
}

// A backend that is slow to finish gets less.
func TestSlowBackendGetsLess(t *testing.T) {
	inBubble(t, func(r *rig) {
		ended := make(chan bool)
		for range 20 {
			go func() {
				r.mustPost("/v1/chat/completions", ask)
				ended <- true
			}()
			time.Sleep(time.Second)
		}
		for range 20 {
			<-ended
		}
		if slow, fast := len(r.backends[0].requests()), len(r.backends[1].requests()); slow != 1 || fast != 19 {
			t.Errorf("the slow one got %d, the fast one %d; want 1 and 19", slow, fast)
		}
	}, sse(role, token("a"), time.Minute, stop, done), sse(role, token("a"), 500*time.Millisecond, stop, done))
}

// /health turns with the backends, and says why.
func TestHealth(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.want(1, "gateway_backend_up")
		r.backends[0].set(func(b *fakeVLLM) { b.sick = true })
		time.Sleep(6 * time.Second)
		r.want(0, "gateway_backend_up")
		if resp, body := r.mustGet("/health"); resp.StatusCode != 503 || !strings.Contains(body, `"trouble":"/health answers 503"`) {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		r.backends[0].set(func(b *fakeVLLM) { b.sick = false })
		time.Sleep(2 * time.Second)
		if resp, body := r.mustGet("/health"); resp.StatusCode != 200 || !strings.Contains(body, `"state":"up"`) {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}, named("x"))
}

// Slow is not dead: a server whose event loop stalls keeps its place.
func TestSlowHealthIsNotDown(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.backends[0].set(func(b *fakeVLLM) { b.slow = time.Minute })
		time.Sleep(30 * time.Second)
		r.want(1, "gateway_backend_up")
		if resp, body := r.mustGet("/health"); resp.StatusCode != 200 || !strings.Contains(body, "no answer to /health within 5s") {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}, named("x"))
}

// One backend: its list, byte for byte. Several: each model once.
func TestModels(t *testing.T) {
	inBubble(t, func(r *rig) {
		if _, got := r.mustGet("/v1/models"); got != `{"object":"list","data":[{"id":"tiny","object":"model"}]}` {
			t.Errorf("one backend: %s", got)
		}
		r.want(1, "gateway_requests_total", "path", "/v1/models", "model", "", "outcome", "ok")
	}, named(""))
	inBubble(t, func(r *rig) {
		r.backends[1].set(func(b *fakeVLLM) { b.models = []string{"tiny", "large"} })
		const both = `{"object":"list","data":[{"id":"tiny","object":"model"},{"id":"large","object":"model"}]}`
		if resp, got := r.mustGet("/v1/models"); got != both || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("two backends: %s", got)
		}
		r.backends[0].set(func(b *fakeVLLM) { b.sick = true })
		r.backends[2].kill()
		time.Sleep(6 * time.Second)
		if _, got := r.mustGet("/v1/models"); got != both {
			t.Errorf("one of them usable: %s", got)
		}
		r.backends[0].kill()
		r.backends[1].kill()
		if resp, _ := r.mustGet("/v1/models"); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("none of them usable: %d", resp.StatusCode)
		}
	}, named(""), named(""), named(""))
}

// Names that clients invent make no series.
func TestModelLabelIsBounded(t *testing.T) {
	inBubble(t, func(r *rig) {
		families := func() int {
			n := 0
			synctest.Wait()
			all, _ := r.g.metrics.registry.Gather()
			for _, f := range all {
				n += len(f.Metric)
			}
			return n
		}
		r.mustPost("/v1/chat/completions", `{"model":"invented"}`)
		before := families()
		for i := range 500 {
			r.mustPost("/v1/chat/completions", fmt.Sprintf(`{"model":"invented-%d"}`, i), "X-Request-Id", fmt.Sprint("id-", i))
			r.mustGet(fmt.Sprint("/invented/", i))
		}
		if after := families(); after != before {
			t.Errorf("%d series grew to %d", before, after)
		}
		r.want(501, "gateway_requests_total", "model", "other")
		r.mustPost("/v1/chat/completions", `{"model":"`+strings.Repeat("long", 1000)+`"}`)
		if strings.Contains(r.logged(), strings.Repeat("long", 40)) {
			t.Error("a client's words fill the log")
		}
	}, answer200("application/json", `{}`))
}
