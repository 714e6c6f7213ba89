package limits

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// model is the contract, told as plainly as can be and at whatever cost: it keeps all
// that ever happened, and tries out when there would be room.
type model struct {
	now  time.Duration // since the beginning of a day
	uses []use
}

type use struct {
	at               time.Duration
	requests, tokens int64
	dayTokens        int64
}

// ends is when a use no longer counts: 60 s after the end of its half second.
func (u use) ends() time.Duration { return u.at.Truncate(slotTime) + slotTime + time.Minute }

func midnight(t time.Duration) time.Duration { return t.Truncate(day) + day }

// used is what counts at a time, and until when some of it will.
func (m *model) used(k Kind, at time.Duration) (sum int64, until time.Duration) {
	for _, u := range m.uses {
		n, end := u.requests, u.ends()
		switch k {
		case Tokens:
			n = u.tokens
		case DayTokens:
			n, end = u.dayTokens, midnight(u.at)
		}
		if end > at && n > 0 {
			sum, until = sum+n, max(until, end)
		}
	}
	return sum, until
}

// take gives which of its uses the request is, for settle; -1 if it is over.
func (m *model) take(l Limits, tokens int64) (g Grant, which int) {
	kinds := []Kind{DayTokens, Tokens, Requests}
	limit := map[Kind]int64{Requests: l.Requests, Tokens: l.Tokens, DayTokens: l.DayTokens}
	want := map[Kind]int64{Requests: 1, Tokens: tokens, DayTokens: tokens}
	times := []time.Duration{m.now} // at which there may be room
	for _, u := range m.uses {
		times = append(times, u.ends(), midnight(u.at))
	}
	slices.Sort(times)
	for _, k := range kinds {
		if limit[k] == 0 || g.Over != "" && g.Retry == 0 {
			continue
		}
		room := slices.IndexFunc(times, func(at time.Duration) bool {
			sum, _ := m.used(k, at)
			return at >= m.now && sum+want[k] <= limit[k]
		})
		if room < 0 {
			g.Over, g.Retry = k, 0
		} else if wait := times[room] - m.now; wait > g.Retry {
			g.Over, g.Retry = k, wait
		}
	}
	which = -1
	if g.Over == "" {
		which = len(m.uses)
		u := use{at: m.now}
		m.uses = append(m.uses, u)
		m.count(&m.uses[which], l, 1, tokens)
	}
	for k, level := range map[Kind]*Level{Requests: &g.Requests, Tokens: &g.Tokens, DayTokens: &g.DayTokens} {
		if limit[k] > 0 {
			sum, until := m.used(k, m.now)
			*level = Level{limit[k], max(0, limit[k]-sum), max(0, until-m.now)}
		}
	}
	return g, which
}

func (m *model) count(u *use, l Limits, requests, tokens int64) {
	if l.Requests > 0 {
		u.requests += requests
	}
	if l.Tokens > 0 {
		u.tokens += tokens
	}
	if l.DayTokens > 0 {
		u.dayTokens += tokens
	}
}

func (m *model) settle(which int, l Limits, reserved, used int64) {
	if used > reserved {
		m.uses = append(m.uses, use{at: m.now})
		m.count(&m.uses[len(m.uses)-1], l, 0, used-reserved)
		return
	}
	m.count(&m.uses[which], l, 0, used-reserved)
}

