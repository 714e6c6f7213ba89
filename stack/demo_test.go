package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
	"github.com/vllm-gateway/vllm-gateway/internal/vllmsim"
)

// demoRig is demo → gateway → simulator in one bubble: real HTTP in memory, in
// virtual time.
type demoRig struct {
	t       *testing.T
	net     memnet.Net
	demo    *demo
	gateway *gateway.Gateway
	sim     *vllmsim.Server
	guest   *http.Client
	log     *lockedBuffer
	start   time.Time
	stop    func()       // ends the load and waits for it
	open    atomic.Int64 // connections to the gateway

	mu  sync.Mutex
	own []ownRequest
}

// ownRequest is one of the demo's, as the gateway got it.
type ownRequest struct {
	at     time.Duration
	path   string
	header http.Header
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const demoURL = "http://gateway:9000"

// withDemo runs a test beside a demo that has just begun, or is about to where
// late is set: then up serves the gateway.
func withDemo(t *testing.T, curve []level, late bool, test func(r *demoRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &demoRig{t: t, log: &lockedBuffer{}, start: time.Now()}
		logger := slog.New(slog.NewTextHandler(r.log, nil))
		var err error
		if r.sim, err = vllmsim.New(vllmsim.Config{}); err != nil {
			t.Fatal(err)
		}
		l, _ := r.net.Listen("sim:8000")
		simServer := &http.Server{Handler: r.sim}
		go simServer.Serve(l)
		r.gateway, err = gateway.New(gateway.Config{
			Backends: []string{"http://sim:8000"}, FirstByteTimeout: 10 * time.Minute, StreamIdleTimeout: 5 * time.Minute,
			MaxBody: 1 << 20, Version: "test", Log: slog.New(slog.DiscardHandler), Dial: r.net.Dial,
		})
		if err != nil {
			t.Fatal(err)
		}
		r.demo = newDemo(demoURL, logger)
		r.demo.curve = curve
		r.demo.client.Transport.(*http.Transport).DialContext = r.net.Dial
		transport := &http.Transport{DialContext: r.net.Dial}
		r.guest = &http.Client{Transport: transport}
		var down func()
		if !late {
			down = r.up()
			synctest.Wait() // the first probe is through
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			r.demo.run(ctx)
			close(ended)
		}()
		r.stop = func() {
			cancel()
			<-ended
		}
		test(r)
		r.stop()
		transport.CloseIdleConnections()
		drained, abandon := context.WithCancel(context.Background())
		abandon()
		r.gateway.Drain(drained)
		if down != nil {
			down()
		}
		r.sim.Close()
		simServer.Close()
	})
}

// up serves the gateway until the function that it returns is called.
func (r *demoRig) up() (down func()) {
	l, err := r.net.Listen("gateway:9000")
	if err != nil {
		r.t.Fatal(err)
	}
	srv := &http.Server{Handler: r.demo.wrap(http.HandlerFunc(r.see)), ConnState: func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			r.open.Add(1)
		case http.StateClosed:
			r.open.Add(-1)
		}
	}}
	go srv.Serve(l)
	return func() {
		r.net.Kill("gateway:9000")
		srv.Close()
	}
}

// see stands between wrap and the gateway.
func (r *demoRig) see(w http.ResponseWriter, req *http.Request) {
	if req.UserAgent() == "vllm-stack-demo" {
		r.mu.Lock()
		r.own = append(r.own, ownRequest{time.Since(r.start), req.URL.Path, req.Header.Clone()})
		r.mu.Unlock()
	}
	if req.URL.Path == "/v1/echo" { // a path of the test's own, for headers and long requests
		span, _ := time.ParseDuration(req.Header.Get("Span"))
		time.Sleep(span)
		req.Header.Write(w)
		return
	}
	r.gateway.ServeHTTP(w, req)
}

// ownBetween counts the demo's requests that came in a span.
func (r *demoRig) ownBetween(from, to time.Duration) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, o := range r.own {
		if o.at >= from && o.at < to {
			n++
		}
	}
	return n
}

func (r *demoRig) until(at time.Duration) { time.Sleep(at - time.Since(r.start)) }

