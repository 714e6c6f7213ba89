package verdict

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// told is what one k6 said of a stage: at seconds and with lengths in turn.
func told(labels string, points ...float64) promSeries {
	s := promSeries{labels: map[string]string{"__name__": "k6_stage_seconds"}}
	for pair := range strings.FieldsSeq(labels) {
		k, v, _ := strings.Cut(pair, "=")
		s.labels[k] = v
	}
	for i := 0; i < len(points); i += 2 {
		s.points = append(s.points, Point{time.Unix(int64(points[i]), 0), points[i+1]})
	}
	return s
}

// Runs are told from each other, whatever became of them.
func TestRuns(t *testing.T) {
	baseline := func(pod string, begins ...float64) (all []promSeries) {
		for i, users := range []string{"users_10", "users_50", "users_100"} {
			var points []float64
			for _, b := range begins {
				points = append(points, b+150*float64(i), 120)
			}
			all = append(all, told(fmt.Sprintf("script=baseline scenario=%s job_name=baseline-%[2]s instance_id=%[2]s", users, pod), points...))
		}
		return all
	}
	for _, c := range []struct {
		name   string
		answer []promSeries
		want   string // script: stages from-to, of each run
	}{
		{"nothing", nil, ""},
		{"one", baseline("1", 0), "baseline: users_10 0-120, users_50 150-270, users_100 300-420"},
		{"two pods, not quite at once", append(baseline("1", 0), baseline("2", 3)...), "baseline: users_10 0-120, users_50 150-270, users_100 300-420"},
		{"a pod without users in the first stage", append(baseline("1", 0), baseline("2", 3)[1:]...), "baseline: users_10 0-120, users_50 150-270, users_100 300-420"},
		{"ten pods", append(baseline("1", 0), baseline("10", 3)...), "baseline: users_10 0-120, users_50 150-270, users_100 300-420"},
		{"two jobs at once, whose names are numbers", []promSeries{told("script=baseline scenario=users_10 job_name=run-1", 0, 120), told("script=baseline scenario=users_10 job_name=run-2", 3, 120)}, "baseline: users_10 0-120; baseline: users_10 3-123"},
		{"one after the other", baseline("1", 0, 430), "baseline: users_10 0-120, users_50 150-270, users_100 300-420; baseline: users_10 430-550, users_50 580-700, users_100 730-850"},
		{"two pods, one after the other", append(baseline("1", 0, 500), baseline("2", 3, 502)...), "baseline: users_10 0-120, users_50 150-270, users_100 300-420; baseline: users_10 500-620, users_50 650-770, users_100 800-920"},
		{"another k6, one after the other", append(baseline("1", 0), baseline("3", 430)...), "baseline: users_10 0-120, users_50 150-270, users_100 300-420; baseline: users_10 430-550, users_50 580-700, users_100 730-850"},
		{"begun again after some seconds", []promSeries{told("script=baseline scenario=users_10", 0, 120, 20, 120), told("script=baseline scenario=users_50", 170, 120)}, "baseline: users_10 0-120; baseline: users_10 20-140, users_50 170-290"},
		{"the end of one that began long ago", []promSeries{told("script=baseline scenario=users_100", 0, 120), told("script=baseline scenario=users_10", 4000, 120)}, "baseline: users_100 0-120; baseline: users_10 4000-4120"},
		{"a smoke run after it", []promSeries{told("script=baseline scenario=users_10", 0, 120), told("script=baseline scenario=users_50 run=smoke", 130, 1)}, "baseline: users_10 0-120; baseline smoke: users_50 130-131"},
		{"two tests at once", []promSeries{told("script=soak scenario=soak", 0, 1800), told("script=spike stage=calm", 10, 60), told("script=spike stage=spike", 70, 60)}, "soak: soak 0-1800; spike: calm 10-70, spike 70-130"},
		{"parts of a scenario", []promSeries{told("script=soak stage=first_third begins=0", 0, 600), told("script=soak stage=middle_third begins=600", 0, 600), told("script=soak stage=last_third begins=1200", 0, 600)}, "soak: first_third 0-600, middle_third 600-1200, last_third 1200-1800"},
		{"parts, begun again", []promSeries{told("script=soak stage=first_third begins=0", 0, 600, 100, 600), told("script=soak stage=last_third begins=600", 0, 600, 100, 600)}, "soak: first_third 0-600, last_third 600-1200; soak: first_third 100-700, last_third 700-1300"},
		{"a step that broke off", []promSeries{told("script=sweep stage=rate_1", 0, 30), told("script=sweep stage=rate_2", 31, 30, 43, 12), told("script=sweep stage=rate_1.5", 50, 30)}, "sweep: rate_1 0-30, rate_2 31-43, rate_1.5 50-80"},
		{"a step that broke off, and had answers to come", []promSeries{told("script=sweep stage=rate_1", 0, 30), told("script=sweep stage=rate_2", 31, 30, 70, 12), told("script=sweep stage=rate_1.5", 71, 30)}, "sweep: rate_1 0-30, rate_2 31-43, rate_1.5 71-101"},
		{"a sweep at other rates, minutes later", []promSeries{told("script=sweep stage=rate_1", 0, 30), told("script=sweep stage=rate_2", 31, 30, 41, 10), told("script=sweep stage=rate_3", 341, 30), told("script=sweep stage=rate_6", 372, 30)}, "sweep: rate_1 0-30, rate_2 31-41; sweep: rate_3 341-371, rate_6 372-402"},
		{"a step whose last answers took their time", []promSeries{told("script=sweep stage=rate_1", 0, 30), told("script=sweep stage=rate_2", 140, 30)}, "sweep: rate_1 0-30, rate_2 140-170"},
		{"a step that broke off between two pushes", []promSeries{told("script=sweep stage=rate_1", 0, 30), told("script=sweep stage=rate_2", 34, 3)}, "sweep: rate_1 0-30, rate_2 31-34"},
		{"a sweep again", []promSeries{told("script=sweep stage=rate_1", 0, 30, 90, 30), told("script=sweep stage=rate_2", 31, 30, 43, 12, 121, 30, 131, 10)}, "sweep: rate_1 0-30, rate_2 31-43; sweep: rate_1 90-120, rate_2 121-131"},
		{"a sweep again whose first step broke off between two pushes", []promSeries{told("script=sweep stage=rate_1", 0, 30, 300, 4), told("script=sweep stage=rate_2", 31, 30)}, "sweep: rate_1 0-30, rate_2 31-61; sweep: rate_1 300-304"},
		{"no lengths", []promSeries{told("script=baseline scenario=users_10", 0, math.NaN(), 5, -1, 6, 1e12)}, ""},
		{"no beginning that could be", []promSeries{told("script=soak stage=a begins=never", 5, 10)}, "soak: a 5-15"},
	} {
		var runs []string
		for _, r := range promRuns(c.answer) {
			var stages []string
			for _, s := range r.order {
				stages = append(stages, fmt.Sprintf("%s %d-%d", s.name, s.begins.Unix(), s.ends().Unix()))
			}
			name := r.labels["script"]
			if r.verdict().Smoke {
				name += " smoke"
			}
			runs = append(runs, name+": "+strings.Join(stages, ", "))
		}
		if got := strings.Join(runs, "; "); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.want)
		}
	}
}

