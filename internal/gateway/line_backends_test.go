package gateway

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// Who waits for another model does not stand in the way.
func TestLineOfTwoModels(t *testing.T) {
	inBubbleWith(t, capped(1, 100), func(r *rig) {
		r.backends[1].set(func(b *fakeVLLM) { b.models = []string{"other"} })
		time.Sleep(6 * time.Second)
		var all ends
		for i := range 5 {
			all.send(r, fmt.Sprint(i))
		}
		start := time.Now()
		for range 3 {
			if resp, body := r.mustPost("/v1/chat/completions", `{"model":"other"}`); resp.StatusCode != 200 || body != "other" {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("a free backend kept three requests waiting for %v", took)
		}
		all.all()
	}, aSecond, named("other"))
}

// What generates nothing does not wait for what does: a cancel least of all.
func TestLightRequestsDoNotWait(t *testing.T) {
	inBubbleWith(t, capped(1, 100), func(r *rig) {
		var all ends
		all.send(r, "runs")
		all.send(r, "waits")
		start := time.Now()
		for _, path := range []string{"/v1/models", "/version", "/v1/responses/resp_1"} {
			r.mustGet(path)
		}
		for _, path := range []string{"/v1/responses/resp_1/cancel", "/tokenize", "/v1/messages/count_tokens"} {
			r.mustPost(path, `{"model":"tiny"}`)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("they waited %v", took)
		}
		all.all()
	}, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/v1/chat/completions" {
			play(w, req, []any{time.Minute})
		}
		io.WriteString(w, "x")
	})
}

// Those in the line try a backend that was ejected when its time has come, though
// nothing else happens.
func TestLineTriesAnEjectedBackend(t *testing.T) {
	var calls atomic.Int32
	inBubbleWith(t, capped(1, 100), func(r *rig) {
		for range 2 * maxStrikes / proven {
			r.mustPost("/v1/chat/completions", ask)
		}
		if _, states := r.health(); states["vllm-0:8000"] != "ejected" {
			t.Fatalf("/health: %v", states)
		}
		calls.Store(100)
		var all ends
		all.send(r, "runs", "Mode", "long")
		all.send(r, "waits")
		for _, e := range all.all() {
			if e.name == "waits" && (e.code != 200 || e.after > 2*time.Second) {
				t.Errorf("%d after %v", e.code, e.after)
			}
		}
	}, func(w http.ResponseWriter, req *http.Request) {
		if calls.Load() < 100 {
			status(503)(w, req)
			return
		}
		named("mended")(w, req)
	}, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Mode") == "long" {
			play(w, req, []any{time.Hour})
		}
		named("x")(w, req)
	})
}

// A backend that a trial has proven is there for all that wait, at that moment.
func TestTrialWakesTheLine(t *testing.T) {
	bad, other := breaks(sse(headers, abort)), named("quick")
	long := sse(role, token("a"), time.Minute, stop, done)
	inBubbleWith(t, capped(4, 100), func(r *rig) {
		for range 2 * maxStrikes / proven {
			r.mustPost("/v1/chat/completions", ask)
		}
		if _, states := r.health(); states["vllm-0:8000"] != "ejected" {
			t.Fatalf("/health: %v", states)
		}
		bad.HandlerFunc, other = long, long
		var all ends
		for range 12 {
			all.send(r, "")
		}
		time.Sleep(3 * time.Second)
		r.want(4, "gateway_backend_in_flight", "backend", "vllm-0:8000")
		all.all()
	}, func(w http.ResponseWriter, req *http.Request) { bad.HandlerFunc(w, req) }, func(w http.ResponseWriter, req *http.Request) { other(w, req) })
}

// Those who wait for a model that is unloaded wait for nothing.
func TestModelUnloadedWhileWaiting(t *testing.T) {
	inBubbleWith(t, capped(1, 10), func(r *rig) {
		var all ends
		all.send(r, "runs")
		all.send(r, "waits")
		r.backends[0].set(func(b *fakeVLLM) { b.models = []string{"other"} })
		time.Sleep(6 * time.Second)
		r.want(0, "gateway_waiting_line")
		if list := all.all(); list[0].name != "waits" || list[0].code != 503 || list[1].code != 200 {
			t.Errorf("%+v", list)
		}
	}, answer200("text/plain", time.Minute, "x"))
}

