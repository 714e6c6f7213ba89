package k8s

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// testRun is what is in use of the k6-operator's TestRun. Its own type brings along
// k6 and a younger Kubernetes; the cluster's test asks the operator's CRD.
type testRun struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Parallelism int32 `json:"parallelism"`
		Script      struct {
			ConfigMap struct {
				Name string `json:"name"`
				File string `json:"file"`
			} `json:"configMap"`
		} `json:"script"`
		Arguments   string  `json:"arguments"`
		Initializer testPod `json:"initializer"`
		Starter     testPod `json:"starter"`
		Runner      testPod `json:"runner"`
	} `json:"spec"`
}

type testPod struct {
	Image                        string                      `json:"image"`
	AutomountServiceAccountToken string                      `json:"automountServiceAccountToken"`
	Env                          []corev1.EnvVar             `json:"env"`
	Resources                    corev1.ResourceRequirements `json:"resources"`
	SecurityContext              corev1.PodSecurityContext   `json:"securityContext"`
	ContainerSecurityContext     corev1.SecurityContext      `json:"containerSecurityContext"`
}

var testRunKind = schema.GroupVersionKind{Group: "k6.io", Version: "v1alpha1", Kind: "TestRun"}

func (r *testRun) DeepCopyObject() runtime.Object {
	c := *r
	return &c
}

func (r *testRun) pods() map[string]testPod {
	return map[string]testPod{"initializer": r.Spec.Initializer, "starter": r.Spec.Starter, "runner": r.Spec.Runner}
}

// testRuns are those of loadtests/k8s, one a file.
func testRuns(t *testing.T) map[string]*testRun {
	t.Helper()
	files, err := filepath.Glob("../loadtests/k8s/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("loadtests/k8s/*.yaml: %q, %v", files, err)
	}
	all := map[string]*testRun{}
	for _, file := range files {
		objects := read(t, file)
		if len(objects) != 1 || objects[0].kind != testRunKind.Kind {
			t.Fatalf("%s: %q, want one TestRun", inRepository(file), ids(objects))
		}
		all[inRepository(file)] = objects[0].value.(*testRun)
	}
	return all
}

// The operator asks neither whether the script is there nor whether the pods may be.
func TestTestRuns(t *testing.T) {
	for file, r := range testRuns(t) {
		if name := strings.TrimSuffix(filepath.Base(file), ".yaml"); r.Name != name || r.Labels["app"] != "loadtests" || r.Namespace != "" {
			t.Errorf("%s: name %q, label app %q, namespace %q; want %s, loadtests, and none", file, r.Name, r.Labels["app"], r.Namespace, name)
		}
		if from := r.Spec.Script.ConfigMap; from.Name != "loadtests" || from.File != r.Name+".js" {
			t.Errorf("%s: the script is %s of ConfigMap %s, want %s.js of loadtests", file, from.File, from.Name, r.Name)
			continue
		}
		code := script(t, r.Spec.Script.ConfigMap.File)
		// One user draws the times of an open loop; a second pod would have no user,
		// and pods do not know of each other.
		if alone := strings.Contains(code, "openLoop("); alone != (r.Spec.Parallelism == 1) || r.Spec.Parallelism < 1 {
			t.Errorf("%s: parallelism %d, and whether its script sends from one user alone is %v", file, r.Spec.Parallelism, alone)
		}
		// What the verdict asks Prometheus for is not there without.
		if want := "--out experimental-prometheus-rw"; r.Spec.Arguments != want {
			t.Errorf("%s: arguments %q, want %q", file, r.Spec.Arguments, want)
		}
		if !reflect.DeepEqual(r.Spec.Initializer.Env, r.Spec.Runner.Env) {
			t.Errorf("%s: the initializer looks at another script than runs, by its env:\n\t%v\n\t%v", file, r.Spec.Initializer.Env, r.Spec.Runner.Env)
		}
		environment(t, file, code, r.Spec.Runner.Env)
		for name, p := range r.pods() {
			unprivileged(t, file+": "+name, p)
		}
	}
}

// script is the code of a script and of the modules that it imports, without comments.
func script(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../loadtests", name))
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile(`(?m)^ *//.*$|(?s)/\*.*?\*/`).ReplaceAllString(string(text), "")
	for _, imported := range regexp.MustCompile(`from '\./([^']+)'`).FindAllStringSubmatch(code, -1) {
		code += script(t, imported[1])
	}
	return code
}

