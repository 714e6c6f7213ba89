package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/vllm-gateway/vllm-gateway/dashboards"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/vllmsim"
)

// dashboard is what this test reads of the dashboard. dashboards/check holds the
// rest of it to Grafana's types.
type dashboard struct {
	UID, Title, Refresh string
	SchemaVersion       int
	GraphTooltip        int
	ID                  any
	Time                struct{ From, To string }
	Inputs              []struct{ Name, Type, PluginID string } `json:"__inputs"`
	Requires            []struct{ Type, ID string }             `json:"__requires"`
	Templating          struct{ List []variable }
	Annotations         struct{ List []annotation }
	Panels              []panel
}

type variable struct {
	Name, Type, AllValue string
	Datasource           *dataSource
	Query                any
	Multi, IncludeAll    bool
}

type annotation struct {
	Name                             string
	BuiltIn                          int
	Datasource                       dataSource
	TitleFormat, TextFormat, TagKeys string
	Target                           struct{ Expr, RefID, Interval string }
}

type dataSource struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               *dataSource
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []panelQuery
	FieldConfig              struct {
		Defaults struct {
			Unit, NoValue string
			Min           *float64
			Max           *float64
			Thresholds    thresholds
			Color         struct{ Mode string }
			Custom        struct{ ThresholdsStyle struct{ Mode string } }
			Mappings      []struct {
				Options map[string]struct{ Text, Color string }
			}
		}
		Overrides []override
	}
	Panels []panel
}

type panelQuery struct {
	RefID, Expr, LegendFormat string
	Datasource                *dataSource
	Instant, Range            bool
}

type thresholds struct {
	Mode  string
	Steps []struct {
		Color string
		Value *float64
	}
}

