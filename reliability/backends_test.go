//go:build reliability

package reliability

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Backends die under load, twenty times. What had no token yet is answered by
// another one as if nothing had been; what had is told of it; nothing ends
// silently; and whoever was elsewhere notices nothing.
func TestKillUnderLoad(t *testing.T) {
	const (
		kills   = 20
		streams = 200
		cutEach = 50 // streams of the victim that have had a token, at least
	)
	slow := []string{"--fault", "slow-first-token,delay=1s,share=0.3"}
	var sims []*process
	var urls []string
	for i := range 3 {
		sims = append(sims, sim(t, i, 50*time.Millisecond, slow...))
		urls = append(urls, sims[i].url())
	}
	x := learn(t, 40, 8, sims...)
	g := front(t, urls)
	client := newClient(t, true)

	type death struct {
		backend int
		at      time.Time // when it was killed
		over    time.Time // when it was there again: later requests have nothing to do with it
	}
	var deaths []death
	// Streams that have had a token, by backend and how often it has died: a client
	// still has a stream for a moment that the gateway has ended.
	var live [3][kills + 1]atomic.Int64
	var died [3]atomic.Int64
	var waiting [streams]atomic.Int64 // since when each client waits for its first token; 0: it does not
	var mu sync.Mutex
	var replies []*reply
	var load sync.WaitGroup
	var stop atomic.Bool
	var next atomic.Int64
	for i := range streams {
		load.Go(func() {
			for !stop.Load() {
				var on *atomic.Int64
				o := x.pick(int(next.Add(1)), true)
				waiting[i].Store(time.Now().UnixNano())
				r := x.ask(t.Context(), client, g.url(), o, func(text string) {
					waiting[i].Store(0)
					if backend := x.whose(text, o); on == nil && backend >= 0 {
						on = &live[backend][died[backend].Load()]
						on.Add(1)
					}
				})
				waiting[i].Store(0)
				if on != nil {
					on.Add(-1)
				}
				mu.Lock()
				replies = append(replies, r)
				mu.Unlock()
			}
		})
	}
	// mended: all that the last death may have met have had their token. A request that
	// meets two deaths before its first token has used up its two attempts, and fails
	// rightly; this is about one.
	mended := func() bool {
		if len(deaths) == 0 {
			return true
		}
		for i := range waiting {
			if since := waiting[i].Load(); since != 0 && since <= deaths[len(deaths)-1].over.UnixNano() {
				return false
			}
		}
		return true
	}
	for i := range kills {
		victim := i % len(sims)
		until(t, "the backend has its share, and another is up", func() bool {
			up, other := false, false
			for _, b := range g.health().Backends {
				is := b.State == "up"
				up, other = up || is && b.Backend == sims[victim].addr, other || is && b.Backend != sims[victim].addr
			}
			return up && other && live[victim][died[victim].Load()].Load() >= cutEach && mended()
		}, func() string {
			return fmt.Sprintf("kill %d, of %s: %d streams, all mended: %v, %s", i, sims[victim].addr, live[victim][died[victim].Load()].Load(), mended(), g.get("/health"))
		})
		at := time.Now()
		sims[victim].kill()
		died[victim].Add(1)
		sims[victim].start()
		deaths = append(deaths, death{victim, at, time.Now()})
	}
	until(t, "all are up", func() bool { return g.up() && mended() })
	elsewhere := g.metrics().sum("gateway_retries_total")
	stop.Store(true)
	load.Wait()

	c := tally{t: t}
	for _, r := range replies {
		c.add(r, whole, errorEvent)
		if r.kind != errorEvent {
			continue
		}
		if r.done {
			t.Errorf("an error event, and then [DONE]: %v", r)
		}
		if r.text == "" {
			t.Errorf("200 without a token: %v", r)
		}
		blamed := false
		for _, d := range deaths {
			blamed = blamed || (r.backend == d.backend || r.backend == -1) && r.begun.Before(d.over) && r.end.After(d.at)
		}
		if !blamed {
			t.Errorf("cut, and its backend lived: %v", r)
		}
	}
	if n := c.counts[errorEvent]; n < kills*cutEach*9/10 { // some end whole between the count and the kill
		t.Errorf("only %d streams were cut: this has shown less than it means to", n)
	}
	if elsewhere < kills {
		t.Errorf("only %v requests were before their first token at a kill", elsewhere)
	}
	figure(t, "%d kills under %d live streams: %d requests, %d whole, %d cut and told, %.0f mended elsewhere, %d silent or wrong",
		kills, streams, c.all(), c.counts[whole], c.counts[errorEvent], elsewhere, c.counts[unexplained]+c.counts[errorStatus])
}

