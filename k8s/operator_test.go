package k8s

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// monitor is what is in use of ServiceMonitor and PodMonitor.
type monitor struct {
	Metadata struct{ Name string }
	Spec     struct {
		Selector            struct{ MatchLabels map[string]string }
		Endpoints           []endpoint
		PodMetricsEndpoints []endpoint
	}
}

type endpoint struct {
	Port        string
	Relabelings []relabeling
}

type relabeling struct {
	SourceLabels                     []string
	TargetLabel, Replacement, Action string
}

func monitors(t *testing.T) map[string]monitor {
	t.Helper()
	all := map[string]monitor{}
	for _, file := range []string{"operator/servicemonitor.yaml", "operator/podmonitor.yaml"} {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			t.Skipf("%s: not yet", file)
		}
		for _, o := range read(t, file) {
			var m monitor
			if err := json.Unmarshal([]byte(o.json(t)), &m); err != nil {
				t.Fatalf("%v: %v", o, err)
			}
			all[o.id()] = m
		}
	}
	return all
}

// The operator's Prometheus calls the jobs as ours does: dashboard and rules go by
// the names.
func TestOperatorJobs(t *testing.T) {
	all := monitors(t)
	for id, job := range map[string]string{"ServiceMonitor/vllm-gateway": "vllm-gateway", "PodMonitor/gpu-exporter": "gpu-exporter", "PodMonitor/vllm": "vllm"} {
		m, ok := all[id]
		if !ok {
			t.Errorf("operator/ has no %s", id)
			continue
		}
		ends := append(m.Spec.Endpoints, m.Spec.PodMetricsEndpoints...)
		if len(ends) == 0 {
			t.Errorf("operator/: %s has no endpoints", id)
		}
		for _, e := range ends {
			if !slices.ContainsFunc(e.Relabelings, func(r relabeling) bool {
				return r.TargetLabel == "job" && r.Replacement == job && len(r.SourceLabels) == 0 && r.Action == ""
			}) {
				t.Errorf("operator/: the job of %s's port %s is not made %s by its relabelings", id, e.Port, job)
			}
		}
	}
}

// They find what the manifests run: by label, and by the name of a port.
func TestOperatorFindsOurs(t *testing.T) {
	all := monitors(t)
	service := find[*corev1.Service](t, gateway(t), "vllm-gateway")
	m := all["ServiceMonitor/vllm-gateway"].Spec
	if !covers(m.Selector.MatchLabels, service.Labels) {
		t.Errorf("operator/: ServiceMonitor vllm-gateway selects %v, and the Service has %v", m.Selector.MatchLabels, service.Labels)
	}
	for _, e := range m.Endpoints {
		if !slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == e.Port }) {
			t.Errorf("operator/: ServiceMonitor vllm-gateway asks port %q, and the Service has %+v", e.Port, service.Spec.Ports)
		}
	}
	pods := find[*appsv1.DaemonSet](t, stack(t), "gpu-exporter").Spec.Template
	m = all["PodMonitor/gpu-exporter"].Spec
	if !covers(m.Selector.MatchLabels, pods.Labels) {
		t.Errorf("operator/: PodMonitor gpu-exporter selects %v, and the pods have %v", m.Selector.MatchLabels, pods.Labels)
	}
	for _, e := range m.PodMetricsEndpoints {
		if _, ok := portOf(&pods, e.Port); !ok {
			t.Errorf("operator/: PodMonitor gpu-exporter asks port %q, and the pods have %+v", e.Port, pods.Spec.Containers[0].Ports)
		}
	}
}
