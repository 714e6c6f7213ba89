package k8s

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// gatewayComponentTests are componentTests for k8s/gateway.
var gatewayComponentTests = map[string]struct {
	changes []string
	check   func(*testing.T, []object)
}{
	"gateway-config": {
		changes: []string{"ConfigMap/vllm-gateway", "Deployment/vllm-gateway", "NetworkPolicy/vllm-gateway", "Service/vllm-gateway"},
		check:   hasItsFile,
	},
	"gateway-redis": {
		changes: []string{"Deployment/vllm-gateway-redis", "NetworkPolicy/vllm-gateway-redis", "NetworkPolicy/vllm-gateway-to-redis", "Service/vllm-gateway-redis"},
		check:   redisIsReached,
	},
}

// "kubectl apply -f k8s/gateway/" and "kubectl apply -k k8s/gateway" apply the same,
// and each component changes what it is for, and nothing else.
func TestGatewayComponents(t *testing.T) {
	for _, names := range [][]string{nil, {"gateway-config"}, {"gateway-redis"}, {"gateway-config", "gateway-redis"}} {
		t.Run(strings.Join(names, " and "), func(t *testing.T) {
			all := renderGateway(t, names...)
			var want []string
			for _, name := range names {
				want = append(want, gatewayComponentTests[name].changes...)
				gatewayComponentTests[name].check(t, all)
			}
			slices.Sort(want)
			if changed := changes(t, gateway(t), all); !slices.Equal(changed, want) {
				t.Errorf("between kubectl apply -f k8s/gateway/ and kubectl apply -k k8s/gateway with the components %q differ %q, want %q", names, changed, want)
			}
			goodCitizens(t, all, false)
			references(t, all)
			for _, o := range all {
				if o.GetNamespace() != "" {
					t.Errorf("%v: in namespace %q, but kubectl apply -n says which", o, o.GetNamespace())
				}
				if !strings.HasPrefix(o.GetName(), "vllm-gateway") || !strings.HasPrefix(o.GetLabels()["app"], "vllm-gateway") {
					t.Errorf("%v: its name and its label app (%q) should begin with vllm-gateway", o, o.GetLabels()["app"])
				}
				if s, ok := o.value.(*corev1.Service); ok {
					for _, port := range s.Spec.Ports {
						if n, ok := portOf(selected(all, s.Spec.Selector), port.TargetPort.String()); !ok || n != port.Port {
							t.Errorf("%v: port %d goes to port %q of the pods, which is %d", o, port.Port, port.TargetPort.String(), n)
						}
					}
				}
			}
		})
	}
}

// podMatters are the flags that say what the pod says as well: its ports, its probes,
// its time to end. A flag wins over the file, so that no change of the file can have a
// probe ask where nobody listens; and any other flag would hide what the file says.
var podMatters = []string{"config", "drain-delay", "drain-timeout", "listen", "log-format", "metrics-listen"}

// hasItsFile: the gateway goes by the file of the ConfigMap, in a folder that is
// mounted whole, with the Secret's files beside it if there is one.
func hasItsFile(t *testing.T, all []object) {
	t.Helper()
	d := find[*appsv1.Deployment](t, all, "vllm-gateway")
	// What the API server would let be applied over it would open it to everybody.
	if plain := find[*appsv1.Deployment](t, gateway(t), "vllm-gateway"); reflect.DeepEqual(plain.Spec.Selector, d.Spec.Selector) {
		t.Errorf("gateway-config: the selector is %v, as that of k8s/gateway/deployment.yaml, which takes the file away", d.Spec.Selector)
	}
	o := d.Spec.Template
	c := o.Spec.Containers[0]
	var flags []string
	for _, a := range c.Args {
		name, _, _ := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		flags = append(flags, name)
	}
	if slices.Sort(flags); !slices.Equal(flags, podMatters) {
		t.Errorf("gateway-config: the flags are %q, want %q", flags, podMatters)
	}
	file := flagOf(c.Args, "config")
	mounted := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == path.Dir(file) && m.ReadOnly })
	if mounted < 0 {
		t.Fatalf("gateway-config: --config=%s, and nothing is mounted there; there is %+v", file, c.VolumeMounts)
	}
	v := o.Spec.Volumes[slices.IndexFunc(o.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == c.VolumeMounts[mounted].Name })]
	if v.Projected == nil || len(v.Projected.Sources) != 2 || v.Projected.Sources[0].ConfigMap == nil || v.Projected.Sources[1].Secret == nil {
		t.Fatalf("gateway-config: volume %+v, want one of ConfigMap and Secret", v)
	}
	if s := v.Projected.Sources[1].Secret; s.Name != "vllm-gateway" || s.Optional == nil || !*s.Optional {
		t.Errorf("gateway-config: %+v, want Secret vllm-gateway, optional", s)
	}
	if data := find[*corev1.ConfigMap](t, all, v.Projected.Sources[0].ConfigMap.Name).Data; data[path.Base(file)] == "" {
		t.Errorf("gateway-config: --config=%s, and the ConfigMap has %q", file, keys(data))
	}
	main, metrics := flagOf(c.Args, "listen"), flagOf(c.Args, "metrics-listen")
	for name, want := range map[string]string{"http": main, "metrics": metrics} {
		if n, _ := portOf(&o, name); fmt.Sprint(":", n) != want {
			t.Errorf("gateway-config: port %s is %d, and it listens on %s", name, n, want)
		}
	}
	if got := ":" + o.Annotations["prometheus.io/port"]; got != metrics {
		t.Errorf("gateway-config: Prometheus asks %s, and metrics are on %s", got, metrics)
	}
	if c.LivenessProbe.HTTPGet.Port.String() != "metrics" || c.ReadinessProbe.HTTPGet.Port.String() != "http" {
		t.Errorf("gateway-config: probes %+v and %+v; want /metrics on port metrics, /health on port http", c.LivenessProbe, c.ReadinessProbe)
	}
}

