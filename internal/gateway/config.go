package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/vllm-gateway/vllm-gateway/internal/limits"
	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// Config is all that a [Gateway] can be told.
type Config struct {
	// Backends say where the vLLM servers are; at least one. Each is one server,
	// http://host:port, or a name in DNS that stands for several,
	// dns+http://name:port (its addresses) or srv+http://name (its SRV records);
	// https likewise.
	Backends []string
	// Weights are shares of requests, by backend as it is given in Backends; a
	// backend without one has 1.
	Weights map[string]int
	// Aliases are further names of models. Backends see the model's own name.
	Aliases map[string]string
	// Fallbacks name, by model, another one that answers while no backend of the
	// first is up.
	Fallbacks map[string]string
	// Routing is the policy by which a backend is chosen, one of [Policies]; "" is
	// [LeastInFlight].
	Routing string
	// SessionHeader is the request header that tells sessions apart, for the
	// policies [Session] and [Prefix]; "" is X-Session-Id.
	SessionHeader string
	// PrefixBytes is how much of a prompt decides under [Prefix]; 0 is 1024.
	PrefixBytes int
	// MaxLoad bounds, under [Session] and [Prefix], what a backend may have in
	// flight, in shares of the mean of all; 0 is 2, [math.Inf] is no bound.
	MaxLoad float64
	// MaxInFlight bounds the requests on one backend; more wait here. 0: no bound,
	// they wait in vLLM.
	MaxInFlight int
	// MaxWaiting bounds the requests that wait; more are answered 429 or 503.
	MaxWaiting int
	// MaxWait is how long a request waits for a backend with room; then: 503. 0:
	// as long as its client does.
	MaxWait time.Duration
	// CommentEvery has a stream that waits for its first token begin with SSE
	// comments, one in this time, so that nobody between takes it for dead. It
	// costs the true status of what fails before the first token. 0: none.
	CommentEvery time.Duration
	// Callers are who may use the gateway, each by keys of its own. Empty: everybody
	// may, without a key, and nobody's use is counted.
	Callers []Caller
	// SharedLimits say where the limits of callers are counted together with other
	// gateways; nil: each gateway counts by itself, in memory.
	SharedLimits *limits.Options
	// FailOpen lets requests pass uncounted while SharedLimits cannot be reached;
	// otherwise they are answered 503.
	FailOpen bool
	// BackendKeys are what backends want to be asked with, by backend as it is given
	// in Backends: sent as "Authorization: Bearer", in place of what the client sent.
	BackendKeys map[string]secret.Text
	// NoMetrics leaves /metrics out of ServeHTTP: [Gateway.Metrics] serves it
	// elsewhere.
	NoMetrics bool
	// BodyMemory bounds what all request bodies that are held take together, in
	// bytes; beyond it requests are answered 503. 0: no bound.
	BodyMemory int64
	// FirstByteTimeout is how long a backend may take until there is something
	// to send to the client: the first token of a stream, the head of any other
	// answer. vLLM sends nothing before the end of an answer that is no stream,
	// so this also bounds how long such an answer may take. Then: 504.
	FirstByteTimeout time.Duration
	// StreamIdleTimeout is how long an answer that has begun may stay silent,
	// or a client may read nothing of it, before it is cut.
	StreamIdleTimeout time.Duration
	// MaxBody is the size of the largest request body taken, in bytes. Larger
	// ones are answered 413.
	MaxBody int64
	// Version is shown by gateway_build_info.
	Version string
	// Tracer makes spans of requests (docs/tracing.md), and has traces go on to
	// backends; nil: none, and headers of traces are passed on as they are.
	Tracer trace.Tracer
	// Log gets one line a request, and one for each change of a backend's state.
	Log *slog.Logger
	// RequestLevel is the level of the line per request; 0 is info.
	RequestLevel slog.Level
	// Dial connects to backends; nil is TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Resolver answers for names in DNS; nil is the system's.
	Resolver *net.Resolver
}

