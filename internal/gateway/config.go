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

// FieldError is one thing that is wrong with a Config.
type FieldError struct {
	// Field is what of the Config, as Go would name it, with keys of maps and indices
	// in brackets: MaxWait, Backends[1], Aliases[gpt-4o], Callers[3].Keys[0].
	Field string
	// Other is the field that it does not fit with; "" where it is wrong by itself.
	Other string
	Err   error
}

func (e *FieldError) Error() string { return e.Err.Error() }

func (e *FieldError) Unwrap() error { return e.Err }

// faults gathers what is wrong.
type faults []error

func (f *faults) add(field, format string, args ...any) { f.clash(field, "", format, args...) }

func (f *faults) clash(field, other, format string, args ...any) {
	*f = append(*f, &FieldError{field, other, fmt.Errorf(format, args...)})
}

// Validate names everything that is wrong, not only the first thing: the error joins
// a [*FieldError] for each.
func (c Config) Validate() error {
	var f faults
	c.validateBackends(&f)
	c.validateModels(&f)
	c.validateCallers(&f)
	if c.Routing != "" && policies[c.Routing] == nil {
		f.add("Routing", "routing %q: choose one of %s", c.Routing, strings.Join(Policies(), ", "))
	}
	for _, n := range []struct {
		field, what string
		value       int64
	}{{"PrefixBytes", "prefix bytes", int64(c.PrefixBytes)}, {"MaxInFlight", "requests in flight", int64(c.MaxInFlight)}, {"MaxWaiting", "waiting requests", int64(c.MaxWaiting)},
		{"MaxWait", "longest wait", int64(c.MaxWait)}, {"CommentEvery", "time between comments", int64(c.CommentEvery)}, {"BodyMemory", "memory for bodies", c.BodyMemory}} {
		if n.value < 0 {
			f.add(n.field, "%s: must not be negative", n.what)
		}
	}
	if c.MaxLoad != 0 && !(c.MaxLoad >= 1) {
		f.add("MaxLoad", "largest load %v: must be at least 1, the mean", c.MaxLoad)
	}
	if c.SessionHeader != "" && !isToken(c.SessionHeader) {
		f.add("SessionHeader", "session header %q: not the name of a header", c.SessionHeader)
	}
	if 0 < c.BodyMemory && c.BodyMemory < c.MaxBody {
		f.clash("BodyMemory", "MaxBody", "memory for bodies %d bytes: the largest body alone may have %d; give it more", c.BodyMemory, c.MaxBody)
	}
	if c.FirstByteTimeout <= 0 {
		f.add("FirstByteTimeout", "first-byte timeout %v: must be more than 0", c.FirstByteTimeout)
	}
	if c.StreamIdleTimeout <= 0 {
		f.add("StreamIdleTimeout", "stream idle timeout %v: must be more than 0", c.StreamIdleTimeout)
	}
	if c.MaxBody <= 0 {
		f.add("MaxBody", "largest body %d: must be more than 0 bytes", c.MaxBody)
	}
	return errors.Join(f...)
}

func (c Config) validateBackends(f *faults) {
	if len(c.Backends) == 0 {
		f.add("Backends", "no backend: name at least one, as http://host:port")
	}
	seen := map[string]string{} // fields
	for i, b := range c.Backends {
		field := fmt.Sprintf("Backends[%d]", i)
		src, err := parseSource(b)
		if err != nil {
			f.add(field, "backend %q: %w", hidePassword(b), err)
			continue
		}
		if first := seen[src.String()]; first != "" {
			f.clash(field, first, "backend %q: named twice", b)
			continue
		}
		seen[src.String()] = field
	}
	for _, b := range sorted(c.Weights) {
		switch field := "Weights[" + b + "]"; {
		case !slices.Contains(c.Backends, b):
			f.add(field, "weight of %q: there is no such backend", b)
		case c.Weights[b] < 1 || c.Weights[b] > maxWeight:
			f.add(field, "weight of %q: %d; write a number from 1 to %d", b, c.Weights[b], maxWeight)
		}
	}
	for _, b := range sorted(c.BackendKeys) {
		switch field := "BackendKeys[" + b + "]"; {
		case !slices.Contains(c.Backends, b):
			f.add(field, "key for %q: there is no such backend", b)
		case c.BackendKeys[b].IsZero():
			f.add(field, "key for %q: it is empty", b)
		case !isVisible(c.BackendKeys[b].Reveal()):
			f.add(field, "key for %q: it has a space, a line break or a letter that is not ASCII in it; a header cannot have it", b)
		}
	}
}

