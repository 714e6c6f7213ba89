package limits

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimits(t *testing.T) {
	type step struct {
		wait   time.Duration
		limits Limits
		tokens int64
		want   string
		settle int64 // what was used of the step's Grant, at once; -1: it is not settled
	}
	const s, ms = time.Second, time.Millisecond
	never := int64(-1)
	tests := map[string]func(*testing.T, rig){}
	for name, steps := range map[string][]step{
		"requests": {
			{0, Limits{Requests: 2}, 0, "taken; 1/2 1m0.5s; -; -", never},
			{10 * s, Limits{Requests: 2}, 0, "taken; 0/2 1m0.5s; -; -", never},
			{100 * ms, Limits{Requests: 2}, 0, "requests, retry 50.4s; 0/2 1m0.4s; -; -", never},
			{50400*ms - time.Microsecond, Limits{Requests: 2}, 0, "requests, retry 1µs; 0/2 10.000001s; -; -", never},
			{time.Microsecond, Limits{Requests: 2}, 0, "taken; 0/2 1m0.5s; -; -", never},
			{60500 * ms, Limits{Requests: 2}, 0, "taken; 1/2 1m0.5s; -; -", never},
		},
		"tokens": {
			{0, Limits{Tokens: 100}, 60, "taken; -; 40/100 1m0.5s; -", never},
			{s, Limits{Tokens: 100}, 30, "taken; -; 10/100 1m0.5s; -", never},
			{s, Limits{Tokens: 100}, 10, "taken; -; 0/100 1m0.5s; -", never},
			{0, Limits{Tokens: 100}, 1, "tokens, retry 58.5s; -; 0/100 1m0.5s; -", never},
			{0, Limits{Tokens: 100}, 61, "tokens, retry 59.5s; -; 0/100 1m0.5s; -", never},
			{0, Limits{Tokens: 100}, 100, "tokens, retry 1m0.5s; -; 0/100 1m0.5s; -", never},
			{0, Limits{Tokens: 100}, 101, "tokens, retry 0s; -; 0/100 1m0.5s; -", never},
			{0, Limits{Tokens: 100}, 0, "taken; -; 0/100 1m0.5s; -", never},
			{0, Limits{Tokens: 100}, -5, "taken; -; 0/100 1m0.5s; -", never},
		},
		"day": {
			{23*time.Hour + 59*time.Minute, Limits{DayTokens: 100}, 100, "taken; -; -; 0/100 1m0s", never},
			{59 * s, Limits{DayTokens: 100}, 1, "day_tokens, retry 1s; -; -; 0/100 1s", never},
			{0, Limits{DayTokens: 100}, 101, "day_tokens, retry 0s; -; -; 0/100 1s", never},
			{s, Limits{DayTokens: 100}, 1, "taken; -; -; 99/100 24h0m0s", never},
		},
		"nothing is counted of what is refused": {
			{0, Limits{2, 100, 1000}, 101, "tokens, retry 0s; 2/2 0s; 100/100 0s; 1000/1000 0s", never},
			{0, Limits{2, 100, 50}, 51, "day_tokens, retry 0s; 2/2 0s; 100/100 0s; 50/50 0s", never},
			{0, Limits{2, 100, 1000}, 100, "taken; 1/2 1m0.5s; 0/100 1m0.5s; 900/1000 24h0m0s", never},
			{0, Limits{2, 100, 1000}, 1, "tokens, retry 1m0.5s; 1/2 1m0.5s; 0/100 1m0.5s; 900/1000 24h0m0s", never},
		},
		"the longest wait is the one that is told": {
			{0, Limits{1, 100, 1000}, 10, "taken; 0/1 1m0.5s; 90/100 1m0.5s; 990/1000 24h0m0s", never},
			{0, Limits{1, 100, 1000}, 91, "tokens, retry 1m0.5s; 0/1 1m0.5s; 90/100 1m0.5s; 990/1000 24h0m0s", never},
			{0, Limits{1, 100, 1000}, 90, "requests, retry 1m0.5s; 0/1 1m0.5s; 90/100 1m0.5s; 990/1000 24h0m0s", never},
			{0, Limits{1, 1000, 1000}, 991, "day_tokens, retry 24h0m0s; 0/1 1m0.5s; 990/1000 1m0.5s; 990/1000 24h0m0s", never},
			{0, Limits{1, 9, 10}, 10, "tokens, retry 0s; 0/1 1m0.5s; 0/9 1m0.5s; 0/10 24h0m0s", never},
		},
		"what was not used is given back": {
			{0, Limits{5, 100, 100}, 100, "taken; 4/5 1m0.5s; 0/100 1m0.5s; 0/100 24h0m0s", 30},
			{0, Limits{5, 100, 100}, 71, "day_tokens, retry 24h0m0s; 4/5 1m0.5s; 70/100 1m0.5s; 70/100 24h0m0s", never},
			{0, Limits{5, 100, 0}, 70, "taken; 3/5 1m0.5s; 0/100 1m0.5s; -", 0},
			{0, Limits{5, 100, 0}, 71, "tokens, retry 1m0.5s; 3/5 1m0.5s; 70/100 1m0.5s; -", never},
		},
		"given back to the last": {
			{0, Limits{Tokens: 100}, 10, "taken; -; 90/100 1m0.5s; -", never},
			{s, Limits{Tokens: 100}, 10, "taken; -; 80/100 1m0.5s; -", 0},
			{0, Limits{Tokens: 100}, 0, "taken; -; 90/100 59.5s; -", never},
		},
		"what was used beyond it is counted": {
			{0, Limits{Tokens: 100, DayTokens: 1000}, 10, "taken; -; 90/100 1m0.5s; 990/1000 24h0m0s", 150},
			{0, Limits{Tokens: 100, DayTokens: 1000}, 0, "tokens, retry 1m0.5s; -; 0/100 1m0.5s; 850/1000 24h0m0s", never},
		},
		"limits change": {
			{0, Limits{Requests: 5}, 7, "taken; 4/5 1m0.5s; -; -", never},
			{0, Limits{Requests: 5}, 7, "taken; 3/5 1m0.5s; -; -", never},
			{s, Limits{Requests: 5}, 7, "taken; 2/5 1m0.5s; -; -", never},
			{0, Limits{Requests: 1}, 7, "requests, retry 1m0.5s; 0/1 1m0.5s; -; -", never},
			{0, Limits{Requests: 2}, 7, "requests, retry 59.5s; 0/2 1m0.5s; -; -", never}, // both go at once
			{0, Limits{Requests: 4}, 7, "taken; 0/4 1m0.5s; -; -", never},
			{0, Limits{Requests: 4, Tokens: 10}, 7, "requests, retry 59.5s; 0/4 1m0.5s; 10/10 0s; -", never}, // tokens were not counted
			{0, Limits{Tokens: 10}, 7, "taken; -; 3/10 1m0.5s; -", never},
			{0, Limits{Requests: 5}, 7, "taken; 0/5 1m0.5s; -; -", never}, // nor was that request
		},
		"no limits": {
			{0, Limits{}, math.MaxInt64, "taken; -; -; -", 7},
			{0, Limits{-1, math.MinInt64, -3}, math.MaxInt64, "taken; -; -; -", math.MaxInt64},
		},
		"absurd numbers": {
			{0, Limits{math.MaxInt64, math.MaxInt64, math.MaxInt64}, math.MaxInt64, "taken; 35184372088831/35184372088832 1m0.5s; 0/35184372088832 1m0.5s; 0/35184372088832 24h0m0s", math.MinInt64},
			{0, Limits{math.MaxInt64, math.MaxInt64, math.MaxInt64}, math.MinInt64, "taken; 35184372088830/35184372088832 1m0.5s; 35184372088832/35184372088832 0s; 35184372088832/35184372088832 0s", math.MaxInt64},
			{0, Limits{Tokens: 100, DayTokens: math.MaxInt64}, 9e18, "tokens, retry 0s; -; 0/100 1m0.5s; 0/35184372088832 24h0m0s", never},
			{s, Limits{Tokens: 100, DayTokens: math.MaxInt64}, 0, "tokens, retry 59.5s; -; 0/100 59.5s; 0/35184372088832 23h59m59s", never},
		},
	} {
		tests[name] = func(t *testing.T, r rig) {
			for i, step := range steps {
				r.wait(step.wait)
				g := r.take(t, "ann", step.limits, step.tokens)
				if says(g) != step.want {
					t.Fatalf("step %d: %s\nwant    %s", i, says(g), step.want)
				}
				if step.settle != never {
					r.settle(t, "ann", g, step.settle)
				}
			}
			// Nobody else has used any of it.
			if g := r.take(t, "bob", Limits{1, 1, 1}, 1); g.Over != "" {
				t.Errorf("another caller: %s", says(g))
			}
		}
	}
	both(t, tests)
}

// Callers of whom there is nothing to remember are forgotten, as others come.
func TestLocalForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 1000
		r := localRig(t)
		l := r.Limiter.(*Local)
		some := func(l Limits, from, to int) {
			for i := range to - from {
				g := r.take(t, fmt.Sprint("caller", from+i), l, 5)
				r.settle(t, fmt.Sprint("caller", from+i), g, 6)
			}
		}
		some(Limits{}, 0, many)
		if n := len(l.callers); n != 0 {
			t.Errorf("%d callers without limits are remembered", n)
		}
		some(Limits{Requests: 5, Tokens: 50}, 0, many)
		some(Limits{DayTokens: 50}, many, 2*many)
		if n := len(l.callers); n != 2*many {
			t.Errorf("%d callers are remembered, of %d", n, 2*many)
		}
		for _, tt := range []struct {
			wait time.Duration
			left int
		}{{time.Minute + slotTime, many + 1}, {day, 1}} {
			r.wait(tt.wait)
			for range 2 * many {
				r.take(t, "ann", Limits{Requests: 1e9}, 0)
			}
			if n := len(l.callers); n != tt.left {
				t.Errorf("after %v more %d callers are remembered; want %d", tt.wait, n, tt.left)
			}
		}
	})
}
