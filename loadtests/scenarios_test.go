//go:build k6

package loadtests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What single scripts send, as the servers saw it.

func TestPromptsOfOnesOwn(t *testing.T) {
	t.Parallel()
	bin := build(t)
	path := filepath.Join(t.TempDir(), "own.jsonl")
	lines := `{"prompt": "Count to a hundred.", "max_tokens": 7, "ignore_eos": true, "stream": false, "model": "another"}
{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}], "max_tokens": 7, "ignore_eos": true}

`
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	url := serve(t, filepath.Join(bin, "vllm-gateway"), "--backend", serve(t, filepath.Join(bin, "vllm-sim")))
	preflight := 50.0 // tokens at most
	o := run(t, "prompts", url, "PROMPTS="+path, "TIME_SCALE=0.02")
	if o.code != passed {
		t.Errorf("k6 ended with %d, want %d", o.code, passed)
	}
	e := scrape(t, url)
	sent := float64(len(o.values("failed_requests", nil)))
	if got := e.sums["gateway_completion_tokens_total"] - 7*sent; got < 1 || got > preflight {
		t.Errorf("%v tokens beside seven of each of %v requests, want those of the preflight: 1 to %v", got, sent, preflight)
	}
}

func TestTalks(t *testing.T) {
	t.Parallel()
	bin := build(t)
	sim := serve(t, filepath.Join(bin, "vllm-sim"))
	o := run(t, "prompts", serve(t, filepath.Join(bin, "vllm-gateway"), "--backend", sim), "TIME_SCALE=0.1", "MAX_TOKENS=10")
	if o.code != passed {
		t.Errorf("k6 ended with %d, want %d", o.code, passed)
	}
	// Who talks on sends again all that was said: the cache knows it, word for word.
	e := scrape(t, sim)
	hits, asked := e.sums["vllm:prefix_cache_hits_total"], e.sums["vllm:prefix_cache_queries_total"]
	if share := hits / asked; share < 0.15 {
		t.Errorf("the prefix cache knew %v of %v tokens, want a sixth at least", hits, asked)
	}
}

func TestPrefix(t *testing.T) {
	t.Parallel()
	bin := build(t)
	sim := serve(t, filepath.Join(bin, "vllm-sim"), "--max-num-seqs", "64")
	o := run(t, "prefix", serve(t, filepath.Join(bin, "vllm-gateway"), "--backend", sim), "TIME_SCALE=0.05", "TIMEOUT=4", "TTFT_P95_MS=5000")
	if o.code != passed {
		t.Errorf("k6 ended with %d, want %d", o.code, passed)
	}
	mean := func(side string) float64 {
		sum, values := 0.0, o.values("ttft_ms", func(tags map[string]string) bool { return tags["side"] == side })
		for _, v := range values {
			sum += v
		}
		return sum / float64(len(values))
	}
	// A thousand tokens cost the simulator 50 ms.
	if own, shared := mean("own"), mean("shared"); own < 2*shared || shared <= 0 {
		t.Errorf("TTFT is %.0f ms in the mean with prompts of one's own, and %.0f ms with shared ones; want less than half", own, shared)
	}
	count := func(side string) float64 {
		return float64(len(o.values("failed_requests", func(tags map[string]string) bool { return tags["side"] == side })))
	}
	e := scrape(t, sim)
	hits, asked := e.sums["vllm:prefix_cache_hits_total"], e.sums["vllm:prefix_cache_queries_total"]
	own, shared := count("own"), count("shared")
	// Whole blocks of 16 tokens, of all shared prompts but the first.
	if known, want := hits/asked, shared/(own+shared); known > want || known < 0.9*want {
		t.Errorf("the prefix cache knew %v of %v tokens, want what the %v shared prompts of %v begin with", hits, asked, shared, own+shared)
	}
}

func TestCompareGateways(t *testing.T) {
	t.Parallel()
	bin := build(t)
	sim := serve(t, filepath.Join(bin, "vllm-sim"))
	one, two := serve(t, filepath.Join(bin, "vllm-gateway"), "--backend", sim), serve(t, filepath.Join(bin, "vllm-gateway"), "--backend", sim)
	o := run(t, "compare", one, "GATEWAY_URLS="+one+", "+one+"/+"+two, "TIME_SCALE=0.05", "TIMEOUT=4")
	if o.code != passed {
		t.Errorf("k6 ended with %d, want %d", o.code, passed)
	}
	sides := map[string]int{}
	for _, s := range o.samples {
		if s.Metric == "failed_requests" {
			sides[s.Data.Tags["side"]]++
		}
	}
	if len(sides) != 2 || sides[one] == 0 {
		t.Errorf("requests by side: %v, want two sides, and %s one of them", sides, one)
	}
	// The second gateway has half of one side's users, so a quarter of all.
	a, b := scrape(t, one).sums["gateway_rps"], scrape(t, two).sums["gateway_rps"]
	if share := b / (a + b); share < 0.2 || share > 0.35 {
		t.Errorf("the gateways had %v and %v requests, want three and one of four", a, b)
	}
}

// A gateway that dies in the middle is told in a few lines, and what was open has failed.
func TestGatewayGoesAway(t *testing.T) {
	t.Parallel()
	bin := build(t)
	gateway := serve(t, filepath.Join(bin, "vllm-gateway"), "--backend", serve(t, filepath.Join(bin, "vllm-sim")))
	target := front(t, gateway, diesAfter(20))
	o := run(t, "spike", target, "TIME_SCALE=0.05", "TIMEOUT=2")
	if o.code != gated {
		t.Errorf("k6 ended with %d, want %d", o.code, gated)
	}
	if n := o.warnings(); n > 10 {
		t.Errorf("k6 logged %d warnings and errors, want 10 at most", n)
	}
	if good := countsAll(t, o); good == 0 || good > 20 {
		t.Errorf("%d requests succeeded, want 1 to 20", good)
	}
	// Without a pause after a failure a hundred users would send thousands.
	if n := strings.Count(o.log, "request failed"); n == 0 {
		t.Error("k6's log says of no request that it failed")
	}
	if n := len(o.values("failed_requests", nil)); n > 1000 {
		t.Errorf("%d requests were sent to a gateway that is not there", n)
	}
}
