package monitor

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
)

// pages are for people who follow a guide to Prometheus: its own interface is
// not in its Go module. Targets, rules and one query are what such guides ask
// for; pictures are the dashboard's.
func (m *Monitor) pages(mux *http.ServeMux) {
	mux.Handle("GET /{$}", http.RedirectHandler("/targets", http.StatusFound))
	mux.HandleFunc("GET /graph", func(w http.ResponseWriter, r *http.Request) { // where links in alerts lead
		http.Redirect(w, r, "/query?"+r.URL.RawQuery, http.StatusFound)
	})
	mux.HandleFunc("GET /targets", m.targetsPage)
	mux.HandleFunc("GET /query", m.queryPage)
	mux.HandleFunc("GET /rules", m.rulesPage)
	mux.HandleFunc("GET /alerts", m.rulesPage)
}

//go:embed pages.html
var pagesHTML string

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"ago": ago,
	// alerts is what an alerting rule has found, and nil for others.
	"alerts": func(r rules.Rule) []*rules.Alert {
		if a, ok := r.(*rules.AlertingRule); ok {
			return a.ActiveAlerts()
		}
		return nil
	},
}).Parse(pagesHTML))

func ago(t time.Time) string {
	if t.IsZero() {
		return "not yet"
	}
	return time.Since(t).Round(100*time.Millisecond).String() + " ago"
}

// show writes a page whole or not at all.
func show(w http.ResponseWriter, page string, data any) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	if err := templates.ExecuteTemplate(w, page, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// target is a row of the targets' page.
type target struct {
	Job, URL, Health, Error string
	Last                    time.Time
	Took                    time.Duration
}

func (m *Monitor) targetsPage(w http.ResponseWriter, _ *http.Request) {
	var rows []target
	for job, active := range m.scraper.TargetsActive() {
		for _, t := range active {
			row := target{Job: job, URL: t.URL().String(), Health: string(t.Health()), Last: t.LastScrape(), Took: t.LastScrapeDuration()}
			if err := t.LastError(); err != nil {
				row.Error = err.Error()
			}
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b target) int { return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(a.URL, b.URL)) })
	show(w, "targets", rows)
}

func (m *Monitor) rulesPage(w http.ResponseWriter, _ *http.Request) {
	show(w, "rules", m.rules.RuleGroups())
}

// answer is what the query's page shows.
type answer struct {
	Expr, Error string
	Rows        []row
	More        int // rows that are not shown
	Took        time.Duration
}

// maxRows keeps the page such that a browser can show it.
const maxRows = 1000

type row struct{ Series, Value string }

func (m *Monitor) queryPage(w http.ResponseWriter, r *http.Request) {
	a := answer{Expr: r.FormValue("expr")}
	if a.Expr == "" {
		a.Expr = r.FormValue("g0.expr") // as in links to Prometheus's own page
	}
	if a.Expr != "" {
		began := time.Now()
		if err := m.ask(r, &a); err != nil {
			a.Error = err.Error()
		}
		a.More = max(0, len(a.Rows)-maxRows)
		a.Rows = a.Rows[:len(a.Rows)-a.More]
		a.Took = time.Since(began).Round(time.Microsecond)
	}
	show(w, "query", a)
}

func (m *Monitor) ask(r *http.Request, a *answer) error {
	q, err := m.engine.NewInstantQuery(r.Context(), m.db, nil, a.Expr, time.Now())
	if err != nil {
		return err
	}
	defer q.Close()
	result := q.Exec(r.Context())
	if result.Err != nil {
		return result.Err
	}
	switch v := result.Value.(type) {
	case promql.Vector:
		for _, s := range v {
			a.Rows = append(a.Rows, row{s.Metric.String(), number(s.F)})
		}
	case promql.Matrix:
		for _, s := range v {
			a.Rows = append(a.Rows, row{s.Metric.String(), fmt.Sprintf("%d samples", len(s.Floats)+len(s.Histograms))})
		}
	case promql.Scalar:
		a.Rows = []row{{"scalar", number(v.V)}}
	default:
		a.Rows = []row{{"", v.String()}}
	}
	return nil
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }
