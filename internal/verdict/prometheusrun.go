package verdict

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// promBefore is how far back runs are read beyond what was asked for, so that the last
// one is not mistaken for the end of one whose begin lies further back.
const promBefore = 12 * time.Hour

// LastRun is the last run that k6 wrote to Prometheus as it ran (--out
// experimental-prometheus-rw), one k6 or several at once. Its stages are there, and
// nothing measured yet.
//
// What k6 writes was read in its sources (1.8.1, internal/output/prometheusrw): a gauge
// is one sample at each push in which it was set, at the time when it was last set and
// with that value, and nothing in between; at the end comes a stale marker.
func (p *Prometheus) LastRun(ctx context.Context, since time.Duration) (*Verdict, error) {
	now := time.Now()
	answer, err := p.instant(ctx, "k6_stage_seconds["+promRange(since+promBefore)+"]", now)
	if err != nil {
		return nil, p.unfit(err)
	}
	runs := promRuns(answer)
	runs = slices.DeleteFunc(runs, func(r *promRun) bool { return r.end().Before(now.Add(-since)) })
	if len(runs) == 0 {
		return nil, fmt.Errorf("the Prometheus at %s has no load test of the last %s (no series k6_stage_seconds): name the file of k6 run --out json=FILE; or have k6 run with --out experimental-prometheus-rw and K6_PROMETHEUS_RW_SERVER_URL=%s, which it must allow (--web.enable-remote-write-receiver); or look further back with --since", p, promAgo(since), p.url.JoinPath("api/v1/write").Redacted())
	}
	run := slices.MaxFunc(runs, func(a, b *promRun) int { return a.begin().Compare(b.begin()) })
	v := run.verdict()
	err = p.cut(ctx, v, now)
	if err == nil && v.Script == "sweep" {
		err = p.limit(ctx, v, run, now)
	}
	if err != nil {
		return nil, p.unfit(err)
	}
	return v, nil
}

// cut ends the run where k6 has, or now, if that is before what was planned.
func (p *Prometheus) cut(ctx context.Context, v *Verdict, now time.Time) error {
	last, err := p.instant(ctx, "max(max_over_time(timestamp(k6_vus)["+promRange(v.End.Sub(v.Start))+":5s]))", earlier(v.End, now))
	if err != nil {
		return err
	}
	// k6 says how many users it has at each push, every 5 s, and a look at each 5 s may
	// miss the last of them.
	const unseen = 15 * time.Second
	end := now
	if len(last) > 0 && len(last[0].points) > 0 {
		at := time.UnixMilli(int64(1000 * last[0].last())).UTC()
		if at.Before(earlier(v.End, now).Add(-unseen)) {
			end = at
		}
	}
	switch {
	case !end.Before(v.End):
		return nil
	case end.Equal(now):
		v.Missing = append(v.Missing, fmt.Sprintf("The run goes on, until %s: this is what there is so far.", v.End.Format("15:04:05 MST")))
	default:
		v.Missing = append(v.Missing, fmt.Sprintf("k6 ended at %s, and had planned to go on until %s.", end.Format("15:04:05 MST"), v.End.Format("15:04:05 MST")))
	}
	v.End = end.UTC()
	v.Stages = slices.DeleteFunc(v.Stages, func(s Stage) bool { return !s.Start.Before(end) })
	for i := range v.Stages {
		v.Stages[i].End = earlier(v.Stages[i].End, v.End)
	}
	return nil
}

// limit is what a sweep found, which it says after each step.
func (p *Prometheus) limit(ctx context.Context, v *Verdict, run *promRun, now time.Time) error {
	answer, err := p.instant(ctx, "k6_limit_rps["+promRange(now.Sub(v.Start))+"]", now)
	if err != nil {
		return err
	}
	var newest Point
	for _, s := range answer {
		for _, point := range s.points {
			if run.wrote(s.labels) && !point.At.Before(newest.At) {
				newest = point
			}
		}
	}
	if newest.At.IsZero() || math.IsNaN(newest.Value) {
		v.Missing = append(v.Missing, "The sweep's limit (k6_limit_rps): it ended before its first step did.")
		return nil
	}
	v.Limit = &newest.Value
	return nil
}

// unfit names the Prometheus of an error, and says what to do.
func (p *Prometheus) unfit(err error) error {
	err = fmt.Errorf("the Prometheus at %s %w", p, err)
	if errors.As(err, new(promUnusable)) {
		err = fmt.Errorf("%w: set --prometheus to the one that k6 writes to, or name a file of k6 run --out json=FILE", err)
	}
	return err
}

// promAgo is a duration without its zeros: 3h, 1h30m.
func promAgo(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = strings.TrimSuffix(s, zero[1:])
		}
	}
	return s
}

// promRun is one run of a script.
type promRun struct {
	labels map[string]string // of its first sample
	order  []*promStage
	seen   map[int]bool // series that have announced their stage
}

// promStage is a stage as it was announced.
type promStage struct {
	name, side string
	begins     time.Time
	lasts      time.Duration
	told       int
}

func (s *promStage) ends() time.Time { return s.begins.Add(s.lasts) }

// promObjective is what a run's stages say that the script wants; 0: they say nothing.
type promObjective struct{ ttftP95, speed, atLeast float64 } // ms, tokens/s, requests/s

func promObjectiveOf(labels map[string]string) promObjective {
	of := func(label string) float64 {
		v, err := strconv.ParseFloat(labels[label], 64)
		if err != nil || !(v > 0 && v < 1e9) {
			return 0
		}
		return v
	}
	return promObjective{of("ttft_p95_ms"), of("min_tokens_per_second"), of("at_least")}
}

