package verdict

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// promCounts is what was counted in some time.
type promCounts struct {
	outcomes, causes map[string]float64
	one              map[string]float64 // all others, by name
}

// promCounters are those that are one number, by the name under which they come back.
var promCounters = []struct{ name, query string }{
	{"rps", "sum(rate(gateway_rps[%[1]s]))"},
	{"retries", "sum(increase(gateway_retries_total[%[1]s]))"},
	{"preemptions", "sum(increase(vllm:num_preemptions_total[%[1]s]))"},
	{"refused", "sum(increase(vllm:admission_rejections_total[%[1]s]))"},
	{"asked", "sum(increase(vllm:prefix_cache_queries_total[%[1]s]))"},
	{"hits", "sum(increase(vllm:prefix_cache_hits_total[%[1]s]))"},
	// A series of an outcome begins with its first request, and increase() does not see
	// the step from nothing to its first value, which a burst of failures may be all of.
	// What it has missed is known of a series that has come into being, in an hour, at
	// a gateway that was there before.
	{"born", "sum by (outcome) (clamp_min(last_over_time(gateway_requests_total[%[1]s]) - (increase(gateway_requests_total[%[1]s]) or last_over_time(gateway_requests_total[%[1]s]) * 0), 0)" +
		" unless last_over_time(gateway_requests_total[1h] offset %[1]s) and on (job, instance) last_over_time(gateway_rps[1h] offset %[1]s))"},
}

// counts asks for all of them in one question.
func (f *promFill) counts(from, to time.Time, take func(promCounts)) {
	over := promRange(to.Sub(from))
	parts := []string{
		"sum by (outcome) (increase(gateway_requests_total[" + over + "]))",
		"sum by (cause) (increase(gateway_upstream_errors_total[" + over + "]))",
	}
	for _, c := range promCounters {
		parts = append(parts, fmt.Sprintf(`label_replace(`+c.query+`, "of", "%[2]s", "", "")`, over, c.name))
	}
	f.instant("what was counted", strings.Join(parts, " or "), to, func(answer []promSeries) { take(promCountsOf(answer)) })
}

func promCountsOf(answer []promSeries) promCounts {
	c := promCounts{one: map[string]float64{}}
	count := func(to *map[string]float64, key string, n float64) {
		if *to == nil {
			*to = map[string]float64{}
		}
		(*to)[key] += n
	}
	for _, s := range answer {
		n := s.last()
		switch {
		case math.IsNaN(n):
		case s.labels["outcome"] != "":
			count(&c.outcomes, s.labels["outcome"], n)
		case s.labels["cause"] != "":
			count(&c.causes, s.labels["cause"], n)
		case s.labels["of"] != "":
			c.one[s.labels["of"]] = n
		}
	}
	return c
}

// fill makes whole numbers of counts: those of a range that scrapes do not fill are
// estimates.
func (c promCounts) fill(s *Stage) {
	if len(c.one) == 0 && c.outcomes == nil && c.causes == nil {
		return
	}
	m := s.server()
	m.Outcomes, m.Causes = rounded(c.outcomes), rounded(c.causes)
	whole := func(name string) *float64 {
		n, ok := c.one[name]
		if !ok {
			return nil
		}
		n = math.Round(n)
		return &n
	}
	m.Retries, m.Preemptions, m.Refused = whole("retries"), whole("preemptions"), whole("refused")
	if rps, ok := c.one["rps"]; ok {
		m.RPS = &rps
	}
	m.PrefixHits = promHits(c)
}

func rounded(counts map[string]float64) map[string]float64 {
	for k, n := range counts {
		counts[k] = math.Round(n)
	}
	return counts
}

// promHits is the share of prompt tokens that prefix caches had; nil if none was asked
// for.
func promHits(counts ...promCounts) *float64 {
	var hits, asked float64
	for _, c := range counts {
		hits += c.one["hits"]
		asked += c.one["asked"]
	}
	if asked <= 0 {
		return nil
	}
	share := min(1, hits/asked)
	return &share
}

// sides sums up the stages of each side.
func (f *promFill) sides() {
	for i := range f.v.Sides {
		side := &f.v.Sides[i]
		var all []promCounts
		for s, c := range f.ofStage {
			if s.Side == side.Name {
				all = append(all, c)
			}
		}
		side.Hits = promHits(all...)
	}
}