// redisIsReached: where the file's example looks for it, by the gateway, which has no
// other way there.
func redisIsReached(t *testing.T, all []object) {
	t.Helper()
	s := find[*corev1.Service](t, all, "vllm-gateway-redis")
	text, err := os.ReadFile(gatewayFile)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("redis: redis://%s:%d/0\n", s.Name, s.Spec.Ports[0].Port); !strings.Contains(string(text), want) {
		t.Errorf("%s has no %q", gatewayFile, want)
	}
	out := find[*networkingv1.NetworkPolicy](t, all, "vllm-gateway-to-redis").Spec
	in := find[*networkingv1.NetworkPolicy](t, all, "vllm-gateway-redis").Spec
	redis, gateway := selected(all, in.PodSelector.MatchLabels), selected(all, out.PodSelector.MatchLabels)
	if redis == nil || gateway == nil || len(out.Egress) != 1 || len(in.Ingress) != 1 || len(in.Egress) != 0 ||
		!covers(out.Egress[0].To[0].PodSelector.MatchLabels, redis.Labels) || !covers(in.Ingress[0].From[0].PodSelector.MatchLabels, gateway.Labels) {
		t.Fatalf("gateway-redis: policies %+v and %+v; want from the gateway to it, and nothing else", out, in)
	}
	port := fmt.Sprint("TCP ", redis.Spec.Containers[0].Ports[0].ContainerPort)
	for _, ports := range [][]networkingv1.NetworkPolicyPort{out.Egress[0].Ports, in.Ingress[0].Ports} {
		if got := portsOf(ports); !slices.Equal(got, []string{port}) {
			t.Errorf("gateway-redis: a policy has ports %q, want %s", got, port)
		}
	}
}

// inGatewayFile is what the manifests' other parts have to fit.
func inGatewayFile(t *testing.T, all []object) (file struct{ Backends []struct{ URL string } }) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(find[*corev1.ConfigMap](t, all, "vllm-gateway").Data["gateway.yaml"]), &file); err != nil {
		t.Fatal(err)
	}
	return file
}

// gatewayGoesByItsFile starts the gateway as gateway-config does. What the file has as
// a comment holds too, once the Secret is there.
func gatewayGoesByItsFile(t *testing.T, bin string) {
	all := renderGateway(t, "gateway-config")
	c := find[*appsv1.Deployment](t, all, "vllm-gateway").Spec.Template.Spec.Containers[0]
	text := find[*corev1.ConfigMap](t, all, "vllm-gateway").Data["gateway.yaml"]
	dir := t.TempDir()
	file := filepath.Join(dir, "gateway.yaml")
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("gateway.yaml", text)

	metrics := freeAddress(t)
	args := slices.DeleteFunc(slices.Clone(c.Args), func(a string) bool {
		return strings.HasPrefix(a, "--config=") || strings.HasPrefix(a, "--metrics-listen=")
	})
	at := launch(t, bin, "vllm-gateway", append(args, "--config="+file, "--metrics-listen="+metrics))
	for url, want := range map[string]int{
		"http://" + metrics + c.LivenessProbe.HTTPGet.Path: http.StatusOK,
		at + "/metrics":   http.StatusNotFound,
		at + "/v1/models": http.StatusUnauthorized,
	} {
		got := 0
		for end := time.Now().Add(10 * time.Second); got != want && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if answer, err := http.Get(url); err == nil {
				answer.Body.Close()
				got = answer.StatusCode
			}
		}
		if got != want {
			t.Errorf("%s gives %d, want %d", url, got, want)
		}
	}

	lines := strings.Split(text, "\n")
	shared := false
	for i, line := range lines {
		off := strings.Index(line, "# ")
		shared = off == 0 && (shared || strings.HasPrefix(line, "# shared_limits:"))
		if shared || off > 0 && strings.HasPrefix(line[off:], "# api_key_file:") {
			lines[i] = line[:off] + line[off+2:]
		}
	}
	put("gateway.yaml", strings.Join(lines, "\n"))
	put("vllm-key", "of-vllm-itself")
	put("redis-password", "of-redis-itself")
	out, err := exec.Command(filepath.Join(bin, "vllm-gateway"), "check-config", file).CombinedOutput()
	if want := file + ": ok: 2 backends, 1 key, shared limits\n"; err != nil || string(out) != want {
		t.Errorf("%s with its comments: %v, %s want %s", gatewayFile, err, out, want)
	}
	if strings.Count(strings.Join(lines, "\n"), "\n    api_key_file: vllm-key") != 2 {
		t.Errorf("%s has no api_key_file for each backend", gatewayFile)
	}
}
