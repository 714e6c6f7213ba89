package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/commandline"
)

// binary is the real program, built once, where a test wants it. TestMain takes
// its folder away.
var (
	folder string
	binary = sync.OnceValue(func() string {
		path := filepath.Join(folder, "vllm-stack")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			panic(err)
		}
		return path
	})
)

func TestMain(m *testing.M) {
	runtime.KeepAlive(main) // else go test takes its result from before, when only what main calls has changed
	var err error
	if folder, err = os.MkdirTemp("", "vllm-stack"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(folder)
	os.Exit(code)
}

// process is a running stack on ports of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	args   []string
	out    *lockedBuffer
	ended  chan error
	began  time.Time
	greets time.Duration // how long it took to say where everything is

	gateway, prometheus, dashboard string // http://host:port
}

// start runs the stack and waits until it says where everything is.
func start(t *testing.T, data string, args ...string) *process {
	t.Helper()
	free := freeAddrs(t, 5)
	p := &process{t: t, gateway: "http://" + free[0], prometheus: "http://" + free[1], dashboard: "http://" + free[2]}
	p.args = append([]string{"--data", data, "--listen-gateway", free[0], "--listen-prometheus", free[1], "--listen-dashboard", free[2],
		"--listen-simulator", free[3], "--listen-gpu", free[4]}, args...)
	p.run()
	return p
}

func (p *process) run() {
	p.t.Helper()
	p.out = &lockedBuffer{}
	p.cmd = exec.Command(binary(), p.args...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.ended = make(chan error, 1)
	go func() { p.ended <- p.cmd.Wait() }()
	p.t.Cleanup(func() { p.cmd.Process.Kill() })
	p.eventually("it says where everything is", func() bool { return strings.Contains(p.out.String(), "Ctrl-C ends it.") })
	p.greets = time.Since(p.began)
}

// eventually waits for something that a running process does in its own time.
func (p *process) eventually(what string, is func() bool) {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("not within 30 s: %s\n%s", what, p.out.String())
		}
	}
}

