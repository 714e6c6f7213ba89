package verdict

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// promGauges are the levels, each as one series over the run. A GPU that another model
// has, or none, says nothing of how busy this one's is: as in alerts/recording.yml the
// busiest counts.
var promGauges = []struct {
	query string
	of    func(*Server) **Level
}{
	{"sum(gateway_queue_depth)", func(m *Server) **Level { return &m.Queue }},
	{"sum(max by (backend) (gateway_backend_up))", func(m *Server) **Level { return &m.Backends }},
	{"max(nvidia_gpu_duty_cycle)", func(m *Server) **Level { return &m.GPU }},
	{"max(nvidia_gpu_memory_used_bytes / nvidia_gpu_memory_total_bytes)", func(m *Server) **Level { return &m.GPUMemory }},
	{"max(nvidia_gpu_temperature)", func(m *Server) **Level { return &m.GPUHeat }},
	{"sum(vllm:num_requests_waiting)", func(m *Server) **Level { return &m.Waiting }},
	{"sum(vllm:num_requests_running)", func(m *Server) **Level { return &m.Running }},
	{"max(vllm:kv_cache_usage_perc)", func(m *Server) **Level { return &m.KVCache }},
}

// levels asks for each gauge once, over the whole run.
func (f *promFill) levels() {
	for _, g := range promGauges {
		f.run(g.query, func(answer []promSeries) {
			if len(answer) == 0 {
				return
			}
			for _, s := range f.measured {
				if l := f.level(answer[0].points, s); l != nil {
					*g.of(s.server()) = l
				}
			}
			switch g.query {
			case promGauges[0].query:
				f.draw("Queue", "gateway", "", answer[0].points)
			case promGauges[5].query:
				f.draw("Queue", "waiting in vLLM", "", answer[0].points)
			}
		})
	}
	f.run("count(max by (backend) (gateway_backend_up))", func(answer []promSeries) {
		for _, s := range f.measured {
			if len(answer) > 0 {
				if l := f.level(answer[0].points, s); l != nil {
					s.server().AllBackends = &l.Max
				}
			}
		}
	})
	f.run("max by (state) (gateway:diagnosis)", func(answer []promSeries) {
		for _, s := range f.measured {
			if shares := f.shares(answer, s); shares != nil {
				s.server().States = shares
			}
		}
	})
}

// step is that of levels: fine enough for the shortest stage, and for a Prometheus,
// which gives 11,000 points at most.
func (f *promFill) step() time.Duration {
	shortest := f.end.Sub(f.begin)
	for _, s := range f.measured {
		shortest = min(shortest, s.End.Sub(s.Start))
	}
	return max(5*time.Second, shortest/60, f.to().Sub(f.from())/5000).Truncate(time.Second)
}

// from and to are the run's, which begins and ends with what is no stage's: its
// preflight, and its last requests.
func (f *promFill) from() time.Time { return earlier(f.begin, f.v.Start) }
func (f *promFill) to() time.Time {
	if f.v.End.After(f.end) {
		return f.v.End
	}
	return f.end
}

func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// run asks over the whole run.
func (f *promFill) run(query string, take func([]promSeries)) {
	f.answer(query, func() ([]promSeries, error) { return f.p.over(f.ctx, query, f.from(), f.to(), f.step()) }, take)
}

// within are a stage's points. What is found at a moment was scraped up to an interval
// before it, so those of a stage's first interval may be from before it.
func (f *promFill) within(points []Point, s *Stage) []Point {
	from := s.Start.Add(f.interval)
	var in []Point
	for _, p := range points {
		if !p.At.Before(from) && !p.At.After(s.End) && !math.IsNaN(p.Value) {
			in = append(in, p)
		}
	}
	return in
}

// level is nil without points.
func (f *promFill) level(points []Point, s *Stage) *Level {
	in := f.within(points, s)
	if len(in) == 0 {
		return nil
	}
	third := s.End.Sub(s.Start) / 3
	l := &Level{Mean: meanOf(in), Min: in[0].Value, Max: in[0].Value}
	var first, last []Point
	for _, p := range in {
		l.Min, l.Max = min(l.Min, p.Value), max(l.Max, p.Value)
		if !p.At.After(s.Start.Add(third)) {
			first = append(first, p)
		}
		if p.At.After(s.End.Add(-third)) {
			last = append(last, p)
		}
	}
	if first == nil {
		first = in[:1]
	}
	if last == nil {
		last = in[len(in)-1:]
	}
	l.Begin, l.Finish = meanOf(first), meanOf(last)
	return l
}