type override struct {
	Matcher    struct{ ID, Options string }
	Properties []struct {
		ID    string
		Value json.RawMessage
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal(dashboards.JSON, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// theTen are the panels of the guide, as it titles them.
var theTen = []string{
	"Time to First Token (TTFT)", "Tokens per Second", "Requests per Second", "Queue Depth",
	"GPU Utilization", "GPU Memory Usage",
	"Total Requests", "Average TTFT (5 min)", "Average Throughput (5 min)", "Current Queue Depth",
}

const theSource = "${DS_PROMETHEUS}"

func TestDashboardIsAsTheGuideSays(t *testing.T) {
	d := readDashboard(t)
	if d.UID != "vllm-gateway" || d.Title != "vLLM Gateway" || d.SchemaVersion != 42 {
		t.Errorf("uid, title, schemaVersion are %q, %q, %d", d.UID, d.Title, d.SchemaVersion)
	}
	if d.ID != nil {
		t.Errorf("id is %v: Grafana would take the dashboard for one that it has", d.ID)
	}
	if d.Refresh != "5s" || d.Time.From != "now-15m" || d.Time.To != "now" || d.GraphTooltip != 1 {
		t.Errorf("refresh, time, graphTooltip are %q, %v, %d", d.Refresh, d.Time, d.GraphTooltip)
	}
	var titles []string
	for _, p := range d.Panels {
		titles = append(titles, p.Title)
	}
	if len(titles) < len(theTen) || !slices.Equal(titles[:len(theTen)], theTen) {
		t.Errorf("the first panels are %q\nwant %q", titles[:min(len(titles), len(theTen))], theTen)
	}
	// The ten are also first to the eye: rows come below them all.
	bottom := 0
	for _, p := range d.Panels[:len(theTen)] {
		bottom = max(bottom, p.GridPos.Y+p.GridPos.H)
	}
	for _, p := range d.Panels[len(theTen):] {
		if p.Type != "state-timeline" && p.GridPos.Y < bottom {
			t.Errorf("%q begins at %d, above the end of the guide's ten at %d", p.Title, p.GridPos.Y, bottom)
		}
	}
}

// Grafana asks for a data source at an import only if __inputs names one, and
// fills it in where the text has ${DS_PROMETHEUS}. A provisioned dashboard is
// never asked about; there a variable of the same name fills it in.
func TestDashboardIsImportedAndProvisioned(t *testing.T) {
	d := readDashboard(t)
	if len(d.Inputs) != 1 || d.Inputs[0].Name != "DS_PROMETHEUS" || d.Inputs[0].Type != "datasource" || d.Inputs[0].PluginID != "prometheus" {
		t.Errorf("__inputs are %v", d.Inputs)
	}
	names := map[string]variable{}
	for _, v := range d.Templating.List {
		names[v.Name] = v
	}
	if v := names["DS_PROMETHEUS"]; v.Type != "datasource" || v.Query != "prometheus" {
		t.Errorf("the variable DS_PROMETHEUS is %+v", v)
	}
	if len(d.Templating.List) == 0 || d.Templating.List[0].Name != "DS_PROMETHEUS" {
		t.Error("DS_PROMETHEUS is not the first variable, which the others wait for")
	}
	for _, name := range []string{"model", "backend"} {
		// A value for all, since the list of all has no empty name, and a series
		// whose label is empty would be left out.
		if v := names[name]; !v.Multi || !v.IncludeAll || v.AllValue != ".*" {
			t.Errorf("the variable %s is %+v", name, v)
		}
	}
	var needed []string
	for _, r := range d.Requires {
		needed = append(needed, r.Type+" "+r.ID)
	}
	for _, p := range d.Panels {
		if p.Type != "row" && !slices.Contains(needed, "panel "+p.Type) {
			t.Errorf("__requires does not name the panel %s", p.Type)
		}
	}
	right := dataSource{"prometheus", theSource}
	for _, v := range d.Templating.List {
		if v.Type == "query" && (v.Datasource == nil || *v.Datasource != right) {
			t.Errorf("variable %s: data source is %v", v.Name, v.Datasource)
		}
	}
	for _, a := range d.Annotations.List {
		if a.BuiltIn == 0 && a.Datasource != right {
			t.Errorf("annotation %s: data source is %v", a.Name, a.Datasource)
		}
	}
	for _, p := range d.Panels {
		if p.Type == "row" {
			continue
		}
		if p.Datasource == nil || *p.Datasource != right {
			t.Errorf("%q: data source is %v", p.Title, p.Datasource)
		}
		for _, q := range p.Targets {
			if q.Datasource == nil || *q.Datasource != right {
				t.Errorf("%q, %s: data source is %v", p.Title, q.RefID, q.Datasource)
			}
		}
	}
}

// units are those of Grafana that the dashboard may use; a misspelt one is
// printed behind the figure as if it were meant.
var units = []string{"s", "percent", "percentunit", "bytes", "reqps", "short", "none", "watt", "celsius", "joule", "suffix: tokens/s"}

func TestDashboardPanels(t *testing.T) {
	d := readDashboard(t)
	const columns = 24
	taken := map[[2]int]string{}
	ids := map[int]string{}
	titles := map[string]bool{}
	for _, p := range d.Panels {
		if titles[p.Title] {
			t.Errorf("two panels are titled %q", p.Title)
		}
		titles[p.Title] = true
	}
	for _, p := range d.Panels {
		if first, ok := ids[p.ID]; ok || p.ID == 0 {
			t.Errorf("%q has the id %d, as has %q", p.Title, p.ID, first)
		}
		ids[p.ID] = p.Title
		g := p.GridPos
		if g.X < 0 || g.Y < 0 || g.W < 1 || g.H < 1 || g.X+g.W > columns {
			t.Errorf("%q is at %+v, not within %d columns", p.Title, g, columns)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("%q lies on %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			if len(p.Panels) > 0 {
				t.Errorf("row %q holds panels of its own, which no check here looks at", p.Title)
			}
			continue
		}
		f := p.FieldConfig
		if !slices.Contains(units, f.Defaults.Unit) {
			t.Errorf("%q has the unit %q", p.Title, f.Defaults.Unit)
		}
		if f.Defaults.Min == nil || *f.Defaults.Min != 0 {
			t.Errorf("%q does not begin at 0", p.Title)
		}
		if f.Defaults.NoValue == "" {
			t.Errorf("%q has no text for when there is nothing to show", p.Title)
		}
		hasHelp(t, p, titles)
		hasTargets(t, p)
		steps := f.Defaults.Thresholds.Steps
		if len(steps) == 0 || steps[0].Value != nil {
			t.Errorf("%q: the first threshold has no value, or is missing: it is the colour of all that is below the others", p.Title)
		}
	}
}

var panelReference = regexp.MustCompile(`[^*]\*([A-Z][^*]+|k6[^*]+)\*[^*]`)

// hasHelp holds that a description says what the panel means, and points only at
// panels that exist.
func hasHelp(t *testing.T, p panel, titles map[string]bool) {
	t.Helper()
	if !strings.HasPrefix(p.Description, "**What it means:** ") {
		t.Errorf("%q: its description does not begin with what it means", p.Title)
	}
	for _, m := range panelReference.FindAllStringSubmatch(p.Description+" ", -1) {
		if !titles[m[1]] {
			t.Errorf("%q: its description points at %q, which is no panel", p.Title, m[1])
		}
	}
}

func hasTargets(t *testing.T, p panel) {
	t.Helper()
	if len(p.Targets) == 0 {
		t.Errorf("%q asks for nothing", p.Title)
	}
	refs := map[string]bool{}
	for _, q := range p.Targets {
		if q.RefID == "" || refs[q.RefID] {
			t.Errorf("%q has the refId %q twice, or empty", p.Title, q.RefID)
		}
		refs[q.RefID] = true
		if q.LegendFormat == "" || q.LegendFormat == "__auto" {
			t.Errorf("%q, %s: no name for the legend", p.Title, q.RefID)
		}
		if q.Instant == q.Range {
			t.Errorf("%q, %s: both or neither of instant and range", p.Title, q.RefID)
		}
		// A stat takes the last value of a range, however old: when the gateway
		// is gone it would show the last that was. An instant query does not. Nor
		// do bars, and it keeps the order that it was asked for.
		if want := p.Type == "stat" || p.Type == "bargauge"; q.Instant != want {
			t.Errorf("%q, %s: instant is %v", p.Title, q.RefID, q.Instant)
		}
	}
}

// The guide's good and acceptable values, and the gates of its load test.
func TestDashboardThresholds(t *testing.T) {
	d := readDashboard(t)
	for _, c := range []struct {
		panel, series string // of no series: of the panel
		want          string
	}{
		{"Time to First Token (TTFT)", "p50", "green yellow:0.3 red:0.5"},
		{"Time to First Token (TTFT)", "p95", "green yellow:1 red:2"},
		{"Time to First Token (TTFT)", "p99", "green yellow:2 red:3"},
		{"Tokens per Second", "", "red yellow:30 green:50"},
		{"GPU Utilization", "", "green red:90"},
		{"Average TTFT (5 min)", "", "green yellow:0.3 red:0.5"},
		{"Average Throughput (5 min)", "", "red yellow:30 green:50"},
		{"Current Queue Depth", "", "green yellow:20 red:50"},
		{"Request Duration", "p95", "green red:5"},
		{"Request Duration", "p99", "green red:10"},
		{"Error Ratio", "", "green red:0.05"},
		{"GPU Temperature", "", "green red:83"}, // as the alert GPUHot has it
		{"k6: TTFT p95", "", "green yellow:1 red:2"},
		{"k6: Tokens per Second", "", "red yellow:30 green:50"},
		{"k6: Failed Requests", "", "green red:0.05"},
	} {
		p := panelOf(t, d, c.panel)
		got := p.FieldConfig.Defaults.Thresholds
		if c.series != "" {
			got = thresholds{}
			for _, o := range p.FieldConfig.Overrides {
				for _, property := range o.Properties {
					if o.Matcher.Options == c.series && property.ID == "thresholds" {
						if err := json.Unmarshal(property.Value, &got); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
		if got.Mode != "absolute" || got.String() != c.want {
			t.Errorf("%q %s: thresholds are %s %s, want %s", c.panel, c.series, got.Mode, got, c.want)
		}
	}
	// They are seen: as the colour of the lines, of the figure, or as a line.
	for _, title := range []string{"Time to First Token (TTFT)", "Tokens per Second", "Average TTFT (5 min)", "Average Throughput (5 min)", "Current Queue Depth"} {
		if mode := panelOf(t, d, title).FieldConfig.Defaults.Color.Mode; mode != "thresholds" {
			t.Errorf("%q is coloured by %q", title, mode)
		}
	}
	if p := panelOf(t, d, "GPU Utilization").FieldConfig.Defaults; p.Custom.ThresholdsStyle.Mode != "line" || p.Max == nil || *p.Max != 100 {
		t.Error("GPU Utilization: no line at 90 % of 100 %")
	}
}

func (th thresholds) String() string {
	var words []string
	for _, s := range th.Steps {
		word := s.Color
		if s.Value != nil {
			word += fmt.Sprintf(":%v", *s.Value)
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func panelOf(t *testing.T, d dashboard, title string) panel {
	t.Helper()
	for _, p := range d.Panels {
		if p.Title == title {
			return p
		}
	}
	t.Fatalf("no panel is titled %q", title)
	return panel{}
}

// A lock file that names a registry's host sends everyone else to that host.
func TestDashboardCheckNamesNoHost(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "dashboards", "check", "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("://")) {
		t.Error("dashboards/check/package-lock.json contains URLs; npm writes none while .npmrc says omit-lockfile-registry-resolved=true")
	}
}

// The states are those that the rules record, in their order.
func TestDashboardStates(t *testing.T) {
	want := []string{"idle", "insufficient load", "healthy", "approaching saturation", "overloaded"}
	p := panelOf(t, readDashboard(t), "State")
	if len(p.FieldConfig.Defaults.Mappings) != 1 {
		t.Fatalf("%d mappings, want 1", len(p.FieldConfig.Defaults.Mappings))
	}
	mapped := p.FieldConfig.Defaults.Mappings[0].Options
	for i, text := range want {
		if got := mapped[fmt.Sprint(i)]; got.Text != text || got.Color == "" {
			t.Errorf("%d is %+v, want %q", i, got, text)
		}
		if !strings.Contains(p.Description, "*"+text+"*") {
			t.Errorf("the description does not say what %q means", text)
		}
	}
	if len(mapped) != len(want) {
		t.Errorf("%d states are mapped, want %d", len(mapped), len(want))
	}
}

// Each expression is one that Prometheus parses, of series that somebody emits,
// with labels that these series have.
func TestDashboardQueries(t *testing.T) {
	d := readDashboard(t)
	known := emittedSeries(t)
	used := map[string]bool{}
	resolve := func(where, expr string) []string {
		t.Helper()
		filled := fill(expr)
		if strings.Contains(filled, "$") {
			t.Errorf("%s: a variable that nothing fills in: %s", where, filled)
			return nil
		}
		parsed, err := parser.NewParser(parser.Options{}).ParseExpr(filled)
		if err != nil {
			t.Errorf("%s: %v", where, err)
			return nil
		}
		c := checker{known: known, used: used, fail: func(format string, args ...any) {
			t.Helper()
			t.Errorf("%s: %s\n%s", where, fmt.Sprintf(format, args...), expr)
		}}
		return c.labels(parsed)
	}
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		query, _ := v.Query.(map[string]any)
		m := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`).FindStringSubmatch(fmt.Sprint(query["query"]))
		if m == nil {
			t.Errorf("variable %s: its query is %v", v.Name, v.Query)
			continue
		}
		if got := resolve("variable "+v.Name, m[1]); !slices.Contains(got, m[2]) {
			t.Errorf("variable %s: %s has no label %s", v.Name, m[1], m[2])
		}
	}
	for _, a := range d.Annotations.List {
		if a.BuiltIn != 0 {
			continue
		}
		where := "annotation " + a.Name
		if a.Target.RefID != "Anno" || a.Target.Interval != "5s" {
			t.Errorf("%s: its target is %+v", where, a.Target)
		}
		has := resolve(where, a.Target.Expr)
		hasLabels(t, where, has, a.TitleFormat+a.TextFormat+"{{"+a.TagKeys+"}}")
	}
	for _, p := range d.Panels {
		var legends []string
		for _, q := range p.Targets {
			where := fmt.Sprintf("%q, %s", p.Title, q.RefID)
			has := resolve(where, q.Expr)
			hasLabels(t, where, has, q.LegendFormat)
			if len(has) > 0 && !strings.Contains(q.LegendFormat, "{{") {
				t.Errorf("%s: its series differ by %q, and all are called %q", where, has, q.LegendFormat)
			}
			legends = append(legends, q.LegendFormat)
		}
		for _, o := range p.FieldConfig.Overrides {
			if !applies(o, legends) {
				t.Errorf("%q: the override of %q applies to none of %q", p.Title, o.Matcher.Options, legends)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		// A metric of the contract that nothing shows has been forgotten.
		if slices.Contains(contract, name) && !used[name] {
			t.Errorf("%s is shown nowhere", name)
		}
	}
}

// What a client got wrong, left or asked beyond its limits is neither success nor
// failure; of the failures none is left out.
func TestDashboardErrorRatio(t *testing.T) {
	for _, q := range panelOf(t, readDashboard(t), "Error Ratio").Targets {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(fill(q.Expr))
		if err != nil {
			t.Fatal(err)
		}
		for i, selectors := range parser.ExtractSelectors(expr) {
			var counted []string
			for _, outcome := range outcomes {
				if !slices.ContainsFunc(selectors, func(m *labels.Matcher) bool { return m.Name == "outcome" && !m.Matches(outcome) }) {
					counted = append(counted, outcome)
				}
			}
			want := []string{"backend_error", "timeout", "refused", "unavailable", "internal"}
			if i == 1 { // what they are a share of
				want = append([]string{"ok"}, want...)
			}
			if !slices.Equal(counted, want) {
				t.Errorf("%s: of the outcomes %q are counted, want %q", q.RefID, counted, want)
			}
		}
	}
}

// contract are the guide's metrics, as series.
var contract = []string{
	"gateway_time_to_first_token_seconds_bucket", "gateway_tokens_per_second_bucket", "gateway_requests_total", "gateway_rps", "gateway_queue_depth",
	"nvidia_gpu_duty_cycle", "nvidia_gpu_memory_used_bytes", "nvidia_gpu_memory_total_bytes", "nvidia_gpu_temperature", "nvidia_gpu_power_usage_milliwatts",
}

// fill puts in what Grafana would, with "all" chosen.
func fill(expr string) string {
	return strings.NewReplacer(
		"$__rate_interval", "20s", "$__interval", "5s", "$__range", "15m",
		`"$model"`, `".*"`, `"$backend"`, `".*"`,
	).Replace(expr)
}

var inBraces = regexp.MustCompile(`\{\{\s*(.*?)\s*\}\}`)

func hasLabels(t *testing.T, where string, has []string, format string) {
	t.Helper()
	for _, m := range inBraces.FindAllStringSubmatch(format, -1) {
		if !slices.Contains(has, m[1]) {
			t.Errorf("%s: {{%s}}, but its series have the labels %q", where, m[1], has)
		}
	}
}

// applies tells whether an override is of any series, by their names before
// labels are put in.
func applies(o override, legends []string) bool {
	switch o.Matcher.ID {
	case "byName":
		return slices.Contains(legends, o.Matcher.Options)
	case "byRegexp":
		re, err := regexp.Compile(strings.TrimSuffix(strings.TrimPrefix(o.Matcher.Options, "/"), "/"))
		if err != nil {
			return false
		}
		for _, l := range legends {
			for _, outcome := range append(outcomes, "") {
				if re.MatchString(strings.NewReplacer("{{status}}", "2xx", "{{outcome}}", outcome).Replace(l)) {
					return true
				}
			}
		}
	}
	return false
}

// outcomes of docs/metrics.md.
var outcomes = []string{"ok", "client_error", "cancelled", "backend_error", "timeout", "refused", "limited", "unavailable", "internal"}

// checker goes through an expression and tells the labels of its series.
type checker struct {
	known map[string][]labels.Labels
	used  map[string]bool
	fail  func(format string, args ...any)
}

func (c checker) labels(node parser.Node) []string {
	switch n := node.(type) {
	case *parser.VectorSelector:
		return c.selector(n)
	case *parser.MatrixSelector:
		return c.labels(n.VectorSelector)
	case *parser.SubqueryExpr:
		return c.labels(n.Expr)
	case *parser.ParenExpr:
		return c.labels(n.Expr)
	case *parser.UnaryExpr:
		return c.labels(n.Expr)
	case *parser.AggregateExpr:
		return c.aggregate(n)
	case *parser.BinaryExpr:
		return c.binary(n)
	case *parser.Call:
		return c.call(n)
	case *parser.NumberLiteral, *parser.StringLiteral:
		return nil
	}
	c.fail("%T: not known to this test", node)
	return nil
}

func (c checker) selector(n *parser.VectorSelector) []string {
	series, ok := c.known[n.Name]
	if !ok {
		c.fail("nobody emits %q", n.Name)
		return nil
	}
	c.used[n.Name] = true
	has := map[string][]string{}
	for _, s := range series {
		s.Range(func(l labels.Label) {
			if l.Name != model.MetricNameLabel {
				has[l.Name] = append(has[l.Name], l.Value)
			}
		})
	}
	for _, m := range n.LabelMatchers {
		if m.Name == model.MetricNameLabel {
			continue
		}
		values, ok := has[m.Name]
		if !ok {
			c.fail("%s has no label %s", n.Name, m.Name)
			continue
		}
		if m.Value == ".*" {
			continue
		}
		for value := range strings.SplitSeq(m.Value, "|") {
			if !slices.Contains(values, value) && !(m.Name == "outcome" && slices.Contains(outcomes, value)) {
				c.fail("%s has no %s=%q", n.Name, m.Name, value)
			}
		}
	}
	return slices.Sorted(maps.Keys(has))
}

func (c checker) aggregate(n *parser.AggregateExpr) []string {
	inner := c.labels(n.Expr)
	for _, l := range n.Grouping {
		if !slices.Contains(inner, l) {
			c.fail("%v by or without %s, but the series have %q", n.Op, l, inner)
		}
	}
	if n.Op == parser.TOPK { // some of the series, as they are
		return inner
	}
	if n.Without {
		return labelsWithout(inner, n.Grouping)
	}
	return slices.Sorted(slices.Values(n.Grouping))
}

func (c checker) binary(n *parser.BinaryExpr) []string {
	left, right := c.labels(n.LHS), c.labels(n.RHS)
	m := n.VectorMatching
	switch {
	case n.LHS.Type() == parser.ValueTypeScalar:
		return right
	case m == nil || n.RHS.Type() == parser.ValueTypeScalar:
		return left
	case n.Op == parser.LOR:
		if !slices.Equal(left, right) {
			c.fail("%q or %q: the series have other labels", left, right)
		}
		return left
	}
	on := m.MatchingLabels
	if !m.On {
		on = labelsWithout(left, m.MatchingLabels)
		// Series with other labels never match, and the panel stays empty.
		if other := labelsWithout(right, m.MatchingLabels); !slices.Equal(on, other) {
			c.fail("%q %v %q: the series have other labels", on, n.Op, other)
		}
	}
	for _, l := range on {
		if !slices.Contains(left, l) || !slices.Contains(right, l) {
			c.fail("on %s, but the series have %q and %q", l, left, right)
		}
	}
	switch m.Card {
	case parser.CardManyToOne:
		return slices.Sorted(slices.Values(append(left, m.Include...)))
	case parser.CardOneToMany:
		return slices.Sorted(slices.Values(append(right, m.Include...)))
	case parser.CardManyToMany: // and, unless
		return left
	}
	if !slices.Equal(left, on) || !slices.Equal(right, on) {
		c.fail("%q %v %q: several series may match one", left, n.Op, right)
	}
	return on
}

func (c checker) call(n *parser.Call) []string {
	var of []string
	for _, a := range n.Args {
		of = append(of, c.labels(a)...)
	}
	switch n.Func.Name {
	case "histogram_quantile":
		if !slices.Contains(of, "le") {
			c.fail("histogram_quantile of series without le")
		}
		return labelsWithout(of, []string{"le"})
	case "label_replace":
		if from := n.Args[3].(*parser.StringLiteral).Val; !slices.Contains(of, from) {
			c.fail("label_replace of %s, but the series have %q", from, of)
		}
		of = append(of, n.Args[1].(*parser.StringLiteral).Val)
		slices.Sort(of)
		return slices.Compact(of)
	case "rate", "increase", "sort_desc", "max_over_time", "avg_over_time", "last_over_time", "vector":
		return of
	}
	c.fail("%s: not known to this test", n.Func.Name)
	return of
}

func labelsWithout(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(l string) bool { return slices.Contains(some, l) })
}

// emitted are the series that the dashboard may use, with the labels of their
// scrape: those of the gateway and the simulator as they come from the very
// handlers, the engine's only if a real vLLM had them too.
func emittedSeries(t *testing.T) map[string][]labels.Labels {
	t.Helper()
	known := map[string][]labels.Labels{}
	add := func(s labels.Labels, scraped bool) {
		if scraped {
			b := labels.NewBuilder(s)
			s = b.Set("job", "job").Set("instance", "host:1").Labels()
		}
		name := s.Get(model.MetricNameLabel)
		known[name] = append(known[name], s)
	}

	own, engine := exercise(t)
	for _, s := range readMetrics(t, own) {
		if strings.HasPrefix(s.Get(model.MetricNameLabel), "gateway_") {
			add(s, true)
		}
	}
	recorded, err := os.ReadFile(filepath.Join("..", "vllm", "recorded", "generate", "info-metrics.http"))
	if err != nil {
		t.Fatal(err)
	}
	recorded = bytes.Join(engineSeries.FindAll(recorded, -1), nil) // without heads and remarks
	real := map[string][]string{}
	for _, s := range readMetrics(t, recorded) {
		real[s.Get(model.MetricNameLabel)] = labelNames(s)
	}
	for _, s := range readMetrics(t, engine) {
		name := s.Get(model.MetricNameLabel)
		if has, ok := real[name]; ok && strings.HasPrefix(name, "vllm:") {
			add(labels.NewBuilder(s).Keep(has...).Labels(), true)
		}
	}
	for _, name := range contract {
		if strings.HasPrefix(name, "nvidia_") {
			add(labels.FromStrings(model.MetricNameLabel, name, "gpu", "0", "uuid", "GPU-0", "name", "some card"), true)
		}
	}
	for _, s := range append(callerSeries, gpuSeries...) {
		add(s, true)
	}
	for _, s := range recordedSeries(t) {
		add(s, false)
	}
	for _, s := range k6Series {
		add(s, false)
	}
	return known
}

var engineSeries = regexp.MustCompile(`(?m)^vllm:.*\n`)

func labelNames(s labels.Labels) []string {
	var all []string
	s.Range(func(l labels.Label) { all = append(all, l.Name) })
	return all
}

// readMetrics reads the text format.
func readMetrics(t *testing.T, text []byte) []labels.Labels {
	t.Helper()
	p := textparse.NewPromParser(text, labels.NewSymbolTable(), false)
	var all []labels.Labels
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry == textparse.EntrySeries {
			var s labels.Labels
			p.Labels(&s)
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		t.Fatalf("no series in %.200q", text)
	}
	return all
}

// exercise runs a gateway before a simulator through a good, a refused, a failed
// and a cancelled request, and returns what both then say at /metrics.
func exercise(t *testing.T) (own, engine []byte) {
	t.Helper()
	gatewayURL, simURL := gatewayAndSim(t, vllmsim.Config{})
	const hello = `{"model":"` + vllmsim.DefaultModel + `","messages":[{"role":"user","content":"Hello"}],"stream":true,"max_tokens":4}`
	sendChat(t, gatewayURL, hello, http.StatusOK)
	sendChat(t, gatewayURL, `{`, http.StatusBadRequest)

	setFaults(t, simURL, `[{"kind":"reject","status":503}]`)
	sendChat(t, gatewayURL, hello, http.StatusServiceUnavailable)

	setFaults(t, simURL, `[{"kind":"stall","after":2}]`)
	ctx, cancel := context.WithCancel(t.Context())
	res, err := http.DefaultClient.Do(chatRequest(ctx, gatewayURL, hello))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	res.Body.Close()

	deadline := time.Now().Add(10 * time.Second)
	for {
		own = readURL(t, gatewayURL+"/metrics")
		if bytes.Contains(own, []byte(`outcome="cancelled"`)) {
			return own, readURL(t, simURL+"/metrics")
		}
		if time.Now().After(deadline) {
			t.Fatalf("the cancelled request was not counted:\n%s", own)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func gatewayAndSim(t *testing.T, cfg vllmsim.Config) (gatewayURL, simURL string) {
	t.Helper()
	sim, err := vllmsim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	simServer := httptest.NewServer(sim)
	t.Cleanup(simServer.Close)
	t.Cleanup(sim.Close)
	g, err := gateway.New(gateway.Config{
		Backends:         []string{simServer.URL},
		FirstByteTimeout: time.Minute, StreamIdleTimeout: time.Minute, MaxBody: 1 << 20,
		Version: "test", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	gatewayServer := httptest.NewServer(g)
	t.Cleanup(gatewayServer.Close)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		g.Drain(ctx)
	})
	return gatewayServer.URL, simServer.URL
}

func chatRequest(ctx context.Context, url, body string) *http.Request {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return req
}

func sendChat(t *testing.T, url, body string, want int) {
	t.Helper()
	res, err := http.DefaultClient.Do(chatRequest(t.Context(), url, body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if answer, err := io.ReadAll(res.Body); err != nil || res.StatusCode != want {
		t.Fatalf("%s: status %d, %v, want %d: %s", body, res.StatusCode, err, want, answer)
	}
}

func setFaults(t *testing.T, url, faults string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url+"/sim/faults", strings.NewReader(faults))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode/100 != 2 {
		t.Fatalf("PUT /sim/faults %s: %s", faults, res.Status)
	}
}

func readURL(t *testing.T, url string) []byte {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// recordedSeries are what the rules record, and the alerts themselves.
func recordedSeries(t *testing.T) []labels.Labels {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "alerts", "*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no rules in ../alerts: %v", err)
	}
	var all []labels.Labels
	for _, file := range files {
		if strings.HasSuffix(file, "_test.yml") || strings.HasSuffix(file, ".test.yml") {
			continue // promtool's
		}
		groups, errs := rulefmt.ParseFile(file, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
		if len(errs) > 0 {
			t.Fatalf("%s: %v", file, errs)
		}
		for _, g := range groups.Groups {
			for _, r := range g.Rules {
				b := labels.NewBuilder(labels.FromMap(r.Labels))
				if r.Record != "" {
					all = append(all, b.Set(model.MetricNameLabel, r.Record).Labels())
				} else {
					all = append(all, b.Set(model.MetricNameLabel, "ALERTS").Set("alertname", r.Alert).Set("alertstate", "firing").Labels())
				}
			}
		}
	}
	return all
}

// callerSeries are those of the gateway that begin with a caller's first request.
var callerSeries = []labels.Labels{
	labels.FromStrings(model.MetricNameLabel, "gateway_caller_requests_total", "caller", "batch", "model", "m", "outcome", "ok"),
	labels.FromStrings(model.MetricNameLabel, "gateway_caller_prompt_tokens_total", "caller", "batch", "model", "m"),
	labels.FromStrings(model.MetricNameLabel, "gateway_caller_completion_tokens_total", "caller", "batch", "model", "m"),
	labels.FromStrings(model.MetricNameLabel, "gateway_caller_refused_requests_total", "caller", "batch", "model", "m", "reason", "tokens"),
}

// They are as docs/metrics.md has them, which a test of the gateway's compares
// with what is registered; and each is on the dashboard.
func TestDashboardCallers(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	var documented, known []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(gateway_caller_\\w+)` \\| counter \\| ([^|]+) \\|").FindAllStringSubmatch(string(doc), -1) {
		documented = append(documented, row[1]+" "+row[2])
	}
	for _, s := range callerSeries {
		names := slices.DeleteFunc(labelNames(s), func(l string) bool { return l == model.MetricNameLabel })
		known = append(known, s.Get(model.MetricNameLabel)+" "+strings.Join(names, ", "))
	}
	slices.Sort(documented)
	slices.Sort(known)
	if !slices.Equal(documented, known) {
		t.Errorf("docs/metrics.md has\n%s\nknown here are\n%s", strings.Join(documented, "\n"), strings.Join(known, "\n"))
	}
	shown := string(dashboards.JSON)
	for _, name := range []string{"caller_requests", "caller_prompt_tokens", "caller_completion_tokens", "caller_refused_requests", "unauthorized_requests"} {
		if !strings.Contains(shown, "(gateway_"+name+"_total") {
			t.Errorf("gateway_%s_total is shown nowhere", name)
		}
	}
}

// gpuSeries are those of gpu-exporter that are used beside the guide's, as
// docs/metrics.md has them, which its own test compares with what is served.
var gpuSeries = []labels.Labels{
	labels.FromStrings(model.MetricNameLabel, "nvidia_gpu_recovery_action", "gpu", "0", "uuid", "GPU-0", "name", "some card"),
	labels.FromStrings(model.MetricNameLabel, "nvidia_gpu_xid_last_timestamp_seconds", "gpu", "0", "uuid", "GPU-0", "name", "some card", "xid", "79"),
	labels.FromStrings(model.MetricNameLabel, "nvidia_gpu_up", "gpu", "0", "uuid", "GPU-0", "name", "some card"),
	labels.FromStrings(model.MetricNameLabel, "nvidia_gpu_pci_devices"),
}

// k6Series are those of k6 that the dashboard may use. TestDashboardK6 holds
// that k6 sends them.
var k6Series = []labels.Labels{
	labels.FromStrings(model.MetricNameLabel, "k6_vus"),
	labels.FromStrings(model.MetricNameLabel, "k6_http_reqs_total", "scenario", "users_10"),
	labels.FromStrings(model.MetricNameLabel, "k6_ttft_ms_p95", "scenario", "users_10"),
	labels.FromStrings(model.MetricNameLabel, "k6_tokens_per_second_avg", "scenario", "users_10"),
	labels.FromStrings(model.MetricNameLabel, "k6_failed_requests_rate", "scenario", "users_10"),
}

// TestDashboardK6 runs with K6, the path of k6, in the environment.
func TestDashboardK6(t *testing.T) {
	k6 := os.Getenv("K6")
	if k6 == "" {
		t.Skip("K6 is not set")
	}
	var mu sync.Mutex
	got := map[string]map[string]string{} // name and scenario → all labels
	last := map[string]float64{}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := remote.DecodeWriteRequest(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, s := range req.Timeseries {
			has := map[string]string{}
			for _, l := range s.Labels {
				has[l.Name] = l.Value
			}
			key := has[model.MetricNameLabel] + " " + has["scenario"]
			got[key] = has
			last[key] = s.Samples[len(s.Samples)-1].Value
		}
	}))
	defer receiver.Close()

	const delay = 300 * time.Millisecond
	url, _ := gatewayAndSim(t, vllmsim.Config{Faults: []vllmsim.Fault{{Kind: "slow-first-token", Delay: delay}}})
	cmd := exec.CommandContext(t.Context(), k6, "run", "--no-usage-report", "--quiet", "-o", "experimental-prometheus-rw", filepath.Join("..", "loadtests", "baseline.js"))
	cmd.Env = append(os.Environ(), "GATEWAY_URL="+url, "TIME_SCALE=0.04",
		"K6_PROMETHEUS_RW_SERVER_URL="+receiver.URL, "K6_PROMETHEUS_RW_PUSH_INTERVAL=1s",
		"K6_PROMETHEUS_RW_TREND_STATS=p(50),p(95),p(99),avg")
	// Whether the machine is fast enough for the gates is not the matter here.
	if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() != 99 {
		t.Fatalf("%v\n%s", err, out)
	}

	mu.Lock()
	defer mu.Unlock()
	for _, s := range k6Series {
		want := s.Map()
		has := got[want[model.MetricNameLabel]+" "+want["scenario"]]
		if has == nil {
			t.Errorf("k6 does not send %s; it sends %q", s, slices.Sorted(maps.Keys(got)))
			continue
		}
		if _, ok := want["scenario"]; !ok && has["scenario"] != "" {
			t.Errorf("k6 gives %s a scenario", s)
		}
	}
	// In seconds, whatever the name says.
	if v := last["k6_ttft_ms_p95 users_10"]; v < delay.Seconds() || v > 100*delay.Seconds() {
		t.Errorf("k6_ttft_ms_p95 is %v, want seconds, %v or somewhat more", v, delay.Seconds())
	}
}

// The check of the queries finds what is wrong with each of these.
func TestDashboardQueriesAreChecked(t *testing.T) {
	known := map[string][]labels.Labels{}
	for _, s := range []labels.Labels{
		labels.FromStrings(model.MetricNameLabel, "depth", "instance", "a"),
		labels.FromStrings(model.MetricNameLabel, "ttft_bucket", "instance", "a", "model", "m", "le", "1"),
		labels.FromStrings(model.MetricNameLabel, "requests", "instance", "a", "model", "m", "outcome", "ok"),
	} {
		name := s.Get(model.MetricNameLabel)
		known[name] = append(known[name], s)
	}
	for _, c := range []struct {
		expr string
		want []string // nil: a mistake
	}{
		{`sum(depth)`, []string{}},
		{`sum by (instance) (depth)`, []string{"instance"}},
		{`sum(dept)`, nil},
		{`sum by (model) (depth)`, nil},
		{`sum without (model) (depth)`, nil},
		{`depth{model=~".*"}`, nil},
		{`requests{outcome="okay"}`, nil},
		{`requests{outcome!~"ok|timeout"}`, []string{"instance", "model", "outcome"}},
		{`requests{outcome!~"ok|time_out"}`, nil},
		{`histogram_quantile(0.5, sum by (le) (rate(ttft_bucket[20s]))) >= 0`, []string{}},
		{`histogram_quantile(0.5, sum by (model) (rate(ttft_bucket[20s])))`, nil},
		{`sum by (model) (requests) / sum(requests)`, nil},
		{`sum by (model) (requests) / on () group_left () sum(requests)`, []string{"model"}},
		{`sum by (model) (requests) / on (model) sum by (model, outcome) (requests)`, nil},
		{`requests / depth`, nil},
		{`sum(requests) or vector(0)`, []string{}},
		{`sum by (model) (requests) or vector(0)`, nil},
		{`label_replace(sum by (model) (requests), "model", "none", "modle", "")`, nil},
		{`2 * depth / 1000`, []string{"instance"}},
		{`sum by (model) (requests) and topk(3, sum by (model) (rate(requests[5m] @ end())))`, []string{"model"}},
		{`sum by (model) (requests) and topk(3, sum by (outcome) (requests))`, nil},
		{`sort_desc(topk(3, increase(requests[5m])))`, []string{"instance", "model", "outcome"}},
	} {
		parsed, err := parser.NewParser(parser.Options{}).ParseExpr(c.expr)
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		has := checker{known: known, used: map[string]bool{}, fail: func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }}.labels(parsed)
		if c.want == nil && len(found) == 0 {
			t.Errorf("%s: nothing was found to be wrong", c.expr)
		}
		if c.want != nil && (len(found) > 0 || !reflect.DeepEqual(append([]string{}, has...), c.want)) {
			t.Errorf("%s: labels %q, want %q; found %q", c.expr, has, c.want, found)
		}
	}
}
