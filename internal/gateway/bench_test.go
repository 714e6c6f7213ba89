package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

// What it costs to choose a backend and to give it back.
func BenchmarkLease(b *testing.B) {
	for _, policy := range Policies() {
		for _, n := range []int{1, 4, 64} {
			b.Run(fmt.Sprint(policy, "/", n), func(b *testing.B) {
				p := poolOf(policy, n, 0)
				w := want{model: "tiny"}
				b.ReportAllocs()
				for i := range b.N {
					w.group = groupOf(i % 1000)
					l, _, err := p.lease(context.Background(), &w, nil)
					if err != nil {
						b.Fatal(err)
					}
					l.release()
				}
			})
		}
	}
}

// What it costs to serve the next of a line, by its length and its callers.
func BenchmarkLine(b *testing.B) {
	for _, waiting := range []int{1, 100, 10000} {
		for _, callers := range []int{1, 100} {
			b.Run(fmt.Sprint(waiting, "/", callers), func(b *testing.B) {
				p := poolOf(LeastInFlight, 4, 1)
				p.line.max = waiting + 1
				var held []*lease
				for range 4 {
					l, _, _ := p.lease(context.Background(), &want{model: "tiny"}, nil)
					held = append(held, l)
				}
				join := func(i int) {
					p.mu.Lock()
					defer p.mu.Unlock()
					p.seq++
					p.line.enter(&want{model: "tiny", caller: uint64(i % callers), seq: p.seq}, nil)
				}
				for i := range waiting {
					join(i)
				}
				b.ResetTimer()
				for i := range b.N {
					l := held[i%4]
					l.release()
					join(i)
					held[i%4] = &lease{p: p, backend: l.backend, caller: uint64(i % callers)}
				}
			})
		}
	}
}

func poolOf(policy string, n, most int) *pool {
	p := &pool{choose: policies[policy], cap: most, maxLoad: defaultMaxLoad, running: map[uint64]int{}, begun: map[uint64]int{}, models: map[string]bool{}, listers: map[string]int{}}
	p.line = line{rows: map[rowKey]*row{}, gauge: prometheus.NewGauge(prometheus.GaugeOpts{})}
	for i := range n {
		name := fmt.Sprintf("10.0.0.%d:8000", i)
		b := &backend{name: name, weight: 1, hash: hash(hashSeed, []byte(name)), state: up}
		p.add(b)
		p.setModels(b, []string{"tiny"})
	}
	return p
}

// What tracing costs a request: a stream of 100 tokens, its bytes over memory.
func BenchmarkTracing(b *testing.B) {
	events := strings.Repeat(token("a"), 100) + stop + usage(5, 100) + done
	for _, tt := range []struct {
		name    string
		sampler sdk.Sampler
	}{{"off", nil}, {"not sampled", sdk.NeverSample()}, {"sampled", sdk.AlwaysSample()}} {
		b.Run(tt.name, func(b *testing.B) {
			var network memnet.Net
			l, _ := network.Listen("vllm:8000")
			backend := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				if r.Method == "POST" {
					w.Header().Set("Content-Type", "text/event-stream")
					io.WriteString(w, events)
				}
			})}
			go backend.Serve(l)
			defer backend.Close()
			cfg := Config{Backends: []string{"http://vllm:8000"}, FirstByteTimeout: time.Minute, StreamIdleTimeout: time.Minute, MaxBody: 1 << 20, Log: slog.New(slog.DiscardHandler), Dial: network.Dial}
			if tt.sampler != nil {
				cfg.Tracer = sdk.NewTracerProvider(sdk.WithSampler(tt.sampler), sdk.WithBatcher(nowhere{})).Tracer("test")
			}
			g, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer g.Drain(context.Background())
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				g.ServeHTTP(w, httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(ask)))
				if w.Code != 200 {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}

// BenchmarkSpans is what tracing adds, by itself: the spans of one stream.
func BenchmarkSpans(b *testing.B) {
	for _, tt := range []struct {
		name    string
		sampler sdk.Sampler
	}{{"off", nil}, {"not sampled", sdk.NeverSample()}, {"sampled", sdk.AlwaysSample()}} {
		b.Run(tt.name, func(b *testing.B) {
			var tracer trace.Tracer
			if tt.sampler != nil {
				tracer = sdk.NewTracerProvider(sdk.WithSampler(tt.sampler), sdk.WithBatcher(nowhere{})).Tracer("test")
			}
			g := &Gateway{}
			rt, _ := find("/v1/chat/completions")
			r := httptest.NewRequest("POST", rt.path, nil)
			r.Header.Set("Traceparent", clientsParent)
			c := &call{ctx: context.Background(), method: "POST", header: r.Header, stream: true}
			now := time.Now()
			rec := &record{g: g, route: rt, w: &writer{status: 200, begun: true}, label: "tiny", model: "tiny", start: now, outcome: ok, attempts: 1}
			a := &answer{g: g, rec: rec, backend: &backend{name: "10.0.0.1:8000"}, ctx: c.ctx, status: 200, sent: now, stream: &meter{first: now}}
			b.ReportAllocs()
			for b.Loop() {
				rec.spans = spans{}
				rec.spans.begin(tracer, r, rec)
				rec.spans.carry(c.header)
				rec.spans.waited(time.Millisecond, nil)
				a.spans = rec.spans.attempt(a, c)
				ctx := a.spans.watch(c.ctx)
				if hooks := httptrace.ContextClientTrace(ctx); hooks != nil {
					hooks.GetConn("")
					hooks.GotConn(httptrace.GotConnInfo{})
				}
				a.spans.end(a)
				rec.spans.end(rec, now)
			}
		})
	}
}

// nowhere takes spans, and forgets them.
type nowhere struct{}

func (nowhere) ExportSpans(context.Context, []sdk.ReadOnlySpan) error { return nil }
func (nowhere) Shutdown(context.Context) error                        { return nil }
