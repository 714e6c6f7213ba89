//go:build k6

package loadtests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// family are the scripts, each as short as it can be, and the
// stages that it must announce.
var family = []struct {
	script      string
	environment []string
	stages      []string
}{
	{"baseline", []string{"TIME_SCALE=0.02", "TIMEOUT=2"}, []string{"users_10", "users_50", "users_100"}},
	{"soak", []string{"TIME_SCALE=0.005", "TIMEOUT=2"}, []string{"first_third", "middle_third", "last_third"}},
	{"spike", []string{"TIME_SCALE=0.05", "TIMEOUT=2"}, []string{"calm", "spike", "after"}},
	{"sweep", []string{"TIME_SCALE=0.05", "TIMEOUT=2", "RATE=10", "MAX_RATE=20"}, []string{"rate_10", "rate_20"}},
	{"prefix", []string{"TIME_SCALE=0.03", "TIMEOUT=2"}, []string{"own_1", "shared_1", "own_2", "shared_2"}},
	{"prompts", []string{"TIME_SCALE=0.05", "TIMEOUT=2"}, []string{"prompts"}},
	{"compare", []string{"TIME_SCALE=0.03", "TIMEOUT=2", "MODELS=one,two"}, []string{"side_1_turn_1", "side_2_turn_1", "side_1_turn_2", "side_2_turn_2"}},
	{"trace", []string{"TIME_SCALE=0.03", "RATE=20", "PROMPT_TOKENS=100"}, []string{"trace"}},
}

// Every script tells a healthy service from a faulty one, by its exit code, and
// measures what was put in.
func TestFamily(t *testing.T) {
	bin := build(t)
	gateway := func(t *testing.T, backend string) string {
		return serve(t, filepath.Join(bin, "vllm-gateway"), "--backend", backend)
	}
	sim := func(t *testing.T, args ...string) string {
		return serve(t, filepath.Join(bin, "vllm-sim"), append(args, "--model", "one", "--model", "two", "--max-num-seqs", "200", "--step-per-sequence", "50us", "--step-per-prefill-token", "1us")...)
	}

	t.Run("healthy", func(t *testing.T) {
		// Two at a time, since times are compared.
		turns := make(chan struct{}, 2)
		for _, c := range family {
			t.Run(c.script, func(t *testing.T) {
				t.Parallel()
				turns <- struct{}{}
				defer func() { <-turns }()
				url := gateway(t, sim(t, "--fault", "slow-first-token,delay="+injected.String()))
				// A machine that is held up for a moment makes one run late; a script that
				// measures wrongly is wrong each time.
				var o outcome
				for range 3 {
					o = run(t, c.script, url, append(slices.Clip(c.environment), "TIMEOUT=4")...)
					if o.fault() == "" {
						break
					}
					t.Logf("one of three tries: %s", o.fault())
				}
				if fault := o.fault(); fault != "" {
					t.Error(fault)
				}
				announces(t, o, c.script, c.stages)
			})
		}
	})

	faults := []struct {
		name  string
		fault string
		front func(http.Handler) http.Handler
		code  int
		says  string
	}{
		{name: "slow first token", fault: "slow-first-token,delay=2.5s", code: gated},
		{name: "one in ten refused", fault: "reject,status=503,share=0.1", code: gated, says: "status 503"},
		{name: "streams cut", fault: "cut,after=5,share=0.2", code: gated, says: "request failed"},
		{name: "wrong content type", front: wrongType, code: gated, says: "content-type application/json"},
		{name: "headers before the first token", front: flushEarly, code: aborted, says: "sends headers before the first token, so k6 cannot see the time to first token"},
		{name: "no gateway", code: aborted, says: "start vllm-gateway, or set GATEWAY_URL"},
	}
	for _, c := range family[1:] { // TestBaseline has these, and more
		for _, f := range faults {
			t.Run(c.script+"/"+f.name, func(t *testing.T) {
				t.Parallel()
				target := "http://" + freeAddr(t)
				if f.name != "no gateway" {
					var args []string
					if f.fault != "" {
						args = []string{"--fault", f.fault}
					}
					target = gateway(t, sim(t, args...))
				}
				if f.front != nil {
					target = front(t, target, f.front)
				}
				environment := c.environment
				if f.name == "slow first token" {
					environment = append(slices.Clip(environment), "TIMEOUT=4") // it is to be slow, and not to fail
				}
				o := run(t, c.script, target, environment...)
				if o.code != f.code {
					t.Errorf("k6 ended with %d, want %d", o.code, f.code)
				}
				// Not every user reports. Where few requests failed, it may have been none
				// of those who do.
				failed := 0.0
				for _, v := range o.values("failed_requests", nil) {
					failed += v
				}
				if (failed == 0 || failed >= 20) && !strings.Contains(o.log, f.says) {
					t.Errorf("k6's log does not say %q", f.says)
				}
				if n := o.warnings(); n > 10 {
					t.Errorf("k6 logged %d warnings and errors, want 10 at most", n)
				}
				if f.code == aborted && o.took > 10*time.Second {
					t.Errorf("k6 took %v to refuse", o.took)
				}
				if f.code == gated {
					countsAll(t, o)
				}
			})
		}
	}
}

