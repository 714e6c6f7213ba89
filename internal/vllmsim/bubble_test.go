package vllmsim

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

// bubble is a simulator on a network in memory, in a synctest bubble: its time
// is exact, and a goroutine that it leaves behind fails the test.
type bubble struct {
	t      *testing.T
	sim    *Server
	client *http.Client
	start  time.Time
}

func inBubble(t *testing.T, cfg Config, test func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sim, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var network memnet.Net
		l, err := network.Listen("sim:8000")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: sim}
		go srv.Serve(l)
		transport := &http.Transport{DialContext: network.Dial, MaxIdleConnsPerHost: 1000, DisableCompression: true}
		test(t, &bubble{t: t, sim: sim, client: &http.Client{Transport: transport}, start: time.Now()})
		sim.Close()
		transport.CloseIdleConnections()
		srv.Close()
	})
}

func (b *bubble) since() time.Duration { return time.Since(b.start) }

func (b *bubble) request(ctx context.Context, method, path, body string, headers ...string) *http.Request {
	b.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://sim:8000"+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

func (b *bubble) do(ctx context.Context, method, path, body string, headers ...string) *http.Response {
	b.t.Helper()
	resp, err := b.client.Do(b.request(ctx, method, path, body, headers...))
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp
}

// call gives the status and the whole body.
func (b *bubble) call(method, path, body string, headers ...string) (int, string) {
	b.t.Helper()
	resp := b.do(b.t.Context(), method, path, body, headers...)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatalf("%s %s: read: %v", method, path, err)
	}
	return resp.StatusCode, string(text)
}

// event is the data of one event of a stream, and when it came.
type event struct {
	data string
	at   time.Duration
}

// events reads a stream to its end. The error is io.EOF after a clean one.
func (b *bubble) events(resp *http.Response) ([]event, error) {
	defer resp.Body.Close()
	var list []event
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadString('\n')
		if data, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "data: "); ok {
			list = append(list, event{data, b.since()})
		}
		if err != nil {
			return list, err
		}
	}
}

// stream posts a request and reads its stream to a clean end.
func (b *bubble) stream(path, body string, headers ...string) []event {
	b.t.Helper()
	resp := b.do(b.t.Context(), "POST", path, body, headers...)
	if resp.StatusCode != http.StatusOK {
		b.t.Fatalf("POST %s: status %d", path, resp.StatusCode)
	}
	list, err := b.events(resp)
	if !errors.Is(err, io.EOF) {
		b.t.Fatalf("POST %s: stream ended with %v", path, err)
	}
	return list
}

// metric is one sample of /metrics, by name and labels as they are printed.
func (b *bubble) metric(series string) string {
	b.t.Helper()
	_, text := b.call("GET", "/metrics", "")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return "absent"
}

const labels = `{engine="0",model_name="` + DefaultModel + `"}`
