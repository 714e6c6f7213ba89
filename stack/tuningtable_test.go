//go:build tuning

package main

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/vllmsim"
)

const (
	tuningWarm = 20 * time.Second
	tuningSpan = time.Minute
)

// trial is one row of a table: parameters, and what the panels then show.
type trial struct {
	name        string
	engine      vllmsim.Config
	maxInFlight int
	who         []users
	warm, span  time.Duration // 0: the usual
	sweep       bool          // in place of users: how many requests a second it can take

	limit       float64 // of the sweep
	seen                // of all requests
	long, short seen    // of the model names' own, where there are both
}

func (r *trial) run(t *testing.T) {
	warm, span := r.warm, r.span
	if warm == 0 {
		warm, span = tuningWarm, tuningSpan
	}
	var w window
	s := inTuned(t, r.engine, r.maxInFlight, func(u *tuned) {
		if r.sweep {
			r.limit, w = u.sweep(8)
		} else {
			w = u.closedLoop(r.who, warm, span)
		}
	})
	r.seen = s.show(w)
	w.model = longModel
	r.long = s.show(w)
	w.model = vllmsim.DefaultModel
	r.short = s.show(w)
}

// measure runs rows side by side.
func measure(t *testing.T, rows []*trial) {
	t.Helper()
	t.Run("rows", func(t *testing.T) {
		for _, r := range rows {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				r.run(t)
			})
		}
	})
	if t.Failed() {
		t.FailNow()
	}
}

// column is one of a table.
type column struct {
	head string
	cell func(r *trial) string
}

