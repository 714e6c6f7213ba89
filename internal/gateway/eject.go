package gateway

import (
	"math/rand/v2"
	"time"
)

const (
	// maxStrikes in a row eject a backend. A failure is proven where another backend
	// has answered the same request: one that breaks whatever it is sent to is not
	// to take the backends from the others. A refusal that the other backend has
	// made as well counts a little: most of them may be in trouble.
	maxStrikes = 12
	proven     = 4
	suspected  = 1
	// The first time it is passed over for ejectFirst, then for twice as long, up
	// to ejectMost: each a quarter more or less, so that gateways do not come back
	// to it together.
	ejectFirst = time.Second
	ejectMost  = 30 * time.Second
)

// ejection is for a backend that answers /health and fails requests. For a while
// it is passed over; then one request at a time tries it.
//
// It is guarded by pool.mu.
type ejection struct {
	strikes int
	times   int // in a row
	until   time.Time
	trial   *lease // the request that is trying it; nil: none
}

// holds reports whether the backend is to be passed over.
func (e *ejection) holds() bool {
	return e.times > 0 && (e.trial != nil || time.Now().Before(e.until))
}

// try is told of each lease: it is a trial if the backend was ejected and no other
// request is trying it. (A light one would show nothing.)
func (e *ejection) try(l *lease) {
	if e.times > 0 && e.trial == nil && !l.light {
		e.trial = l
	}
}

// tried is told of the end of each lease, and ends the trial, whatever it has shown.
func (e *ejection) tried(l *lease) {
	if e.trial == l {
		e.trial = nil
	}
}

// succeed has the backend back, for all; what has tried it may go on for long.
func (e *ejection) succeed() { e.strikes, e.times, e.trial = 0, 0, nil }

// strike notes a failure, and reports whether it calls for ejection: for one that
// was ejected and has answered nothing since, one proven failure does.
func (e *ejection) strike(weight int) bool {
	e.strikes += weight
	return e.strikes >= maxStrikes || e.times > 0 && weight == proven
}

func (e *ejection) eject(now time.Time) time.Duration {
	hold := min(ejectFirst<<min(e.times, 10), ejectMost)
	hold += time.Duration((rand.Float64() - 0.5) / 2 * float64(hold))
	e.times++
	e.strikes = 0
	e.until = now.Add(hold)
	return hold
}

// answered notes that a backend has answered a request. Those that failed with it
// before are to blame for that: now it is known that it was not the request.
func (p *pool) answered(b *backend, failed []*backend, at time.Time) (out map[*backend]time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.budget.succeed()
	back := b.passive.times > 0
	b.passive.succeed()
	if back {
		p.callUp(b)
	}
	return p.strike(failed, proven, at)
}

// unanswered notes that a request has failed for good. If it was refused it is not
// likely to be at fault; if it has broken all connections it may be.
func (p *pool) unanswered(tried []*backend, refused bool) (out map[*backend]time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(tried) > 1 {
		p.budget.fail()
	}
	if !refused {
		return nil
	}
	return p.strike(tried, suspected, time.Now())
}

// strike gives those that it has ejected, and for how long. What has failed before
// a backend was passed over, or while it is, says nothing new of it: all that ran
// on it when it died comes to light in the seconds after.
func (p *pool) strike(backends []*backend, weight int, at time.Time) (out map[*backend]time.Duration) {
	for _, b := range backends {
		if at.After(b.passive.until) && b.passive.strike(weight) && p.mayEject(b) {
			if out == nil {
				out = map[*backend]time.Duration{}
			}
			out[b] = b.passive.eject(time.Now())
		}
	}
	return out
}

// mayEject: at most half of the backends that have a model in common. (One that is
// the last of some model may be among them; being the best there is for that, it is
// asked all the same.)
func (p *pool) mayEject(b *backend) bool {
	alike, gone := 0, 0
	for _, other := range p.backends {
		if other.gone || other.state == down || !p.alike(b, other) {
			continue
		}
		alike++
		if other != b && other.passive.times > 0 {
			gone++
		}
	}
	return 2*(gone+1) <= alike
}

// alike reports whether two backends have a model in common, as far as is known.
func (p *pool) alike(a, b *backend) bool {
	if len(a.models) == 0 || len(b.models) == 0 {
		return true
	}
	for _, m := range a.models {
		if b.serves[m] {
			return true
		}
	}
	return false
}
