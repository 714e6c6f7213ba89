package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// Config is all that a [Gateway] can be told.
type Config struct {
	// Backends are the vLLM servers, as scheme://host:port; at least one.
	Backends []string
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
	// Log gets one line a request, and one for each change of a backend's state.
	Log *slog.Logger
	// RequestLevel is the level of the line per request; 0 is info.
	RequestLevel slog.Level
	// Dial connects to backends; nil is TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Validate names everything that is wrong, not only the first thing.
func (c Config) Validate() error {
	var errs []error
	if len(c.Backends) == 0 {
		errs = append(errs, errors.New("no backend: name at least one, as http://host:port"))
	}
	seen := map[string]bool{}
	for _, b := range c.Backends {
		u, err := ParseBackend(b)
		if err != nil {
			errs = append(errs, fmt.Errorf("backend %q: %w", b, err))
			continue
		}
		if seen[u.Host] {
			errs = append(errs, fmt.Errorf("backend %q: named twice", b))
		}
		seen[u.Host] = true
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
