package gateway

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/vllm-gateway/vllm-gateway/internal/limits"
	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// What it costs to know whose a request is, and to count it against what its caller
// may use, by how many callers there are. The requests go round among 1,000 of them at
// most, evenly spread.
func BenchmarkCallers(b *testing.B) {
	for _, n := range []int{1, 1_000, 100_000} {
		l := limits.Limits{Requests: 1 << 40, Tokens: 1 << 40, DayTokens: 1 << 40}
		list := make([]Caller, n)
		for i := range list {
			list[i] = Caller{Name: fmt.Sprint("caller-", i), Keys: []secret.Hash{secret.HashOf(fmt.Sprint("vg-the-very-key-of-", i))}, Limits: l}
		}
		conf := &settings{callers: newCallers(list, nil), limiter: newCounting(limits.NewLocal())}
		g := &Gateway{}
		askers := min(n, 1_000)
		r := httptest.NewRequest("POST", "/v1/chat/completions", nil)
		headers := make([][]string, askers)
		for i := range headers {
			headers[i] = []string{fmt.Sprint("Bearer vg-the-very-key-of-", i*(n/askers))}
		}
		rec := &record{}
		identify := func(b *testing.B, i int) *record {
			*rec = record{conf: conf}
			r.Header["Authorization"] = headers[i%askers]
			if err := g.identify(rec, r); err != nil {
				b.Fatal(err)
			}
			return rec
		}
		b.Run(fmt.Sprint("identify/", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				identify(b, i)
			}
		})
		b.Run(fmt.Sprint("identify, take, settle/", n), func(b *testing.B) {
			// All of them have used something: the limiter remembers each.
			for i := range list {
				conf.limiter.Take(b.Context(), list[i].Name, l, 1)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				who := identify(b, i).caller
				grant, err := conf.limiter.Take(b.Context(), who.Name, who.Limits, 300)
				if err != nil || grant.Over != "" {
					b.Fatal(grant, err)
				}
				conf.limiter.Settle(b.Context(), who.Name, grant, 100)
			}
		})
	}
}
