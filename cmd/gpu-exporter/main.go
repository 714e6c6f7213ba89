// Command gpu-exporter reads GPUs and serves what it read to Prometheus.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/gpu"
)

type flags struct {
	Listen   string        `default:":9835" placeholder:"ADDR" help:"Address to listen on (${default})."`
	Interval time.Duration `default:"2s" placeholder:"TIME" help:"Read the GPUs this often, whoever asks; what is three intervals old is no longer shown (${default})."`
	Source   string        `enum:"auto,nvml,nvidia-smi" default:"auto" placeholder:"SOURCE" help:"Read by nvml, by nvidia-smi, or auto: nvml, and nvidia-smi where that cannot be used (${default})."`
	daemon.LogFlags
	Version kong.VersionFlag `env:"-" help:"Print the version and exit."`

	Serve struct{} `cmd:"" default:"withargs" help:"Serve the readings until SIGTERM. This is what it does without a command."`
	Check struct{} `cmd:"" help:"Read the GPUs once and show them, or why they cannot be read and what to do."`
}

const (
	name = "gpu-exporter"
	// checkTimeout suffices for a driver that starts each GPU first.
	checkTimeout = 90 * time.Second
	// endTimeout is how long what waits for the driver may take to end.
	endTimeout = 5 * time.Second
)

func main() {
	gpu.Worker()
	var f flags
	command := kong.Parse(&f,
		kong.Name(name),
		kong.Description("Reads NVIDIA GPUs in the background and serves what it read on :9835/metrics. Without a driver it stays up, and reads as soon as there is one. Each flag can also be set in the environment: --interval as GPU_EXPORTER_INTERVAL."),
		kong.DefaultEnvars("GPU_EXPORTER"),
		kong.Vars{"version": name + " " + daemon.Version()},
		kong.Exit(daemon.ParserExit),
	)
	log, err := f.Logger(os.Stderr)
	if err != nil {
		daemon.Exit(name, daemon.Usage, err)
	}
	if command.Command() == "check" {
		check(f)
		return
	}
	e, err := gpu.New(gpu.Config{Source: f.Source, Interval: f.Interval, Version: daemon.Version(), Log: log})
	if err != nil {
		daemon.Exit(name, daemon.Usage, err)
	}
	if err := serve(f, e, log); err != nil {
		daemon.Exit(name, daemon.Failed, err)
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

func check(f flags) {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	err := gpu.Check(ctx, f.Source, os.Stdout)
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "%s: no GPU can be read: %v\n", name, err)
	if e := (*gpu.Error)(nil); errors.As(err, &e) && e.Cure != "" {
		fmt.Fprintf(os.Stderr, "What to do: %s.\n", e.Cure)
	}
	os.Exit(daemon.Failed)
}
