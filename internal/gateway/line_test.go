package gateway

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// capped has a line before backends that take so many at a time.
func capped(n, waiting int) func(*Config) {
	return func(c *Config) { c.MaxInFlight, c.MaxWaiting = n, waiting }
}

// aSecond answers after a second.
var aSecond = answer200("text/plain", time.Second, "x")

// ends collects how requests ended, in that order.
type ends struct {
	mu   sync.Mutex
	wg   sync.WaitGroup
	list []ended
}

type ended struct {
	name  string
	code  int
	after time.Duration
	retry string
	body  string
}

// send begins a request and notes its end.
func (e *ends) send(r *rig, name string, header ...string) {
	start := time.Now()
	e.wg.Go(func() {
		resp, err := r.post("/v1/chat/completions", `{"model":"tiny"}`, header...)
		if err != nil {
			r.t.Error(err)
			return
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		e.mu.Lock()
		defer e.mu.Unlock()
		e.list = append(e.list, ended{name, resp.StatusCode, time.Since(start), resp.Header.Get("Retry-After"), string(body)})
	})
	synctest.Wait() // it runs, or waits: the order of requests is that of the calls
}

func (e *ends) all() []ended {
	e.wg.Wait()
	return e.list
}

func as(caller string) []string { return []string{"Authorization", "Bearer " + caller} }

// A caller with 500 requests in the line and one with a single one: that one is
// served next.
func TestFairness(t *testing.T) {
	inBubbleWith(t, capped(2, 1000), func(r *rig) {
		var many, one ends
		for i := range 500 {
			many.send(r, fmt.Sprint(i), as("many")...)
		}
		r.want(498, "gateway_waiting_line")
		r.want(2, "gateway_backend_in_flight")
		time.Sleep(100 * time.Millisecond)
		one.send(r, "one", as("one")...)
		if got := one.all()[0]; got.code != 200 || got.after != 1900*time.Millisecond { // a slot is free 0.9 s later, and then it takes its second
			t.Errorf("the one was answered %d after %v", got.code, got.after)
		}
		list := many.all()
		if len(list) != 500 {
			t.Errorf("%d of the others were answered", len(list))
		}
		for _, e := range list {
			if e.code != 200 {
				t.Errorf("request %s: %d", e.name, e.code)
			}
		}
		if got := list[499].after; got < 250*time.Second || got > 252*time.Second {
			t.Errorf("501 seconds of work on two slots were done after %v", got)
		}
	}, aSecond)
}

// Slots are shared by callers, not by requests: whoever has less running is next.
func TestSlotsAreSharedByCallers(t *testing.T) {
	inBubbleWith(t, capped(4, 1000), func(r *rig) {
		var all ends
		for i := range 40 {
			for _, caller := range []string{"a", "b"} {
				if caller == "a" || i < 10 {
					all.send(r, caller, as(caller)...)
				}
			}
		}
		count := map[string]int{}
		for _, e := range all.all()[:20] { // five rounds
			count[e.name]++
		}
		if count["a"] != 10 || count["b"] != 10 {
			t.Errorf("of the first 20 answers %v", count)
		}
	}, aSecond)
}

// Of many callers the one with the least running is next, and of those with the same
// the one that came first.
func TestNextHasTheLeastRunning(t *testing.T) {
	for range 20 { // rows are in no order
		p := poolOf(LeastInFlight, 1, 100)
		running := map[uint64]int{}
		for i := range 50 {
			caller := uint64(i)
			running[caller] = 5 - i%5
			p.line.enter(&want{caller: caller, seq: 1 + i}, nil)
		}
		for i := range 50 {
			next := p.line.next(running, func(*waiter) bool { return true })
			if want := uint64(4 + i*5%50 - i*5/50); next.caller != want {
				t.Fatalf("number %d is caller %d, who has %d running; want %d", i, next.caller, running[next.caller], want)
			}
			p.line.serve(next)
		}
	}
}

// A client that leaves at the very moment at which it is called gives the backend
// back.
func TestCalledAndGone(t *testing.T) {
	gone, leave := context.WithCancel(t.Context())
	leave()
	for range 100 { // which of the two is seen first is a matter of chance
		p := poolOf(LeastInFlight, 1, 1)
		me := p.line.enter(&want{seq: 1}, nil)
		p.callUp(p.backends[0])
		if p.backends[0].inFlight != 1 {
			t.Fatal("nobody was called")
		}
		if l, err := p.wait(gone, me); l != nil {
			l.release()
		} else if err != errGone {
			t.Errorf("%v; want %v", err, errGone)
		}
		if p.backends[0].inFlight != 0 {
			t.Fatal("the backend was not given back")
		}
	}
}

// How many are ahead is the least that it can be: others take turns.
func TestAhead(t *testing.T) {
	p := poolOf(LeastInFlight, 1, 1)
	for i := range 100 {
		p.line.enter(&want{caller: 1, priority: normal, seq: 1 + i}, nil)
	}
	for i := range 3 {
		p.line.enter(&want{caller: 2, priority: normal, seq: 200 + i}, nil)
	}
	for _, tt := range []struct {
		caller   uint64
		priority priority
		ahead    int
	}{{1, normal, 103}, {2, normal, 6}, {3, normal, 0}, {1, high, 0}, {2, low, 0}} {
		if got := p.line.ahead(&want{caller: tt.caller, priority: tt.priority}); got != tt.ahead {
			t.Errorf("caller %d, priority %d: %d are ahead; want %d", tt.caller, tt.priority, got, tt.ahead)
		}
	}
}

// Within one caller's row who came first is served first.
func TestLineIsInOrder(t *testing.T) {
	inBubbleWith(t, capped(1, 100), func(r *rig) {
		var all ends
		for i := range 20 {
			all.send(r, fmt.Sprint(i))
		}
		for i, e := range all.all() {
			if e.name != fmt.Sprint(i) || e.after != time.Duration(i+1)*time.Second {
				t.Errorf("answer %d was for request %s, after %v", i, e.name, e.after)
			}
		}
		r.want(20, "gateway_waiting_seconds_count")
		r.want(190, "gateway_waiting_seconds_sum") // 0 + 1 + … + 19
		r.want(0, "gateway_overhead_seconds_sum")  // waiting is none
		if log := r.logged(); !strings.Contains(log, `"waited_s":19`) {
			t.Errorf("the log does not tell the wait: %s", log)
		}
	}, aSecond)
}

// Priorities share the turns 16 : 4 : 1 while all of them wait, and none starves.
func TestPriorities(t *testing.T) {
	inBubbleWith(t, capped(1, 1000), func(r *rig) {
		var all ends
		all.send(r, "first")
		for range 64 {
			for _, p := range []string{"low", "Normal", "HIGH"} {
				all.send(r, strings.ToLower(p), "X-Priority", p)
			}
		}
		count := map[string]int{}
		for _, e := range all.all()[1 : 1+42] {
			count[e.name]++
		}
		if count["high"] != 32 || count["normal"] != 8 || count["low"] != 2 {
			t.Errorf("of the first 42 answers %v; want 32 high, 8 normal, 2 low", count)
		}
		resp, body := r.mustPost("/v1/chat/completions", ask, "X-Priority", "urgent")
		if resp.StatusCode != 400 || !strings.Contains(body, "high, normal or low") {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}, aSecond)
}

// A priority that was away has saved up no turns.
func TestPriorityThatWasAway(t *testing.T) {
	inBubbleWith(t, capped(1, 1000), func(r *rig) {
		var all ends
		for range 40 {
			all.send(r, "high", "X-Priority", "high")
		}
		time.Sleep(32500 * time.Millisecond)
		for range 10 {
			all.send(r, "low", "X-Priority", "low")
		}
		list := all.all()
		low := slices.IndexFunc(list, func(e ended) bool { return e.name == "low" })
		if n := len(list); n != 50 || low < 33 || low > 34 || list[low+1].name != "high" {
			t.Errorf("the first low one of %d was answered as number %d", n, low)
		}
	}, aSecond)
}

// A full line refuses: with 429 whoever fills it, with 503 who comes to one that
// others fill. And it has room for a caller who has less in it than another: then
// the one with the most loses its last.
func TestFullLine(t *testing.T) {
	inBubbleWith(t, capped(1, 4), func(r *rig) {
		var all ends
		for i := range 6 {
			all.send(r, fmt.Sprint("a", i), as("a")...)
		}
		all.send(r, "b0", as("b")...)
		all.send(r, "b1", as("b")...)
		all.send(r, "b2", as("b")...) // two of each wait
		all.send(r, "c0", as("c")...) // and now two, one and one
		all.send(r, "d0", as("d")...)
		all.send(r, "e0", as("e")...) // one of each: nobody has more
		var got []string
		for _, e := range all.all() {
			got = append(got, fmt.Sprint(e.name, " ", e.code))
			if refused := e.code != 200; refused != (e.retry != "") {
				t.Errorf("%s: %d, Retry-After %q", e.name, e.code, e.retry)
			}
		}
		want := "a5 429, a4 429, a3 429, b2 429, b1 429, a2 429, e0 503, a0 200, a1 200, b0 200, c0 200, d0 200"
		if joined := strings.Join(got, ", "); joined != want {
			t.Errorf("got  %s\nwant %s", joined, want)
		}
		r.want(7, "gateway_refused_requests_total", "reason", lineFull)
		r.want(7, "gateway_requests_total", "outcome", "refused")
	}, aSecond)
}

// Nobody waits longer than the limit, and who would is refused at once, as soon as
// it is known how long a request takes.
func TestLongestWait(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.MaxInFlight, c.MaxWaiting, c.MaxWait = 1, 1000, 5500*time.Millisecond }, func(r *rig) {
		var first ends
		for i := range 10 { // nothing is known yet
			first.send(r, fmt.Sprint(i))
		}
		for _, e := range first.all() {
			var i int
			fmt.Sscan(e.name, &i)
			served := e.code == 200 && e.after == time.Duration(i+1)*time.Second
			late := e.code == 503 && e.after == 5500*time.Millisecond && e.retry != ""
			if i < 6 && !served || i >= 6 && !late {
				t.Errorf("request %s: %d after %v, Retry-After %q", e.name, e.code, e.after, e.retry)
			}
		}
		var second ends
		for i := range 20 {
			second.send(r, fmt.Sprint(i))
		}
		for _, e := range second.all() {
			var i int
			fmt.Sscan(e.name, &i)
			served := e.code == 200 && e.after == time.Duration(i+1)*time.Second
			late := e.code == 503 && e.after == 5500*time.Millisecond && e.retry != ""
			atOnce := e.code == 503 && e.after == 0 && e.retry == "1"
			if i < 6 && !served || i == 6 && !late || i > 6 && !atOnce {
				t.Errorf("request %s: %d after %v, Retry-After %q", e.name, e.code, e.after, e.retry)
			}
		}
	}, aSecond)
}

