//go:build routing

package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

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
	document(t, routingDoc, tableBegin, tableEnd, "routing", 0.1, b.String())
}
