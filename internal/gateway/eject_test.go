package gateway

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// failing breaks every request while it is told to; its /health is 200.
type failing struct {
	http.HandlerFunc
	bad atomic.Bool
}

func breaks(how http.HandlerFunc) *failing {
	f := &failing{}
	f.bad.Store(true)
	f.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
		if f.bad.Load() {
			how(w, r)
			return
		}
		named("mended")(w, r)
	}
	return f
}

// A backend whose /health is fine and whose answers are not is passed over after
// three requests that others could answer. From time to time one request tries it,
// ever more rarely; the first that is answered has it back.
func TestEjection(t *testing.T) {
	for name, how := range map[string]http.HandlerFunc{"reset": sse(headers, abort), "503": status(503), "429": status(429), "cut": sse(headers, role)} {
		t.Run(name, func(t *testing.T) {
			bad := breaks(how)
			inBubble(t, func(r *rig) {
				ask := func(seconds int) {
					for range seconds * 10 {
						if resp, body := r.mustPost("/v1/chat/completions", ask); resp.StatusCode != 200 {
							t.Errorf("%d %s", resp.StatusCode, body)
						}
						time.Sleep(100 * time.Millisecond)
					}
				}
				ask(1)
				if n := len(r.backends[0].requests()); n != maxStrikes/proven {
					t.Errorf("it got %d requests in the first second; want %d", n, maxStrikes/proven)
				}
				if _, states := r.health(); states["vllm-0:8000"] != "ejected" {
					t.Errorf("/health: %v", states)
				}
				ask(200)
				trials := len(r.backends[0].requests()) - maxStrikes/proven
				if trials < 8 || trials > 14 { // after 1, 2, 4, 8, 16, 30, 30, … s, each a quarter more or less
					t.Errorf("it was tried %d times in 200 s", trials)
				}
				r.want(float64(trials+1), "gateway_backend_ejections_total", "backend", "vllm-0:8000")
				bad.bad.Store(false)
				ask(40)
				if _, states := r.health(); states["vllm-0:8000"] != "up" {
					t.Errorf("/health: %v", states)
				}
				before := len(r.backends[0].requests())
				ask(2)
				if n := len(r.backends[0].requests()) - before; n != 10 {
					t.Errorf("mended, it got %d of 20 requests", n)
				}
			}, bad.ServeHTTP, named("good"))
		})
	}
}

// One request at a time tries a backend that was ejected, however many there are.
func TestTrialIsOneRequest(t *testing.T) {
	var now, most atomic.Int32
	bad := breaks(func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		play(w, r, []any{headers, time.Second, abort})
	})
	inBubble(t, func(r *rig) {
		for range maxStrikes / proven {
			r.mustPost("/v1/chat/completions", ask)
			r.mustPost("/v1/chat/completions", ask)
		}
		if _, states := r.health(); states["vllm-0:8000"] != "ejected" {
			t.Fatalf("/health: %v", states)
		}
		most.Store(0)
		var all ends
		for range 200 {
			for range 3 {
				all.send(r, "")
			}
			time.Sleep(50 * time.Millisecond)
		}
		for _, e := range all.all() {
			if e.code != 200 {
				t.Errorf("%d after %v", e.code, e.after)
			}
		}
		if most.Load() != 1 {
			t.Errorf("%d requests at a time tried it", most.Load())
		}
	}, bad.ServeHTTP, sse(role, token("a"), 100*time.Millisecond, stop, done))
}

// What fails everywhere is the request's own fault, and ejects nobody.
func TestPoisonEjectsNobody(t *testing.T) {
	poison := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Mode") == "poison" {
			play(w, r, []any{headers, abort})
		}
		named("x")(w, r)
	}
	inBubble(t, func(r *rig) {
		for range 50 {
			if resp, _ := r.mustPost("/v1/chat/completions", ask, "Mode", "poison"); resp.StatusCode != 502 {
				t.Errorf("status %d", resp.StatusCode)
			}
			if resp, _ := r.mustPost("/v1/chat/completions", ask); resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
		}
		r.want(0, "gateway_backend_ejections_total")
		for _, b := range r.backends {
			if n := len(b.requests()); n < 25 {
				t.Errorf("%s got %d requests", b.addr, n)
			}
		}
	}, poison, poison, poison)
}

