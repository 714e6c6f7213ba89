//go:build reliability

package reliability

import (
	"context"
	"encoding/csv"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// haproxy starts the one of haproxy.cfg before three gateways, and gives its
// address and what it says of them.
func haproxy(t *testing.T, gateways []*gateway) (url string, up func() int) {
	t.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		path = "/usr/sbin/haproxy" // Debian's; not in everybody's PATH
	}
	listen, stats := freeAddr(t), freeAddr(t)
	log := &lockedBuffer{}
	cmd := exec.Command(path, "-db", "-f", "haproxy.cfg")
	cmd.Env = append(os.Environ(), "LISTEN="+listen, "STATS="+stats, "GATEWAY_1="+gateways[0].addr, "GATEWAY_2="+gateways[1].addr, "GATEWAY_3="+gateways[2].addr)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: apt-get install haproxy", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	up = func() (n int) {
		resp, err := apart.Get("http://" + stats + "/;csv")
		if err != nil {
			return 0 // not up itself
		}
		defer resp.Body.Close()
		rows, err := csv.NewReader(resp.Body).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			if row[0] == "gateways" && strings.HasPrefix(row[1], "gateway") && row[17] == "UP" {
				n++
			}
		}
		return n
	}
	until(t, "haproxy has all gateways", func() bool { return up() == 3 })
	return "http://" + listen, up
}

// Three gateways behind one haproxy are restarted in turn under load: nothing is
// lost.
func TestRollingRestart(t *testing.T) {
	const least = 1000 // requests, at whatever speed
	sims := []*process{sim(t, 1, 20*time.Millisecond), sim(t, 2, 20*time.Millisecond)}
	x := learn(t, 25, 8, sims...)
	var gateways []*gateway
	for range 3 {
		gateways = append(gateways, front(t, []string{sims[0].url(), sims[1].url()}, "--drain-delay", "2s"))
	}
	url, up := haproxy(t, gateways)

	kept, fresh := newClient(t, true), newClient(t, false)
	var stop atomic.Bool
	var next atomic.Int64
	var mu sync.Mutex
	var replies []*reply
	var load sync.WaitGroup
	for range 40 {
		load.Go(func() {
			for !stop.Load() {
				i := int(next.Add(1))
				client := kept
				if i%3 == 0 {
					client = fresh
				}
				r := x.ask(t.Context(), client, url, x.pick(i, i%2 == 0), nil)
				mu.Lock()
				replies = append(replies, r)
				mu.Unlock()
			}
		})
	}
	ended := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(replies)
	}
	for i, g := range gateways {
		until(t, "requests go on", func() bool { return ended() >= (i+1)*least/5 })
		g.cmd.Process.Signal(syscall.SIGTERM)
		if err := g.exit(); err != nil {
			t.Errorf("exit: %v; want 0\n%s", err, g.log.String())
		}
		g.start()
		until(t, "haproxy has all gateways again", func() bool { return up() == 3 })
	}
	until(t, "there were as many requests as there must be", func() bool { return ended() >= least })
	stop.Store(true)
	load.Wait()
	c := tally{t: t}
	for _, r := range replies {
		c.add(r, whole)
	}
	figure(t, "3 gateways restarted in turn behind haproxy: %d of %d requests lost", c.all()-c.counts[whole], c.all())
}

// 60 streams run when SIGTERM comes.
func TestDrain(t *testing.T) {
	const streams = 60
	good := sim(t, 1, 30*time.Millisecond)
	x := learn(t, 60, 8, good)
	begin := func(t *testing.T, args ...string) (g *gateway, replies func() []*reply) {
		g = front(t, []string{good.url()}, args...)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		t.Cleanup(cancel)
		client := newClient(t, true)
		var begun atomic.Int64
		ended := make(chan []*reply, 1)
		go func() {
			ended <- spread(streams, streams, func(i int) *reply {
				seen := false
				return x.ask(ctx, client, g.url(), x.pick(i, true), func(string) {
					if !seen {
						seen = true
						begun.Add(1)
					}
				})
			})
		}()
		until(t, "all streams have begun", func() bool { return begun.Load() == streams })
		g.cmd.Process.Signal(syscall.SIGTERM)
		return g, func() []*reply { return <-ended }
	}
	// A drain is over when nothing has run for a second: the next request of who has
	// just had an answer must not be lost.
	const quiet = time.Second
	t.Run("long limit", func(t *testing.T) {
		g, replies := begin(t, "--drain-timeout", "1m")
		c := tally{t: t}
		var last time.Time
		for _, r := range replies() {
			c.add(r, whole)
			if r.end.After(last) {
				last = r.end
			}
		}
		if err := g.exit(); err != nil {
			t.Errorf("exit: %v; want 0\n%s", err, g.log.String())
		}
		if took := g.at.Sub(last); took > quiet+time.Second {
			t.Errorf("it ended only %v after the last stream", took)
		}
		figure(t, "%d of %d streams lost; it ended %v after the last, of which %v are the quiet second", c.all()-c.counts[whole], streams, g.at.Sub(last).Round(time.Millisecond), quiet)
	})
	t.Run("short limit", func(t *testing.T) {
		g, replies := begin(t, "--drain-timeout", "200ms")
		c := tally{t: t}
		for _, r := range replies() {
			c.add(r, errorEvent)
			if r.done {
				t.Errorf("told, and then [DONE]: %v", r)
			}
		}
		if err := g.exit(); err != nil {
			t.Errorf("exit: %v; want 0\n%s", err, g.log.String())
		}
		figure(t, "%d of %d streams told at the limit", c.counts[errorEvent], streams)
	})
	t.Run("second signal", func(t *testing.T) {
		g, replies := begin(t, "--drain-timeout", "1m")
		g.await("is draining")
		at := time.Now()
		g.cmd.Process.Signal(syscall.SIGTERM)
		var exit *exec.ExitError
		if err := g.exit(); !errors.As(err, &exit) || exit.ExitCode() == 0 {
			t.Errorf("exit: %v; want that of a signal", err)
		}
		took := g.at.Sub(at)
		if took > time.Second {
			t.Errorf("it ended only %v after the second signal", took)
		}
		replies()
		figure(t, "it ended %v after the second signal", took.Round(time.Millisecond))
	})
}
