//go:build tuning

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb"
)

// shelf is a Prometheus's store with its query engine.
type shelf struct {
	t         *testing.T
	db        *tsdb.DB
	engine    *promql.Engine
	dashboard dashboard
}

func newShelf(t *testing.T, scrapes []reading) *shelf {
	t.Helper()
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = 0 // a bubble's time is long ago
	opts.WALSegmentSize = -1   // in memory alone
	db, err := tsdb.Open(t.TempDir(), slog.New(slog.DiscardHandler), nil, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := &shelf{t: t, db: db, dashboard: readDashboard(t), engine: promql.NewEngine(promql.EngineOpts{
		MaxSamples: 10_000_000, Timeout: time.Minute, Parser: parser.NewParser(parser.Options{}),
	})}
	for _, c := range scrapes {
		s.put(c)
	}
	return s
}

func (s *shelf) put(c reading) {
	s.t.Helper()
	a := s.db.Appender(s.t.Context())
	p := textparse.NewPromParser(c.text, labels.NewSymbolTable(), false)
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.t.Fatal(err)
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var l labels.Labels
		p.Labels(&l)
		_, _, v := p.Series()
		b := labels.NewBuilder(l)
		b.Set("job", c.job)
		b.Set("instance", c.instance)
		if _, err := a.Append(0, b.Labels(), c.at.UnixMilli(), v); err != nil {
			s.t.Fatalf("%s: %v", l, err)
		}
	}
	if err := a.Commit(); err != nil {
		s.t.Fatal(err)
	}
}

// window is what of a run a panel shows.
type window struct {
	end   time.Time
	span  time.Duration
	model string // the dashboard's filter; "" is all
}

// The ways to one number from what a panel draws over a window.
const (
	asRate    = "%s"                         // its rates are taken over the whole window
	meanOf    = "avg_over_time((%s)[%s:5s])" // of a gauge's samples
	highestOf = "max_over_time((%s)[%s:5s])" // of them
)

// panel asks what the panel's nth query shows, in one number.
func (s *shelf) panel(w window, way, title string, nth int) float64 {
	s.t.Helper()
	var exprs []string
	for _, p := range s.dashboard.Panels {
		for _, p := range append(p.Panels, p) {
			if p.Title == title {
				for _, q := range p.Targets {
					exprs = append(exprs, q.Expr)
				}
			}
		}
	}
	if nth >= len(exprs) {
		s.t.Fatalf("the dashboard has no panel %q with %d queries", title, nth+1)
	}
	span, model := fmt.Sprintf("%ds", int(w.span.Seconds())), w.model
	if model == "" {
		model = ".*"
	}
	expr := strings.NewReplacer("$__rate_interval", span, "[5m]", "["+span+"]", `"$model"`, `"`+model+`"`, `"$backend"`, `".*"`).Replace(exprs[nth])
	if way != asRate {
		expr = fmt.Sprintf(way, expr, span)
	}
	q, err := s.engine.NewInstantQuery(s.t.Context(), s.db, nil, expr, w.end)
	if err != nil {
		s.t.Fatal(err)
	}
	defer q.Close()
	v, err := q.Exec(s.t.Context()).Vector()
	if err != nil {
		s.t.Fatalf("%s: %v", expr, err)
	}
	if len(v) == 0 {
		return math.NaN()
	}
	// Of two cards the first: the second is only shown.
	return slices.MaxFunc(v, func(a, b promql.Sample) int { return strings.Compare(b.Metric.Get("gpu"), a.Metric.Get("gpu")) }).F
}

// seen is what the panels show of a window. Times are in seconds.
type seen struct {
	rps                        float64
	ttft50, ttft95, ttft       float64 // ttft: the mean
	speed5, speed50, speed     float64 // tokens a second within a stream
	tokens                     float64 // a second, of all streams
	queue                      float64
	line, lineWait             float64 // in the gateway: requests, p95 of the time
	running, waiting           float64 // in the engine
	preempted                  float64 // a second
	cache                      float64 // share, the highest
	duty, memory               float64 // percent, bytes
	gap50, gap95, gap99        float64 // between tokens
	engineTTFT, engineQueueing float64 // means, as the engine tells them
}

func (s *shelf) show(w window) seen {
	s.t.Helper()
	ask := func(way, title string, nth int) float64 { s.t.Helper(); return s.panel(w, way, title, nth) }
	return seen{
		rps:    ask(asRate, "Requests per Second", 0),
		ttft50: ask(asRate, "Time to First Token (TTFT)", 0), ttft95: ask(asRate, "Time to First Token (TTFT)", 1), ttft: ask(asRate, "Average TTFT (5 min)", 0),
		speed5: ask(asRate, "Tokens per Second", 0), speed50: ask(asRate, "Tokens per Second", 1), speed: ask(asRate, "Average Throughput (5 min)", 0),
		tokens: ask(asRate, "Tokens In and Out", 1),
		queue:  ask(meanOf, "Queue Depth", 0),
		line:   ask(meanOf, "Waiting Line", 0), lineWait: ask(asRate, "Time in the Gateway", 1),
		running: ask(meanOf, "Engine: Running, Waiting, Preempted", 0), waiting: ask(meanOf, "Engine: Running, Waiting, Preempted", 1),
		preempted: ask(asRate, "Engine: Running, Waiting, Preempted", 2),
		cache:     ask(highestOf, "KV Cache and Prefix Hits", 0),
		duty:      ask(meanOf, "GPU Utilization", 0), memory: ask(highestOf, "GPU Memory Usage", 0),
		gap50: ask(asRate, "Inter-Token Latency", 0), gap95: ask(asRate, "Inter-Token Latency", 1), gap99: ask(asRate, "Inter-Token Latency", 2),
		engineTTFT: ask(asRate, "TTFT: Gateway beside Engine", 1), engineQueueing: ask(asRate, "TTFT: Gateway beside Engine", 2),
	}
}
