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
	all  *record       // the one that came last; each knows its neighbours
	last time.Time     // when one ended
	none chan struct{} // closed when n gets to 0; nil while nobody waits for it
}

func (r *running) begin(rec *record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	if rec.earlier = r.all; rec.earlier != nil {
		rec.earlier.later = rec
	}
	r.all = rec
}

// cut ends all that run.
func (r *running) cut() {
	r.mu.Lock()
	var all []*record
	for rec := r.all; rec != nil; rec = rec.earlier {
		all = append(all, rec)
	}
	r.mu.Unlock()
	for _, rec := range all {
		rec.cancel(errDraining)
		if f := rec.atCut.Load(); f != nil {
			(*f)()
		}
	}
}

// whenCut has f called when the end of a drain cuts the request, beside its context
// being cancelled; it replaces the f before. It may be called once more than that. (Of
// a context's AfterFunc, which would do, each request would need three.)
func (rec *record) whenCut(f func()) {
	rec.atCut.Store(&f)
	if rec.g.life.Err() != nil {
		rec.cancel(errDraining) // cut may be on its way still, and f's effect needs its reason
		f()
	}
}

func (r *running) end(rec *record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec.earlier != nil {
		rec.earlier.later = rec.later
	}
	if rec.later != nil {
		rec.later.earlier = rec.earlier
	} else {
		r.all = rec.earlier
	}
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
	g.end()
	g.running.cut()
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
