package gateway

import (
	"cmp"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vllm-gateway/vllm-gateway/internal/http1"
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
	url  *url.URL // where to connect
	name string   // host:port, the label of metrics
	host string   // the Host header
	of   *place   // which source names it
	road *http1.Client
	hash uint64        // of its name; see byHash
	fell chan struct{} // holds something once it has gone down
	// stop ends the probes.
	stop func()
	// relisting holds something while a request has the models listed.
	relisting chan struct{}
	told      atomic.Bool // the log has it that the models are not listed
	running   prometheus.Gauge
	pairsMu   sync.RWMutex
	pairs     map[string]*pairSeries // by model, of those that metrics know by name

	// the rest is guarded by pool.mu
	share    int  // beside the others of its source
	weight   int  // the same, times its source's
	gone     bool // no source names it any more; what runs on it goes on
	goneAt   time.Time
	state    state
	trouble  string // why it is down, or slow
	inFlight int
	turn     int     // of the pool, when it was last leased
	credit   float64 // see byWeight
	models   []string
	serves   map[string]bool // the same
	listed   time.Time       // when the models were read; zero: they are not known
	passive  ejection
	isUp     prometheus.Gauge
	service  float64 // seconds that a lease lasts: a moving mean; 0: none has ended
}

// pool is the set of backends, the choice among them, and the line of those that
// wait for one.
type pool struct {
	mu       sync.Mutex
	choose   policy
	maxLoad  float64
	cap      int // of requests in flight on one backend; 0: none
	backends []*backend
	models   map[string]bool // that some backend has listed; see maxKnown
	listers  map[string]int  // how many backends list a model, those that have gone left out
	turn     int             // leases so far
	seq      int             // requests so far
	line     line
	running  map[uint64]int // leases of each caller; kept where there is a cap
	begun    map[uint64]int // leases of each of want.begins
	budget   budget
	homes    homes
	scratch  []*backend
}

// want is what a request asks of the pool.
type want struct {
	model string // "": any will do
	// group says which backend is likely to have the prompt cached; 0: nothing
	// does.
	group uint64
	// begins stand in for group: what the prompt begins with, first a little of it,
	// then more; see telling.
	begins   [2]uint64
	caller   uint64
	priority priority
	seq      int // orders requests as they came
	// light: it generates nothing, and is not to wait for those that do.
	light bool
	// home is the only backend that will do; nil: any.
	home *backend
}

// rank orders backends by how much is to be hoped from them; lower is better.
type rank int

const (
	fit     rank = iota // up, or next in turn for a trial
	unasked             // nobody has asked it yet
	ejected             // answers /health, and fails requests
	dead                // down; the probe that says so may be old
	useless             // has not what is wanted
)

// rank of a backend for a request that has tried some others.
func (p *pool) rank(b *backend, w *want, tried []*backend) rank {
	switch {
	case b.gone, w.home != nil && w.home != b, slices.Contains(tried, b), !p.has(b, w.model):
		return useless
	case b.state == down:
		return dead
	case b.passive.holds():
		return ejected
	case b.state == unknown:
		return unasked
	}
	return fit
}

// has reports whether a backend lists a model. One whose list is not known (it
// wants a key for it, say) may have any model that no other lists.
func (p *pool) has(b *backend, model string) bool {
	return model == "" || b.serves[model] || b.listed.IsZero() && !p.isListed(model)
}

func (p *pool) isListed(model string) bool { return p.listers[model] > 0 }

// list counts what a backend serves, or does so no longer: by is 1 or -1.
func (p *pool) list(b *backend, by int) {
	for m := range b.serves {
		if p.listers[m] += by; p.listers[m] == 0 {
			delete(p.listers, m)
		}
	}
}

// best gives the best rank that some backend has.
func (p *pool) best(w *want, tried []*backend) rank {
	best := useless
	for _, b := range p.backends {
		best = min(best, p.rank(b, w, tried))
	}
	return best
}

// lease is a backend taken for one attempt.
type lease struct {
	p       *pool
	backend *backend
	caller  uint64
	light   bool
	begins  [2]uint64
	since   time.Time
	counted bool // in pool.running
	back    bool
}

