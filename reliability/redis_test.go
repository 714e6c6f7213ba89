//go:build reliability

package reliability

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// redis is a real Redis, on the same port each time, that keeps nothing on disk.
type redis struct {
	t    *testing.T
	addr string
	dir  string
	cmd  *exec.Cmd
}

func startRedis(t *testing.T) *redis {
	t.Helper()
	r := &redis{t: t, addr: freeAddr(t), dir: t.TempDir()}
	r.start()
	t.Cleanup(r.kill)
	return r
}

// start returns when it answers.
func (r *redis) start() {
	r.t.Helper()
	_, port, _ := net.SplitHostPort(r.addr)
	r.cmd = exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", r.dir, "--save", "", "--appendonly", "no", "--daemonize", "no")
	if err := r.cmd.Start(); err != nil {
		r.t.Fatalf("%v: apt-get install redis-server", err)
	}
	until(r.t, "Redis answers", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		answer := make([]byte, 5)
		fmt.Fprint(c, "PING\r\n")
		_, err = c.Read(answer)
		return err == nil && string(answer) == "+PONG"
	})
}

func (r *redis) kill() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
}

func (r *redis) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// clients gives how many connections Redis has, without the one that asks.
func (r *redis) clients() int {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(c, "INFO clients\r\nQUIT\r\n")
	text, err := io.ReadAll(c)
	_, rest, found := strings.Cut(string(text), "connected_clients:")
	n, _, _ := strings.Cut(rest, "\r")
	all, bad := strconv.Atoi(n)
	if err != nil || !found || bad != nil {
		r.t.Fatalf("%v, %q", err, text)
	}
	return all - 1
}

// counting is a gateway whose file has limits in a Redis. It may keep so many
// connections to it.
func counting(t *testing.T, backend, redis, shared, keys string) *gateway {
	t.Helper()
	text := fmt.Sprintf("backends: [{url: %s}]\n", backend)
	if redis != "" {
		text += fmt.Sprintf("shared_limits: {redis: \"redis://%s\", %s}\n", redis, shared)
	}
	g := front(t, nil, "--config", configFile(t, text+"keys:\n"+keys))
	g.fds += 32
	return g
}

// sample is a request and the gateway that it went to.
type sample struct {
	seen
	gateway int
}

