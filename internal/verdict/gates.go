package verdict

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// k6Sink sums a metric, or a part of it, up as k6 does for its thresholds.
type k6Sink struct {
	kind       string // "trend", "rate", "counter", "gauge"
	tags       map[string]string
	conditions []k6Threshold
	parts      []*k6Sink

	values []float64 // a trend's
	sorted bool
	n      int
	sum    float64
	trues  int
	last   float64
}

func (s *k6Sink) add(v float64, tags map[string]string) {
	for _, part := range s.parts {
		if part.matches(tags) {
			part.add(v, nil)
		}
	}
	s.n++
	s.sum += v
	s.last = v
	if v != 0 {
		s.trues++
	}
	if s.kind == "trend" {
		s.values = append(s.values, v)
		s.sorted = false
	}
}

func (s *k6Sink) matches(tags map[string]string) bool {
	for k, v := range s.tags {
		if got, ok := tags[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// k6Condition is a threshold taken apart: "p(95)<2000".
type k6Condition struct {
	method     string // "avg", "p"
	percentile float64
	operator   string
	limit      float64
}

var k6ConditionForm = regexp.MustCompile(`^\s*(avg|min|med|max|count|rate|value|p\(([^()]+)\))\s*(<=|<|>=|>|===|==|!=)\s*(\S+)\s*$`)

func k6ConditionOf(text string) (c k6Condition, ok bool) {
	m := k6ConditionForm.FindStringSubmatch(text)
	if m == nil {
		return c, false
	}
	c.method, c.operator = m[1], m[3]
	limit, err := strconv.ParseFloat(m[4], 64)
	if err != nil || math.IsNaN(limit) || math.IsInf(limit, 0) {
		return c, false
	}
	c.limit = limit
	if m[2] != "" {
		c.method = "p"
		c.percentile, err = strconv.ParseFloat(m[2], 64)
		ok := err == nil && c.percentile >= 0 && c.percentile <= 100
		return c, ok
	}
	return c, true
}

func (c k6Condition) holds(v float64) bool {
	switch c.operator {
	case "<":
		return v < c.limit
	case "<=":
		return v <= c.limit
	case ">":
		return v > c.limit
	case ">=":
		return v >= c.limit
	case "!=":
		return v != c.limit
	}
	return v == c.limit
}

// value is what k6 holds a condition against, and without samples 0. ok is false where
// k6 has nothing to hold it against, and lets it pass.
func (s *k6Sink) value(c k6Condition, lasted time.Duration) (v float64, ok bool) {
	switch s.kind {
	case "rate":
		if s.n == 0 {
			return 0, false
		}
		return float64(s.trues) / float64(s.n), c.method == "rate"
	case "counter":
		if c.method == "rate" {
			return s.sum / max(lasted.Seconds(), 1e-3), lasted > 0
		}
		return s.sum, c.method == "count"
	case "gauge":
		return s.last, c.method == "value"
	}
	if !s.sorted {
		slices.Sort(s.values)
		s.sorted = true
	}
	return k6TrendValue(s.values, s.sum, c)
}

// measured is the value for people: without samples there is none.
func (s *k6Sink) measured(c k6Condition, lasted time.Duration) *float64 {
	v, ok := s.value(c, lasted)
	if !ok || s.n == 0 && s.kind != "counter" {
		return nil
	}
	return &v
}

// k6TrendValue is of sorted values.
func k6TrendValue(sorted []float64, sum float64, c k6Condition) (v float64, ok bool) {
	if len(sorted) == 0 {
		return 0, true
	}
	switch c.method {
	case "avg":
		return sum / float64(len(sorted)), true
	case "min":
		return sorted[0], true
	case "max":
		return sorted[len(sorted)-1], true
	case "med":
		return k6Percentile(sorted, 50), true
	case "p":
		return k6Percentile(sorted, c.percentile), true
	}
	return 0, false
}

// k6Percentile interpolates between the two samples that it lies between, as k6 does;
// 0 of none.
func k6Percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := p / 100 * float64(len(sorted)-1)
	below, above := sorted[int(math.Floor(at))], sorted[int(math.Ceil(at))]
	return below + (above-below)*(at-math.Floor(at))
}

// k6Spread sorts the values.
func k6Spread(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	slices.Sort(values)
	return Spread{
		N:    len(values),
		Mean: sum / float64(len(values)),
		P50:  k6Percentile(values, 50),
		P95:  k6Percentile(values, 95),
		P99:  k6Percentile(values, 99),
		Max:  values[len(values)-1],
	}
}

// gates are the thresholds that the samples tell: k6 writes those of a metric with its
// first sample, and never those of its parts.
func (run *k6Run) gates(s *Samples) {
	part := ""
	for name, sink := range run.sinks {
		if sink.tags != nil && (part == "" || name < part) {
			part = name
		}
		for _, condition := range sink.conditions {
			c, ok := k6ConditionOf(string(condition))
			if !ok {
				s.unseen = append(s.unseen, fmt.Sprintf("The gate %s %q was not judged: it is not of a form that is known here. Run k6 with --summary-export=FILE as well, and give that file as --summary.", name, condition))
				continue
			}
			v, ok := sink.value(c, s.End.Sub(s.Start))
			s.Gates = append(s.Gates, Gate{Metric: name, Condition: string(condition), Value: sink.measured(c, s.End.Sub(s.Start)), Held: !ok || c.holds(v)})
		}
	}
	k6SortGates(s.Gates)
	slices.Sort(s.unseen)
	if part != "" {
		s.unseen = append(s.unseen, fmt.Sprintf("Whether all gates held: k6's samples do not tell those of a part of a metric, such as %s, nor those of a metric that got no samples. Run k6 with --summary-export=FILE as well, and give that file as --summary.", part))
	}
	s.Missing = append(s.Missing, s.unseen...)
}

func k6SortGates(gates []Gate) {
	slices.SortStableFunc(gates, func(a, b Gate) int { return strings.Compare(a.Metric, b.Metric) })
}

// ReadSummary adds what k6 run --summary-export=FILE wrote of the same run: k6's own
// word on each threshold. Those of a part of a metric, and those of a metric without
// samples, are nowhere else.
func (s *Samples) ReadSummary(r io.Reader) error {
	var summary struct {
		Metrics map[string]map[string]json.RawMessage
	}
	if err := json.NewDecoder(r).Decode(&summary); err != nil {
		return fmt.Errorf("k6's summary: it is not what k6 run --summary-export=FILE writes: %w", err)
	}
	if len(summary.Metrics) == 0 {
		return fmt.Errorf("k6's summary: there are no metrics in it: give the file that k6 run --summary-export=FILE wrote")
	}
	crossed := map[string]map[string]bool{} // by metric and condition
	for name, values := range summary.Metrics {
		raw, ok := values["thresholds"]
		if !ok {
			continue
		}
		var conditions map[string]bool
		if err := json.Unmarshal(raw, &conditions); err != nil { // handleSummary() has objects there
			return fmt.Errorf("k6's summary: it is not what k6 run --summary-export=FILE writes: %w", err)
		}
		crossed[name] = conditions
	}
	for _, name := range slices.Sorted(maps.Keys(crossed)) {
		for _, condition := range slices.Sorted(maps.Keys(crossed[name])) {
			s.gate(Gate{Metric: name, Condition: condition, Held: !crossed[name][condition]}, summary.Metrics[name])
		}
	}
	k6SortGates(s.Gates)
	s.Missing = slices.DeleteFunc(s.Missing, func(says string) bool { return slices.Contains(s.unseen, says) })
	s.unseen = nil
	return nil
}

// gate takes k6's word for whether it held. Its value is from the samples where they
// tell it: a summary has only the percentiles that it was told to have.
func (s *Samples) gate(g Gate, values map[string]json.RawMessage) {
	for i := range s.Gates {
		if s.Gates[i].Metric == g.Metric && s.Gates[i].Condition == g.Condition {
			s.Gates[i].Held = g.Held
			return
		}
	}
	c, known := k6ConditionOf(g.Condition)
	if sink := s.sinks[g.Metric]; known && sink != nil && !(sink.kind == "counter" && c.method == "rate") {
		g.Value = sink.measured(c, 0)
	} else if known {
		g.Value = k6SummaryCount(c, values)
	}
	s.Gates = append(s.Gates, g)
}

// k6SummaryCount is a counter's, which without samples is 0. All else that the samples
// do not have was not measured: a summary has zeros there.
func k6SummaryCount(c k6Condition, values map[string]json.RawMessage) *float64 {
	if _, counter := values["count"]; !counter {
		return nil
	}
	var v *float64
	if json.Unmarshal(values[c.method], &v) != nil {
		return nil
	}
	return v
}
