// Command vllm-gateway relays requests to vLLM servers and measures them.
package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/commandline"
	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// commandLine is what may be typed.
type commandLine struct {
	flags
	Serve       struct{}    `cmd:"" default:"1" hidden:"" help:"Relay requests."`
	CheckConfig checkConfig `cmd:"" help:"say what is wrong with a configuration file"`
	HashKey     hashKey     `cmd:"" help:"make a new key and its hash, or hash the key on stdin"`
}

// flags are described in docs/configuration.md; here are the few words that fit a line.
type flags struct {
	Config   string            `group:"front" placeholder:"FILE" help:"YAML file with any of these, with keys and limits"`
	Listen   string            `group:"front" default:":9000" placeholder:"ADDR" help:"address for clients (${default})"`
	Backend  []string          `group:"front" default:"http://127.0.0.1:8000" placeholder:"URL" help:"a vLLM server, repeatable (${default})"`
	Weight   map[string]int    `group:"front" placeholder:"URL=N" help:"a backend's share, beside 1 of others; repeatable"`
	Alias    map[string]string `group:"front" placeholder:"NAME=MODEL" help:"a further name for a model, repeatable"`
	Fallback map[string]string `group:"front" placeholder:"MODEL=OTHER" help:"who answers while the model is down, repeatable"`

	Routing       string `group:"choice" default:"least-in-flight" enum:"${policies}" placeholder:"POLICY" help:"how a backend is chosen (${default})"`
	SessionHeader string `group:"choice" default:"X-Session-Id" placeholder:"NAME" help:"header that tells sessions apart (${default})"`
	PrefixBytes   int    `group:"choice" default:"1024" placeholder:"N" help:"how much of a prompt is its prefix (${default})"`

	MaxInFlight  int           `group:"room" default:"0" placeholder:"N" help:"requests at a time on one backend (0: no limit)"`
	MaxWaiting   int           `group:"room" default:"1000" placeholder:"N" help:"requests that may wait for that (${default})"`
	MaxWait      time.Duration `group:"room" default:"10m" placeholder:"TIME" help:"how long they may (${default})"`
	CommentEvery time.Duration `group:"room" default:"0s" placeholder:"TIME" help:"send SSE comments to streams that wait (0s: none)"`
	MaxBody      daemon.Bytes  `group:"room" default:"32MiB" placeholder:"SIZE" help:"largest request body (${default})"`
	BodyMemory   daemon.Bytes  `group:"room" default:"1GiB" placeholder:"SIZE" help:"memory for all bodies held (${default}; 0: no limit)"`

	FirstByteTimeout  time.Duration `group:"time" default:"10m" placeholder:"TIME" help:"504 if no answer has begun by then (${default})"`
	StreamIdleTimeout time.Duration `group:"time" default:"5m" placeholder:"TIME" help:"cut an answer that is silent for so long (${default})"`
	DrainDelay        time.Duration `group:"time" default:"0s" placeholder:"TIME" help:"on SIGTERM, go on for so long first (${default})"`
	DrainTimeout      time.Duration `group:"time" default:"30s" placeholder:"TIME" help:"then let streams end for so long (${default})"`

	APIKey         []apiKey `group:"keys" name:"api-key" placeholder:"KEY" help:"a key that may use it, or its hash; repeatable"`
	BackendKeyFile string   `group:"keys" placeholder:"FILE" help:"file with the key that the backends want"`
	TLSCert        string   `group:"keys" type:"existingfile" placeholder:"FILE" help:"serve TLS with this certificate (PEM)"`
	TLSKey         string   `group:"keys" type:"existingfile" placeholder:"FILE" help:"the certificate's key (PEM)"`

	MetricsListen   string `group:"watch" placeholder:"ADDR" help:"/metrics on this address, and only there"`
	Pprof           string `group:"watch" placeholder:"ADDR" help:"profiles on this loopback address (none)"`
	daemon.LogFlags `group:"watch"`
	Version         commandline.Version `group:"watch" env:"-" help:"print the version and exit"`
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

var program = commandline.Program{
	Name:    name,
	Version: daemon.FullVersion(),
	About: `vllm-gateway relays requests to vLLM servers and measures them: time to first
token, tokens per second, queue depth. Without a command it serves.`,
	Examples: []string{
		"vllm-gateway --backend http://gpu1:8000 --backend http://gpu2:8000",
		"vllm-gateway --backend dns+http://vllm:8000 --routing prefix  # all of a name",
		"vllm-gateway --config gateway.yaml                            # keys, limits",
	},
	Groups: []commandline.Group{
		{Key: "front", Title: "Clients and backends:"},
		{Key: "choice", Title: "Choosing by " + either(gateway.Policies()) + ":"},
		{Key: "room", Title: "Room and waiting:"},
		{Key: "time", Title: "Times:"},
		{Key: "keys", Title: "Keys and TLS:"},
		{Key: "watch", Title: "Watching it:"},
	},
	Variables: "VLLM_GATEWAY",
	Docs:      "docs/configuration.md",
	Words:     map[string]string{"policies": strings.Join(gateway.Policies(), ",")},
}

func either(words []string) string {
	end := len(words) - 1
	return strings.Join(words[:end], ", ") + " or " + words[end]
}

func main() {
	var l commandLine
	typed := program.Parse(&l)
	switch typed.Selected().Name {
	case "check-config":
		l.CheckConfig.run(typed, l.flags)
	case "hash-key":
		l.HashKey.run(typed)
	default:
		serve(typed, l.flags)
	}
}

// serve is what the program does where it is not told else.
func serve(typed *commandline.Line, f flags) {
	collectLess()
	log, err := f.Logger(os.Stderr)
	if err != nil {
		typed.Exit(commandline.Usage, err)
	}
	typed.Warn(log)
	ask := make(chan os.Signal, 1)
	signal.Notify(ask, syscall.SIGHUP) // before it takes long to read a large file
	files := &daemon.Files{}
	s, err := settle(f, typed.Given(), files)
	if err == nil {
		err = s.checkTLS(&daemon.Files{})
	}
	if err != nil {
		typed.Exit(commandline.Usage, err)
	}
	s.warn(log)
	cfg := s.config(log)
	defer startTracing(typed, &cfg)()
	server := daemon.Server{
		Name:         name,
		Listen:       s.Listen,
		ListenFlag:   s.where("Listen", "--listen"),
		TLSCert:      s.TLSCert,
		TLSKey:       s.TLSKey,
		PeerTimeout:  s.StreamIdleTimeout,
		DrainDelay:   s.DrainDelay,
		DrainTimeout: s.DrainTimeout,
		Log:          log,
		About:        []any{"backends", s.Backend},
	}
	// Before the gateway begins to look for its backends, and to log what it finds.
	l, err := server.Open(context.Background())
	if err != nil {
		typed.Exit(commandline.Failed, err)
	}
	g, err := gateway.New(cfg)
	if err != nil {
		typed.Exit(commandline.Usage, err)
	}
	server.Handler, server.Leave, server.Drain = g, g.Leave, g.Drain
	if err := run(server, l, s, g, files, ask, log); err != nil {
		typed.Exit(commandline.Failed, err)
	}
}

// run serves on all ports, and takes changes of the configuration, until the process
// is told to stop.
func run(server daemon.Server, l net.Listener, s *settings, g *gateway.Gateway, files *daemon.Files, ask <-chan os.Signal, log *slog.Logger) error {
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
	if s.Config != "" {
		// To read a file takes more memory than what is in it: 4 MB for a thousand keys,
		// which a gateway that has nothing to do would not give back for minutes.
		go debug.FreeOSMemory()
	}
	r := reloader{gateway: g, current: s, log: log}
	go files.Follow(stop, ask, r.load)
	return server.Serve(stop, l)
}
