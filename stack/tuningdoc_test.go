package main

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// What docs/tuning.md sets in italics are panels: somebody will look for them.
func TestTuningNamesPanels(t *testing.T) {
	text, err := os.ReadFile("../docs/tuning.md")
	if err != nil {
		t.Fatal(err)
	}
	titles := []string{"TTFT", "KV Cache"} // which it explains
	for _, p := range readDashboard(t).Panels {
		for _, p := range append(p.Panels, p) {
			titles = append(titles, p.Title)
		}
	}
	named := regexp.MustCompile(`(?:^|[^*])\*([^*\s][^*\n]*)\*(?:[^*]|$)`).FindAllSubmatch(text, -1)
	if len(named) < 20 {
		t.Fatalf("docs/tuning.md names %d panels", len(named))
	}
	for _, m := range named {
		if !slices.Contains(titles, string(m[1])) {
			t.Errorf("docs/tuning.md names a panel %q; the dashboard has none", m[1])
		}
	}
}
