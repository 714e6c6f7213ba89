//go:build reliability

package reliability

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// leaver is a client on bare TCP: what it does is done at once, with no library
// in between.
type leaver struct {
	*net.TCPConn
	in *bufio.Reader
}

func dial(t *testing.T, addr string) *leaver {
	t.Helper()
	c, err := dialRaw(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func dialRaw(addr string) (*leaver, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &leaver{c.(*net.TCPConn), bufio.NewReader(c)}, nil
}

// post sends a request whose number the backend gets as a header.
func (c *leaver) post(n int, body string) {
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\nNumber: %d\r\nContent-Length: %d\r\n\r\n%s", n, len(body), body)
}

// until reads to the first line that holds a word.
func (c *leaver) until(t *testing.T, word string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			t.Fatalf("no %q: %v", word, err)
		}
		if strings.Contains(line, word) {
			return
		}
	}
}

// Who leaves ends the work on the backend, at whatever point.
func TestCancel(t *testing.T) {
	const (
		each     = 50
		together = 200
		never    = 5 * time.Second // later than this is not at all
	)
	type notice struct {
		number int
		at     time.Time
	}
	arrived, gone := make(chan int, together), make(chan notice, together)
	var say atomic.Pointer[string] // what the backend answers before it waits
	b := (&bare{serve: func(c *call) bool {
		number, _ := strconv.Atoi(c.req.Header.Get("Number"))
		c.write(*say.Load())
		arrived <- number
		io.Copy(io.Discard, c.in)
		gone <- notice{number, time.Now()}
		return false
	}}).listen(t)
	g := front(t, []string{b.url()})

	chunked := streamHead + "Transfer-Encoding: chunked\r\n\r\n"
	leave := func(c *leaver) { c.Close() }
	for _, tt := range []struct {
		name  string
		say   string
		await string // what the client has had before it leaves
		leave func(c *leaver)
	}{
		{"before the head", "", "", leave},
		{"after the head", chunked, "", leave},
		{"before the first token", chunked + chunk(role), "", leave},
		{"in mid stream", chunked + chunk(role) + chunk(delta("one")), "one", leave},
		{"in mid stream, by a reset", chunked + chunk(role) + chunk(delta("one")), "one", func(c *leaver) { reset(c.TCPConn) }},
		{"before a small answer", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", "", leave},
		{"within a large answer", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk("{\"begun\":\n"), "begun", leave},
	} {
		t.Run(tt.name, func(t *testing.T) {
			say.Store(&tt.say)
			var took []time.Duration
			for i := range each {
				c := dial(t, g.addr)
				c.post(i, ask)
				<-arrived
				if tt.await != "" {
					c.until(t, tt.await)
				}
				at := time.Now()
				tt.leave(c)
				select {
				case n := <-gone:
					took = append(took, n.at.Sub(at))
				case <-time.After(never):
					t.Fatalf("the backend still works for client %d, %v after it left", i, never)
				}
			}
			slices.Sort(took)
			figure(t, "the backend knew after %v (p50), %v (p99), of %d", took[each/2].Round(10*time.Microsecond), took[each*99/100].Round(10*time.Microsecond), each)
		})
	}
	t.Run("all at once", func(t *testing.T) {
		text := chunked + chunk(role) + chunk(delta("one"))
		say.Store(&text)
		clients := make([]*leaver, together)
		for i := range clients {
			clients[i] = dial(t, g.addr)
			clients[i].post(i, ask)
		}
		for _, c := range clients {
			<-arrived
			c.until(t, "one")
		}
		began := time.Now()
		for _, c := range clients {
			c.Close()
		}
		last := began
		for i := range clients {
			select {
			case n := <-gone:
				last = n.at
			case <-time.After(never):
				t.Fatalf("the backend still works for %d clients, %v after they left", together-i, never)
			}
		}
		figure(t, "%d clients left; the backend knew of the last after %v", together, last.Sub(began).Round(10*time.Microsecond))
	})
}

// 2,000 streams at once (STREAMS=9000 for more) through one gateway, each byte for byte what the backend
// sent, and what an open one costs in memory.
func TestManyStreams(t *testing.T) {
	streams := number(t, "STREAMS", 2000)
	var open atomic.Int64
	goOn := make(chan struct{})
	b := (&bare{serve: func(c *call) bool {
		seed, _ := strconv.Atoi(c.req.Header.Get("Seed"))
		c.write(streamHead + "Transfer-Encoding: chunked\r\n\r\n")
		for i, p := range parts(seed) {
			if i == 1 {
				open.Add(1)
				<-goOn
			}
			c.write(chunk(p))
		}
		c.write("0\r\n\r\n")
		return true
	}}).listen(t)
	g := front(t, []string{b.url()})
	client := newClient(t, true)
	rss, pss := g.memory()
	var had atomic.Int64
	var all sync.WaitGroup
	var wrong atomic.Int64
	for i := range streams {
		all.Go(func() {
			req, _ := http.NewRequestWithContext(t.Context(), "POST", g.url()+"/v1/chat/completions", strings.NewReader(ask))
			req.Header.Set("Seed", strconv.Itoa(i))
			resp, err := client.Do(req)
			had.Add(1)
			if err != nil {
				wrong.Add(1)
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if want := strings.Join(parts(i), ""); err != nil || string(got) != want {
				wrong.Add(1)
				t.Errorf("stream %d: %d bytes of %d, %v", i, len(got), len(want), err)
			}
		})
	}
	until(t, "all are open", func() bool { return open.Load() == int64(streams) && had.Load() == int64(streams) })
	rssOpen, pssOpen := g.memory()
	close(goOn)
	all.Wait()
	figure(t, "%d streams at once, %d of them not byte-identical", streams, wrong.Load())
	figure(t, "%.1f KiB RSS (%.1f KiB PSS) an open stream; %d KiB before", float64(rssOpen-rss)/float64(streams), float64(pssOpen-pss)/float64(streams), rss)
	if each := (rssOpen - rss) / streams; each > 100 {
		t.Errorf("%d KiB an open stream: it holds more than its buffers", each)
	}
}

// parts is a stream cut into the writes of the backend: events, several at once,
// halves of one, letters of several bytes cut in two.
func parts(seed int) []string {
	rng := rand.New(rand.NewPCG(uint64(seed), 7))
	list := []string{role + delta("first")}
	for range 20 {
		var b strings.Builder
		for range 1 + rng.IntN(3) {
			b.WriteString(delta(strings.Repeat("x", rng.IntN(300)) + "häß€𝄞" + strconv.Itoa(rng.Int())))
		}
		text := b.String()
		cut := rng.IntN(len(text)-2) + 1
		list = append(list, text[:cut], text[cut:])
	}
	return append(list, finish+done)
}

// Twenty clients do not read what a backend sends them, 64 MB each: that must
// not pile up in the gateway. One of them reads in the end, and has all of it.
func TestUnreadStreams(t *testing.T) {
	const (
		streams = 20
		size    = 64 << 20
	)
	event := delta(strings.Repeat("x", 4000))
	events := size / len(event)
	want := sha256.New()
	for range events {
		io.WriteString(want, event)
	}
	io.WriteString(want, finish+done)
	var sent atomic.Int64
	b := (&bare{serve: func(c *call) bool {
		c.write(streamHead + "Transfer-Encoding: chunked\r\n\r\n")
		piece := []byte(chunk(event))
		for range events {
			n, err := c.Write(piece)
			sent.Add(int64(n))
			if err != nil {
				return false
			}
		}
		c.write(chunk(finish+done) + "0\r\n\r\n")
		return true
	}}).listen(t)
	g := front(t, []string{b.url()})
	rss, _ := g.memory()
	var clients []*leaver
	for i := range streams {
		c := dial(t, g.addr)
		c.post(i, ask)
		clients = append(clients, c)
	}
	before, since := int64(0), time.Now()
	until(t, "nothing moves any more", func() bool {
		if now := sent.Load(); now != before || now == 0 {
			before, since = now, time.Now()
		}
		return time.Since(since) > time.Second
	})
	full, _ := g.memory()
	figure(t, "%d unread streams of 64 MB: RSS grew by %.1f MiB (%d KiB before); the backend got rid of %d KiB of each", streams, float64(full-rss)/1024, rss, before/streams>>10)
	if grown := full - rss; grown > streams<<10 {
		t.Errorf("RSS grew by %d KiB: more than a MiB for each", grown)
	}
	resp, err := http.ReadResponse(clients[0].in, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := sha256.New()
	if n, err := io.Copy(got, resp.Body); err != nil || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("who reads late has %d bytes of %d, %v, and not the same", n, events*len(event)+len(finish+done), err)
	}
	for _, c := range clients {
		c.Close()
	}
}

// 200 connections (SLOW=5000 for more) that trickle their headers are ended after some ten seconds,
// and take nothing from honest clients meanwhile.
func TestSlowloris(t *testing.T) {
	slow := number(t, "SLOW", 200)
	const (
		limit = 10 * time.Second
		late  = limit + 2*time.Second // for a machine with other work
	)
	good := sim(t, 1, time.Millisecond)
	x := learn(t, 5, 8, good)
	g := front(t, []string{good.url()})
	client := newClient(t, true)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ended := make(chan time.Duration, slow)
	for i := range slow {
		c := dial(t, g.addr)
		began := time.Now()
		go func() {
			io.WriteString(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\n")
			for beat := time.NewTicker(500 * time.Millisecond); ; {
				select {
				case <-beat.C:
				case <-ctx.Done():
					return
				}
				if _, err := fmt.Fprintf(c, "X-%d: a\r\n", i); err != nil {
					return
				}
			}
		}()
		go func() {
			io.Copy(io.Discard, c)
			ended <- time.Since(began)
			c.Close()
		}()
	}
	c := tally{t: t}
	first, last := time.Duration(0), time.Duration(0)
	for open := slow; open > 0; {
		for _, r := range spread(8, 4, func(i int) *reply { return x.ask(ctx, client, g.url(), x.pick(i, i%2 == 0), nil) }) {
			c.add(r, whole)
		}
		for range len(ended) {
			took := <-ended
			if first == 0 {
				first = took
			}
			last = max(last, took)
			open--
		}
		if ctx.Err() != nil {
			t.Fatalf("%d connections are still open after %v", open, patience)
		}
	}
	if last > late {
		t.Errorf("the last connection was ended after %v", last)
	}
	figure(t, "%d connections ended after %.2f to %.2f s; %d of %d honest requests failed meanwhile", slow, first.Seconds(), last.Seconds(), c.all()-c.counts[whole], c.all())
}