// logged gives the lines of the log that hold a text.
func (r *demoRig) logged(text string) (lines []string) {
	synctest.Wait()
	for line := range strings.Lines(r.log.String()) {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

func (r *demoRig) wantLogged(n int, text string) {
	r.t.Helper()
	if got := r.logged(text); len(got) != n {
		r.t.Errorf("at %v: %d lines with %q; want %d. The log:\n%s", time.Since(r.start), len(got), text, n, r.log)
	}
}

// visit sends a guest's request and reads the answer.
func (r *demoRig) visit(path string, header ...string) string {
	r.t.Helper()
	req, _ := http.NewRequestWithContext(r.t.Context(), "GET", demoURL+path, nil)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.guest.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(body)
}

// samples are all series of a server's /metrics, with their labels.
func samples(t *testing.T, h http.Handler) map[string]float64 {
	t.Helper()
	w := &memoryWriter{header: http.Header{}}
	req, _ := http.NewRequest("GET", "http://x/metrics", nil)
	h.ServeHTTP(w, req)
	got := map[string]float64{}
	for line := range strings.Lines(w.body.String()) {
		at := strings.LastIndexByte(line, ' ')
		if v, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64); err == nil && !strings.HasPrefix(line, "#") {
			got[line[:at]] = v
		}
	}
	return got
}

type memoryWriter struct {
	header http.Header
	body   bytes.Buffer
}

func (w *memoryWriter) Header() http.Header               { return w.header }
func (w *memoryWriter) WriteHeader(int)                   {}
func (w *memoryWriter) Write(p []byte) (int, error)       { return w.body.Write(p) }
func (w *memoryWriter) SetReadDeadline(t time.Time) error { return nil }

// sum adds the series of a name whose labels hold all of the given texts.
func sum(got map[string]float64, name string, labels ...string) float64 {
	total := 0.0
	for series, v := range got {
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		if !slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(series, l) }) {
			total += v
		}
	}
	return total
}

// raceDetector makes everything ten times slower.
var raceDetector = sync.OnceValue(func() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
})

// loadChange is the detector of alerts/ on a queue that is read every 5 s: the
// last 15 s lie wholly above (+1) or below (-1) those that ended 25 s ago.
func loadChange(queue []float64, at int) int {
	const window, back = 3, 5
	if at < back+window-1 {
		return 0
	}
	now, before := queue[at-window+1:at+1], queue[at-back-window+1:at-back+1]
	switch {
	case slices.Min(now) > 1.5*slices.Max(before)+2:
		return 1
	case 1.5*slices.Max(now)+2 < slices.Min(before):
		return -1
	}
	return 0
}

