package gpu

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// Config of an Exporter.
type Config struct {
	// Source is auto, nvml or nvidia-smi; empty is auto: NVML, and nvidia-smi
	// where NVML cannot be used.
	Source string
	// Interval is from the beginning of a collection to that of the next, from
	// MinInterval to MaxInterval; DefaultInterval is a good one.
	Interval time.Duration
	// Version is shown in gpu_exporter_build_info.
	Version string
	Log     *slog.Logger
}

// DefaultInterval is shorter than what Prometheus takes between its scrapes, so
// that each of them finds something new.
const DefaultInterval = 2 * time.Second

const (
	// MinInterval and MaxInterval are the shortest and the longest Interval:
	// drivers refresh their readings some 10 times a second at most, and what is
	// three intervals old is still shown.
	MinInterval = 100 * time.Millisecond
	MaxInterval = 5 * time.Minute

	// keptIntervals is how old a collection may become.
	keptIntervals = 3
	// mostBackoff is by how much intervals grow while nothing can be read, and
	// longestPause to what.
	mostBackoff  = 8
	longestPause = 16 * time.Second
	// lookAround is how often it looks at itself and at the PCI bus.
	lookAround = 15 * time.Second
	// writeTimeout is how long an answer may take to be sent.
	writeTimeout = 30 * time.Second
)

// Exporter reads GPUs in the background, and serves what it read.
type Exporter struct {
	interval time.Duration
	source   Source
	kids     *children
	sysfs    string               // where the kernel's is mounted
	vendor   string               // begins the names of the metrics
	own      *prometheus.Registry // of this process
	mux      *http.ServeMux

	mu       sync.Mutex
	last     *snapshot           // of the last collection that succeeded; nil: none has
	process  []*dto.MetricFamily // of this process
	devices  int                 // on the PCI bus; -1: not known
	failures map[Reason]int
	dropped  map[Quantity]int
	xids     map[xid]*tally

	// Of the collecting goroutine alone.
	failing int // collections in a row
	journal journal
}

// snapshot is a collection that succeeded. It is not changed any more.
type snapshot struct {
	*Collection
	wall   time.Time                  // Began, by the wall clock alone
	series func() []*dto.MetricFamily // made when they are first asked for
}

type xid struct {
	uuid string
	code uint64
}

type tally struct {
	gpu   GPU // as it was last seen
	count int
	last  time.Time
}

// New makes an exporter, which serves at once and reads once it runs. An error
// is one of the Config.
func New(cfg Config) (*Exporter, error) {
	if cfg.Interval < MinInterval || cfg.Interval > MaxInterval {
		return nil, fmt.Errorf("interval %v: choose from %v to %v", cfg.Interval, MinInterval, MaxInterval)
	}
	kids := &children{}
	source, err := newSource(cfg.Source, kids)
	if err != nil {
		return nil, err
	}
	e := &Exporter{
		interval: cfg.Interval, source: source, kids: kids, sysfs: "/sys", vendor: "nvidia", devices: -1,
		failures: map[Reason]int{}, dropped: map[Quantity]int{}, xids: map[xid]*tally{}, journal: journal{log: cfg.Log},
	}
	for _, r := range reasons {
		e.failures[r] = 0 // so that the first one is seen as a step
	}
	e.dropped[throttled] = 0
	for q := range plausible {
		e.dropped[q] = 0
	}
	e.serve(cfg.Version)
	return e, nil
}

func newSource(name string, kids *children) (Source, error) {
	switch name {
	case "", "auto":
		return &auto{nvml: newNVML(kids), smi: newSMI(kids)}, nil
	case "nvml":
		return newNVML(kids), nil
	case "nvidia-smi":
		return newSMI(kids), nil
	}
	return nil, fmt.Errorf("source %q: use auto, nvml or nvidia-smi", name)
}

