package rig

import (
	"slices"
	"strings"
	"testing"
)

func TestParseStat(t *testing.T) {
	for text, want := range map[string][2]int{
		"12 (nginx) S 7 12 7 0 -1 4194560":          {12, 7},
		"13 (nginx: worker) S 12 12 7 0 -1 4194560": {13, 12},
		"14 (a) b) R 99 (x) S 13 12":                {14, 13},
	} {
		if pid, parent, err := parseStat([]byte(text)); pid != want[0] || parent != want[1] || err != nil {
			t.Errorf("%s: %d, %d, %v; want %v", text, pid, parent, err, want)
		}
	}
	for _, bad := range []string{"", "12", "12 (a", "12 (a) S", "x (a) S 7", "12 (a) S x", ")("} {
		if pid, parent, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %d, %d; want an error", bad, pid, parent)
		}
	}
}

func TestTreeHasGrandchildren(t *testing.T) {
	children := map[int][]int{1: {2, 9}, 2: {3, 4}, 4: {5}, 9: {10}}
	if got := descend(2, children); !slices.Equal(got, []int{2, 3, 4, 5}) {
		t.Errorf("the tree of 2 is %v", got)
	}
}

func TestParsePSS(t *testing.T) {
	const rollup = "5581b3e4a000-7ffd3d5fe000 ---p 00000000 00:00 0    [rollup]\nRss:    9000 kB\nPss:                1234 kB\nPss_Dirty:           700 kB\n"
	if got, err := parsePSS([]byte(rollup)); got != 1234<<10 || err != nil {
		t.Errorf("%d, %v; want %d", got, err, 1234<<10)
	}
	for _, bad := range []string{"", "Rss: 1 kB\n", "Pss: 1 MB\n", "Pss: kB\n", "Pss_Dirty: 700 kB\n"} {
		if got, err := parsePSS([]byte(bad)); err == nil {
			t.Errorf("%q: %d; want an error", bad, got)
		}
	}
}

func TestReportTakesItsPlace(t *testing.T) {
	const file = "# Title\n\n<!-- table: make bench -->\nold\n<!-- end of table -->\n\nAfter.\n"
	got, err := between([]byte(file), "make bench", []byte("new\n"))
	if want := "# Title\n\n<!-- table: make bench -->\n\nnew\n\n<!-- end of table -->\n\nAfter.\n"; string(got) != want || err != nil {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	for _, bad := range []string{"", "<!-- table: make bench -->\n", "<!-- end of table -->\n"} {
		if _, err := between([]byte(bad), "make bench", nil); err == nil || !strings.Contains(err.Error(), "end of table") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestNamesThatAreNotThere(t *testing.T) {
	all := []workload{{name: "W1a"}, {name: "W3"}}
	name := func(w workload) string { return w.name }
	if got, err := pick("workload", all, []string{"w3"}, name); len(got) != 1 || got[0].name != "W3" || err != nil {
		t.Errorf("w3: %v, %v", got, err)
	}
	if _, err := pick("workload", all, []string{"W3", "W9"}, name); err == nil || !strings.Contains(err.Error(), `no workload "W9"; there are W1a, W3`) {
		t.Errorf("W9: %v", err)
	}
}
