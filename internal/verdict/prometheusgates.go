package verdict

import (
	"cmp"
	"fmt"
	"math"
)

// The histograms that gates go by.
const (
	promTTFT  = "gateway_time_to_first_token_seconds"
	promSpeed = "gateway_tokens_per_second"
	promTook  = "gateway_request_duration_seconds"
)

// promWhole is what the gateways counted in the whole run.
type promWhole struct {
	ttft, duration, speed *promBuckets
	counts                promCounts
}

// whole asks for it, where the gates are to go by it.
func (f *promFill) whole() {
	if !f.v.byGateway {
		return
	}
	f.buckets(promTTFT, f.begin, f.end, func(h *promBuckets) { f.of.ttft = h })
	f.buckets(promTook, f.begin, f.end, func(h *promBuckets) { f.of.duration = h })
	f.buckets(promSpeed, f.begin, f.end, func(h *promBuckets) { f.of.speed = h })
	f.counts(f.begin, f.end, func(c promCounts) { f.of.counts = c })
}

// gates are the scripts' own, held against the gateway's figures: each of several k6 has
// only its own requests to judge by, and percentiles of parts cannot be put together.
func (f *promFill) gates() {
	v := f.v
	if !v.byGateway {
		return
	}
	ttft, speed := cmp.Or(v.objective.ttftP95, lateTTFT)/1000, cmp.Or(v.objective.speed, slowSpeed)
	switch v.Script {
	case "sweep": // goes to where all others break
		v.Gates = []Gate{v.limitGate()}
		return
	case "baseline": // has the guide's objective, whatever that of the others is
		ttft, speed = lateTTFT/1000, slowSpeed
		f.percentile(promTook, f.of.duration, 0.95, 5)
		f.percentile(promTook, f.of.duration, 0.99, 10)
		f.percentile(promTTFT, f.of.ttft, 0.95, ttft)
		f.percentile(promTTFT, f.of.ttft, 0.99, 3)
	case "spike": // may be slow while it lasts
		for _, stage := range []string{"calm", "after"} {
			f.percentile(promTTFT+"{stage:"+stage+"}", f.ttftOf[v.stage(stage)], 0.95, ttft)
		}
	default:
		f.percentile(promTTFT, f.of.ttft, 0.95, ttft)
	}
	v.Gates = append(v.Gates, promMean(promSpeed, f.of.speed, speed), f.of.counts.failures())
	if v.Script == "soak" {
		v.Gates = append(v.Gates, f.ttftDrift(), v.speedDrift())
	}
	if len(f.unsure) > 0 {
		v.Missing = append(v.Missing, fmt.Sprintf("Whether %s held is not known for sure: the gateway's histograms have an edge below and one above, and what is interpolated between them decided.", list(f.unsure)))
	}
}

// limitGate: a sweep wants some limit, and mostly one that it names.
func (v *Verdict) limitGate() Gate {
	g := Gate{Metric: "k6_limit_rps", Condition: "value>0", Value: v.Limit, Held: value(v.Limit) > 0}
	if least := v.objective.atLeast; least > 0 {
		g.Condition, g.Held = fmt.Sprintf("value>=%g", least), value(v.Limit) >= least
	}
	return g
}

// percentile goes by the share of values at or below the limit: at an edge of the buckets
// that is exact, where a percentile is interpolated.
func (f *promFill) percentile(metric string, h *promBuckets, q, limit float64) {
	g := Gate{Metric: metric, Condition: fmt.Sprintf("p(%g)<%g", 100*q, limit)}
	if h != nil && h.n() > 0 {
		g.Value = new(h.quantile(q))
		g.Held = h.share(limit) >= q-1e-9 // increase() leaves digits behind
		if r := h.span(q, 1); r.Low < limit && limit < r.High {
			f.unsure = append(f.unsure, metric+" "+g.Condition)
		}
	}
	f.v.Gates = append(f.v.Gates, g)
}

const (
	driftTTFT  = 1.25 // soak.js: the time to first token may grow by a quarter,
	driftSpeed = 0.8  // and the tokens a second shrink by a fifth
)

// ttftDrift holds the last third's p50 against the first's, as soak.js does each user's.
func (f *promFill) ttftDrift() Gate {
	g := Gate{Metric: "ttft_drift", Condition: fmt.Sprintf("value<%g", driftTTFT)}
	first, last := f.ttftOf[f.v.stage("first_third")], f.ttftOf[f.v.stage("last_third")]
	if first == nil || last == nil || first.n() == 0 || last.n() == 0 {
		return g
	}
	drift := func(first, last float64) float64 { return max(last, unnoticed) / max(first, unnoticed) }
	g.Value = new(drift(1000*first.quantile(0.5), 1000*last.quantile(0.5)))
	g.Held = *g.Value < driftTTFT
	from, to := first.span(0.5, 1000), last.span(0.5, 1000)
	if drift(from.High, to.Low) < driftTTFT && drift(from.Low, to.High) >= driftTTFT {
		f.unsure = append(f.unsure, g.Metric+" "+g.Condition)
	}
	return g
}

func (v *Verdict) speedDrift() Gate {
	g := Gate{Metric: "speed_drift", Condition: fmt.Sprintf("value>%g", driftSpeed)}
	first, last := v.stage("first_third"), v.stage("last_third")
	if first == nil || last == nil {
		return g
	}
	was, measured := first.speed()
	is, still := last.speed()
	if measured && still && was > 0 {
		g.Value = new(is / was)
		g.Held = *g.Value > driftSpeed
	}
	return g
}

func promMean(metric string, h *promBuckets, limit float64) Gate {
	g := Gate{Metric: metric, Condition: fmt.Sprintf("avg>%g", limit)}
	if h == nil || h.n() == 0 || math.IsNaN(h.sum) {
		return g
	}
	g.Value = new(h.sum / h.n())
	g.Held = *g.Value > limit
	return g
}

// failures are all that did not end well: a client that left was k6, whose patience was
// at an end.
func (c promCounts) failures() Gate {
	g := Gate{Metric: `gateway_requests_total{outcome!="ok"}`, Condition: fmt.Sprintf("rate<%g", failedAtMost)}
	all := 0.0
	for _, n := range c.outcomes {
		all += n
	}
	if all == 0 {
		return g
	}
	g.Value = new((all - c.outcomes["ok"]) / all)
	g.Held = *g.Value < failedAtMost
	return g
}
