//go:build cluster

package k8s

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// loadTest is what the head of loadtests/k8s/baseline.yaml has one type, for a baseline
// of a fiftieth of its time. The pods stand beside the gateway, where none may have
// privileges.
func loadTest(t *testing.T) {
	k6Operator(t)
	// An operator's API server knows whether we have the names of its fields right.
	sh(t, "kubectl apply -n "+serving+" --dry-run=server -f loadtests/k8s/")

	text, err := os.ReadFile("../loadtests/k8s/baseline.yaml")
	if err != nil {
		t.Fatal(err)
	}
	smoke := string(text)
	for old, new := range map[string]string{
		"    env: &env\n":                     "    env: &env\n      - {name: TIME_SCALE, value: \"0.02\"}\n",
		`requests: {cpu: "1", memory: 512Mi}`: `requests: {cpu: 50m, memory: 128Mi}`, // a node of two cores has other pods, too
	} {
		if !strings.Contains(smoke, old) {
			t.Fatalf("baseline.yaml has no %q", old)
		}
		smoke = strings.ReplaceAll(smoke, old, new)
	}
	file := filepath.Join(t.TempDir(), "smoke.yaml")
	if err := os.WriteFile(file, []byte(smoke), 0o644); err != nil {
		t.Fatal(err)
	}
	before := firstTokens(t)
	sh(t, "kubectl create configmap loadtests -n "+serving+" $(printf -- '--from-file=%s ' loadtests/*.js)")
	sh(t, "kubectl apply -n "+serving+" -f "+file)
	sh(t, "kubectl wait -n "+serving+" --for=jsonpath='{.status.stage}'=finished --timeout=170s testrun/baseline")
	logs := sh(t, "kubectl logs -n "+serving+" -l k6_cr=baseline,runner=true --tail=-1")
	if n := strings.Count(logs, "TOTAL RESULTS"); n != 2 {
		t.Errorf("%d summaries, want 2:\n%s", n, logs)
	}
	contains(t, "k6's log", logs, "smoke run (TIME_SCALE=0.02)")
	// 99 is a threshold: how fast it is on whatever machine this is, is not asked here.
	codes := strings.Fields(sh(t, "kubectl get pods -n "+serving+" -l k6_cr=baseline,runner=true -o jsonpath='{.items[*].status.containerStatuses[0].state.terminated.exitCode}'"))
	for _, code := range codes {
		if code != "0" && code != "99" {
			t.Errorf("the pods have ended with %v\n%s", codes, logs)
		}
	}

	// The figures of both are in Prometheus, where their series have been ended.
	last := func(expr string) string { return query(t, strings.ReplaceAll(expr, "RUN", `{instance_id!=""}[5m]`)) } // the operator's tag
	for expr, want := range map[string]string{
		`count(last_over_time(k6_stage_secondsRUN) > 0)`:                        "6", // three stages each
		`count(count by (instance_id) (last_over_time(k6_ttft_ms_p50RUN) > 0))`: "2",
		`count(count by (instance_id) (last_over_time(k6_ttft_ms_p95RUN) > 0))`: "2",
		`count(count by (instance_id) (last_over_time(k6_ttft_ms_p99RUN) > 0))`: "2",
		`count(count by (instance_id) (last_over_time(k6_ttft_ms_avgRUN) > 0))`: "2",
		`count(max_over_time(k6_vus_maxRUN) == 50)`:                             "2", // half of 100
		`count({__name__=~"k6_.*",instance_id!=""})`:                            "",
	} {
		if got := last(expr); got != want {
			t.Errorf("%s is %q, want %q", expr, got, want)
		}
	}
	// And the gateways have counted what they sent.
	sent := number(t, query(t, `sum(last_over_time(k6_http_reqs_total{instance_id!="",url=~".*/chat/completions"}[5m]))`))
	eventually(t, 30*time.Second, "the gateways have counted the requests of both pods", func() error {
		if got := firstTokens(t) - before; got != sent {
			return fmt.Errorf("%v first tokens, and the pods have sent %v requests", got, sent)
		}
		return nil
	})
	// Its stages are too short for Prometheus, but the run is there to be judged.
	verdict, _ := output(program("vllm-verdict"), "--prometheus", prometheus(t)) // 99, again
	contains(t, "the verdict", verdict, "baseline ·")
	t.Logf("two pods have sent %v requests and ended with %v", sent, codes)
	sh(t, "kubectl delete -n "+serving+" -f "+file+" && kubectl delete -n "+serving+" configmap loadtests")
}

// k6Operator has the cluster's, or else one that goes when the step ends. Its bundle's
// second container, whose image is no more, would guard its metrics.
func k6Operator(t *testing.T) {
	if _, err := output("kubectl", "get", "crd", "testruns.k6.io"); err == nil {
		return
	}
	bundle := program("k6-operator.yaml")
	t.Cleanup(func() { output("kubectl", "delete", "--ignore-not-found", "-f", bundle) })
	sh(t, "kubectl create -f "+bundle)
	sh(t, "kubectl patch -n k6-operator-system deployment k6-operator-controller-manager --type json -p '"+`[
		{"op": "remove", "path": "/spec/template/spec/containers/1"},
		{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "ghcr.io/grafana/k6-operator:controller-v0.0.19"}
	]`+"'")
	sh(t, "kubectl rollout status -n k6-operator-system deployment k6-operator-controller-manager --timeout=120s")
}

// firstTokens counts those that the gateways' histograms have.
func firstTokens(t *testing.T) float64 {
	t.Helper()
	return number(t, query(t, `sum(gateway_time_to_first_token_seconds_count{namespace="`+serving+`"}) or vector(0)`))
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