// promSaying is a Prometheus that answers each query by the first key that is in it.
func promSaying(t *testing.T, answers map[string]string) *Prometheus {
	return promServer(t, func(w http.ResponseWriter, r *http.Request) {
		query := r.PostFormValue("query")
		result := "[]"
		for _, key := range slices.Sorted(maps.Keys(answers)) {
			if strings.Contains(query, key) {
				result = answers[key]
				break
			}
		}
		kind := "vector"
		if strings.Contains(result, `"values"`) {
			kind = "matrix"
		}
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":%q,"result":%s}}`, kind, result)
	})
}

// points is an answer of one series.
func points(labels map[string]string, pairs ...float64) string {
	type series struct {
		Metric map[string]string `json:"metric"`
		Values [][2]any          `json:"values"`
	}
	s := series{Metric: labels}
	for i := 0; i < len(pairs); i += 2 {
		s.Values = append(s.Values, [2]any{pairs[i], fmt.Sprint(pairs[i+1])})
	}
	b, _ := json.Marshal([]series{s})
	return string(b)
}

// The last run is taken, and no more of it than there was.
func TestLastRun(t *testing.T) {
	now := float64(time.Now().Unix())
	sweep := func(ago, lasts float64) string {
		return points(map[string]string{"script": "sweep", "stage": "rate_1", "run": "smoke"}, now-ago, lasts)
	}
	for _, c := range []struct {
		name    string
		answers map[string]string
		err     string
		ends    float64 // seconds from now
		limit   *float64
		missing string
	}{
		{"nothing", nil, "has no load test of the last 3h", 0, nil, ""},
		{"one that is too old", map[string]string{"k6_stage_seconds": sweep(4*3600, 30)}, "has no load test of the last 3h", 0, nil, ""},
		{"one that began before and reaches in", map[string]string{"k6_stage_seconds": sweep(4*3600, 2*3600), "k6_limit_rps": points(map[string]string{"run": "smoke"}, now-9000, 4)}, "", -2 * 3600, pointer(4), ""},
		{"a sweep", map[string]string{"k6_stage_seconds": sweep(60, 30), "k6_limit_rps": points(map[string]string{"run": "smoke"}, now-30, 0, now-10, 56)}, "", -30, pointer(56), ""},
		{"a sweep beside another's limit", map[string]string{"k6_stage_seconds": sweep(60, 30), "k6_limit_rps": points(map[string]string{"job_name": "another"}, now-30, 8)}, "", -30, nil, "before its first step did"},
		{"a sweep of k6-operator's", map[string]string{"k6_stage_seconds": sweep(60, 30), "k6_limit_rps": points(nil, now-30, 8)}, "", -30, pointer(8), ""},
		{"a sweep of a pod", map[string]string{
			"k6_stage_seconds": points(map[string]string{"script": "sweep", "stage": "rate_1", "run": "smoke", "job_name": "sweep-1", "instance_id": "1"}, now-60, 30),
			"k6_limit_rps":     points(map[string]string{"job_name": "sweep-2", "instance_id": "2"}, now-30, 8),
		}, "", -30, pointer(8), ""},
		{"goes on", map[string]string{"k6_stage_seconds": sweep(60, 600), "k6_vus": points(nil, now, now-2)}, "", 0, nil, "The run goes on, until"},
		{"ended early", map[string]string{"k6_stage_seconds": sweep(600, 500), "k6_vus": points(nil, now, now-400)}, "", -400, nil, "k6 ended at"},
		{"ended as planned", map[string]string{"k6_stage_seconds": sweep(600, 500), "k6_vus": points(nil, now, now-106), "k6_limit_rps": points(map[string]string{"run": "smoke"}, now-100, 2)}, "", -100, pointer(2), ""},
	} {
		p := promSaying(t, c.answers)
		v, err := p.LastRun(t.Context(), 3*time.Hour)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), p.String()) {
				t.Errorf("%s: the error is %v, want %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if ends := float64(v.End.Unix()) - now; math.Abs(ends-c.ends) > 3 || len(v.Stages) != 1 || !v.Stages[0].End.Equal(v.End) || !v.Smoke {
			t.Errorf("%s: ends after %v s, want %v; stages %+v", c.name, ends, c.ends, v.Stages)
		}
		if (v.Limit == nil) != (c.limit == nil) || value(v.Limit) != value(c.limit) {
			t.Errorf("%s: the limit is %v, want %v", c.name, value(v.Limit), value(c.limit))
		}
		if text := strings.Join(v.Missing[1:], " "); !strings.Contains(text, c.missing) || c.missing == "" && text != "" {
			t.Errorf("%s: missing is %q, want %q", c.name, text, c.missing)
		}
	}
	down := promServer(t, promSays(503, "text/plain", "starting"))
	if _, err := down.LastRun(t.Context(), time.Hour); err == nil || !strings.Contains(err.Error(), "is not ready (503 Service Unavailable): starting: set --prometheus") {
		t.Errorf("the error is %v", err)
	}
}

