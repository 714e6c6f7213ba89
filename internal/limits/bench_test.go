package limits

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

var benchLimits = Limits{Requests: most, Tokens: most, DayTokens: most}

// Time does not depend on how many callers there are.
func BenchmarkLocal(b *testing.B) {
	for _, callers := range []int{1, 100_000} {
		names := make([]string, callers)
		for i := range names {
			names[i] = fmt.Sprintf("caller-%d", i)
		}
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			l := NewLocal()
			for _, name := range names {
				l.Take(b.Context(), name, benchLimits, 100)
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					l.Take(b.Context(), names[i%callers], benchLimits, 100)
				}
			})
		})
	}
}

// What is kept of a caller who has used something in every slot, and what it costs to
// count for one.
func BenchmarkLocalFull(b *testing.B) {
	const callers = 2000
	var kept uint64
	all := make([]counts, callers)
	before := heap()
	for i := range all {
		m := moment{at: time.Hour, end: day}
		for range inWindow + 1 {
			m.at += slotTime
			all[i].take(m, benchLimits, 100)
		}
	}
	kept = (heap() - before) / callers
	runtime.KeepAlive(all)
	m := moment{at: time.Hour, end: day}
	var c counts
	for range inWindow + 1 {
		m.at += slotTime
		c.take(m, benchLimits, 100)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.take(m, benchLimits, 100)
	}
	b.ReportMetric(float64(kept), "B/caller")
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// What Redis itself spends on a question, of a caller who has used something in none
// or in all slots; as it says in INFO commandstats.
func BenchmarkShared(b *testing.B) {
	for _, full := range []int{0, inWindow} {
		for _, over := range []bool{false, true} {
			b.Run(fmt.Sprintf("slots=%d/over=%v", full, over), func(b *testing.B) {
				s := startRedis(b)
				r := s.rig()
				for range full {
					r.take(b, "ann", benchLimits, 100)
					r.wait(slotTime)
				}
				l := benchLimits
				if over {
					r.take(b, "ann", benchLimits, 100)
					l.Tokens = 1000
				}
				s.do("CONFIG", "RESETSTAT")
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					g, err := r.Take(b.Context(), "ann", l, 1000)
					if err != nil || (g.Over != "") != over {
						b.Fatal(says(g), err)
					}
				}
				b.StopTimer()
				var calls, usec float64
				_, stats, _ := strings.Cut(s.do("INFO", "commandstats").(string), "cmdstat_evalsha:")
				fmt.Sscanf(stats, "calls=%f,usec=%f", &calls, &usec)
				b.ReportMetric(usec/calls, "redis-µs/op")
				b.ReportMetric(float64(s.do("MEMORY", "USAGE", keyOf("ann")).(int64)), "B/caller")
			})
		}
	}
}
