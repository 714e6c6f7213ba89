package k8s

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/vllm-gateway/vllm-gateway/alerts"
	"github.com/vllm-gateway/vllm-gateway/dashboards"
)

var update = flag.Bool("update", false, "write the generated parts of the manifests anew")

// marker begins what is generated; all above it is by hand.
func marker(folder string) string {
	return "# Generated from " + folder + `/ by "make manifests": edit there.` + "\n"
}

// TestGenerated: rules and dashboard are in manifests as they are in their folders.
// With -update it writes them.
func TestGenerated(t *testing.T) {
	for file, want := range map[string]string{
		"prometheus/configmap.yaml":    marker("alerts") + configMap("prometheus-rules", "prometheus", ruleFiles(t)),
		"grafana/configmap.yaml":       marker("dashboards") + configMap("grafana-dashboards", "grafana", map[string]string{"vllm-gateway.json": string(dashboards.JSON)}),
		"operator/prometheusrule.yaml": marker("alerts") + prometheusRule(t),
	} {
		text, err := os.ReadFile(file)
		if err != nil && !(*update && os.IsNotExist(err)) {
			t.Errorf("%v: run make manifests", err)
			continue
		}
		first, _, _ := strings.Cut(want, "\n")
		byHand, generated, found := strings.Cut(string(text), first+"\n")
		if *update && (found || len(text) == 0) {
			if err := os.WriteFile(file, []byte(byHand+want), 0o644); err != nil {
				t.Error(err)
			}
			continue
		}
		if !found {
			t.Errorf("k8s/%s: there is no line %q, which begins the generated part", file, first)
		} else if got := first + "\n" + generated; got != want {
			t.Errorf("k8s/%s: what is generated differs %s: run make manifests", file, difference(got, want))
		}
	}
}

// What is generated has to mean what it was made of, byte for byte.
func TestGeneratedMeansTheSame(t *testing.T) {
	all := stack(t)
	for name, want := range map[string]map[string]string{
		"prometheus-rules":   ruleFiles(t),
		"grafana-dashboards": {"vllm-gateway.json": string(dashboards.JSON)},
	} {
		if got := find[*corev1.ConfigMap](t, all, name); !reflect.DeepEqual(got.Data, want) {
			t.Errorf("ConfigMap %s with files %q is not what its folder has, in %q: run make manifests", name, keys(got.Data), keys(want))
		}
	}
	var rule struct{ Spec struct{ Groups []any } }
	text, err := os.ReadFile("operator/prometheusrule.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &rule)
	}
	if err != nil {
		t.Fatal(err)
	}
	var want []any
	names := map[any]string{}
	for _, file := range keys(ruleFiles(t)) {
		var rules struct{ Groups []any }
		if err := yaml.Unmarshal([]byte(ruleFiles(t)[file]), &rules); err != nil {
			t.Fatal(err)
		}
		for _, g := range rules.Groups {
			name := g.(map[string]any)["name"]
			if other, ok := names[name]; ok {
				t.Errorf("alerts/%s: the group %q is in %s too, and the operator refuses a PrometheusRule with two groups of a name", file, name, other)
			}
			names[name] = file
		}
		want = append(want, rules.Groups...)
	}
	if !reflect.DeepEqual(rule.Spec.Groups, want) {
		t.Error("k8s/operator/prometheusrule.yaml: its groups are not those of alerts/: run make manifests")
	}
}

// ruleFiles are the files of alerts/, by name.
func ruleFiles(t *testing.T) map[string]string {
	t.Helper()
	names, err := fs.Glob(alerts.Files, "*")
	if err != nil || len(names) == 0 {
		t.Fatalf("no rules: %v", err)
	}
	all := map[string]string{}
	for _, name := range names {
		text, err := alerts.Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(text)
	}
	return all
}

// configMap is one with these files as text that can be read in it.
func configMap(name, app string, files map[string]string) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n  namespace: " + namespace + "\n  labels:\n    app: " + app + "\ndata:\n")
	for _, file := range keys(files) {
		b.WriteString("  " + file + ": |\n" + indent(files[file], "    "))
	}
	return b.String()
}

// prometheusRule is all groups in one, with their comments.
func prometheusRule(t *testing.T) string {
	t.Helper()
	rule := "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: vllm-gateway\n  namespace: " + namespace + "\n  labels:\n    app: vllm-gateway\nspec:\n  groups:\n"
	files := ruleFiles(t)
	for _, file := range keys(files) {
		comment, groups, found := strings.Cut(files[file], "\ngroups:\n")
		if !found {
			t.Fatalf("alerts/%s: there is no line \"groups:\"", file)
		}
		rule += indent(comment+"\n", "    ") + indent(groups, "  ")
	}
	return rule
}

func indent(text, by string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line != "\n" {
			b.WriteString(by)
		}
		b.WriteString(line)
	}
	return b.String()
}

// difference is the first line that is not the same.
func difference(got, want string) string {
	a, b := bytes.Split([]byte(got), []byte("\n")), bytes.Split([]byte(want), []byte("\n"))
	for i := range min(len(a), len(b)) {
		if !bytes.Equal(a[i], b[i]) {
			return fmt.Sprintf("at %q, want %q", bytes.TrimSpace(a[i]), bytes.TrimSpace(b[i]))
		}
	}
	return "in its length"
}
