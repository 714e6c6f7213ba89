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

	"github.com/alecthomas/kong"
	"github.com/prometheus/common/model"

	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/gpu"
)

type flags struct {
	Backend     addresses      `placeholder:"URL" help:"A vLLM server, as http://host:port; repeat for more. Without any, a simulated one is started."`
	Gateway     addresses      `placeholder:"URL" help:"A gateway that runs already, as http://host:port, to be shown in place of one of our own; repeat for more. With a configuration file and keys, say."`
	GPUExporter addresses      `name:"gpu-exporter" placeholder:"URL" help:"A GPU exporter, as http://host:9835; repeat for more. Without any, this machine's GPUs are read."`
	Demo        *bool          `negatable:"" help:"Load the simulated server gently, so that there is something to see (on, unless there is a --backend or --gateway)."`
	Data        string         `placeholder:"FOLDER" help:"Where Prometheus keeps its data (a folder of its own in your cache folder)."`
	Retention   model.Duration `default:"7d" placeholder:"TIME" help:"How long it keeps them (${default})."`

	ListenGateway    string `default:":9000" placeholder:"ADDR" help:"Address of the gateway (${default})."`
	ListenPrometheus string `default:":9090" placeholder:"ADDR" help:"Address of Prometheus (${default})."`
	ListenDashboard  string `default:":3000" placeholder:"ADDR" help:"Address of the dashboard (${default})."`
	ListenSimulator  string `default:"127.0.0.1:8000" placeholder:"ADDR" help:"Address of the simulated server (${default})."`
	ListenGPU        string `name:"listen-gpu" default:"127.0.0.1:9835" placeholder:"ADDR" help:"Address of the GPU readings, of this machine or simulated (${default})."`

	DrainTimeout time.Duration `default:"30s" placeholder:"TIME" help:"On SIGTERM, let running streams go on for so long (${default})."`
	daemon.LogFlags
	Version kong.VersionFlag `env:"-" help:"Print the version and exit."`
}

// addresses are a list of URLs, which may be repeated, or separated by commas.
// An empty one is a mistake, and most often that of a variable that is not set:
// to run a simulated server instead would be the worst way to find out.
type addresses []string

func (a *addresses) Decode(ctx *kong.DecodeContext) error {
	var text string
	if err := ctx.Scan.PopValueInto("URL", &text); err != nil {
		return err
	}
	for one := range strings.SplitSeq(text, ",") {
		if one = strings.TrimSpace(one); one == "" {
			return errors.New("is empty; write http://host:port, or leave it out")
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
	if !f.simulated() && f.Demo != nil && *f.Demo {
		return errors.New("--demo loads a simulated server; it is not for real ones: leave it out, and use a load test (docs: loadtests/README.md)")
	}
	if f.DrainTimeout < 0 {
		return errors.New("--drain-timeout must not be negative")
	}
	if time.Duration(f.Retention) < time.Hour {
		return fmt.Errorf("--retention %v is too short: use 1h or more", f.Retention)
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
	return f.config(f.Backend, nil).Validate()
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
		return filepath.Abs(kong.ExpandPath(f.Data))
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

func main() {
	gpu.Worker()
	var f flags
	kong.Parse(&f,
		kong.Name(name),
		kong.Description("The whole picture on one machine: the gateway, Prometheus and a dashboard, before your vLLM servers or a simulated one. Each flag can also be set in the environment: --data as VLLM_STACK_DATA."),
		kong.DefaultEnvars("VLLM_STACK"),
		kong.Vars{"version": name + " " + daemon.Version()},
		kong.Exit(daemon.ParserExit),
	)
	log, err := f.Logger(os.Stderr)
	if err != nil {
		daemon.Exit(name, daemon.Usage, err)
	}
	ctx, forget := daemon.Signalled(context.Background())
	defer forget()
	if err := run(ctx, f, log, os.Stdout); err != nil {
		daemon.Exit(name, daemon.Failed, err)
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
