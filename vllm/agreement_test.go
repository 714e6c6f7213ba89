//go:build vllm

package vllm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Clients, gateway and engine tell the same of the same requests: how many, how
// they finished, and every token.
//
// vLLM counts what runs in the engine, and of n choices each runs by itself: a
// request with n=2 is two there, with two first tokens, and its prompt is
// counted twice. `usage`, and so the gateway, has it once.
func TestAgreement(t *testing.T) {
	g := start(t, wide)
	rng := rand.New(rand.NewPCG(1, 2))
	asked := 0
	for _, tt := range []struct {
		name                            string
		streams, concurrent, n, longest int
	}{
		{"one at a time", 10, 1, 1, 200},
		{"sixteen at a time", 140, 16, 1, 200},
		{"all at once", 30, 30, 1, 50},
		{"two choices", 20, 16, 2, 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gatewayBefore, engineBefore := now(t, g.url()), now(t, wide.url())
			replies := make([]*reply, tt.streams)
			var slots = make(chan bool, tt.concurrent)
			var all sync.WaitGroup
			for i := range replies {
				path, body := anything(rng, tt.longest)
				body["n"] = tt.n
				slots <- true
				all.Go(func() {
					replies[i] = ask(g.url(), path, fmt.Sprintf("agree-%d", asked+i), body)
					<-slots
				})
			}
			all.Wait()
			asked += tt.streams

			var prompt, tokens, visible int
			finish := map[string]int{}
			var clientTimes []float64
			gatewaySum := 0.0
			for _, r := range replies {
				if !r.whole() || len(r.finish) != tt.n {
					t.Fatalf("%v", r)
				}
				prompt += r.prompt
				tokens += r.tokens
				for _, reason := range r.finish {
					finish[reason]++
				}
				line := g.request(r.id)
				for _, want := range []string{fmt.Sprintf(" prompt_tokens=%d ", r.prompt), fmt.Sprintf(" completion_tokens=%d\n", r.tokens), " outcome=ok "} {
					if !strings.Contains(line, want) {
						t.Errorf("the client counts%s: %s", want, line)
					}
				}
				timing, timed := strings.CutPrefix(r.header.Get("Server-Timing"), "ttft;dur=")
				if timed != r.visible {
					t.Errorf("%v: Server-Timing %q, and text: %v", r, timing, r.visible)
				}
				if !r.visible { // a random model may begin with its end mark
					continue
				}
				visible++
				millis, err := strconv.ParseFloat(timing, 64)
				if err != nil || r.firstByte.Seconds() < millis/1000 {
					t.Errorf("%v: the first byte came after %v, the first token after %s ms, %v", r, r.firstByte, timing, err)
				}
				clientTimes = append(clientTimes, r.firstByte.Seconds())
				gatewaySum += millis / 1000
			}

			gatewayAll := g.rests(asked)
			inGateway := gatewayAll.since(gatewayBefore)
			// Engine and clients are told of a token by the same loop, the engine's
			// metrics a moment later.
			var inEngine metrics
			within(t, 10*time.Second, "the engine has counted all requests", func() error {
				inEngine = now(t, wide.url()).since(engineBefore)
				if n := inEngine.sum("vllm:request_success_total"); n != float64(tt.n*tt.streams) {
					return fmt.Errorf("%v; want %d", n, tt.n*tt.streams)
				}
				return nil
			})
			for _, c := range []struct {
				what      string
				got, want float64
			}{
				{"prompt tokens, gateway", inGateway.sum("gateway_prompt_tokens_total", `model="tiny"`, wide.label()), float64(prompt)},
				{"prompt tokens, engine", inEngine.sum("vllm:prompt_tokens_total"), float64(tt.n * prompt)},
				{"completion tokens, gateway", inGateway.sum("gateway_completion_tokens_total", `model="tiny"`, wide.label()), float64(tokens)},
				{"completion tokens, engine", inEngine.sum("vllm:generation_tokens_total"), float64(tokens)},
				{"requests, gateway", inGateway.sum("gateway_requests_total", `outcome="ok"`, `status="2xx"`, `model="tiny"`), float64(tt.streams)},
				{"ended by length, engine", inEngine.sum("vllm:request_success_total", `finished_reason="length"`), float64(finish["length"])},
				{"ended by a stop, engine", inEngine.sum("vllm:request_success_total", `finished_reason="stop"`), float64(finish["stop"])},
				{"first tokens, gateway", inGateway.sum(gatewayTTFT + "_count"), float64(visible)},
				{"first tokens, engine", inEngine.sum(engineTTFT + "_count"), float64(tt.n * tt.streams)},
			} {
				if c.got != c.want {
					t.Errorf("%s: %v; the clients have %v", c.what, c.got, c.want)
				}
			}
			if sum := inGateway.sum(gatewayTTFT + "_sum"); math.Abs(sum-gatewaySum) > 1e-6*float64(visible) {
				t.Errorf("the gateway's first tokens took %v s in all; what it told the clients adds up to %v", sum, gatewaySum)
			}
			slices.Sort(clientTimes)
			t.Logf("%d prompt and %d completion tokens; finished %v; %d of %d streams had text", prompt, tokens, finish, visible, tt.streams)
			logTimes(t, inEngine, inGateway, clientTimes)
			if tt.n == 1 {
				isLater(t, inEngine, inGateway)
			}
		})
	}
}