// Nor does what a client asks wrongly.
func TestClientErrorsEjectNobody(t *testing.T) {
	for _, code := range []int{400, 401, 404, 413, 422, 500} {
		inBubble(t, func(r *rig) {
			for range 20 {
				r.mustPost("/v1/chat/completions", ask)
			}
			r.want(0, "gateway_backend_ejections_total")
			r.want(0, "gateway_retries_total")
		}, status(code), named("x"))
	}
}

// A backend that fails to generate is passed over though it has other things to say.
func TestLightAnswersProveNothing(t *testing.T) {
	inBubble(t, func(r *rig) {
		for range 40 {
			r.mustPost("/v1/chat/completions", ask)
			r.mustPost("/tokenize", ask)
			r.mustGet("/version")
		}
		r.want(1, "gateway_backend_ejections_total", "backend", "vllm-0:8000")
	}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/chat/completions" {
			status(503)(w, r)
			return
		}
		named("x")(w, r)
	}, named("x"))
}

// A crash is one failure, however many requests it has met: the backend is tried
// again a second later, not when all of them have been counted.
func TestACrashIsOneEjection(t *testing.T) {
	var crashed atomic.Bool
	inBubble(t, func(r *rig) {
		var all ends
		for range 200 {
			all.send(r, "")
		}
		all.all()
		r.want(1, "gateway_backend_ejections_total", "backend", "vllm-0:8000")
		crashed.Store(true)
		time.Sleep(1300 * time.Millisecond)
		for range 2 {
			r.mustPost("/v1/chat/completions", ask)
		}
		if _, states := r.health(); states["vllm-0:8000"] != "up" {
			t.Errorf("/health: %v", states)
		}
	}, func(w http.ResponseWriter, r *http.Request) {
		if !crashed.Load() {
			play(w, r, []any{headers, 10 * time.Second, abort})
		}
		named("back")(w, r)
	}, answer200("text/plain", 5*time.Second, "x"))
}

// A backend that a request has found dead is asked every second from then on.
func TestDeadBackendIsAskedSoon(t *testing.T) {
	for range 20 { // somewhere between two probes
		inBubble(t, func(r *rig) {
			time.Sleep(time.Duration(rand.IntN(5000)) * time.Millisecond)
			r.backends[0].kill()
			for range 2 {
				r.mustPost("/v1/chat/completions", ask)
			}
			if _, states := r.health(); states["vllm-0:8000"] != "down" {
				t.Errorf("/health: %v", states)
			}
			r.backends[0].start(t)
			time.Sleep(1200 * time.Millisecond)
			if _, states := r.health(); states["vllm-0:8000"] != "up" {
				t.Errorf("/health: %v", states)
			}
		}, named("x"), named("y"))
	}
}

// Slow is not dead: a backend that lets its time pass is not passed over.
func TestSlowIsNotEjected(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.FirstByteTimeout = 5 * time.Second }, func(r *rig) {
		var all ends
		for range 40 {
			all.send(r, "")
		}
		for _, e := range all.all() {
			if e.code != 200 && e.code != 504 {
				t.Errorf("%d", e.code)
			}
		}
		r.want(0, "gateway_backend_ejections_total")
	}, sse(hang), named("x"))
}

// At most half of the backends of a model are passed over at a time, and so never
// the last one.
func TestEjectionIsBounded(t *testing.T) {
	inBubble(t, func(r *rig) {
		for range 200 {
			r.post("/v1/chat/completions", ask)
			time.Sleep(50 * time.Millisecond)
		}
		_, states := r.health()
		out := 0
		for _, s := range states {
			if s == "ejected" {
				out++
			}
		}
		if out != 2 {
			t.Errorf("%d of five are passed over: %v", out, states)
		}
	}, status(503), status(503), status(503), named("x"), named("x"))
	inBubble(t, func(r *rig) { // the only one of its model
		r.backends[0].set(func(b *fakeVLLM) { b.models = []string{"alone"} })
		time.Sleep(6 * time.Second)
		for range 20 {
			if resp, _ := r.mustPost("/v1/chat/completions", `{"model":"alone"}`); resp.StatusCode != 503 {
				t.Errorf("status %d", resp.StatusCode)
			}
		}
		if n := len(r.backends[0].requests()); n != 20 {
			t.Errorf("the last one got %d of 20 requests", n)
		}
	}, status(503), named("x"))
}