func table(rows []*trial, columns ...column) string {
	var b strings.Builder
	b.WriteString("|")
	for _, c := range columns {
		b.WriteString(" " + c.head + " |")
	}
	b.WriteString("\n|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, r := range rows {
		b.WriteString("|")
		for _, c := range columns {
			b.WriteString(" " + c.cell(r) + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func ms(seconds float64) string { return fmt.Sprintf("%.0f", 1000*seconds) }

var (
	rpsColumn     = column{"Requests per Second", func(r *trial) string { return fmt.Sprintf("%.1f", r.rps) }}
	ttftColumn    = column{"TTFT p50 / p95 / average, ms", func(r *trial) string { return ms(r.ttft50) + " / " + ms(r.ttft95) + " / " + ms(r.ttft) }}
	speedColumn   = column{"tokens/s of a stream, p5 / average", func(r *trial) string { return fmt.Sprintf("%.0f / %.0f", r.speed5, r.speed) }}
	tokensColumn  = column{"tokens/s of all", func(r *trial) string { return fmt.Sprintf("%.0f", r.tokens) }}
	queueColumn   = column{"Queue Depth", func(r *trial) string { return fmt.Sprintf("%.0f", r.queue) }}
	waitingColumn = column{"waiting in vLLM", func(r *trial) string { return fmt.Sprintf("%.0f", r.waiting) }}
	cacheColumn   = column{"KV cache, highest", func(r *trial) string { return fmt.Sprintf("%.1f %%", 100*r.cache) }}
	preemptColumn = column{"preempted/s", func(r *trial) string { return fmt.Sprintf("%.1f", r.preempted) }}
	dutyColumn    = column{"GPU Utilization", func(r *trial) string { return fmt.Sprintf("%.0f %%", r.duty) }}
	memoryColumn  = column{"GPU Memory Usage", func(r *trial) string { return fmt.Sprintf("%.1f GB", r.memory/1e9) }}
	nameColumn    = func(head string) column { return column{head, func(r *trial) string { return r.name }} }
)

type get = func(r *trial) float64

// trend holds what one of the panels does from row to row: by how much each is more, or
// less, than the one before it, at least.
func trend(t *testing.T, what string, of get, rows []*trial, least float64) {
	t.Helper()
	for i := 1; i < len(rows); i++ {
		a, b := of(rows[i-1]), of(rows[i])
		if least > 1 && !(b >= least*a) || least < 1 && !(b <= least*a) {
			t.Errorf("%s: %.4g with %s, %.4g with %s; want %g times that", what, a, rows[i-1].name, b, rows[i].name, least)
		}
	}
}

const (
	rises, falls = 1.01, 0.99
	clearlyRises = 1.1
	clearlyFalls = 0.9
)

// unmoved holds that a panel shows the same in all rows, but for a tenth.
func unmoved(t *testing.T, what string, of get, rows []*trial) {
	t.Helper()
	for _, r := range rows[1:] {
		if a, b := of(rows[0]), of(r); math.Abs(a-b) > 0.1*max(a, b) {
			t.Errorf("%s: %.4g with %s, %.4g with %s; want the same", what, a, rows[0].name, b, r.name)
		}
	}
}

// bounds holds what a panel shows in every row.
func bounds(t *testing.T, what string, of get, rows []*trial, low, high float64) {
	t.Helper()
	for _, r := range rows {
		if v := of(r); !(v >= low && v <= high) {
			t.Errorf("%s: %.4g with %s; want %g to %g", what, v, r.name, low, high)
		}
	}
}

var (
	rpsOf       = func(r *trial) float64 { return r.rps }
	ttft95Of    = func(r *trial) float64 { return r.ttft95 }
	ttftOf      = func(r *trial) float64 { return r.ttft }
	speedOf     = func(r *trial) float64 { return r.speed }
	tokensOf    = func(r *trial) float64 { return r.tokens }
	queueOf     = func(r *trial) float64 { return r.queue }
	waitingOf   = func(r *trial) float64 { return r.waiting }
	lineOf      = func(r *trial) float64 { return r.line }
	preemptedOf = func(r *trial) float64 { return r.preempted }
	cacheOf     = func(r *trial) float64 { return r.cache }
	dutyOf      = func(r *trial) float64 { return r.duty }
	memoryOf    = func(r *trial) float64 { return r.memory }
	gap99Of     = func(r *trial) float64 { return r.gap99 }
)

// inDoc holds a table of this name to docs/tuning.md. Who comes first of those that come
// at the same time is chance, and quantiles are read from buckets.
func inDoc(t *testing.T, name, measured string) {
	t.Helper()
	document(t, "../docs/tuning.md", "<!-- tuning: "+name+" -->\n", "<!-- /tuning -->\n", "tuning", 0.25, measured)
}

func TestTuningMaxNumSeqs(t *testing.T) {
	var rows []*trial
	for _, c := range [][2]int{{100, 4}, {100, 8}, {100, 16}, {100, 32}, {100, 64}, {100, 128}, {10, 4}, {10, 16}, {10, 128}} {
		r := &trial{name: fmt.Sprintf("%d | %d", c[0], c[1]), engine: vllmsim.Config{MaxNumSeqs: c[1]}, who: guides(c[0])}
		rows = append(rows, r)
	}
	measure(t, rows)
	inDoc(t, "max-num-seqs", table(rows, nameColumn("users | `--max-num-seqs`"), rpsColumn, ttftColumn, speedColumn, tokensColumn, queueColumn, waitingColumn, cacheColumn, preemptColumn, dutyColumn, memoryColumn))

	crowd, few := rows[:6], rows[6:]
	trend(t, "RPS, while they wait", rpsOf, crowd[:4], clearlyRises)
	trend(t, "TTFT p95", ttft95Of, crowd[:5], clearlyFalls)
	trend(t, "TTFT p95 from 16 to 32", ttft95Of, crowd[2:4], 0.5)
	trend(t, "tokens/s of a stream", speedOf, crowd[:5], clearlyFalls)
	trend(t, "tokens/s of all", tokensOf, crowd[:5], rises)
	trend(t, "queue depth", queueOf, crowd[:4], clearlyFalls)
	trend(t, "waiting", waitingOf, crowd[:5], 0.95)
	trend(t, "GPU utilization", dutyOf, crowd[:4], rises)
	bounds(t, "waiting where there is room for all that come", waitingOf, crowd[4:], 0, 0.5)
	bounds(t, "GPU utilization with a batch too small", dutyOf, crowd[:1], 0, 70)
	for _, of := range []get{rpsOf, ttftOf, speedOf, tokensOf, dutyOf} {
		unmoved(t, "beyond what is in flight nothing changes", of, crowd[4:])
	}
	for _, of := range []get{rpsOf, speedOf, tokensOf} {
		unmoved(t, "10 users do not notice", of, few)
	}
	bounds(t, "TTFT p95 of 10 users", ttft95Of, few, 0, 0.025)
	bounds(t, "waiting with 10 users", waitingOf, few, 0, 0.5)
	unmoved(t, "GPU memory", memoryOf, rows)
	bounds(t, "KV cache", cacheOf, rows, 0, 0.01)
	bounds(t, "preempted", preemptedOf, rows, 0, 0)
}

func TestTuningMaxNumBatchedTokens(t *testing.T) {
	var rows []*trial
	for _, n := range []int{256, 512, 2048, 8192} {
		rows = append(rows, &trial{name: fmt.Sprint(n), engine: vllmsim.Config{MaxNumSeqs: 64, MaxNumBatchedTokens: n}, who: []users{
			{n: 20, maxTokens: 50}, {n: 3, model: longModel, prompt: 1500, maxTokens: 50},
		}, warm: tuningWarm, span: 3 * time.Minute})
	}
	measure(t, rows)
	inDoc(t, "max-num-batched-tokens", table(rows, nameColumn("`--max-num-batched-tokens`"),
		column{"long prompts: TTFT p50 / p95, ms", func(r *trial) string { return ms(r.long.ttft50) + " / " + ms(r.long.ttft95) }},
		column{"others: TTFT p50 / p95, ms", func(r *trial) string { return ms(r.short.ttft50) + " / " + ms(r.short.ttft95) }},
		column{"others: Inter-Token Latency p95 / p99, ms", func(r *trial) string {
			return ms(r.short.gap95) + " / " + ms(r.short.gap99)
		}},
		column{"others: tokens/s of a stream, p5 / average", func(r *trial) string { return fmt.Sprintf("%.0f / %.0f", r.short.speed5, r.short.speed) }},
		rpsColumn, waitingColumn, dutyColumn))

	trend(t, "TTFT p50 of long prompts, to the budget that takes one whole", func(r *trial) float64 { return r.long.ttft50 }, rows[:3], falls)
	trend(t, "TTFT p50 of long prompts, in all", func(r *trial) float64 { return r.long.ttft50 }, []*trial{rows[0], rows[2]}, 0.8)
	trend(t, "inter-token latency p99 of others", func(r *trial) float64 { return r.short.gap99 }, rows[:3], 1.3)
	trend(t, "tokens/s of others", func(r *trial) float64 { return r.short.speed }, []*trial{rows[0], rows[2]}, falls)
	unmoved(t, "RPS", rpsOf, rows)
	unmoved(t, "TTFT p50 of long prompts, with a budget beyond", func(r *trial) float64 { return r.long.ttft50 }, rows[2:])
	unmoved(t, "inter-token latency p99 of others, with a budget beyond", func(r *trial) float64 { return r.short.gap99 }, rows[2:])
}

func TestTuningMaxTokens(t *testing.T) {
	var rows []*trial
	for _, n := range []int{16, 50, 200, 800} {
		r := &trial{name: fmt.Sprint(n), who: []users{{n: 50, maxTokens: n, exact: true}}}
		if n >= 200 { // which take long
			r.warm, r.span = time.Minute, 3*time.Minute
		}
		rows = append(rows, r)
	}
	measure(t, rows)
	inDoc(t, "max_tokens", table(rows, nameColumn("tokens of an answer"), rpsColumn, ttftColumn, speedColumn, tokensColumn, queueColumn, waitingColumn, cacheColumn, dutyColumn))

	trend(t, "RPS", rpsOf, rows, clearlyFalls)
	trend(t, "TTFT", ttftOf, rows, 2)
	trend(t, "queue depth", queueOf, rows, rises)
	trend(t, "waiting", waitingOf, rows[1:], rises)
	bounds(t, "waiting with the shortest", waitingOf, rows[:1], 0, 0.5)
	unmoved(t, "tokens/s of all", tokensOf, rows[1:])
	unmoved(t, "tokens/s of a stream", speedOf, rows[1:])
	unmoved(t, "GPU utilization", dutyOf, rows[1:])
}

func TestTuningKVCache(t *testing.T) {
	var rows []*trial
	for _, c := range [][2]int{{64, 800_000}, {64, 8192}, {64, 4096}, {32, 4096}, {16, 4096}} {
		rows = append(rows, &trial{name: fmt.Sprintf("%d | %d", c[1], c[0]), engine: vllmsim.Config{MaxNumSeqs: c[0], KVCacheTokens: c[1], MeanOutputTokens: 200},
			who: []users{{n: 100, maxTokens: 800}}, warm: 40 * time.Second, span: 80 * time.Second})
	}
	measure(t, rows)
	inDoc(t, "kv-cache", table(rows, nameColumn("`--kv-cache-tokens` | `--max-num-seqs`"), rpsColumn, ttftColumn, speedColumn, tokensColumn,
		column{"Inter-Token Latency p99, ms", func(r *trial) string { return ms(r.gap99) }},
		column{"running in vLLM", func(r *trial) string { return fmt.Sprintf("%.0f", r.running) }},
		waitingColumn, cacheColumn, preemptColumn, dutyColumn, memoryColumn))

	trend(t, "RPS as the cache shrinks", rpsOf, rows[:3], 0.97)
	trend(t, "tokens/s of all", tokensOf, rows[:3], falls)
	trend(t, "TTFT p95", ttft95Of, rows[:3], clearlyRises)
	trend(t, "inter-token latency p99", gap99Of, rows[:3], clearlyRises)
	trend(t, "preempted", preemptedOf, rows[:3], clearlyRises)
	bounds(t, "preempted with room", preemptedOf, rows[:1], 0, 0)
	bounds(t, "KV cache", cacheOf, rows[1:4], 0.98, 1)
	trend(t, "preempted, with fewer sequences", preemptedOf, rows[2:5], 0.8)
	bounds(t, "preempted where all fit", preemptedOf, rows[4:], 0, 0)
	trend(t, "inter-token latency p99, with fewer sequences", gap99Of, rows[2:5], 0.8)
	trend(t, "tokens/s of a stream, with fewer sequences", speedOf, rows[2:5], clearlyRises)
	unmoved(t, "RPS with 64 and 32", rpsOf, rows[2:4])
	trend(t, "RPS with 32 and 16", rpsOf, rows[3:5], clearlyFalls)
	bounds(t, "GPU utilization, whatever is preempted", dutyOf, rows[:4], 95, 100)
}

func TestTuningMaxInFlight(t *testing.T) {
	var rows []*trial
	for _, n := range []int{0, 32, 20, 16, 8} {
		name := fmt.Sprint(n)
		if n == 0 {
			name = "none"
		}
		rows = append(rows, &trial{name: name, maxInFlight: n, who: guides(100)})
	}
	measure(t, rows)
	inDoc(t, "max-in-flight", table(rows, nameColumn("the gateway's `--max-in-flight`"), rpsColumn, ttftColumn, speedColumn, queueColumn,
		column{"Waiting Line", func(r *trial) string { return fmt.Sprintf("%.0f", r.line) }},
		waitingColumn,
		column{"average TTFT as vLLM tells it, ms", func(r *trial) string { return ms(r.engineTTFT) }},
		dutyColumn))

	enough := rows[:4] // at least max-num-seqs
	for _, of := range []get{rpsOf, ttftOf, speedOf, queueOf, dutyOf, func(r *trial) float64 { return r.line + r.waiting }} {
		unmoved(t, "as many wait as long, here or there", of, enough)
	}
	trend(t, "waiting in vLLM", waitingOf, enough, 0.8)
	trend(t, "waiting line", lineOf, rows[1:], rises)
	trend(t, "TTFT as vLLM tells it", func(r *trial) float64 { return r.engineTTFT }, enough, 0.8)
	bounds(t, "waiting in vLLM at max-num-seqs", waitingOf, rows[3:], 0, 0.5)
	trend(t, "RPS with less than max-num-seqs", rpsOf, rows[3:], 0.75)
	trend(t, "TTFT with less than max-num-seqs", ttftOf, rows[3:], 1.5)
	trend(t, "GPU utilization with less than max-num-seqs", dutyOf, rows[3:], clearlyFalls)
}

func TestTuningBatchSize(t *testing.T) {
	var rows []*trial
	for _, n := range []int{4, 8, 16, 32, 64, 128} {
		rows = append(rows, &trial{name: fmt.Sprint(n), engine: vllmsim.Config{MaxNumSeqs: n}, sweep: true})
	}
	measure(t, rows)
	best := map[int]*trial{} // by the tokens/s that a stream is to have
	for _, r := range rows {
		for _, speed := range []int{objectiveSpeed, 60} {
			if b := best[speed]; r.ttft95 < objectiveTTFT && r.speed > float64(speed) && (b == nil || r.limit > b.limit) {
				best[speed] = r
			}
		}
	}
	inDoc(t, "batch-size", table(rows, nameColumn("`--max-num-seqs`"),
		column{"limit, requests/s", func(r *trial) string { return fmt.Sprintf("%.0f", r.limit) }},
		tokensColumn, ttftColumn, speedColumn, queueColumn, waitingColumn, cacheColumn, dutyColumn,
		column{"", func(r *trial) string {
			for _, speed := range []int{objectiveSpeed, 60} {
				if best[speed] == r {
					return fmt.Sprintf("**best** where a stream is to have %d tokens/s", speed)
				}
			}
			return ""
		}}))

	limitOf := func(r *trial) float64 { return r.limit }
	trend(t, "limit", limitOf, rows, rises)
	trend(t, "limit of small batches", limitOf, rows[:4], 1.25)
	bounds(t, "what the last doubling brings", func(r *trial) float64 { return r.limit / rows[len(rows)-2].limit }, rows[len(rows)-1:], 1, 1.2)
	trend(t, "tokens/s of a stream", speedOf, rows, clearlyFalls)
	bounds(t, "TTFT p95", ttft95Of, rows, 0, objectiveTTFT)
	if best[objectiveSpeed] != rows[4] || best[60] != rows[2] {
		t.Errorf("the best are %+v; want 64 and 16", best)
	}
}
