package verdict

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed report.html
var reportHTML string

var reportTemplate = template.Must(template.New("report").Parse(reportHTML))

// WriteHTML writes the verdict as one HTML file that stands by itself: it loads
// nothing and runs nothing, and can be read even where a policy forbids its style.
func WriteHTML(w io.Writer, v *Verdict) error {
	var page bytes.Buffer
	if err := reportTemplate.Execute(&page, reportPage{v}); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	_, err := page.WriteTo(w)
	return err
}

// reportPage is a verdict with what report.html asks beyond its fields.
type reportPage struct{ *Verdict }

func (r reportPage) Name() string { return r.title() }
func (r reportPage) Word() string { return r.passed() }
func (r reportPage) Failed() bool { return r.failed() > 0 }

func (r reportPage) Took() string { return lasted(r.End.Sub(r.Start)) }
func (r reportPage) Day() string {
	if r.Start.IsZero() {
		return ""
	}
	return r.Start.UTC().Format("2 January 2006, 15:04:05 UTC")
}

// Held says in a few words how many gates held.
func (r reportPage) Held() string {
	failed := r.failed()
	switch {
	case failed == 0 && r.Unseen:
		return fmt.Sprintf("not all gates were seen; %d held", len(r.Gates))
	case len(r.Gates) == 0:
		return "no gates: nothing was held against anything"
	case len(r.Gates) == 1 && failed == 0:
		return "its one gate held"
	case failed == len(r.Gates):
		return "no gate held"
	case failed == 0:
		return fmt.Sprintf("all %d gates held", len(r.Gates))
	}
	return fmt.Sprintf("%d of %d gates did not hold", failed, len(r.Gates))
}

type reportFinding struct {
	Finding
	Class, Icon, Word string
}

// Ranked are the findings in Judge's order, the worst first.
func (r reportPage) Ranked() []reportFinding {
	looks := map[string]reportFinding{
		"bad":  {Class: "bad", Icon: "✗", Word: "Problem"},
		"warn": {Class: "warn", Icon: "!", Word: "Warning"},
		"good": {Class: "good", Icon: "✓", Word: "Good"},
	}
	var all []reportFinding
	for _, f := range r.Findings {
		look, ok := looks[f.Severity]
		if !ok {
			look = reportFinding{Class: "info", Icon: "i", Word: "Note"}
		}
		look.Finding = f
		all = append(all, look)
	}
	return all
}

// RankedGates are the gates, those that did not hold first.
func (r reportPage) RankedGates() []Gate {
	gates := slices.Clone(r.Gates)
	slices.SortStableFunc(gates, func(a, b Gate) int {
		switch {
		case a.Held == b.Held:
			return 0
		case b.Held:
			return -1
		}
		return 1
	})
	return gates
}

// Measured is in the unit of the condition, so that the two compare.
func (g Gate) Measured() string {
	if g.Value == nil || !drawable(*g.Value) {
		return "not measured"
	}
	metric, _, _ := strings.Cut(g.Metric, "{")
	text := strconv.FormatFloat(*g.Value, 'g', 4, 64)
	if math.Abs(*g.Value) >= 1000 {
		text = strconv.FormatFloat(*g.Value, 'f', 0, 64)
	}
	switch {
	case strings.HasPrefix(g.Condition, "rate") && (metric == "failed_requests" || metric == "http_req_failed" || metric == "checks" || metric == "gateway_requests_total"):
		return fmt.Sprintf("%s (%s)", text, shareText(*g.Value))
	case strings.HasPrefix(g.Condition, "count"):
		return text
	case strings.HasSuffix(metric, "_ms") || strings.HasPrefix(metric, "http_req_") || strings.HasSuffix(metric, "_duration"):
		return text + " ms"
	case strings.HasSuffix(metric, "_seconds"):
		return text + " s"
	}
	return text
}

func (r reportPage) Pictures() []picture { return pictures(r.Verdict) }

