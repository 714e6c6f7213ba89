//go:build k6

package loadtests

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// k6's exit codes.
const (
	passed  = 0
	gated   = 99  // a threshold was crossed
	aborted = 108 // the preflight ended the run
)

// What the guide prints and promises.
func TestBaselinePlan(t *testing.T) {
	cmd := exec.Command(k6Path(t), "inspect", "--execution-requirements", "baseline.js")
	cmd.Env = append(os.Environ(), "K6_NO_USAGE_REPORT=true", "TIME_SCALE=")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("k6 inspect: %v", err)
	}
	type scenario struct {
		Executor, StartTime, Duration, GracefulStop string
		VUs                                         int
	}
	var plan struct {
		TotalDuration string
		MaxVUs        int
		Scenarios     map[string]scenario
		Thresholds    map[string][]string
	}
	if err := json.Unmarshal(out, &plan); err != nil {
		t.Fatal(err)
	}
	if plan.TotalDuration != "7m30s" || plan.MaxVUs != 100 {
		t.Errorf("k6 inspect says %d VUs and %s, want 100 and 7m30s", plan.MaxVUs, plan.TotalDuration)
	}
	scenarios := map[string]scenario{
		"users_10":  {"constant-vus", "0s", "2m0s", "30s", 10},
		"users_50":  {"constant-vus", "2m30s", "2m0s", "30s", 50},
		"users_100": {"constant-vus", "5m0s", "2m0s", "30s", 100},
	}
	if !reflect.DeepEqual(plan.Scenarios, scenarios) {
		t.Errorf("scenarios are %v\nwant %v", plan.Scenarios, scenarios)
	}
	gates := map[string][]string{
		"http_req_duration":                         {"p(95)<5000", "p(99)<10000"},
		"http_req_duration{expected_response:true}": {"p(95)<5000", "p(99)<10000"},
		"ttft_ms":                       {"p(95)<2000", "p(99)<3000", "avg>0"},
		"tokens_per_second":             {"avg>30"},
		"failed_requests":               {"rate<0.05"},
		"http_reqs{scenario:users_10}":  {"count>0"},
		"http_reqs{scenario:users_50}":  {"count>0"},
		"http_reqs{scenario:users_100}": {"count>0"},
	}
	maps.DeleteFunc(plan.Thresholds, func(_ string, list []string) bool { return len(list) == 0 })
	if !reflect.DeepEqual(plan.Thresholds, gates) {
		t.Errorf("gates are %v\nwant %v", plan.Thresholds, gates)
	}
}

func TestBaseline(t *testing.T) {
	bin := build(t)
	gateway := func(t *testing.T, backend string) string {
		return serve(t, filepath.Join(bin, "vllm-gateway"), "--backend", backend)
	}
	// A machine with room for all 100 users, so that what goes wrong below is
	// what the case asks for, and not a queue.
	sim := func(t *testing.T, args ...string) string {
		return serve(t, filepath.Join(bin, "vllm-sim"), append(args, "--max-num-seqs", "100", "--step-per-sequence", "50us")...)
	}

	// Alone on the machine, since it compares times; and with first tokens that
	// take theirs, beside which it is little what a busy machine adds between
	// k6 and the gateway when 100 users begin at once.
	t.Run("healthy", func(t *testing.T) {
		url := gateway(t, sim(t, "--fault", "slow-first-token,delay=300ms"))
		o := run(t, "baseline", url)
		if o.code != passed {
			t.Fatalf("k6 ended with %d, want %d", o.code, passed)
		}
		isSmokeRun(t, o)
		hasSummary(t, o)
		agreesOnFirstTokens(t, o, url)
		agreesOnSpeed(t, o, url)
		agreesOnRequests(t, o, url)
	})

	for _, c := range troubles {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var args []string
			for _, f := range c.faults {
				args = append(args, "--fault", f)
			}
			backend := sim(t, args...)
			c.check(t, backend, gateway(t, backend))
		})
	}
}

// trouble is what goes wrong between k6 and a backend, and how a run must end.
// The gateway fronts one backend, so what that does reaches k6.
type trouble struct {
	name   string
	faults []string // of the sim, from its start
	later  string   // faults that begin behind the preflight's back
	front  func(http.Handler) http.Handler

	code    int
	crossed string // a metric whose threshold must fail
	none    bool   // no request may pass for a success
	says    string // part of the log
}