// hidePassword gives a URL as it may be shown. Where it has a user it cannot be told
// what of it is secret.
func hidePassword(s string) string {
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		return "…" + s[at:]
	}
	return s
}

func (c Config) validateModels(f *faults) {
	for _, a := range sorted(c.Aliases) {
		field, m := "Aliases["+a+"]", c.Aliases[a]
		switch _, chain := c.Aliases[m]; {
		case a == "" || m == "":
			f.add(field, "alias %q of %q: write NAME=MODEL", a, m)
		case a == m:
			f.add(field, "alias %q of %q: that is its own name; leave it out", a, m)
		case chain:
			f.clash(field, "Aliases["+m+"]", "alias %q of %q: an alias stands for a model, not for another alias", a, m)
		}
	}
	for _, m := range sorted(c.Fallbacks) {
		to := c.Fallbacks[m]
		_, ofAlias := c.Aliases[m]
		_, toAlias := c.Aliases[to]
		if m == "" || to == "" || to == m || ofAlias || toAlias {
			f.add("Fallbacks["+m+"]", "fallback of %q to %q: name two models, by their own names", m, to)
		}
	}
}

func (c Config) validateCallers(f *faults) {
	names, keys := map[string]int{}, map[secret.Hash][2]int{}
	for i, caller := range c.Callers {
		field := func(rest string) string { return fmt.Sprintf("Callers[%d]%s", i, rest) }
		if first, twice := names[caller.Name]; twice {
			f.clash(field(".Name"), fmt.Sprintf("Callers[%d].Name", first), "caller %q: two have this name", caller.Name)
		} else if names[caller.Name] = i; !isCallerName(caller.Name) {
			f.add(field(".Name"), "caller %q: a name is 1 to 64 letters, digits and any of -_.@:/", clip(caller.Name))
		}
		if len(caller.Keys) == 0 {
			f.add(field(".Keys"), "caller %q: it has no key", caller.Name)
		}
		for j, k := range caller.Keys {
			if first, twice := keys[k]; twice {
				f.clash(field(fmt.Sprintf(".Keys[%d]", j)), fmt.Sprintf("Callers[%d].Keys[%d]", first[0], first[1]), "caller %q: the same key stands twice; a key says who its caller is", caller.Name)
				continue
			}
			keys[k] = [2]int{i, j}
		}
		for j, m := range caller.Models {
			if m == "" {
				f.add(field(fmt.Sprintf(".Models[%d]", j)), "caller %q: a model without a name", caller.Name)
			}
		}
		if _, ok := priorities[caller.Priority]; !ok && caller.Priority != "" {
			f.add(field(".Priority"), "priority %q of caller %q: choose one of high, normal, low", clip(caller.Priority), caller.Name)
		}
		for _, l := range []struct {
			field string
			value int64
		}{{".Concurrency", int64(caller.Concurrency)}, {".Limits.Requests", caller.Limits.Requests}, {".Limits.Tokens", caller.Limits.Tokens}, {".Limits.DayTokens", caller.Limits.DayTokens}} {
			if l.value < 0 {
				f.add(field(l.field), "limit of caller %q: must not be negative", caller.Name)
			}
		}
	}
	if c.SharedLimits == nil {
		return
	}
	if len(c.Callers) == 0 {
		f.add("SharedLimits", "limits are shared, and nobody has a key by which they would be counted; add keys")
	}
	if err := c.SharedLimits.Validate(); err != nil {
		f.add("SharedLimits.URL", "shared limits: %w", err)
	}
}

func isCallerName(s string) bool {
	return s != "" && len(s) <= 64 && isOf(s, "-_.@:/")
}

// isOf reports whether a text is of ASCII's letters and digits and the bytes of more.
func isOf(s, more string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(more, c) >= 0) {
			return false
		}
	}
	return true
}

// isVisible reports whether a text is of visible ASCII alone.
func isVisible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

const maxWeight = 1000

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// isToken reports whether a header may be called so (RFC 9110 5.6.2; letters,
// digits and hyphens are enough here).
func isToken(s string) bool { return isOf(s, "-") }
