//go:build k6

package loadtests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What k6 itself costs and how late it is, a hundred streams of fifty tokens a second:
// from users who wait for their answers, and at the times of a schedule. One command:
//
//	K6=$PWD/bin/k6 go test -tags k6 -run '^$' -bench K6 -benchtime 1x ./loadtests
//
// "bare" is a script that posts and looks at nothing: what k6 itself costs here. Of the
// others a run that is refused is taken away, since that is what k6 needs to start.
func BenchmarkK6(b *testing.B) {
	bin := build(b)
	// Answers go on until max_tokens, and take about 0.4 s.
	sim := serve(b, filepath.Join(bin, "vllm-sim"), "--mean-output-tokens", "100000", "--max-num-seqs", "256", "--step-per-sequence", "10us", "--step-per-prefill-token", "1us")
	url := serve(b, filepath.Join(bin, "vllm-gateway"), "--backend", sim)
	trace := filepath.Join(b.TempDir(), "fifty.csv")
	if err := os.WriteFile(trace, []byte(fifty(3000)), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name, script string
		environment  []string
	}{
		{"bare", "testdata/bare", []string{"MODEL=TinyLlama/TinyLlama-1.1B-Chat-v1.0"}},
		{"users", "spike", []string{"USERS=100", "TIME_SCALE=0.125"}},
		{"schedule", "trace", []string{"TRACE=" + trace}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				none := 0.0
				if c.name != "bare" {
					none, _ = costs(b, url, c.script, append(c.environment, "GATEWAY_URL=http://127.0.0.1:1"))
				}
				cpu, s := costs(b, url, c.script, c.environment)
				streams := s.Metrics["http_reqs"].Count - 2 // of the preflight
				b.ReportMetric((cpu-none)/streams, "cpu-ms/stream")
				b.ReportMetric(streams, "streams")
				b.ReportMetric(0, "ns/op")
				if late, ok := s.Metrics["arrival_lateness_ms"]; ok {
					b.ReportMetric(late.P99, "late-p99-ms")
					b.ReportMetric(late.Max, "late-max-ms")
				}
			}
		})
	}
}

// summary is what is read of k6's --summary-export.
type summary struct {
	Metrics map[string]struct {
		P99   float64 `json:"p(99)"`
		Max   float64
		Count float64
	}
}

// costs is the CPU time of a run, in milliseconds.
func costs(b *testing.B, url, script string, environment []string) (ms float64, s summary) {
	b.Helper()
	export := filepath.Join(b.TempDir(), "summary.json")
	cmd := exec.Command(k6Path(b), "run", "--quiet", "--address=", "--summary-export="+export, script+".js")
	cmd.Env = append(os.Environ(), append([]string{"K6_NO_USAGE_REPORT=true", "TIME_SCALE=", "MODEL=", "MAX_TOKENS=", "GATEWAY_URL=" + url}, environment...)...)
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != passed && code != aborted {
		b.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	text, err := os.ReadFile(export)
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		b.Fatal(err)
	}
	return float64(cmd.ProcessState.UserTime().Milliseconds() + cmd.ProcessState.SystemTime().Milliseconds()), s
}

// fifty is a trace of so many requests at a hundred a second, in Azure's form.
func fifty(n int) string {
	var t strings.Builder
	t.WriteString("TIMESTAMP,ContextTokens,GeneratedTokens\n")
	for i := range n {
		t.WriteString("2023-11-16 18:" + two(i/6000) + ":" + two(i/100%60) + "." + two(i%100) + "00000,20,50\n")
	}
	return t.String()
}

func two(n int) string { return string(rune('0'+n/10)) + string(rune('0'+n%10)) }
