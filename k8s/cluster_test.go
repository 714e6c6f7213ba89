//go:build cluster

package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What the manifests promise, on a real cluster: whatever KUBECONFIG names, as long
// as it has no namespace vllm-monitoring yet. "make test-k8s" builds what it needs;
// docs/kubernetes.md says how to run it, and what it cannot prove.
var (
	bin   = flag.String("bin", "../bin", "folder of our programs, and of promtool")
	local = flag.Bool("local", true, "the node is this machine: start gateway and vLLM on it, as the guide has it")
)

const (
	monitoring = "vllm-monitoring"
	serving    = "vllm-gateway-test" // where the gateway in the cluster stands
)

// remove takes everything away. Pods go before their namespace: it would else wait
// for minutes, by their grace periods.
const remove = `
kubectl delete --ignore-not-found -f k8s/testdata/driver.yaml
kubectl delete --ignore-not-found -n ` + serving + ` -f k8s/gateway/ -f k8s/testdata/vllm.yaml
kubectl wait -n ` + serving + ` --for=delete pod --all --timeout=60s
kubectl delete --ignore-not-found namespace ` + serving + `
kubectl delete --ignore-not-found -f k8s/
`

// root outlives the steps.
var root *testing.T

func TestCluster(t *testing.T) {
	root = t
	if out, err := output("kubectl", "get", "namespace", "--ignore-not-found", "-o", "name", monitoring, serving, keyed); err != nil || out != "" {
		t.Fatalf("there must be a cluster, and none of the namespaces %s, %s, %s in it:\n%s", monitoring, serving, keyed, out)
	}
	t.Cleanup(func() { output("bash", "-c", remove) })
	t.Cleanup(func() {
		if err := terminals.Close(); err != nil {
			t.Error(err)
		}
	})
	// The way of each step is what the steps before it have left; after a failure
	// the next ones would only say so again.
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"file by file", fileByFile},
		{"kustomize", kustomized},
		{"components", components},
		{"at once", atOnce},
		{"deployment verified", verified},
		{"gateway on the host", hostGateway},
		{"GPUs", gpus},
		{"targets", targets},
		{"five and five series", series},
		{"services accessed", accessed},
		{"troubleshooting", troubleshooting},
		{"rights", rights},
		{"rules", rules},
		{"Grafana", grafana},
		{"remote write", remoteWrite},
		{"changed ConfigMaps", changed},
		{"restarts", restarts},
		{"volume claims", volumeClaims},
		{"gateway in the cluster", clusterGateway},
		{"a gateway finds pods", finds},
		{"load test and changes", sideBySide},
		{"gateways killed", gatewaysKilled},
		{"autoscaler", scales},
		{"delete", deleted},
		{"the whole guide", wholeGuide},
	} {
		if !t.Run(step.name, step.run) {
			t.Fatalf("stopped after %q", step.name)
		}
	}
}

// sideBySide: both wait for the cluster most of their time, in namespaces of their own.
func sideBySide(t *testing.T) {
	for name, run := range map[string]func(*testing.T){"load test from pods": loadTest, "gateways take a changed ConfigMap": configChanges} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t)
		})
	}
}

// --- applying ---------------------------------------------------------------

// applying is where the guide applies the manifests: file by file, then at once.
const applying = "Step 1: Deploy the monitoring stack on a cluster"

func fileByFile(t *testing.T) {
	enter(t, underHeading(t, applying)[0])
	ready(t)
	// The namespace goes first, and takes along what kubectl deletes next.
	sh(t, "kubectl delete --ignore-not-found -f k8s/")
	nothingLeft(t)
}

func kustomized(t *testing.T) {
	sh(t, "kubectl apply -k .")
	ready(t)
	sh(t, "kubectl delete --ignore-not-found -k .")
	nothingLeft(t)
}