// Caller is who holds a key.
type Caller struct {
	// Name is what logs and metrics call it: 1 to 64 letters, digits and any of
	// "-_.@:/". No two callers have the same.
	Name string
	// Keys are the hashes of its keys: one, or two while one replaces the other.
	Keys []secret.Hash
	// Models are what it may ask for, by own names or aliases; empty: everything.
	Models []string
	// Priority is high, normal or low; "" is normal. X-Priority can only lower it.
	Priority string
	// Concurrency bounds its requests at a time, on this gateway; 0: no bound.
	Concurrency int
	// Limits are what it may use.
	Limits limits.Limits
}

// Validate names everything that is wrong, not only the first thing.
func (c Config) Validate() error {
	var errs []error
	if len(c.Backends) == 0 {
		errs = append(errs, errors.New("no backend: name at least one, as http://host:port"))
	}
	seen := map[string]bool{}
	for _, b := range c.Backends {
		src, err := parseSource(b)
		if err != nil {
			errs = append(errs, fmt.Errorf("backend %q: %w", b, err))
			continue
		}
		if seen[src.String()] {
			errs = append(errs, fmt.Errorf("backend %q: named twice", b))
		}
		seen[src.String()] = true
	}
	for _, b := range sorted(c.Weights) {
		switch {
		case !slices.Contains(c.Backends, b):
			errs = append(errs, fmt.Errorf("weight of %q: there is no such backend", b))
		case c.Weights[b] < 1 || c.Weights[b] > maxWeight:
			errs = append(errs, fmt.Errorf("weight of %q: %d; write a number from 1 to %d", b, c.Weights[b], maxWeight))
		}
	}
	for _, a := range sorted(c.Aliases) {
		switch _, chain := c.Aliases[c.Aliases[a]]; {
		case a == "" || c.Aliases[a] == "":
			errs = append(errs, fmt.Errorf("alias %q of %q: write NAME=MODEL", a, c.Aliases[a]))
		case chain:
			errs = append(errs, fmt.Errorf("alias %q of %q: an alias stands for a model, not for another alias", a, c.Aliases[a]))
		}
	}
	for _, m := range sorted(c.Fallbacks) {
		f := c.Fallbacks[m]
		_, from := c.Aliases[m]
		_, to := c.Aliases[f]
		if m == "" || f == "" || f == m || from || to {
			errs = append(errs, fmt.Errorf("fallback of %q to %q: name two models, by their own names", m, f))
		}
	}
	if c.Routing != "" && policies[c.Routing] == nil {
		errs = append(errs, fmt.Errorf("routing %q: choose one of %s", c.Routing, strings.Join(Policies(), ", ")))
	}
	for _, n := range []struct {
		what  string
		value int64
	}{{"prefix bytes", int64(c.PrefixBytes)}, {"requests in flight", int64(c.MaxInFlight)}, {"waiting requests", int64(c.MaxWaiting)}, {"longest wait", int64(c.MaxWait)},
		{"time between comments", int64(c.CommentEvery)}, {"memory for bodies", c.BodyMemory}} {
		if n.value < 0 {
			errs = append(errs, fmt.Errorf("%s: must not be negative", n.what))
		}
	}
	if c.MaxLoad != 0 && !(c.MaxLoad >= 1) {
		errs = append(errs, fmt.Errorf("largest load %v: must be at least 1, the mean", c.MaxLoad))
	}
	if c.SessionHeader != "" && !isToken(c.SessionHeader) {
		errs = append(errs, fmt.Errorf("session header %q: not the name of a header", c.SessionHeader))
	}
	if 0 < c.BodyMemory && c.BodyMemory < c.MaxBody {
		errs = append(errs, fmt.Errorf("memory for bodies %d bytes: the largest body alone may have %d; give it more", c.BodyMemory, c.MaxBody))
	}
	if c.FirstByteTimeout <= 0 {
		errs = append(errs, fmt.Errorf("first-byte timeout %v: must be more than 0", c.FirstByteTimeout))
	}
	if c.StreamIdleTimeout <= 0 {
		errs = append(errs, fmt.Errorf("stream idle timeout %v: must be more than 0", c.StreamIdleTimeout))
	}
	if c.MaxBody <= 0 {
		errs = append(errs, fmt.Errorf("largest body %d: must be more than 0 bytes", c.MaxBody))
	}
	return errors.Join(errs...)
}

const maxWeight = 1000

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// isToken reports whether a header may be called so (RFC 9110 5.6.2; letters,
// digits and hyphens are enough here).
func isToken(s string) bool {
	return strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
