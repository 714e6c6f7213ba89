package vllmsim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The questions of a load test: short, and alike only in the template's start.
var questions = []string{
	"Write a short poem about the sea.",
	"What is the capital of France?",
	"Explain how a bicycle stays upright.",
	"Give me three ideas for dinner tonight.",
	"Summarize the plot of a famous novel in two sentences.",
	"How does a large language model generate text?",
}

// load is what one run of closed-loop users measured.
type load struct {
	requests int
	took     time.Duration
	busy     time.Duration // summed over requests
	ttft     []time.Duration
	speed    []float64 // tokens per second after the first token, by request
}

func (l *load) rps() float64      { return float64(l.requests) / l.took.Seconds() }
func (l *load) inFlight() float64 { return l.busy.Seconds() / l.took.Seconds() }

func quantile[T float64 | time.Duration](values []T, q float64) T {
	values = slices.Clone(values)
	slices.Sort(values)
	return values[int(q*float64(len(values)-1))]
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// closedLoop is so many users, each asking, reading the answer and sleeping for
// a second, as k6 scripts do.
func (b *bubble) closedLoop(users int, span time.Duration) *load {
	l := &load{took: span}
	var mu sync.Mutex
	var all sync.WaitGroup
	for user := range users {
		all.Go(func() {
			for n := 0; b.since() < span; n++ {
				began := time.Now()
				list := b.stream("/v1/chat/completions", fmt.Sprintf(
					`{"messages":[{"role":"user","content":%q}],"max_tokens":50,"stream":true,"stream_options":{"include_usage":true}}`,
					questions[(user+n)%len(questions)]))
				first, last := list[0].at, list[len(list)-1].at
				if b.since() > span {
					return // it ended after the run: it does not count
				}
				mu.Lock()
				l.requests++
				l.busy += time.Since(began)
				l.ttft = append(l.ttft, first-began.Sub(b.start))
				if tokens := said(list); tokens > 1 {
					l.speed = append(l.speed, float64(tokens-1)/(last-first).Seconds())
				}
				mu.Unlock()
				time.Sleep(time.Second)
			}
		})
	}
	all.Wait()
	return l
}

// said is usage.completion_tokens of a stream.
func said(list []event) int {
	for _, e := range list {
		if !strings.Contains(e.data, `"usage":{`) {
			continue
		}
		var chunk struct {
			Usage struct {
				CompletionTokens int `json:"completion_tokens"`
			}
		}
		if json.Unmarshal([]byte(e.data), &chunk) == nil {
			return chunk.Usage.CompletionTokens
		}
	}
	return 0
}

// The defaults give what docs/simulator.md says of 10, 50 and 100 users.
func TestBaselineTable(t *testing.T) {
	span := 2 * time.Minute
	if raceDetector { // which makes it ten times slower
		span = 20 * time.Second
	}
	type limits struct{ rpsMin, rpsMax, flyMin, flyMax, ttftMin, ttftMax float64 }
	for _, test := range []struct {
		users int
		want  limits
	}{
		{10, limits{7.9, 10, 1, 3, 0, 0.5}},
		{50, limits{30, 45, 5, 15, 0, 1.5}},
		{100, limits{40, 60, 20, 60, 1, 2}},
	} {
		t.Run(fmt.Sprint(test.users), func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, b *bubble) {
				l := b.closedLoop(test.users, span)
				p95, p99 := quantile(l.ttft, .95).Seconds(), quantile(l.ttft, .99).Seconds()
				t.Logf("%3d users: RPS %.1f, in flight %.1f, TTFT p50 %.3f p95 %.3f p99 %.3f s, tokens/s p5 %.0f mean %.0f p95 %.0f",
					test.users, l.rps(), l.inFlight(), quantile(l.ttft, .5).Seconds(), p95, p99,
					quantile(l.speed, .05), mean(l.speed), quantile(l.speed, .95))
				w := test.want
				within(t, "RPS", l.rps(), w.rpsMin, w.rpsMax)
				within(t, "in flight", l.inFlight(), w.flyMin, w.flyMax)
				within(t, "TTFT p95", p95, w.ttftMin, w.ttftMax)
				within(t, "TTFT p99", p99, 0, 3)
				within(t, "mean tokens/s", mean(l.speed), 50, 150)
			})
		})
	}
}

func within(t *testing.T, what string, got, low, high float64) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s = %.2f; want %v to %v", what, got, low, high)
	}
}
