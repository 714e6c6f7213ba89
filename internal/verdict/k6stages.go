package verdict

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

func k6Time(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// samples is what the run comes to.
func (run *k6Run) samples() *Samples {
	s := &Samples{
		Script: run.script, Smoke: run.smoke, Cut: run.cut > 0,
		Start: k6Time(run.first), End: k6Time(run.last),
		Limit: run.limit,
		sinks: run.sinks,
	}
	if len(run.lateness) > 0 {
		spread := k6Spread(run.lateness)
		s.Lateness = &spread
	}
	run.gates(s)
	if s.Cut {
		s.Missing = append(s.Missing, fmt.Sprintf("k6's samples end in the middle of line %d, at %s: k6 was killed, or the disk was full. What came after is not here, and a gate that held until then need not have held at the end.", run.cut, s.End.Format("15:04:05 MST")))
	}
	all := run.ended(s)
	for _, stage := range all {
		client := run.client(stage)
		s.Stages = append(s.Stages, Stage{Name: stage.name, Side: stage.side, Start: k6Time(stage.start), End: k6Time(stage.end), Client: &client})
	}
	s.Sides = run.sides(all)
	s.Series = run.series()
	if !slices.ContainsFunc(run.order, func(stage *k6Stage) bool { return len(stage.ttft) > 0 }) &&
		slices.ContainsFunc(s.Stages, func(stage Stage) bool { return stage.Client.Completed > 0 }) {
		s.Missing = append(s.Missing, "k6's samples have no time to first token (ttft_ms): the script does not count it as loadtests/streams.js does.")
	}
	return s
}

// ended sets when stages began and ended, and returns those that took place, in order.
func (run *k6Run) ended(s *Samples) []*k6Stage {
	var all []*k6Stage
	var unreached []string
	var planned int64 // the last stage's end
	for _, stage := range run.order {
		if stage.announced {
			planned = max(planned, stage.begins+int64(stage.seconds*1e9))
		}
		switch {
		case !run.announced && len(stage.requests) > 0:
			stage.start, stage.end = stage.reach()
			stage.start = max(stage.start, run.first)
		case !stage.announced:
			continue
		case stage.begins >= run.last:
			unreached = append(unreached, stage.name)
			continue
		case stage.seconds == 0:
			_, last := stage.reach()
			stage.start, stage.end = stage.begins, max(stage.begins, last)
			if last == 0 {
				stage.end = run.last
			}
		default:
			stage.start, stage.end = stage.begins, min(stage.begins+int64(stage.seconds*1e9), run.last)
		}
		all = append(all, stage)
	}
	slices.SortStableFunc(all, func(a, b *k6Stage) int { return cmp.Compare(a.start, b.start) })
	if planned > run.last+1e9 && run.cut == 0 || len(unreached) > 0 {
		says := fmt.Sprintf("k6 ended at %s, and had planned to go on until %s: figures and gates are of what there was by then", s.End.Format("15:04:05 MST"), k6Time(planned).Format("15:04:05 MST"))
		if len(unreached) > 0 {
			says += fmt.Sprintf(", and of %s there is nothing", list(unreached))
		}
		s.Missing = append(s.Missing, says+".")
	}
	switch {
	case len(all) == 0:
		s.Missing = append(s.Missing, "k6's samples have no request of the load: the run ended in its preflight. k6's log says why.")
	case !run.announced:
		s.Missing = append(s.Missing, "k6's samples do not say when a stage begins and how long it lasts (no stage_seconds, as the scripts of loadtests/ emit it): each is taken to last from its first request to the end of its last, so its requests per second are somewhat low.")
	}
	return all
}

// reach is from the first request's sending to the last one's end; 0, 0 of none.
func (s *k6Stage) reach() (first, last int64) {
	for i, r := range s.requests {
		if start := r.start(); i == 0 || start < first {
			first = start
		}
		last = max(last, r.end)
	}
	return first, last
}

// client sums up stages, one or all of a side. Requests are a stage's by their tag; what
// went on in its time is of all, as the one before has some open when it begins.
//
// A request that the script counts as failed may look well to k6: an error inside a
// stream comes with status 200. Which of them it was the samples do not tell, so its
// duration is among those of the good ones.
func (run *k6Run) client(stages ...*k6Stage) Client {
	var c Client
	var seconds, inFlight float64
	var ttft, took, speed []float64
	for _, s := range stages {
		seconds += float64(s.end-s.start) / 1e9
		c.Requests += len(s.requests)
		c.Unanswered += s.unanswered
		for _, r := range s.requests {
			if !r.failed {
				took = append(took, r.ms)
			}
		}
		for _, any := range run.order {
			for _, r := range any.requests {
				inFlight += k6Overlap(r.start(), r.end, s.start, s.end)
				if r.end > s.start && r.end <= s.end {
					c.Ended++
				}
			}
		}
		for _, v := range run.outcomes(s) {
			switch {
			case v.v != 0:
				c.Failed++
			case v.at <= s.end:
				c.Completed++
			}
		}
		ttft, speed = k6Append(ttft, s.ttft), k6Append(speed, s.speed)
	}
	if seconds > 0 {
		c.RPS = float64(c.Completed) / seconds
		c.InFlight = inFlight / seconds
	}
	c.TTFT, c.Duration, c.Speed = k6Spread(ttft), k6Spread(took), k6Spread(speed)
	return c
}

// outcomes are 1 for a failure, else 0, as the script counts them. A script that does
// not has only the status to go by.
func (run *k6Run) outcomes(s *k6Stage) []k6Value {
	if run.counted {
		return s.failed
	}
	all := make([]k6Value, len(s.requests))
	for i, r := range s.requests {
		all[i].at = r.end
		if r.failed {
			all[i].v = 1
		}
	}
	return all
}

func k6Append(to []float64, values []k6Value) []float64 {
	for _, v := range values {
		to = append(to, v.v)
	}
	return to
}

// k6Overlap is how many seconds of one interval lie in another.
func k6Overlap(from, to, begin, end int64) float64 {
	return max(0, float64(min(to, end)-max(from, begin))/1e9)
}

// sides are in the order in which they were first at it.
func (run *k6Run) sides(stages []*k6Stage) []Side {
	var names []string
	of := map[string][]*k6Stage{}
	for _, s := range stages {
		if s.side == "" {
			continue
		}
		if of[s.side] == nil {
			names = append(names, s.side)
		}
		of[s.side] = append(of[s.side], s)
	}
	var sides []Side
	for _, name := range names {
		client := run.client(of[name]...)
		sides = append(sides, Side{Name: name, Client: &client})
	}
	return sides
}

// k6Bins are steps of time, a picture's points.
type k6Bins struct {
	first int64
	width int64
	n     int
	last  int64 // the last one's width
}

// k6BinsOf makes 60 to 150 bins of a run, fewer where they would be shorter than a second.
func k6BinsOf(first, last int64) k6Bins {
	width := time.Second
	for _, w := range []time.Duration{1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600} {
		width = w * time.Second
		if last-first <= 150*int64(width) {
			break
		}
	}
	for last-first > 150*int64(width) {
		width *= 2
	}
	// The last one is half as long to half as long again: a rate over less says nothing.
	n := max(1, (last-first+int64(width)/2)/int64(width))
	return k6Bins{first: first, width: int64(width), n: int(n), last: max(last-first-(n-1)*int64(width), int64(width)/2)}
}

func (b k6Bins) of(at int64) int { return min(max(0, int((at-b.first)/b.width)), b.n-1) }

func (b k6Bins) bounds(i int) (begin, end int64) {
	begin = b.first + int64(i)*b.width
	if i == b.n-1 {
		return begin, begin + b.last
	}
	return begin, begin + b.width
}

func (b k6Bins) seconds(i int) float64 {
	begin, end := b.bounds(i)
	return float64(end-begin) / 1e9
}

// series has a point in the middle of each bin.
func (b k6Bins) series(panel, name, unit string, value func(i int) float64) Series {
	s := Series{Panel: panel, Name: name, Unit: unit, Points: make([]Point, b.n)}
	for i := range s.Points {
		begin, end := b.bounds(i)
		s.Points[i] = Point{At: k6Time(begin + (end-begin)/2), Value: value(i)}
	}
	return s
}

// series are of the load, without setup's requests. A time to first token is drawn
// where its request ended: the samples do not tell which of them it belongs to.
func (run *k6Run) series() []Series {
	b := k6BinsOf(run.first, run.last)
	ttft, speed := make([][]float64, b.n), make([][]float64, b.n)
	done, failed, open := make([]float64, b.n), make([]float64, b.n), make([]float64, b.n)
	some := false
	for _, s := range run.order {
		for _, v := range s.ttft {
			ttft[b.of(v.at)] = append(ttft[b.of(v.at)], v.v)
		}
		for _, v := range s.speed {
			speed[b.of(v.at)] = append(speed[b.of(v.at)], v.v)
		}
		for _, v := range run.outcomes(s) {
			if v.v != 0 {
				failed[b.of(v.at)]++
			} else {
				done[b.of(v.at)]++
			}
		}
		for _, r := range s.requests {
			some = true
			b.spread(open, r)
		}
	}
	if !some {
		return nil
	}
	spreads := make([]Spread, b.n)
	for i := range ttft {
		spreads[i] = k6Spread(ttft[i])
	}
	return []Series{
		b.series("TTFT", "k6 p50", "ms", func(i int) float64 { return k6OrGap(spreads[i], spreads[i].P50) }),
		b.series("TTFT", "k6 p95", "ms", func(i int) float64 { return k6OrGap(spreads[i], spreads[i].P95) }),
		b.series("Tokens per second", "k6 mean", "tokens/s", func(i int) float64 { s := k6Spread(speed[i]); return k6OrGap(s, s.Mean) }),
		b.series("RPS", "k6", "requests/s", func(i int) float64 { return done[i] / b.seconds(i) }),
		b.series("RPS", "k6 failed", "requests/s", func(i int) float64 { return failed[i] / b.seconds(i) }),
		b.series("Queue", "k6 in flight", "", func(i int) float64 { return open[i] / b.seconds(i) }),
	}
}

func k6OrGap(s Spread, v float64) float64 {
	if s.N == 0 {
		return math.NaN()
	}
	return v
}

// spread adds the seconds for which a request was open to each bin's.
func (b k6Bins) spread(open []float64, r k6Request) {
	for i := b.of(r.start()); i <= b.of(r.end); i++ {
		begin, end := b.bounds(i)
		open[i] += k6Overlap(r.start(), r.end, begin, end)
	}
}