// Whether a gate holds is exact at the edge, and nothing holds of nothing.
func TestGatesOfTheGateway(t *testing.T) {
	inf := math.Inf(1)
	ttft := func(within2, within3 float64) *promBuckets { // of 1000
		return &promBuckets{edges: []float64{0.1, 1, 2, 3, 640, inf}, below: []float64{0, 100, within2, within3, 1000, 1000}, sum: 500}
	}
	took := func(within5, within10 float64) *promBuckets {
		return &promBuckets{edges: []float64{1, 5, 10, 15, inf}, below: []float64{100, within5, within10, 1000, 1000}, sum: 3000}
	}
	good := promWhole{
		ttft: ttft(950, 990), duration: took(950, 990),
		speed:  &promBuckets{edges: []float64{30, inf}, below: []float64{10, 1000}, sum: 31000},
		counts: promCounts{outcomes: map[string]float64{"ok": 960, "cancelled": 20, "timeout": 20}},
	}
	for _, c := range []struct {
		script string
		spoil  func(*promWhole)
		failed string
		n      int
	}{
		{"baseline", func(*promWhole) {}, "", 6},
		{"baseline", func(w *promWhole) { w.ttft = ttft(949, 990) }, "gateway_time_to_first_token_seconds p(95)<2", 6},
		{"baseline", func(w *promWhole) { w.ttft = ttft(950, 989) }, "gateway_time_to_first_token_seconds p(99)<3", 6},
		{"trace", func(w *promWhole) { w.ttft = ttft(950, 989) }, "", 3},
		{"compare", func(w *promWhole) { w.ttft = ttft(949, 990) }, "gateway_time_to_first_token_seconds p(95)<2", 3},
		{"baseline", func(w *promWhole) { w.duration = took(949, 989) }, "gateway_request_duration_seconds p(95)<5, gateway_request_duration_seconds p(99)<10", 6},
		{"baseline", func(w *promWhole) { w.speed.sum = 30000 }, "gateway_tokens_per_second avg>30", 6},
		{"baseline", func(w *promWhole) { w.counts.outcomes["ok"] = 760 }, `gateway_requests_total{outcome!="ok"} rate<0.05`, 6},
		{"prefix", func(w *promWhole) { *w = promWhole{} }, `gateway_time_to_first_token_seconds p(95)<2, gateway_tokens_per_second avg>30, gateway_requests_total{outcome!="ok"} rate<0.05`, 3},
		{"prefix", func(w *promWhole) { w.ttft.below = make([]float64, 6) }, "gateway_time_to_first_token_seconds p(95)<2", 3},
		{"sweep", func(*promWhole) {}, "k6_limit_rps value>0", 1},
	} {
		whole := good
		speed := *good.speed
		whole.speed, whole.counts = &speed, promCounts{outcomes: maps.Clone(good.counts.outcomes)}
		c.spoil(&whole)
		f := &promFill{v: &Verdict{Script: c.script, byGateway: true}, of: whole}
		f.gates()
		var failed []string
		for _, g := range f.v.Gates {
			if !g.Held {
				failed = append(failed, g.Metric+" "+g.Condition)
			}
		}
		if got := strings.Join(failed, ", "); got != c.failed || len(f.v.Gates) != c.n {
			t.Errorf("%s: of %d gates these did not hold: %s\nwant %d and %s", c.script, len(f.v.Gates), got, c.n, c.failed)
		}
		if err := WriteJSON(io.Discard, f.v); err != nil {
			t.Error(err)
		}
	}
	f := &promFill{v: &Verdict{Script: "baseline", Gates: []Gate{{"ttft_ms", "p(95)<2000", pointer(1), true}}}}
	if f.gates(); len(f.v.Gates) != 1 {
		t.Errorf("k6's own gates became %+v", f.v.Gates)
	}
}

