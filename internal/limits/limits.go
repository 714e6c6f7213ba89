// Package limits counts what callers use, and says when it is too much: in the
// memory of one process, or in a Redis that several share.
package limits

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// Limits are what one caller may use. Of each, 0 is no limit.
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

// Limiter counts.
type Limiter interface {
	// Take counts a request, and reserves tokens for it, if there is room under all
	// limits; if not, nothing is counted. The error is ErrUnavailable, or why ctx has
	// ended.
	Take(ctx context.Context, caller string, l Limits, tokens int64) (Grant, error)
	// Settle puts in place of what was reserved what was used. What was not used is
	// given back where it was taken from; what was used beyond it is counted now,
	// whether there is room or not. It is called once for each Grant that was Taken.
	Settle(ctx context.Context, caller string, g Grant, used int64) error
	// Close ends what the limiter runs.
	Close() error
}

// ErrUnavailable: who counts cannot be asked.
var ErrUnavailable = errors.New("the shared limits cannot be reached")

// Grant is the answer to Take.
type Grant struct {
	// Over is the limit that has no room; "" if the request was taken.
	Over Kind
	// Retry is after what time there will be room, of a Grant that is Over. 0: never;
	// the request by itself is more than the limit.
	Retry time.Duration
	// Requests, Tokens and DayTokens say how it stands, after this request.
	Requests, Tokens, DayTokens Level

	limits   Limits
	reserved int64
	slot     int64 // when it was taken; the clock is that of who counts
}

// Level is how it stands with one limit. The zero Level: there is no such limit.
type Level struct {
	Limit, Left int64
	// Reset is how long it takes until all of Limit is there again, if nothing more is
	// used.
	Reset time.Duration
}

// Options say where the Redis is, or the Valkey, that several gateways share.
type Options struct {
	// URL is redis://user@host:port/database, or rediss:// for TLS. It has no
	// password.
	URL      string
	Password secret.Text
	// Timeout bounds what a request waits for an answer; 0 is 50 ms.
	Timeout time.Duration
	// Log gets a line when Redis goes away, and when it is back.
	Log *slog.Logger
}