// One of two backends is dead, in ways that a probe sees and in ways that it
// does not: no request fails.
func TestOneOfTwoDead(t *testing.T) {
	const requests = 450
	good := sim(t, 1, time.Millisecond)
	x := learn(t, 5, 8, good)
	failed, sent := 0, 0
	for _, tt := range []struct {
		name string
		dead *bare
	}{
		{"closed port", nil},
		{"resets what it accepts", &bare{accepted: func(c *net.TCPConn) bool { reset(c); return false }}},
		{"closes after reading", &bare{deaf: true, serve: func(*call) bool { return false }}},
		{"says that it is well, and resets", &bare{serve: func(c *call) bool { reset(c.TCPConn); return false }}},
		{"says that it is well, and closes after reading", &bare{serve: func(*call) bool { return false }}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dead := "http://" + freeAddr(t)
			if tt.dead != nil {
				dead = tt.dead.listen(t).url()
			}
			g := front(t, []string{dead, good.url()})
			client := newClient(t, true)
			c := tally{t: t}
			for _, r := range spread(requests/3, 10, func(i int) *reply { return x.ask(t.Context(), client, g.url(), x.pick(i, i%2 == 0), nil) }) {
				c.add(r, whole)
			}
			figure(t, "%d of %d failed", c.all()-c.counts[whole], c.all())
			failed, sent = failed+c.all()-c.counts[whole], sent+c.all()
		})
	}
	figure(t, "%d of %d failed", failed, sent)
}

// A backend that was found dead by a request, and is back, gets requests again as
// soon as docs/configuration.md says: while it is down it is asked every second.
func TestBackAgain(t *testing.T) {
	const rounds = 6
	sims := []*process{sim(t, 1, time.Millisecond), sim(t, 2, time.Millisecond)}
	x := learn(t, 5, 8, sims...)
	g := front(t, []string{sims[0].url(), sims[1].url()})
	client := newClient(t, true)
	state := func() string {
		for _, b := range g.health().Backends {
			if b.Backend == sims[0].addr {
				return b.State
			}
		}
		return ""
	}
	var longest time.Duration
	c := tally{t: t}
	for range rounds {
		sims[0].kill()
		until(t, "it is found dead", func() bool {
			for i := range 4 {
				c.add(x.ask(t.Context(), client, g.url(), x.pick(i, i%2 == 0), nil), whole)
			}
			return state() != "up"
		})
		sims[0].start()
		back := time.Now()
		until(t, "it is up again", func() bool { return state() == "up" })
		longest = max(longest, time.Since(back))
	}
	if longest > 2*time.Second {
		t.Errorf("it was left out for %v after it was back", longest)
	}
	figure(t, "found dead and back %d times: %.2f s without requests at most, %d of %d requests failed", rounds, longest.Seconds(), c.all()-c.counts[whole], c.all())
}

// Where every backend breaks what it is sent, a request must not go round them
// all: it may be the request that breaks them.
func TestAllDead(t *testing.T) {
	for _, tt := range []struct {
		name string
		deaf bool // probes are broken too
		most int  // sendings of one request
	}{
		{"on connections of their own", true, 2},
		// Either attempt may meet a pooled connection that was closing anyway, and is
		// then sent once more to the same backend.
		{"on pooled connections", false, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex
			sendings := map[string]int{}
			var backends []string
			for range 3 {
				b := &bare{deaf: tt.deaf, serve: func(c *call) bool {
					mu.Lock()
					defer mu.Unlock()
					if c.req.Method == "POST" {
						sendings[c.req.Header.Get("X-Request-Id")]++
					}
					return false
				}}
				backends = append(backends, b.listen(t).url())
			}
			g := front(t, backends)
			client := newClient(t, true)
			x := &texts{tokens: 5}
			c := tally{t: t}
			for _, r := range spread(60, 4, func(i int) *reply {
				return x.ask(t.Context(), client, g.url(), order{stream: i%2 == 0, id: fmt.Sprint("request-", i)}, nil)
			}) {
				c.add(r, errorStatus)
			}
			most := 0
			mu.Lock()
			defer mu.Unlock()
			for id, n := range sendings {
				if n > tt.most {
					t.Errorf("%s was sent %d times", id, n)
				}
				most = max(most, n)
			}
			figure(t, "%d requests, each an error status; sent %d times at most", c.counts[errorStatus], most)
		})
	}
}

