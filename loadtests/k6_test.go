//go:build k6

package loadtests

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// k6Path is the k6 to test with. A missing one is a failure: a skip would look
// like a pass.
func k6Path(t testing.TB) string {
	t.Helper()
	path := os.Getenv("K6")
	if path == "" {
		path = filepath.Join("..", "bin", "k6")
	}
	if _, err := exec.LookPath(path); err != nil {
		t.Fatalf("no k6 at %s (%v): run make k6, or set K6 to its path", path, err)
	}
	return path
}

// outcome is what is left of a k6 run.
type outcome struct {
	code     int    // exit code
	out, log string // stdout: the summary; stderr: the log
	took     time.Duration
	samples  []sample
}

// sample is a line of k6's --out json.
type sample struct {
	Type, Metric string
	Data         struct {
		Time  time.Time
		Value float64
		Tags  map[string]string
	}
}

// run runs a script as a smoke run against url, with more of its environment.
func run(t *testing.T, script, url string, environment ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	results := filepath.Join(t.TempDir(), "results.json")
	cmd := exec.CommandContext(ctx, k6Path(t), "run", "--quiet", "--no-color", "--address=", "--out", "json="+results, script+".js")
	cmd.Env = append(os.Environ(), "K6_NO_USAGE_REPORT=true", "GATEWAY_URL="+url, "TIME_SCALE=0.01")
	for _, name := range []string{"MODEL", "MAX_TOKENS", "PROMPT_TOKENS", "API_KEY", "SEED", "TIMEOUT", "USERS", "DURATION"} {
		cmd.Env = append(cmd.Env, name+"=")
	}
	cmd.Env = append(cmd.Env, environment...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	start := time.Now()
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%v: %v, %v", cmd, err, ctx.Err())
	}
	o := outcome{code: cmd.ProcessState.ExitCode(), out: out.String(), log: log.String(), took: time.Since(start)}
	if _, err := os.Stat(results); err == nil { // there is none where the script is wrong
		o.samples = read(t, results)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("k6 ended with %d after %v\n%s%s", o.code, o.took, o.out, o.log)
		}
	})
	return o
}

func read(t *testing.T, results string) []sample {
	t.Helper()
	f, err := os.Open(results)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []sample
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var s sample
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			t.Fatalf("%s: %v: %s", results, err, lines.Bytes())
		}
		if s.Type == "Point" {
			all = append(all, s)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("%s: %v", results, err)
	}
	return all
}

// values are those of a metric's samples; keep may be nil.
func (o outcome) values(metric string, keep func(tags map[string]string) bool) []float64 {
	var vs []float64
	for _, s := range o.samples {
		if s.Metric == metric && (keep == nil || keep(s.Data.Tags)) {
			vs = append(vs, s.Data.Value)
		}
	}
	return vs
}

var crossing = regexp.MustCompile(`thresholds on metrics '([^']*)' have been crossed`)

// crossed are the metrics whose thresholds failed, as k6's log names them.
func (o outcome) crossed() []string {
	m := crossing.FindStringSubmatch(o.log)
	if m == nil {
		return nil
	}
	return strings.Split(m[1], ", ")
}

func (o outcome) logLines() int { return strings.Count(o.log, "\n") }

// warnings are the lines of the log that are no progress.
func (o outcome) warnings() int { return o.logLines() - strings.Count(o.log, "level=info") }
