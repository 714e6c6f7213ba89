package k8s

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

const namespace = "vllm-monitoring"

// An unknown field is dropped by the API server, with a warning that nobody reads.
func TestStrictly(t *testing.T) {
	files := append(manifests(t), "../kustomization.yaml", "gateway/Kustomization")
	tests, err := filepath.Glob("../loadtests/k8s/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, tests...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all, err := decode(inRepository(file), text)
		if err != nil {
			t.Error(err)
		} else if len(all) == 0 {
			t.Errorf("%s: nothing in it", inRepository(file))
		}
	}
}

// guide are the files that the guide applies one by one.
var guide = []string{
	"namespace.yaml",
	"prometheus/rbac.yaml", "prometheus/configmap.yaml", "prometheus/deployment.yaml", "prometheus/service.yaml",
	"grafana/configmap.yaml", "grafana/deployment.yaml", "grafana/service.yaml",
	"gpu-exporter/daemonset.yaml",
}

// links are the files that "kubectl apply -f k8s/" reads, in its order. It reads no
// folders, and stops at a kustomization.yaml, which is none of the cluster's.
func links(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
			all = append(all, e.Name())
		}
	}
	return all
}

func TestLinks(t *testing.T) {
	all := links(t)
	if len(all) == 0 || all[0] != "namespace.yaml" {
		t.Fatalf("%q: namespace.yaml has to come first, since the others are in it", all)
	}
	for _, name := range all[1:] {
		to, err := os.Readlink(name)
		if err != nil {
			t.Errorf("k8s/%s: not a link to a file of a sub folder, and kubectl apply -f k8s/ would read it", name)
			continue
		}
		if want := "part-" + strings.ReplaceAll(to, "/", "-"); name != want {
			t.Errorf("k8s/%s links to %s: it should be called %s", name, to, want)
		}
		if info, err := os.Lstat(to); err != nil || !info.Mode().IsRegular() || filepath.Dir(to) == "." {
			t.Errorf("k8s/%s links to %s, which is no file of a sub folder: %v", name, to, err)
		}
	}
}