// What comes free goes to a request that belongs there, if there is one among the
// next; and nobody is passed for such without end.
func TestLineKeepsWhatBelongsTogether(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.Routing, c.MaxInFlight, c.MaxWaiting = Session, 1, 1000 }, func(r *rig) {
		sessions := map[string][]string{} // by backend
		for i := 0; len(sessions["vllm-0:8000"]) < 5 || len(sessions["vllm-1:8000"]) < 5; i++ {
			s := fmt.Sprint(i)
			w := want{group: hash(hash(hashSeed, []byte("tiny\x00")), []byte(s)) | 1}
			for _, b := range r.g.pool.all() {
				if r.g.pool.belongs(&w, b) {
					sessions[b.name] = append(sessions[b.name], s)
				}
			}
		}
		var all ends
		for i := range 50 {
			for _, b := range r.backends {
				all.send(r, b.addr, "X-Session-Id", sessions[b.addr][i%5])
			}
		}
		home := 0
		for _, e := range all.all() {
			if e.body == e.name {
				home++
			}
		}
		if home < 95 {
			t.Errorf("%d of 100 requests got to the backend that has their session", home)
		}

		start := time.Now()
		var more ends
		more.send(r, "runs", "X-Session-Id", sessions["vllm-0:8000"][0])
		more.send(r, "runs", "X-Session-Id", sessions["vllm-1:8000"][0])
		for range 40 { // more than one backend can take in time
			more.send(r, "hot", "X-Session-Id", sessions["vllm-0:8000"][1])
		}
		for _, e := range more.all() {
			if e.code != 200 {
				t.Errorf("%s: %d", e.name, e.code)
			}
		}
		if took := time.Since(start); took != 21*time.Second {
			t.Errorf("42 requests of a second took two backends %v", took)
		}
	}, late(time.Second, named("vllm-0:8000")), late(time.Second, named("vllm-1:8000")))
}

// One that belongs elsewhere is passed a few times only.
func TestNobodyIsPassedForEver(t *testing.T) {
	p := poolOf(Session, 2, 1)
	group := map[int]uint64{} // by backend
	for i := 0; len(group) < 2; i++ {
		for j, b := range p.backends {
			if k := groupOf(i); p.belongs(&want{group: k}, b) {
				group[j] = k
			}
		}
	}
	p.line.max = 1000
	first := p.line.enter(&want{model: "tiny", group: group[1], seq: 1}, nil)
	served := 0
	for i := range 100 {
		p.line.enter(&want{model: "tiny", group: group[0], seq: 2 + i}, nil)
	}
	p.backends[1].inFlight = 1 // busy for good
	for ; len(first.called) == 0; served++ {
		p.backends[0].inFlight = 0
		p.callUp(p.backends[0])
	}
	if served != lookahead+1 {
		t.Errorf("it was served as number %d; want %d", served, lookahead+1)
	}
}

// A request that is tried again has waited: it is next.
func TestSecondAttemptIsNext(t *testing.T) {
	inBubbleWith(t, capped(1, 100), func(r *rig) {
		var all ends
		all.send(r, "broken")
		for i := range 6 {
			all.send(r, fmt.Sprint(i))
		}
		list := all.all()
		i := slices.IndexFunc(list, func(e ended) bool { return e.name == "broken" })
		if list[i].code != 200 || list[i].after != 6*time.Second { // the other backend is free after 3 s, and takes 3 s
			t.Errorf("the broken one: %d after %v, as number %d", list[i].code, list[i].after, i)
		}
	}, sse(headers, 2*time.Second, abort), answer200("text/plain", 3*time.Second, "x"))
}

// A backend that comes back is there for those who wait.
func TestLineSeesABackendComeUp(t *testing.T) {
	inBubbleWith(t, capped(1, 100), func(r *rig) {
		r.backends[1].set(func(b *fakeVLLM) { b.sick = true })
		time.Sleep(6 * time.Second)
		var all ends
		all.send(r, "runs")
		all.send(r, "waits")
		r.want(1, "gateway_waiting_line")
		r.backends[1].set(func(b *fakeVLLM) { b.sick = false })
		time.Sleep(2 * time.Second)
		r.want(0, "gateway_waiting_line")
		all.all()
	}, answer200("text/plain", time.Hour, "x"), named("y"))
}
