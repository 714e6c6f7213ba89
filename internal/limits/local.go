package limits

import (
	"context"
	"sync"
	"time"
)

// Local counts in the memory of one process: what callers have used is forgotten when
// it ends.
type Local struct {
	mu      sync.Mutex
	callers map[string]*caller
	oldest  *caller // of a ring: who was looked at longest ago
	start   time.Time
}

// caller is who has used something.
type caller struct {
	counts
	name       string
	prev, next *caller
}

// NewLocal makes a Limiter that needs nothing else.
func NewLocal() *Local {
	return &Local{callers: map[string]*caller{}, start: time.Now()}
}

var _ Limiter = (*Local)(nil)

// Take never gives ErrUnavailable.
func (l *Local) Take(ctx context.Context, name string, limits Limits, tokens int64) (Grant, error) {
	if ctx.Err() != nil {
		return Grant{}, context.Cause(ctx)
	}
	if limits = limits.clamped(); limits == (Limits{}) {
		return Grant{}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.now()
	l.forget(m)
	return l.caller(name).take(m, limits, clamped(tokens)), nil
}

// Settle never fails.
func (l *Local) Settle(_ context.Context, name string, g Grant, used int64) error {
	if used = clamped(used); g.settled(used) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.now()
	l.forget(m)
	l.caller(name).settle(m, g, used)
	return nil
}

// Close does nothing: nothing runs.
func (l *Local) Close() error { return nil }

// settled reports whether there is nothing to settle.
func (g Grant) settled(used int64) bool {
	return used == g.reserved || g.limits.Tokens == 0 && g.limits.DayTokens == 0
}

const day = 24 * time.Hour

func (l *Local) now() moment {
	now := time.Now()
	// Slots go by the monotonic clock, which nobody sets; days by the one that people
	// read.
	m := moment{at: now.Sub(l.start)}
	since := time.Duration(now.UnixNano())
	m.day = int64(since / day)
	m.end = day - since%day
	return m
}

func (l *Local) caller(name string) *caller {
	c := l.callers[name]
	if c == nil {
		c = &caller{name: name}
		l.callers[name] = c
		if l.oldest == nil {
			c.prev, c.next = c, c
			l.oldest = c
		} else { // last: before the oldest one
			c.prev, c.next = l.oldest.prev, l.oldest
			c.prev.next, c.next.prev = c, c
		}
	}
	return c
}

// forget looks at two callers and drops those of whom there is nothing to remember. At
// most one comes with each call, so their number falls as soon as it can, and no call
// pays for all.
func (l *Local) forget(m moment) {
	for range 2 {
		c := l.oldest
		switch {
		case c == nil:
			return
		case !c.nothing(m):
			l.oldest = c.next
		case c.next == c:
			l.oldest = nil
			delete(l.callers, c.name)
		default:
			c.prev.next, c.next.prev = c.next, c.prev
			l.oldest = c.next
			delete(l.callers, c.name)
		}
	}
}