// "kubectl apply -f k8s/", "kubectl apply -k ." and the guide's commands apply the
// same files, each once.
func TestSameFiles(t *testing.T) {
	linked := []string{"namespace.yaml"}
	for _, name := range links(t)[1:] {
		if to, err := os.Readlink(name); err == nil {
			linked = append(linked, to)
		}
	}
	text, err := os.ReadFile("../kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var k types.Kustomization
	if err := yaml.UnmarshalStrict(text, &k); err != nil {
		t.Fatal(err)
	}
	for by, files := range map[string][]string{"the links of k8s/": linked, "kustomization.yaml": k.Resources} {
		for i, file := range files {
			files[i] = strings.TrimPrefix(file, "k8s/")
		}
		slices.Sort(files)
		if want := slices.Sorted(slices.Values(guide)); !slices.Equal(files, want) {
			t.Errorf("by %s are applied\n\t%q\nand by the guide\n\t%q", by, files, want)
		}
	}
}

// What the guide's commands name.
func TestGuide(t *testing.T) {
	all := stack(t)
	for id, app := range map[string]string{"Deployment/prometheus": "prometheus", "Deployment/grafana": "grafana", "DaemonSet/gpu-exporter": "gpu-exporter"} {
		i := slices.IndexFunc(all, func(o object) bool { return o.id() == id })
		if i < 0 {
			t.Errorf("there is no %s", id)
			continue
		}
		if got := all[i].template().Labels["app"]; got != app {
			t.Errorf("%v: its pods have the label app=%s, want app=%s", all[i], got, app)
		}
		if got := container(t, all[i]).Name; got != app {
			t.Errorf("%v: its first container is called %s, want %s", all[i], got, app)
		}
	}
	if n := len(workloads(all)); n != 3 {
		t.Errorf("%d workloads, want 3: kubectl get pods shows no others", n)
	}
	ports := map[string]string{}
	for _, o := range all {
		if s, ok := o.value.(*corev1.Service); ok {
			ports[o.GetName()] = string(s.Spec.Type)
			for _, p := range s.Spec.Ports {
				ports[o.GetName()] += fmt.Sprintf(" %d:%d", p.Port, p.NodePort)
			}
		}
	}
	if want := map[string]string{"prometheus": "NodePort 9090:30090", "grafana": "NodePort 3000:30300"}; !maps.Equal(ports, want) {
		t.Errorf("Services %v, want %v", ports, want)
	}
}

// Everything is in the guide's namespace, or in none where kubectl's -n says it,
// and has the label by which it is found.
func TestNamespaceAndLabels(t *testing.T) {
	apps := []string{"prometheus", "grafana", "gpu-exporter"}
	for _, o := range stack(t) {
		switch o.kind {
		case "Namespace":
			if o.GetName() != namespace {
				t.Errorf("%v, want %s", o, namespace)
			}
			continue
		case "ClusterRole", "ClusterRoleBinding":
			if o.GetNamespace() != "" {
				t.Errorf("%v: it is in no namespace", o)
			}
		default:
			if o.GetNamespace() != namespace {
				t.Errorf("%v: in namespace %q, want %s", o, o.GetNamespace(), namespace)
			}
		}
		if app := o.GetLabels()["app"]; !slices.Contains(apps, app) {
			t.Errorf("%v: label app=%q, want one of %q", o, app, apps)
		}
	}
	for _, o := range gateway(t) {
		if o.GetNamespace() != "" {
			t.Errorf("%v: in namespace %q, but kubectl apply -n says which", o, o.GetNamespace())
		}
		if o.GetName() != "vllm-gateway" || o.GetLabels()["app"] != "vllm-gateway" {
			t.Errorf("%v: its name and its label app (%q) should be vllm-gateway", o, o.GetLabels()["app"])
		}
	}
}

// A selector that fits no pod is no error to the API server.
func TestSelectors(t *testing.T) {
	for name, all := range map[string][]object{"k8s": stack(t), "k8s/gateway": gateway(t)} {
		for _, o := range all {
			var selector map[string]string
			switch v := o.value.(type) {
			case *corev1.Service:
				selector = v.Spec.Selector
			case *policyv1.PodDisruptionBudget:
				selector = v.Spec.Selector.MatchLabels
			case *networkingv1.NetworkPolicy:
				selector = v.Spec.PodSelector.MatchLabels
			case *appsv1.Deployment:
				selector = v.Spec.Selector.MatchLabels
			case *appsv1.DaemonSet:
				selector = v.Spec.Selector.MatchLabels
			default:
				continue
			}
			if o.template() != nil && !covers(selector, o.template().Labels) {
				t.Errorf("%v: its selector %v does not fit its pods, %v", o, selector, o.template().Labels)
			} else if selected(all, selector) == nil {
				t.Errorf("%v: no pod of %s has the labels of its selector %v", o, name, selector)
			}
		}
	}
}

// selected is the pod that a selector fits.
func selected(all []object, selector map[string]string) *corev1.PodTemplateSpec {
	for _, w := range workloads(all) {
		if covers(selector, w.template().Labels) {
			return w.template()
		}
	}
	return nil
}

func TestServicesReachTheirPods(t *testing.T) {
	for _, all := range [][]object{stack(t), gateway(t)} {
		for _, o := range all {
			s, ok := o.value.(*corev1.Service)
			if !ok {
				continue
			}
			p := selected(all, s.Spec.Selector)
			for _, port := range s.Spec.Ports {
				if p == nil {
					continue // TestSelectors
				}
				if n, ok := portOf(p, port.TargetPort.String()); !ok {
					t.Errorf("%v: port %d goes to port %q, which the pods do not have", o, port.Port, port.TargetPort.String())
				} else if n != port.Port {
					t.Errorf("%v: port %d goes to the pods' port %d, and the guide knows one number", o, port.Port, n)
				}
			}
		}
	}
}

func TestAutoscaler(t *testing.T) {
	to := find[*autoscalingv2.HorizontalPodAutoscaler](t, gateway(t), "vllm-gateway").Spec.ScaleTargetRef
	if to.Kind != "Deployment" || to.Name != "vllm-gateway" {
		t.Errorf("HorizontalPodAutoscaler vllm-gateway scales %s %s, want Deployment vllm-gateway", to.Kind, to.Name)
	}
	if n := find[*appsv1.Deployment](t, gateway(t), "vllm-gateway").Spec.Replicas; n != nil {
		t.Errorf("Deployment vllm-gateway says replicas: %d, and each kubectl apply would undo what the autoscaler did", *n)
	}
}

// Without these, nobody reads the gateways in the cluster.
func TestGatewaysAreFound(t *testing.T) {
	o := find[*appsv1.Deployment](t, gateway(t), "vllm-gateway")
	for name, want := range map[string]string{"prometheus.io/scrape": "true", "prometheus.io/job": "vllm-gateway"} {
		if got := o.Spec.Template.Annotations[name]; got != want {
			t.Errorf("k8s/gateway/deployment.yaml: its pods have the annotation %s: %q, want %q", name, got, want)
		}
	}
}

// Prometheus sees pods, and nothing else of the cluster.
func TestRBAC(t *testing.T) {
	all := stack(t)
	role := find[*rbacv1.ClusterRole](t, all, "vllm-monitoring-prometheus")
	binding := find[*rbacv1.ClusterRoleBinding](t, all, "vllm-monitoring-prometheus")
	if binding.RoleRef.Kind != "ClusterRole" || binding.RoleRef.Name != role.Name || binding.RoleRef.APIGroup != rbacv1.GroupName {
		t.Errorf("the ClusterRoleBinding's role %+v is not the ClusterRole %s", binding.RoleRef, role.Name)
	}
	user := find[*appsv1.Deployment](t, all, "prometheus").Spec.Template.Spec.ServiceAccountName
	if len(binding.Subjects) != 1 || binding.Subjects[0].Kind != "ServiceAccount" || binding.Subjects[0].Name != user || binding.Subjects[0].Namespace != namespace {
		t.Errorf("the ClusterRoleBinding is of %+v, want ServiceAccount %s of %s alone", binding.Subjects, user, namespace)
	}
	if len(role.Rules) != 1 {
		t.Fatalf("ClusterRole %s has %d rules, want 1: pods", role.Name, len(role.Rules))
	}
	r := role.Rules[0]
	if !slices.Equal(r.APIGroups, []string{""}) || !slices.Equal(r.Resources, []string{"pods"}) || !slices.Equal(r.Verbs, []string{"get", "list", "watch"}) || len(r.NonResourceURLs) > 0 {
		t.Errorf("ClusterRole %s: %+v, want get, list and watch of pods, and nothing else", role.Name, r)
	}
}