// Nobody is refused early who would have been served in time.
func TestEarlyRefusal(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.MaxInFlight, c.MaxWaiting, c.MaxWait = 2, 1000, 10*time.Second }, func(r *rig) {
		r.mustPost("/v1/chat/completions", ask)
		var all ends
		for i := range 60 {
			all.send(r, fmt.Sprint(i))
		}
		early, late := 0, 0
		for _, e := range all.all() {
			switch {
			case e.code == 200 && e.after > 12*time.Second:
				t.Errorf("request %s took %v", e.name, e.after)
			case e.code == 503 && e.after == 0:
				early++
			case e.code == 503 && e.after == 10*time.Second:
				late++
			}
		}
		// 2 run; 8 get their turn within 8 s, and 2 just as their time is up. What is
		// known when one comes is the least that it has to wait, so a few try in vain.
		if early+late < 48 || early+late > 50 || late > 4 {
			t.Errorf("of 60, %d were refused at once and %d after 10 s", early, late)
		}
	}, answer200("text/plain", 2*time.Second, "x"))
}

// A client that leaves is out of the line at that moment, and its place is not
// served.
func TestLeavingTheLine(t *testing.T) {
	inBubbleWith(t, capped(1, 100), func(r *rig) {
		var all ends
		all.send(r, "runs")
		ctx, leave := context.WithCancel(r.t.Context())
		for range 10 {
			go r.postAs(ctx, "/v1/chat/completions", `{"model":"tiny"}`)
		}
		r.want(10, "gateway_waiting_line")
		all.send(r, "stays")
		r.want(11, "gateway_waiting_line")
		leave()
		r.want(1, "gateway_waiting_line")
		for _, e := range all.all() {
			if e.code != 200 || e.after > 2*time.Second {
				t.Errorf("%s: %d after %v", e.name, e.code, e.after)
			}
		}
		if n := len(r.backends[0].requests()); n != 2 {
			t.Errorf("the backend got %d requests; want 2", n)
		}
		r.want(10, "gateway_cancelled_requests_total", "phase", beforeFirstByte)
	}, aSecond)
}

