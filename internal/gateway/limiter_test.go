package gateway

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/limits"
)

// A limiter that another one has replaced ends: at once, or when the last request that
// it has counted is settled. (No bubble: what speaks to Redis would wait for the network.)
func TestReloadEndsLimiter(t *testing.T) {
	cfg := Config{Backends: []string{"http://127.0.0.1:1"}, FirstByteTimeout: time.Minute, StreamIdleTimeout: time.Minute, MaxBody: 1 << 20, Log: slog.New(slog.DiscardHandler)}
	limitedTo(limits.Limits{Requests: 100})(&cfg)
	cfg.SharedLimits = &limits.Options{URL: "redis://127.0.0.1:1"}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Drain(t.Context())
	closed := func(l *limiter) bool {
		_, err := l.Take(t.Context(), "alice", limits.Limits{Requests: 1}, 0)
		if !errors.Is(err, limits.ErrUnavailable) {
			t.Errorf("Redis is away, and yet: %v", err)
		}
		return strings.HasSuffix(err.Error(), ": closed")
	}
	first := g.limiter() // for a request
	if err := g.Reload(cfg); err != nil || g.conf.Load().limiter != first {
		t.Fatalf("the same Redis, and another limiter: %v", err)
	}
	cfg.SharedLimits = &limits.Options{URL: "redis://127.0.0.1:2"}
	if err := g.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if closed(first) {
		t.Error("the first one was closed while a request used it")
	}
	second := g.limiter()
	if second == first {
		t.Error("a request is counted by the one that was replaced")
	}
	second.done()
	if first.done(); !closed(first) {
		t.Error("the first one goes on with nobody using it")
	}
	cfg.SharedLimits = nil
	if err := g.Reload(cfg); err != nil || !closed(second) {
		t.Errorf("the second one goes on: %v", err)
	}
	if g.limiter().Limiter != g.local {
		t.Error("limits are not counted in memory")
	}
}
