//go:build routing

package main

import (
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
)

var updateRouting = flag.Bool("update", false, "write the table into docs/routing.md")

const (
	routingDoc = "../docs/routing.md"
	tableBegin = "<!-- table: make routing -->\n"
	tableEnd   = "<!-- end of table -->\n"
)

// The table of docs/routing.md is what these servers measure. Power of two draws by
// chance, so figures may differ a little.
func TestRoutingTable(t *testing.T) {
	s := scale{warm: 4, measured: 4, prefixes: 256}
	loads := []workload{even(s), skewed(s), crowded(s), conversations(s), shared(s)}
	got := map[string]figures{}
	t.Run("all", func(t *testing.T) {
		var mu sync.Mutex
		for _, w := range loads {
			for _, p := range routingPolicies {
				t.Run(w.name+"/"+p.name, func(t *testing.T) {
					t.Parallel()
					r := route(t, p.name, 1, w)
					mu.Lock()
					defer mu.Unlock()
					got[w.name+p.name] = r
				})
			}
		}
	})
	var b strings.Builder
	b.WriteString("| workload | policy | cached | TTFT p50 | p95 | requests, most/mean | in flight, most/mean | requests/s |\n|---|---|---|---|---|---|---|---|\n")
	for _, w := range loads {
		for _, p := range routingPolicies {
			r := got[w.name+p.name]
			fmt.Fprintf(&b, "| %s | %s | %.0f %% | %d ms | %d ms | %.1f | %.1f | %.0f |\n", w.name, p.name, 100*r.hits, r.p50.Milliseconds(), r.p95.Milliseconds(), r.requests, r.busy, float64(r.done)/s.measured)
		}
	}
	fmt.Print(b.String())
	text, err := os.ReadFile(routingDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	table, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no %q … %q", routingDoc, tableBegin, tableEnd)
	}
	if *updateRouting {
		if err := os.WriteFile(routingDoc, []byte(before+tableBegin+b.String()+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	said, measured := strings.Split(table, "\n"), strings.Split(b.String(), "\n")
	if len(said) != len(measured) {
		t.Fatalf("%s has %d rows, want %d", routingDoc, len(said), len(measured))
	}
	for i := range said {
		if !alike(said[i], measured[i]) {
			t.Errorf("%s says\n%s\nmeasured\n%s\nmake routing ARGS=-update writes it", routingDoc, said[i], measured[i])
		}
	}
}

// alike compares rows: words must be the same, numbers so but for a tenth, or 2.
func alike(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		var m, n float64
		_, err := fmt.Sscan(x[i], &m)
		_, err2 := fmt.Sscan(y[i], &n)
		if err != nil || err2 != nil {
			if x[i] != y[i] {
				return false
			}
		} else if math.Abs(m-n) > max(2, 0.1*max(m, n)) {
			return false
		}
	}
	return true
}
