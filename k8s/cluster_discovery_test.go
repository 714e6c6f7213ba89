//go:build cluster

package k8s

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// finds has a gateway find the vLLM pods by their headless Service, and see them
// come and go.
func finds(t *testing.T) {
	var d map[string]any
	if err := json.Unmarshal([]byte(sh(t, "kubectl get deployment -n "+serving+" vllm-gateway -o json")), &d); err != nil {
		t.Fatal(err)
	}
	delete(d, "status")
	at := func(o any, path ...string) map[string]any {
		for _, p := range path {
			o = o.(map[string]any)[p]
		}
		return o.(map[string]any)
	}
	labels := map[string]any{"app": "finder"}
	d["metadata"] = map[string]any{"name": "finder", "namespace": serving, "labels": labels}
	at(d, "spec")["replicas"] = 1
	at(d, "spec", "selector")["matchLabels"] = labels
	at(d, "spec", "template", "metadata")["labels"] = labels
	pod := at(d, "spec", "template", "spec")
	delete(pod, "topologySpreadConstraints")
	container := pod["containers"].([]any)[0].(map[string]any)
	args := slices.DeleteFunc(container["args"].([]any), func(a any) bool { return strings.HasPrefix(a.(string), "--backend=") })
	container["args"] = append(args, "--backend=dns+http://vllm:8000")
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	kubectlWith(t, "create", string(text))
	t.Cleanup(func() { output("kubectl", "delete", "-n", serving, "deployment", "finder", "--ignore-not-found") })

	backendsAre := func(n int) {
		t.Helper()
		eventually(t, 2*time.Minute, fmt.Sprintf("%d backends are found", n), func() error {
			pods := readyPods(t, serving, "app=finder")
			if len(pods) != 1 {
				return fmt.Errorf("ready: %v\n%s", pods, state())
			}
			got, err := output("kubectl", "get", "--raw", "/api/v1/namespaces/"+serving+"/pods/"+pods[0]+":9000/proxy/health")
			if err != nil {
				return fmt.Errorf("%v: %s", err, got)
			}
			var health struct {
				Backends []struct{ Backend, State string }
			}
			if err := json.Unmarshal([]byte(got), &health); err != nil {
				return err
			}
			var found []string
			for _, b := range health.Backends {
				if b.State == "up" {
					found = append(found, b.Backend)
				}
			}
			want := strings.Fields(sh(t, "kubectl get pods -n "+serving+" -l app=vllm -o jsonpath='{range .items[*]}{.status.podIP}:8000 {end}'"))
			slices.Sort(want)
			if slices.Sort(found); len(found) != n || !slices.Equal(found, want) {
				return fmt.Errorf("found %v; the pods are %v", found, want)
			}
			return nil
		})
	}
	backendsAre(2)
	sh(t, "kubectl scale -n "+serving+" statefulset/vllm --replicas=3")
	backendsAre(3)
	sh(t, "kubectl scale -n "+serving+" statefulset/vllm --replicas=2")
	backendsAre(2)
}