func (e *Exporter) serve(version string) {
	e.own = prometheus.NewRegistry()
	e.own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(version))
	e.mux = http.NewServeMux()
	// Readings of a box are some 50 kB, and are fetched from near by: to compress
	// them costs more than to send them.
	e.mux.Handle("GET /metrics", promhttp.HandlerFor(e, promhttp.HandlerOpts{DisableCompression: true}))
	e.mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"status":"ok"}`) // of the process: without a driver it serves as well
	})
	e.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintln(w, `<!doctype html><title>gpu-exporter</title><p>GPU readings: <a href="/metrics">/metrics</a>`)
	})
}

// ServeHTTP serves /metrics and /health.
func (e *Exporter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A client that does not read is not to hold a connection for ever. An error
	// is that of a writer without deadlines.
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	e.mux.ServeHTTP(w, r)
}

// Run collects until ctx ends, and leaves no child behind that can be ended.
func (e *Exporter) Run(ctx context.Context) {
	defer e.source.Close()
	e.look()
	var looking sync.WaitGroup
	looking.Go(func() { e.keepLooking(ctx) })
	defer looking.Wait()
	for ctx.Err() == nil {
		began := time.Now()
		c, err := e.source.Collect(ctx)
		if ctx.Err() != nil {
			return
		}
		e.take(c, err)
		next := time.NewTimer(time.Until(began.Add(e.pause())))
		select {
		case <-ctx.Done():
		case <-next.C:
		}
		next.Stop()
	}
}

// pause is the interval; after several failures it is longer, since to find out
// that there is nothing costs a process.
func (e *Exporter) pause() time.Duration {
	factor := min(1<<min(max(e.failing-1, 0), 10), mostBackoff)
	return min(e.interval*time.Duration(factor), max(e.interval, longestPause))
}

// take makes a collection what is served.
func (e *Exporter) take(c *Collection, err error) {
	if c == nil {
		c = &Collection{}
	}
	if err == nil {
		e.identify(c)
		e.weigh(c)
	}
	e.mu.Lock()
	if err != nil {
		e.failing++
		e.failures[explain(err).Reason]++
	} else {
		e.failing = 0
		e.last = &snapshot{c, c.Began.Round(0), sync.OnceValue(func() []*dto.MetricFamily { return c.series(e.vendor) })}
	}
	for _, f := range c.Faults {
		t := e.xids[xid{f.UUID, f.XID}]
		if t == nil {
			t = &tally{gpu: GPU{Index: -1, UUID: f.UUID}}
			e.xids[xid{f.UUID, f.XID}] = t
		}
		t.count++
		t.last = f.Time
	}
	for x, t := range e.xids {
		if g, ok := e.byUUID(x.uuid); ok {
			t.gpu = g
		}
	}
	devices := e.devices
	e.mu.Unlock()
	e.journal.tell(c, err, devices)
}

// identify gives every GPU labels that no other has: to one without a uuid, or
// with another's, its bus id.
func (e *Exporter) identify(c *Collection) {
	uuids, series := map[string]bool{}, map[string]bool{}
	kept := c.GPUs[:0]
	for _, g := range c.GPUs {
		if g.UUID == "" || uuids[g.UUID] {
			g.UUID = g.BusID
		}
		uuids[g.UUID] = true
		key := fmt.Sprint(g.Index, g.UUID, g.Name)
		if series[key] {
			e.journal.say(slog.LevelWarn, "two GPUs cannot be told apart; one is shown", key, "gpu", g.Index, "uuid", g.UUID)
			continue
		}
		series[key] = true
		kept = append(kept, g)
	}
	c.GPUs = kept
}

// weigh drops what cannot be, of all GPUs.
func (e *Exporter) weigh(c *Collection) {
	absurd := map[string]bool{}
	for i := range c.GPUs {
		g := &c.GPUs[i]
		for q, v := range g.weigh() {
			e.mu.Lock()
			e.dropped[q]++
			e.mu.Unlock()
			e.journal.absurdity(absurd, g, q, v)
		}
	}
	e.journal.absurd = absurd
}

// fresh is the last collection, unless it is too old: three intervals, or three
// times what reading it took, where that is longer. The wall clock counts too,
// since the other one stands still while a machine sleeps.
func (e *Exporter) fresh() *snapshot {
	s := e.last
	if s == nil {
		return nil
	}
	now := time.Now()
	age := max(now.Sub(s.Began), now.Sub(s.wall))
	if age > keptIntervals*max(e.interval, s.Took) {
		return nil
	}
	return s
}

func (e *Exporter) byUUID(uuid string) (GPU, bool) {
	if e.last == nil {
		return GPU{}, false
	}
	i := slices.IndexFunc(e.last.GPUs, func(g GPU) bool { return g.UUID == uuid })
	if i < 0 {
		return GPU{}, false
	}
	return e.last.GPUs[i], true
}

// keepLooking looks now and then, whether or not a source hangs.
func (e *Exporter) keepLooking(ctx context.Context) {
	t := time.NewTicker(lookAround)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			e.look()
		}
	}
}

// look reads what is not of GPUs: how this process does, and how many GPUs are on
// the PCI bus, so that there should be readings. Such files take longer to read
// than all else in a scrape, which is why it is not done there.
func (e *Exporter) look() {
	devices := pciGPUs(e.sysfs)
	process, _ := e.own.Gather() // what can be read is in it, whatever cannot
	e.mu.Lock()
	defer e.mu.Unlock()
	e.devices, e.process = devices, process
}

// pciGPUs counts NVIDIA's display controllers; -1 if the kernel does not tell.
func pciGPUs(sysfs string) int {
	vendors, _ := filepath.Glob(sysfs + "/bus/pci/devices/*/vendor")
	if len(vendors) == 0 {
		return -1
	}
	n := 0
	for _, path := range vendors {
		if vendor, _ := os.ReadFile(path); strings.TrimSpace(string(vendor)) != "0x10de" {
			continue
		}
		class, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "class"))
		if strings.HasPrefix(string(class), "0x03") {
			n++
		}
	}
	return n
}

func buildInfo(version string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gpu_exporter_build_info", Help: "Always 1; the labels tell which build runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}
