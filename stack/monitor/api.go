package monitor

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"runtime"
	"runtime/debug"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	api "github.com/prometheus/prometheus/web/api/v1"
)

// noOrigin lets no other site's pages read the API. Prometheus lets all; here a
// laptop is where it usually runs, and any page in its browser could.
var noOrigin = regexp.MustCompile(`^$`)

func (m *Monitor) newHandler() http.Handler {
	v1 := route.New()
	m.newAPI().Register(v1)

	mux := http.NewServeMux()
	mux.Handle("/api/v1/", sameOrigin(http.StripPrefix("/api/v1", v1)))
	mux.Handle("POST /api/v1/write", sameOrigin(m.bounded(http.StripPrefix("/api/v1", v1))))
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry}))
	ok := func(what string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("Prometheus Server is " + what + ".\n")) }
	}
	mux.HandleFunc("GET /-/healthy", ok("Healthy"))
	mux.HandleFunc("GET /-/ready", ok("Ready"))
	m.pages(mux)
	return mux
}

// sameOrigin refuses what the pages of other sites send, reads and writes alike:
// a page can send a remote write, and make this machine work for its queries,
// even if it does not get the answer. Browsers say where a request comes from;
// everything that is no browser says nothing.
func sameOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
		ok := from == "none" || from == "same-origin"
		if from == "" { // an old browser, or none
			ok = origin == "" || origin == "http://"+r.Host || origin == "https://"+r.Host
		}
		if !ok {
			http.Error(w, "requests of other sites' pages are refused", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bounded refuses remote writes while there are too many series.
func (m *Monitor) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := m.db.Head().NumSeries(); n > m.maxSeries {
			http.Error(w, fmt.Sprintf("there are %d series, and %d is the limit; write fewer, with fewer labels", n, m.maxSeries), http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// newAPI calls a constructor that takes fifty arguments by position, and takes
// others at every release. What each is, stands beside it.
func (m *Monitor) newAPI() *api.API {
	scrapes := func(context.Context) api.ScrapePoolsRetriever { return m.scraper }
	targets := func(context.Context) api.TargetRetriever { return m.scraper }
	receivers := func(context.Context) api.AlertmanagerRetriever { return nobody{} }
	rules := func(context.Context) api.RulesRetriever { return m.rules }
	ready := func(h http.HandlerFunc) http.HandlerFunc { return h }
	return api.NewAPI(
		m.engine, m.db, m.db, m.db, // queries, storage, remote write, exemplars
		scrapes, targets, receivers,
		func() config.Config { return *m.config },
		map[string]string{"storage.tsdb.path": m.cfg.Data, "storage.tsdb.retention.time": duration(m.cfg.Retention), "web.enable-remote-write-receiver": "true"}, // flags
		api.GlobalURLOptions{ListenAddress: m.cfg.URL.Host, Host: m.cfg.URL.Host, Scheme: m.cfg.URL.Scheme},
		ready,
		admin{m.db, m.replay}, m.cfg.Data,
		false,    // admin API
		false, 0, // search API
		m.cfg.Log.With("part", "api"),
		rules,
		5e7, 10, 1<<20, // remote read: samples, concurrency, bytes in a frame; Prometheus's defaults
		false, // agent
		noOrigin,
		m.runtimeInfo,
		&api.PrometheusVersion{Version: Version(), GoVersion: runtime.Version()},
		func() []notifications.Notification { return nil },
		func() (<-chan notifications.Notification, func(), bool) { return nil, nil, false },
		m.registry, m.registry,
		nil,                                                                             // statistics of queries: the default
		true, remote.MessageTypes{remote.WriteV1MessageType, remote.WriteV2MessageType}, // remote write
		false, false, false, // OTLP
		lookback,
		false, false, // type and unit labels, metadata in the WAL
		nil, // error codes: the defaults
		features.NewRegistry(),
		api.OpenAPIOptions{ExternalURL: m.cfg.URL.String(), Version: Version()},
		m.parser,
		false, queryTimeout, // query cost
	)
}

// Version is that of the Prometheus inside.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, dep := range info.Deps {
		if dep.Path == "github.com/prometheus/prometheus" {
			return release(dep.Version)
		}
	}
	return ""
}

// module is how Prometheus numbers its Go module: v0.316.0 is release 3.16.0.
var module = regexp.MustCompile(`^v0\.(\d+)(\d\d)\.(\d+)(.*)$`)

func release(version string) string {
	return module.ReplaceAllStringFunc(version, func(string) string {
		p := module.FindStringSubmatch(version)
		minor := p[2]
		if minor[0] == '0' {
			minor = minor[1:]
		}
		return p[1] + "." + minor + "." + p[3] + p[4]
	})
}

func (m *Monitor) runtimeInfo() (api.RuntimeInfo, error) {
	host, err := os.Hostname()
	if err != nil {
		return api.RuntimeInfo{}, err
	}
	return api.RuntimeInfo{
		StartTime: m.started, Hostname: host, ServerTime: time.Now(),
		ReloadConfigSuccess: true, LastConfigTime: m.started,
		GoroutineCount: runtime.NumGoroutine(), GOMAXPROCS: runtime.GOMAXPROCS(0), GOMEMLIMIT: debug.SetMemoryLimit(-1),
		StorageRetention: duration(m.cfg.Retention),
	}, nil
}

// admin gives the database the two methods that the API wants otherwise.
type admin struct {
	*tsdb.DB
	replay *tsdb.DBStats
}

func (a admin) Stats(label string, limit int) (*tsdb.Stats, error) {
	return a.Head().Stats(label, limit), nil
}
func (a admin) WALReplayStatus() (tsdb.WALReplayStatus, error) {
	return a.replay.Head.WALReplayStatus.GetWALReplayStatus(), nil
}
func (a admin) BlockMetas() ([]tsdb.BlockMeta, error) { return a.DB.BlockMetas(), nil }

// nobody is told of alerts.
type nobody struct{}

func (nobody) Alertmanagers() []*url.URL        { return nil }
func (nobody) DroppedAlertmanagers() []*url.URL { return nil }