// A reportCell is a figure in a table; Of names who measured it where that is not who
// measured the others.
type reportCell struct{ Text, Of string }

// A reportLine is a row of a table.
type reportLine struct {
	Head, Note string
	Cells      []reportCell
}

// reportStage is a stage with what its tables need.
type reportStage struct {
	Stage
	Span  string // 0:00 to 2:00
	Class string
}

func (r reportPage) All() []reportStage {
	all := make([]reportStage, len(r.Stages))
	for i, s := range r.Stages {
		all[i] = reportStage{Stage: s, Span: r.since(s.Start) + "–" + r.since(s.End)}
		switch s.State {
		case Healthy:
			all[i].Class = "good"
		case Approaching:
			all[i].Class = "warn"
		case Overloaded, Slow, Failing:
			all[i].Class = "bad"
		}
	}
	return all
}

func (r reportPage) Guided() (all []reportStage) {
	for _, s := range r.All() {
		if len(s.Guideline) > 0 {
			all = append(all, s)
		}
	}
	return all
}

func (r reportPage) since(t time.Time) string { return clockTime(max(0, t.Sub(r.Start).Seconds())) }

// Figures are a stage's in one row: k6's, and where it has none the gateway's.
func (s reportStage) Figures() []reportCell {
	var ttft, speed *Spread
	var rps *float64
	of := ""
	failed := reportCell{}
	if c := s.Client; c != nil {
		rps, ttft, speed = &c.RPS, &c.TTFT, &c.Speed
		failed.Text = failedOf(c)
	} else if m := s.Server; m != nil {
		rps, ttft, speed, of = m.RPS, m.TTFT, m.Speed, "gateway"
	}
	row := []reportCell{{figureText(rps, tenths), of}}
	row = append(row, percentileCells(ttft, millis, of)...)
	row = append(row, reportCell{spreadText(speed, func(s *Spread) string { return tenths(s.Mean) }), of}, failed)
	m := s.Server
	if m == nil {
		m = &Server{}
	}
	return append(row, levelCells(m.Queue, tenths)[0], levelCells(m.Queue, number)[2], levelCells(m.GPU, percentOf)[0])
}

func failedOf(c *Client) string {
	if c.Requests == 0 || c.Failed == 0 {
		return count(float64(c.Failed))
	}
	return fmt.Sprintf("%s (%s)", count(float64(c.Failed)), shareText(float64(c.Failed)/float64(c.Requests)))
}

// Text of a guideline's figure, in its unit.
func (row Row) Text(v *float64) string {
	return figureText(v, func(v float64) string { return inUnit(v, row.Unit) })
}

// Class and Icon say how a row fits.
func (row Row) Class() string {
	switch row.Fits {
	case "as expected", "better":
		return "good"
	case "worse":
		return "bad"
	}
	return ""
}

func (row Row) Icon() string {
	return map[string]string{"as expected": "✓", "better": "✓", "worse": "✗", "below": "↓", "above": "↑"}[row.Fits]
}

// Comparison holds the sides against each other; each but the first has its ratio to
// the first.
func (r reportPage) Comparison() []reportLine {
	quantities := []struct {
		head, note string
		of         func(Side) (float64, bool)
		show       func(float64) string
	}{
		{"Requests", "", ofClient(func(c *Client) (float64, bool) { return float64(c.Requests), true }), count},
		{"Failed", "less is better", ofClient(func(c *Client) (float64, bool) { return float64(c.Failed) / float64(c.Requests), c.Requests > 0 }), shareText},
		{"RPS", "more is better", ofClient(func(c *Client) (float64, bool) { return c.RPS, true }), number},
		{"In flight", "mean", ofClient(func(c *Client) (float64, bool) { return c.InFlight, true }), number},
		{"TTFT p50", "less is better", ofClient(func(c *Client) (float64, bool) { return c.TTFT.P50, c.TTFT.N > 0 }), millis},
		{"TTFT p95", "less is better", ofClient(func(c *Client) (float64, bool) { return c.TTFT.P95, c.TTFT.N > 0 }), millis},
		{"TTFT p99", "less is better", ofClient(func(c *Client) (float64, bool) { return c.TTFT.P99, c.TTFT.N > 0 }), millis},
		{"Whole answer p50", "less is better", ofClient(func(c *Client) (float64, bool) { return c.Duration.P50, c.Duration.N > 0 }), millis},
		{"Whole answer p95", "less is better", ofClient(func(c *Client) (float64, bool) { return c.Duration.P95, c.Duration.N > 0 }), millis},
		{"Tokens/s, mean", "more is better", ofClient(func(c *Client) (float64, bool) { return c.Speed.Mean, c.Speed.N > 0 }), number},
		{"Prefix cache hits", "of tokens asked for", func(s Side) (float64, bool) { return value(s.Hits), s.Hits != nil }, shareText},
	}
	var all []reportLine
	for _, q := range quantities {
		row := reportLine{Head: q.head, Note: q.note}
		measured := false
		first := math.NaN()
		for i, s := range r.Sides {
			v, ok := q.of(s)
			if !ok || !drawable(v) {
				row.Cells = append(row.Cells, reportCell{})
				continue
			}
			measured = true
			c := reportCell{Text: q.show(v)}
			switch {
			case i == 0:
				first = v
			case first > 0:
				c.Of = fmt.Sprintf("× %.2f", v/first)
			default:
				c.Of = "\u00a0" // keeps the column straight
			}
			row.Cells = append(row.Cells, c)
		}
		if measured {
			all = append(all, row)
		}
	}
	return all
}

func ofClient(of func(*Client) (float64, bool)) func(Side) (float64, bool) {
	return func(s Side) (float64, bool) {
		if s.Client == nil {
			return 0, false
		}
		return of(s.Client)
	}
}

func (r reportPage) LimitText() string { return figureText(r.Limit, number) }

func (r reportPage) LateText() string {
	return fmt.Sprintf("p50 %s, p99 %s, at most %s", millis(r.Lateness.P50), millis(r.Lateness.P99), millis(r.Lateness.Max))
}

// Spreads are a stage's distributions, in detail.
func (s reportStage) Spreads() []reportLine {
	c, m := s.Client, s.Server
	var all []reportLine
	add := func(head, note string, d *Spread, show func(float64) string) {
		if d == nil || d.N == 0 {
			return
		}
		most := reportCell{show(d.Max), ""}
		if d.Max == 0 { // a histogram knows none
			most = reportCell{}
		}
		all = append(all, reportLine{head, note, append(append([]reportCell{{count(float64(d.N)), ""}, {show(d.Mean), ""}}, percentileCells(d, show, "")...), most)})
	}
	if c != nil {
		add("TTFT", "k6", &c.TTFT, millis)
	}
	if m != nil {
		note := "gateway"
		if in := m.P95Range; in != nil && math.IsInf(in.High, 1) {
			note += ": p95 over " + millis(in.Low)
		} else if in != nil {
			note += fmt.Sprintf(": p95 between %s and %s", millis(in.Low), millis(in.High))
		}
		add("TTFT", note, m.TTFT, millis)
	}
	if c != nil {
		add("Whole answer", "k6", &c.Duration, millis)
		add("Tokens/s", "k6", &c.Speed, number)
	}
	if m != nil {
		add("Tokens/s", "gateway", m.Speed, number)
	}
	return all
}

