// Command vllm-gateway relays requests to vLLM servers and measures them.
package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// commandLine is what may be typed.
type commandLine struct {
	flags
	Serve       struct{}    `cmd:"" default:"1" hidden:"" help:"Relay requests."`
	CheckConfig checkConfig `cmd:"" help:"Say what is wrong with a configuration file; with these flags and this environment."`
	HashKey     hashKey     `cmd:"" help:"Make a new key and its hash; or the hash of a key on stdin."`
}

type flags struct {
	Config            string            `placeholder:"FILE" help:"Configuration file (YAML): all that flags can say, and keys and limits. Flags win over it."`
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
	APIKey            []apiKey          `name:"api-key" placeholder:"KEY" help:"A key that may use the gateway, or its hash; repeat for more. Without any, everybody may. Who lists processes sees it: better in the environment, or as a hash in the file."`
	BackendKeyFile    string            `placeholder:"FILE" help:"File with the key that the backends want (vllm serve --api-key); read again when it changes."`
	MetricsListen     string            `placeholder:"ADDR" help:"Serve /metrics on this address, and only there."`
	Pprof             string            `placeholder:"ADDR" help:"Serve profiles of the process on this loopback address, such as 127.0.0.1:6060; off by default."`
	daemon.LogFlags
	Version kong.VersionFlag `env:"-" help:"Print the version and exit."`
}

func (f flags) Validate() error {
	if f.Pprof != "" {
		return daemon.CheckPprof("--pprof", f.Pprof)
	}
	return nil
}

// apiKey is a key as it was typed. To read it never fails: the library would print
// what it could not read.
type apiKey struct{ secret.Text }

func (k *apiKey) UnmarshalText(text []byte) error {
	k.Text = secret.New(string(text))
	return nil
}

const name = "vllm-gateway"

func main() {
	var line commandLine
	typed := kong.Parse(&line, options()...)
	given := given(typed)
	switch typed.Command() {
	case "check-config <file>":
		line.CheckConfig.run(line.flags, given)
	case "hash-key", "hash-key <argument>":
		line.HashKey.run()
	default:
		serve(line.flags, given)
	}
}

func options() []kong.Option {
	return []kong.Option{
		kong.Name(name),
		kong.Description("Relays requests to vLLM servers and measures them: time to first token, tokens per second, queue depth. Without a command it serves. Each flag can also be set in the environment: --max-body as VLLM_GATEWAY_MAX_BODY."),
		kong.DefaultEnvars("VLLM_GATEWAY"),
		kong.Vars{"version": name + " " + daemon.Version(), "policies": strings.Join(gateway.Policies(), ",")},
		kong.Exit(daemon.ParserExit),
	}
}

// serve is what the program does where it is not told else.
func serve(f flags, given map[string]bool) {
	collectLess()
	log, err := f.Logger(os.Stderr)
	if err != nil {
		daemon.Exit(name, daemon.Usage, err)
	}
	ask := make(chan os.Signal, 1)
	signal.Notify(ask, syscall.SIGHUP) // before it takes long to read a large file
	files := &daemon.Files{}
	s, err := settle(f, given, files)
	if err == nil {
		err = s.checkTLS(&daemon.Files{})
	}
	if err != nil {
		daemon.Exit(name, daemon.Usage, err)
	}
	s.warn(log)
	cfg := s.config(log)
	defer startTracing(&cfg)()
	g, err := gateway.New(cfg)
	if err != nil {
		daemon.Exit(name, daemon.Usage, err)
	}
	server := daemon.Server{
		Name:         name,
		Listen:       s.Listen,
		ListenFlag:   s.where("Listen", "--listen"),
		Handler:      g,
		TLSCert:      s.TLSCert,
		TLSKey:       s.TLSKey,
		PeerTimeout:  s.StreamIdleTimeout,
		Leave:        g.Leave,
		DrainDelay:   s.DrainDelay,
		DrainTimeout: s.DrainTimeout,
		Drain:        g.Drain,
		Log:          log,
		About:        []any{"backends", s.Backend},
	}
	if err := run(server, s, g, files, ask, log); err != nil {
		daemon.Exit(name, daemon.Failed, err)
	}
}

// run serves on all ports, and takes changes of the configuration, until the process
// is told to stop.
func run(server daemon.Server, s *settings, g *gateway.Gateway, files *daemon.Files, ask <-chan os.Signal, log *slog.Logger) error {
	stop, forget := daemon.Signalled(context.Background())
	defer forget()
	// Profiles and metrics are served to the end of the drain.
	if s.Pprof != "" {
		if err := daemon.ServePprof(context.Background(), "--pprof", s.Pprof, log); err != nil {
			return err
		}
	}
	if s.MetricsListen != "" {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", g.Metrics())
		at, err := daemon.ServeBeside(context.Background(), s.where("MetricsListen", "--metrics-listen"), s.MetricsListen, mux, log)
		if err != nil {
			return err
		}
		log.Info("metrics are served", "address", "http://"+at.String()+"/metrics")
	}
	l, err := server.Open(stop)
	if err != nil {
		return err
	}
	if s.Config != "" {
		// To read a file takes more memory than what is in it: 4 MB for a thousand keys,
		// which a gateway that has nothing to do would not give back for minutes.
		go debug.FreeOSMemory()
	}
	r := reloader{gateway: g, current: s, log: log}
	go files.Follow(stop, ask, r.load)
	return server.Serve(stop, l)
}
