// Package limits counts what callers use, and says when it is too much: in the
// memory of one process, or in a Redis that several share.
package limits

import (
	"context"
	"errors"
	"time"
)

// Limits are what one caller may use. Of each, 0 is no limit, and then nothing is
// counted for it; less than 0 is as 0, and more than 2^45 as 2^45.
type Limits struct {
	// Requests and Tokens are for any 60 seconds.
	Requests, Tokens int64
	// DayTokens are for a day of UTC.
	DayTokens int64
}

// Kind is one of the limits.
type Kind string

const (
	Requests  Kind = "requests"
	Tokens    Kind = "tokens"
	DayTokens Kind = "day_tokens"
)

// Limiter counts. It may be used by many at once.
//
// In any 60 seconds a caller gets at most what its limits say: what is used is
// counted in slots of half a second, and a slot counts until all of it is 60 seconds
// ago. So a caller that takes all it can gets up to 0.9 % less.
type Limiter interface {
	// Take counts a request, and reserves tokens for it, if there is room under all
	// limits; if not, nothing is counted. The error is ErrUnavailable, or why ctx has
	// ended. tokens below 0 are 0.
	Take(ctx context.Context, caller string, l Limits, tokens int64) (Grant, error)
	// Settle puts in place of what was reserved what was used. What was not used is
	// given back where it was taken from, while that still counts; what was used
	// beyond it is counted now, whether there is room or not. It is called once for
	// each Grant that was taken. That ctx has ended does not keep it from counting:
	// a client that has left has used what it has used. The error is ErrUnavailable;
	// then what was reserved stays reserved until its minute, and its day, are over.
	Settle(ctx context.Context, caller string, g Grant, used int64) error
	// Close ends what the limiter runs.
	Close() error
}

// ErrUnavailable: who counts cannot be asked.
var ErrUnavailable = errors.New("the shared limits cannot be reached")

// Grant is the answer to Take.
type Grant struct {
	// Over is the limit that has no room; "" if the request was taken. If several
	// have none it is the one to wait for longest; if for the same time, DayTokens
	// before Tokens before Requests.
	Over Kind
	// Retry is after what time there will be room under all limits, if nothing more is
	// used until then, of a Grant that is Over. 0: never; the request by itself is
	// more than the limit.
	Retry time.Duration
	// Requests, Tokens and DayTokens say how it stands, after this request.
	Requests, Tokens, DayTokens Level

	// What Settle needs, of a Grant that was taken: the zero Grant settles nothing.
	limits    Limits
	reserved  int64
	slot, day int64 // in which it was taken, by the clock of who counts
}

// Level is how it stands with one limit. The zero Level: there is no such limit.
type Level struct {
	// Left is never below 0.
	Limit, Left int64
	// Reset is how long it takes until all of Limit is there again, if nothing more is
	// used.
	Reset time.Duration
}

// clamped gives n where a count can be trusted: a client may ask for 9e18 tokens.
// Lua's numbers are exact to 2^53; the slots of a window, each full, stay below it.
func clamped(n int64) int64 { return min(max(n, 0), most) }

const most = 1 << 45

func (l Limits) clamped() Limits {
	return Limits{Requests: clamped(l.Requests), Tokens: clamped(l.Tokens), DayTokens: clamped(l.DayTokens)}
}
