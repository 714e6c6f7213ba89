package limits

import (
	"slices"
	"time"
)

// counts is what one caller has used, as far as it still matters.
type counts struct {
	slots     []slot // by time, all within the window; empty ones may be among them
	day       int64
	dayTokens int64
}

// slot is what was used in one stretch of time. It is small: a caller who is always
// there has 121.
type slot struct {
	at       uint32 // the first one is at 0
	requests uint32
	tokens   int64
}

const (
	window   = time.Minute
	inWindow = 120 // slots; so one that counts too long costs less than 1 %
	slotTime = window / inWindow
	mostDay  = 1 << 52
)

// moment is when something is counted.
type moment struct {
	at  time.Duration // on the clock of the slots
	day int64         // of UTC, since 1970
	end time.Duration // until the day is over
}

func (m moment) slot() int64 { return int64(m.at / slotTime) }

// until is how long a slot still counts; what is not above 0 no longer does.
func (m moment) until(at uint32) time.Duration {
	return time.Duration(at+1)*slotTime + window - m.at
}

// take is Take of one caller. l and tokens are clamped.
func (c *counts) take(m moment, l Limits, tokens int64) Grant {
	c.drop(m)
	var g Grant
	over := func(k Kind, wait time.Duration, never bool) {
		switch {
		case g.Over != "" && g.Retry == 0: // another never will have room
		case never:
			g.Over, g.Retry = k, 0
		case wait > g.Retry:
			g.Over, g.Retry = k, wait
		}
	}
	used := c.used()
	if l.DayTokens > 0 && c.dayTokens+tokens > l.DayTokens {
		over(DayTokens, m.end, tokens > l.DayTokens)
	}
	if more := used.tokens + tokens - l.Tokens; l.Tokens > 0 && more > 0 {
		over(Tokens, c.wait(m, more, slot.countTokens), tokens > l.Tokens)
	}
	if more := used.requests + 1 - l.Requests; l.Requests > 0 && more > 0 {
		over(Requests, c.wait(m, more, slot.countRequests), false)
	}
	if g.Over == "" {
		g.limits, g.reserved, g.slot, g.day = l, tokens, m.slot(), m.day
		if l.Requests > 0 {
			s := c.current(m)
			s.requests++
			used.requests, used.lastRequests = used.requests+1, s.at
		}
		c.add(m, l, tokens)
		if l.Tokens > 0 && tokens > 0 {
			used.tokens, used.lastTokens = used.tokens+tokens, c.current(m).at
		}
	}
	level := func(limit, used int64, reset time.Duration) Level {
		switch {
		case limit == 0:
			return Level{}
		case used == 0:
			return Level{Limit: limit, Left: limit}
		}
		return Level{limit, max(0, limit-used), reset}
	}
	g.Requests = level(l.Requests, used.requests, m.until(used.lastRequests))
	g.Tokens = level(l.Tokens, used.tokens, m.until(used.lastTokens))
	g.DayTokens = level(l.DayTokens, c.dayTokens, m.end)
	return g
}

// settle is Settle of one caller. used is clamped.
func (c *counts) settle(m moment, g Grant, used int64) {
	c.drop(m)
	if used >= g.reserved {
		c.add(m, g.limits, used-g.reserved)
		return
	}
	back := g.reserved - used
	if g.limits.Tokens > 0 {
		for i := range c.slots {
			if s := &c.slots[i]; int64(s.at) == g.slot {
				s.tokens = max(0, s.tokens-back)
			}
		}
	}
	if g.limits.DayTokens > 0 && g.day == c.day {
		c.dayTokens = max(0, c.dayTokens-back)
	}
}

func (c *counts) add(m moment, l Limits, tokens int64) {
	if tokens == 0 {
		return
	}
	if l.Tokens > 0 {
		s := c.current(m)
		s.tokens = min(s.tokens+tokens, most)
	}
	if l.DayTokens > 0 {
		c.dayTokens = min(c.dayTokens+tokens, mostDay)
	}
}

// current is the slot for what is used now.
func (c *counts) current(m moment) *slot {
	at := uint32(m.slot())
	if n := len(c.slots); n == 0 || c.slots[n-1].at != at {
		c.slots = append(c.slots, slot{at: at})
	}
	return &c.slots[len(c.slots)-1]
}

// drop forgets what no longer counts.
func (c *counts) drop(m moment) {
	gone := 0
	for gone < len(c.slots) && m.until(c.slots[gone].at) <= 0 {
		gone++
	}
	if gone > 0 {
		kept := c.slots[gone:]
		if cap(c.slots) > 8 && len(kept) <= cap(c.slots)/4 {
			c.slots = slices.Clone(kept) // a smaller one
		} else {
			c.slots = append(c.slots[:0], kept...)
		}
	}
	// A clock that was put back over midnight does not give the day again.
	if c.day < m.day {
		c.dayTokens = 0
	}
	c.day = m.day
}

// nothing reports whether there is nothing to remember.
func (c *counts) nothing(m moment) bool {
	c.drop(m)
	return len(c.slots) == 0 && c.dayTokens == 0
}

func (s slot) countTokens() int64   { return s.tokens }
func (s slot) countRequests() int64 { return int64(s.requests) }

// wait is how long it takes until more has gone.
func (c *counts) wait(m moment, more int64, count func(slot) int64) time.Duration {
	for _, s := range c.slots {
		if more -= count(s); more <= 0 {
			return m.until(s.at)
		}
	}
	return 0
}

// sums are what is used in the window, and in which slots it was used last.
type sums struct {
	requests, tokens         int64
	lastRequests, lastTokens uint32
}

func (c *counts) used() (u sums) {
	for _, s := range c.slots {
		if s.requests > 0 {
			u.requests += int64(s.requests)
			u.lastRequests = s.at
		}
		if s.tokens > 0 {
			u.tokens += s.tokens
			u.lastTokens = s.at
		}
	}
	return u
}