// injected is what a healthy server takes for its first token, more or less.
const injected = time.Second

// fault says what is wrong with a run against a healthy server.
func (o outcome) fault() string {
	if o.code != passed {
		return fmt.Sprintf("k6 ended with %d, want %d", o.code, passed)
	}
	if n := o.warnings(); n > 0 {
		return fmt.Sprintf("k6 logged %d warnings and errors, want none", n)
	}
	times := o.values("ttft_ms", nil)
	slices.Sort(times)
	if len(times) < 10 {
		return fmt.Sprintf("%d requests have a time to first token, want 10 at least", len(times))
	}
	median, want := times[len(times)/2], float64(injected.Milliseconds())
	if median < want || median > 1.05*want {
		return fmt.Sprintf("of %d requests the median of the time to first token is %.0f ms, want %.0f to %.0f", len(times), median, want, 1.05*want)
	}
	return ""
}

// announces holds that a script says when each of its stages begins, once, and that
// every request belongs to one.
func announces(t *testing.T, o outcome, script string, stages []string) {
	t.Helper()
	stageOf := func(tags map[string]string) string {
		if s := tags["stage"]; s != "" {
			return s
		}
		return tags["scenario"]
	}
	var told []string
	for _, s := range o.samples {
		if s.Metric == "stage_seconds" {
			told = append(told, stageOf(s.Data.Tags))
			if s.Data.Tags["script"] != script || s.Data.Value <= 0 {
				t.Errorf("stage_seconds is %v with the tags %v", s.Data.Value, s.Data.Tags)
			}
		}
	}
	slices.Sort(told)
	want := slices.Sorted(slices.Values(stages))
	if !slices.Equal(told, want) {
		t.Errorf("the stages announced are %q, want %q", told, want)
	}
	for _, s := range o.samples {
		if stage := stageOf(s.Data.Tags); s.Metric == "failed_requests" && !slices.Contains(want, stage) {
			t.Fatalf("a request is of the stage %q, want one of %q", stage, want)
		}
	}
}

// What is wrong in the environment is said in a sentence, and nothing is sent.
func TestMistakes(t *testing.T) {
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ script, environment, says string }{
		{"baseline", "TIME_SCALE=2", "TIME_SCALE=2: use a number above 0 and at most 1"},
		{"baseline", "MAX_TOKENS=1.5", "MAX_TOKENS=1.5: use a whole number above 0"},
		{"baseline", "TIMEOUT=soon", "TIMEOUT=soon: use a time such as 90s, 30m or 1h30m"},
		{"sweep", "RATE=-1", "RATE=-1: use a number above 0"},
		{"sweep", "MAX_RATE=0.5", "MAX_RATE=0.5 is below RATE=1: the sweep goes up"},
		{"sweep", "RATE=0.1", "RATE=0.1 for STEP=30s is fewer than 20 requests, which say nothing: set STEP=200s"},
		{"trace", "ARRIVALS=often", "ARRIVALS=often: use poisson, bursts or steady"},
		{"trace", "TRACE=" + file("none.csv", "a,b\n1,2\n"), "should be TIMESTAMP,ContextTokens,GeneratedTokens (Azure)"},
		{"trace", "TRACE=" + file("empty.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n"), "there is no request in it"},
		{"trace", "TRACE=" + file("bad.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\nx,2,3\n"), `line 3: no time and lengths in \"x,2,3\"`},
		{"trace", "TRACE=" + file("bad.jsonl", `{"timestamp": 1, "input_length": 5}`), "line 1: no time and lengths"},
		{"compare", "MODELS=", "MODELS"},
		{"prompts", "PROMPTS=" + file("bad.jsonl", "{\"prompt\":\"a\"}\nnothing\n"), "line 2"},
	} {
		t.Run(c.script+" "+c.environment, func(t *testing.T) {
			t.Parallel()
			o := run(t, c.script, "http://127.0.0.1:1", c.environment)
			if o.code != 107 && o.code != 104 {
				t.Errorf("k6 ended with %d, want 104 or 107", o.code)
			}
			if !strings.Contains(o.log, c.says) {
				t.Errorf("k6's log does not say %q", c.says)
			}
		})
	}
}

