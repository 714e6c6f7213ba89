package gateway

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
)

// settings are a Config that holds, and what is made of it. A request keeps those
// that it has begun with.
type settings struct {
	Config
	callers *callers  // nil: there are no keys, and everybody may come
	limiter *counting // nil likewise
	single  bool      // there is one backend, and will be no other
}

var (
	errEnded = errors.New("the gateway is shutting down")
	errOpen  = errors.New("no keys are left: a gateway that had keys is not opened to everybody while it runs; restart it, if that is meant")
)

// Reload puts another Config in the place of the one that holds: all of it, or, if
// something is wrong with it, nothing. What runs goes on as it has begun. Not to be
// changed so are Version, Log, RequestLevel, Dial, Resolver, Tracer and NoMetrics: they stay
// as they were. The error is that of [Config.Validate], or says what a running
// gateway does not do; it is for [Gateway.ReloadFailed].
func (g *Gateway) Reload(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := g.reload(cfg); err != nil {
		return err
	}
	g.metrics.reloaded.Set(1)
	g.metrics.reloadedAt.SetToCurrentTime()
	g.log.Info("configuration reloaded", "backends", cfg.Backends, "callers", len(cfg.Callers))
	return nil
}

// ReloadFailed says that a reload came to nothing: in a metric, and in the log with
// each line of the error for itself.
func (g *Gateway) ReloadFailed(err error) {
	g.metrics.reloaded.Set(0)
	for line := range strings.SplitSeq(err.Error(), "\n") {
		g.log.Error("configuration not reloaded; the one before holds", "error", line)
	}
}

func (g *Gateway) reload(cfg Config) error {
	g.changing.Lock()
	defer g.changing.Unlock()
	before := g.conf.Load()
	switch {
	case g.ended:
		return errEnded
	case before.callers != nil && len(cfg.Callers) == 0:
		return errOpen
	}
	cfg.NoMetrics = before.NoMetrics
	return g.apply(cfg, before)
}

// apply makes a valid Config hold; before is the one that held, or nil.
func (g *Gateway) apply(cfg Config, before *settings) error {
	cfg.SessionHeader = cmp.Or(cfg.SessionHeader, "X-Session-Id")
	cfg.PrefixBytes = cmp.Or(cfg.PrefixBytes, 1024)
	cfg.MaxLoad = cmp.Or(cfg.MaxLoad, defaultMaxLoad)
	now := &settings{Config: cfg}
	now.callers = newCallers(cfg.Callers, before)
	var err error
	if now.limiter, err = g.limiterOf(cfg, before); err != nil {
		return err
	}

	gone := g.places
	g.places = nil
	for _, text := range cfg.Backends {
		src, _ := parseSource(text) // validated
		i := slices.IndexFunc(gone, func(s *place) bool { return s.source == src })
		if i >= 0 {
			g.places = append(g.places, gone[i])
			gone = slices.Delete(gone, i, i+1)
			continue
		}
		s := &place{source: src, road: g.shared}
		if src.kind == hosts && src.scheme == "https" {
			s.road = g.newRoad(strings.TrimSuffix(src.name, ".")) // what is connected to is an address
		}
		g.places = append(g.places, s)
	}
	now.single = len(g.places) == 1 && g.places[0].kind == static

	found := g.lookup(before != nil, len(gone) > 0)
	g.bodies.max.Store(cfg.BodyMemory)
	g.conf.Store(now)
	if before != nil {
		before.limiter.leave()
	}
	p := &g.pool
	p.mu.Lock()
	p.configure(cfg)
	for _, s := range gone {
		s.stop()
		g.put(s, nil)
	}
	for i, s := range g.places {
		key := cfg.BackendKeys[cfg.Backends[i]]
		s.key.Store(&key)
		s.weight = max(cfg.Weights[cfg.Backends[i]], 1)
		fresh := s.ctx == nil
		if fresh {
			s.ctx, s.stop = context.WithCancel(g.watching)
		}
		if list, ok := found[s]; ok {
			g.put(s, list)
		}
		if fresh && s.kind != static {
			g.watchers.Go(func() { g.follow(s) })
		}
	}
	for _, b := range p.backends {
		b.weight = b.share * b.of.weight
	}
	p.callAll()
	p.sendAway()
	models := sorted(p.models)
	p.mu.Unlock()
	g.metrics.forgetCallers(now.callers)
	g.introduceCallers(now.callers, models)

	for _, s := range gone {
		if s.road != g.shared {
			s.road.CloseIdleConnections()
		}
	}
	return nil
}

// lookup gives the backends of each place that can say so at once; and of names in
// DNS that are new, if it may wait for them: those that serve until now are not to
// be let go before the others are known. Where a place has gone it looks at all names
// again: what had that place for its own may be theirs too.
func (g *Gateway) lookup(wait, gone bool) map[*place][]endpoint {
	var mu sync.Mutex
	found := map[*place][]endpoint{}
	var looks sync.WaitGroup
	for _, s := range g.places {
		if s.kind != static && (!wait || s.ctx != nil && !gone) {
			continue
		}
		looks.Go(func() {
			ctx, cancel := context.WithTimeout(g.watching, lookupTimeout)
			defer cancel()
			list, err := s.lookup(ctx, g.resolver)
			if err != nil {
				return // follow will say so
			}
			mu.Lock()
			found[s] = list
			mu.Unlock()
		})
	}
	looks.Wait()
	return found
}

// configure takes over what a Config says of choosing and waiting.
func (p *pool) configure(cfg Config) {
	p.choose, p.maxLoad, p.cap = policies[cmp.Or(cfg.Routing, LeastInFlight)], cfg.MaxLoad, cfg.MaxInFlight
	p.line.max, p.line.limit = cfg.MaxWaiting, cfg.MaxWait
}