func atOnce(t *testing.T) {
	enter(t, underHeading(t, applying)[1])
	ready(t)
	// A second time there is nothing to do. What was written as stringData is data
	// ever after, so kubectl takes it for changed each time.
	for _, line := range strings.Split(strings.TrimSpace(sh(t, "kubectl apply -f k8s/")), "\n") {
		if !strings.HasSuffix(line, " unchanged") && line != "secret/grafana-admin configured" {
			t.Errorf("the second time, too: %s", line)
		}
	}
}

// Each component is taken by a real API server. What it does on the platform that
// it is for is not seen here.
func components(t *testing.T) {
	sh(t, "kubectl apply -f k8s/namespace.yaml")
	dirs, _ := filepath.Glob("components/*")
	if len(dirs) == 0 {
		t.Fatal("no components")
	}
	for _, dir := range dirs {
		with := ""
		if name := filepath.Base(dir); strings.HasPrefix(name, "gateway-") {
			with = filepath.Join(copied(t, "k8s/gateway/Kustomization", "../components/"+name), "k8s/gateway")
		} else {
			with = kustomizationWith(t, name)
		}
		if out, err := output("kubectl", "apply", "-n", monitoring, "--dry-run=server", "-k", with); err != nil {
			t.Errorf("%s: %v\n%s", dir, err, out)
		}
	}
}

// kustomizationWith is a copy of the root's kustomization in which a user has taken
// away the # before one component.
func kustomizationWith(t *testing.T, component string) string {
	t.Helper()
	return copied(t, "kustomization.yaml", "k8s/components/"+component)
}