// take leases a backend of the best rank that there is. Where all of those are
// full it gives nil and that rank: a worse one is no better than waiting. It is
// called with mu held.
func (p *pool) take(w *want, tried []*backend) (*lease, rank) {
	best := useless
	c := choice{free: p.scratch[:0], group: w.group, maxLoad: p.maxLoad}
	for _, b := range p.backends {
		r := p.rank(b, w, tried)
		if r > best || r == useless {
			continue
		}
		if r < best {
			best, c.free, c.inFlight, c.weight = r, c.free[:0], 0, 0
		}
		c.inFlight += b.inFlight
		c.weight += b.weight
		if p.isFree(b) || w.light {
			c.free = append(c.free, b)
		}
	}
	p.scratch = c.free
	if c.group == 0 {
		c.group = p.telling(w.begins, c.inFlight)
	}
	if len(c.free) == 0 {
		return nil, best
	}
	return p.give(p.choose(&c), w), best
}

func (p *pool) isFree(b *backend) bool { return p.cap == 0 || b.inFlight < p.cap }

// give leases a backend that has been chosen.
func (p *pool) give(b *backend, w *want) *lease {
	p.turn++
	b.turn = p.turn
	b.inFlight++
	p.count(w.begins, 1)
	counted := p.cap > 0
	if counted {
		p.running[w.caller]++
	}
	l := &lease{counted: counted, p: p, backend: b, caller: w.caller, light: w.light, begins: w.begins, since: time.Now()}
	b.passive.try(l)
	return l
}

// release gives a lease back, and the backend to whoever has waited for it.
func (l *lease) release() {
	p, b := l.p, l.backend
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.back {
		return
	}
	l.back = true
	b.inFlight--
	p.count(l.begins, -1)
	b.passive.tried(l)
	if l.counted {
		if p.running[l.caller]--; p.running[l.caller] == 0 {
			delete(p.running, l.caller)
		}
	}
	if p.cap == 0 {
		return // nobody waits
	}
	switch took := time.Since(l.since).Seconds(); {
	case l.light:
	case b.service == 0:
		b.service = took
	default:
		b.service += (took - b.service) / 8
	}
	p.callUp(b)
}

// setState changes a backend's state and reports whether that is news.
func (p *pool) setState(b *backend, s state, trouble string) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.gone {
		return false
	}
	news = b.state != s
	b.state, b.trouble = s, trouble
	if news {
		b.isUp.Set(map[state]float64{up: 1}[s])
		p.callAll()
	}
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
	first := b.listed.IsZero()
	b.listed = time.Now()
	if slices.Equal(models, b.models) && !first || b.gone {
		return nil
	}
	serves := make(map[string]bool, len(models))
	for _, m := range models {
		if !p.models[m] && len(p.models) < maxKnown {
			p.models[m] = true
		}
		if p.models[m] && !b.serves[m] {
			added = append(added, m)
		}
		serves[m] = true
	}
	p.list(b, -1)
	b.models, b.serves = models, serves
	p.list(b, 1)
	p.callAll()
	p.sendAway()
	return added
}

// known reports whether some backend has listed the model.
func (p *pool) known(model string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.models[model]
}

// others reports how good the best backend is that has not been tried.
func (p *pool) others(w *want, tried []*backend) rank {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.best(w, tried)
}

// mayRetry reports whether second attempts are worth it.
func (p *pool) mayRetry() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.budget.left()
}

// usable gives the backends that are up.
func (p *pool) usable() []*backend { return p.those(func(b *backend) bool { return b.state == up }) }

// all gives every backend.
func (p *pool) all() []*backend { return p.those(func(*backend) bool { return true }) }

func (p *pool) those(are func(*backend) bool) []*backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*backend
	for _, b := range p.backends {
		if !b.gone && are(b) {
			list = append(list, b)
		}
	}
	return list
}

// sendAway ends the wait of those for whom there is no backend any more.
func (p *pool) sendAway() {
	for _, w := range p.line.all() {
		if p.best(&w.want, w.tried) == useless && p.line.leave(w) {
			w.sent = errNoBackend
			close(w.called)
		}
	}
}

// find gives the backend of a name, one that has gone included.
func (p *pool) find(name string) *backend {
	for _, b := range p.backends {
		if b.name == name {
			return b
		}
	}
	return nil
}

func (p *pool) remove(b *backend) {
	p.backends = slices.DeleteFunc(p.backends, func(other *backend) bool { return other == b })
}

// add takes a backend in, in the order of names: every gateway sees the same.
func (p *pool) add(b *backend) {
	i, _ := slices.BinarySearchFunc(p.backends, b, func(x, y *backend) int { return cmp.Compare(x.name, y.name) })
	p.backends = slices.Insert(p.backends, i, b)
}
