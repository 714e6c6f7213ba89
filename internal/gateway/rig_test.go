package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

// rig is client → gateway → backends in one bubble: real HTTP over memnet, in
// virtual time.
type rig struct {
	t        *testing.T
	net      *memnet.Net
	g        *Gateway
	client   *http.Client
	backends []*fakeVLLM
	log      *lockedBuffer
	dns      *dnsServer
}

const gatewayURL = "http://gateway:9000"

// inBubble runs a test in a synctest bubble with one backend for each handler.
func inBubble(t *testing.T, test func(*rig), handlers ...http.HandlerFunc) {
	t.Helper()
	inBubbleWith(t, func(*Config) {}, test, handlers...)
}

func inBubbleWith(t *testing.T, change func(*Config), test func(*rig), handlers ...http.HandlerFunc) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, net: new(memnet.Net), log: &lockedBuffer{}}
		cfg := Config{
			FirstByteTimeout:  10 * time.Minute,
			StreamIdleTimeout: 5 * time.Minute,
			MaxBody:           1 << 20,
			Version:           "test",
			Log:               slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			Dial:              r.net.Dial,
		}
		r.dns, cfg.Resolver = startDNS(t, r.net)
		for i, h := range handlers {
			b := r.vllm(fmt.Sprintf("vllm-%d:8000", i), h)
			cfg.Backends = append(cfg.Backends, "http://"+b.addr)
		}
		change(&cfg)
		g, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		r.g = g
		l, _ := r.net.Listen("gateway:9000")
		var protocols http.Protocols
		protocols.SetHTTP1(true)
		protocols.SetUnencryptedHTTP2(true)
		srv := &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second, Protocols: &protocols, ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelError)}
		go srv.Serve(l)
		tr := &http.Transport{DialContext: r.net.Dial, DisableCompression: true}
		r.client = &http.Client{Transport: tr}
		t.Cleanup(func() {
			tr.CloseIdleConnections()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			g.Drain(ctx)
			srv.Close()
		})
		synctest.Wait() // the first probes are through
		test(r)
		tr.CloseIdleConnections()
		synctest.Wait()
		r.atRest()
	})
}

// vllm starts a backend.
func (r *rig) vllm(addr string, h http.HandlerFunc) *fakeVLLM {
	b := &fakeVLLM{net: r.net, addr: addr, handle: h, models: []string{"tiny"}}
	b.start(r.t)
	r.t.Cleanup(b.stop)
	r.backends = append(r.backends, b)
	return b
}

// atRest holds after every test, however it ended: no gauge is left up, and the
// two counters of requests agree.
func (r *rig) atRest() {
	r.t.Helper()
	if n := r.metric("gateway_queue_depth"); n != 0 {
		r.t.Errorf("gateway_queue_depth is %v at rest", n)
	}
	if n := r.metric("gateway_backend_in_flight"); n != 0 {
		r.t.Errorf("gateway_backend_in_flight is %v at rest", n)
	}
	if a, b := r.metric("gateway_requests_total"), r.metric("gateway_rps"); a != b {
		r.t.Errorf("gateway_requests_total is %v, gateway_rps %v", a, b)
	}
	if lines, n := strings.Count(r.logged(), `"msg":"request"`), r.metric("gateway_requests_total"); float64(lines) != n {
		r.t.Errorf("%d log lines for %v requests", lines, n)
	}
	if len(r.g.ids.running) != 0 {
		r.t.Errorf("request ids kept: %v", r.g.ids.running)
	}
}

// metric sums the values of a series over all label sets that hold the given
// pairs: counters, gauges, a histogram's count ("name_count") or sum
// ("name_sum").
func (r *rig) metric(name string, labels ...string) float64 {
	r.t.Helper()
	synctest.Wait() // a client may have its answer before the record of it is written
	return sumOf(r.t, r.g.metrics.registry, name, labels...)
}

func sumOf(t *testing.T, from prometheus.Gatherer, name string, labels ...string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, f := range families {
		part, ok := strings.CutPrefix(name, f.GetName())
		if !ok || part != "" && part != "_count" && part != "_sum" {
			continue
		}
		for _, m := range f.Metric {
			if !holds(m, labels) {
				continue
			}
			switch {
			case part == "_count":
				total += float64(m.GetHistogram().GetSampleCount())
			case part == "_sum":
				total += m.GetHistogram().GetSampleSum()
			default:
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return total
}

func holds(m *dto.Metric, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		found := false
		for _, l := range m.Label {
			found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
		}
		if !found {
			return false
		}
	}
	return true
}

// logged gives the log so far.
func (r *rig) logged() string {
	synctest.Wait()
	return r.log.String()
}

// want compares a metric.
func (r *rig) want(value float64, name string, labels ...string) {
	r.t.Helper()
	if got := r.metric(name, labels...); got != value {
		r.t.Errorf("%s%v = %v; want %v", name, labels, got, value)
	}
}

// post sends a body and gives the answer's head.
func (r *rig) post(path, body string, header ...string) (*http.Response, error) {
	return r.postAs(r.t.Context(), path, body, header...)
}

func (r *rig) postAs(ctx context.Context, path, body string, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, "POST", gatewayURL+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return r.client.Do(req)
}

// mustPost reads the whole answer.
func (r *rig) mustPost(path, body string, header ...string) (*http.Response, string) {
	r.t.Helper()
	resp, err := r.post(path, body, header...)
	return r.whole(resp, err)
}

func (r *rig) mustGet(path string) (*http.Response, string) {
	r.t.Helper()
	resp, err := r.client.Get(gatewayURL + path)
	return r.whole(resp, err)
}

// whole may be called from any goroutine, so it does not end the test.
func (r *rig) whole(resp *http.Response, err error) (*http.Response, string) {
	r.t.Helper()
	if err != nil {
		r.t.Error(err)
		return &http.Response{Header: http.Header{}}, ""
	}
	return resp, r.read(resp)
}

func (r *rig) read(resp *http.Response) string {
	r.t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Errorf("the answer broke off: %v, after %q", err, body)
	}
	return string(body)
}

// broken reads an answer that must not end cleanly.
func (r *rig) broken(resp *http.Response) string {
	r.t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		r.t.Errorf("the answer ended cleanly: %q", body)
	}
	return string(body)
}

