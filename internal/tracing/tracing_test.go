package tracing

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// environment sets variables, written NAME=value, and unsets what the one who runs
// the tests may have.
func environment(t testing.TB, variables ...string) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
	for _, kv := range variables {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
}

var quiet = slog.New(slog.DiscardHandler)

// Tracing is off unless somebody asks for it.
func TestOff(t *testing.T) {
	for name, variables := range map[string][]string{
		"nothing":       nil,
		"no exporter":   {"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318", "OTEL_TRACES_EXPORTER=none"},
		"disabled":      {"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318", "OTEL_SDK_DISABLED=TRUE", "OTEL_TRACES_SAMPLER=what?"},
		"empty":         {"OTEL_EXPORTER_OTLP_ENDPOINT=", "OTEL_TRACES_EXPORTER= "},
		"other signals": {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://collector:4318", "OTEL_SERVICE_NAME=gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t, variables...)
			tracer, stop, err := Start(t.Context(), "service", "1", quiet)
			if tracer != nil || stop != nil || err != nil {
				t.Errorf("Start: %v, %v, %v; want nothing", tracer, stop != nil, err)
			}
		})
	}
}

// Each mistake is told: which variable, what it says, what to write.
func TestMistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "no.pem")
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		variable string
		want     []string
	}{
		{"OTEL_TRACES_EXPORTER=zipkin", []string{"zipkin", "otlp, or none"}},
		{"OTEL_TRACES_EXPORTER=console,otlp", []string{"console,otlp", "otlp, or none"}},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318", []string{"http://host:4318"}},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=grpc://collector:4317", []string{"http://host:4318"}},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://", []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://me:secret@collector", []string{"OTEL_EXPORTER_OTLP_HEADERS"}},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector/?key=secret", []string{"leave it out"}},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:99999", []string{"99999", "65535"}},
		{"OTEL_EXPORTER_OTLP_PROTOCOL=grpc", []string{"gRPC", "http/protobuf", "4318"}},
		{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=thrift", []string{"thrift", "http/protobuf or http/json"}},
		{"OTEL_EXPORTER_OTLP_COMPRESSION=zstd", []string{"zstd", "gzip or none"}},
		{"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=10s", []string{"10s", "milliseconds"}},
		{"OTEL_EXPORTER_OTLP_HEADERS=secret", []string{"header 1", "name=value"}},
		{"OTEL_EXPORTER_OTLP_TRACES_HEADERS=a=b,a key=secret", []string{"header 2", "name=value"}},
		{"OTEL_EXPORTER_OTLP_HEADERS=a=%secret", []string{"header 1"}},
		{"OTEL_EXPORTER_OTLP_HEADERS=a=secret%0Ab", []string{"header 1"}},
		{"OTEL_EXPORTER_OTLP_INSECURE=false", []string{"OTEL_EXPORTER_OTLP_INSECURE=false", "http://collector:4318", "leave the variable out"}},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE=/no/such/file", []string{"OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file", "no such file"}},
		{"OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE=" + file, []string{file, "PEM"}},
		{"OTEL_EXPORTER_OTLP_CLIENT_KEY=" + file, []string{"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "both or none"}},
		{"OTEL_TRACES_SAMPLER=jaeger_remote", []string{"jaeger_remote", "parentbased_traceidratio"}},
		{"OTEL_BSP_MAX_QUEUE_SIZE=-1", []string{"-1", "from 1 to 1000000 spans"}},
		{"OTEL_BSP_SCHEDULE_DELAY=5s", []string{"5s", "milliseconds"}},
		{"OTEL_BSP_EXPORT_TIMEOUT=99999999999999999999", []string{"milliseconds"}},
		{"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=many", []string{"many", "whole number"}},
		{"OTEL_PROPAGATORS=tracecontext,b3", []string{"b3", "tracecontext,baggage"}},
		{"OTEL_RESOURCE_ATTRIBUTES=a=b,cluster", []string{"attribute 2", "cluster", "name=value"}},
		{"OTEL_RESOURCE_ATTRIBUTES=a=%zz", []string{"attribute 1"}},
	} {
		t.Run(tt.variable, func(t *testing.T) {
			environment(t, "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318", tt.variable)
			_, _, err := Start(t.Context(), "service", "1", quiet)
			if err == nil {
				t.Fatal("it starts")
			}
			name, _, _ := strings.Cut(tt.variable, "=")
			for _, want := range append(tt.want, name) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("it tells a secret: %v", err)
			}
		})
	}
	for _, share := range []string{"2", "-1", "NaN", "half"} {
		environment(t, "OTEL_TRACES_EXPORTER=otlp", "OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG="+share)
		if _, err := read(); err == nil || !strings.Contains(err.Error(), "OTEL_TRACES_SAMPLER_ARG="+share) {
			t.Errorf("share %s: %v", share, err)
		}
	}
	environment(t, "OTEL_TRACES_EXPORTER=otlp", "OTEL_TRACES_SAMPLER=none", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc")
	if _, err := read(); err == nil || !strings.Contains(err.Error(), "SAMPLER") || !strings.Contains(err.Error(), "gRPC") {
		t.Errorf("two mistakes: %v; want both", err)
	}
}

// What is sent where, by the variables that the exporter and the SDK read themselves:
// the gateway relies on them.
func TestVariablesAreFollowed(t *testing.T) {
	type request struct {
		path   string
		header http.Header
		body   []byte
	}
	for name, tt := range map[string]struct {
		variables func(url string) []string
		path      string // "": nothing is sent
		check     func(t *testing.T, r request)
	}{
		"base": {func(url string) []string { return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + url + "/base"} }, "/base/v1/traces", nil},
		"own": {func(url string) []string {
			return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://nowhere", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + url + "/own"}
		}, "/own", nil},
		"JSON": {func(url string) []string {
			return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + url, "OTEL_EXPORTER_OTLP_PROTOCOL=http/json", "OTEL_SERVICE_NAME=mine", "OTEL_EXPORTER_OTLP_HEADERS=x-key=a%20b"}
		}, "/v1/traces", func(t *testing.T, r request) {
			if !json.Valid(r.body) || !bytes.Contains(r.body, []byte(`"mine"`)) || r.header.Get("Content-Type") != "application/json" || r.header.Get("X-Key") != "a b" {
				t.Errorf("%v %s", r.header, r.body)
			}
		}},
		"own name": {func(url string) []string {
			return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + url, "OTEL_EXPORTER_OTLP_PROTOCOL=http/json"}
		}, "/v1/traces", func(t *testing.T, r request) {
			if !bytes.Contains(r.body, []byte(`"service"`)) || !bytes.Contains(r.body, []byte(`"1.2.3"`)) {
				t.Errorf("%s", r.body)
			}
		}},
		"not sampled": {func(url string) []string {
			return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + url, "OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0"}
		}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan request, 10)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got <- request{r.URL.Path, r.Header, body}
			}))
			defer srv.Close()
			environment(t, tt.variables(srv.URL)...)
			tracer, stop, err := Start(t.Context(), "service", "1.2.3", quiet)
			if err != nil {
				t.Fatal(err)
			}
			_, span := tracer.Start(t.Context(), "a")
			span.End()
			stop(t.Context())
			select {
			case r := <-got:
				if r.path != tt.path {
					t.Errorf("sent to %s; want %q", r.path, tt.path)
				}
				if tt.check != nil {
					tt.check(t, r)
				}
			default: // it has been sent by now, if at all
				if tt.path != "" {
					t.Error("nothing was sent")
				}
			}
		})
	}
}

