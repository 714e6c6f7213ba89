package verdict

import (
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

// gates are the scripts' own, held against the gateway's figures of the whole run: each
// of several k6 has only its own requests to judge by, and percentiles of parts cannot
// be put together. A sweep goes to where they break; its gate is that it found a limit.
func (f *promFill) gates() {
	v := f.v
	if !v.byGateway {
		return
	}
	if v.Script == "sweep" {
		v.Gates = []Gate{{"k6_limit_rps", "value>0", v.Limit, value(v.Limit) > 0}}
		return
	}
	if v.Script == "baseline" {
		v.Gates = append(v.Gates,
			promPercentile(promTook, f.of.duration, 0.95, 5),
			promPercentile(promTook, f.of.duration, 0.99, 10))
	}
	v.Gates = append(v.Gates, promPercentile(promTTFT, f.of.ttft, 0.95, 2))
	if v.Script == "baseline" {
		v.Gates = append(v.Gates, promPercentile(promTTFT, f.of.ttft, 0.99, 3))
	}
	v.Gates = append(v.Gates, promMean(promSpeed, f.of.speed, 30), f.of.counts.failures())
}

// promPercentile goes by the share of values at or below the limit, which is an edge of
// the buckets: that is exact, and a percentile is interpolated.
func promPercentile(metric string, h *promBuckets, q, limit float64) Gate {
	g := Gate{Metric: metric, Condition: fmt.Sprintf("p(%g)<%g", 100*q, limit)}
	if h == nil || h.n() == 0 {
		return g
	}
	g.Value = new(h.quantile(q))
	g.Held = h.share(limit) >= q-1e-9 // increase() leaves digits behind
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
