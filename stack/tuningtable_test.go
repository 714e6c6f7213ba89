//go:build tuning

package main

import (
	"fmt"
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

	shown             // of all requests
	long, short shown // of the model names' own, where there are both
}

func (r *trial) run(t *testing.T) {
	warm, span := r.warm, r.span
	if warm == 0 {
		warm, span = tuningWarm, tuningSpan
	}
	var w window
	s := inTuned(t, r.engine, r.maxInFlight, func(u *tuned) { w = u.closedLoop(r.who, warm, span) })
	r.shown = s.show(w)
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

// holds is one thing that docs/tuning.md says of what was measured.
func holds(t *testing.T, says string, so bool) {
	t.Helper()
	if !so {
		t.Errorf("docs/tuning.md says: %s; that is not what was measured", says)
	}
}

// inDoc holds a table of this name to docs/tuning.md.
func inDoc(t *testing.T, name, measured string) {
	t.Helper()
	document(t, "../docs/tuning.md", "<!-- tuning: "+name+" -->\n", "<!-- /tuning -->\n", "tuning", measured)
}

func TestTuningMaxNumSeqs(t *testing.T) {
	var rows []*trial
	at := map[string]*trial{}
	for _, c := range [][2]int{{100, 4}, {100, 8}, {100, 16}, {100, 32}, {100, 64}, {100, 128}, {10, 4}, {10, 16}, {10, 128}} {
		r := &trial{name: fmt.Sprintf("%d | %d", c[0], c[1]), engine: vllmsim.Config{MaxNumSeqs: c[1]}, who: guides(c[0])}
		rows, at[r.name] = append(rows, r), r
	}
	measure(t, rows)
	inDoc(t, "max-num-seqs", table(rows, nameColumn("users | `--max-num-seqs`"), rpsColumn, ttftColumn, speedColumn, tokensColumn, queueColumn, waitingColumn, cacheColumn, preemptColumn, dutyColumn, memoryColumn))
}

func TestTuningMaxNumBatchedTokens(t *testing.T) {
	var rows []*trial
	for _, n := range []int{256, 512, 2048, 8192} {
		rows = append(rows, &trial{name: fmt.Sprint(n), engine: vllmsim.Config{MaxNumSeqs: 64, MaxNumBatchedTokens: n}, who: []users{
			{n: 20, maxTokens: 50}, {n: 10, model: longModel, prompt: 1500, maxTokens: 50},
		}})
	}
	measure(t, rows)
	inDoc(t, "max-num-batched-tokens", table(rows, nameColumn("`--max-num-batched-tokens`"),
		column{"long prompts: TTFT p50 / p95, ms", func(r *trial) string { return ms(r.long.ttft50) + " / " + ms(r.long.ttft95) }},
		column{"others: TTFT p50 / p95, ms", func(r *trial) string { return ms(r.short.ttft50) + " / " + ms(r.short.ttft95) }},
		column{"others: Inter-Token Latency p50 / p95 / p99, ms", func(r *trial) string {
			return ms(r.short.gap50) + " / " + ms(r.short.gap95) + " / " + ms(r.short.gap99)
		}},
		column{"others: tokens/s of a stream, p5 / average", func(r *trial) string { return fmt.Sprintf("%.0f / %.0f", r.short.speed5, r.short.speed) }},
		rpsColumn, waitingColumn, dutyColumn))
}

func TestTuningMaxTokens(t *testing.T) {
	var rows []*trial
	for _, n := range []int{16, 50, 200, 800} {
		rows = append(rows, &trial{name: fmt.Sprint(n), who: []users{{n: 50, maxTokens: n, exact: true}}, warm: time.Minute, span: 3 * time.Minute})
	}
	measure(t, rows)
	inDoc(t, "max_tokens", table(rows, nameColumn("tokens of an answer"), rpsColumn, ttftColumn, speedColumn, tokensColumn, queueColumn, waitingColumn, cacheColumn, dutyColumn))
}

func TestTuningKVCache(t *testing.T) {
	var rows []*trial
	for _, c := range [][2]int{{64, 800_000}, {64, 8192}, {64, 4096}, {16, 4096}} {
		rows = append(rows, &trial{name: fmt.Sprintf("%d | %d", c[1], c[0]), engine: vllmsim.Config{MaxNumSeqs: c[0], KVCacheTokens: c[1]},
			who: []users{{n: 100, maxTokens: 200, exact: true}}})
	}
	measure(t, rows)
	inDoc(t, "kv-cache", table(rows, nameColumn("`--kv-cache-tokens` | `--max-num-seqs`"), rpsColumn, ttftColumn, speedColumn, tokensColumn,
		column{"Inter-Token Latency p99, ms", func(r *trial) string { return ms(r.gap99) }},
		column{"running in vLLM", func(r *trial) string { return fmt.Sprintf("%.0f", r.running) }},
		waitingColumn, cacheColumn, preemptColumn, dutyColumn, memoryColumn))
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
		column{"Time in the Gateway, waiting p95, ms", func(r *trial) string { return ms(r.lineWait) }},
		waitingColumn,
		column{"average TTFT as vLLM tells it, ms", func(r *trial) string { return ms(r.engineTTFT) }},
		dutyColumn))
}