// kill ends the process as kill -9 does.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// query is what Prometheus finds: series and value, by the given label.
func (p *process) query(expr, label string) map[string]string {
	p.t.Helper()
	var answer struct {
		Status string
		Data   struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	resp, err := http.Get(p.prometheus + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Status != "success" {
		p.t.Fatalf("%s: %v, %+v", expr, err, answer)
	}
	found := map[string]string{}
	for _, r := range answer.Data.Result {
		found[r.Metric[label]] = r.Value[1].(string)
	}
	return found
}

// The history of a stack that was killed is there when it starts again.
func TestHistorySurvivesKill(t *testing.T) {
	p := start(t, t.TempDir(), "--no-demo")
	p.eventually("two scrapes of every job", func() bool {
		for _, job := range []string{"vllm-gateway", "vllm", "gpu-exporter", "prometheus"} {
			if n := p.query(`count_over_time(up{job="`+job+`"}[5m])`, "job")[job]; n == "" || n == "1" {
				return false
			}
		}
		return true
	})
	before := time.Now()
	p.kill()
	p.run()
	history := fmt.Sprintf(`count_over_time(up[1m] @ %.3f)`, float64(before.UnixMilli())/1000)
	got := p.query(history, "job")
	if n, _ := strconv.Atoi(got["vllm-gateway"]); len(got) != 4 || n < 2 {
		t.Errorf("after kill -9 and a start the history is %v", got)
	}
	if p.greets > time.Second {
		t.Logf("it took %v to start", p.greets) // no test fails on a timing
	}
}

// A stack before servers that are away comes up, shows them as down, and sees
// them come. Nothing simulated runs.
func TestBackendsMayComeLater(t *testing.T) {
	addr := freeAddrs(t, 1)[0]
	p := start(t, t.TempDir(), "--backend", "http://"+addr)
	p.eventually("the backend is down for Prometheus", func() bool { return p.query(`up{job="vllm"}`, "instance")[addr] == "0" })
	p.eventually("the backend is down for the gateway", func() bool { return p.query(`gateway_backend_up`, "backend")[addr] == "0" })
	resp, err := http.Post(p.gateway+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"m","messages":[]}`))
	if err != nil || resp.StatusCode != http.StatusBadGateway {
		t.Errorf("%v %+v; want 502", err, resp)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "vllm:num_requests_running 0\n")
	})}}
	srv.Start()
	defer srv.Close()
	p.eventually("the backend is up for Prometheus", func() bool { return p.query(`up{job="vllm"}`, "instance")[addr] == "1" })
	p.eventually("the backend is up for the gateway", func() bool { return p.query(`gateway_backend_up`, "backend")[addr] == "1" })

	if got := p.get(p.dashboard + "/about.json"); !strings.Contains(got, `"simulated":false`) || !strings.Contains(got, `"notice":""`) {
		t.Errorf("about: %s", got)
	}
	if got := p.query(`{__name__=~"nvidia_.*", uuid!=""}`, "uuid"); len(got) != 0 {
		t.Errorf("GPU readings without a GPU: %v", got)
	}
	if conn, err := net.Dial("tcp", p.flag("--listen-simulator")); err == nil {
		conn.Close()
		t.Error("somebody listens on --listen-simulator")
	}
}

// A gateway that runs already is shown in place of one of its own, with the servers
// that are named.
func TestGatewayOfOthers(t *testing.T) {
	serve := func(text string) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, text)
		}))
		t.Cleanup(s.Close)
		return s
	}
	gateway, vllm := serve("gateway_caller_requests_total{caller=\"alice\"} 7\n"), serve("vllm:num_requests_running 3\n")
	p := start(t, t.TempDir(), "--gateway", gateway.URL, "--backend", vllm.URL, "--gpu-exporter", vllm.URL)
	p.eventually("the gateway's callers are seen", func() bool {
		return p.query(`gateway_caller_requests_total{job="vllm-gateway"}`, "caller")["alice"] == "7"
	})
	p.eventually("so is the server", func() bool { return len(p.query(`vllm:num_requests_running{job="vllm"}`, "instance")) == 1 })
	if out := p.out.String(); !strings.Contains(out, gateway.URL) || strings.Contains(out, p.gateway) || strings.Contains(out, "not named") {
		t.Errorf("it greets with %s", out)
	}
	if got := p.get(p.dashboard + "/about.json"); !strings.Contains(got, `"simulated":false`) {
		t.Errorf("about: %s", got)
	}
	for _, flag := range []string{"--listen-gateway", "--listen-simulator"} {
		if conn, err := net.Dial("tcp", p.flag(flag)); err == nil {
			conn.Close()
			t.Errorf("somebody listens on %s", flag)
		}
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := <-p.ended; err != nil {
		t.Errorf("exit: %v", err)
	}
}

// Whose servers are not named, is told what that costs.
func TestGatewayOfOthersAlone(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	p := start(t, t.TempDir(), "--gateway", s.URL, "--gpu-exporter", s.URL)
	if out := p.out.String(); !strings.Contains(out, "vLLM        not named") || !strings.Contains(out, "--backend, as the gateway has it") {
		t.Errorf("it greets with %s", out)
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := <-p.ended; err != nil {
		t.Errorf("exit: %v", err)
	}
}

// Before real servers it reads this machine's GPUs, in another process: the
// driver's library is never in the gateway's own. It recovers when that one
// dies, and leaves none behind.
func TestOwnGPUs(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("the fake of the driver's library needs gcc")
	}
	dir := t.TempDir()
	if out, err := exec.Command(gcc, "-shared", "-fPIC", "-o", filepath.Join(dir, "libnvidia-ml.so.1"), "../internal/gpu/testdata/nvml/nvml.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	machine := filepath.Join(dir, "machine")
	os.WriteFile(machine, []byte("driver 570.86.15\ngpu index=0 uuid=GPU-5f0d bus=00000000:01:00.0 util=87 total=25769803776 reserved=408944640 used=21474836480 temp=64 power=312340 name=NVIDIA GeForce RTX 3090\n"), 0o600)
	t.Setenv("LD_LIBRARY_PATH", dir)
	t.Setenv("FAKE_GPUS", machine)
	p := start(t, t.TempDir(), "--backend", "http://127.0.0.1:1")
	if hello := p.out.String(); !strings.Contains(hello, "this machine's") {
		t.Errorf("it says\n%s", hello)
	}
	for series, want := range map[string]string{
		"nvidia_gpu_duty_cycle": "87", "nvidia_gpu_memory_used_bytes": "21474836480", "nvidia_gpu_memory_total_bytes": "25769803776",
		"nvidia_gpu_temperature": "64", "nvidia_gpu_power_usage_milliwatts": "312340", "nvidia_gpu_up": "1",
	} {
		p.eventually(series, func() bool { return p.query(series+`{job="gpu-exporter"}`, "uuid")["GPU-5f0d"] == want })
	}
	worker := p.child()
	for pid, want := range map[int]bool{p.cmd.Process.Pid: false, worker: true} {
		if maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid)); err != nil || strings.Contains(string(maps), "libnvidia-ml") != want {
			t.Errorf("process %d has the driver's library: %v, %v", pid, !want, err)
		}
	}
	syscall.Kill(worker, syscall.SIGKILL)
	p.eventually("another worker reads", func() bool {
		return p.query(`gpu_exporter_collection_failures_total{reason="crash"}`, "job")["gpu-exporter"] == "1"
	})
	p.eventually("it reads again", func() bool { return p.query("gpu_exporter_up", "job")["gpu-exporter"] == "1" })
	if worker = p.child(); worker == 0 {
		t.Fatal("no worker")
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := <-p.ended; err != nil {
		t.Errorf("%v\n%s", err, p.out.String())
	}
	if err := syscall.Kill(worker, 0); err == nil {
		t.Error("the worker is still there")
	}
}

// child is the process's only child; 0 if there is none.
func (p *process) child() int {
	p.t.Helper()
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	var pids []string
	for _, path := range tasks {
		content, _ := os.ReadFile(path)
		pids = append(pids, strings.Fields(string(content))...)
	}
	if len(pids) > 1 {
		p.t.Errorf("children %v", pids)
	}
	pid, _ := strconv.Atoi(strings.Join(pids, ""))
	return pid
}

// SIGTERM ends it in order: a stream that runs comes to its end first.
func TestTermination(t *testing.T) {
	p := start(t, t.TempDir(), "--no-demo")
	p.eventually("the gateway knows its backend", func() bool { return strings.Contains(p.out.String(), "model found") })
	resp, err := http.Post(p.gateway+"/v1/completions", "application/json",
		strings.NewReader(`{"model":"TinyLlama/TinyLlama-1.1B-Chat-v1.0","prompt":"x","stream":true,"max_tokens":200,"min_tokens":200}`))
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(body)), "data: [DONE]") {
		t.Errorf("the stream ended with %v, %q", err, body[max(0, len(body)-200):])
	}
	if err := <-p.ended; err != nil {
		t.Errorf("%v\n%s", err, p.out.String())
	}
}

// What cannot be is said in lines that tell what to do, before anything starts.
func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	at := taken.Addr().String()
	running := start(t, filepath.Join(dir, "used"), "--no-demo")
	free := freeAddrs(t, 5)
	ports := []string{"--listen-gateway", free[0], "--listen-prometheus", free[1], "--listen-dashboard", free[2], "--listen-simulator", free[3], "--listen-gpu", free[4]}
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"two ports taken", []string{"--data", dir, "--listen-gateway", at, "--listen-dashboard", at}, 1,
			[]string{"the port is taken", "--listen-gateway", "--listen-dashboard"}},
		{"all ports taken", []string{"--data", dir, "--listen-gateway", at, "--listen-prometheus", at, "--listen-dashboard", at, "--listen-simulator", at, "--listen-gpu", at}, 1,
			[]string{"the port is taken", "if another vllm-stack is running"}},
		{"folder in use", []string{"--data", filepath.Join(dir, "used")}, 1, []string{"another process uses it", "--data"}},
		{"folder with simulated data", []string{"--data", filepath.Join(dir, "used"), "--backend", "http://a:1"}, 1, []string{"it holds simulated data", "--data"}},
		{"folder is a file", []string{"--data", file}, 1, []string{"not a folder", "--data"}},
		{"a backend that is none", []string{"--data", dir, "--backend", "localhost:8000"}, 2, []string{`backend "localhost:8000"`, "http://"}},
		{"the same backend twice", []string{"--data", filepath.Join(dir, "twice"), "--backend", "http://a:1", "--backend", "http://a:1"}, 2, []string{"named twice"}},
		{"an exporter that is none", []string{"--data", dir, "--backend", "http://a:1", "--gpu-exporter", "box:9835"}, 2, []string{`--gpu-exporter "box:9835"`}},
		{"no address", []string{"--listen-gateway", ""}, 2, []string{"no address to listen on", "--listen-gateway"}},
		{"an empty backend", []string{"--backend", ""}, 2, []string{"--backend", "is empty"}},
		{"one of two backends is empty", []string{"--backend", "http://a:1,"}, 2, []string{"--backend", "is empty"}},
		{"an impossible port", []string{"--backend", "http://a:99999"}, 2, []string{"99999", "65535"}},
		{"GPU port taken", []string{"--data", filepath.Join(dir, "gpu"), "--backend", "http://a:1", "--listen-gpu", at}, 1,
			[]string{"the port is taken", "--listen-gpu", "--gpu-exporter http://" + at}},
		{"an exporter beside simulated cards", []string{"--gpu-exporter", "http://a:9835"}, 2, []string{"--gpu-exporter", "--backend"}},
		{"an exporter twice", []string{"--backend", "http://a:1", "--gpu-exporter", "http://a:9835", "--gpu-exporter", "http://a:9835"}, 2, []string{"named twice"}},
		{"a gateway that is none", []string{"--gateway", "localhost:9000"}, 2, []string{`--gateway "localhost:9000"`, "http://"}},
		{"a demo for a gateway of others", []string{"--gateway", "http://a:9000", "--demo"}, 2, []string{"--demo"}},
		{"a demo for real servers", []string{"--backend", "http://a:1", "--demo"}, 2, []string{"--demo"}},
		{"a password", []string{"--backend", "http://u:SECRET@b"}, 2, []string{`vllm-stack: --backend "…@b": a user name or password`}},
		{"no retention", []string{"--retention", "x"}, 2, []string{`vllm-stack: --retention: "x": write a time such as 12h, 7d or 1y`}},
		{"an address that is none", []string{"--listen-dashboard", "3000"}, 2, []string{`vllm-stack: --listen-dashboard: "3000" is no address to listen on`}},
		{"nowhere to put it", []string{"--data", "/proc/x"}, 1, []string{"vllm-stack: data folder /proc/x: no folder can be made there; move it away, or choose another with --data"}},
		{"short retention", []string{"--retention", "5m"}, 2, []string{"--retention"}},
		{"unknown flag", []string{"--beckend", "x"}, 2, []string{"--backend"}},
	} {
		cmd := exec.Command(binary(), append(ports[:len(ports):len(ports)], c.args...)...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != c.code {
			t.Errorf("%s: exit %d, want %d\n%s", c.name, got, c.code, out)
		}
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: says %q, want %q in it", c.name, out, want)
			}
		}
		if strings.Contains(string(out), "SECRET") {
			t.Errorf("%s: it tells a secret: %s", c.name, out)
		}
		if strings.Contains(string(out), "Ctrl-C ends it") {
			t.Errorf("%s: it greets all the same: %s", c.name, out)
		}
	}
	running.kill()

	unset := exec.Command(binary(), ports...)
	unset.Env = append(os.Environ(), "VLLM_STACK_BACKEND=")
	if out, _ := unset.CombinedOutput(); unset.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "vllm-stack: VLLM_STACK_BACKEND: it is empty") {
		t.Errorf("VLLM_STACK_BACKEND=: exit %d, %s; a simulated server must not stand in for real ones", unset.ProcessState.ExitCode(), out)
	}
}

// What systemd's unit says is for this program, too; the test is beside the unit.
func TestUnit(t *testing.T) {
	for _, file := range []string{"vllm-stack.service", "README.md", "units_test.go"} { // else go test takes its result from before, when only these have changed
		if _, err := os.ReadFile(filepath.Join("..", "systemd", file)); err != nil {
			t.Fatal(err)
		}
	}
	test := exec.Command("go", "test", "-count", "1", "-timeout", "5m", "-v", "-run", "^TestFlagsAndVariablesAreReal$/^vllm-stack$", "./systemd")
	test.Dir = ".."
	test.Env = append(os.Environ(), "GOWORK=off", "VLLM_STACK="+binary())
	if out, err := test.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestFlagsAndVariablesAreReal/vllm-stack") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestHelp(t *testing.T) {
	if err := commandline.Check(program, &flags{}, 32, ".."); err != nil {
		t.Error(err)
	}
}

func (p *process) get(url string) string {
	p.t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(body)
}

// flag is what the process was told for a flag.
func (p *process) flag(name string) string {
	for i, a := range p.args {
		if a == name {
			return p.args[i+1]
		}
	}
	p.t.Fatalf("no %s", name)
	return ""
}

func freeAddrs(t *testing.T, n int) []string {
	t.Helper()
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}
