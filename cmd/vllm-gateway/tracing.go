package main

import (
	"context"

	"github.com/vllm-gateway/vllm-gateway/internal/commandline"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/tracing"
)

// startTracing gives the gateway a tracer, if the environment asks for tracing, and
// what sends its last spans.
func startTracing(typed *commandline.Line, cfg *gateway.Config) (stop func()) {
	tracer, stopTracing, err := tracing.Start(context.Background(), name, cfg.Version, cfg.Log)
	if err != nil {
		typed.Exit(commandline.Usage, err)
	}
	if tracer == nil {
		return func() {}
	}
	cfg.Tracer = tracer
	return func() { stopTracing(context.Background()) }
}
