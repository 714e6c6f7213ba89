package gateway

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/secret"

	"github.com/vllm-gateway/vllm-gateway/internal/http1"
)

const (
	// lookupEvery is the time between two looks at a name in DNS. Go's resolver
	// does not tell how long an answer is good for; Kubernetes says 5 s of its own
	// names.
	lookupEvery = 5 * time.Second
	// lookupTimeout ends a look that hangs.
	lookupTimeout = 5 * time.Second
	// forgetAfter is how long the series of a backend that has gone stay, so that
	// what they have counted last is scraped.
	forgetAfter = 10 * time.Minute
)

// newRoad makes what gets requests to the backends of a source. serverName is what TLS
// certificates must be for; "" is the host of the URL.
func (g *Gateway) newRoad(serverName string) *http1.Client {
	return &http1.Client{
		Dial:             g.dial,
		TLS:              &tls.Config{ServerName: serverName},
		HandshakeTimeout: connectTimeout,
		IdleTimeout:      idleConnTimeout,
		MaxIdle:          1024, // no limit on those in use: that would be a waiting line that nobody sees
	}
}

// place is one --backend and what is known of it.
type place struct {
	source
	road   *http1.Client
	ctx    context.Context // ends when it is no longer configured
	stop   context.CancelFunc
	weight int                         // guarded by pool.mu
	key    atomic.Pointer[secret.Text] // what its backends want to be asked with
}

// follow looks up a source until ctx ends, and keeps the pool up to date. What
// runs on a backend that is no longer named goes on. A look that brings nothing
// changes nothing: whether the backends that are known live, their probes say.
func (g *Gateway) follow(s *place) {
	ctx, failing := s.ctx, false
	for {
		looking, cancel := context.WithTimeout(ctx, lookupTimeout)
		found, err := s.lookup(looking, g.resolver)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failing {
				g.log.Warn("backends not found; those known stay", "source", s.String(), "error", err)
			}
		default:
			if failing {
				g.log.Info("backends found again", "source", s.String(), "backends", len(found))
			}
			g.update(s, found)
		}
		failing = err != nil
		select {
		case <-time.After(jitter(lookupEvery)):
		case <-ctx.Done():
			return
		}
	}
}

// jitter is a time between 90 and 110 % of d: many gateways are not to ask in
// step.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)/5*float64(d))
}

// update takes the backends of a source as they are now.
func (g *Gateway) update(s *place, found []endpoint) {
	g.pool.mu.Lock()
	defer g.pool.mu.Unlock()
	if s.ctx.Err() != nil { // it has been taken out meanwhile
		return
	}
	g.put(s, found)
	g.pool.callAll()
	g.pool.sendAway()
}

// put is update, for who changes several and holds pool.mu.
func (g *Gateway) put(s *place, found []endpoint) {
	p := &g.pool
	for _, e := range found {
		b := p.find(e.name)
		switch {
		case b == nil, b.gone:
			// An address that comes again may be another server: nothing of what was
			// known holds, but for the series, which count on.
			if b == nil {
				g.metrics.introduceBackend(e.name)
			} else {
				p.remove(b)
			}
			b = &backend{name: e.name, url: e.url, host: e.hostHeader(), hash: hash(hashSeed, []byte(e.name)), road: s.road, state: unknown, fell: make(chan struct{}, 1), relisting: make(chan struct{}, 1), isUp: g.metrics.backendUp.WithLabelValues(e.name), running: g.metrics.inFlight.WithLabelValues(e.name)}
			p.add(b)
			g.attend(s, b)
		case b.of != s: // another source has named it first
			continue
		}
		b.share = e.weight
		b.weight = b.share * s.weight
	}
	for _, b := range p.backends {
		if b.of == s && !b.gone && !slices.ContainsFunc(found, func(e endpoint) bool { return e.name == b.name }) {
			b.gone, b.goneAt = true, time.Now()
			p.list(b, -1)
			b.stop()
			b.isUp.Set(0)
			g.log.Info("backend is no longer named", "source", s.String(), "backend", b.name, "in_flight", b.inFlight)
		}
	}
}

// attend begins to probe a backend.
func (g *Gateway) attend(s *place, b *backend) {
	b.of = s
	if s.kind != static {
		g.log.Info("backend found", "source", s.String(), "backend", b.name)
	}
	watching, stop := context.WithCancel(s.ctx)
	b.stop = stop
	g.watchers.Go(func() { g.watch(watching, b) })
}

// forget drops what has gone long ago: a cluster gives each pod a new address, and
// series are kept for ever.
func (g *Gateway) forget() {
	p := &g.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.backends = slices.DeleteFunc(p.backends, func(b *backend) bool {
		old := b.gone && b.inFlight == 0 && time.Since(b.goneAt) >= forgetAfter
		if old {
			g.metrics.drop("backend", b.name)
		}
		return old
	})
}
