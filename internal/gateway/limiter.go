package gateway

import (
	"sync/atomic"

	"github.com/vllm-gateway/vllm-gateway/internal/limits"
)

// counting is a Limiter that is closed when nobody has it any more: the settings that
// hold, requests that have begun with them, and what is told to it of their ends.
type counting struct {
	limits.Limiter
	users atomic.Int64
}

func newCounting(l limits.Limiter) *counting {
	c := &counting{Limiter: l}
	c.users.Store(1)
	return c
}

// join reports false if it is closed already. No limiter has room for all.
func (c *counting) join() bool {
	if c == nil {
		return true
	}
	for {
		n := c.users.Load()
		if n == 0 {
			return false
		}
		if c.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (c *counting) leave() {
	if c != nil && c.users.Add(-1) == 0 {
		c.Close()
	}
}

// limiterOf gives what counts for callers, joined: the one that has counted until now,
// if it is the same.
func (g *Gateway) limiterOf(cfg Config, before *settings) (*counting, error) {
	switch o := cfg.SharedLimits; {
	case len(cfg.Callers) == 0:
		return nil, nil
	case o == nil:
		if g.local == nil {
			g.local = newCounting(limits.NewLocal()) // and this stays: it may be wanted again
		}
		g.local.join()
		return g.local, nil
	case before != nil && before.SharedLimits != nil && before.limiter != nil && sameRedis(*before.SharedLimits, *o):
		before.limiter.join()
		return before.limiter, nil
	default:
		shared := *o
		shared.Log = g.log
		l, err := limits.NewShared(shared)
		if err != nil {
			return nil, err
		}
		return newCounting(l), nil
	}
}

// settings gives those that hold now, with their limiter joined.
func (g *Gateway) settings() *settings {
	for {
		conf := g.conf.Load()
		if conf.limiter.join() {
			return conf
		} // others have come to hold between both
	}
}

func sameRedis(a, b limits.Options) bool {
	return a.URL == b.URL && a.Password.Equal(b.Password) && a.Timeout == b.Timeout
}