// promRunOf is a run of a script whose stages had these times to first token and speeds.
func promRunOf(script string, objective promObjective, ttft map[string]*promBuckets, speeds map[string]float64) *promFill {
	f := &promFill{v: &Verdict{Script: script, byGateway: true, objective: objective}, ttftOf: map[*Stage]*promBuckets{}}
	for _, name := range slices.Sorted(maps.Keys(ttft)) {
		f.v.Stages = append(f.v.Stages, Stage{Name: name, Server: &Server{}})
		if mean, ok := speeds[name]; ok {
			f.v.Stages[len(f.v.Stages)-1].Server.Speed = &Spread{N: 10, Mean: mean}
		}
	}
	for i := range f.v.Stages {
		f.ttftOf[&f.v.Stages[i]] = ttft[f.v.Stages[i].Name]
	}
	all := promBuckets{edges: []float64{1.5, 2, 3, math.Inf(1)}, below: []float64{900, 940, 1000, 1000}, sum: 1e3}
	f.of = promWhole{ttft: &all, speed: &promBuckets{edges: []float64{30, math.Inf(1)}, below: []float64{500, 1000}, sum: 35e3}, counts: promCounts{outcomes: map[string]float64{"ok": 1}}}
	f.gates()
	return f
}

// What a script asks of a part of its run, and what it was told to ask, is asked of the
// gateway's figures.
func TestGatesOfEachScript(t *testing.T) {
	in := func(low, high float64) *promBuckets { // 100 requests, all in one bucket
		return &promBuckets{edges: []float64{low, high, math.Inf(1)}, below: []float64{0, 100, 100}}
	}
	soak := func(first, last *promBuckets, speed float64) *promFill {
		return promRunOf("soak", promObjective{}, map[string]*promBuckets{"first_third": first, "last_third": last}, map[string]float64{"first_third": 100, "last_third": speed})
	}
	nearly := &promBuckets{edges: []float64{1.5, 2, math.Inf(1)}, below: []float64{94, 97, 100}} // p95 is 1.67
	for _, c := range []struct {
		name   string
		f      *promFill
		failed string
		n      int
		unsure string
	}{
		{"a spike that hurts while it lasts", promRunOf("spike", promObjective{}, map[string]*promBuckets{"calm": in(0.1, 0.2), "spike": in(3, 4), "after": in(0.1, 0.2)}, nil), "", 4, ""},
		{"a spike that is felt afterwards", promRunOf("spike", promObjective{}, map[string]*promBuckets{"calm": in(0.1, 0.2), "spike": in(3, 4), "after": in(2, 3)}, nil), "gateway_time_to_first_token_seconds{stage:after} p(95)<2 is 2.95", 4, ""},
		{"a spike that ended before its time", promRunOf("spike", promObjective{}, map[string]*promBuckets{"calm": in(0.1, 0.2)}, nil), "gateway_time_to_first_token_seconds{stage:after} p(95)<2 was not measured", 4, ""},
		{"a spike with an objective of its own", promRunOf("spike", promObjective{ttftP95: 200}, map[string]*promBuckets{"calm": in(0.1, 0.2), "after": in(0.2, 0.3)}, nil), "gateway_time_to_first_token_seconds{stage:after} p(95)<0.2 is 0.295", 4, ""},
		{"a trace", promRunOf("trace", promObjective{}, nil, nil), "gateway_time_to_first_token_seconds p(95)<2 is 2.167", 3, ""},
		{"a trace with an objective of its own", promRunOf("trace", promObjective{ttftP95: 3000, speed: 35}, nil, nil), "gateway_tokens_per_second avg>35 is 35", 3, ""},
		{"a baseline, which is not asked for it", promRunOf("baseline", promObjective{ttftP95: 9000, speed: 90}, nil, nil), "gateway_request_duration_seconds p(95)<5 was not measured, gateway_request_duration_seconds p(99)<10 was not measured, gateway_time_to_first_token_seconds p(95)<2 is 2.167", 6, ""},
		{"an objective between two edges", promRunOf("spike", promObjective{ttftP95: 1700}, map[string]*promBuckets{"calm": nearly, "after": nearly}, nil), "", 4, "gateway_time_to_first_token_seconds{stage:calm} p(95)<1.7 and gateway_time_to_first_token_seconds{stage:after} p(95)<1.7"},
		{"one that is missed between two edges", promRunOf("spike", promObjective{ttftP95: 1600}, map[string]*promBuckets{"calm": in(0.1, 0.2), "after": nearly}, nil), "gateway_time_to_first_token_seconds{stage:after} p(95)<1.6 is 1.667", 4, "gateway_time_to_first_token_seconds{stage:after} p(95)<1.6"},
		{"a soak", soak(in(0.2, 0.2), in(0.2, 0.2), 90), "gateway_time_to_first_token_seconds p(95)<2 is 2.167", 5, ""},
		{"a soak that grows slow", soak(in(0.2, 0.2), in(0.3, 0.3), 80), "gateway_time_to_first_token_seconds p(95)<2 is 2.167, ttft_drift value<1.25 is 1.5, speed_drift value>0.8 is 0.8", 5, ""},
		{"a soak that nobody notices", soak(in(0.01, 0.01), in(0.06, 0.06), 100), "gateway_time_to_first_token_seconds p(95)<2 is 2.167", 5, ""},
		{"a soak of coarse buckets", soak(in(0.2, 0.25), in(0.25, 0.3), 100), "gateway_time_to_first_token_seconds p(95)<2 is 2.167", 5, "ttft_drift value<1.25"},
		{"a soak that ended before its time", promRunOf("soak", promObjective{}, map[string]*promBuckets{"first_third": in(0.1, 0.2)}, nil), "gateway_time_to_first_token_seconds p(95)<2 is 2.167, ttft_drift value<1.25 was not measured, speed_drift value>0.8 was not measured", 5, ""},
	} {
		var failed []string
		for _, g := range c.f.v.Gates {
			if !g.Held && g.Value == nil {
				failed = append(failed, fmt.Sprintf("%s %s was not measured", g.Metric, g.Condition))
			} else if !g.Held {
				failed = append(failed, fmt.Sprintf("%s %s is %.4g", g.Metric, g.Condition, *g.Value))
			}
		}
		if got := strings.Join(failed, ", "); got != c.failed || len(c.f.v.Gates) != c.n {
			t.Errorf("%s: of %d gates these did not hold: %s\nwant %d and %s", c.name, len(c.f.v.Gates), got, c.n, c.failed)
		}
		var missing []string
		if c.unsure != "" {
			missing = []string{"Whether " + c.unsure + " held is not known for sure: the gateway's histograms have an edge below and one above, and what is interpolated between them decided."}
		}
		if !slices.Equal(c.f.v.Missing, missing) {
			t.Errorf("%s: missing is %q, want %q", c.name, c.f.v.Missing, missing)
		}
	}
}