// promTold is a sample of k6_stage_seconds.
type promTold struct {
	series     int
	labels     map[string]string
	at, begins time.Time
	lasts      time.Duration
}

// promRunLabels are the same for all k6 of one run, as promLabel has them.
var promRunLabels = []string{"script", "run", "job_name", "testid"}

// promLabel is a label without what differs from pod to pod: k6-operator numbers their
// jobs, NAME-1, and has the number once more as instance_id (v0.0.19, pkg/resources/jobs/runner.go).
func promLabel(labels map[string]string, name string) string {
	if name == "job_name" && labels["instance_id"] != "" {
		return strings.TrimSuffix(labels[name], "-"+labels["instance_id"])
	}
	return labels[name]
}

// wrote says whether a series is the run's. k6-operator puts its own tags in the place
// of the script's, so only stages are sure to bear "run".
func (r *promRun) wrote(labels map[string]string) bool {
	for _, l := range promRunLabels[1:] {
		if promLabel(labels, l) != promLabel(r.labels, l) && (l != "run" || labels[l] != "") {
			return false
		}
	}
	return true
}

// promRuns takes what was announced apart into runs.
func promRuns(answer []promSeries) []*promRun {
	var all []promTold
	for i, s := range answer {
		begins, err := strconv.ParseFloat(cmp.Or(s.labels["begins"], "0"), 64)
		if err != nil || !(begins >= 0 && begins < 1e9) {
			begins = 0
		}
		for _, p := range s.points {
			if p.Value >= 0 && p.Value < 1e9 {
				all = append(all, promTold{i, s.labels, p.At, p.At.Add(time.Duration(begins * 1e9)), time.Duration(p.Value * 1e9)})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b promTold) int { return cmp.Or(a.at.Compare(b.at), a.begins.Compare(b.begins)) })
	var runs []*promRun
	current := map[string]*promRun{} // of those that may go on at the same time
	for _, t := range all {
		key := ""
		for _, l := range promRunLabels {
			key += promLabel(t.labels, l) + " "
		}
		if current[key] == nil || !current[key].has(t) {
			current[key] = &promRun{labels: t.labels, seen: map[int]bool{}}
			runs = append(runs, current[key])
		}
		current[key].add(t)
	}
	for _, r := range runs {
		r.mend()
	}
	return runs
}

func (r *promRun) stage(labels map[string]string) *promStage {
	name := cmp.Or(labels["stage"], labels["scenario"])
	for _, s := range r.order {
		if s.name == name {
			return s
		}
	}
	return nil
}

// promPause is the most between a stage's end and the next one's begin: the scripts let
// what is open end, for half a minute unless TIMEOUT makes more of it, and k6 pushes
// each 5 s. Whatever comes later is another run.
const promPause = 2*time.Minute + 5*time.Second

// has says whether a sample is this run's, and not of one that came after it.
func (r *promRun) has(t promTold) bool {
	s := r.stage(t.labels)
	switch {
	case s == nil:
		return t.begins.Before(r.end().Add(promPause))
	case r.seen[t.series]:
		return s.brokeOff(t)
	}
	return t.at.Before(s.ends()) // another k6 of the same run
}

// brokeOff says that a sample is how long a stage lasted that ended early, which k6 says
// when the last answer has come.
func (s *promStage) brokeOff(t promTold) bool {
	const answers = 2 * time.Minute
	since := t.at.Sub(s.begins)
	return t.lasts < s.lasts && t.lasts <= since+time.Second && since < s.lasts+answers
}

func (r *promRun) add(t promTold) {
	s := r.stage(t.labels)
	if s == nil {
		s = &promStage{name: cmp.Or(t.labels["stage"], t.labels["scenario"]), side: t.labels["side"], begins: t.begins}
		r.order = append(r.order, s)
	}
	s.lasts = t.lasts
	s.told++
	r.seen[t.series] = true
}

// mend: of a step that broke off before k6 pushed its begin only the end is known, and
// how long it lasted. A sweep's other steps are all alike. Then in the order of time.
func (r *promRun) mend() {
	step := time.Duration(0)
	for _, s := range r.order {
		step = max(step, s.lasts)
	}
	for _, s := range r.order {
		if r.labels["script"] == "sweep" && s.told == 1 && s.lasts < step {
			s.begins = s.begins.Add(-s.lasts)
		}
	}
	slices.SortStableFunc(r.order, func(a, b *promStage) int { return a.begins.Compare(b.begins) })
}

func (r *promRun) begin() time.Time { return r.order[0].begins } // once mended

func (r *promRun) end() time.Time {
	var end time.Time
	for _, s := range r.order {
		if s.ends().After(end) {
			end = s.ends()
		}
	}
	return end
}

func (r *promRun) verdict() *Verdict {
	v := &Verdict{Script: r.labels["script"], Smoke: r.labels["run"] == "smoke", Start: r.begin(), End: r.end(), byGateway: true, objective: promObjectiveOf(r.labels),
		Missing: []string{"What the clients saw: no samples of k6 were given, and percentiles of several k6 cannot be put together. All figures are the gateway's, and so are the gates."}}
	for _, s := range r.order {
		v.Stages = append(v.Stages, Stage{Name: s.name, Side: s.side, Start: s.begins, End: s.ends()})
		if s.side != "" && !slices.ContainsFunc(v.Sides, func(side Side) bool { return side.Name == s.side }) {
			v.Sides = append(v.Sides, Side{Name: s.side})
		}
	}
	return v
}