// copied is a copy of the manifests, in which a user has taken away the # before a
// component in one of the kustomizations.
func copied(t *testing.T, kustomization, component string) string {
	t.Helper()
	dir := t.TempDir()
	sh(t, "cp -rL kustomization.yaml k8s "+dir)
	file := filepath.Join(dir, kustomization)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^  # (- ` + regexp.QuoteMeta(component) + `)\b`)
	if !line.Match(text) {
		t.Fatalf("%s has no line for %s", kustomization, component)
	}
	if err := os.WriteFile(file, line.ReplaceAll(text, []byte("  $1")), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func deleted(t *testing.T) {
	sh(t, remove)
	nothingLeft(t)
}

// nothingLeft looks for what is ours in all that the API server has.
func nothingLeft(t *testing.T) {
	t.Helper()
	eventually(t, time.Minute, "nothing is left", func() error {
		if out, err := output("kubectl", "get", "namespace", monitoring); err == nil {
			return fmt.Errorf("namespace %s is still there:\n%s", monitoring, out)
		}
		kinds, err := output("kubectl", "api-resources", "--verbs=list", "-o", "name")
		if err != nil {
			return err
		}
		ours := "app in (prometheus,grafana,gpu-exporter,vllm-gateway)"
		all := strings.Join(strings.Fields(kinds), ",")
		out, err := output("bash", "-c", "kubectl get "+all+" -A -l '"+ours+"' --ignore-not-found -o name 2>/dev/null") // of kinds that are deprecated
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if strings.TrimSpace(out) != "" {
			return fmt.Errorf("still there:\n%s", out)
		}
		return nil
	})
}

// ready waits until all three workloads are rolled out.
func ready(t *testing.T) {
	t.Helper()
	for _, workload := range []string{"deployment/prometheus", "deployment/grafana", "daemonset/gpu-exporter"} {
		if out, err := output("kubectl", "rollout", "status", "-n", monitoring, workload, "--timeout=120s"); err != nil {
			t.Fatalf("%s does not get ready: %v\n%s\n%s", workload, err, out, state())
		}
	}
}

// --- the guide --------------------------------------------------------------

// verified: what kubectl prints is what the guide says, and nothing else.
func verified(t *testing.T) {
	guideSays(t, "Step 2: Verify the deployment")
	for what, want := range map[string]int{"pods": 3, "svc": 2} {
		if out := sh(t, "kubectl get "+what+" -n vllm-monitoring --no-headers"); *local && strings.Count(out, "\n") != want {
			t.Errorf("the guide has %d %s:\n%s", want, what, out)
		}
	}
}

func troubleshooting(t *testing.T) {
	if *local {
		guideSays(t, "Prometheus does not scrape the gateway")
		sh(t, "curl -sf http://127.0.0.1:9000/health")
		sh(t, "curl -sf http://127.0.0.1:8000/health")
	}
	guideSays(t, "GPU metrics do not appear")
}

// accessed: what the guide forwards can be reached.
func accessed(t *testing.T) {
	for heading, url := range map[string]string{"Prometheus": "http://localhost:19090/-/ready", "Grafana": "http://localhost:13000/api/health"} {
		guideSays(t, heading)
		eventually(t, 20*time.Second, url, func() error {
			_, err := get(url)
			return err
		})
	}
}

// --- what is seen -----------------------------------------------------------

// hostGateway starts what the guide has on the host.
func hostGateway(t *testing.T) {
	if !*local {
		t.Skip("the node is not this machine")
	}
	guideSays(t, "Step 3: Start the vLLM gateway")
	eventually(t, 20*time.Second, "the gateway is usable", func() error {
		_, err := get("http://127.0.0.1:9000/health")
		return err
	})
	for range 5 {
		if err := stream(http.DefaultClient, "http://127.0.0.1:9000", ""); err != nil {
			t.Fatal(err)
		}
	}
}

func gpus(t *testing.T) {
	// Without a driver it is up, ready, and has nothing to show.
	eventually(t, time.Minute, "the exporter is read, and shows no GPU", func() error {
		if got := query(t, `min(up{job="gpu-exporter"}) unless on () nvidia_gpu_duty_cycle`); got != "1" {
			return fmt.Errorf("up is %q", got)
		}
		return nil
	})
	sh(t, "kubectl apply -f k8s/testdata/driver.yaml")
	sh(t, "kubectl rollout status daemonset/fake-driver --timeout=60s")
	sh(t, "kubectl patch -n vllm-monitoring daemonset gpu-exporter --patch-file k8s/testdata/gpu-exporter-patch.yaml")
	ready(t)
}

// targets holds the list of Prometheus's targets to what runs.
func targets(t *testing.T) {
	want := []string{
		"gpu-exporter " + nodes(t)[0],
		"prometheus 127.0.0.1:9090",
		"vllm 127.0.0.1:8000",
		"vllm-gateway 127.0.0.1:9000",
	}
	if !*local {
		want = want[:2]
	}
	targetsAre(t, want, func(line string) bool {
		return *local || !strings.Contains(line, "127.0.0.1:8000") && !strings.Contains(line, "127.0.0.1:9000")
	})
}

// targetsAre waits until the targets, as "job instance", are these and all up.
func targetsAre(t *testing.T, want []string, count func(string) bool) {
	t.Helper()
	eventually(t, time.Minute, "all targets up", func() error {
		var got []string
		for _, target := range activeTargets(t) {
			line := target.Labels["job"] + " " + target.Labels["instance"]
			if !count(line) {
				continue
			}
			if target.Health != "up" {
				line += " is " + target.Health + " at " + target.URL + ": " + target.LastError
			}
			got = append(got, line)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("targets are\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
		return nil
	})
}

// series asks for the guide's ten, through port 30090 of the node.
func series(t *testing.T) {
	names := []string{"nvidia_gpu_duty_cycle", "nvidia_gpu_memory_used_bytes", "nvidia_gpu_memory_total_bytes", "nvidia_gpu_temperature", "nvidia_gpu_power_usage_milliwatts"}
	if *local {
		names = append(names, "gateway_time_to_first_token_seconds_count", "gateway_tokens_per_second_count", "gateway_requests_total", "gateway_rps", "gateway_queue_depth")
	}
	for _, name := range names {
		eventually(t, 30*time.Second, name, func() error {
			if query(t, name) == "" {
				return fmt.Errorf("no sample of %s", name)
			}
			return nil
		})
	}
	if got, want := query(t, "sum(nvidia_gpu_duty_cycle)"), strconv.Itoa((42+97)*len(nodes(t))); got != want {
		t.Errorf("sum of nvidia_gpu_duty_cycle is %s; the fake says %s", got, want)
	}
	if !*local {
		return
	}
	if got := query(t, `sum(gateway_requests_total)`); got != "5" {
		t.Errorf("gateway_requests_total is %s after 5 requests", got)
	}
	// The state line is recorded from both.
	if query(t, "gateway:diagnosis") == "" {
		t.Error("no sample of gateway:diagnosis")
	}
}

func rights(t *testing.T) {
	as := "--as=system:serviceaccount:vllm-monitoring:prometheus"
	for question, want := range map[string]string{
		"list pods -A": "yes", "watch pods -A": "yes",
		"list secrets -A": "no", "list nodes -A": "no", "create pods -n vllm-monitoring": "no", "list configmaps -n vllm-monitoring": "no",
	} {
		out, _ := output("bash", "-c", "kubectl auth can-i "+question+" "+as+" 2>/dev/null") // "no" is exit code 1
		if got := strings.TrimSpace(out); got != want {
			t.Errorf("Prometheus may %s: %s, want %s", question, got, want)
		}
	}
}

// rules asks Prometheus for the alerts that the files have.
func rules(t *testing.T) {
	var want []string
	for _, file := range []string{"../alerts/alerts.yml", "../alerts/recording.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)- (?:alert|record): (\S+)`).FindAllStringSubmatch(string(text), -1) {
			want = append(want, m[1])
		}
	}
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	eventually(t, time.Minute, "all rules evaluated", func() error {
		ask(t, prometheus(t)+"/api/v1/rules", &answer)
		var got []string
		for _, g := range answer.Data.Groups {
			for _, r := range g.Rules {
				if r.Health != "ok" {
					return fmt.Errorf("rule %s is %q: %s", r.Name, r.Health, r.LastError)
				}
				got = append(got, r.Name)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if len(want) == 0 || !slices.Equal(got, want) {
			return fmt.Errorf("rules are %v, want %v", got, want)
		}
		return nil
	})
}

// grafana asks what Grafana makes of its provisioned files, as the administrator.
func grafana(t *testing.T) {
	base := strings.Replace(grafanaURL(t), "http://", "http://admin:admin@", 1)
	var health struct{ Status, Message string }
	eventually(t, time.Minute, "the data source works", func() error {
		ask(t, base+"/api/datasources/uid/prometheus/health", &health)
		if health.Status != "OK" {
			return fmt.Errorf("%+v", health)
		}
		return nil
	})
	var board struct {
		Dashboard struct{ Title string }
	}
	if ask(t, base+"/api/dashboards/uid/vllm-gateway", &board); board.Dashboard.Title != "vLLM Gateway" {
		t.Errorf("dashboard: %+v", board)
	}
	var found []struct{ UID, Title string }
	if ask(t, base+"/api/v1/provisioning/alert-rules", &found); len(found) != 1 || found[0].Title != "GPU Utilization > 90 %" {
		t.Errorf("alert rules: %+v", found)
	}
	if _, err := get(strings.Replace(base, "admin:admin", "admin:wrong", 1) + "/api/dashboards/uid/vllm-gateway"); err == nil {
		t.Error("a wrong password opens Grafana")
	}
}

func remoteWrite(t *testing.T) { written(t, "written_from_outside", "42") }

// written sends a sample by remote write, and reads it back.
func written(t *testing.T, name, value string) {
	t.Helper()
	metrics := filepath.Join(t.TempDir(), "metrics")
	if err := os.WriteFile(metrics, []byte("# TYPE "+name+" gauge\n"+name+" "+value+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := output(program("promtool"), "push", "metrics", prometheus(t), metrics); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := query(t, name); got != value {
		t.Errorf("written %s, read %q", value, got)
	}
}

// --- changes ----------------------------------------------------------------

// changed edits ConfigMaps, and looks at what the same pods make of it. A node has
// new files after a minute or two.
func changed(t *testing.T) {
	before := pods(t, monitoring, "app=prometheus")
	edit := func(name, old, new string) {
		t.Helper()
		text := sh(t, "kubectl get configmap -n vllm-monitoring "+name+" -o json")
		if !strings.Contains(text, old) {
			t.Fatalf("ConfigMap %s has no %q", name, old)
		}
		kubectlWith(t, "replace", strings.Replace(text, old, new, 1))
	}
	config := func() string {
		var answer struct{ Data struct{ YAML string } }
		ask(t, prometheus(t)+"/api/v1/status/config", &answer)
		return answer.Data.YAML
	}
	edit("prometheus-config", "sample_limit: 50000", "sample_limit: 49999")
	eventually(t, 3*time.Minute, "Prometheus has the changed configuration", func() error {
		if !strings.Contains(config(), "sample_limit: 49999") {
			return fmt.Errorf("it still has the old one")
		}
		return nil
	})

	// A mistake is not loaded, and shows.
	edit("prometheus-config", "sample_limit: 49999", "sample_limlt: 1")
	eventually(t, 3*time.Minute, "Prometheus tells of the mistake", func() error {
		if got := query(t, "prometheus_config_last_reload_successful"); got != "0" {
			return fmt.Errorf("prometheus_config_last_reload_successful is %s", got)
		}
		return nil
	})
	if !strings.Contains(config(), "sample_limit: 49999") {
		t.Error("a wrong configuration was loaded")
	}
	sh(t, "kubectl apply -f k8s/prometheus/configmap.yaml")
	eventually(t, 3*time.Minute, "Prometheus is back at the first configuration", func() error {
		if !strings.Contains(config(), "sample_limit: 50000") || query(t, "prometheus_config_last_reload_successful") != "1" {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	if after := pods(t, monitoring, "app=prometheus"); !slices.Equal(before, after) {
		t.Errorf("it took another pod: %v, then %v", before, after)
	}
}

func restarts(t *testing.T) {
	for _, workload := range []string{"deployment/prometheus", "deployment/grafana", "daemonset/gpu-exporter"} {
		_, app, _ := strings.Cut(workload, "/")
		before := pods(t, monitoring, "app="+app)
		sh(t, "kubectl rollout restart -n vllm-monitoring "+workload)
		if out, err := output("kubectl", "rollout", "status", "-n", monitoring, workload, "--timeout=180s"); err != nil {
			t.Fatalf("%s does not come back: %v\n%s\n%s", workload, err, out, state())
		}
		for _, pod := range pods(t, monitoring, "app="+app) {
			if slices.Contains(before, pod) {
				t.Errorf("%s was not restarted", pod)
			}
		}
	}
	targets(t)
}

// volumeClaims adds the component "persistent". Where nobody serves claims, it makes
// volumes on this machine that fit them.
func volumeClaims(t *testing.T) {
	classes := sh(t, "kubectl get storageclass -o name")
	if classes == "" || strings.HasPrefix(classes, "No resources") {
		if !*local {
			t.Skip("the cluster has no StorageClass")
		}
		localVolumes(t)
	}
	with := kustomizationWith(t, "persistent")
	sh(t, "kubectl apply -k "+with)
	ready(t)
	written(t, "kept", "7")
	// To the disk: a pod that is deleted writes its log out, one that is killed not.
	sh(t, "kubectl delete pod -n vllm-monitoring -l app=prometheus")
	ready(t)
	eventually(t, 30*time.Second, "the new pod has what the old one was told", func() error {
		if got := query(t, "last_over_time(kept[10m])"); got != "7" {
			return fmt.Errorf("kept is %q", got)
		}
		return nil
	})
	// What was there before is as it was, but for the claims.
	sh(t, "kubectl apply -f k8s/ && kubectl delete --ignore-not-found -n vllm-monitoring pvc prometheus-data grafana-data --wait=false")
	ready(t)
}

func localVolumes(t *testing.T) {
	for name, size := range map[string]string{"prometheus-data": "10Gi", "grafana-data": "1Gi"} {
		dir := filepath.Join(t.TempDir(), name)
		// Whoever makes a volume gives it to the pod's group; here nobody does.
		if err := errors.Join(os.MkdirAll(dir, 0o777), os.Chmod(dir, 0o777)); err != nil {
			t.Fatal(err)
		}
		for parent := filepath.Dir(dir); parent != os.TempDir(); parent = filepath.Dir(parent) {
			os.Chmod(parent, 0o755)
		}
		volume := map[string]any{
			"apiVersion": "v1", "kind": "PersistentVolume",
			"metadata": map[string]any{"name": "vllm-gateway-test-" + name},
			"spec": map[string]any{
				"capacity": map[string]string{"storage": size}, "accessModes": []string{"ReadWriteOnce"},
				"persistentVolumeReclaimPolicy": "Retain",
				"claimRef":                      map[string]string{"namespace": monitoring, "name": name},
				"hostPath":                      map[string]string{"path": dir},
			},
		}
		text, err := json.Marshal(volume)
		if err != nil {
			t.Fatal(err)
		}
		kubectlWith(t, "create", string(text))
		t.Cleanup(func() {
			output("kubectl", "delete", "--ignore-not-found", "--wait=false", "pv", "vllm-gateway-test-"+name)
		})
	}
}

// --- the gateway in the cluster ----------------------------------------------

// clusterGateway stands in a namespace that takes only pods without privileges.
func clusterGateway(t *testing.T) {
	sh(t, "kubectl create namespace "+serving)
	sh(t, "kubectl label namespace "+serving+" pod-security.kubernetes.io/enforce=restricted")
	sh(t, "kubectl apply -n "+serving+" -f k8s/gateway/ -f k8s/testdata/vllm.yaml")
	eventually(t, 2*time.Minute, "two gateways are ready", func() error {
		if got := readyPods(t, serving, "app=vllm-gateway"); len(got) != 2 {
			return fmt.Errorf("ready: %v\n%s", got, state())
		}
		return nil
	})
	eventually(t, time.Minute, "the autoscaler finds the Deployment", func() error {
		return condition("hpa/vllm-gateway", "AbleToScale")
	})
	eventually(t, time.Minute, "one gateway may be missing", func() error {
		if got, err := output("kubectl", "get", "pdb", "-n", serving, "vllm-gateway", "-o", "jsonpath={.status.disruptionsAllowed}"); err != nil || got != "1" {
			return fmt.Errorf("disruptionsAllowed is %q, %v", got, err)
		}
		return nil
	})
	want := []string{"vllm vllm-0.vllm:8000", "vllm vllm-1.vllm:8000"}
	for _, ip := range strings.Fields(sh(t, "kubectl get pods -n "+serving+" -l app=vllm-gateway -o jsonpath='{.items[*].status.podIP}'")) {
		want = append(want, "vllm-gateway "+net.JoinHostPort(ip, "9000"))
	}
	slices.Sort(want)
	targetsAre(t, want, func(line string) bool {
		return strings.HasPrefix(line, "vllm") && !strings.Contains(line, "127.0.0.1")
	})
	// The engine's series are of the backend that the gateway knows by that name.
	eventually(t, 30*time.Second, "backend and instance are one", func() error {
		if got := query(t, `count(count by (backend) (gateway_backend_up{namespace="`+serving+`"}) and on (backend) label_replace(vllm:num_requests_running, "backend", "$1", "instance", "(.+)"))`); got != "2" {
			return fmt.Errorf("%q backends are instances of vLLM, want 2", got)
		}
		return nil
	})
}

func condition(object, kind string) error {
	got, err := output("kubectl", "get", "-n", serving, object, "-o", `jsonpath={.status.conditions[?(@.type=="`+kind+`")]}`)
	if err != nil || !strings.Contains(got, `"status":"True"`) {
		return fmt.Errorf("%s of %s: %s, %v", kind, object, got, err)
	}
	return nil
}

// --- tools ------------------------------------------------------------------

// sh runs a script as a user would, in the repository's root.
func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := output("bash", "-euo", "pipefail", "-c", script)
	if err != nil {
		t.Fatalf("%s\n%v\n%s\n%s", strings.TrimSpace(script), err, out, state())
	}
	return out
}

func output(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// kubectlWith hands an object to kubectl.
func kubectlWith(t *testing.T, verb, object string) {
	t.Helper()
	cmd := exec.Command("kubectl", verb, "-f", "-")
	cmd.Stdin = strings.NewReader(object)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// state is what one would look at next.
func state() string {
	out, _ := output("bash", "-c", `
for ns in `+monitoring+" "+serving+" "+keyed+`; do
  kubectl get pods -n $ns -o wide
  kubectl get events -n $ns --field-selector type!=Normal --sort-by=.lastTimestamp | tail -8
  for pod in $(kubectl get pods -n $ns --no-headers 2>/dev/null | awk '$2 !~ /^([0-9]+)\/\1$/ {print $1}'); do
    echo "--- $pod"; kubectl logs -n $ns $pod --tail 10
  done
done 2>&1`)
	return out
}

// eventually looks again and again: a cluster takes its time for everything.
func eventually(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(250 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
	}
}

func contains(t *testing.T, what, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("%s has no %q:\n%s", what, want, text)
	}
}

// program is one of those in the folder of our programs.
func program(name string) string {
	path, err := filepath.Abs(filepath.Join(*bin, name))
	if err != nil {
		panic(err)
	}
	return path
}

func get(url string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.300s", url, resp.Status, body)
	}
	return string(body), err
}

// ask is get for JSON.
func ask(t *testing.T, url string, into any) {
	t.Helper()
	eventually(t, 30*time.Second, "an answer of "+url, func() error {
		body, err := get(url)
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(body), into)
	})
}

func nodes(t *testing.T) []string {
	t.Helper()
	return strings.Fields(sh(t, "kubectl get nodes -o jsonpath='{.items[*].metadata.name}'"))
}

func nodePort(t *testing.T, port string) string {
	t.Helper()
	ip := sh(t, `kubectl get nodes -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}'`)
	return "http://" + net.JoinHostPort(ip, port)
}

func prometheus(t *testing.T) string { t.Helper(); return nodePort(t, "30090") }
func grafanaURL(t *testing.T) string { t.Helper(); return nodePort(t, "30300") }

// query is the value of the first sample that answers; "" if there is none.
func query(t *testing.T, expr string) string {
	t.Helper()
	var answer struct {
		Data struct{ Result []struct{ Value []any } }
	}
	ask(t, prometheus(t)+"/api/v1/query?query="+url.QueryEscape(expr), &answer)
	if len(answer.Data.Result) == 0 {
		return ""
	}
	return answer.Data.Result[0].Value[1].(string)
}

type target struct {
	Labels    map[string]string
	URL       string `json:"scrapeUrl"`
	Health    string
	LastError string
}

func activeTargets(t *testing.T) []target {
	t.Helper()
	var answer struct {
		Data struct{ ActiveTargets []target }
	}
	ask(t, prometheus(t)+"/api/v1/targets?state=active", &answer)
	return answer.Data.ActiveTargets
}

func pods(t *testing.T, namespace, selector string) []string {
	t.Helper()
	return strings.Fields(sh(t, "kubectl get pods -n "+namespace+" -l "+selector+" --field-selector status.phase=Running -o jsonpath='{.items[*].metadata.name}'"))
}

func readyPods(t *testing.T, namespace, selector string) []string {
	t.Helper()
	return strings.Fields(sh(t, "kubectl get pods -n "+namespace+" -l "+selector+` -o jsonpath='{range .items[?(@.status.containerStatuses[0].ready==true)]}{.metadata.name} {end}'`))
}
