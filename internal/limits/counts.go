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
		case wait == 0 && !never, g.Over != "" && g.Retry == 0: // it has room; another never will
		case never:
			g.Over, g.Retry = k, 0
		case wait > g.Retry:
			g.Over, g.Retry = k, wait
		}
	}
	if l.DayTokens > 0 && c.dayTokens+tokens > l.DayTokens {
		over(DayTokens, m.end, tokens > l.DayTokens)
	}
	if l.Tokens > 0 {
		over(Tokens, c.wait(m, l.Tokens-tokens, slot.countTokens), tokens > l.Tokens)
	}
	if l.Requests > 0 {
		over(Requests, c.wait(m, l.Requests-1, slot.countRequests), false)
	}
	if g.Over == "" {
		g.limits, g.reserved, g.slot, g.day = l, tokens, m.slot(), m.day
		if l.Requests > 0 {
			c.current(m).requests++
		}
		c.add(m, l, tokens)
	}
	if l.DayTokens > 0 {
		g.DayTokens = Level{Limit: l.DayTokens, Left: max(0, l.DayTokens-c.dayTokens)}
		if c.dayTokens > 0 {
			g.DayTokens.Reset = m.end
		}
	}
	g.Tokens = c.level(m, l.Tokens, slot.countTokens)
	g.Requests = c.level(m, l.Requests, slot.countRequests)
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

// wait is how long it takes until no more than room is used.
func (c *counts) wait(m moment, room int64, count func(slot) int64) time.Duration {
	over := -room
	for _, s := range c.slots {
		over += count(s)
	}
	for i := 0; over > 0 && i < len(c.slots); i++ {
		if over -= count(c.slots[i]); over <= 0 {
			return m.until(c.slots[i].at)
		}
	}
	return 0
}

func (c *counts) level(m moment, limit int64, count func(slot) int64) Level {
	if limit == 0 {
		return Level{}
	}
	level := Level{Limit: limit}
	used := int64(0)
	for _, s := range c.slots {
		if n := count(s); n > 0 {
			used += n
			level.Reset = m.until(s.at)
		}
	}
	level.Left = max(0, limit-used)
	return level
}
