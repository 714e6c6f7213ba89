//go:build cluster

package k8s

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// keyed is where gateways stand that ask for keys.
const keyed = "vllm-gateway-keys-test"

// configChanges has gateways go by a file that changes, as docs/kubernetes.md has it:
// k8s/gateway with the component gateway-config, before vLLM servers that want a key of
// their own.
func configChanges(t *testing.T) {
	dir := copied(t, "k8s/gateway/Kustomization", "../components/gateway-config")
	alice, aliceHash := newKey(t)
	bob, bobHash := newKey(t)
	const vllmKey = "of-vllm-itself"
	config := func(keys string) {
		t.Helper()
		text, err := os.ReadFile(gatewayFile)
		if err != nil {
			t.Fatal(err)
		}
		ours, _, found := strings.Cut(string(text), "\nkeys:\n")
		if !found {
			t.Fatalf("%s has no keys", gatewayFile)
		}
		ours = strings.ReplaceAll(ours, "# api_key_file: vllm-key", "api_key_file: vllm-key")
		if err := os.WriteFile(filepath.Join(dir, "k8s", gatewayFile), []byte(ours+"\nkeys:\n"+keys), 0o644); err != nil {
			t.Fatal(err)
		}
		sh(t, "kubectl apply -n "+keyed+" -k "+dir+"/k8s/gateway")
	}

	t.Cleanup(func() {
		// As in remove: pods, and whoever makes them anew, before the namespace.
		output("bash", "-c", "kubectl delete -n "+keyed+" deployment,replicaset,statefulset --all; kubectl delete -n "+keyed+" pod --all --force --grace-period=0; kubectl delete namespace "+keyed)
	})
	sh(t, "kubectl create namespace "+keyed)
	sh(t, "kubectl label namespace "+keyed+" pod-security.kubernetes.io/enforce=restricted")
	sh(t, "kubectl create secret generic vllm-gateway -n "+keyed+" --from-literal=vllm-key="+vllmKey)
	slowServers(t, vllmKey)
	config("  - name: alice\n    hash: " + aliceHash + "\n")
	sh(t, "kubectl scale -n "+keyed+" deployment vllm-gateway --replicas=2") // as the autoscaler does, a while later
	var gateways []string
	eventually(t, 2*time.Minute, "two gateways are ready", func() error {
		if gateways = readyPods(t, keyed, "app=vllm-gateway"); len(gateways) != 2 {
			out, _ := output("bash", "-c", "kubectl get pods -n "+keyed+"; kubectl logs -n "+keyed+" -l app=vllm-gateway --tail=5")
			return fmt.Errorf("ready: %v\n%s", gateways, out)
		}
		return nil
	})
	proxy := apiProxy(t)
	at := func(pod string) string {
		return proxy + "/api/v1/namespaces/" + keyed + "/pods/" + pod + ":9000/proxy/v1/"
	}
	opens := func(key string, want int) error {
		for _, pod := range gateways {
			if got := withKey(at(pod)+"models", key); got != fmt.Sprint(want) {
				return fmt.Errorf("%s gives %s, want %d", pod, got, want)
			}
		}
		return nil
	}
	reloaded := func(want int) error {
		for _, pod := range gateways {
			text, err := get(proxy + "/api/v1/namespaces/" + keyed + "/pods/" + pod + ":9100/proxy/metrics")
			if err != nil {
				return err
			}
			if line := fmt.Sprintf("\ngateway_config_last_reload_successful %d\n", want); !strings.Contains(text, line) {
				return fmt.Errorf("%s has no %q", pod, line)
			}
		}
		return nil
	}
	for key, want := range map[string]int{alice: 200, bob: 401, "": 401} {
		if err := opens(key, want); err != nil {
			t.Fatalf("at first, with key %q: %v", key, err)
		}
	}
	// Prometheus finds the port that has them.
	var want []string
	for _, ip := range strings.Fields(sh(t, "kubectl get pods -n "+keyed+" -l app=vllm-gateway -o jsonpath='{.items[*].status.podIP}'")) {
		want = append(want, "vllm-gateway "+net.JoinHostPort(ip, "9100"))
	}
	slices.Sort(want)
	targetsAre(t, want, func(line string) bool { return strings.HasSuffix(line, ":9100") })

	running := map[string]*openStream{}
	for _, pod := range gateways {
		running[pod] = openAt(t, at(pod)+"chat/completions", alice)
	}
	goOn := func(when string) {
		t.Helper()
		for pod, s := range running {
			from := s.tokens.Load()
			eventually(t, 20*time.Second, "the stream of "+pod+" goes on "+when, func() error {
				if n := s.tokens.Load(); n < from+3 {
					return fmt.Errorf("%d events, then %d; it has ended: %v", from, n, s.ended.Load())
				}
				return nil
			})
		}
	}
	goOn("at first")

	began := time.Now()
	config("  - name: alice\n    hash: " + aliceHash + "\n  - name: bob\n    hash: " + bobHash + "\n")
	eventually(t, 3*time.Minute, "bob gets in", func() error { return opens(bob, 200) })
	t.Logf("a key that was put into the ConfigMap opens both gateways after %v", time.Since(began).Round(time.Second/10))
	goOn("with bob's key there")

	// A mistake is not taken, shows, and says where it is.
	began = time.Now()
	config("  - name: carol\n    hsah: " + aliceHash + "\n")
	eventually(t, 3*time.Minute, "the gateways tell of the mistake", func() error { return reloaded(0) })
	t.Logf("and a mistake is told after %v", time.Since(began).Round(time.Second/10))
	for key, want := range map[string]int{alice: 200, bob: 200, "": 401} {
		if err := opens(key, want); err != nil {
			t.Errorf("after a mistake, with key %q: %v", key, err)
		}
	}
	goOn("after a mistake")
	for _, pod := range gateways {
		contains(t, pod+"'s log", sh(t, "kubectl logs -n "+keyed+" "+pod), `no key \"hsah\"`)
	}

	// Nobody takes the file away by mistake.
	if out, err := output("bash", "-c", "kubectl apply -n "+keyed+" -f k8s/gateway/"); err == nil || !strings.Contains(out, "field is immutable") {
		t.Errorf("kubectl apply -f k8s/gateway/ over gateway-config: %v, want a refusal\n%s", err, out)
	}
	for key, want := range map[string]int{alice: 200, "": 401} {
		if err := opens(key, want); err != nil {
			t.Errorf("after kubectl apply -f k8s/gateway/, with key %q: %v", key, err)
		}
	}
	if now := readyPods(t, keyed, "app=vllm-gateway"); !slices.Equal(now, gateways) {
		t.Errorf("it took other pods: %v, then %v", gateways, now)
	}
	if n := sh(t, "kubectl get pods -n "+keyed+" -l app=vllm-gateway -o jsonpath='{.items[*].status.containerStatuses[0].restartCount}'"); n != "0 0" {
		t.Errorf("they were restarted: %s times", n)
	}
}

