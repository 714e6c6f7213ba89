//go:build k6

package loadtests

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// exposition is a /metrics page, summed over labels.
type exposition struct {
	sums    map[string]float64
	buckets map[string]map[float64]float64 // histogram → upper bound → cumulative count
}

var series = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([^ ]+)$`)
var upperBound = regexp.MustCompile(`(?:^|,)le="([^"]*)"`)

func scrape(t *testing.T, url string) exposition {
	t.Helper()
	text, err := fetch("GET", url+"/metrics", "")
	if err != nil {
		t.Fatal(err)
	}
	return parse(text)
}

func parse(text string) exposition {
	e := exposition{map[string]float64{}, map[string]map[float64]float64{}}
	for line := range strings.Lines(text) {
		m := series.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			continue
		}
		e.sums[m[1]] += v
		if le := upperBound.FindStringSubmatch(m[2]); le != nil {
			bound, err := strconv.ParseFloat(le[1], 64)
			if err != nil {
				continue
			}
			name := strings.TrimSuffix(m[1], "_bucket")
			if e.buckets[name] == nil {
				e.buckets[name] = map[float64]float64{}
			}
			e.buckets[name][bound] += v
		}
	}
	return e
}

// bucket is the one that a histogram's q-quantile lies in.
func (e exposition) bucket(histogram string, q float64) (lower, upper float64) {
	upper = math.Inf(1)
	rank := q * e.buckets[histogram][upper]
	for bound, n := range e.buckets[histogram] {
		if n < rank {
			lower = max(lower, bound)
		} else {
			upper = min(upper, bound)
		}
	}
	return lower, upper
}