// A cycle, as the dashboard will see it.
func TestDemoMovesTheDashboard(t *testing.T) {
	if raceDetector() {
		t.Skip("ten minutes of load take long under the race detector, which the other tests have")
	}
	cycle := time.Duration(0)
	for _, l := range demoCurve {
		cycle += l.span
	}
	if cycle != 10*time.Minute {
		t.Errorf("a cycle takes %v; the docs say ten minutes", cycle)
	}
	withDemo(t, demoCurve, false, func(r *demoRig) {
		var queue, waiting, duty []float64
		for at := 5 * time.Second; at <= cycle; at += 5 * time.Second {
			r.until(at)
			queue = append(queue, sum(samples(t, r.gateway), "gateway_queue_depth"))
			waiting = append(waiting, sum(samples(t, r.sim), "vllm:num_requests_waiting"))
			duty = append(duty, sum(samples(t, r.sim.GPUs()), "nvidia_gpu_duty_cycle", `gpu="0"`))
		}

		began := time.Duration(0)
		for i, l := range demoCurve {
			first, last := int(began/(5*time.Second)), int((began+l.span)/(5*time.Second))
			began += l.span
			first += 2 // come to rest
			q, w, g := average(queue[first:last]), average(waiting[first:last]), average(duty[first:last])
			t.Logf("%2d users for %v: queue %.1f (%v to %v), waiting %.1f, GPU %.0f %%", l.users, l.span, q,
				slices.Min(queue[first:last]), slices.Max(queue[first:last]), w, g)
			if l.users > 16 != (w > 0) && l.users != 20 {
				t.Errorf("%d users: %.1f requests wait in the engine", l.users, w)
			}
			if i == 0 {
				continue
			}
			// Each change is marked within the detector's reach, in its direction,
			// and nothing else is.
			want := 1
			if l.users < demoCurve[i-1].users {
				want = -1
			}
			var marks, wrong []string
			for at := first - 2; at < last; at++ {
				text := fmt.Sprintf("%+d after %d s", loadChange(queue, at), 5*(at-first+3))
				switch m := loadChange(queue, at); {
				case m == want && at-first+2 < 9:
					marks = append(marks, text)
				case m != 0:
					wrong = append(wrong, text)
				}
			}
			if len(marks) == 0 || len(wrong) > 0 {
				t.Errorf("from %d to %d users: marked %v, and wrongly %v", demoCurve[i-1].users, l.users, marks, wrong)
			}
		}

		end := samples(t, r.gateway)
		requests := sum(end, "gateway_requests_total")
		for outcome, limits := range map[string][2]float64{"ok": {.95, .99}, "client_error": {.005, .03}, "cancelled": {.005, .03}} {
			share := sum(end, "gateway_requests_total", fmt.Sprintf("outcome=%q", outcome)) / requests
			t.Logf("%s: %.2f %% of %.0f requests", outcome, 100*share, requests)
			if share < limits[0] || share > limits[1] {
				t.Errorf("%s: %.4f of the requests; want %v", outcome, share, limits)
			}
		}
		for _, cause := range []string{`status="2xx"`, `path="/v1/completions"`, `model="other"`, `model="TinyLlama/TinyLlama-1.1B-Chat-v1.0"`} {
			if sum(end, "gateway_requests_total", cause) == 0 {
				t.Errorf("no request with %s", cause)
			}
		}
		if n := sum(end, "gateway_upstream_errors_total"); n != 0 {
			t.Errorf("%v failures of the backend; want none", n)
		}
		streams := sum(end, "gateway_time_to_first_token_seconds_count")
		slow := 1 - sum(end, "gateway_time_to_first_token_seconds_bucket", `le="2"`)/streams
		t.Logf("%.0f streams, TTFT over 1 s: %.1f %%, over 2 s: %.2f %%; tokens: %.0f", streams,
			100*(1-sum(end, "gateway_time_to_first_token_seconds_bucket", `le="1"`)/streams), 100*slow, sum(end, "gateway_completion_tokens_total"))
		if slow > .01 {
			t.Errorf("%.1f %% of the streams wait longer than 2 s", 100*slow)
		}
		engine := samples(t, r.sim)
		if hits := sum(engine, "vllm:prefix_cache_hits_total") / sum(engine, "vllm:prefix_cache_queries_total"); hits < .2 || hits > .9 {
			t.Errorf("the prefix cache has %.2f of the prompts", hits)
		}
		for _, reason := range []string{"stop", "length"} {
			if sum(engine, "vllm:request_success_total", fmt.Sprintf("finished_reason=%q", reason)) == 0 {
				t.Errorf("no answer ends by %s", reason)
			}
		}
		if log := r.log.String(); log != "" {
			t.Errorf("a load that goes well logs:\n%s", log)
		}
	})
}

func average(values []float64) float64 {
	total := 0.0
	for _, v := range values {
		total += v
	}
	return total / float64(len(values))
}

var steady = []level{{6, time.Hour}}

