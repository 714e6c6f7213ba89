package gateway

import (
	"context"
	"sync"
)

// running counts the requests that a drain has to wait for.
type running struct {
	mu     sync.Mutex
	n      int
	closed bool
	empty  chan struct{}
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
	r.settle()
}

// close asks to be told when the count is 0, once.
func (r *running) close() (empty <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.empty == nil {
		r.empty = make(chan struct{})
	}
	r.closed = true
	r.settle()
	return r.empty
}

func (r *running) settle() {
	if r.closed && r.n == 0 {
		select {
		case <-r.empty:
		default:
			close(r.empty)
		}
	}
}

// Drain ends the gateway: /health turns 503 and new requests are refused at
// once; running ones go on to their end, or until ctx ends, when their clients
// are told. Drain returns when the last one has ended.
func (g *Gateway) Drain(ctx context.Context) {
	g.draining.Store(true)
	empty := g.running.close()
	select {
	case <-empty:
	case <-ctx.Done():
		g.end(errDraining)
		<-empty
	}
	g.unwatch()
	g.watchers.Wait()
	g.transport.CloseIdleConnections()
}
