// Command vllm-gateway relays requests to vLLM servers and measures them.
package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
)

type flags struct {
	Listen            string        `default:":9000" placeholder:"ADDR" help:"Address to listen on (${default})."`
	Backend           []string      `default:"http://127.0.0.1:8000" placeholder:"URL" help:"A vLLM server, as http://host:port; repeat for more (${default})."`
	StreamIdleTimeout time.Duration `default:"5m" placeholder:"TIME" help:"Cut an answer that has been silent for so long (${default})."`
	FirstByteTimeout  time.Duration `default:"10m" placeholder:"TIME" help:"Answer 504 if a backend has not begun to answer by then (${default})."`
	DrainDelay        time.Duration `default:"0s" placeholder:"TIME" help:"On SIGTERM, go on for so long, with /health at 503; the port stays open until the drain is over (${default}: it closes at once)."`
	DrainTimeout      time.Duration `default:"30s" placeholder:"TIME" help:"Then let running streams go on for so long (${default})."`
	MaxBody           daemon.Bytes  `default:"32MiB" placeholder:"SIZE" help:"Largest request body (${default})."`
	TLSCert           string        `type:"existingfile" placeholder:"FILE" help:"Serve TLS with this certificate (PEM)."`
	TLSKey            string        `type:"existingfile" placeholder:"FILE" help:"The certificate's key (PEM)."`
	Pprof             string        `placeholder:"ADDR" help:"Serve profiles of the process on this loopback address, such as 127.0.0.1:6060; off by default."`
	daemon.LogFlags
	Version kong.VersionFlag `env:"-" help:"Print the version and exit."`
}

func (f flags) Validate() error {
	if (f.TLSCert == "") != (f.TLSKey == "") {
		return errors.New("--tls-cert and --tls-key go together: give both or none")
	}
	if f.DrainDelay < 0 || f.DrainTimeout < 0 {
		return errors.New("--drain-delay and --drain-timeout must not be negative")
	}
	if f.Pprof != "" {
		return daemon.CheckPprof("--pprof", f.Pprof)
	}
	return nil
}

const name = "vllm-gateway"

func main() {
	var f flags
	kong.Parse(&f,
		kong.Name(name),
		kong.Description("Relays requests to vLLM servers and measures them: time to first token, tokens per second, queue depth. Each flag can also be set in the environment: --max-body as VLLM_GATEWAY_MAX_BODY."),
		kong.DefaultEnvars("VLLM_GATEWAY"),
		kong.Vars{"version": name + " " + daemon.Version()},
		kong.Exit(daemon.ParserExit),
	)
	log, err := f.Logger(os.Stderr)
	if err != nil {
		daemon.Exit(name, daemon.Usage, err)
	}
	g, err := gateway.New(f.config(log))
	if err != nil {
		daemon.Exit(name, daemon.Usage, err)
	}
	if f.Pprof != "" {
		if err := daemon.ServePprof(context.Background(), "--pprof", f.Pprof, log); err != nil {
			daemon.Exit(name, daemon.Failed, err)
		}
	}
	err = daemon.Server{
		Name:         name,
		Listen:       f.Listen,
		Handler:      g,
		TLSCert:      f.TLSCert,
		TLSKey:       f.TLSKey,
		PeerTimeout:  f.StreamIdleTimeout,
		Leave:        g.Leave,
		DrainDelay:   f.DrainDelay,
		DrainTimeout: f.DrainTimeout,
		Drain:        g.Drain,
		Log:          log,
		About:        []any{"backends", f.Backend},
	}.Run(context.Background())
	if err != nil {
		daemon.Exit(name, daemon.Failed, err)
	}
}

func (f flags) config(log *slog.Logger) gateway.Config {
	return gateway.Config{
		Backends:          f.Backend,
		FirstByteTimeout:  f.FirstByteTimeout,
		StreamIdleTimeout: f.StreamIdleTimeout,
		MaxBody:           int64(f.MaxBody),
		Version:           daemon.Version(),
		Log:               log,
	}
}
