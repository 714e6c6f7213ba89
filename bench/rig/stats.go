package rig

import (
	"math"
	"slices"
)

// percentile gives the value that a part p of them does not exceed; NaN of none. It
// sorts.
func percentile(values []int64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	i := int(math.Ceil(p*float64(len(values)))) - 1
	return float64(values[min(max(i, 0), len(values)-1)])
}

// spread is what rounds gave.
type spread struct {
	median, least, most float64
	n                   int
}

// spreadOf leaves out what is NaN or infinite: a round without this figure.
func spreadOf(values []float64) spread {
	var there []float64
	for _, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			there = append(there, v)
		}
	}
	n := len(there)
	if n == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN(), 0}
	}
	slices.Sort(there)
	return spread{(there[(n-1)/2] + there[n/2]) / 2, there[0], there[n-1], n}
}

// ratios divides round by round; by nothing, or less, there is no ratio (as of a latency
// that on a busy machine was less than direct's).
func ratios(of, by []float64) []float64 {
	all := make([]float64, min(len(of), len(by)))
	for i := range all {
		all[i] = math.NaN()
		if by[i] > 0 {
			all[i] = of[i] / by[i]
		}
	}
	return all
}

// less subtracts round by round.
func less(of, by []float64) []float64 {
	all := make([]float64, min(len(of), len(by)))
	for i := range all {
		all[i] = of[i] - by[i]
	}
	return all
}
