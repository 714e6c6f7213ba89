package verdict

import (
	"cmp"
	"math"
	"slices"
	"strconv"
)

// promBuckets is what a histogram counted in some time.
type promBuckets struct {
	edges []float64 // ascending; the last is +Inf
	below []float64 // how many are at or below each edge
	sum   float64   // of all values; NaN: not known
}

// promBucketsQuery asks for a histogram's increase over so long: by le, and without le
// the sum of the values.
func promBucketsQuery(metric, over string) string {
	return "sum by (le) (increase(" + metric + "_bucket[" + over + "])) or sum(increase(" + metric + "_sum[" + over + "]))"
}

// promBucketsOf is nil if there is no histogram, or none that ends in +Inf.
func promBucketsOf(answer []promSeries) *promBuckets {
	h := &promBuckets{sum: math.NaN()}
	type bucket struct{ edge, below float64 }
	var all []bucket
	for _, s := range answer {
		v := s.last()
		if s.labels["le"] == "" {
			h.sum = v
			continue
		}
		edge, err := strconv.ParseFloat(s.labels["le"], 64)
		if err != nil || math.IsNaN(edge) || math.IsNaN(v) {
			return nil
		}
		all = append(all, bucket{edge, v})
	}
	slices.SortFunc(all, func(a, b bucket) int { return cmp.Compare(a.edge, b.edge) })
	if len(all) < 2 || !math.IsInf(all[len(all)-1].edge, 1) {
		return nil
	}
	most := 0.0
	for _, b := range all { // one scrape may have come between two of the buckets' increases
		most = max(most, b.below)
		h.edges, h.below = append(h.edges, b.edge), append(h.below, most)
	}
	return h
}

// last is a series' last value; NaN: none.
func (s promSeries) last() float64 {
	if len(s.points) == 0 {
		return math.NaN()
	}
	return s.points[len(s.points)-1].Value
}

func (h *promBuckets) n() float64 { return h.below[len(h.below)-1] }

// bucket is that in which a quantile lies, of 0 to 1.
func (h *promBuckets) bucket(q float64) int {
	rank := q * h.n()
	return min(len(h.edges)-1, slices.IndexFunc(h.below, func(below float64) bool { return below >= rank }))
}

// quantile interpolates as Prometheus's histogram_quantile does: values lie evenly in
// a bucket, the lowest one begins at 0, and what is above the last finite edge is at it.
func (h *promBuckets) quantile(q float64) float64 {
	i := h.bucket(q)
	switch {
	case h.n() == 0:
		return math.NaN()
	case i == len(h.edges)-1:
		return h.edges[i-1]
	case i == 0 && h.edges[0] <= 0:
		return h.edges[0]
	}
	low, before := 0.0, 0.0
	if i > 0 {
		low, before = h.edges[i-1], h.below[i-1]
	}
	return low + (h.edges[i]-low)*(q*h.n()-before)/(h.below[i]-before)
}

// span is the bucket in which a quantile lies, in other units.
func (h *promBuckets) span(q, unit float64) *Range {
	if h.n() == 0 {
		return nil
	}
	i := h.bucket(q)
	r := Range{High: unit * h.edges[i]}
	if i > 0 {
		r.Low = unit * h.edges[i-1]
	}
	return &r
}

// share is the part of the values that are at or below a value: exact at an edge, and
// interpolated between two.
func (h *promBuckets) share(value float64) float64 {
	i, ok := slices.BinarySearch(h.edges, value)
	if ok {
		return h.below[i] / h.n()
	}
	low, before := 0.0, 0.0
	if i > 0 {
		low, before = h.edges[i-1], h.below[i-1]
	}
	return (before + (h.below[i]-before)*max(0, value-low)/(h.edges[i]-low)) / h.n()
}

// spread is in other units: 1000 makes milliseconds of seconds. nil: no histogram.
func (h *promBuckets) spread(unit float64) *Spread {
	if h == nil || math.IsNaN(h.sum) {
		return nil
	}
	if math.Round(h.n()) == 0 {
		return &Spread{}
	}
	return &Spread{
		N:    int(math.Round(h.n())),
		Mean: unit * h.sum / h.n(),
		P50:  unit * h.quantile(0.5),
		P95:  unit * h.quantile(0.95),
		P99:  unit * h.quantile(0.99),
	}
}
