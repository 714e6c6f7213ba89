//go:build vllm

package vllm

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The load test of loadtests, shortened. A CPU may be too slow for its gates,
// which is a true answer; but no request may fail, and k6, gateway and engine
// must count the same.
func TestBaseline(t *testing.T) {
	k6 := os.Getenv("K6")
	if k6 == "" {
		k6 = filepath.Join("..", "bin", "k6")
	}
	if _, err := exec.LookPath(k6); err != nil {
		t.Fatalf("no k6 at %s (%v): run make k6, or set K6 to its path", k6, err)
	}
	g := start(t, wide)
	before := now(t, wide.url())

	results := filepath.Join(t.TempDir(), "results.json")
	cmd := exec.Command(k6, "run", "--quiet", "--no-color", "--address=", "--out", "json="+results, "../loadtests/baseline.js")
	// Of a run so short each stream has 4 s: with short answers 100 at once have
	// an end by then on a busy machine, too.
	cmd.Env = append(os.Environ(), "K6_NO_USAGE_REPORT=true", "GATEWAY_URL="+g.url(), "TIME_SCALE=0.02", "MODEL=", "MAX_TOKENS=20", "API_KEY=")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 99) { // 99: a gate was crossed
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("k6 ended with %d\n%s", cmd.ProcessState.ExitCode(), out)

	lists, streams, failed := countSamples(t, results)
	if failed > 0 || streams < 100 {
		t.Fatalf("%v of %d streams have failed", failed, streams)
	}
	inGateway, inEngine := g.rests(lists+streams), now(t, wide.url()).since(before)
	for _, c := range []struct {
		what      string
		got, want float64
	}{
		{"streams, gateway", inGateway.sum("gateway_requests_total", `path="/v1/chat/completions"`, `outcome="ok"`), float64(streams)},
		{"first tokens, gateway", inGateway.sum(gatewayTTFT + "_count"), float64(streams)},
		{"streams, engine", inEngine.sum("vllm:request_success_total"), float64(streams)},
		{"first tokens, engine", inEngine.sum(engineTTFT + "_count"), float64(streams)},
		{"prompt tokens, gateway", inGateway.sum("gateway_prompt_tokens_total"), inEngine.sum("vllm:prompt_tokens_total")},
		{"completion tokens, gateway", inGateway.sum("gateway_completion_tokens_total"), inEngine.sum("vllm:generation_tokens_total")},
	} {
		t.Logf("%s: %v", c.what, c.got)
		if c.got != c.want {
			t.Errorf("%s: %v; want %v", c.what, c.got, c.want)
		}
	}
	isLater(t, inEngine, inGateway)
}

// countSamples reads k6's results: what it sent, and how many streams failed.
func countSamples(t *testing.T, results string) (lists, streams int, failed float64) {
	t.Helper()
	text, err := os.ReadFile(results)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var s struct {
			Type, Metric string
			Data         struct {
				Value float64
				Tags  struct{ URL, Method string }
			}
		}
		if err := json.Unmarshal(line, &s); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		switch {
		case s.Type != "Point":
		case s.Metric == "failed_requests":
			failed += s.Data.Value
		case s.Metric == "http_reqs" && strings.HasSuffix(s.Data.Tags.URL, chat):
			streams++
		case s.Metric == "http_reqs" && strings.HasSuffix(s.Data.Tags.URL, "/v1/models"):
			lists++
		}
	}
	return lists, streams, failed
}