// Levels are the gauges of a stage.
func (s reportStage) Levels() []reportLine {
	m := s.Server
	if m == nil {
		return nil
	}
	var all []reportLine
	add := func(head, note string, l *Level, show func(float64) string) {
		if l != nil {
			all = append(all, reportLine{head, note, levelCells(l, show)})
		}
	}
	add("Queue depth", "all gateways", m.Queue, number)
	add("Waiting in vLLM", "all engines", m.Waiting, number)
	add("Running in vLLM", "all engines", m.Running, number)
	add("KV cache", "fullest engine", m.KVCache, shareText)
	add("GPU duty cycle", "busiest", m.GPU, percentOf)
	add("GPU memory", "fullest", m.GPUMemory, shareText)
	add("GPU temperature", "hottest", m.GPUHeat, func(v float64) string { return number(math.Round(v)) + " °C" })
	backends := ""
	if m.AllBackends != nil {
		backends = "of " + number(*m.AllBackends)
	}
	add("Backends up", backends, m.Backends, number)
	return all
}

// Counts are what was counted in a stage, each with its text.
func (s reportStage) Counts() []reportLine {
	var all []reportLine
	add := func(head, text string) { all = append(all, reportLine{Head: head, Cells: []reportCell{{Text: text}}}) }
	if c := s.Client; c != nil {
		add("Sent by k6", fmt.Sprintf("%s requests; %s ended well within the stage; failed: %s", count(float64(c.Requests)), count(float64(c.Completed)), failedOf(c)))
		add("In flight, by k6", number(c.InFlight)+" in the mean")
	}
	m := s.Server
	if m == nil {
		return all
	}
	add("Ended at the gateway", figureText(m.RPS, func(v float64) string { return number(v) + " requests/s" }))
	add("Outcomes", tallyText(m.Outcomes, number, "none"))
	add("Upstream errors", tallyText(m.Causes, number, "none"))
	add("Retries", figureText(m.Retries, number))
	add("Preemptions", figureText(m.Preemptions, number))
	add("Refused by vLLM", figureText(m.Refused, number))
	add("Prefix cache hits", figureText(m.PrefixHits, func(v float64) string { return shareText(v) + " of tokens asked for" }))
	add("Diagnosis", tallyText(m.States, shareText, "none"))
	return all
}

// tallyText is "ok 4,812, timeout 3", the most first. Zeros are left out.
func tallyText(counts map[string]float64, show func(float64) string, none string) string {
	if counts == nil {
		return ""
	}
	var parts []string
	for _, name := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	}) {
		if counts[name] > 0 {
			parts = append(parts, name+" "+show(counts[name]))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), none)
}

// figureText is empty where nothing was measured.
func figureText(v *float64, show func(float64) string) string {
	if v == nil || !drawable(*v) {
		return ""
	}
	return show(*v)
}

func spreadText(s *Spread, show func(*Spread) string) string {
	if s == nil || s.N == 0 {
		return ""
	}
	return show(s)
}

func percentileCells(s *Spread, show func(float64) string, of string) []reportCell {
	if s == nil || s.N == 0 {
		return make([]reportCell, 3)
	}
	return []reportCell{{show(s.P50), of}, {show(s.P95), of}, {show(s.P99), of}}
}

func levelCells(l *Level, show func(float64) string) []reportCell {
	if l == nil {
		return make([]reportCell, 5)
	}
	return []reportCell{{show(l.Mean), ""}, {show(l.Min), ""}, {show(l.Max), ""}, {show(l.Begin), ""}, {show(l.Finish), ""}}
}

// shareText is a part of a whole: 0.4 %, 12 %.
func shareText(part float64) string {
	switch v := 100 * part; {
	case !drawable(v):
		return "–"
	case v != 0 && v < 0.1:
		return "< 0.1 %"
	case v != 0 && v < 9.95:
		return fmt.Sprintf("%.1f %%", v)
	default:
		return fmt.Sprintf("%.0f %%", v)
	}
}

func percentOf(v float64) string { return inUnit(v, "%") }

// tenths is a number of a column: its points lie below each other.
func tenths(v float64) string {
	if !drawable(v) || v >= 1000 {
		return number(v)
	}
	return strconv.FormatFloat(v, 'f', 1, 64)
}
