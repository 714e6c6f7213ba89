package clients

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// tap relays between the gateway and the backend, and keeps what the backend
// answered to each X-Request-Id.
type tap struct {
	mu      sync.Mutex
	answers map[string]*answer
}

type answer struct {
	status int
	header http.Header
	body   bytes.Buffer
}

// startTap gives the URL of a gateway whose backend is tapped.
func startTap(t *testing.T, backend string) (*tap, string) {
	t.Helper()
	to, err := url.Parse(backend)
	if err != nil {
		t.Fatal(err)
	}
	wire := &tap{answers: map[string]*answer{}}
	relay := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		FlushInterval: -1,
		ModifyResponse: func(res *http.Response) error {
			got := &answer{status: res.StatusCode, header: res.Header.Clone()}
			res.Body = struct {
				io.Reader
				io.Closer
			}{io.TeeReader(res.Body, &got.body), res.Body}
			wire.mu.Lock()
			defer wire.mu.Unlock()
			wire.answers[res.Request.Header.Get("X-Request-Id")] = got
			return nil
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A transport that still looks for the body's end when the answer begins
		// finds it closed by the server, and breaks the connection.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		relay.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return wire, launch(t, "vllm-gateway", "--backend", server.URL)
}

const (
	hello = `"messages":[{"role":"user","content":"Hello"}],"max_tokens":40,"seed":7`
	ready = `"prompt":"Once upon a time","max_tokens":40,"seed":7`
)

// exchange is a request, without its model, whose answer is compared.
type exchange struct {
	name, path, body string
	added            bool // the gateway asks for usage, and takes it out
}

// TestBytes compares what a client reads with what the backend wrote for it, byte
// for byte: whatever luck the backend had, it had for both.
func TestBytes(t *testing.T) {
	r := start(t)
	wire, gateway := startTap(t, r.backend)
	await(t, gateway, limit, func() error {
		_, err := get(gateway + "/health")
		return err
	})
	requests := []exchange{
		{"chat", "/v1/chat/completions", hello, false},
		{"chat stream", "/v1/chat/completions", hello + `,"stream":true`, true},
		{"chat stream with logprobs", "/v1/chat/completions", hello + `,"stream":true,"n":2,"logprobs":true,"top_logprobs":2`, true},
		{"chat stream with usage", "/v1/chat/completions", hello + `,"stream":true,"stream_options":{"include_usage":true}`, false},
		{"completion", "/v1/completions", ready, false},
		{"completion stream", "/v1/completions", ready + `,"stream":true`, true},
		{"completion stream with usage", "/v1/completions", ready + `,"stream":true,"stream_options":{"include_usage":true}`, false},
		{"response", "/v1/responses", `"input":"Hello","max_output_tokens":40`, false},
		{"response stream", "/v1/responses", `"input":"Hello","max_output_tokens":40,"stream":true`, false},
		{"message", "/v1/messages", hello, false},
		{"message stream", "/v1/messages", hello + `,"stream":true`, false},
		{"count of tokens", "/v1/messages/count_tokens", hello, false},
		{"tokens", "/tokenize", `"prompt":"Hello"`, false},
		{"a request that is wrong", "/v1/chat/completions", `"messages":7`, false},
	}
	for i, q := range requests {
		t.Run(q.name, func(t *testing.T) {
			for n := range 5 {
				wire.compare(t, gateway, q, fmt.Sprintf("alone-%d-%d", i, n))
			}
		})
	}
	t.Run("all at once", func(t *testing.T) {
		var all sync.WaitGroup
		for i, q := range requests {
			for n := range 3 {
				all.Go(func() {
					wire.compare(t, gateway, q, fmt.Sprintf("crowd-%d-%d", i, n))
				})
			}
		}
		all.Wait()
	})
}

// compare may be called from any goroutine.
func (wire *tap) compare(t *testing.T, gateway string, q exchange, id string) {
	body := `{"model":"` + model + `",` + q.body + `}`
	req, err := http.NewRequest(http.MethodPost, gateway+q.path, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Request-Id", id)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer res.Body.Close()
	read, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("%s: %v", body, err)
	}
	wire.mu.Lock()
	wrote := wire.answers[id]
	wire.mu.Unlock()
	if wrote == nil {
		t.Errorf("%s: the backend was not asked: %s %s", body, res.Status, read)
		return
	}
	if res.StatusCode != wrote.status {
		t.Errorf("%s: status %d, the backend's is %d", body, res.StatusCode, wrote.status)
	}
	// What the gateway adds (docs/configuration.md).
	for _, name := range []string{"X-Request-Id", "Server-Timing"} {
		res.Header.Del(name)
		wrote.header.Del(name)
	}
	if !maps.EqualFunc(res.Header, wrote.header, slices.Equal[[]string]) {
		t.Errorf("%s: header\n%v, the backend's is\n%v", body, res.Header, wrote.header)
	}
	want := wrote.body.String()
	if q.added {
		want = withoutUsage(t, want)
	}
	if string(read) != want {
		t.Errorf("%s: the client read\n%s\nthe backend wrote\n%s", body, read, wrote.body.Bytes())
	}
}

// withoutUsage takes the last event but one out of a stream.
func withoutUsage(t *testing.T, stream string) string {
	rest, done := strings.CutSuffix(stream, "data: [DONE]\n\n")
	at := strings.LastIndex(strings.TrimSuffix(rest, "\n\n"), "\n\n") + 2
	var event struct {
		Choices []any
		Usage   map[string]any
	}
	err := json.Unmarshal([]byte(strings.TrimPrefix(rest[at:], "data: ")), &event)
	if !done || err != nil || len(event.Choices) > 0 || event.Usage == nil {
		t.Errorf("does not end in usage and [DONE]: %v\n%s", err, stream)
	}
	return rest[:at] + "data: [DONE]\n\n"
}