// The limit that a sweep was to find is what it says that it wants.
func TestGateOfASweep(t *testing.T) {
	for _, c := range []struct {
		atLeast float64
		limit   *float64
		want    Gate
	}{
		{0, pointer(0.5), Gate{"k6_limit_rps", "value>0", pointer(0.5), true}},
		{0, nil, Gate{"k6_limit_rps", "value>0", nil, false}},
		{4, pointer(4), Gate{"k6_limit_rps", "value>=4", pointer(4), true}},
		{4, pointer(3.9), Gate{"k6_limit_rps", "value>=4", pointer(3.9), false}},
		{4, nil, Gate{"k6_limit_rps", "value>=4", nil, false}},
	} {
		f := &promFill{v: &Verdict{Script: "sweep", byGateway: true, objective: promObjective{atLeast: c.atLeast}, Limit: c.limit}}
		if f.gates(); !reflect.DeepEqual(f.v.Gates, []Gate{c.want}) {
			t.Errorf("at least %g of %v: %+v", c.atLeast, value(c.limit), f.v.Gates)
		}
	}
}

// An objective is read of a run's stages, and takes no part in what is one run.
func TestObjectiveOfARun(t *testing.T) {
	runs := promRuns([]promSeries{
		told("script=sweep stage=rate_1 ttft_p95_ms=500 min_tokens_per_second=12.5 at_least=4", 0, 30),
		told("script=sweep stage=rate_2 ttft_p95_ms=500 min_tokens_per_second=12.5", 31, 30),
		told("script=soak stage=first_third ttft_p95_ms=never min_tokens_per_second=-1 at_least=NaN", 0, 30),
	})
	if len(runs) != 2 {
		t.Fatalf("%d runs, want 2", len(runs))
	}
	for i, want := range []promObjective{{500, 12.5, 4}, {}} {
		if got := runs[i].verdict().objective; got != want {
			t.Errorf("%s wants %+v, want %+v", runs[i].labels["script"], got, want)
		}
	}
}

