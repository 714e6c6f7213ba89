package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	operator "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

// What is for the Prometheus operator has no field that its types do not know. (The
// module of k8s/ keeps to Kubernetes 1.30, and these types need a newer one.)
func TestClusterOperatorsTypes(t *testing.T) {
	kinds := map[string]func() any{
		"ServiceMonitor": func() any { return new(operator.ServiceMonitor) },
		"PodMonitor":     func() any { return new(operator.PodMonitor) },
		"PrometheusRule": func() any { return new(operator.PrometheusRule) },
	}
	files, err := filepath.Glob("../k8s/operator/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, document := range bytes.Split(text, []byte("\n---\n")) {
			var head struct{ Kind string }
			if err := yaml.Unmarshal(document, &head); err != nil || kinds[head.Kind] == nil {
				t.Errorf("%s, document %d: kind %q, %v", file, i+1, head.Kind, err)
			} else if err := yaml.UnmarshalStrict(document, kinds[head.Kind]()); err != nil {
				t.Errorf("%s, document %d: %v", file, i+1, err)
			}
		}
	}
}