func TestDemoMakesWay(t *testing.T) {
	withDemo(t, steady, false, func(r *demoRig) {
		r.until(20 * time.Second)
		if n := r.ownBetween(10*time.Second, 20*time.Second); n < 10 {
			t.Fatalf("%d requests in 10 s; want the load to run", n)
		}
		for _, path := range []string{"/metrics", "/health", "/version"} { // what Prometheus and probes ask
			r.visit(path)
		}
		r.wantLogged(0, "demo load")

		// Guests, one of them within another's, and one who comes shortly before
		// the demo would go on: from the first moment until 60 s after the last
		// end, nothing new is asked.
		var long sync.WaitGroup
		long.Go(func() { r.visit("/v1/echo", "Span", "100s") }) // 20 to 120 s
		r.until(30 * time.Second)
		if depth := sum(samples(t, r.gateway), "gateway_queue_depth"); depth != 0 {
			t.Errorf("10 s after the guest came %v of the demo's requests run; want them ended", depth)
		}
		r.visit("/v1/echo", "Span", "1s") // 30 to 31 s
		r.until(170 * time.Second)
		r.visit("/v1/echo", "Span", "30s") // 170 to 200 s
		r.wantLogged(1, "pauses")
		r.until(260*time.Second - 1)
		r.wantLogged(0, "goes on")
		r.until(260 * time.Second)
		r.wantLogged(1, "goes on")
		r.until(280 * time.Second)
		if n := r.ownBetween(20*time.Second+1, 260*time.Second); n != 0 {
			t.Errorf("%d of the demo's requests while guests were here", n)
		}
		if n := r.ownBetween(265*time.Second, 280*time.Second); n < 15 {
			t.Errorf("%d requests in 15 s; want the load to run again", n)
		}

		if n := r.ownBetween(260*time.Second, 260*time.Second+100*time.Millisecond); n > 3 {
			t.Errorf("%d of 6 users come back at the same moment", n)
		}

		// And the next time too.
		r.visit("/v1/models")
		r.until(400 * time.Second)
		r.wantLogged(2, "pauses")
		r.wantLogged(2, "goes on")
		if n := r.ownBetween(280*time.Second+1, 340*time.Second); n != 0 {
			t.Errorf("%d of the demo's requests while guests were here again", n)
		}

		// Who is about to come back turns round for a guest.
		r.visit("/v1/models") // at 400 s
		r.until(460*time.Second + 100*time.Millisecond)
		r.wantLogged(3, "goes on")
		r.visit("/v1/models")
		r.until(520 * time.Second)
		if n := r.ownBetween(460*time.Second+100*time.Millisecond+1, 520*time.Second); n != 0 {
			t.Errorf("%d of the demo's requests after a guest who came while it began", n)
		}
	})
}

// Guests that come and go at the very moment at which the demo would go on.
func TestGuestsKeepTheDemoAway(t *testing.T) {
	withDemo(t, steady, false, func(r *demoRig) {
		r.until(10 * time.Second)
		for n := range 20 {
			r.until(10*time.Second + time.Duration(n)*(makeWay-time.Nanosecond))
			r.visit("/v1/models")
		}
		r.wantLogged(1, "pauses")
		r.wantLogged(0, "goes on")
		if n := r.ownBetween(10*time.Second+1, time.Hour); n != 0 {
			t.Errorf("%d of the demo's requests", n)
		}
	})
}

// What a guest sends arrives as it was sent, even by a guest who knows the
// mark's name; what the demo sends arrives without the mark.
func TestMarkStaysInside(t *testing.T) {
	withDemo(t, steady, false, func(r *demoRig) {
		r.until(10 * time.Second)
		r.mu.Lock()
		own := slices.Clone(r.own)
		r.mu.Unlock()
		for _, o := range own {
			if _, ok := o.header[demoHeader]; ok {
				t.Fatalf("the gateway sees the mark on %s", o.path)
			}
		}
		got := r.visit("/v1/echo", demoHeader, "guess", "X-Request-Id", "mine", "Authorization", "Bearer k")
		for _, want := range []string{demoHeader + ": guess\r\n", "X-Request-Id: mine\r\n", "Authorization: Bearer k\r\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("the gateway does not see %q of a guest:\n%s", want, got)
			}
		}
		r.wantLogged(1, "pauses")
	})
	if a, b := newDemo("", nil), newDemo("", nil); a.token == b.token || len(a.token) < 20 {
		t.Errorf("marks %q and %q; want what nobody guesses", a.token, b.token)
	}
}

// A guest's handler that panics, as the gateway's does to break a connection,
// is a guest that has left.
func TestGuestEndsWithAPanic(t *testing.T) {
	d := newDemo("", slog.New(slog.DiscardHandler))
	h := d.wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	func() {
		defer func() {
			if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) {
				t.Errorf("panic with %v; want it passed on", err)
			}
		}()
		req, _ := http.NewRequest("POST", "http://x/v1/chat/completions", nil)
		h.ServeHTTP(nil, req)
	}()
	if d.guests != 0 || d.resume == nil {
		t.Errorf("guests %d, timer %v; want none, and a timer", d.guests, d.resume)
	}
	d.end()
}