// stuck takes spans, and no end.
type stuck struct{}

func (stuck) ExportSpans(ctx context.Context, _ []sdk.ReadOnlySpan) error {
	<-ctx.Done()
	return ctx.Err()
}
func (stuck) Shutdown(context.Context) error { return nil }

// A program that ends does not wait for a collector that hangs, and whoever makes
// spans never does.
func TestFlushIsBounded(t *testing.T) {
	environment(t)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		tr := &troubles{log: slog.New(slog.NewTextHandler(&log, nil))}
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
		provider := sdk.NewTracerProvider(sdk.WithBatcher(stuck{}))
		start := time.Now()
		for range 10_000 {
			_, span := provider.Tracer("test").Start(t.Context(), "a")
			span.End()
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("spans took %v", took)
		}
		flush(context.Background(), provider, tr)
		if took := time.Since(start); took != flushTime {
			t.Errorf("it ended after %v; want %v", took, flushTime)
		}
		if !strings.Contains(log.String(), "the last spans: context deadline exceeded") {
			t.Errorf("the log: %s", log.String())
		}
		time.Sleep(time.Hour) // the exporter's own time limit has passed
	})
}

// Trouble is told once a minute, with how much of it there was, and no secrets.
func TestTroublesAreToldRarely(t *testing.T) {
	environment(t, "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318", "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20sk-1,x=")
	s, err := read()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		tr := &troubles{log: slog.New(slog.NewTextHandler(&log, nil)), to: s.endpoint, secrets: s.secrets}
		for range 150 {
			tr.handle(errors.New("the key sk-1 is not known: " + strings.Repeat("x", 1000)))
			time.Sleep(time.Second)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 3 || !strings.Contains(lines[1], "more_since=59") {
			t.Errorf("%d lines; want 3:\n%s", len(lines), log.String())
		}
		if strings.Contains(log.String(), "sk-1") || len(lines[0]) > 600 || !strings.Contains(lines[0], "to=http://collector:4318") {
			t.Errorf("the log: %s", log.String())
		}
	})
}

// What passes here is understood by the exporter, so that nothing is left out in
// silence, and nothing panics.
func FuzzEnvironment(f *testing.F) {
	f.Add("http://collector:4318", "a=b,c=d%20e", "1000", "gzip")
	f.Add("https://[::1]:4318/x", "Authorization=Bearer x", "", "")
	f.Add("http://a:b@c", "a", "-1", "zstd")
	f.Add("http://a\x7f", "a=\x01", "1e3", "none")
	f.Fuzz(func(t *testing.T, endpoint, headers, timeout, compression string) {
		if strings.ContainsRune(endpoint+headers+timeout+compression, 0) {
			return // the environment cannot hold it
		}
		environment(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_HEADERS="+headers, "OTEL_EXPORTER_OTLP_TIMEOUT="+timeout, "OTEL_EXPORTER_OTLP_COMPRESSION="+compression)
		if s, err := read(); err != nil || !s.on {
			return
		}
		var complaints []string
		otel.SetLogger(funcr.New(func(_, args string) { complaints = append(complaints, args) }, funcr.Options{}))
		otlptracehttp.NewClient()
		if len(complaints) > 0 {
			t.Errorf("%q, %q, %q, %q: the exporter says %v", endpoint, headers, timeout, compression, complaints)
		}
	})
}
