package main

import (
	"compress/gzip"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/vllm-gateway/vllm-gateway/internal/vllmsim"
)

// receiver takes spans as an OpenTelemetry collector does: OTLP over HTTP.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	spans    []*otlp.Span
	resource map[string]string
	problems []error
	keys     []string // of the header X-Key
}

func receive(t *testing.T) *receiver {
	r := &receiver{resource: map[string]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		err := r.take(req)
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil {
			r.problems = append(r.problems, err)
			w.WriteHeader(400)
			return
		}
		answer, _ := proto.Marshal(&collector.ExportTraceServiceResponse{})
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.Write(answer)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) take(req *http.Request) error {
	if req.Method != "POST" || req.URL.Path != "/v1/traces" || req.Header.Get("Content-Type") != "application/x-protobuf" {
		return fmt.Errorf("%s %s, %s", req.Method, req.URL, req.Header.Get("Content-Type"))
	}
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			return err
		}
		body = unzipped
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	var sent collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(raw, &sent); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = append(r.keys, req.Header.Get("X-Key"))
	for _, from := range sent.ResourceSpans {
		maps.Copy(r.resource, attributes(from.Resource.Attributes))
		for _, scope := range from.ScopeSpans {
			r.spans = append(r.spans, scope.Spans...)
		}
	}
	return nil
}

func attributes(list []*common.KeyValue) map[string]string {
	m := map[string]string{}
	for _, kv := range list {
		switch v := kv.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			m[kv.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			m[kv.Key] = fmt.Sprint(v.IntValue)
		case *common.AnyValue_BoolValue:
			m[kv.Key] = fmt.Sprint(v.BoolValue)
		default:
			m[kv.Key] = kv.Value.String()
		}
	}
	return m
}

// received gives the spans of a trace, first things first.
func (r *receiver) received(traceID string) []*otlp.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*otlp.Span
	for _, s := range r.spans {
		if hex.EncodeToString(s.TraceId) == traceID {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b *otlp.Span) int { return int(int64(a.StartTimeUnixNano) - int64(b.StartTimeUnixNano)) })
	return all
}

// tree draws spans as a collector would, and their names alone.
func tree(spans []*otlp.Span, parent []byte) (drawn, names string) {
	began := spans[0].StartTimeUnixNano
	var draw func(parent []byte, indent string)
	var out, short strings.Builder
	draw = func(parent []byte, indent string) {
		for _, s := range spans {
			if string(s.ParentSpanId) != string(parent) {
				continue
			}
			from, took := time.Duration(s.StartTimeUnixNano-began), time.Duration(s.EndTimeUnixNano-s.StartTimeUnixNano)
			fmt.Fprintf(&out, "%-40s %9.1f ms  +%.1f ms\n", indent+s.Name, took.Seconds()*1000, from.Seconds()*1000)
			fmt.Fprintf(&short, "%s%s\n", indent, s.Name)
			has := attributes(s.Attributes)
			for _, key := range slices.Sorted(maps.Keys(has)) {
				fmt.Fprintf(&out, "%s    %s=%s\n", indent, key, has[key])
			}
			draw(s.SpanId, indent+"  ")
		}
	}
	draw(parent, "")
	return out.String(), short.String()
}

// What a collector receives of a streamed request that had to wait, and of its
// neighbours, from the program as it runs. With -v it is printed.
func TestSpansReceived(t *testing.T) {
	sim, err := vllmsim.New(vllmsim.Config{Models: []string{"llama"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	var mu sync.Mutex
	var passed []string // traceparents that vLLM got
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			mu.Lock()
			passed = append(passed, r.Header.Get("traceparent"))
			mu.Unlock()
		}
		sim.ServeHTTP(w, r)
	}))
	t.Cleanup(backend.Close)
	to := receive(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=sk-collector")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "600000") // what is received was sent by the drain
	p := start(t, backend.URL, "--max-in-flight", "1")

	stream := func(words int, trace string) {
		body := fmt.Sprintf(`{"model":"llama","stream":true,"max_tokens":%d,"ignore_eos":true,"messages":[{"role":"user","content":"the secret prompt"}]}`, words)
		req, _ := http.NewRequest("POST", "http://"+p.addr+"/v1/chat/completions", strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || !strings.HasSuffix(string(body), "[DONE]\n\n") {
			t.Errorf("%d, %v: %s", resp.StatusCode, err, body)
		}
	}
	first, second := strings.Repeat("a", 32), strings.Repeat("b", 32)
	var both sync.WaitGroup
	both.Go(func() { stream(20, first) })
	until(t, "the first one runs", func() bool { mu.Lock(); defer mu.Unlock(); return len(passed) == 1 })
	both.Go(func() { stream(20, second) })
	both.Wait()
	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.exit(); err != nil {
		t.Fatalf("exit: %v\n%s", err, p.stderr.String())
	}

	if len(to.problems) > 0 || len(to.keys) == 0 || to.keys[0] != "sk-collector" {
		t.Fatalf("the receiver had %v; keys %q", to.problems, to.keys)
	}
	for key, want := range map[string]string{"service.name": "vllm-gateway", "deployment.environment.name": "test"} {
		if to.resource[key] != want {
			t.Errorf("resource: %s is %q; want %q", key, to.resource[key], want)
		}
	}
	spans := to.received(second)
	if len(spans) == 0 {
		t.Fatalf("nothing of the second request; its log:\n%s", p.stderr.String())
	}
	drawn, names := tree(spans, []byte{0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7})
	t.Logf("received:\n%s", drawn)
	if want := "POST /v1/chat/completions\n  wait\n  chat llama\n    connect\n    first token\n    stream\n"; names != want {
		t.Errorf("received\n%swant\n%s", names, want)
	}
	for _, s := range spans {
		if s.Name != "chat llama" {
			continue
		}
		if has := attributes(s.Attributes); has["gen_ai.usage.output_tokens"] != "20" || has["gen_ai.operation.name"] != "chat" || s.Kind != otlp.Span_SPAN_KIND_CLIENT {
			t.Errorf("the attempt has %v, kind %v", has, s.Kind)
		}
		if want := "00-" + second + "-" + hex.EncodeToString(s.SpanId) + "-01"; passed[1] != want {
			t.Errorf("vLLM got traceparent %s; want %s", passed[1], want)
		}
	}
	if text := fmt.Sprint(to.spans); strings.Contains(text, "secret") {
		t.Error("a span holds the prompt")
	}
	if strings.Contains(p.stderr.String(), "sk-collector") {
		t.Error("the log holds the collector's key")
	}
}

// A collector that is not there costs a line of the log, and no request.
func TestNobodyTakesSpans(t *testing.T) {
	backend, finish := slowStream(t)
	close(finish)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+freeAddr(t))
	t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
	p := start(t, backend)
	for range 20 {
		resp := post(t, http.DefaultClient, "http://"+p.addr)
		if body, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(body), "[DONE]\n\n") {
			t.Fatalf("%q, %v", body, err)
		}
		resp.Body.Close()
	}
	p.await("spans are not delivered")
	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.exit(); err != nil {
		t.Errorf("exit: %v; want 0", err)
	}
	if n := strings.Count(p.stderr.String(), "spans are not delivered"); n != 1 {
		t.Errorf("the log says %d times that spans are not delivered; want 1", n)
	}
}

// What cannot be followed ends the program at once, as a wrong flag does.
func TestTracingMistakeAtStart(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "zipkin")
	out, err := exec.Command(binary, "--listen", freeAddr(t)).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "OTEL_TRACES_EXPORTER=zipkin") {
		t.Errorf("%v: %s", err, out)
	}
}
