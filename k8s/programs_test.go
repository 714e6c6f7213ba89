package k8s

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestPrograms holds the manifests against the programs themselves: their flags,
// their defaults, their answers.
func TestPrograms(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "./cmd/...")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for name, test := range map[string]func(*testing.T, string){
		"ports": defaultPorts, "probes": probesAnswer, "ready": gatewayIsReady, "grace": gatewayDrainsInTime, "policy": policyLetsTheGatewayWork, "file": gatewayGoesByItsFile,
	} {
		t.Run(name, func(t *testing.T) { test(t, bin) })
	}
}

// ourPrograms are the objects that run them.
func ourPrograms(t *testing.T) []object {
	t.Helper()
	return slices.DeleteFunc(workloads(append(stack(t), gateway(t)...)), func(o object) bool { return !strings.HasPrefix(container(t, o).Image, imageConstant(t, "registry")) })
}

// defaultOf is what the program's --help says of a flag: "(:9000)".
func defaultOf(t *testing.T, bin, name, flag string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin, name), "--help").Output()
	if err != nil {
		t.Fatalf("%s --help: %v", name, err)
	}
	help := strings.Join(strings.Fields(string(out)), " ")
	_, help, found := strings.Cut(help, " --"+flag+"=")
	help, _, _ = strings.Cut(help, " --")
	value := regexp.MustCompile(`\(([^$][^)]*)\)`).FindStringSubmatch(help)
	if !found || value == nil {
		t.Fatalf("%s --help tells no default of --%s", name, flag)
	}
	return value[1]
}

// port is the number after the last colon.
func port(t *testing.T, address string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A program listens where its container's port is, and its probes ask.
func defaultPorts(t *testing.T, bin string) {
	for _, o := range ourPrograms(t) {
		c := container(t, o)
		listen := flagOf(c.Args, "listen")
		if listen == "" {
			listen = defaultOf(t, bin, o.GetName(), "listen")
		}
		want := port(t, listen)
		if len(c.Ports) != 1 || fmt.Sprint(c.Ports[0].ContainerPort) != want {
			t.Errorf("%v: container ports %+v, and %s listens on %s", o, c.Ports, o.GetName(), want)
		}
		if p, ok := o.template().Annotations["prometheus.io/port"]; ok && p != want {
			t.Errorf("%v: annotation prometheus.io/port: %q, and %s listens on %s", o, p, o.GetName(), want)
		}
	}
	for _, o := range workloads(append(stack(t), gateway(t)...)) {
		c := container(t, o)
		for what, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
			if probe == nil {
				continue
			}
			if _, ok := portOf(o.template(), probe.HTTPGet.Port.String()); !ok {
				t.Errorf("%v: the %sProbe asks port %q, which the container does not have", o, what, probe.HTTPGet.Port.String())
			}
		}
	}
}

// A pod whose backends are out of reach, or whose GPUs, is alive: it starts with the
// manifest's arguments, and the probe's path gives 200.
func probesAnswer(t *testing.T, bin string) {
	for _, o := range ourPrograms(t) {
		c := container(t, o)
		at := launch(t, bin, o.GetName(), c.Args)
		if got := status(t, at+c.LivenessProbe.HTTPGet.Path); got != http.StatusOK {
			t.Errorf("%v: the livenessProbe's path %s gives %d, want 200", o, c.LivenessProbe.HTTPGet.Path, got)
		}
		if o.GetName() == "vllm-gateway" {
			continue // gatewayIsReady
		}
		if got := status(t, at+c.ReadinessProbe.HTTPGet.Path); got != http.StatusOK {
			t.Errorf("%v: the readinessProbe's path %s gives %d, want 200", o, c.ReadinessProbe.HTTPGet.Path, got)
		}
	}
}

// A gateway is ready when a vLLM server is, and not before.
func gatewayIsReady(t *testing.T, bin string) {
	sim := launch(t, bin, "vllm-sim", nil)
	c := find[*appsv1.Deployment](t, gateway(t), "vllm-gateway").Spec.Template.Spec.Containers[0]
	args := slices.DeleteFunc(slices.Clone(c.Args), func(a string) bool { return strings.HasPrefix(a, "--backend=") })
	for backend, want := range map[string]int{sim: http.StatusOK, "http://127.0.0.1:1": http.StatusServiceUnavailable} {
		at := launch(t, bin, "vllm-gateway", append(args, "--backend="+backend))
		got := 0
		for end := time.Now().Add(10 * time.Second); got != want && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			got = status(t, at+c.ReadinessProbe.HTTPGet.Path)
		}
		if got != want {
			t.Errorf("before %s, the gateway's readinessProbe, %s, gives %d, want %d", backend, c.ReadinessProbe.HTTPGet.Path, got, want)
		}
	}
}