// While all backends fail, each request is sent once and hardly more; one that has
// just died costs nobody anything, however much ran on it.
func TestRetryBudget(t *testing.T) {
	var down atomic.Bool
	flaky := func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			status(503)(w, r)
			return
		}
		named("x")(w, r)
	}
	inBubble(t, func(r *rig) {
		down.Store(true)
		for range 1000 {
			if resp, _ := r.mustPost("/v1/chat/completions", ask); resp.StatusCode != 503 {
				t.Errorf("status %d", resp.StatusCode)
			}
		}
		sent := len(r.backends[0].requests()) + len(r.backends[1].requests())
		if sent != 1000+budgetSize/failedCost {
			t.Errorf("1000 requests became %d", sent)
		}
		r.want(980, "gateway_retries_withheld_total")
		down.Store(false)
		for range 100 { // what is answered fills the budget again
			r.mustPost("/v1/chat/completions", ask)
		}
		down.Store(true)
		before := r.metric("gateway_retries_total")
		for range 100 {
			r.mustPost("/v1/chat/completions", ask)
		}
		if n := r.metric("gateway_retries_total") - before; n != 10 {
			t.Errorf("%v retries after a hundred good answers; want 10", n)
		}
	}, flaky, flaky)
	inBubble(t, func(r *rig) {
		var all ends
		for range 400 {
			all.send(r, "")
		}
		r.backends[0].kill()
		for _, e := range all.all() {
			if e.code != 200 || !strings.HasSuffix(e.body, done) {
				t.Errorf("%d %q", e.code, e.body)
			}
		}
		r.want(200, "gateway_retries_total")
	}, sse(headers, time.Minute, role, token("a"), stop, done), sse(headers, time.Minute, role, token("a"), stop, done))
}

// A trial that has succeeded is over, however long its stream goes on.
func TestOldTrialHoldsNobodyBack(t *testing.T) {
	p := poolOf(LeastInFlight, 2, 0)
	a, b := p.backends[0], p.backends[1]
	a.passive.eject(time.Now().Add(-time.Minute))
	long := p.give(a, &want{})
	p.answered(a, nil, time.Time{})
	for range maxStrikes / proven {
		p.answered(b, []*backend{a}, time.Now())
	}
	if !a.passive.holds() {
		t.Fatal("it is not passed over")
	}
	a.passive.until = time.Now().Add(-time.Minute) // the pause is over
	if a.passive.holds() {
		t.Error("it is passed over for as long as the old stream runs")
	}
	trial := p.give(a, &want{})
	long.release()
	if a.passive.trial != trial {
		t.Error("the end of the old stream has ended the new trial")
	}
	trial.release()
	if p.give(b, &want{}); p.give(a, &want{light: true}) == nil || a.passive.trial != nil {
		t.Error("a light request is a trial")
	}
}

// A trial that its client ends has shown nothing, and the next request tries.
func TestTrialThatIsLeft(t *testing.T) {
	bad := breaks(sse(headers, abort))
	inBubble(t, func(r *rig) {
		for range 2 * maxStrikes / proven {
			r.mustPost("/v1/chat/completions", ask)
		}
		bad.HandlerFunc = sse(hang)
		time.Sleep(2 * time.Second)
		for range 3 {
			ctx, leave := context.WithCancel(r.t.Context())
			go r.postAs(ctx, "/v1/chat/completions", ask)
			synctest.Wait()
			r.want(1, "gateway_backend_in_flight", "backend", "vllm-0:8000")
			leave()
			synctest.Wait()
			r.mustPost("/v1/chat/completions", ask) // the other's turn
		}
	}, func(w http.ResponseWriter, r *http.Request) { bad.HandlerFunc(w, r) }, named("x"))
}