// agree drives a Limiter and the model through the same, as the numbers of next say.
func agree(t *testing.T, r rig, steps int, next func(n int) int) {
	type granted struct {
		g        Grant
		l        Limits
		which    int
		reserved int64
	}
	m := &model{}
	var open []granted
	limits := []Limits{{5, 100, 400}, {3, 0, 0}, {0, 60, 0}, {0, 0, 300}, {20, 150, 0}}
	l := limits[next(len(limits))]
	for i := range steps {
		switch next(10) {
		case 0, 1:
			wait := [...]time.Duration{time.Microsecond, 499 * time.Millisecond, time.Second, 7 * time.Second, 31 * time.Second, time.Minute, 7 * time.Hour}[next(7)]
			if next(3) == 0 { // to the edge of a slot
				wait = (m.now + wait).Truncate(slotTime) + slotTime - m.now
			}
			r.wait(wait)
			m.now += wait
		case 2:
			l = limits[next(len(limits))]
		case 3, 4, 5:
			if len(open) == 0 {
				continue
			}
			k := next(len(open))
			o := open[k]
			open = slices.Delete(open, k, k+1)
			used := int64(next(60))
			r.settle(t, "ann", o.g, used)
			m.settle(o.which, o.l, o.reserved, used)
		default:
			tokens := int64(next(40))
			if next(20) == 0 {
				tokens = 140
			}
			want, which := m.take(l, tokens)
			got := r.take(t, "ann", l, tokens)
			if says(got) != says(want) {
				t.Fatalf("step %d, at %v, %+v, %d tokens: %s\nwant %s", i, m.now, l, tokens, says(got), says(want))
			}
			if which >= 0 {
				open = append(open, granted{got, l, which, tokens})
			}
		}
	}
}

func TestAgreesWithTheModel(t *testing.T) {
	tests := map[string]func(*testing.T, rig){}
	for seed := range uint64(8) {
		tests[fmt.Sprint(seed)] = func(t *testing.T, r rig) {
			random := rand.New(rand.NewPCG(seed, 0))
			agree(t, r, 300, random.IntN)
		}
	}
	both(t, tests)
}

// alone is what Local does for one caller, by a clock of its own: what fuzzes cannot be
// in a bubble.
type alone struct {
	counts
	at time.Duration
}

func (a *alone) now() moment {
	return moment{at: a.at, day: int64(a.at / day), end: day - a.at%day}
}

func (a *alone) Take(_ context.Context, _ string, l Limits, tokens int64) (Grant, error) {
	return a.take(a.now(), l.clamped(), clamped(tokens)), nil
}

func (a *alone) Settle(_ context.Context, _ string, g Grant, used int64) error {
	a.settle(a.now(), g, clamped(used))
	return nil
}

func (a *alone) Close() error { return nil }

func FuzzCounts(f *testing.F) {
	f.Add([]byte("take a little, wait a little, give it back"))
	f.Fuzz(func(t *testing.T, script []byte) {
		a := &alone{}
		r := rig{a, func() time.Duration { return a.at }, func(d time.Duration) { a.at += d }}
		agree(t, r, min(len(script)/3, 300), func(n int) int {
			if len(script) == 0 {
				return 0
			}
			b := int(script[0])
			script = script[1:]
			return b % n
		})
	})
}

// Who takes all it can gets what its limit says, in no window more, and hardly less.
func TestSaturation(t *testing.T) {
	both(t, map[string]func(*testing.T, rig){"": func(t *testing.T, r rig) {
		const minutes = 10
		limit := 600
		if _, far := r.Limiter.(*Shared); far { // each question takes its time
			limit = 100
		}
		var taken []time.Duration
		for r.now() < minutes*time.Minute {
			g := r.take(t, "ann", Limits{Requests: int64(limit)}, 0)
			if g.Over == "" {
				taken = append(taken, r.now())
				// Now in bursts, now evenly, now both.
				if n := len(taken); n/limit%2 == 1 || n%(limit/6) == 0 {
					r.wait(56 * time.Second / time.Duration(limit))
				}
			} else {
				r.wait(g.Retry)
			}
		}
		in := func(from, to time.Duration) int {
			n := 0
			for _, at := range taken {
				if from <= at && at <= to {
					n++
				}
			}
			return n
		}
		for minute := range minutes {
			from := time.Duration(minute) * time.Minute
			if n := in(from, from+time.Minute-1); n*100 < limit*99 {
				t.Errorf("minute %d: %d of %d", minute, n, limit)
			}
		}
		for _, at := range taken { // a window with too many has one that begins with a request
			if n := in(at, at+time.Minute); n > limit {
				t.Errorf("the minute from %v: %d", at, n)
			}
		}
	}})
}