// A backend closes each kept connection as the next request comes on it.
func TestKeepAliveRace(t *testing.T) {
	const requests = 40
	for name, closes := range map[string]func(c *call){
		"as the next request comes": func(c *call) { c.in.ReadByte() },
		"behind its answer":         func(c *call) {},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bare{serve: func(c *call) bool {
				body := `{"object":"list","data":[]}`
				c.write(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
				closes(c)
				return false
			}}
			b.listen(t)
			g := front(t, []string{b.url()})
			client := newClient(t, true)
			failed := 0
			for range requests {
				resp, err := client.Post(g.url()+"/v1/embeddings", "application/json", strings.NewReader(`{"input":"a"}`))
				if err != nil {
					t.Fatal(err)
				}
				if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 {
					failed++
					t.Errorf("%s %q, %v", resp.Status, body, err)
				}
				resp.Body.Close()
			}
			figure(t, "%d of %d failed; the backend was asked %d times", failed, requests, b.asked.Load())
		})
	}
}

// Five ways to cut a stream, at three places each: before the first token it is
// an error status, or mended by another backend; after it an error event.
func TestCutKinds(t *testing.T) {
	ways := []struct {
		name string
		head string // what frames the body
		cut  func(c *call)
	}{
		{"reset", "Transfer-Encoding: chunked\r\n", func(c *call) { reset(c.TCPConn) }},
		{"end without the last chunk", "Transfer-Encoding: chunked\r\n", func(*call) {}},
		{"short of its Content-Length", "Content-Length: 100000\r\n", func(*call) {}},
		{"garbage for a chunk", "Transfer-Encoding: chunked\r\n", func(c *call) { c.write("zz\r\nnot a chunk\r\n") }},
		{"closed, without [DONE]", "Connection: close\r\n", func(*call) {}},
	}
	places := []struct {
		name  string
		parts []string
		want  string // that the client must have had of it
	}{
		{"before the first token", []string{role}, ""},
		{"between events", []string{role, delta("one"), delta(" two")}, "one two"},
		{"within an event", []string{role, delta("one"), delta(" two")[:40]}, "one"},
	}
	right, mendedToo := 0, 0
	for _, way := range ways {
		for _, place := range places {
			t.Run(way.name+" "+place.name, func(t *testing.T) {
				arrived := make(chan struct{})
				b := &bare{serve: func(c *call) bool {
					// All in one write: who has seen the last whole event has read what
					// stands behind it. A reset overtakes what has not been read.
					text := strings.Join(place.parts, "")
					if strings.Contains(way.head, "chunked") {
						text = chunk(text)
					}
					c.write(streamHead + way.head + "\r\n" + text)
					if place.want != "" {
						<-arrived
					}
					way.cut(c)
					return false
				}}
				b.listen(t)
				g := front(t, []string{b.url()})
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				x, client := &texts{}, newClient(t, true)
				r := x.ask(ctx, client, g.url(), order{stream: true}, func(text string) {
					if text == place.want {
						close(arrived)
					}
				})
				switch {
				case place.want == "" && r.kind == errorStatus && r.status >= 500, place.want != "" && r.kind == errorEvent && r.text == place.want && !r.done:
					right++
				default:
					t.Errorf("%v", r)
				}
				if place.want != "" {
					return
				}
				good := (&bare{serve: func(c *call) bool {
					c.write(streamHead + "Transfer-Encoding: chunked\r\n\r\n" + chunk(role) + chunk(delta("good")) + chunk(finish) + chunk(done) + "0\r\n\r\n")
					return true
				}}).listen(t)
				two := front(t, []string{b.url(), good.url()})
				client = newClient(t, true) // which hangs up before the gateway must be at rest
				for range 4 {
					r := x.ask(ctx, client, two.url(), order{stream: true}, nil)
					if r.kind != whole || r.text != "good" {
						t.Errorf("before a second backend: %v", r)
						return
					}
				}
				mendedToo++
			})
		}
	}
	figure(t, "%d of %d told; before the first token %d of %d mended by a second backend", right, len(ways)*len(places), mendedToo, len(ways))
}
