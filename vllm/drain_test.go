//go:build vllm

package vllm

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"
)

// On SIGTERM the gateway takes no more connections, lets what runs on the
// engine come to its end, and exits with 0.
func TestGatewayDrains(t *testing.T) {
	g := start(t, wide)
	const tokens = 3000
	var streams []*reply
	for i := range 8 {
		body := ofLength(tokens)
		body["return_token_ids"] = true
		streams = append(streams, send(g.url(), chat, fmt.Sprintf("drain-%d", i), body))
	}
	haveBegun(t, streams)
	g.cmd.Process.Signal(syscall.SIGTERM)
	within(t, 5*time.Second, "the port is closed", func() error {
		conn, err := net.Dial("tcp", g.addr)
		if err == nil {
			conn.Close()
			return errors.New("it took a connection")
		}
		return nil
	})
	if err := allBegun(streams); err != nil {
		t.Errorf("the port was closed only when there was nothing to wait for: %v", err)
	}
	for _, r := range streams {
		<-r.done
		if !r.whole() || r.tokens != tokens {
			t.Errorf("%d tokens of %d: %v", r.tokens, tokens, r)
		}
	}
	select {
	case err := <-g.ended:
		if err != nil {
			t.Errorf("exit: %v; want 0", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the gateway still runs 20 s after the last stream")
	}
}

func haveBegun(t *testing.T, streams []*reply) {
	t.Helper()
	within(t, 20*time.Second, "all streams have begun", func() error { return allBegun(streams) })
}

// allBegun: each has its head and is not over.
func allBegun(streams []*reply) error {
	for _, r := range streams {
		if ok, err := r.hasBegun(); err != nil || !ok {
			return fmt.Errorf("%s has begun: %v, %w", r.id, ok, err)
		}
	}
	return nil
}