// Redis goes away under load, in three ways, and comes back. Meanwhile requests pass,
// or are refused, as the file says; who is under way as it goes waits once for the
// timeout, and nobody after; and once it is back limits hold as before.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	const (
		workers = 4 // of each gateway
		limit   = 5
		timeout = 2 * time.Second // nothing else takes so long
	)
	s := sim(t, 1, time.Millisecond)
	r := startRedis(t)
	box := between(t, r.addr)
	ways := []struct {
		name        string
		begin, mend func()
		forgets     bool // what was counted
		silent      bool
	}{
		{"killed", r.kill, r.start, true, false},
		{"stopped", func() { r.signal(syscall.SIGSTOP) }, func() { r.signal(syscall.SIGCONT) }, false, true},
		{"in a hole", func() { box.hold(true) }, func() { box.hold(false) }, false, true},
	}
	keys := fmt.Sprintf("  - {name: many, hash: %s, limits: {requests_per_minute: 1000000, tokens_per_minute: 1000000000}}\n", hashOf("many"))
	for _, w := range ways {
		keys += fmt.Sprintf("  - {name: few/%s, hash: %s, limits: {requests_per_minute: %d}}\n", strings.ReplaceAll(w.name, " ", "-"), hashOf("few "+w.name), limit)
	}
	// The third has the usual timeout of 50 ms, which a Redis that is there can miss on a
	// busy machine: of that one it matters only that nothing fails.
	const open, closed, usual = 0, 1, 2
	var gateways []*gateway
	for _, shared := range []string{fmt.Sprintf("fail: open, timeout: %v", timeout), fmt.Sprintf("fail: closed, timeout: %v", timeout), "fail: open"} {
		gateways = append(gateways, counting(t, s.url(), box.addr, shared, keys))
	}
	client := newClient(t, true)
	var mu sync.Mutex
	var samples []sample
	var stop atomic.Bool
	var load sync.WaitGroup
	defer load.Wait()
	defer stop.Store(true)
	for i := range gateways {
		for w := range workers {
			load.Go(func() {
				for n := 0; !stop.Load(); n++ {
					a := sample{askAs(t.Context(), client, gateways[i].url(), "many", chat([]string{"", streamed}[(n+w)%2]+`"max_tokens":4,`), nil), i}
					mu.Lock()
					samples = append(samples, a)
					mu.Unlock()
					<-time.After(15 * time.Millisecond)
				}
			})
		}
	}
	// during gives the requests of a gateway that were sent and answered within a stretch
	// of time.
	during := func(gateway int, from, to time.Time) (list []sample) {
		mu.Lock()
		defer mu.Unlock()
		for _, a := range samples {
			if a.gateway == gateway && a.sent.After(from) && a.end.Before(to) {
				list = append(list, a)
			}
		}
		return list
	}
	answers := func(from time.Time, n int) {
		t.Helper()
		until(t, "requests go on", func() bool {
			for i := range gateways {
				if len(during(i, from, time.Now())) < n {
					return false
				}
			}
			return true
		})
	}
	all := func(what string, list []sample, status int) {
		t.Helper()
		for _, a := range list {
			if a.status != status || a.err != nil || status == 503 && a.header.Get("Retry-After") == "" {
				t.Fatalf("%s, gateway %d: %v; want %d", what, a.gateway, a, status)
			}
		}
	}
	few := func(what, way string, want map[int]int) { // of six, three for each of two gateways
		t.Helper()
		got := map[int]int{}
		for i := range 6 {
			got[askAs(t.Context(), client, gateways[i%2].url(), "few "+way, chat(`"max_tokens":2,`), nil).status]++
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s, %s: of six requests %v; want %v", way, what, got, want)
		}
	}
	logged := func(word string, times int) {
		t.Helper()
		for _, g := range gateways[:usual] {
			until(t, "the log has "+word, func() bool { return strings.Count(g.log.String(), word) == times }, func() string { return tail(g.log.String()) })
		}
	}
	for nth, w := range ways {
		there := time.Now()
		answers(there, 50)
		for i := range 2 {
			if a := askAs(t.Context(), client, gateways[i].url(), "few "+w.name, chat(`"max_tokens":2,`), nil); a.status != 200 {
				t.Errorf("%s: %v", w.name, a)
			}
		}
		before := gateways[usual].metrics()
		goes := time.Now()
		w.begin()
		logged("Redis is away", nth+1)
		away := time.Now()
		// Twice each of them looks whether it is back, and finds that it is not.
		until(t, "it has been away for a while", func() bool { return time.Since(away) > 2500*time.Millisecond })
		answers(away, 100)
		few("while Redis is away", w.name, map[int]int{200: 3, 503: 3})
		after := gateways[usual].metrics()
		mends := time.Now()
		w.mend()
		logged("Redis is back", nth+1)
		back := time.Now()
		answers(back, 50)
		left := limit - 2
		if w.forgets {
			left = limit
		}
		few("when Redis is back", w.name, map[int]int{200: left, 429: 6 - left})

		for i := range gateways[:usual] {
			all(w.name+", before", during(i, there, goes), 200)
			all(w.name+", when Redis is back", during(i, back, time.Now()), 200)
		}
		all(w.name+", all the time", during(open, there, time.Now()), 200)
		all(w.name+", all the time", during(usual, there, time.Now()), 200)
		all(w.name+", while Redis is away", during(closed, away, mends), 503)

		for i, name := range []string{"open", "closed"} {
			waited, list := 0, during(i, there, time.Now())
			for _, a := range list {
				if took := a.head.Sub(a.sent); took >= timeout {
					waited++
					if a.sent.After(away) || took > 2*timeout {
						t.Errorf("%s: a request that was sent %v after it was known took %v", w.name, a.sent.Sub(away), took)
					}
				}
			}
			if waited > workers || w.silent != (waited > 0) {
				t.Errorf("%s, %s: %d requests waited for the timeout; %d were under way", w.name, name, waited, workers)
			}
			figure(t, "%s, %s, with a timeout of %v: %d of %d requests met it, all under way as Redis went; %d while it was away, all %s", w.name, name, timeout, waited, len(list), len(during(i, away, mends)), []string{"200", "503"}[i])
		}
		list, was := during(usual, away, mends), during(usual, there, goes)
		if longest := spanOf(list, 1); longest > 5*time.Second {
			t.Errorf("%s: a request took %v", w.name, longest)
		}
		over := after.sum("gateway_overhead_seconds_count") - before.sum("gateway_overhead_seconds_count") - after.sum("gateway_overhead_seconds_bucket", `le="0.1"`) + before.sum("gateway_overhead_seconds_bucket", `le="0.1"`)
		figure(t, "%s, with a timeout of 50 ms: to the first byte before p50 %.1f ms, p99 %.1f, max %.1f; as Redis goes max %.1f; while it is away p50 %.1f, p99 %.1f, max %.1f, of %d requests; the gateway itself took over 100 ms for %.0f",
			w.name, ms(spanOf(was, .5)), ms(spanOf(was, .99)), ms(spanOf(was, 1)), ms(spanOf(during(usual, goes.Add(-time.Second), away), 1)), ms(spanOf(list, .5)), ms(spanOf(list, .99)), ms(spanOf(list, 1)), len(list), over)
	}
}

