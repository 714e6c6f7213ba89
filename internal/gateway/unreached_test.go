package gateway

import (
	"context"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A backend to which no connection can be made is another backend's matter, in
// whatever words net says that it took too long.
func TestNoConnection(t *testing.T) {
	for name, reason := range map[string]error{"by the socket's clock": os.ErrDeadlineExceeded, "by the context's": context.DeadlineExceeded} {
		t.Run(name, func(t *testing.T) {
			var gone atomic.Bool
			inBubbleWith(t, func(c *Config) {
				dial := c.Dial
				c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if addr == "vllm-0:8000" && gone.Load() {
						time.Sleep(connectTimeout)
						return nil, &net.OpError{Op: "dial", Net: network, Err: reason}
					}
					return dial(ctx, network, addr)
				}
			}, func(r *rig) {
				time.Sleep(idleConnTimeout + time.Second) // the probe's connection is not kept
				gone.Store(true)
				began, n := time.Now(), 0.
				for ; n < 2 && r.metric("gateway_upstream_errors_total") == 0; n++ {
					r.mustPost("/v1/chat/completions", ask)
				}
				if took := time.Since(began); took != connectTimeout {
					t.Errorf("answered after %v; want %v", took, connectTimeout)
				}
				r.want(n, "gateway_requests_total", "outcome", "ok")
				r.want(1, "gateway_upstream_errors_total", "cause", causeConnect)
				r.want(1, "gateway_upstream_errors_total")
				r.want(0, "gateway_backend_up", "backend", "vllm-0:8000")
				time.Sleep(20 * time.Second) // and probes say the same
				r.want(0, "gateway_backend_up", "backend", "vllm-0:8000")
			}, sse(role, token("a"), done), sse(role, token("b"), done))
		})
	}
}

// One that does not speak TLS, or not in time, has not got the request either.
func TestNoHandshake(t *testing.T) {
	for name, mute := range map[string]bool{"no TLS": false, "a handshake that never ends": true} {
		t.Run(name, func(t *testing.T) {
			inBubbleWith(t, func(c *Config) {
				c.Backends[0] = "https://vllm-0:8000"
				dial := c.Dial
				c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if mute {
						conn, _ := net.Pipe()
						return conn, nil
					}
					return dial(ctx, network, addr)
				}
			}, func(r *rig) {
				began := time.Now()
				resp, body := r.mustPost("/v1/chat/completions", ask)
				if took := time.Since(began); resp.StatusCode != 502 || !strings.Contains(body, "could not be reached") || took > connectTimeout || mute != (took == connectTimeout) {
					t.Errorf("%d after %v: %s", resp.StatusCode, took, body)
				}
				r.want(1, "gateway_upstream_errors_total", "cause", causeConnect)
				r.want(1, "gateway_upstream_errors_total")
				if line := r.logged(); strings.Contains(line, "not sound HTTP") || !strings.Contains(line, "no TLS") {
					t.Errorf("the log: %s", line)
				}
			}, sse(role, token("a"), done))
		})
	}
}