// What k6 itself reads, of what is in use.
var k6Reads = []string{
	"K6_INCLUDE_SYSTEM_ENV_VARS", "K6_NO_USAGE_REPORT",
	"K6_PROMETHEUS_RW_SERVER_URL", "K6_PROMETHEUS_RW_STALE_MARKERS", "K6_PROMETHEUS_RW_TREND_STATS",
}

// environment: somebody reads each variable, and what is in each file is the same.
func environment(t *testing.T, file, code string, env []corev1.EnvVar) {
	t.Helper()
	got := map[string]string{}
	for _, e := range env {
		if _, twice := got[e.Name]; twice {
			t.Errorf("%s: %s is there twice", file, e.Name)
		}
		got[e.Name] = e.Value
		reads := regexp.MustCompile(`(__ENV\.|\w\(')` + regexp.QuoteMeta(e.Name) + `\b`)
		if !slices.Contains(k6Reads, e.Name) && !reads.MatchString(code) {
			t.Errorf("%s: %s is read neither by the script nor by k6", file, e.Name)
		}
	}
	want := map[string]string{
		"GATEWAY_URL":                    "http://vllm-gateway:" + servicePort(t, gateway(t), "vllm-gateway"),
		"K6_INCLUDE_SYSTEM_ENV_VARS":     "true",
		"K6_NO_USAGE_REPORT":             "true",
		"K6_PROMETHEUS_RW_SERVER_URL":    "http://prometheus." + namespace + ":" + servicePort(t, stack(t), "prometheus") + "/api/v1/write",
		"K6_PROMETHEUS_RW_TREND_STATS":   "p(50),p(95),p(99),avg", // as docs/monitoring.md and the dashboard have them
		"K6_PROMETHEUS_RW_STALE_MARKERS": "true",
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: %s is %q, want %q", file, name, got[name], value)
		}
	}
}

func servicePort(t *testing.T, all []object, name string) string {
	t.Helper()
	ports := find[*corev1.Service](t, all, name).Spec.Ports
	if len(ports) != 1 {
		t.Fatalf("Service %s has %d ports, want 1", name, len(ports))
	}
	return fmt.Sprint(ports[0].Port)
}

// unprivileged is what goodCitizens asks of our own pods, as far as an operator lets
// one say it. The initializer writes, so no root is read-only.
func unprivileged(t *testing.T, where string, p testPod) {
	t.Helper()
	is := func(b *bool, want bool) bool { return b != nil && *b == want }
	if s := p.SecurityContext; !is(s.RunAsNonRoot, true) || s.RunAsUser == nil || *s.RunAsUser == 0 || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s: securityContext wants runAsNonRoot: true, a runAsUser other than 0, and seccompProfile: {type: RuntimeDefault}", where)
	}
	if s := p.ContainerSecurityContext; !is(s.AllowPrivilegeEscalation, false) || s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 || is(s.Privileged, true) {
		t.Errorf("%s: containerSecurityContext wants allowPrivilegeEscalation: false and capabilities: {drop: [ALL]}", where)
	}
	if p.AutomountServiceAccountToken != "false" {
		t.Errorf(`%s: automountServiceAccountToken is %q, want "false": k6 has nothing to ask the API server`, where, p.AutomountServiceAccountToken)
	}
}

// The images are of one version each, k6's of that which loadtests/ is tested with.
func TestTestRunImages(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^K6 += k6@v(\S+)$`).FindSubmatch(makefile)
	if version == nil {
		t.Fatal("the Makefile has no K6 = k6@v…")
	}
	k6, starters := "docker.io/grafana/k6:"+string(version[1]), map[string]string{}
	for file, r := range testRuns(t) {
		for name, p := range r.pods() {
			if name == "starter" {
				starters[p.Image] = file
			} else if p.Image != k6 {
				t.Errorf("%s: %s's image is %s, and the Makefile's k6 is %s", file, name, p.Image, k6)
			}
		}
	}
	for image, file := range starters {
		if len(starters) > 1 || !regexp.MustCompile(`^ghcr\.io/grafana/k6-operator:starter-v\d+\.\d+\.\d+$`).MatchString(image) {
			t.Errorf("%s: the starter's image is %q; want the same version in each file: %q", file, image, slices.Sorted(maps.Keys(starters)))
		}
	}
}

// k6 writes to Prometheus.
func TestPrometheusTakesRemoteWrites(t *testing.T) {
	args := find[*appsv1.Deployment](t, stack(t), "prometheus").Spec.Template.Spec.Containers[0].Args
	if !slices.Contains(args, "--web.enable-remote-write-receiver") {
		t.Errorf("Deployment prometheus has the arguments %q, without --web.enable-remote-write-receiver", args)
	}
}