// A side's hits are of its own stages, by their tokens.
func TestSidesHits(t *testing.T) {
	stages := []Stage{{Side: "own"}, {Side: "shared"}, {Side: "shared"}, {Side: "shared"}}
	counts := func(hits, asked float64) promCounts {
		return promCounts{one: map[string]float64{"hits": hits, "asked": asked}}
	}
	f := &promFill{v: &Verdict{Sides: []Side{{Name: "own"}, {Name: "shared"}, {Name: "other"}}}, ofStage: map[*Stage]promCounts{
		&stages[0]: counts(0, 1000), &stages[1]: counts(900, 1000), &stages[2]: counts(500, 3000), &stages[3]: {},
	}}
	f.sides()
	if own, shared, other := f.v.Sides[0].Hits, f.v.Sides[1].Hits, f.v.Sides[2].Hits; own == nil || *own != 0 || shared == nil || *shared != 0.35 || other != nil {
		t.Errorf("hits are %v, %v, %v, want 0, 0.35 and none", value(own), value(shared), other)
	}
}

// A question that is refused does not spoil the others, and is told of once.
func TestOneRefusal(t *testing.T) {
	start := time.Unix(1764000000, 0)
	p := promServer(t, func(w http.ResponseWriter, r *http.Request) {
		query := r.PostFormValue("query")
		switch {
		case strings.Contains(query, "kv_cache") || strings.Contains(query, "duty"):
			if !strings.Contains(query, "count_over_time") {
				w.WriteHeader(http.StatusUnprocessableEntity)
				io.WriteString(w, `{"status":"error","errorType":"execution","error":"query processing would load too many samples"}`)
				return
			}
			io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"of":"gateway_rps"},"value":[1764000120,"24"]},{"metric":{"of":"nvidia_gpu_duty_cycle"},"value":[1764000120,"24"]},{"metric":{"of":"vllm:num_requests_waiting"},"value":[1764000120,"24"]},{"metric":{"of":"gateway:diagnosis"},"value":[1764000120,"24"]}]}}`)
		case r.URL.Path == "/api/v1/query_range":
			fmt.Fprintf(w, `{"status":"success","data":{"resultType":"matrix","result":%s}}`, points(nil, 1764000030, 3, 1764000060, 5))
		default:
			io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"outcome":"ok"},"value":[1764000120,"99.6"]}]}}`)
		}
	})
	v := &Verdict{Stages: []Stage{{Name: "a", Start: start, End: start.Add(2 * time.Minute)}}}
	p.Fill(t.Context(), v)
	m := v.Stages[0].Server
	if m == nil || m.Queue == nil || m.Queue.Mean != 4 || m.Outcomes["ok"] != 100 || m.KVCache != nil || m.GPU != nil {
		t.Errorf("the stage has %+v", m)
	}
	if len(v.Missing) != 1 || !strings.Contains(v.Missing[0], " answered only 15 of 18 questions. Asked about ") || !strings.HasSuffix(v.Missing[0], " it refuses the question: query processing would load too many samples.") {
		t.Errorf("missing is %q", v.Missing)
	}
	for _, s := range v.Series {
		if len(s.Points) != 3 || !math.IsNaN(s.Points[1].Value) { // half a minute apart, with a gap between
			t.Errorf("%s, %s: %v", s.Panel, s.Name, s.Points)
		}
	}
}

