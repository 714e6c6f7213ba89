package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllm-gateway/vllm-gateway/alerts"
	"github.com/vllm-gateway/vllm-gateway/dashboards"
	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/gpu"
	"github.com/vllm-gateway/vllm-gateway/internal/vllmsim"
	"github.com/vllm-gateway/vllm-gateway/stack/monitor"
	"github.com/vllm-gateway/vllm-gateway/stack/page"
)

// ports are the listeners of the parts; gateway is nil where others run already,
// simulator where nothing is simulated, gpu where the GPUs are others' to read.
type ports struct {
	gateway, prometheus, dashboard, simulator, gpu net.Listener
}

// run is the whole stack, from its ports to its end.
func run(ctx context.Context, f flags, log *slog.Logger, out io.Writer) error {
	p, err := f.open(ctx)
	if err != nil {
		return err
	}
	s, err := newStack(f, p, log)
	if err != nil {
		p.close()
		return err
	}
	return s.run(ctx, out)
}

// open takes all ports before anything begins, and names every one that cannot
// be had.
func (f flags) open(ctx context.Context) (ports, error) {
	var p ports
	var errs []error
	take := func(l *net.Listener, addr, flag string) error {
		var err error
		*l, err = daemon.Server{Listen: addr, ListenFlag: flag}.Open(ctx)
		errs = append(errs, err)
		return err
	}
	if len(f.Gateway) == 0 {
		take(&p.gateway, f.ListenGateway, "--listen-gateway")
	}
	take(&p.prometheus, f.ListenPrometheus, "--listen-prometheus")
	take(&p.dashboard, f.ListenDashboard, "--listen-dashboard")
	if f.simulated() {
		take(&p.simulator, f.ListenSimulator, "--listen-simulator")
	}
	if f.simulated() || f.ownGPUs() {
		if err := take(&p.gpu, f.ListenGPU, "--listen-gpu"); err != nil && f.ownGPUs() {
			errs = append(errs, fmt.Errorf("if a GPU exporter has that port, show its readings with --gpu-exporter http://%s", f.ListenGPU))
		}
	}
	if !slices.Contains(errs, nil) { // who else would have all of them
		errs = append(errs, errors.New("if another vllm-stack is running, look at that one, or end it with Ctrl-C in its terminal"))
	}
	if err := errors.Join(errs...); err != nil {
		p.close()
		return ports{}, err
	}
	return p, nil
}

func (p ports) close() {
	for _, l := range []net.Listener{p.gateway, p.prometheus, p.dashboard, p.simulator, p.gpu} {
		if l != nil {
			l.Close()
		}
	}
}

// stack is all parts, wired.
type stack struct {
	flags     flags
	ports     ports
	log       *slog.Logger
	data      string
	gateway   *gateway.Gateway // nil: others run already
	monitor   late             // Prometheus
	page      http.Handler
	backends  []string        // URLs
	simulator *vllmsim.Server // nil: nothing is simulated
	gpus      *gpu.Exporter   // nil: they are simulated, or others' to read
	demo      *demo           // nil: no load
}

func newStack(f flags, p ports, log *slog.Logger) (*stack, error) {
	s := &stack{flags: f, ports: p, log: log}
	s.backends = f.Backend
	if f.simulated() {
		s.backends = []string{local(p.simulator).String()}
	}
	var err error
	if s.data, err = f.data(); err != nil {
		return nil, err
	}
	if err := claim(s.data, f.simulated()); err != nil {
		return nil, s.dataError(err)
	}
	if p.gateway != nil {
		if s.gateway, err = gateway.New(f.config(s.backends, log)); err != nil {
			return nil, err
		}
	}
	if f.simulated() {
		if s.simulator, err = vllmsim.New(vllmsim.Config{}); err != nil {
			return nil, err
		}
	}
	if f.ownGPUs() {
		if s.gpus, err = gpu.New(gpu.Config{Interval: gpu.DefaultInterval, Version: daemon.Version(), Log: log}); err != nil {
			return nil, err
		}
	}
	if f.demo() {
		s.demo = newDemo(local(p.gateway).String(), log)
	}
	s.page = page.New(page.Config{Dashboard: dashboards.JSON, API: &s.monitor, About: s.about()})
	return s, nil
}

func (s *stack) dataError(err error) error {
	return fmt.Errorf("data folder %s: %w; move it away, or choose another with --data", s.data, err)
}

// openMonitor opens Prometheus on what it has stored, which takes seconds where
// much is to be read.
func (s *stack) openMonitor() (*monitor.Monitor, error) {
	jobs, err := s.jobs()
	if err != nil {
		return nil, err
	}
	m, err := monitor.Open(monitor.Config{
		Data: s.data, Retention: time.Duration(s.flags.Retention), Jobs: jobs,
		Rules: alerts.Files, URL: local(s.ports.prometheus), Log: quiet(s.log),
	})
	if err != nil {
		return nil, s.dataError(err)
	}
	return m, nil
}