// spanOf gives a quantile of the times to the first byte.
func spanOf(list []sample, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.SortedFunc(slices.Values(list), func(a, b sample) int { return cmp.Compare(a.head.Sub(a.sent), b.head.Sub(b.sent)) })
	a := sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
	return a.head.Sub(a.sent)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// A Redis that the file names no longer is let go, once those that had begun with it
// have ended; and it is not looked for any more, should it be away. What was reserved
// there before is settled there.
func TestRedisReplaced(t *testing.T) {
	t.Parallel()
	const (
		changes = 40
		limit   = 100_000 // tokens a day
	)
	s := sim(t, 1, 2*time.Millisecond)
	old, new := startRedis(t), startRedis(t)
	text := func(r *redis) string {
		return fmt.Sprintf("backends: [{url: %s}]\nshared_limits: {redis: \"redis://%s\", fail: closed, timeout: 5s}\nkeys: [{name: alice, hash: %s, limits: {tokens_per_day: %d}}]\n", s.url(), r.addr, hashOf("alice"), limit)
	}
	path := configFile(t, text(old))
	g := front(t, nil, "--config", path)
	g.fds += 32
	client := newClient(t, true)
	reload := func(r *redis) {
		t.Helper()
		n := strings.Count(g.log.String(), "configuration reloaded")
		replace(t, path, text(r))
		g.cmd.Process.Signal(syscall.SIGHUP)
		until(t, "it is loaded", func() bool { return strings.Count(g.log.String(), "configuration reloaded") > n })
	}
	var used [2]atomic.Int64 // by the old and by the new one
	const byOld, byNew = 0, 1
	ask := func(by, tokens int, on func(int64)) {
		t.Helper()
		a := askAs(t.Context(), client, g.url(), "alice", chat(streamed+fmt.Sprintf(`"ignore_eos":true,"max_tokens":%d,`, tokens)), on)
		if a.status != 200 || a.err != nil {
			t.Errorf("%v", a)
		}
		used[by].Add(a.tokens())
	}
	settled := func(by int) {
		t.Helper()
		want := fmt.Sprint(limit - used[by].Load())
		left := func() string { // nothing is counted of a request that is more than the limit
			return askAs(t.Context(), client, g.url(), "alice", chat(fmt.Sprintf(`"max_tokens":%d,`, 2*limit)), nil).header.Get("X-Ratelimit-Remaining-Tokens-Day")
		}
		until(t, "all is settled", func() bool { return left() == want }, left, func() string { return want })
	}
	// One stream begins before and goes on until the new Redis has counted others.
	began, goOn, ended := make(chan bool), make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		ask(byOld, 1000, func(n int64) {
			if n == 1 {
				close(began)
				<-goOn
			}
		})
	}()
	<-began
	for range changes / 2 {
		reload(new)
		ask(byNew, 5, nil)
		reload(old)
		ask(byOld, 5, nil)
	}
	reload(new)
	ask(byNew, 5, nil)
	close(goOn)
	<-ended
	settled(byNew)
	until(t, "the old Redis is let go", func() bool { return old.clients() == 0 }, func() string { return fmt.Sprint(old.clients(), " connections") })
	kept := new.clients()
	if kept > 32 {
		t.Errorf("the new Redis has %d connections", kept)
	}

	reload(old)
	settled(byOld)
	old.kill()
	if a := askAs(t.Context(), client, g.url(), "alice", chat(""), nil); a.status != 503 {
		t.Errorf("without Redis: %v", a)
	}
	g.await("Redis is away")
	reload(new)
	ask(byNew, 5, nil)
	l, err := net.Listen("tcp", old.addr)
	if err != nil {
		t.Fatal(err)
	}
	looks := make(chan int)
	go func() {
		n := 0
		for {
			c, err := l.Accept()
			if err != nil {
				looks <- n
				return
			}
			n++
			c.Close()
		}
	}()
	<-time.After(3 * time.Second) // it is looked for every second
	l.Close()
	if n := <-looks; n > 0 {
		t.Errorf("a Redis that the file names no longer was looked for %d times", n)
	}
	figure(t, "%d changes from one Redis to another and back, with a stream under way: none of its tokens lost; no connection to the one that was let go, %d to the other", changes+1, kept)
}