// What is killed in the middle of its drain has cut streams. And for some seconds
// after SIGTERM, nodes that have not heard of it yet send new connections.
func gatewayDrainsInTime(t *testing.T, bin string) {
	for components, all := range gateways(t) {
		drainsInTime(t, bin, components, find[*appsv1.Deployment](t, all, "vllm-gateway").Spec.Template.Spec)
	}
}

// gateways are those of k8s/gateway, by the components.
func gateways(t *testing.T) map[string][]object {
	t.Helper()
	return map[string][]object{"no component": gateway(t), "gateway-config": renderGateway(t, "gateway-config")}
}

func drainsInTime(t *testing.T, bin, components string, p corev1.PodSpec) {
	t.Helper()
	c := p.Containers[0]
	value := func(flag string) time.Duration {
		text := flagOf(c.Args, flag)
		if text == "" {
			text = defaultOf(t, bin, "vllm-gateway", flag)
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("--%s=%s: %v", flag, text, err)
		}
		return d
	}
	delay, drain := value("drain-delay"), value("drain-timeout")
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil && c.Lifecycle.PreStop.Sleep != nil {
		delay += time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	}
	if delay < 5*time.Second {
		t.Errorf("Deployment vllm-gateway with %s: its port closes %v after SIGTERM, want --drain-delay of at least 5s", components, delay)
	}
	grace := 30 * time.Second // Kubernetes' default
	if p.TerminationGracePeriodSeconds != nil {
		grace = time.Duration(*p.TerminationGracePeriodSeconds) * time.Second
	}
	if least := delay + drain + 5*time.Second; grace < least {
		t.Errorf("Deployment vllm-gateway with %s: terminationGracePeriodSeconds is %v, want at least %v: %v before its port closes, --drain-timeout %v, and 5s to end", components, grace, least, delay, drain)
	}
}

// The NetworkPolicy lets in what the gateway listens for, and out to its backends'
// ports, to vLLM's own, and to DNS.
func policyLetsTheGatewayWork(t *testing.T, bin string) {
	for components, all := range gateways(t) {
		policyLets(t, bin, components, all)
	}
}

func policyLets(t *testing.T, bin, components string, all []object) {
	t.Helper()
	c := find[*appsv1.Deployment](t, all, "vllm-gateway").Spec.Template.Spec.Containers[0]
	policy := find[*networkingv1.NetworkPolicy](t, all, "vllm-gateway")
	var in, out []string
	for _, r := range policy.Spec.Ingress {
		in = append(in, portsOf(r.Ports)...)
	}
	for _, r := range policy.Spec.Egress {
		out = append(out, portsOf(r.Ports)...)
	}
	var ports []string
	for _, p := range c.Ports {
		ports = append(ports, fmt.Sprint("TCP ", p.ContainerPort))
	}
	if slices.Sort(in); !slices.Equal(in, slices.Sorted(slices.Values(ports))) {
		t.Errorf("with %s, NetworkPolicy vllm-gateway lets in %q, want %q", components, in, ports)
	}
	backends := []string{defaultOf(t, bin, "vllm-gateway", "backend")}
	for _, a := range c.Args {
		if b, ok := strings.CutPrefix(a, "--backend="); ok {
			backends = append(backends, b)
		}
	}
	if flagOf(c.Args, "config") != "" {
		for _, b := range inGatewayFile(t, all).Backends {
			backends = append(backends, b.URL)
		}
	}
	want := []string{"TCP 53", "UDP 53"}
	for _, b := range backends {
		u, err := url.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, "TCP "+u.Port())
	}
	slices.Sort(want)
	for _, w := range slices.Compact(want) {
		if !slices.Contains(out, w) {
			t.Errorf("with %s, NetworkPolicy vllm-gateway lets out to %q, and not to %s; backends are %q", components, out, w, backends)
		}
	}
}

func portsOf(ports []networkingv1.NetworkPolicyPort) []string {
	var all []string
	for _, p := range ports {
		protocol, number := corev1.ProtocolTCP, intstr.IntOrString{}
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if p.Port != nil {
			number = *p.Port
		}
		all = append(all, fmt.Sprint(protocol, " ", number.String()))
	}
	return all
}

var listening = regexp.MustCompile(`listen"?[:=]"?([0-9.]+:\d+)`)

// launch runs a program with its manifest's arguments, but on a port of its own,
// until the test has ended, and gives its URL.
func launch(t *testing.T, bin, name string, args []string) string {
	t.Helper()
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return strings.HasPrefix(a, "--listen=") })
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, name), append(args, "--listen=127.0.0.1:0")...)
	cmd.Env = []string{} // what the shell of a developer sets is not in a pod
	log, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() })
	var said []string
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if at := listening.FindStringSubmatch(lines.Text()); at != nil {
			go func() {
				for lines.Scan() {
				}
			}()
			return "http://" + at[1]
		}
		said = append(said, lines.Text())
	}
	t.Fatalf("%s %s does not start:\n%s", name, strings.Join(args, " "), strings.Join(said, "\n"))
	return ""
}

func status(t *testing.T, url string) int {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

// freeAddress is one of this machine that was free just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