// late is a handler that is not there yet.
type late struct {
	atomic.Pointer[monitor.Monitor]
}

func (l *late) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m := l.Load()
	if m == nil {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "Prometheus is still reading what it has stored", http.StatusServiceUnavailable)
		return
	}
	m.ServeHTTP(w, r)
}

// jobs is what Prometheus scrapes, by the names that dashboard and alerts use.
func (s *stack) jobs() ([]monitor.Job, error) {
	vllm, err := urls("backend", s.backends)
	if err != nil {
		return nil, err
	}
	gateways, err := urls("gateway", s.flags.Gateway)
	if err != nil {
		return nil, err
	}
	if s.ports.gateway != nil {
		gateways = append(gateways, local(s.ports.gateway))
	}
	gpus, err := urls("gpu-exporter", s.flags.GPUExporter)
	if err != nil {
		return nil, err
	}
	if s.ports.gpu != nil {
		gpus = append(gpus, local(s.ports.gpu))
	}
	return []monitor.Job{
		{Name: "vllm-gateway", Targets: gateways},
		{Name: "vllm", Targets: vllm},
		{Name: "gpu-exporter", Targets: gpus},
		{Name: "prometheus", Targets: []*url.URL{local(s.ports.prometheus)}},
	}, nil
}

// shown is a URL as it may be shown, without a user and a password.
func shown(url string) string {
	if at := strings.LastIndexByte(url, '@'); at >= 0 {
		return "…" + url[at:]
	}
	return url
}

func urls(flag string, texts []string) ([]*url.URL, error) {
	var all []*url.URL
	var errs []error
	for _, t := range texts {
		u, err := gateway.ParseBackend(t)
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s %q: %w", flag, shown(t), err))
			continue
		}
		if slices.ContainsFunc(all, func(other *url.URL) bool { return other.Host == u.Host }) {
			errs = append(errs, fmt.Errorf("--%s %q: named twice", flag, t))
		}
		all = append(all, u)
	}
	return all, errors.Join(errs...)
}

// local is how a listener is reached from this machine.
func local(l net.Listener) *url.URL {
	a := l.Addr().(*net.TCPAddr)
	host := a.IP.String()
	if a.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return &url.URL{Scheme: "http", Host: net.JoinHostPort(host, fmt.Sprint(a.Port))}
}

// run serves until ctx ends or a part fails. The gateway does not wait for
// Prometheus to have read its history. In the end the parts go in the order in
// which they lean on each other: the load, then the gateway once its streams have
// ended, then the rest.
func (s *stack) run(ctx context.Context, out io.Writer) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	rest, endRest := context.WithCancel(context.Background())
	defer endRest()

	var front, back sync.WaitGroup
	var failures failures
	part := func(in *sync.WaitGroup, until context.Context, l net.Listener, d daemon.Server) {
		in.Go(func() {
			if err := d.Serve(until, l); err != nil {
				failures.add(err)
				end()
			}
		})
	}
	if s.gateway != nil {
		var handler http.Handler = s.gateway
		if s.demo != nil {
			handler = s.demo.wrap(handler)
			front.Go(func() { s.demo.run(ctx) })
		}
		part(&front, ctx, s.ports.gateway, daemon.Server{
			Name: "vllm-gateway", Handler: handler, Log: s.log,
			Leave: s.gateway.Leave, DrainTimeout: s.flags.DrainTimeout, Drain: s.gateway.Drain, About: []any{"backends", s.backends},
		})
	}
	behind := func(name string, l net.Listener, h http.Handler) {
		part(&back, rest, l, daemon.Server{Name: name, Handler: h, ReadTimeout: time.Minute, Log: quiet(s.log)})
	}
	behind("prometheus", s.ports.prometheus, &s.monitor)
	behind("dashboard", s.ports.dashboard, s.page)
	if s.simulator != nil {
		behind("vllm-sim", s.ports.simulator, s.simulator)
		behind("simulated GPUs", s.ports.gpu, s.simulator.GPUs())
		defer s.simulator.Close()
	}
	if s.gpus != nil {
		behind("gpu-exporter", s.ports.gpu, s.gpus)
		back.Go(func() { s.gpus.Run(rest) })
	}

	if m, err := s.openMonitor(); err != nil {
		failures.add(err)
		end()
	} else {
		s.monitor.Store(m)
		defer s.closeMonitor(m)
		back.Go(func() {
			if err := m.Run(rest); err != nil {
				failures.add(fmt.Errorf("prometheus: %w", err))
				end()
			}
		})
		fmt.Fprint(out, s.hello())
	}

	<-ctx.Done()
	front.Wait()
	endRest()
	back.Wait()
	return errors.Join(failures.all...)
}

func (s *stack) closeMonitor(m *monitor.Monitor) {
	if err := m.Close(); err != nil {
		s.log.Warn("Prometheus's data may lack their last seconds", "error", err)
	}
}

// failures are of parts that stopped serving unasked.
type failures struct {
	mu  sync.Mutex
	all []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, err)
}
