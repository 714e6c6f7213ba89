package gateway

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// SIGTERM: live streams run to their end, and a connection that is still there gets
// one more answer. Then nothing must have run for a second.
func TestDrain(t *testing.T) {
	inBubble(t, func(r *rig) {
		start := time.Now()
		ended := make(chan string)
		go func() {
			_, body := r.mustPost("/v1/chat/completions", ask)
			ended <- body
		}()
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
		defer cancel()
		drained := make(chan time.Duration)
		go func() {
			r.g.Drain(ctx)
			drained <- time.Since(start)
		}()
		time.Sleep(time.Second)
		if resp, body := r.mustGet("/health"); resp.StatusCode != 503 || !strings.Contains(body, `"status":"draining"`) {
			t.Errorf("/health: %d %s", resp.StatusCode, body)
		}
		if resp, body := r.mustPost("/v1/chat/completions", ask); !resp.Close || !strings.HasSuffix(body, done) {
			t.Errorf("a new request: the connection ends %v, %s", resp.Close, body)
		}
		if body := <-ended; !strings.HasSuffix(body, done) {
			t.Errorf("the stream ended with %q", body)
		}
		if took := <-drained; took != 14*time.Second {
			t.Errorf("drained after %v; want 14s, a second after the second stream's end", took)
		}
		if resp, body := r.mustPost("/v1/chat/completions", ask); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("a request after the drain: %d %s", resp.StatusCode, body)
		}
		r.want(2, "gateway_requests_total", "outcome", "ok")
		r.want(1, "gateway_requests_total", "outcome", "unavailable")
	}, sse(role, token("a"), 10*time.Second, stop, done))
}

// A request that came before SIGTERM, and whose answer begins after it, ends its
// connection too.
func TestLeaveIsToldInTheHead(t *testing.T) {
	inBubble(t, func(r *rig) {
		closes := make(chan bool, 1)
		go func() {
			resp, body := r.mustPost("/v1/chat/completions", ask)
			closes <- resp.Close && strings.HasSuffix(body, done)
		}()
		time.Sleep(time.Second)
		r.g.Leave()
		if !<-closes {
			t.Error("its client is not told that the connection ends")
		}
	}, sse(headers, role, 5*time.Second, token("a"), stop, done))
}

// Where nothing has run of late, there is nothing to wait for; where something has,
// the client may send again.
func TestDrainOfAnIdleGateway(t *testing.T) {
	for ago, want := range map[time.Duration]time.Duration{0: time.Second, 400 * time.Millisecond: 600 * time.Millisecond, time.Second: 0, time.Hour: 0} {
		inBubble(t, func(r *rig) {
			r.mustPost("/v1/chat/completions", ask)
			time.Sleep(ago)
			start := time.Now()
			r.g.Drain(r.t.Context())
			if took := time.Since(start); took != want {
				t.Errorf("drained %v after the last request in %v; want %v", ago, took, want)
			}
		}, sse(role, token("a"), stop, done))
	}
}

// A client that reads nothing does not keep the process alive.
func TestDrainWithAStalledClient(t *testing.T) {
	flood := strings.Repeat(token(strings.Repeat("z", 1000)), 2000)
	inBubble(t, func(r *rig) {
		resp, err := r.post("/v1/chat/completions", ask)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		time.Sleep(time.Second)
		start := time.Now()
		ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
		defer cancel()
		r.g.Drain(ctx)
		if took := time.Since(start); took != 31*time.Second {
			t.Errorf("drained after %v; want 31s", took)
		}
	}, sse(role, flood, hang))
}

// What has not ended by then is told, and its backend let go.
func TestDrainLimit(t *testing.T) {
	inBubble(t, func(r *rig) {
		start := time.Now()
		streams := make(chan string)
		go func() {
			resp, _ := r.post("/v1/chat/completions", ask)
			streams <- r.broken(resp)
		}()
		waiting := make(chan int)
		go func() {
			resp, _ := r.mustPost("/v1/chat/completions", ask, "Quiet", "1")
			waiting <- resp.StatusCode
		}()
		conn, _ := r.dialRaw() // a body that never ends
		defer conn.Close()
		io.WriteString(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 10\r\n\r\n{")
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
		defer cancel()
		go r.g.Drain(ctx)
		if got := <-streams; !strings.HasSuffix(got, "\"code\":503}}\n\n") || strings.Contains(got, "[DONE]") {
			t.Errorf("the stream ended with %q", got)
		}
		if code := <-waiting; code != 503 {
			t.Errorf("the one without a token got %d; want 503", code)
		}
		time.Sleep(time.Millisecond)
		for _, got := range r.backends[0].requests() {
			if after := got.ended.Sub(start); after != 31*time.Second {
				t.Errorf("the backend was let go after %v; want 31s", after)
			}
		}
		r.want(3, "gateway_requests_total", "outcome", "unavailable")
	}, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Quiet") != "" {
			play(w, req, []any{hang})
		}
		sse(role, token("a"), hang)(w, req)
	})
}

// Who is cut between the end of the drain's time and the cut itself finds the reason.
func TestCutHasItsReason(t *testing.T) {
	life, end := context.WithCancel(t.Context())
	end()
	ctx, cancel := context.WithCancelCause(t.Context())
	rec := &record{g: &Gateway{life: life}, cancel: cancel}
	called := false
	rec.whenCut(func() {
		called = true
		if context.Cause(ctx) != errDraining {
			t.Error("cut, and no reason")
		}
	})
	if !called {
		t.Error("not cut")
	}
}
