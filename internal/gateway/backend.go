package gateway

import (
	"net/url"
	"slices"
	"sync"
)

// state of a backend, as its last health probe or the last request to it left
// it.
type state string

const (
	unknown state = "unknown" // not asked yet
	up      state = "up"
	down    state = "down"
)

// backend is one vLLM server.
type backend struct {
	url  *url.URL
	name string // host:port, the label of metrics

	// the rest is guarded by pool.mu
	state    state
	trouble  string // why it is down, or slow
	inFlight int
	models   []string
}

// pool is the set of backends and the choice among them.
type pool struct {
	mu       sync.Mutex
	backends []*backend
	models   map[string]bool // that some backend has listed; see maxKnown
	turn     int             // where the search for the least loaded begins, so that equals share
}

// lease takes the backend with the least requests in flight, by our own count:
// what a server says of its queue lags by seconds. Backends that are up come
// first; where none is, any is better than a refusal, since a probe may be
// stale. Those in tried are passed over; nil: there is no other.
//
// The caller gives the lease back with release.
func (p *pool) lease(tried ...*backend) *backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *backend
	for i := range p.backends {
		b := p.backends[(p.turn+i)%len(p.backends)]
		if slices.Contains(tried, b) {
			continue
		}
		if best == nil || b.better(best) {
			best = b
		}
	}
	if best != nil {
		best.inFlight++
		p.turn = (slices.Index(p.backends, best) + 1) % len(p.backends)
	}
	return best
}

func (b *backend) better(than *backend) bool {
	if (b.state == up) != (than.state == up) {
		return b.state == up
	}
	return b.inFlight < than.inFlight
}

func (p *pool) release(b *backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.inFlight--
}

// set changes a backend's state and reports whether that is news.
func (p *pool) set(b *backend, s state, trouble string) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	news = b.state != s
	b.state, b.trouble = s, trouble
	return news
}

// maxKnown bounds the models that metrics know by name, over the life of the
// process: adapters come and go, and series stay.
const maxKnown = 256

// setModels keeps what a backend lists, and gives those that metrics may call by
// name from now on.
func (p *pool) setModels(b *backend, models []string) (added []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.models == nil {
		p.models = map[string]bool{}
	}
	for _, m := range models {
		if !p.models[m] && len(p.models) < maxKnown {
			p.models[m] = true
		}
		if p.models[m] && !slices.Contains(b.models, m) {
			added = append(added, m)
		}
	}
	b.models = models
	return added
}

// known reports whether some backend has listed the model.
func (p *pool) known(model string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.models[model]
}

// fresh reports whether a backend that is not known to be down has not been
// tried.
func (p *pool) fresh(tried []*backend) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.backends, func(b *backend) bool { return b.state != down && !slices.Contains(tried, b) })
}

// usable gives the backends that are up.
func (p *pool) usable() []*backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*backend
	for _, b := range p.backends {
		if b.state == up {
			list = append(list, b)
		}
	}
	return list
}
