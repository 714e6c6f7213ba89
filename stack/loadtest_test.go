package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/vllmsim"
)

// TestLoadTest is `make baseline`, ten times as short, before servers that are well or
// ill in one of several ways: the verdict must say which. It runs with K6, the path of
// k6, in the environment, and with the programs that `make build` leaves in bin.
func TestLoadTest(t *testing.T) {
	if os.Getenv("K6") == "" {
		t.Skip("K6 is not set")
	}
	for _, c := range []struct {
		name   string
		server vllmsim.Config
		code   int
		kinds  []string // of findings that there must be
		none   []string // and of those that there must not be
		says   string   // in one of the former
		states map[string]string
	}{
		{
			name: "healthy",
			none: []string{"failing", "slow first token", "slow generation", "batch too small", "preempted", "others at work"},
			// The guide's simulator is full with 100 users.
			kinds: []string{"saturated"}, states: map[string]string{"users_10": "insufficient load"},
		},
		{
			name:   "slow first token",
			server: vllmsim.Config{MaxNumSeqs: 128, Faults: []vllmsim.Fault{{Kind: "slow-first-token", Delay: 2500 * time.Millisecond}}},
			code:   99, kinds: []string{"slow first token"}, none: []string{"overloaded", "failing"},
			says: "nothing waits in the engines", states: map[string]string{"users_10": "slow"},
		},
		{
			name:   "small batch",
			server: vllmsim.Config{MaxNumSeqs: 4},
			code:   99, kinds: []string{"batch too small"}, none: []string{"slow first token"},
			says: "the batch is full before the GPU is", states: map[string]string{"users_50": "overloaded", "users_100": "overloaded"},
		},
		{
			name:   "slow generation",
			server: vllmsim.Config{MaxNumSeqs: 128, Cost: vllmsim.Cost{Base: 60 * time.Millisecond}},
			code:   99, kinds: []string{"slow generation"}, none: []string{"failing"},
			says: "and over 30 are wanted",
		},
		{
			name:   "refusals",
			server: vllmsim.Config{Faults: []vllmsim.Fault{{Kind: "reject", Status: 503, Share: 0.2}}},
			code:   99, kinds: []string{"failing"}, none: []string{"spoilt on the way"},
			says: "answers with 5xx", states: map[string]string{"users_10": "failing", "users_50": "failing", "users_100": "failing"},
		},
		{
			name:   "cut streams",
			server: vllmsim.Config{Faults: []vllmsim.Fault{{Kind: "cut", After: 5, Share: 0.2}}},
			code:   99, kinds: []string{"failing"}, none: []string{"spoilt on the way"},
			says: "streams cut before their end",
		},
		{
			name:   "small KV cache",
			server: vllmsim.Config{MaxModelLen: 256, KVCacheTokens: 400},
			code:   99, kinds: []string{"preempted"}, none: []string{"failing"},
			says: "vLLM preempted",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.code != 0 { // what is ill is so on a busy machine, too
				t.Parallel()
			}
			v := loadTest(t, c.server, c.code)
			var said []string
			for _, f := range v.Findings {
				said = append(said, f.Kind+": "+f.Says)
			}
			has := func(kind string) bool {
				return slices.ContainsFunc(v.Findings, func(f finding) bool { return f.Kind == kind })
			}
			for _, kind := range c.kinds {
				if !has(kind) {
					t.Errorf("no finding is %q", kind)
				}
			}
			for _, kind := range c.none {
				if has(kind) {
					t.Errorf("a finding is %q", kind)
				}
			}
			if !strings.Contains(strings.Join(said, "\n"), c.says) {
				t.Errorf("no finding says %q", c.says)
			}
			for _, s := range v.Stages {
				if want := c.states[s.Name]; want != "" && s.State != want {
					t.Errorf("%s is %q, want %q", s.Name, s.State, want)
				}
				if s.Gateway.RPS == nil || s.Gateway.TTFT == nil || s.Gateway.GPU == nil || s.Gateway.Queue == nil {
					t.Errorf("%s: of gateway, GPU and queue something is missing: %+v", s.Name, s.Gateway)
				}
			}
			if len(v.Stages) != 3 {
				t.Errorf("%d stages, want 3", len(v.Stages))
			}
			if v.Passed != (c.code == 0) {
				t.Errorf("passed is %v, and k6 ended with %d", v.Passed, c.code)
			}
		})
	}
}

