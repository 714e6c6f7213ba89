// Package tracing sends spans to whoever collects them, by OTLP over HTTP. It is
// OpenTelemetry's SDK, set up by OpenTelemetry's own environment variables and
// nothing else; docs/tracing.md lists them.
//
//	tracer, stop, err := tracing.Start(ctx, "vllm-gateway", version, log)
//	defer stop(ctx)
//
// The SDK passes over what it does not understand in a variable, and goes on with a
// default. Here that is an error.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// flushTime is how long a program that ends waits for its last spans to be taken.
	flushTime = 3 * time.Second
	// defaultEndpoint is the specification's. (The exporter's own is https.)
	defaultEndpoint = "http://localhost:4318/v1/traces"
	// schema is of the conventions that the gateway's attributes follow.
	schema = "https://opentelemetry.io/schemas/1.41.0"
)

// Start gives a tracer whose spans are sent, and what sends the last of them: it
// waits for that no longer than three seconds, or until its context ends. Both are
// nil, without an error, where the environment asks for no tracing. service is what
// spans are said to come from, unless the environment says otherwise.
//
// What cannot be sent is logged, once a minute, and dropped; nobody waits for it. The
// error names every variable that cannot be followed.
//
// Start sets OpenTelemetry's global handler of errors: call it once.
func Start(ctx context.Context, service, version string, log *slog.Logger) (trace.Tracer, func(context.Context), error) {
	s, err := read()
	if err != nil || !s.on {
		return nil, nil, err
	}
	what, err := describe(ctx, service, version)
	if err != nil {
		return nil, nil, err
	}
	var options []otlptracehttp.Option
	if s.endpoint == "" {
		s.endpoint = defaultEndpoint
		options = append(options, otlptracehttp.WithEndpointURL(defaultEndpoint))
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("the exporter of spans: %w", err)
	}
	t := &troubles{log: log, to: s.endpoint, secrets: s.secrets}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(t.handle))
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(what))
	log.Info("spans of requests are sent", "to", s.endpoint)
	tracer := provider.Tracer("github.com/vllm-gateway/vllm-gateway", trace.WithInstrumentationVersion(version), trace.WithSchemaURL(schema))
	return tracer, func(ctx context.Context) { flush(ctx, provider, t) }, nil
}

// flush sends the last spans, and gives up in time.
func flush(ctx context.Context, provider *sdk.TracerProvider, t *troubles) {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	if err := provider.Shutdown(ctx); err != nil {
		t.tell(fmt.Errorf("the last spans: %w", err))
	}
}

// describe is what all spans have in common: who sends them. What the environment
// says of that goes before what is known here.
func describe(ctx context.Context, service, version string) (*resource.Resource, error) {
	r, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", service), attribute.String("service.version", version)),
		resource.WithFromEnv(),
	)
	if err != nil {
		return nil, fmt.Errorf("what spans say of this program: %w", err)
	}
	return r, nil
}
