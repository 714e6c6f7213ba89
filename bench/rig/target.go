package rig

import (
	"bytes"
	"context"
	"crypto/tls"
	"embed"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
	"time"

	"github.com/vllm-gateway/vllm-gateway/bench/load"
	"github.com/vllm-gateway/vllm-gateway/bench/wire"
)

// target is something to measure.
type target struct {
	name string
	// config is the template of its configuration; "": it has none.
	config string
	// command gives what to run; nil: clients ask the backends themselves.
	command func(s site) []string
	// version gives what it says of itself.
	version func() string
	gateway bool
}

// site is what a target's configuration is filled with.
type site struct {
	Dir, Config    string
	Listen         string // host:port
	TLS            bool
	Cert, Key      string // PEM files
	Both           string // the two in one
	Backends       []string
	Keys           []key
	Files          int // that a process may have open
	Connections    int // of clients; each needs another one to a backend
	Profiled       bool
	Pprof          string // host:port for profiles, of a gateway that is to be profiled
	trusted        *tls.Config
	clientKey, log string
}

//go:embed nginx.conf haproxy.cfg gateway.yaml
var configs embed.FS

func find(name string) (string, error) {
	for _, at := range []string{name, "/usr/sbin/" + name} { // Debian's; not in everybody's PATH
		if path, err := exec.LookPath(at); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no %s on this machine: apt-get install %s, or leave it out with -targets", name, name)
}

// direct has no process: clients ask the backends.
func direct() target {
	return target{name: "direct"}
}

func nginx() (target, error) {
	path, err := find("nginx")
	return target{name: "nginx", config: "nginx.conf", version: says(path, "-v"), command: func(s site) []string {
		return []string{path, "-e", s.log, "-p", s.Dir, "-c", s.Config}
	}}, err
}

func haproxy() (target, error) {
	path, err := find("haproxy")
	return target{name: "haproxy", config: "haproxy.cfg", version: says(path, "-v"), command: func(s site) []string {
		return []string{path, "-db", "-f", s.Config}
	}}, err
}

func reverseProxy(path string) target {
	return target{name: "ReverseProxy", version: runtime.Version, command: func(s site) []string {
		args := []string{path, "-listen", s.Listen, "-backends", strings.Join(s.Backends, ",")}
		if s.TLS {
			args = append(args, "-cert", s.Cert, "-key", s.Key)
		}
		return args
	}}
}

func gateway(name, path string) target {
	return target{name: name, config: "gateway.yaml", gateway: true, version: says(path, "--version"), command: func(s site) []string {
		args := []string{path, "--config", s.Config}
		if s.Pprof != "" {
			args = append(args, "--pprof", s.Pprof)
		}
		return args
	}}
}

// running is a target that was started.
type running struct {
	*tree // nil: direct
	name  string
	site  site
	addrs []string
	// took is the time from its start to its first answer.
	took time.Duration
}

// start starts a target; await waits until it answers.
func (t target) start(s site) (*running, error) {
	if t.command == nil {
		return &running{name: t.name, site: s, addrs: s.Backends}, nil
	}
	dir, err := os.MkdirTemp(s.Dir, t.name+"-")
	if err != nil {
		return nil, err
	}
	os.Chmod(dir, 0o755) // nginx's workers are somebody else
	s.Dir, s.log = dir, filepath.Join(dir, "log")
	if s.Listen, err = freeAddr(); err != nil {
		return nil, err
	}
	if t.gateway && s.Profiled {
		if s.Pprof, err = freeAddr(); err != nil {
			return nil, err
		}
	}
	if t.config != "" {
		s.Config = filepath.Join(dir, t.config)
		text, err := t.configure(s)
		if err == nil {
			err = os.WriteFile(s.Config, text, 0o644)
		}
		if err != nil {
			return nil, err
		}
	}
	command := t.command(s)
	process, err := launch(s.log, command[0], command[1:]...)
	if err != nil {
		return nil, err
	}
	return &running{name: t.name, tree: process, site: s, addrs: []string{s.Listen}}, nil
}

// configure fills in the configuration.
func (t target) configure(s site) ([]byte, error) {
	var text bytes.Buffer
	err := template.Must(template.ParseFS(configs, t.config)).Execute(&text, s)
	return text.Bytes(), err
}

// awaitFor is how long a target may take to its first answer: a file of 100,000 keys
// takes seconds to read.
const awaitFor = 30 * time.Second

// await asks until there is an answer.
func (r *running) await() error {
	if r.tree == nil {
		return nil
	}
	deadline := r.born.Add(awaitFor)
	transport := &http.Transport{DisableCompression: true, TLSClientConfig: r.site.trusted, DialContext: r.connect}
	defer transport.CloseIdleConnections()
	scheme := "http"
	if r.site.TLS {
		scheme = "https"
	}
	for {
		err := ask(transport, scheme+"://"+r.site.Listen, r.site.clientKey)
		switch {
		case err == nil:
			r.took = time.Since(r.born)
			return nil
		case errors.Is(err, errWrong):
			return err
		}
		select {
		case <-r.ended:
			return fmt.Errorf("it ended before it answered: %v\n%s", r.err, r.lastWords())
		case <-time.After(tryEvery): // as of a gateway that knows of no backend yet
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no answer within %v: %w\n%s", awaitFor, err, r.lastWords())
		}
	}
}

// tryEvery is short beside any start, and long beside a try.
const tryEvery = 200 * time.Microsecond

// connect tries until it can. A try is much less work than a request, which would take
// from the target the CPU that it needs to start.
func (r *running) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	for {
		c, err := net.Dial(network, addr)
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-r.ended:
			return nil, err
		case <-time.After(tryEvery):
		}
	}
}

// errWrong is of an answer that no waiting mends.
var errWrong = errors.New("the first answer is wrong")

func ask(transport *http.Transport, url, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	a := wire.Ask{Model: wire.Model, Seed: rand.Uint64() >> 2}
	body := a.Append(nil, "Are you there?")
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+key)
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	want := wire.AppendJSON(nil, a, body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("status %s, %.300q", resp.Status, got)
	case !bytes.Equal(got, want):
		return fmt.Errorf("%w: %q; want %q", errWrong, got, want)
	}
	return nil
}

// lastWords are the end of what it has said.
func (r *running) lastWords() string {
	data, err := os.ReadFile(r.site.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-1000):])
}

// close ends it and takes away what it has left.
func (r *running) close() {
	if r.tree == nil {
		return
	}
	r.stop()
	os.RemoveAll(r.site.Dir)
}

// plan fills in what clients need to know.
func (r *running) plan(p load.Plan) load.Plan {
	p.Addrs = r.addrs
	for _, k := range r.site.Keys {
		p.Keys = append(p.Keys, k.Text)
	}
	if r.site.TLS {
		protocol := "http/1.1"
		if p.Shared > 0 {
			protocol = "h2"
		}
		p.TLS = load.ClientTLS(r.site.trusted, protocol)
	}
	return p
}

// freeAddr gives an address that nobody listens on, at a port from which no connection
// goes out.
func freeAddr() (string, error) {
	var err error
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(16000))
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.Join(errors.New("no port is free"), err)
}
