//go:build cluster

package k8s

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"
)

// scales lets the autoscaler see the real queue depth, and wants more gateways of it
// when each may have 10 requests. Who serves custom.metrics.k8s.io is a stand-in for
// prometheus-adapter: it asks Prometheus what the rule in hpa.yaml asks.
func scales(t *testing.T) {
	if !*local {
		t.Skip("the API server does not reach this machine")
	}
	base := prometheus(t)
	adapter := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { customMetrics(base, w, r) }))
	l, err := net.Listen("tcp", ":0") // the API server does not go to loopback
	if err != nil {
		t.Fatal(err)
	}
	adapter.Listener = l
	adapter.StartTLS()
	defer adapter.Close()
	defer sh(t, "kubectl delete --ignore-not-found apiservice v1beta2.custom.metrics.k8s.io")
	_, port, _ := net.SplitHostPort(l.Addr().String())
	node, _ := url.Parse(nodePort(t, "0"))
	kubectlWith(t, "apply", fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: custom-metrics, namespace: %[1]s}
spec: {ports: [{name: https, port: 443, targetPort: %[2]s}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: custom-metrics, namespace: %[1]s, labels: {kubernetes.io/service-name: custom-metrics}}
addressType: IPv4
ports: [{name: https, port: %[2]s}]
endpoints: [{addresses: [%[3]s]}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta2.custom.metrics.k8s.io}
spec:
  group: custom.metrics.k8s.io
  version: v1beta2
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: custom-metrics, namespace: %[1]s}
`, serving, port, node.Hostname()))
	sh(t, "kubectl wait --for=condition=Available --timeout=60s apiservice v1beta2.custom.metrics.k8s.io")
	eventually(t, 2*time.Minute, "the autoscaler has what it goes by", func() error { return condition("hpa/vllm-gateway", "ScalingActive") })

	load := startLoad(nodePort(t, "30900"))
	defer load.stop()
	sh(t, "kubectl patch -n "+serving+` hpa vllm-gateway --type json -p '[{"op":"replace","path":"/spec/metrics/0/pods/target/averageValue","value":"10"}]'`)
	eventually(t, 2*time.Minute, "there are more gateways", func() error {
		if got := readyPods(t, serving, "app=vllm-gateway"); len(got) < 3 {
			out, _ := output("kubectl", "describe", "hpa", "-n", serving)
			return fmt.Errorf("ready: %v\n%s", got, out)
		}
		return nil
	})
	t.Logf("%d gateways for %d users, at 10 requests each", len(readyPods(t, serving, "app=vllm-gateway")), users)
	if failed := load.failures(); len(failed) > 0 {
		t.Errorf("lost:\n%s", strings.Join(failed, "\n"))
	}
}

// customMetrics answers as prometheus-adapter does, of one metric.
func customMetrics(prometheus string, w http.ResponseWriter, r *http.Request) {
	const version = "custom.metrics.k8s.io/v1beta2"
	w.Header().Set("Content-Type", "application/json")
	below, ok := strings.CutPrefix(r.URL.Path, "/apis/"+version)
	switch {
	case !ok:
		http.NotFound(w, r)
	case below == "":
		fmt.Fprintf(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":%q,"resources":[{"name":"pods/gateway_queue_depth","singularName":"","namespaced":true,"kind":"MetricValueList","verbs":["get"]}]}`, version)
	default: // /namespaces/NAMESPACE/pods/*/METRIC
		namespace, metric := strings.Split(below, "/")[2], path.Base(below)
		var answer struct {
			Data struct {
				Result []struct {
					Metric map[string]string
					Value  []any
				}
			}
		}
		body, err := get(prometheus + "/api/v1/query?query=" + url.QueryEscape(fmt.Sprintf(`sum by (pod) (%s{namespace=%q})`, metric, namespace)))
		if err == nil {
			err = json.Unmarshal([]byte(body), &answer)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		items := []any{}
		for _, sample := range answer.Data.Result {
			items = append(items, map[string]any{
				"describedObject": map[string]string{"kind": "Pod", "apiVersion": "/v1", "namespace": namespace, "name": sample.Metric["pod"]},
				"metric":          map[string]string{"name": metric},
				"timestamp":       time.Now().UTC().Format(time.RFC3339),
				"value":           sample.Value[1],
			})
		}
		json.NewEncoder(w).Encode(map[string]any{"kind": "MetricValueList", "apiVersion": version, "metadata": map[string]any{}, "items": items})
	}
}
