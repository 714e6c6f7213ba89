//go:build reliability

package reliability

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// soaked is one soak under way.
type soaked struct {
	t      *testing.T
	g      *gateway
	sims   []*process
	boxes  []*middlebox
	x      *texts
	client *http.Client

	sent atomic.Int64 // requests on paths that are counted
	mu   sync.Mutex
	c    tally
}

// Minutes of all that goes wrong between clients, gateway and backends. Each
// answer must be whole and right, or say that it is not; and at the end the
// gateway must be what it was, and have counted everything.
func TestSoak(t *testing.T) {
	minutes := 3.0
	if v := os.Getenv("SOAK_MINUTES"); v != "" {
		var err error
		if minutes, err = strconv.ParseFloat(v, 64); err != nil {
			t.Fatal(err)
		}
	}
	s := &soaked{t: t, c: tally{t: t}}
	var urls []string
	for i := range 3 {
		s.sims = append(s.sims, sim(t, i, 10*time.Millisecond))
		s.boxes = append(s.boxes, between(t, s.sims[i].addr))
		urls = append(urls, s.boxes[i].url())
	}
	s.x = learn(t, 40, 8, s.sims...)
	s.g = front(t, urls, "--stream-idle-timeout", "3s", "--first-byte-timeout", "5s", "--max-body", "64KiB")
	s.client = newClient(t, true)

	s.load(20*time.Second, func(end time.Time) { <-time.After(time.Until(end)) })
	start := s.atRest(nil)
	s.line("start", start)
	began := time.Now()
	s.load(time.Duration(minutes*float64(time.Minute)), func(end time.Time) { s.harm(end, start) })
	end := s.atRest(&start)
	s.line("end", end)

	m := s.g.metrics()
	total, rps, sent := m.sum("gateway_requests_total"), m.sum("gateway_rps"), float64(s.sent.Load())
	if total != sent || rps != sent {
		t.Errorf("clients sent %.0f requests; gateway_requests_total is %.0f, gateway_rps %.0f", sent, total, rps)
	}
	if a, b := m.sum("gateway_requests_total", `outcome="cancelled"`), m.sum("gateway_cancelled_requests_total"); a != b {
		t.Errorf("%.0f requests were cancelled, by gateway_cancelled_requests_total %.0f", a, b)
	}
	// A client that leaves may have missed an answer that had been sent whole.
	if ok, had := m.sum("gateway_requests_total", `outcome="ok"`), float64(s.c.counts[whole]); ok < had || ok > had+float64(s.c.counts[left]) {
		t.Errorf("%.0f requests were ok; clients had %.0f whole answers and left %d", ok, had, s.c.counts[left])
	}
	if n := m.sum("gateway_requests_total", `outcome="internal"`); n > 0 {
		t.Errorf("%.0f requests ended in a fault of the gateway's own", n)
	}
	if float64(end.rss) > 1.5*float64(start.rss)+16<<10 {
		t.Errorf("resident memory went from %d to %d KiB", start.rss, end.rss)
	}
	n := s.c.counts
	figure(t, "%.1f minutes: %d answers: %d whole, %d error statuses, %d error events, %d left by their clients, %d unexplained",
		time.Since(began).Minutes(), s.c.all(), n[whole], n[errorStatus], n[errorEvent], n[left], n[unexplained])
}

// rest is what a gateway holds when nobody asks it for anything.
type rest struct {
	goroutines, fds float64
	rss             int
}

func (s *soaked) now() rest {
	m := s.g.metrics()
	rss, _ := s.g.memory()
	return rest{m.sum("go_goroutines"), m.sum("process_open_fds"), rss}
}

func (s *soaked) line(when string, r rest) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	figure(s.t, "%s: RSS %d KiB, %.0f goroutines, %.0f descriptors; %d answers: %v", when, r.rss, r.goroutines, r.fds, s.c.all(), s.c.counts)
}

// atRest waits until nothing runs, and gives what the gateway holds then: no
// goroutine and no descriptor more than before, if there is a before. The backends
// are out of reach meanwhile, or there would now be a probe's connection, now none.
func (s *soaked) atRest(before *rest) rest {
	s.t.Helper()
	s.client.CloseIdleConnections()
	until(s.t, "nothing runs", func() bool {
		m := s.g.metrics()
		return m.sum("gateway_queue_depth") == 0 && m.sum("gateway_backend_in_flight") == 0
	})
	for _, b := range s.boxes {
		b.refuse()
		b.breakAll(false)
	}
	// A scrape has goroutines of its own, now one more, now one less: so it is the
	// usual count that counts.
	usual := func() (r rest) {
		var all [][3]float64
		for range 101 {
			r := s.now()
			all = append(all, [3]float64{r.goroutines, r.fds, float64(r.rss)})
		}
		return rest{median(all, 0), median(all, 1), int(median(all, 2))}
	}
	var r rest
	if before == nil {
		<-time.After(5 * time.Second) // longer than the gateway keeps what is idle
		r = usual()
	} else {
		until(s.t, "it holds what it held", func() bool {
			r = usual()
			return r.goroutines <= before.goroutines && r.fds <= before.fds
		}, func() string { return fmt.Sprintf("%+v; before %+v\n%s", r, *before, s.g.goroutinesNow()) })
	}
	for _, b := range s.boxes {
		b.accept(s.t)
	}
	until(s.t, "all backends are up again", s.g.up)
	return r
}