// However many of one priority have been served, and whether or not others waited
// meanwhile, nobody has saved up turns.
func TestNoTurnsAreSavedUp(t *testing.T) {
	for _, blocked := range []bool{false, true} { // low ones wait for what another model's backend has
		p := poolOf(LeastInFlight, 1, 1)
		may := func(w *waiter) bool { return w.model == "tiny" }
		if blocked {
			p.line.enter(&want{model: "other", caller: 2, priority: low, seq: 1}, nil)
		}
		for i := range 1600 {
			w := p.line.enter(&want{model: "tiny", caller: 1, priority: high, seq: 2 + i}, nil)
			if p.line.next(p.running, may) != w {
				t.Fatal("another one is next")
			}
			p.line.serve(w)
		}
		for i := range 500 {
			p.line.enter(&want{model: "tiny", caller: 2, priority: low, seq: 2000 + i}, nil)
		}
		first := p.line.enter(&want{model: "tiny", caller: 1, priority: high, seq: 9999}, nil)
		n := 0
		for w := p.line.next(p.running, may); w != first; w = p.line.next(p.running, may) {
			p.line.serve(w)
			n++
		}
		if n > 1 {
			t.Errorf("blocked %v: %d low requests were served before a high one", blocked, n)
		}
	}
}

// At the end of a drain those in the line are told.
func TestDrainEmptiesTheLine(t *testing.T) {
	inBubbleWith(t, capped(1, 100), func(r *rig) {
		var all ends
		all.send(r, "runs")
		all.send(r, "waits")
		ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
		defer cancel()
		r.g.Drain(ctx)
		for _, e := range all.all() {
			if e.code != 503 || e.after != 10*time.Second || !strings.Contains(e.body, "shutting down") {
				t.Errorf("%s: %d after %v: %s", e.name, e.code, e.after, e.body)
			}
		}
	}, answer200("text/plain", time.Hour, "x"))
}

