// Command vllm-gateway relays requests to vLLM servers and measures them.
package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
)

type flags struct {
	Listen            string            `default:":9000" placeholder:"ADDR" help:"Address to listen on (${default})."`
	Backend           []string          `default:"http://127.0.0.1:8000" placeholder:"URL" help:"A vLLM server, as http://host:port, or a name in DNS for several, as dns+http://name:port or srv+http://name; repeat for more (${default})."`
	Weight            map[string]int    `placeholder:"URL=N" help:"Share of requests for a --backend; the others have 1."`
	Alias             map[string]string `placeholder:"NAME=MODEL" help:"A further name for a model; repeat for more."`
	Fallback          map[string]string `placeholder:"MODEL=MODEL" help:"Another model that answers while no backend of the first is up."`
	Routing           string            `default:"least-in-flight" enum:"${policies}" placeholder:"POLICY" help:"How a backend is chosen: ${policies} (${default})."`
	SessionHeader     string            `default:"X-Session-Id" placeholder:"NAME" help:"Header that tells sessions apart, for --routing session and prefix (${default})."`
	PrefixBytes       int               `default:"1024" placeholder:"N" help:"How much of a prompt --routing prefix goes by (${default})."`
	MaxInFlight       int               `default:"0" placeholder:"N" help:"Requests at a time on one backend; more wait in the gateway (0: no limit, they wait in vLLM)."`
	MaxWaiting        int               `default:"1000" placeholder:"N" help:"Requests that may wait so; more are refused (${default})."`
	MaxWait           time.Duration     `default:"10m" placeholder:"TIME" help:"Longest wait; a request that would wait longer is refused (${default})."`
	CommentEvery      time.Duration     `default:"0s" placeholder:"TIME" help:"Send SSE comments to streams that wait for their first token; costs true statuses (0: none)."`
	StreamIdleTimeout time.Duration     `default:"5m" placeholder:"TIME" help:"Cut an answer that has been silent for so long (${default})."`
	FirstByteTimeout  time.Duration     `default:"10m" placeholder:"TIME" help:"Answer 504 if a backend has not begun to answer by then (${default})."`
	DrainDelay        time.Duration     `default:"0s" placeholder:"TIME" help:"On SIGTERM, go on for so long, with /health at 503; the port stays open until the drain is over (${default}: it closes at once)."`
	DrainTimeout      time.Duration     `default:"30s" placeholder:"TIME" help:"Then let running streams go on for so long (${default})."`
	MaxBody           daemon.Bytes      `default:"32MiB" placeholder:"SIZE" help:"Largest request body (${default})."`
	BodyMemory        daemon.Bytes      `default:"1GiB" placeholder:"SIZE" help:"Memory for all request bodies that are held (${default}; 0: no limit)."`
	TLSCert           string            `type:"existingfile" placeholder:"FILE" help:"Serve TLS with this certificate (PEM)."`
	TLSKey            string            `type:"existingfile" placeholder:"FILE" help:"The certificate's key (PEM)."`
	Pprof             string            `placeholder:"ADDR" help:"Serve profiles of the process on this loopback address, such as 127.0.0.1:6060; off by default."`
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
		kong.Vars{"version": name + " " + daemon.Version(), "policies": strings.Join(gateway.Policies(), ",")},
		kong.Exit(daemon.ParserExit),
	)
	log, err := f.Logger(os.Stderr)
	if err != nil {
		daemon.Exit(name, daemon.Usage, err)
	}
	cfg := f.config(log)
	defer startTracing(&cfg)()
	g, err := gateway.New(cfg)
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
		Weights:           f.Weight,
		Aliases:           f.Alias,
		Fallbacks:         f.Fallback,
		Routing:           f.Routing,
		SessionHeader:     f.SessionHeader,
		PrefixBytes:       f.PrefixBytes,
		MaxInFlight:       f.MaxInFlight,
		MaxWaiting:        f.MaxWaiting,
		MaxWait:           f.MaxWait,
		CommentEvery:      f.CommentEvery,
		BodyMemory:        int64(f.BodyMemory),
		FirstByteTimeout:  f.FirstByteTimeout,
		StreamIdleTimeout: f.StreamIdleTimeout,
		MaxBody:           int64(f.MaxBody),
		Version:           daemon.Version(),
		Log:               log,
	}
}