func meanOf(points []Point) float64 {
	sum := 0.0
	for _, p := range points {
		sum += p.Value
	}
	return sum / float64(len(points))
}

// shares is how much of a stage each state had: one series at a time is there.
func (f *promFill) shares(states []promSeries, s *Stage) map[string]float64 {
	all := 0
	of := map[string]float64{}
	for _, state := range states {
		if n := len(f.within(state.points, s)); n > 0 {
			of[state.labels["state"]] += float64(n)
			all += n
		}
	}
	if all == 0 {
		return nil
	}
	for state := range of {
		of[state] /= float64(all)
	}
	return of
}

// pictures asks for what is drawn and is no level.
func (f *promFill) pictures() {
	step := max(f.bins(), f.interval.Round(time.Second))
	// Three scrapes are in each range, so that one may be missed. What was counted in a
	// range is drawn in its middle, as k6's is.
	over := max(step, 3*f.interval).Round(time.Second)
	line := func(panel, name, unit, query string, factor float64) {
		f.answer(panel+" over time", func() ([]promSeries, error) { return f.p.over(f.ctx, query, f.from(), f.to(), step) }, func(answer []promSeries) {
			if len(answer) == 0 {
				return
			}
			points := answer[0].points
			for i := range points {
				points[i].At = points[i].At.Add(-over / 2)
				points[i].Value *= factor
			}
			f.v.Series = append(f.v.Series, Series{panel, name, unit, promGaps(points, step)})
		})
	}
	in := "[" + promRange(over) + "]"
	line("TTFT", "gateway p50", "ms", "histogram_quantile(0.5, sum by (le) (rate(gateway_time_to_first_token_seconds_bucket"+in+")))", 1000)
	line("TTFT", "gateway p95", "ms", "histogram_quantile(0.95, sum by (le) (rate(gateway_time_to_first_token_seconds_bucket"+in+")))", 1000)
	line("Tokens per second", "gateway mean", "tokens/s", "sum(rate(gateway_tokens_per_second_sum"+in+")) / sum(rate(gateway_tokens_per_second_count"+in+"))", 1)
	line("RPS", "gateway", "requests/s", "sum(rate(gateway_rps"+in+"))", 1)
	f.run("max by (instance, gpu, uuid) (nvidia_gpu_duty_cycle)", f.gpus)
}

// gpus draws a line for each. Two machines both have a GPU 0.
func (f *promFill) gpus(answer []promSeries) {
	slices.SortFunc(answer, func(a, b promSeries) int {
		return cmp.Or(cmp.Compare(a.labels["instance"], b.labels["instance"]), cmp.Compare(len(a.labels["gpu"]), len(b.labels["gpu"])), cmp.Compare(a.labels["gpu"], b.labels["gpu"]))
	})
	several := slices.ContainsFunc(answer, func(s promSeries) bool { return s.labels["instance"] != answer[0].labels["instance"] })
	for _, s := range answer {
		name := "GPU " + s.labels["gpu"]
		if several {
			name += " " + s.labels["instance"]
		}
		f.draw("GPU", name, "%", s.points)
	}
}

func (f *promFill) bins() time.Duration {
	return time.Duration(k6BinsOf(f.from().UnixNano(), f.to().UnixNano()).width)
}

// draw takes a level's points as they are, or means of several where they are many.
func (f *promFill) draw(panel, name, unit string, points []Point) {
	step := f.step()
	points = promGaps(points, step)
	n := max(1, int(f.bins()/step))
	var thin []Point
	for chunk := range slices.Chunk(points, n) {
		known := slices.DeleteFunc(slices.Clone(chunk), func(p Point) bool { return math.IsNaN(p.Value) })
		thin = append(thin, Point{chunk[len(chunk)/2].At, meanOf(known)})
	}
	f.v.Series = append(f.v.Series, Series{panel, name, unit, thin})
}

// promGaps puts a gap where steps are missing.
func promGaps(points []Point, step time.Duration) []Point {
	var whole []Point
	for i, p := range points {
		if i > 0 && p.At.Sub(points[i-1].At) > 3*step/2 {
			whole = append(whole, Point{points[i-1].At.Add(step), math.NaN()})
		}
		whole = append(whole, p)
	}
	return whole
}