func median(rows [][3]float64, column int) float64 {
	slices.SortFunc(rows, func(a, b [3]float64) int { return cmp.Compare(a[column], b[column]) })
	return rows[len(rows)/2][column]
}

// load sends requests until what goes on meanwhile is over.
func (s *soaked) load(d time.Duration, meanwhile func(end time.Time)) {
	var stop atomic.Bool
	var clients sync.WaitGroup
	for i := range 24 {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 3))
			for !stop.Load() {
				s.one(rng)
			}
		})
	}
	defer clients.Wait()
	defer stop.Store(true)
	meanwhile(time.Now().Add(d))
}

// one is one request of one client.
func (s *soaked) one(rng *rand.Rand) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	o := s.x.pick(rng.IntN(8), true)
	allowed := []kind{whole, errorStatus, errorEvent}
	var r *reply
	switch n := rng.IntN(100); {
	case n < 55:
		r = s.x.ask(ctx, s.client, s.g.url(), o, nil)
	case n < 72:
		o.stream = false
		r = s.x.ask(ctx, s.client, s.g.url(), o, nil)
	case n < 78: // in most cases before the first token
		r = s.leaves(o.body(), time.Duration(rng.IntN(30))*time.Millisecond)
		allowed = []kind{left}
	case n < 86: // leaves within the stream
		after := 1 + rng.IntN(60)
		r = s.x.ask(ctx, s.client, s.g.url(), o, func(text string) {
			if len(text) > after {
				cancel()
			}
		})
		allowed = append(allowed, left)
	case n < 88:
		r = s.leaves(`{"messages":[{"role":"user","content":"Hello"}],"stream":true,"max_tokens":1000,"ignore_eos":true,"logprobs":true,"top_logprobs":20}`, 4*time.Second)
		allowed = []kind{left}
	case n < 96:
		r, allowed = s.bad(ctx, rng), []kind{errorStatus}
	default:
		r = s.models(ctx)
	}
	if r.status != 404 || r.why != "This path is not served here." {
		s.sent.Add(1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c.add(r, allowed...)
}

// bad is a request that deserves an error.
func (s *soaked) bad(ctx context.Context, rng *rand.Rand) *reply {
	r := &reply{backend: -1, begun: time.Now()}
	defer func() { r.end = time.Now() }()
	method, path, body := "POST", "/v1/chat/completions", `{"messages":`
	switch rng.IntN(6) {
	case 0:
		body = `{"model":"no such model","messages":[{"role":"user","content":"Hello"}]}`
	case 1:
		body = `{"messages":[{"role":"user","content":"Hello"}],"max_tokens":-1,"stream":true}`
	case 2:
		path = "/v1/nowhere"
	case 3:
		method = "DELETE"
	case 4:
		body = `{"messages":[{"role":"user","content":"` + strings.Repeat("too long ", 10_000) + `"}]}`
	}
	req, err := http.NewRequestWithContext(ctx, method, s.g.url()+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return r.broken(ctx, err)
	}
	defer resp.Body.Close()
	r.status = resp.StatusCode
	return r.refused(ctx, resp)
}

// models lists them.
func (s *soaked) models(ctx context.Context) *reply {
	r := &reply{backend: -1, begun: time.Now()}
	defer func() { r.end = time.Now() }()
	req, err := http.NewRequestWithContext(ctx, "GET", s.g.url()+"/v1/models", nil)
	if err != nil {
		panic(err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return r.broken(ctx, err)
	}
	defer resp.Body.Close()
	if r.status = resp.StatusCode; r.status != 200 {
		return r.refused(ctx, resp)
	}
	var list struct{ Data []struct{ ID string } }
	body, err := io.ReadAll(resp.Body)
	if err != nil || json.Unmarshal(body, &list) != nil || len(list.Data) != 1 || list.Data[0].ID == "" {
		return r.wrong("not a list of one model: %q, %v", body, err)
	}
	r.kind = whole
	return r
}

// leaves sends a request, reads nothing of its answer, and leaves. It is a bare
// connection, so that it is known when the request is on its way.
func (s *soaked) leaves(body string, after time.Duration) *reply {
	r := &reply{backend: -1, begun: time.Now(), kind: left}
	defer func() { r.end = time.Now() }()
	c, err := dialRaw(s.g.addr)
	if err != nil {
		return r.wrong("%v", err)
	}
	defer c.Close()
	c.SetReadBuffer(4 << 10)
	c.post(0, body)
	<-time.After(after)
	return r
}

// trouble is something that goes wrong with one backend, until it is mended.
type trouble struct {
	name        string
	begin, mend func(backend int)
}

// harm does something to one backend, and mends it, again and again.
func (s *soaked) harm(end time.Time, start rest) {
	const every = 5 * time.Second
	none := func(int) {}
	faults := func(list string) func(int) { return func(i int) { s.faults(i, list) } }
	troubles := []trouble{
		{"latency", func(i int) { s.boxes[i].lag(80 * time.Millisecond) }, func(i int) { s.boxes[i].lag(0) }},
		{"resets", func(i int) { s.boxes[i].breakAll(true) }, none},
		{"connections closed", func(i int) { s.boxes[i].breakAll(false) }, none},
		{"black hole", func(i int) { s.boxes[i].hold(true) }, func(i int) { s.boxes[i].hold(false) }},
		{"refused", func(i int) { s.boxes[i].refuse() }, func(i int) { s.boxes[i].accept(s.t) }},
		{"refused and reset", func(i int) { s.boxes[i].refuse(); s.boxes[i].breakAll(true) }, func(i int) { s.boxes[i].accept(s.t) }},
		{"kill -9", func(i int) { s.sims[i].kill() }, func(i int) { s.sims[i].start() }},
		{"kill -9 and back at once", func(i int) { s.sims[i].kill(); s.sims[i].start() }, none},
		{"SIGTERM", func(i int) { s.sims[i].cmd.Process.Signal(syscall.SIGTERM); s.sims[i].exit() }, func(i int) { s.sims[i].start() }},
		{"cut streams", faults(`[{"kind":"cut","after":4,"share":0.3}]`), faults(`[]`)},
		{"errors in streams", faults(`[{"kind":"error","after":4,"share":0.3}]`), faults(`[]`)},
		{"errors before tokens", faults(`[{"kind":"error","after":0,"share":0.3}]`), faults(`[]`)},
		{"rejected", faults(`[{"kind":"reject","status":503,"share":0.5}]`), faults(`[]`)},
		{"500", faults(`[{"kind":"reject","status":500,"share":0.3}]`), faults(`[]`)},
		{"stalls", faults(`[{"kind":"stall","after":5,"share":0.05}]`), faults(`[]`)},
		{"slow first tokens", faults(`[{"kind":"slow-first-token","delay":"700ms","share":0.5}]`), faults(`[]`)},
		{"unhealthy", faults(`[{"kind":"unhealthy"}]`), faults(`[]`)},
		{"slow health", faults(`[{"kind":"slow-health","delay":"3s"}]`), faults(`[]`)},
	}
	rng := rand.New(rand.NewPCG(5, 5))
	var turn []trouble // each once, then all over again, in another order
	done := map[string]int{}
	minute := time.Now().Add(time.Minute)
	for time.Now().Before(end) {
		if len(turn) == 0 {
			turn = slices.Clone(troubles)
			rng.Shuffle(len(turn), func(i, j int) { turn[i], turn[j] = turn[j], turn[i] })
		}
		tr, i := turn[0], rng.IntN(len(s.sims))
		turn = turn[1:]
		tr.begin(i)
		// Half of the troubles last as long as they can, the others a moment.
		<-time.After(min(every*time.Duration(1+3*rng.IntN(2))/4, time.Until(end)))
		tr.mend(i)
		done[tr.name]++
		<-time.After(min(every/4, time.Until(end)))
		if time.Now().After(minute) {
			minute = minute.Add(time.Minute)
			s.line(fmt.Sprintf("after %d troubles", sum(done)), s.now())
		}
	}
	figure(s.t, "%d troubles of %d kinds: %v", sum(done), len(done), done)
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// faults puts a list of faults in force on a simulator.
func (s *soaked) faults(backend int, list string) {
	s.t.Helper()
	req, err := http.NewRequest("PUT", s.sims[backend].url()+"/sim/faults", strings.NewReader(list))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := apart.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode >= 300 {
		s.t.Fatalf("PUT /sim/faults: %s %s", resp.Status, body)
	}
}