// fakeVLLM is a backend whose answers a test scripts. It answers /health and
// /v1/models by itself.
type fakeVLLM struct {
	net    *memnet.Net
	addr   string
	handle http.HandlerFunc
	models []string
	srv    *http.Server

	mu   sync.Mutex
	sick bool
	slow time.Duration // of /health
	mute bool          // lists no models
	asks int           // for the list
	got  []received
}

// received is a request as it reached the backend.
type received struct {
	method, uri string
	header      http.Header
	body        string
	ended       time.Time // when the handler saw the client leave; zero: it did not
}

// answerEarly answers ahead of reading the request to its end.
func answerEarly(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	rc.EnableFullDuplex()
	w.Header().Set("Content-Type", "text/event-stream")
	io.WriteString(w, `data: {"choices":[{"text":"x"}]}`+"\n\n")
	rc.Flush()
	time.Sleep(time.Second)
	if n, err := io.Copy(io.Discard, r.Body); n < 900<<10 || err != nil {
		panic(http.ErrAbortHandler)
	}
	io.WriteString(w, done)
}

func (b *fakeVLLM) start(t *testing.T) {
	l, err := b.net.Listen(b.addr)
	if err != nil {
		t.Fatal(err)
	}
	b.srv = &http.Server{Handler: b, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), IdleTimeout: 5 * time.Second}
	go b.srv.Serve(l)
}

func (b *fakeVLLM) stop() { b.srv.Close() }

// kill ends the server as kill -9 does.
func (b *fakeVLLM) kill() {
	b.net.Kill(b.addr)
	b.srv.Close()
}

func (b *fakeVLLM) set(change func(*fakeVLLM)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
}

// lists counts how often the models were asked for.
func (b *fakeVLLM) lists() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asks
}

func (b *fakeVLLM) requests() []received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]received(nil), b.got...)
}

func (b *fakeVLLM) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	sick, slow, models, mute := b.sick, b.slow, b.models, b.mute
	if r.URL.Path == "/v1/models" {
		b.asks++
	}
	b.mu.Unlock()
	switch r.URL.Path {
	case "/health":
		play(w, r, []any{slow})
		if sick {
			w.WriteHeader(503)
		}
		return
	case "/v1/models":
		if mute {
			status(401)(w, r)
			return
		}
		var list []string
		for _, m := range models {
			list = append(list, `{"id":"`+m+`","object":"model"}`)
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"object":"list","data":[`+strings.Join(list, ",")+`]}`)
		return
	}
	if b.handle == nil {
		answerEarly(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	i := len(b.got)
	b.got = append(b.got, received{method: r.Method, uri: r.RequestURI, header: r.Header.Clone(), body: string(body)})
	b.mu.Unlock()
	defer func() {
		if r.Context().Err() != nil { // every script ends as it does
			b.mu.Lock()
			defer b.mu.Unlock()
			b.got[i].ended = time.Now()
		}
	}()
	b.handle(w, r)
}

// Steps of a scripted answer, besides durations (wait) and strings (send and
// flush).
type step int

const (
	headers step = iota // send the head now
	abort               // break the connection
	hang                // until the client is gone
)

// sse scripts a stream of events.
func sse(steps ...any) http.HandlerFunc {
	return answer200("text/event-stream; charset=utf-8", steps...)
}

func answer200(kind string, steps ...any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		play(w, r, steps)
	}
}

func play(w http.ResponseWriter, r *http.Request, steps []any) {
	for _, s := range steps {
		switch s := s.(type) {
		case time.Duration:
			select {
			case <-time.After(s):
			case <-r.Context().Done():
				return
			}
		case string:
			io.WriteString(w, s)
			http.NewResponseController(w).Flush()
		case step:
			switch s {
			case headers:
				http.NewResponseController(w).Flush()
			case abort:
				panic(http.ErrAbortHandler)
			case hang:
				<-r.Context().Done()
			}
		}
	}
}

// Events of a chat stream.
const (
	role  = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}` + "\n\n"
	stop  = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop","stop_reason":null}]}` + "\n\n"
	done  = "data: [DONE]\n\n"
	ask   = `{"model":"tiny","stream":true,"messages":[{"role":"user","content":"the secret prompt"}]}`
	asked = `{"stream_options":{"include_usage":true},"model":"tiny","stream":true,"messages":[{"role":"user","content":"the secret prompt"}]}`
)

func token(text string) string {
	return `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"` + text + `"},"logprobs":null,"finish_reason":null}]}` + "\n\n"
}

func usage(prompt, completion int) string {
	return fmt.Sprintf(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[],"system_fingerprint":"vllm-x","usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}}`, prompt, prompt+completion, completion) + "\n\n"
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
