// Package monitor is Prometheus inside a process of ours: the real storage,
// scraper, rules, query engine and HTTP API of github.com/prometheus/prometheus,
// wired for a fixed set of targets. Whatever speaks to Prometheus (Grafana,
// promtool, k6's remote write) can speak to it.
//
//	m, err := monitor.Open(monitor.Config{Data: dir, …})
//	defer m.Close()
//	go http.Serve(listener, m)
//	m.Run(ctx)
package monitor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"
)

// Interval is how often targets are scraped, and rules evaluated that do not
// say otherwise.
const Interval = 5 * time.Second

const (
	lookback = 5 * time.Minute // as Prometheus's own
	// Queries share a process with the gateway. Prometheus's own limits (20 at a
	// time, 50 million samples each) let them take gigabytes.
	queryTimeout = 30 * time.Second
	querySamples = 10_000_000
	queries      = 8
	// maxSeries is how many series remote writes may bring the store to. Each is
	// about 1.5 kB of memory; a k6 run makes some 100.
	maxSeries = 200_000
	// stripes of the index in memory. Prometheus's default is for millions of
	// series and costs some 8 MB; here there are a few thousand.
	stripes = 1 << 9
)

// Config is all that a [Monitor] can be told.
type Config struct {
	// Data is the folder of the database. It is made if it is not there.
	Data string
	// Retention is how long samples are kept.
	Retention time.Duration
	// Jobs are what is scraped.
	Jobs []Job
	// Rules holds rule files, all *.yml at its top.
	Rules fs.FS
	// URL is where people reach the API; it is put into alerts.
	URL *url.URL
	Log *slog.Logger
	// Dial connects to targets; nil is TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Job is a group of targets with one meaning, as in Prometheus's configuration.
type Job struct {
	Name string
	// Targets are scheme://host:port; /metrics is scraped. The label instance
	// is host:port.
	Targets []*url.URL
}

// ErrInUse is returned by [Open] where another process has the data folder.
var ErrInUse = errors.New("another process uses it")

// Monitor is a running Prometheus. It is an http.Handler with Prometheus's API.
type Monitor struct {
	cfg      Config
	config   *config.Config
	registry *prometheus.Registry
	db       *tsdb.DB
	replay   *tsdb.DBStats
	parser   parser.Parser
	active   *promql.ActiveQueryTracker // bounds how many run at once
	engine   *promql.Engine
	scraper  *scrape.Manager
	rules    *rules.Manager
	handler  http.Handler
	started  time.Time
	close    func() error

	maxSeries uint64 // see the constant
}

// Open opens the database, and replays what a process that was killed had not
// put into blocks. Errors are those of the folder, of the jobs and of the rules.
func Open(cfg Config) (*Monitor, error) {
	m := &Monitor{
		cfg:      cfg,
		registry: prometheus.NewRegistry(),
		replay:   tsdb.NewDBStats(),
		parser:   parser.NewParser(parser.Options{}),
		started:  time.Now(),

		maxSeries: maxSeries,
	}
	var err error
	if m.config, err = configure(cfg.Jobs); err != nil {
		return nil, err
	}
	version.Version = Version() // of Prometheus's common code: prometheus_build_info, User-Agent
	m.registry.MustRegister(versioncollector.NewCollector("prometheus"), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := m.openStore(); err != nil {
		return nil, err
	}
	m.close = sync.OnceValue(func() error {
		if m.active != nil {
			m.active.Close()
		}
		return m.db.Close()
	})
	if err := m.openManagers(); err != nil {
		m.Close()
		return nil, err
	}
	m.handler = m.newHandler()
	return m, nil
}

func (m *Monitor) openStore() error {
	if err := os.MkdirAll(m.cfg.Data, 0o700); err != nil {
		return InWords(err)
	}
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = m.cfg.Retention.Milliseconds()
	// A block is dropped as a whole, so it spans a tenth of what is kept at most.
	opts.MaxBlockDuration = max(opts.MinBlockDuration, opts.RetentionDuration/10)
	opts.WALCompression = compression.Snappy
	opts.StripeSize = stripes
	db, err := tsdb.Open(m.cfg.Data, m.cfg.Log.With("part", "store"), m.registry, opts, m.replay)
	if err != nil {
		return InWords(err)
	}
	m.db = db
	return nil
}

// InWords says of an error about a data folder what people can do something
// about; others it leaves as they are.
func InWords(err error) error {
	switch {
	case errors.Is(err, syscall.EAGAIN): // the lock file's
		return ErrInUse
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return errors.New("not writable")
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return errors.New("not a folder")
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("no folder can be made there")
	case errors.Is(err, syscall.ENOSPC):
		return errors.New("the disk is full; free some space")
	}
	return err
}

func (m *Monitor) openManagers() (err error) {
	opts := &scrape.Options{DiscoveryReloadOnStartup: true}
	if m.cfg.Dial != nil {
		opts.HTTPClientOptions = []promconfig.HTTPClientOption{promconfig.WithDialContextFunc(m.cfg.Dial)}
	}
	m.scraper, err = scrape.NewManager(opts,
		m.cfg.Log.With("part", "scrape"), nil, nil, m.db, m.registry)
	if err != nil {
		return err
	}
	active, err := promql.NewActiveQueryTracker(m.cfg.Data, queries, m.cfg.Log.With("part", "query"))
	if err != nil {
		return InWords(err)
	}
	m.active = active
	m.engine = promql.NewEngine(promql.EngineOpts{
		ActiveQueryTracker:   active,
		Logger:               m.cfg.Log.With("part", "query"),
		Reg:                  m.registry,
		MaxSamples:           querySamples,
		Timeout:              queryTimeout,
		LookbackDelta:        lookback,
		EnableAtModifier:     true,
		EnableNegativeOffset: true,
		// The default of Prometheus: [5m:] steps at the evaluation interval.
		NoStepSubqueryIntervalFn: func(int64) int64 { return Interval.Milliseconds() },
		Parser:                   m.parser,
	})
	m.rules = rules.NewManager(&rules.ManagerOptions{
		NameValidationScheme: model.UTF8Validation,
		AppendableV2:         m.db,
		Queryable:            m.db,
		QueryFunc:            rules.EngineQueryFunc(m.engine, m.db),
		NotifyFunc:           func(context.Context, string, ...*rules.Alert) {}, // alerts are shown, not sent
		ExternalURL:          m.cfg.URL,
		Registerer:           m.registry,
		Logger:               m.cfg.Log.With("part", "rules"),
		// How an alert's `for` survives a restart; Prometheus's own defaults.
		OutageTolerance:        time.Hour,
		ForGracePeriod:         10 * time.Minute,
		ResendDelay:            time.Minute,
		MaxConcurrentEvals:     1,
		DefaultRuleQueryOffset: func() time.Duration { return 0 },
		GroupLoader:            loader{m.cfg.Rules, m.parser, m.cfg.Log},
		Parser:                 m.parser,
	})
	files, err := fs.Glob(m.cfg.Rules, "*.yml")
	if err != nil {
		return err
	}
	for _, file := range files { // Update would log what is wrong, and return only that something is
		if _, errs := (loader{m.cfg.Rules, m.parser, m.cfg.Log}).Load(file, false, model.UTF8Validation); len(errs) > 0 {
			return errs[0]
		}
	}
	if err := m.rules.Update(Interval, files, labels.EmptyLabels(), m.cfg.URL.String(), nil); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	return nil
}

// Run scrapes and evaluates until ctx ends. The error is that of a machine that
// does not know its name.
func (m *Monitor) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(m.rules.Run)
	defer m.rules.Stop()

	// It looks this machine up in the DNS, which may take its time.
	applied := make(chan error, 1)
	go func() { applied <- m.scraper.ApplyConfig(m.config) }()
	select {
	case err := <-applied:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return nil
	}
	targets := make(chan map[string][]*targetgroup.Group, 1)
	targets <- m.targets()
	running.Go(func() { m.scraper.Run(targets) })
	defer m.scraper.Stop()
	<-ctx.Done()
	return nil
}

// Close closes the database, once Run has returned.
func (m *Monitor) Close() error { return m.close() }

// ServeHTTP is Prometheus's API, and the few pages of [Monitor] for people.
func (m *Monitor) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.handler.ServeHTTP(w, r) }
