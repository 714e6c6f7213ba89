// Command gpu-exporter reads GPUs and serves what it read to Prometheus.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/commandline"
	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/gpu"
)

type flags struct {
	Listen   string        `default:":9835" placeholder:"ADDR" help:"address for Prometheus (${default})"`
	Interval time.Duration `default:"2s" placeholder:"TIME" help:"how often to read the GPUs, whoever asks (${default})"`
	Source   string        `enum:"auto,nvml,nvidia-smi" default:"auto" placeholder:"SOURCE" help:"nvml, nvidia-smi, or whichever can be used (${default})"`
	daemon.LogFlags
	Version commandline.Version `env:"-" help:"print the version and exit"`

	Serve struct{} `cmd:"" default:"withargs" hidden:"" help:"Serve the readings until SIGTERM."`
	Check check    `cmd:"" help:"read the GPUs once and show them, or say why not"`
}

func (f flags) Validate() error {
	if err := daemon.CheckListen(f.Listen); err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	return nil
}

const (
	name = "gpu-exporter"
	// checkTimeout suffices for a driver that starts each GPU first.
	checkTimeout = 90 * time.Second
	// endTimeout is how long what waits for the driver may take to end.
	endTimeout = 5 * time.Second
)

var program = commandline.Program{
	Name:    name,
	Version: daemon.FullVersion(),
	About: `gpu-exporter reads NVIDIA GPUs in the background and serves what it read on
/metrics. Without a driver it stays up, and reads as soon as there is one.`,
	Examples: []string{
		"gpu-exporter                # then: curl localhost:9835/metrics",
		"gpu-exporter check          # does it find the GPUs?",
		"gpu-exporter --interval 1s --listen 127.0.0.1:9835",
	},
	Variables: "GPU_EXPORTER",
	Docs:      "docs/configuration.md, docs/metrics.md",
}

func main() {
	gpu.Worker()
	var f flags
	typed := program.Parse(&f)
	log, err := f.Logger(os.Stderr)
	if err != nil {
		typed.Exit(commandline.Usage, err)
	}
	if typed.Selected().Name == "check" {
		f.Check.run(f.Source)
		return
	}
	typed.Warn(log)
	e, err := gpu.New(gpu.Config{Source: f.Source, Interval: f.Interval, Version: daemon.Version(), Log: log})
	if err != nil {
		typed.Exit(commandline.Usage, fmt.Errorf("--interval: %w", err)) // the source is one of those
	}
	if err := serve(f, e, log); err != nil {
		typed.Exit(commandline.Failed, err)
	}
}

// serve has the port before anything is read, and ends what it runs before it
// returns.
func serve(f flags, e *gpu.Exporter, log *slog.Logger) error {
	ctx, forget := daemon.Signalled(context.Background())
	defer forget()
	server := daemon.Server{Name: name, Listen: f.Listen, Handler: e, ReadTimeout: time.Minute, Log: log, About: []any{"source", f.Source, "interval", f.Interval}}
	l, err := server.Open(ctx)
	if err != nil {
		return err
	}
	reading, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		e.Run(reading)
		close(ended)
	}()
	err = server.Serve(ctx, l)
	end()
	select {
	case <-ended:
	case <-time.After(endTimeout):
	}
	return err
}

type check struct{}

func (check) Help() string {
	return `Exit code 0: it shows the source, the driver and a table of the GPUs.
1: none can be read, and it says why and what to do.

Examples:
  gpu-exporter check
  gpu-exporter check --source nvidia-smi`
}

func (check) run(source string) {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	err := gpu.Check(ctx, source, os.Stdout)
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "%s: no GPU can be read: %v\n", name, err)
	if e := (*gpu.Error)(nil); errors.As(err, &e) && e.Cure != "" {
		fmt.Fprintf(os.Stderr, "What to do: %s.\n", e.Cure)
	}
	os.Exit(commandline.Failed)
}