// slowServers are the vLLM servers of testdata/vllm.yaml, without its way from outside.
// They want a key, and take minutes for an answer.
func slowServers(t *testing.T, key string) {
	t.Helper()
	text, err := os.ReadFile("testdata/vllm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects := strings.Split(string(text), "\n---\n")
	for old, new := range map[string]string{
		"--mean-output-tokens=40":      "--step-base=200ms, --api-key=" + key,
		`prometheus.io/scrape: "true"`: `prometheus.io/scrape: "false"`,
	} {
		if !strings.Contains(objects[0], old) {
			t.Fatalf("testdata/vllm.yaml has no %q", old)
		}
		objects[0] = strings.ReplaceAll(objects[0], old, new)
	}
	file := filepath.Join(t.TempDir(), "vllm.yaml")
	if err := os.WriteFile(file, []byte(objects[0]+"\n---\n"+objects[1]), 0o644); err != nil {
		t.Fatal(err)
	}
	sh(t, "kubectl apply -n "+keyed+" -f "+file)
}

// newKey is one that vllm-gateway hash-key has made.
func newKey(t *testing.T) (key, hash string) {
	t.Helper()
	out, err := exec.Command(program("vllm-gateway"), "hash-key").CombinedOutput()
	found := regexp.MustCompile(`(?s)(vg-\w+).*(sha256:[0-9a-f]{64})`).FindSubmatch(out)
	if err != nil || found == nil {
		t.Fatalf("vllm-gateway hash-key: %v\n%s", err, out)
	}
	return string(found[1]), string(found[2])
}

// apiProxy is a way to each pod by itself, through the API server.
func apiProxy(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "kubectl", "proxy", "--port=0")
	said, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() })
	line, _ := bufio.NewReader(said).ReadString('\n')
	_, at, found := strings.Cut(strings.TrimSpace(line), "Starting to serve on ")
	if !found {
		t.Fatalf("kubectl proxy says %q", line)
	}
	return "http://" + at
}

// withKey is the status of an answer. The API server keeps Authorization to itself.
func withKey(url, key string) string {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	if key != "" {
		r.Header.Set("X-Api-Key", key)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error()
	}
	answer.Body.Close()
	return fmt.Sprint(answer.StatusCode)
}

type openStream struct {
	tokens atomic.Int64
	ended  atomic.Value // why
}

// openAt begins a stream that runs longer than the test wants it.
func openAt(t *testing.T, url, key string) *openStream {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	t.Cleanup(leave)
	body := `{"messages":[{"role":"user","content":"Tell me of the sea."}],"stream":true,"max_tokens":1800,"min_tokens":1800,"ignore_eos":true}`
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Api-Key", key)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 500))
		answer.Body.Close()
		t.Fatalf("%s: %s", answer.Status, text)
	}
	s := &openStream{}
	go func() {
		defer answer.Body.Close()
		lines := bufio.NewScanner(answer.Body)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "data: {") {
				s.tokens.Add(1)
			}
		}
		s.ended.Store(fmt.Sprint("yes, ", lines.Err()))
	}()
	return s
}
