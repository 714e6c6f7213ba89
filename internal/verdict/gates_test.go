package verdict

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
)

// k6Summary is what --summary-export writes.
type k6Summary struct {
	Metrics map[string]map[string]json.RawMessage
}

func (s k6Summary) thresholds(metric string) map[string]bool {
	var crossed map[string]bool
	json.Unmarshal(s.Metrics[metric]["thresholds"], &crossed)
	return crossed
}

func k6SummaryOf(t *testing.T, name string) (raw []byte, s k6Summary) {
	t.Helper()
	raw = k6Unpacked(t, name+"-summary")
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	return raw, s
}

func k6Near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(a), math.Abs(b)) }

// What k6 sums up and what this does of the same run's samples is the same, for whole
// metrics and for parts.
func TestGatesSumUpAsK6Does(t *testing.T) {
	for _, run := range []string{"1.8.1", "2.2.0", "1.8.1-failing", "2.2.0-failing"} {
		t.Run(run, func(t *testing.T) {
			s := k6Read(t, k6File(t, run))
			_, summary := k6SummaryOf(t, run)
			compared := 0
			for metric, values := range summary.Metrics {
				sink := s.sinks[metric]
				if sink == nil {
					continue
				}
				for key, raw := range values {
					var want float64
					if json.Unmarshal(raw, &want) != nil || sink.kind == "rate" && key != "value" || sink.kind == "counter" && key != "count" {
						continue // "passes", "thresholds"; a counter's rate is below
					}
					if sink.kind == "rate" {
						key = "rate"
					}
					c, ok := k6ConditionOf(key + ">0")
					if !ok {
						t.Fatalf("%s of %s is not known", key, metric)
					}
					if got, _ := sink.value(c, 0); !k6Near(got, want) {
						t.Errorf("%s of %s is %v, and k6 has %v", key, metric, got, want)
					}
					compared++
				}
			}
			if min := 5; compared < min {
				t.Errorf("compared %d values, want %d at least", compared, min)
			}
		})
	}
}

// The samples alone tell some gates, and with k6's summary all, each as k6 judged it.
func TestGatesAgreeWithK6(t *testing.T) {
	for _, run := range []string{"1.8.1", "2.2.0", "1.8.1-failing", "2.2.0-failing"} {
		t.Run(run, func(t *testing.T) {
			s := k6Read(t, k6File(t, run))
			raw, summary := k6SummaryOf(t, run)
			judged := func(when string) {
				for _, g := range s.Gates {
					crossed, ok := summary.thresholds(g.Metric)[g.Condition]
					if !ok || g.Held == crossed {
						t.Errorf("%s: %s %s held: %t, and k6 says %t (there: %t)", when, g.Metric, g.Condition, g.Held, !crossed, ok)
					}
					c, _ := k6ConditionOf(g.Condition)
					if c.holds(value(g.Value)) != g.Held {
						t.Errorf("%s: %s %s: %g does not go with held=%t", when, g.Metric, g.Condition, value(g.Value), g.Held)
					}
				}
			}
			judged("samples alone")
			if !s.Verdict().Unseen || len(s.Gates) == 0 || !strings.Contains(strings.Join(s.Missing, "\n"), "--summary-export") {
				t.Errorf("%d gates, missing %q: want some, and how to have the rest", len(s.Gates), s.Missing)
			}
			if err := s.ReadSummary(bytes.NewReader(raw)); err != nil {
				t.Fatal(err)
			}
			judged("with summary")
			all := 0
			for metric := range summary.Metrics {
				all += len(summary.thresholds(metric))
			}
			if len(s.Gates) != all || len(s.Missing) != 0 || s.Verdict().Unseen {
				t.Errorf("%d gates of %d, missing %q, want all and none", len(s.Gates), all, s.Missing)
			}
		})
	}
}

// A gate over nothing fails a run at k6, and no sample tells it.
func TestGatesOfMetricsWithoutSamples(t *testing.T) {
	for _, version := range k6Versions {
		raw, _ := k6SummaryOf(t, version+"-failing")
		s := k6Read(t, k6File(t, version+"-failing"))
		if err := s.ReadSummary(bytes.NewReader(raw)); err != nil {
			t.Fatal(err)
		}
		var failed []string
		for _, g := range s.Gates {
			if !g.Held {
				failed = append(failed, g.Metric+" "+g.Condition)
			}
		}
		if got, want := strings.Join(failed, ", "), "failed_requests rate<0.05, http_reqs{scenario:nope} count>0, tokens_per_second avg>30, ttft_ms avg>0"; got != want {
			t.Errorf("k6 %s: failed are %s, want %s", version, got, want)
		}
		var measured []string
		for _, g := range s.Gates {
			if g.Value != nil {
				measured = append(measured, g.Metric)
			}
		}
		if got, want := strings.Join(measured, ", "), "failed_requests, http_reqs, http_reqs{scenario:nope}, http_reqs{scenario:u}"; got != want {
			t.Errorf("k6 %s: measured are %s, want %s", version, got, want)
		}
	}
}

