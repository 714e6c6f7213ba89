package verdict

import (
	"fmt"
	"math"
	"strings"
)

// What single scripts ask: soak.js, spike.js, sweep.js, compare.js and prefix.js.

// recovery: what a spike left behind.
func recovery(v *Verdict) []Finding {
	calm, spike, after := v.stage("calm"), v.stage("spike"), v.stage("after")
	if calm == nil || spike == nil || after == nil {
		return nil
	}
	before, during, then := calm.ttft(), spike.ttft(), after.ttft()
	if before == nil || during == nil || then == nil {
		return nil
	}
	f := Finding{Kind: "recovered", Severity: "good", Stage: after.Name,
		Says: fmt.Sprintf("TTFT p95 was %s before the spike, %s in it, and %s after it.", millis(before.P95), millis(during.P95), millis(then.P95))}
	if then.P95 > 2*before.P95+100 {
		f.Kind, f.Severity = "not recovered", "warn"
		f.Try = "The box had not worked off the spike's queue: see how long the queue's panel stays high, and cap what waits."
	}
	return []Finding{f}
}

// unnoticed is what a first token may take before anybody sees a difference, in
// milliseconds; loadtests/soak.js goes by the same.
const unnoticed = 50

// drift: whether the last third of a soak is like the first.
func drift(v *Verdict) []Finding {
	first, last := v.stage("first_third"), v.stage("last_third")
	if first == nil || last == nil {
		return nil
	}
	var parts []string
	worse := false
	compare := func(what string, a, b float64, ok bool, format func(float64) string, limit float64) {
		if !ok || a <= 0 {
			return
		}
		parts = append(parts, fmt.Sprintf("%s %s → %s", what, format(a), format(b)))
		worse = worse || limit > 1 && b > limit*a || limit < 1 && b < limit*a
	}
	if a, b := first.ttft(), last.ttft(); a != nil && b != nil {
		compare("TTFT p50", a.P50, b.P50, true, millis, 1.25*max(1, unnoticed/a.P50))
	}
	speed, measured := first.speed()
	now, still := last.speed()
	compare("tokens/s", speed, now, measured && still, number, 0.8)
	rps, measured := first.rps()
	served, still := last.rps()
	compare("requests/s", rps, served, measured && still, number, 0.8)
	if a, b := first.Server, last.Server; a != nil && b != nil {
		level := func(what string, a, b *Level, limit float64) {
			if a != nil && b != nil {
				compare(what, a.Mean, b.Mean, true, number, limit)
			}
		}
		level("queue", a.Queue, b.Queue, 1.5)
		level("GPU °C", a.GPUHeat, b.GPUHeat, math.Inf(1))
		level("KV cache", a.KVCache, b.KVCache, math.Inf(1))
	}
	if len(parts) == 0 {
		return nil
	}
	f := Finding{Kind: "steady", Severity: "good", Says: "First third against last: " + strings.Join(parts, ", ") + "."}
	if worse {
		f.Kind, f.Severity = "drifts", "bad"
		f.Try = "Something wears out: a GPU that gets hot, a cache that fills, memory that is not given back. See those panels over the whole run."
	}
	return []Finding{f}
}

// limit: what a sweep found.
func limit(v *Verdict) []Finding {
	if v.Limit == nil {
		return nil
	}
	if *v.Limit == 0 {
		return []Finding{{Kind: "no limit found", Severity: "bad",
			Says: "The objective does not even hold at the first rate.",
			Try:  "See what fails there, or begin with a lower RATE."}}
	}
	return []Finding{{Kind: "limit", Severity: "good",
		Says: fmt.Sprintf("It can take %s requests a second within the objective; above that the objective breaks, or was not tried.", number(*v.Limit)),
		Try:  "Plan for less: what comes in bursts needs room."}}
}

// sides: how those compare that were compared.
func sides(v *Verdict) []Finding {
	if len(v.Sides) < 2 {
		return nil
	}
	base := v.Sides[0]
	var all []Finding
	for _, s := range v.Sides[1:] {
		if base.Client == nil || s.Client == nil || base.Client.TTFT.N == 0 || s.Client.TTFT.N == 0 {
			continue
		}
		a, b := base.Client, s.Client
		all = append(all, Finding{Kind: "compared", Severity: "info",
			Says: fmt.Sprintf("%s against %s: TTFT p50 %s against %s (%s), p95 %s against %s (%s), %s against %s tokens/s, %s against %s requests/s.",
				s.Name, base.Name, millis(b.TTFT.P50), millis(a.TTFT.P50), ratio(b.TTFT.P50, a.TTFT.P50), millis(b.TTFT.P95), millis(a.TTFT.P95), ratio(b.TTFT.P95, a.TTFT.P95),
				number(b.Speed.Mean), number(a.Speed.Mean), number(b.RPS), number(a.RPS))})
	}
	return all
}

func ratio(a, b float64) string {
	if b <= 0 {
		return "–"
	}
	return fmt.Sprintf("× %.2f", a/b)
}