func TestDemoEndsAtOnce(t *testing.T) {
	for _, test := range []struct {
		name  string
		guest bool
	}{{"under load", false}, {"while it makes way", true}} {
		t.Run(test.name, func(t *testing.T) {
			withDemo(t, []level{{30, time.Hour}}, false, func(r *demoRig) {
				r.until(20 * time.Second)
				if test.guest {
					r.visit("/v1/models")
				}
				r.stop()
				stacks := make([]byte, 1<<20)
				if stacks = stacks[:runtime.Stack(stacks, true)]; bytes.Contains(stacks, []byte("(*demo).user")) {
					t.Error("run has returned before its users")
				}
				if at := time.Since(r.start); at != 20*time.Second {
					t.Errorf("ended %v after it was told to", at-20*time.Second)
				}
				synctest.Wait()
				if depth := sum(samples(t, r.gateway), "gateway_queue_depth"); depth != 0 {
					t.Errorf("%v requests are left behind", depth)
				}
				if n := r.open.Load(); !test.guest && n != 0 {
					t.Errorf("%d connections are left behind", n)
				}
				lines := r.log.String()
				r.visit("/v1/models") // nobody is there to make way
				time.Sleep(2 * makeWay)
				if now := r.log.String(); now != lines {
					t.Errorf("logged after the end:\n%s", now[len(lines):])
				}
				r.wantLogged(0, "fail")
			})
		})
	}
}

func TestGatewayGoesAndComesBack(t *testing.T) {
	withDemo(t, steady, true, func(r *demoRig) {
		r.until(30 * time.Second) // it is not there yet
		r.wantLogged(1, "requests fail")
		down := r.up()
		r.until(90 * time.Second)
		r.wantLogged(1, "get through again")
		for n := range 2 {
			down()
			time.Sleep(3 * time.Minute)
			r.wantLogged(n+2, "requests fail")
			r.wantLogged(n+1, "get through again")
			down = r.up()
			back := time.Since(r.start)
			time.Sleep(time.Minute)
			r.wantLogged(n+2, "get through again")
			if got := r.ownBetween(back+30*time.Second, back+time.Minute); got < 40 {
				t.Errorf("%d requests in 30 s; want the load to run again", got)
			}
		}
		down()
	})
}

// While something is broken the demo asks less, and says so once.
func TestDemoBacksOff(t *testing.T) {
	withDemo(t, []level{{10, time.Hour}}, false, func(r *demoRig) {
		r.until(30 * time.Second)
		fault(t, r.sim, `[{"kind":"reject","status":503}]`)
		r.until(4 * time.Minute)
		if n := r.ownBetween(time.Minute, 4*time.Minute); n < 100 || n > 10*3*60/5 {
			t.Errorf("10 users ask %d times in 3 minutes of refusals; want each about every 7.5 s", n)
		}
		// Every second one fails: that is still the same trouble.
		fault(t, r.sim, `[{"kind":"reject","status":503,"share":0.5}]`)
		r.until(6 * time.Minute)
		r.wantLogged(1, "requests fail")
		r.wantLogged(0, "get through again")
		fault(t, r.sim, `[]`)
		r.until(7 * time.Minute)
		r.wantLogged(1, "requests fail")
		r.wantLogged(1, "get through again")
	})
}

func fault(t *testing.T, sim http.Handler, list string) {
	t.Helper()
	req, _ := http.NewRequest("PUT", "http://x/sim/faults", strings.NewReader(list))
	w := &memoryWriter{header: http.Header{}}
	sim.ServeHTTP(w, req)
	if strings.Contains(w.body.String(), "error") {
		t.Fatal(w.body.String())
	}
}

// A stream that is cut short is a failure, although it began well.
func TestDemoReadsToTheEnd(t *testing.T) {
	withDemo(t, steady, false, func(r *demoRig) {
		fault(t, r.sim, `[{"kind":"cut","after":5}]`)
		r.until(20 * time.Second)
		r.wantLogged(1, "requests fail")
	})
}

// The draws of one user repeat; those of two differ.
func TestQuestionsAreSeeded(t *testing.T) {
	draw := func(user uint64) (all string) {
		rng := mathrand.New(mathrand.NewPCG(1, user))
		for range 50 {
			q := question(rng, "m")
			all += fmt.Sprintln(q.path, string(q.body), q.status, q.leaves)
		}
		return all
	}
	first, again, other := draw(1), draw(1), draw(2)
	if first != again || first == other {
		t.Error("want the same questions of the same user, others of another")
	}
}
