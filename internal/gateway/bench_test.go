package gateway

import (
	"context"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// What it costs to choose a backend and to give it back.
func BenchmarkLease(b *testing.B) {
	for _, policy := range Policies() {
		for _, n := range []int{1, 4, 64} {
			b.Run(fmt.Sprint(policy, "/", n), func(b *testing.B) {
				p := poolOf(policy, n, 0)
				w := want{model: "tiny"}
				b.ReportAllocs()
				for i := range b.N {
					w.key = keyOf(i % 1000)
					l, _, err := p.lease(context.Background(), &w, nil)
					if err != nil {
						b.Fatal(err)
					}
					l.release()
				}
			})
		}
	}
}

// What it costs to serve the next of a line, by its length and its callers.
func BenchmarkLine(b *testing.B) {
	for _, waiting := range []int{1, 100, 10000} {
		for _, callers := range []int{1, 100} {
			b.Run(fmt.Sprint(waiting, "/", callers), func(b *testing.B) {
				p := poolOf(LeastInFlight, 4, 1)
				p.line.max = waiting + 1
				var held []*lease
				for range 4 {
					l, _, _ := p.lease(context.Background(), &want{model: "tiny"}, nil)
					held = append(held, l)
				}
				join := func(i int) {
					p.mu.Lock()
					defer p.mu.Unlock()
					p.seq++
					p.line.enter(&want{model: "tiny", caller: uint64(i % callers), seq: p.seq}, nil)
				}
				for i := range waiting {
					join(i)
				}
				b.ResetTimer()
				for i := range b.N {
					l := held[i%4]
					l.release()
					join(i)
					held[i%4] = &lease{p: p, backend: l.backend, caller: uint64(i % callers)}
				}
			})
		}
	}
}

func poolOf(policy string, n, most int) *pool {
	p := &pool{choose: policies[policy], cap: most, maxLoad: defaultMaxLoad, running: map[uint64]int{}, begun: map[uint64]int{}, models: map[string]bool{}, listers: map[string]int{}}
	p.line = line{rows: map[rowKey]*row{}, gauge: prometheus.NewGauge(prometheus.GaugeOpts{})}
	for i := range n {
		name := fmt.Sprintf("10.0.0.%d:8000", i)
		b := &backend{name: name, weight: 1, hash: hash(hashSeed, []byte(name)), state: up}
		p.add(b)
		p.setModels(b, []string{"tiny"})
	}
	return p
}