var troubles = []trouble{
	{name: "slow first token", faults: []string{"slow-first-token,delay=2.5s"},
		code: gated, crossed: "ttft_ms"},
	{name: "one in ten refused", faults: []string{"reject,status=503,share=0.1"},
		code: gated, crossed: "failed_requests"},
	{name: "streams cut", faults: []string{"cut,after=5,share=0.2"},
		code: gated, crossed: "failed_requests"},
	{name: "streams end in an error", later: `[{"kind":"error","after":5}]`,
		code: gated, says: "request failed: an error event"},
	{name: "streams stall", later: `[{"kind":"stall","after":5}]`,
		code: gated, says: "request timeout"},
	{name: "all refused from the start", faults: []string{"reject,status=503"},
		code: aborted, says: "503"},
	{name: "all refused later", later: `[{"kind":"reject","status":503}]`,
		code: gated, says: "request failed: status 503"},
	{name: "answers spoilt on the way", front: spoil,
		code: gated, none: true, says: "request failed: "},
	{name: "headers before the first token", front: flushEarly,
		code: aborted, says: "sends headers before the first token, so k6 cannot see the time to first token"},
	{name: "hints before the first token", front: hintEarly,
		code: aborted, says: "answers before the first token, so k6 cannot see the time to first token"},
}

func (c trouble) check(t *testing.T, backend, target string) {
	if c.front != nil {
		target = front(t, target, c.front)
	}
	if c.later != "" {
		turn := make(chan error, 1)
		go func() { turn <- turnLater(target, backend, c.later) }()
		defer func() {
			if err := <-turn; err != nil {
				t.Error(err)
			}
		}()
	}
	o := run(t, "baseline", target)
	if o.code != c.code {
		t.Errorf("k6 ended with %d, want %d", o.code, c.code)
	}
	if got := o.crossed(); c.crossed != "" && !slices.Contains(got, c.crossed) {
		t.Errorf("the thresholds crossed are those of %q, want %s among them", got, c.crossed)
	}
	if !strings.Contains(o.log, c.says) {
		t.Errorf("k6's log does not say %q", c.says)
	}
	if n := o.logLines(); n > 10 {
		t.Errorf("k6 logged %d lines, want 10 at most", n)
	}
	if good := countsAll(t, o); c.none && good > 0 {
		t.Errorf("%d requests passed for successes, want none", good)
	}
	if c.front == nil {
		agreesOnRequests(t, o, target)
	}
}

func TestBaselineWithoutGateway(t *testing.T) {
	o := run(t, "baseline", "http://"+freeAddr(t))
	if o.code != aborted {
		t.Errorf("k6 ended with %d, want %d", o.code, aborted)
	}
	if want := "start vllm-gateway, or set GATEWAY_URL"; !strings.Contains(o.log, want) {
		t.Errorf("k6's log does not say %q", want)
	}
	if n := o.logLines(); n > 10 {
		t.Errorf("k6 logged %d lines, want 10 at most", n)
	}
	if o.took > 10*time.Second {
		t.Errorf("k6 took %v to see that there is no gateway", o.took)
	}
}

func isSmokeRun(t *testing.T, o outcome) {
	t.Helper()
	if n := strings.Count(o.log, "smoke run (TIME_SCALE=0.01), not a baseline"); n != 1 {
		t.Errorf("k6's log says %d times that this is a smoke run, want once", n)
	}
	for _, s := range o.samples {
		if s.Metric == "ttft_ms" && s.Data.Tags["run"] != "smoke" {
			t.Fatalf("a sample of a smoke run has the tags %v", s.Data.Tags)
		}
	}
}

// hasSummary looks for the lines of the guide in k6's own summary.
func hasSummary(t *testing.T, o outcome) {
	t.Helper()
	for _, want := range []string{
		"✓ status is 200", "✓ response has content", "✓ content-type is SSE",
		"failed_requests..", "http_req_duration..", "ttft_ms..", "tokens_per_second..", "p(99)=",
		"{ scenario:users_10 }", "{ scenario:users_50 }", "{ scenario:users_100 }",
	} {
		if !strings.Contains(o.out, want) {
			t.Errorf("k6's summary lacks %q", want)
		}
	}
}

