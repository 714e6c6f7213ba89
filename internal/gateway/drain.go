package gateway

import (
	"context"
	"sync"
	"time"
)

// quiet is how long nothing must have run for a drain to be over: a client that has
// just had its answer may send the next request on the same connection.
const quiet = time.Second

// running counts the requests that a drain has to wait for.
type running struct {
	mu   sync.Mutex
	n    int
	last time.Time     // when one ended
	none chan struct{} // closed when n gets to 0; nil while nobody waits for it
}

func (r *running) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
}

func (r *running) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n--
	r.last = time.Now()
	if r.n == 0 && r.none != nil {
		close(r.none)
		r.none = nil
	}
}

// idle is closed when nothing runs.
func (r *running) idle() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == 0 {
		now := make(chan struct{})
		close(now)
		return now
	}
	if r.none == nil {
		r.none = make(chan struct{})
	}
	return r.none
}

// lull is when the last request ended; ok is false while one runs.
func (r *running) lull() (since time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.n == 0
}

// Leave says that the gateway is about to go: /health turns 503, and a connection
// ends with the next answer on it. All else goes on.
func (g *Gateway) Leave() { g.draining.Store(true) }

// Drain ends the gateway. It returns when nothing has run for a second; or when ctx
// has ended, and the clients of what still ran have been told. Whoever comes later
// is refused.
func (g *Gateway) Drain(ctx context.Context) {
	g.Leave()
	for ctx.Err() == nil {
		select {
		case <-g.running.idle():
		case <-ctx.Done():
			continue
		}
		since, _ := g.running.lull()
		select {
		case <-time.After(time.Until(since.Add(quiet))):
		case <-ctx.Done():
		}
		if now, ok := g.running.lull(); ok && now.Equal(since) {
			break
		}
	}
	g.end(errDraining)
	<-g.running.idle()
	g.changing.Lock()
	g.ended = true
	g.unwatch()
	g.changing.Unlock()
	g.watchers.Wait()
	g.settling.Wait() // each has settleWithin
	if l := g.conf.Load().limiter; l != nil {
		l.Close()
	}
	for _, s := range g.places {
		s.road.CloseIdleConnections()
	}
}