// Ctrl-C is for k6; what there is then is judged, and said to be cut short.
func TestLoadTestInterrupted(t *testing.T) {
	if os.Getenv("K6") == "" {
		t.Skip("K6 is not set")
	}
	t.Parallel()
	p := startBefore(t, vllmsim.Config{})
	results := t.TempDir()
	cmd := p.loadTest("prompts", results, "TIME_SCALE=1", "USERS=5")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as of a shell's job
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.eventually("k6 has sent requests", func() bool {
		n, err := strconv.ParseFloat(p.query("sum(gateway_rps)", "")[""], 64)
		return err == nil && n > 10
	})
	syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 105 {
		t.Errorf("it ended with %d, want k6's 105\n%s", code, out.String())
	}
	if text := out.String(); !strings.Contains(text, "had planned") || !strings.Contains(text, "verdict.html") {
		t.Errorf("the verdict does not say that k6 ended before its time:\n%s", text)
	}
}

// What is refused leaves nothing behind, and takes nothing away.
func TestLoadTestRefused(t *testing.T) {
	if os.Getenv("K6") == "" {
		t.Skip("K6 is not set")
	}
	p := &process{gateway: "http://127.0.0.1:1", prometheus: ""}
	results := filepath.Join(t.TempDir(), "new")
	if out, err := p.loadTest("baseline", results).CombinedOutput(); err == nil || !strings.Contains(string(out), "start vllm-gateway, or set GATEWAY_URL") {
		t.Errorf("no gateway: %v\n%s", err, out)
	}
	if _, err := os.Stat(results); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a run that was refused leaves %s (%v)", results, err)
	}
	full := t.TempDir()
	old := filepath.Join(full, "summary.json")
	if err := os.WriteFile(old, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := p.loadTest("baseline", full).CombinedOutput(); err == nil || !strings.Contains(string(out), "there is something in "+full) {
		t.Errorf("a folder in use: %v\n%s", err, out)
	}
	if text, err := os.ReadFile(old); err != nil || string(text) != "old" {
		t.Errorf("what was in the folder is %q, %v", text, err)
	}
	if out, err := p.loadTest("streams", full).CombinedOutput(); err == nil || !strings.Contains(string(out), "which test? One of: baseline compare") {
		t.Errorf("no test: %v\n%s", err, out)
	}
}

type finding struct{ Kind, Says string }

type verdictFile struct {
	Passed   bool
	Smoke    bool
	Findings []finding
	Stages   []struct {
		Name, State string
		Gateway     struct {
			RPS   *float64        `json:"rps"`
			TTFT  *map[string]any `json:"ttft_ms"`
			GPU   *map[string]any `json:"gpu_duty_cycle_percent"`
			Queue *map[string]any `json:"queue_depth"`
		}
	}
}

// startBefore is a stack before such a server, with its simulated GPUs.
func startBefore(t *testing.T, server vllmsim.Config) *process {
	t.Helper()
	sim, err := vllmsim.New(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	backend, gpus := httptest.NewServer(sim), httptest.NewServer(behindMetrics(sim.GPUs()))
	t.Cleanup(backend.Close)
	t.Cleanup(gpus.Close)
	return start(t, t.TempDir(), "--backend", backend.URL, "--gpu-exporter", gpus.URL)
}

// loadTest is loadtests/run, against the stack.
func (p *process) loadTest(name, results string, environment ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join("..", "loadtests", "run"), name, "--quiet", "--no-color")
	cmd.Env = append(os.Environ(), "GATEWAY_URL="+p.gateway, "PROMETHEUS_URL="+p.prometheus, "RESULTS="+results,
		"K6_WEB_DASHBOARD_PERIOD=1s", "MODEL=", "MAX_TOKENS=", "API_KEY=", "TIME_SCALE=")
	cmd.Env = append(cmd.Env, environment...)
	return cmd
}

// loadTest runs the baseline against a stack before such a server.
func loadTest(t *testing.T, server vllmsim.Config, code int) (v verdictFile) {
	t.Helper()
	results := t.TempDir()
	// What is slow is to be slow, and not to fail.
	cmd := startBefore(t, server).loadTest("baseline", results, "TIME_SCALE=0.1", "TIMEOUT=9")
	out, err := cmd.CombinedOutput()
	t.Cleanup(func() {
		if t.Failed() || testing.Verbose() {
			t.Logf("%s", out)
		}
	})
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("%v ended with %d (%v), want %d", cmd, got, err, code)
	}
	for _, name := range []string{"verdict.html", "k6.html", "samples.json.gz"} {
		if info, err := os.Stat(filepath.Join(results, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(results, "verdict.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(fmt.Errorf("verdict.json: %w", err))
	}
	return v
}

// behindMetrics serves readings where Prometheus looks for them.
func behindMetrics(readings http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", readings)
	return mux
}