// What a Prometheus does not have is said in a sentence each, with what to do.
func TestWhatIsNotThere(t *testing.T) {
	all := []string{"gateway_rps", "nvidia_gpu_duty_cycle", "vllm:num_requests_waiting", "gateway:diagnosis"}
	for _, c := range []struct {
		without []string
		says    []string // in order
	}{
		{nil, nil},
		{[]string{"nvidia_gpu_duty_cycle"}, []string{"Run gpu-exporter beside them, and let it scrape :9835/metrics."}},
		{[]string{"vllm:num_requests_waiting"}, []string{"Let it scrape the backends' /metrics."}},
		{[]string{"gateway:diagnosis"}, []string{"Give it alerts/recording.yml."}},
		{all, []string{"Let it scrape the gateway's :9000/metrics", "Run gpu-exporter", "the backends' /metrics"}},
	} {
		var there []string
		for _, metric := range all {
			if !slices.Contains(c.without, metric) {
				there = append(there, fmt.Sprintf(`{"metric":{"of":%q},"value":[1764000120,"24"]}`, metric))
			}
		}
		p := promSaying(t, map[string]string{"count_over_time": "[" + strings.Join(there, ",") + "]"})
		start := time.Unix(1764000000, 0)
		v := &Verdict{Script: "baseline", byGateway: true, Stages: []Stage{{Name: "a", Start: start, End: start.Add(time.Minute)}, {Name: "b", Start: start.Add(time.Minute), End: start.Add(2 * time.Minute)}}}
		p.Fill(t.Context(), v)
		ok := len(v.Missing) == len(c.says)
		for i := range v.Missing {
			ok = ok && strings.Contains(v.Missing[i], c.says[i]) && strings.Contains(v.Missing[i], p.String())
		}
		if !ok {
			t.Errorf("without %q missing is %q, want %q", c.without, v.Missing, c.says)
		}
		v.Judge()
		if v.Passed || len(v.Gates) != 6 || v.Stages[0].Server != nil || v.Stages[0].State != Unmeasured {
			t.Errorf("without %q: gates %+v, stage %+v", c.without, v.Gates, v.Stages[0])
		}
	}
}
