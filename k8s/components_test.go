package k8s

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// changes are the objects that two sets do not have in common.
func changes(t *testing.T, before, after []object) []string {
	t.Helper()
	seen := map[string]string{}
	for _, o := range before {
		seen[o.id()] = o.json(t)
	}
	var changed []string
	for _, o := range after {
		if seen[o.id()] != o.json(t) {
			changed = append(changed, o.id())
		}
		delete(seen, o.id())
	}
	for id := range seen {
		changed = append(changed, id)
	}
	slices.Sort(changed)
	return changed
}

func exporter(t *testing.T, all []object) corev1.PodSpec {
	return find[*appsv1.DaemonSet](t, all, "gpu-exporter").Spec.Template.Spec
}

func targetList(t *testing.T, all []object, name string) string {
	return find[*corev1.ConfigMap](t, all, "prometheus-targets").Data[name+".yml"]
}

// componentTests: what each changes, and that it is what it is for.
var componentTests = map[string]struct {
	changes    []string
	privileged bool
	check      func(*testing.T, []object) bool
}{
	"persistent": {
		changes: []string{"Deployment/grafana", "Deployment/prometheus", "PersistentVolumeClaim/grafana-data", "PersistentVolumeClaim/prometheus-data"},
		check: func(t *testing.T, all []object) bool {
			claimed := 0
			for _, name := range []string{"prometheus", "grafana"} {
				for _, v := range find[*appsv1.Deployment](t, all, name).Spec.Template.Spec.Volumes {
					if v.Name == "data" && v.EmptyDir == nil && v.PersistentVolumeClaim.ClaimName == name+"-data" {
						claimed++
					}
				}
			}
			return claimed == 2
		},
	},
	"nvidia-runtimeclass": {
		changes: []string{"DaemonSet/gpu-exporter"},
		check: func(t *testing.T, all []object) bool {
			class := exporter(t, all).RuntimeClassName
			return class != nil && *class == "nvidia"
		},
	},
	"gke": {
		changes: []string{"DaemonSet/gpu-exporter"}, privileged: true,
		check: func(t *testing.T, all []object) bool {
			p := exporter(t, all)
			c := p.Containers[0]
			return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.ReadOnly && m.MountPath == "/usr/local/nvidia" }) &&
				selectsNodes(p) == "cloud.google.com/gke-accelerator"
		},
	},
	"bottlerocket": {
		changes: []string{"DaemonSet/gpu-exporter"}, privileged: true,
		check: func(t *testing.T, all []object) bool { return true }, // privileged, and nothing else
	},
	"gpu-nodes": {
		changes: []string{"DaemonSet/gpu-exporter"},
		check: func(t *testing.T, all []object) bool {
			return selectsNodes(exporter(t, all)) == "nvidia.com/gpu.present or feature.node.kubernetes.io/pci-10de.present or cloud.google.com/gke-accelerator"
		},
	},
	"minikube": {
		changes: []string{"ConfigMap/prometheus-targets"},
		check: func(t *testing.T, all []object) bool {
			return strings.Contains(targetList(t, all, "vllm-gateway"), `"host.minikube.internal:9000"`) && strings.Contains(targetList(t, all, "vllm"), `"host.minikube.internal:8000"`)
		},
	},
	"docker-desktop": {
		changes: []string{"ConfigMap/prometheus-targets", "Deployment/prometheus"},
		check: func(t *testing.T, all []object) bool {
			p := find[*appsv1.Deployment](t, all, "prometheus").Spec.Template.Spec
			return strings.Contains(targetList(t, all, "vllm-gateway"), `"host.docker.internal:9000"`) && strings.Contains(targetList(t, all, "vllm"), `"host.docker.internal:8000"`) && len(p.HostAliases) == 0
		},
	},
	"no-host": {
		changes: []string{"ConfigMap/prometheus-targets"},
		check: func(t *testing.T, all []object) bool {
			return targetList(t, all, "vllm-gateway") == "[]\n" && targetList(t, all, "vllm") == "[]\n"
		},
	},
}

// selectsNodes are the labels, any of which a pod's node must have.
func selectsNodes(p corev1.PodSpec) string {
	if p.Affinity == nil || p.Affinity.NodeAffinity == nil || p.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	var any []string
	for _, term := range p.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		var all []string
		for _, e := range term.MatchExpressions {
			all = append(all, e.Key)
		}
		any = append(any, strings.Join(all, " and "))
	}
	return strings.Join(any, " or ")
}

// alternatives say different things of the same: who has one does not have another.
var alternatives = [][]string{{"gke", "bottlerocket"}, {"gke", "gpu-nodes"}, {"minikube", "docker-desktop", "no-host"}}

// Each by itself, then any two that go together. What is wrong without any of them,
// or with one, is told once.
func TestComponents(t *testing.T) {
	if !t.Run("none", func(t *testing.T) { with(t) }) {
		return
	}
	alone := t.Run("alone", func(t *testing.T) {
		for name := range componentTests {
			t.Run(name, func(t *testing.T) { with(t, name) })
		}
	})
	if !alone {
		return
	}
	for a := range componentTests {
		for b := range componentTests {
			if a < b && !slices.ContainsFunc(alternatives, func(one []string) bool { return slices.Contains(one, a) && slices.Contains(one, b) }) {
				t.Run(a+" and "+b, func(t *testing.T) { with(t, a, b) })
			}
		}
	}
}

func with(t *testing.T, names ...string) {
	t.Helper()
	all := render(t, names...)
	var want []string
	privileged := false
	for _, name := range names {
		c := componentTests[name]
		want = append(want, c.changes...)
		privileged = privileged || c.privileged
		if !c.check(t, all) {
			t.Errorf("with the components %q, %s does not do what it is for: see components_test.go", names, name)
		}
	}
	slices.Sort(want)
	if changed := changes(t, stack(t), all); !slices.Equal(changed, slices.Compact(want)) {
		t.Errorf("between kubectl apply -f k8s/ and kubectl apply -k . with the components %q differ %q, want %q", names, changed, want)
	}
	goodCitizens(t, all, privileged)
	references(t, all)
	prometheusFiles(t, all)
	grafanaFiles(t, all)
}

// A component that nobody is told of is not there.
func TestComponentsAreNamed(t *testing.T) {
	folders, err := filepath.Glob("components/*")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range folders {
		names = append(names, filepath.Base(f))
	}
	var tested []string
	for name := range componentTests {
		tested = append(tested, name)
	}
	for name := range gatewayComponentTests {
		tested = append(tested, name)
	}
	if slices.Sort(tested); !slices.Equal(names, tested) {
		t.Errorf("components/ has %q, and tested are %q", names, tested)
	}
	for _, file := range []string{"../kustomization.yaml", "gateway/Kustomization", "../docs/kubernetes.md"} {
		text, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			_, gateway := gatewayComponentTests[name]
			if strings.HasSuffix(file, "ustomization.yaml") && gateway || strings.HasSuffix(file, "Kustomization") && !gateway {
				continue
			}
			if !regexp.MustCompile(`\b` + name + `\b`).Match(text) {
				t.Errorf("%s does not name the component %s", inRepository(file), name)
			}
		}
	}
}