// A counter's rate is over the run, whose length the samples tell well enough.
func TestGatesCounterRate(t *testing.T) {
	for _, version := range k6Versions {
		s := k6Read(t, k6File(t, version))
		_, summary := k6SummaryOf(t, version)
		var want float64
		if err := json.Unmarshal(summary.Metrics["http_reqs"]["rate"], &want); err != nil {
			t.Fatal(err)
		}
		got, _ := s.sinks["http_reqs"].value(k6Condition{method: "rate"}, s.End.Sub(s.Start))
		if math.Abs(got-want) > 0.02*want {
			t.Errorf("k6 %s: http_reqs a second are %g, and k6 has %g", version, got, want)
		}
	}
}

func TestGatesConditions(t *testing.T) {
	trend := &k6Sink{kind: "trend"}
	for _, v := range []float64{40, 10, 30, 20} {
		trend.add(v, nil)
	}
	rate := &k6Sink{kind: "rate"}
	for _, v := range []float64{1, 0, 2, 0} {
		rate.add(v, nil)
	}
	gauge := &k6Sink{kind: "gauge"}
	gauge.add(7, nil)
	gauge.add(3, nil)
	for _, c := range []struct {
		sink      *k6Sink
		condition string
		value     float64
		holds     bool
	}{
		{trend, "avg<26", 25, true},
		{trend, "min>=10", 10, true},
		{trend, "max<40", 40, false},
		{trend, "med==25", 25, true},
		{trend, "p(95)<38", 38.5, false},
		{trend, "p(99.9) <= 40", 39.97, true},
		{trend, "p(0)===10", 10, true},
		{trend, "p(100)!=40", 40, false},
		{rate, "rate>0.5", 0.5, false},
		{gauge, "value>=3", 3, true},
		{&k6Sink{kind: "trend"}, "avg>0", 0, false},
		{&k6Sink{kind: "trend"}, "p(95)<5", 0, true},
	} {
		condition, ok := k6ConditionOf(c.condition)
		if !ok {
			t.Errorf("%s is not known", c.condition)
			continue
		}
		if v, _ := c.sink.value(condition, 0); !k6Near(v, c.value) || condition.holds(v) != c.holds {
			t.Errorf("%s of %v is %g and holds: %t, want %g, %t", c.condition, c.sink.values, v, condition.holds(v), c.value, c.holds)
		}
	}
	for _, text := range []string{"", "p95<3", "p(101)<3", "p(NaN)<3", "avg<5s", "avg<NaN", "avg=<3", "avg>"} {
		if c, ok := k6ConditionOf(text); ok {
			t.Errorf("%q is understood as %+v", text, c)
		}
	}
}

// A condition that is not known here is k6's to judge.
func TestGatesOfAnotherForm(t *testing.T) {
	s := k6Read(t, []byte(`{"type":"Metric","metric":"ttft_ms","data":{"type":"trend","thresholds":["p95<3"],"submetrics":null}}`+"\n"+
		`{"metric":"ttft_ms","type":"Point","data":{"time":"2026-03-01T12:00:00Z","value":1,"tags":{}}}`+"\n"))
	if v := s.Verdict(); !v.Unseen || len(v.Gates) != 0 || !strings.HasPrefix(v.Missing[0], `The gate ttft_ms "p95<3" was not judged`) {
		t.Errorf("%+v", v)
	}
	if err := s.ReadSummary(strings.NewReader(`{"metrics":{"ttft_ms":{"avg":1,"thresholds":{"p95<3":false}}}}`)); err != nil {
		t.Fatal(err)
	}
	if v := s.Verdict(); v.Unseen || len(v.Gates) != 1 || !v.Gates[0].Held || v.Gates[0].Value != nil || strings.Contains(strings.Join(v.Missing, ""), "judged") {
		t.Errorf("with a summary: %+v", v)
	}
}

func TestGatesNoSummary(t *testing.T) {
	s := k6Read(t, k6File(t, "1.8.1"))
	before := len(s.Gates)
	ofScript := `{"metrics":{"iterations":{"count":1,"thresholds":{"count>0":false}},"ttft_ms":{"type":"trend","values":{"avg":1},"thresholds":{"avg>0":{"ok":true}}}}}` // what handleSummary() is given
	for _, text := range []string{"", "[]", "{}", "text", ofScript} {
		if err := s.ReadSummary(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "--summary-export") {
			t.Errorf("of %q the error is %v, want what to give instead", text, err)
		}
		if len(s.Gates) != before || !s.Verdict().Unseen {
			t.Errorf("%q left its mark", text)
		}
	}
}