// label is that of the gateway's metrics.
func (e *engine) label() string { return `backend="` + e.addr + `"` }

// anything is a request like one of many: long or short, by either path, its
// tokens told by usage or by their ids, some with a stop string.
func anything(rng *rand.Rand, longest int) (path string, body fields) {
	words := make([]string, 1+int(math.Exp(rng.Float64()*math.Log(1500))))
	for i := range words {
		words[i] = []string{"house", "water", "the", "story", "month", "of"}[rng.IntN(6)]
	}
	text := strings.Join(words, " ")
	body = fields{"model": "tiny", "max_tokens": 1 + rng.IntN(longest), "stream": true}
	switch rng.IntN(3) {
	case 0:
		path, body["messages"] = chat, []fields{{"role": "user", "content": text}}
	case 1:
		path, body["prompt"] = completion, text
	case 2: // exactly so many tokens
		ids := make([]int, len(words))
		for i := range ids {
			ids[i] = 3 + rng.IntN(500)
		}
		path, body["prompt"] = completion, ids
	}
	// Who asks for usage gets it. Who does not must still be counted, and says
	// here by itself what it has got.
	if rng.IntN(2) == 0 {
		body["stream_options"] = fields{"include_usage": true}
	} else {
		body["return_token_ids"] = true
	}
	switch rng.IntN(4) {
	case 0:
		body["stop"] = []string{"e", "ing"}
	case 1:
		body["ignore_eos"] = true
	}
	return path, body
}

const (
	gatewayTTFT = "gateway_time_to_first_token_seconds"
	engineTTFT  = "vllm:time_to_first_token_seconds"
)

// isLater: of each stream the gateway's clock runs from before the engine's
// until after it, so at every edge that both histograms have, the gateway has
// no more streams below it than the engine.
func isLater(t *testing.T, engine, gateway metrics) {
	t.Helper()
	ofEngine, ofGateway := engine.buckets(engineTTFT), gateway.buckets(gatewayTTFT)
	common := 0
	for edge, n := range ofGateway {
		if below, ok := ofEngine[edge]; ok {
			common++
			if n > below {
				t.Errorf("%v streams had their first token within %v s by the gateway, and only %v by the engine", n, edge, below)
			}
		}
	}
	if common < 15 {
		t.Errorf("the histograms have only %d edges in common: %v, %v", common, ofEngine, ofGateway)
	}
	if engine.sum(engineTTFT+"_count") != gateway.sum(gatewayTTFT+"_count") {
		return // a stream without text has a first token in the engine only
	}
	if e, g := engine.sum(engineTTFT+"_sum"), gateway.sum(gatewayTTFT+"_sum"); g < e {
		t.Errorf("the first tokens took %v s in all by the gateway, and %v s by the engine", g, e)
	}
}

// logTimes prints what the three say of the time to first token. Of histograms
// a quantile is the edges that it lies between.
func logTimes(t *testing.T, engine, gateway metrics, sorted []float64) {
	t.Helper()
	if len(sorted) == 0 {
		return
	}
	row := func(who string, m metrics, name string) {
		t.Helper()
		mean := m.sum(name+"_sum") / m.sum(name+"_count")
		t.Logf("%-8s mean %7.4f s, p50 %s, p95 %s", who, mean, m.quantile(name, 0.5), m.quantile(name, 0.95))
	}
	row("engine", engine, engineTTFT)
	row("gateway", gateway, gatewayTTFT)
	sum := 0.0
	for _, v := range sorted {
		sum += v
	}
	at := func(q float64) float64 { return sorted[int(math.Ceil(q*float64(len(sorted))))-1] }
	t.Logf("%-8s mean %7.4f s, p50 %.4f, p95 %.4f", "clients", sum/float64(len(sorted)), at(0.5), at(0.95))
}

// buckets are a histogram's, cumulative, by upper edge.
func (m metrics) buckets(name string) map[float64]float64 {
	all := map[float64]float64{}
	for series, v := range m {
		if !strings.HasPrefix(series, name+"_bucket{") {
			continue
		}
		_, after, _ := strings.Cut(series, `le="`)
		text, _, _ := strings.Cut(after, `"`)
		if edge, err := strconv.ParseFloat(text, 64); err == nil {
			all[edge] += v
		}
	}
	return all
}

// quantile gives the bucket in which a histogram's q-quantile lies.
func (m metrics) quantile(name string, q float64) string {
	buckets := m.buckets(name)
	rank := math.Ceil(q * buckets[math.Inf(1)])
	lower, upper := 0.0, math.Inf(1)
	for edge, n := range buckets {
		if n < rank {
			lower = max(lower, edge)
		} else {
			upper = min(upper, edge)
		}
	}
	return fmt.Sprintf("%g–%g", lower, upper)
}