// The public traces, in their own forms, come out as times and lengths.
func TestTraceForms(t *testing.T) {
	bin := build(t)
	for name, text := range map[string]string{
		"azure.csv":    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,374,44\n2023-11-16 18:17:04.4799600,96,9\n",
		"azure-24.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,374,44\n2024-05-10 00:00:00.509930+00:00,96,9\n",
		"burst.csv":    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,374,44,418,Conversation log\n5.5,GPT-4,96,9,105,API log\n",
		"mooncake":     `{"timestamp": 27000, "input_length": 374, "output_length": 44, "hash_ids": [46]}` + "\n" + `{"timestamp": 27500, "input_length": 96, "output_length": 9, "hash_ids": [47]}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			url := serve(t, filepath.Join(bin, "vllm-gateway"), "--backend", serve(t, filepath.Join(bin, "vllm-sim")))
			o := run(t, "trace", url, "TRACE="+path, "TIME_SCALE=1")
			if o.code != passed {
				t.Errorf("k6 ended with %d, want %d", o.code, passed)
			}
			e := scrape(t, url)
			// Of the preflight: some 20 tokens of prompt, and 50 of answer at most.
			if n := e.sums["gateway_completion_tokens_total"]; n < 44+9 || n > 44+9+50 {
				t.Errorf("%v tokens were generated, want %d and the preflight's", n, 44+9)
			}
			if n := e.sums["gateway_prompt_tokens_total"]; n < 374+96 || n > 374+96+100 {
				t.Errorf("the prompts had %v tokens, want %d and the preflight's", n, 374+96)
			}
			var begun []time.Time
			for _, s := range o.samples {
				if s.Metric == "arrival_lateness_ms" {
					begun = append(begun, s.Data.Time)
				}
			}
			if len(begun) != 2 || begun[1].Sub(begun[0]) < 490*time.Millisecond {
				t.Errorf("requests were sent at %v, want two, half a second apart", begun)
			}
		})
	}
}

func TestPlans(t *testing.T) {
	for _, c := range []struct {
		script, environment, total string
		users                      int
	}{
		{"baseline", "", "7m30s", 100},
		{"soak", "", "30m30s", 20},
		{"spike", "", "4m30s", 100},
		{"sweep", "", "13m0s", 1},
		{"prefix", "", "6m0s", 10},
		{"prompts", "", "2m30s", 10},
		{"compare", "MODELS=a,b", "6m0s", 10},
		{"trace", "ARRIVALS=steady", "7m10s", 1},
	} {
		cmd := exec.Command(k6Path(t), "inspect", "--include-system-env-vars", "--execution-requirements", c.script+".js")
		cmd.Env = append(os.Environ(), "K6_NO_USAGE_REPORT=true", "TIME_SCALE=", "GATEWAY_URL=", c.environment)
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("k6 inspect %s: %v", c.script, err)
			continue
		}
		var plan struct {
			TotalDuration string
			MaxVUs        int
			Thresholds    map[string][]any // strings, and objects of those that end the run
		}
		if err := json.Unmarshal(out, &plan); err != nil {
			t.Fatal(err)
		}
		if plan.TotalDuration != c.total || plan.MaxVUs != c.users {
			t.Errorf("%s: k6 inspect says %d VUs and %s, want %d and %s", c.script, plan.MaxVUs, plan.TotalDuration, c.users, c.total)
		}
		gates := 0
		for metric, list := range plan.Thresholds {
			if strings.HasPrefix(metric, "http_reqs{") && slices.Contains(list, any("count>0")) {
				gates++
			}
		}
		if gates == 0 {
			t.Errorf("%s: no threshold wants a request, so the run could pass empty", c.script)
		}
	}
}
