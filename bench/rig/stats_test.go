package rig

import (
	"math"
	"slices"
	"testing"
)

func TestPercentile(t *testing.T) {
	hundred := make([]int64, 100)
	for i := range hundred {
		hundred[i] = int64(100 - i)
	}
	for _, tt := range []struct {
		values []int64
		p      float64
		want   float64
	}{
		{hundred, .5, 50}, {hundred, .99, 99}, {hundred, 1, 100}, {hundred, 0, 1},
		{[]int64{7}, .5, 7}, {[]int64{7}, .99, 7}, {[]int64{3, 1, 2}, .5, 2},
	} {
		if got := percentile(slices.Clone(tt.values), tt.p); got != tt.want {
			t.Errorf("p%v of %d values: %v; want %v", 100*tt.p, len(tt.values), got, tt.want)
		}
	}
	if got := percentile(nil, .5); !math.IsNaN(got) {
		t.Errorf("of nothing: %v", got)
	}
}

func TestSpread(t *testing.T) {
	nan := math.NaN()
	for _, tt := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{3, 1, 2}, spread{2, 1, 3, 3}},
		{[]float64{4, 1, 2, 3}, spread{2.5, 1, 4, 4}},
		{[]float64{nan, 5, nan, math.Inf(1)}, spread{5, 5, 5, 1}},
	} {
		if got := spreadOf(tt.values); got != tt.want {
			t.Errorf("%v: %+v; want %+v", tt.values, got, tt.want)
		}
	}
	if got := spreadOf([]float64{nan}); got.n != 0 || got.cell("%s (%s–%s)", number) != "–" {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestRatiosByNothing(t *testing.T) {
	got := ratios([]float64{6, 1, 1, math.NaN()}, []float64{3, 0, -1, 1})
	if s := spreadOf(got); s.n != 1 || s.median != 2 {
		t.Errorf("%v; want one ratio, of 2", got)
	}
}

func TestCell(t *testing.T) {
	for want, s := range map[string]spread{
		"**7.13** (6.90–123)": {7.128, 6.9, 123.4, 5},
		"**45.7**":            {45.67, 45.67, 45.67, 1},
	} {
		if got := s.cell("**%s** (%s–%s)", number); got != want {
			t.Errorf("%+v: %s; want %s", s, got, want)
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

// A ratio is of two runs of the same round, also where a round is missing; and what is
// over direct is so in each round by itself.
func TestTablesCompareRoundByRound(t *testing.T) {
	cpu := func(values ...float64) (all []figures) {
		for _, v := range values {
			if v == 0 {
				all = append(all, nil) // thrown out
				continue
			}
			all = append(all, figures{"cpu": v, "event50": v})
		}
		return all
	}
	command := func(site) []string { return nil }
	r := &rig{
		Options: Options{Base: "nginx"},
		targets: []target{{name: "direct"}, {name: "nginx", command: command}, {name: "gateway", command: command}},
		results: results{"W1b": {"direct": cpu(1, 1, 2, 1), "nginx": cpu(2, 3, 0, 4), "gateway": cpu(4, 9, 5, 4)}},
	}
	ratio, absolute := r.tables()
	want := table{
		{"ratio to nginx in the same round: **median** (least–most)", "gateway", "goal"},
		{"CPU per event, 500 streams, 20 ms apart (W1b)", "**2.00** (1.00–3.00)", "≤ 1.00"},
		{"event latency over direct, p50 (W1b)", "**3.00** (1.00–4.00)", "≤ 1.10"},
	}
	if !slices.EqualFunc(ratio, want, slices.Equal) {
		t.Errorf("ratios:\n%q; want\n%q", ratio, want)
	}
	want = table{
		{"median (least–most)", "nginx", "gateway", "goal"},
		{"CPU per event, 500 streams, 20 ms apart (W1b), µs", "3.00 (2.00–4.00)", "4.50 (4.00–9.00)", ""},
		{"event latency over direct, p50 (W1b), µs", "2.00 (1.00–3.00)", "3.00 (3.00–8.00)", ""},
	}
	if !slices.EqualFunc(absolute, want, slices.Equal) {
		t.Errorf("figures:\n%q; want\n%q", absolute, want)
	}
}
