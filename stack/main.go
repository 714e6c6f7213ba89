// Command vllm-stack runs the whole picture on one machine, in one process:
// gateway, Prometheus and dashboard, before vLLM servers or a simulated one.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/vllm-gateway/vllm-gateway/internal/commandline"
	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/gpu"
)

type flags struct {
	Backend     addresses `placeholder:"URL" help:"a vLLM server (none: one is simulated); repeatable"`
	Gateway     addresses `placeholder:"URL" help:"show this gateway, start none; repeatable"`
	GPUExporter addresses `name:"gpu-exporter" placeholder:"URL" help:"a GPU exporter (this machine's GPUs); repeatable"`
	Demo        *bool     `negatable:"" help:"load the simulated server gently (on)"`
	Data        string    `type:"path" placeholder:"FOLDER" help:"where Prometheus keeps its data (a cache folder)"`
	Retention   retention `default:"7d" placeholder:"TIME" help:"how long it keeps them (${default})"`

	ListenGateway    string `default:":9000" placeholder:"ADDR" help:"address of the gateway (${default})"`
	ListenPrometheus string `default:":9090" placeholder:"ADDR" help:"address of Prometheus (${default})"`
	ListenDashboard  string `default:":3000" placeholder:"ADDR" help:"address of the dashboard (${default})"`
	ListenSimulator  string `default:"127.0.0.1:8000" placeholder:"ADDR" help:"address of the simulator (${default})"`
	ListenGPU        string `name:"listen-gpu" default:"127.0.0.1:9835" placeholder:"ADDR" help:"address of the GPU readings (${default})"`

	DrainTimeout time.Duration `default:"30s" placeholder:"TIME" help:"on SIGTERM, let streams end for so long (${default})"`
	daemon.LogFlags
	Version commandline.Version `env:"-" help:"print the version and exit"`
}

// retention is a time as Prometheus writes it: with days, and what is longer.
type retention time.Duration

func (r *retention) UnmarshalText(text []byte) error {
	d, err := model.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q: write a time such as 12h, 7d or 1y", text)
	}
	*r = retention(d)
	return nil
}

func (r retention) String() string { return model.Duration(r).String() }

// addresses are a list of URLs, which may be repeated, or separated by commas.
// An empty one is a mistake, and most often that of a variable that is not set:
// to run a simulated server instead would be the worst way to find out.
type addresses []string

func (a *addresses) UnmarshalText(text []byte) error {
	for one := range strings.SplitSeq(string(text), ",") {
		if one = strings.TrimSpace(one); one == "" {
			return errors.New("it is empty; write http://host:port, or leave it out")
		}
		*a = append(*a, one)
	}
	return nil
}

func (f flags) simulated() bool { return len(f.Backend) == 0 && len(f.Gateway) == 0 }

// ownGPUs reports whether this machine's GPUs are to be read.
func (f flags) ownGPUs() bool { return !f.simulated() && len(f.GPUExporter) == 0 }

// demo reports whether the simulated server is to be loaded.
func (f flags) demo() bool { return f.simulated() && (f.Demo == nil || *f.Demo) }

func (f flags) Validate() error {
	for _, l := range []struct{ flag, addr string }{{"gateway", f.ListenGateway}, {"prometheus", f.ListenPrometheus}, {"dashboard", f.ListenDashboard}, {"simulator", f.ListenSimulator}, {"gpu", f.ListenGPU}} {
		if err := daemon.CheckListen(l.addr); err != nil {
			return fmt.Errorf("--listen-%s: %w", l.flag, err)
		}
	}
	if !f.simulated() && f.Demo != nil && *f.Demo {
		return errors.New("--demo loads a simulated server; it is not for real ones: leave it out, and use a load test (loadtests/README.md)")
	}
	if f.DrainTimeout < 0 {
		return errors.New("--drain-timeout must not be negative")
	}
	if time.Duration(f.Retention) < time.Hour {
		return fmt.Errorf("--retention %v is too short: write 1h or more", f.Retention)
	}
	if f.simulated() && len(f.GPUExporter) > 0 {
		return errors.New("--gpu-exporter is for real servers, and simulated GPUs are not shown beside real ones: name the servers with --backend, or the gateway with --gateway")
	}
	if _, err := urls("gpu-exporter", f.GPUExporter); err != nil {
		return err
	}
	if _, err := urls("gateway", f.Gateway); err != nil {
		return err
	}
	if f.simulated() {
		return nil
	}
	// Each server is scraped, too, so names that stand for several will not do.
	if _, err := urls("backend", f.Backend); err != nil {
		return err
	}
	if len(f.Gateway) > 0 {
		return nil
	}
	if err := f.config(f.Backend, nil).Validate(); err != nil {
		return fmt.Errorf("--backend: %w", err)
	}
	return nil
}

// config is the gateway's, with the defaults of vllm-gateway.
func (f flags) config(backends []string, log *slog.Logger) gateway.Config {
	return gateway.Config{
		Backends: backends, FirstByteTimeout: 10 * time.Minute, StreamIdleTimeout: 5 * time.Minute, MaxBody: 32 << 20,
		Version: daemon.Version(), Log: log, RequestLevel: slog.LevelDebug,
	}
}

// data is the folder of the database. What was simulated and what was real
// never share one: a dashboard could not tell them apart.
func (f flags) data() (string, error) {
	if f.Data != "" {
		return f.Data, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no folder for Prometheus's data: %w; name one with --data", err)
	}
	name := "prometheus"
	if f.simulated() {
		name = "prometheus-simulated"
	}
	return filepath.Join(cache, "vllm-gateway", name), nil
}

const name = "vllm-stack"

var program = commandline.Program{
	Name:    name,
	Version: daemon.FullVersion(),
	About: `vllm-stack is the whole picture on one machine: the gateway, Prometheus and a
dashboard on http://localhost:3000, before your vLLM servers or a simulated one.`,
	Examples: []string{
		"vllm-stack                                  # all of it simulated",
		"vllm-stack --backend http://localhost:8000  # before a vLLM that runs",
		"vllm-stack --gateway http://gw:9000 --backend http://gpu1:8000  # show others",
	},
	Variables: "VLLM_STACK",
	Docs:      "docs/stack.md",
}

func main() {
	gpu.Worker()
	var f flags
	typed := program.Parse(&f)
	log, err := f.Logger(os.Stderr)
	if err != nil {
		typed.Exit(commandline.Usage, err)
	}
	typed.Warn(log)
	ctx, forget := daemon.Signalled(context.Background())
	defer forget()
	if err := run(ctx, f, log, os.Stdout); err != nil {
		typed.Exit(commandline.Failed, err)
	}
}

// quiet passes on warnings only, of parts that talk much; everything, if the
// log is to have details.
func quiet(log *slog.Logger) *slog.Logger {
	if log.Enabled(context.Background(), slog.LevelDebug) {
		return log
	}
	return slog.New(warnings{log.Handler()})
}

type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}
func (w warnings) WithAttrs(a []slog.Attr) slog.Handler { return warnings{w.Handler.WithAttrs(a)} }
func (w warnings) WithGroup(g string) slog.Handler      { return warnings{w.Handler.WithGroup(g)} }