// Whatever comes and goes: no backend has more than its cap, no slot is free while
// somebody waits for it, and in the end nothing is left. Every request is answered.
func TestLineUnderChaos(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.MaxInFlight, c.MaxWaiting, c.MaxWait = 3, 40, 20*time.Second }, func(r *rig) {
		rng := rand.New(rand.NewPCG(1, 2))
		var wg sync.WaitGroup
		for range 600 {
			caller, prio := fmt.Sprint(rng.IntN(5)), []string{"high", "normal", "low"}[rng.IntN(3)]
			stay := time.Duration(rng.IntN(30)) * time.Second
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(r.t.Context(), stay+time.Millisecond)
				defer cancel()
				resp, err := r.postAs(ctx, "/v1/chat/completions", `{"model":"tiny"}`, "Authorization", caller, "X-Priority", prio)
				if err != nil {
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if !slices.Contains([]int{200, 429, 502, 503}, resp.StatusCode) {
					t.Errorf("status %d", resp.StatusCode)
				}
			})
			time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
			synctest.Wait()
			p := &r.g.pool
			p.mu.Lock()
			idle := false
			for _, b := range p.backends {
				if b.inFlight > 3 {
					t.Errorf("%s has %d in flight", b.name, b.inFlight)
				}
				idle = idle || b.inFlight < 3 && b.state == up
			}
			if idle && p.line.total() > 0 && !slices.ContainsFunc(p.line.all(), func(w *waiter) bool { return len(w.tried) > 0 }) {
				t.Errorf("%d wait, and a backend is free", p.line.total())
			}
			p.mu.Unlock()
		}
		wg.Wait()
		synctest.Wait()
		p := &r.g.pool
		if p.line.total() != 0 || len(p.line.rows) != 0 || len(p.running) != 0 || p.line.length != [levels]int{} {
			t.Errorf("left behind: %d in line, rows %v, running %v", p.line.total(), p.line.rows, p.running)
		}
	}, chaos(1), chaos(2), chaos(3))
}

func chaos(seed uint64) http.HandlerFunc {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, seed))
	return func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		n, wait := rng.IntN(20), time.Duration(rng.IntN(3000))*time.Millisecond
		mu.Unlock()
		switch n {
		case 0:
			play(w, req, []any{wait, abort})
		case 1:
			play(w, req, []any{wait})
			status(503)(w, req)
		default:
			play(w, req, []any{wait, "x"})
		}
	}
}