// agreesOnFirstTokens holds k6's time to first token against the gateway's own
// histogram of the same run. k6 sees the network and its own turn besides, so
// it may be later by a little, and never earlier.
func agreesOnFirstTokens(t *testing.T, o outcome, url string) {
	t.Helper()
	const name = "gateway_time_to_first_token_seconds"
	e := scrape(t, url)
	times := o.values("ttft_ms", nil)
	// The preflight's stream is in the histogram, too.
	times = append(times, o.values("http_req_waiting", func(tags map[string]string) bool {
		return tags["group"] == "::setup" && tags["method"] == "POST"
	})...)
	if n := e.sums[name+"_count"]; n != float64(len(times)) || n < 100 {
		t.Fatalf("%s_count is %v, and k6 timed %d streams", name, n, len(times))
	}
	slices.Sort(times)
	sum := 0.0
	for i := range times {
		times[i] /= 1000
		sum += times[i]
	}
	agree := func(what string, k6, lower, upper float64) {
		t.Helper()
		t.Logf("time to first token, %s: k6 %.4f s, gateway %.4f to %.4f s", what, k6, lower, upper)
		if k6 < lower-0.001 || k6 > 1.05*upper+0.05 {
			t.Errorf("%s of the time to first token: k6 says %.4f s, the gateway %.4f to %.4f s", what, k6, lower, upper)
		}
	}
	for _, q := range []float64{0.5, 0.95} {
		lower, upper := e.bucket(name, q)
		agree(fmt.Sprint("quantile ", q), times[int(q*float64(len(times)-1))], lower, upper)
	}
	mean := e.sums[name+"_sum"] / e.sums[name+"_count"]
	agree("mean", sum/float64(len(times)), mean, mean)
}

// agreesOnSpeed holds the mean of tokens_per_second against the gateway's: both
// count the tokens after the first, over the time since the first.
func agreesOnSpeed(t *testing.T, o outcome, url string) {
	t.Helper()
	const name = "gateway_tokens_per_second"
	e := scrape(t, url)
	sum, speeds := 0.0, o.values("tokens_per_second", nil)
	for _, v := range speeds {
		sum += v
	}
	k6, told := sum/float64(len(speeds)), e.sums[name+"_sum"]/e.sums[name+"_count"]
	t.Logf("tokens per second, mean: k6 %.1f, gateway %.1f", k6, told)
	if !(k6 > 0.9*told && k6 < 1.1*told) {
		t.Errorf("mean of the tokens per second: k6 says %.1f, the gateway %.1f", k6, told)
	}
}

// agreesOnRequests holds k6's count of requests, the preflight's included,
// against the gateway's, and waits for its gauges to come to rest.
func agreesOnRequests(t *testing.T, o outcome, url string) {
	t.Helper()
	sent := len(o.values("http_reqs", func(tags map[string]string) bool {
		return strings.Contains(tags["url"], "/v1/")
	}))
	await(t, "the gateway to come to rest", func() error {
		e := scrape(t, url)
		if got := e.sums["gateway_requests_total"]; got != float64(sent) {
			return fmt.Errorf("gateway_requests_total is %v, and k6 sent %d requests", got, sent)
		}
		for _, gauge := range []string{"gateway_queue_depth", "gateway_backend_in_flight"} {
			if got, ok := e.sums[gauge]; got != 0 || !ok {
				return fmt.Errorf("%s is %v (exported: %v), want 0", gauge, got, ok)
			}
		}
		return nil
	})
}

// countsAll: each request of a scenario is a success or a failure, and only a
// success has a time to first token. It returns the number of successes.
func countsAll(t *testing.T, o outcome) (good int) {
	t.Helper()
	sent := len(o.values("http_reqs", func(tags map[string]string) bool { return tags["scenario"] != "" }))
	failures := o.values("failed_requests", nil)
	for _, v := range failures {
		if v == 0 {
			good++
		}
	}
	if len(failures) != sent {
		t.Errorf("%d requests were sent and %d counted", sent, len(failures))
	}
	if n := len(o.values("ttft_ms", nil)); n != good {
		t.Errorf("%d requests succeeded and %d have a time to first token", good, n)
	}
	return good
}

// turnLater sets the sim's faults once the scenarios' own requests have begun.
func turnLater(gateway, backend, faults string) error {
	const preflight = 2 // a list of models and a stream
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		text, err := fetch("GET", gateway+"/metrics", "")
		if err != nil {
			return err
		}
		if parse(text).sums["gateway_requests_total"] > preflight {
			_, err := fetch("PUT", backend+"/sim/faults", faults)
			return err
		}
	}
	return fmt.Errorf("k6 did not get past its preflight in 30 s")
}
