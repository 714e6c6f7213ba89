package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/commandline"
)

// What the tests build once: the command, as it is released, and the fakes.
var binary, libraryDir, fakeSMIDir string

func TestMain(m *testing.M) {
	runtime.KeepAlive(main) // else go test takes its result from before, when only what main calls has changed
	dir, err := os.MkdirTemp("", "gpu-exporter-")
	if err != nil {
		panic(err)
	}
	binary, libraryDir, fakeSMIDir = filepath.Join(dir, name), filepath.Join(dir, "lib"), filepath.Join(dir, "bin")
	os.Mkdir(libraryDir, 0o755)
	const testdata = "../../internal/gpu/testdata/"
	for _, args := range [][]string{
		{"go", "build", "-o", binary, "."},
		{"go", "build", "-o", filepath.Join(fakeSMIDir, "nvidia-smi"), testdata + "nvidia-smi/main.go"},
		{"gcc", "-shared", "-fPIC", "-o", filepath.Join(libraryDir, "libnvidia-ml.so.1"), testdata + "nvml/nvml.c"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "" {
			libraryDir = "" // tests that need it are skipped
		} else if err != nil {
			panic(fmt.Sprintf("%s: %v\n%s", cmd, err, out))
		}
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// machine writes a description of so many GPUs for the fakes.
func machine(t *testing.T, gpus int, more ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "machine")
	describe(t, path, gpus, more...)
	return path
}

func describe(t *testing.T, path string, gpus int, more ...string) {
	t.Helper()
	lines := append([]string{"driver 570.86.15"}, more...)
	for i := range gpus {
		lines = append(lines, fmt.Sprintf("gpu index=%d uuid=GPU-00000000-0000-0000-0000-%012d bus=00000000:%02X:00.0 util=%d memutil=41 total=150754820096 reserved=637534208 used=21474836480 temp=64 power=312340 limit=700000 energy=123456789 sm=1980 mem=2619 reasons=4 corrected=3 uncorrected=0 mig=0 recovery=0 name=NVIDIA H200", i, i, i+1, 80+i%20))
	}
	if err := os.WriteFile(path+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	url   string
	out   *lockedBuffer
	ended chan error
}

// start runs the command before a machine; with an empty path there is none.
func start(t *testing.T, machine string, args ...string) *process {
	t.Helper()
	p := &process{t: t, out: &lockedBuffer{}, ended: make(chan error, 1)}
	p.cmd = command(machine, append([]string{"--listen", "127.0.0.1:0"}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { p.cmd.Process.Kill() })
	until(t, "it is up", func() bool { return strings.Contains(p.out.String(), "gpu-exporter is up") })
	_, addr, _ := strings.Cut(p.out.String(), "listen=")
	addr, _, _ = strings.Cut(addr, " ")
	p.url = "http://" + addr
	return p
}

func command(machine string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = []string{"PATH=/nowhere", "LD_LIBRARY_PATH=/nowhere"}
	if machine != "" {
		cmd.Env = []string{"FAKE_GPUS=" + machine, "LD_LIBRARY_PATH=" + libraryDir, "PATH=" + fakeSMIDir}
	}
	return cmd
}

func (p *process) get(path string) string {
	p.t.Helper()
	resp, err := http.Get(p.url + path)
	if err != nil {
		p.t.Fatalf("%v; its log:\n%s", err, p.out)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return string(body)
}

func (p *process) until(line string) {
	p.t.Helper()
	until(p.t, line, func() bool { return strings.Contains(p.get("/metrics"), "\n"+line+"\n") })
}

func (p *process) exit() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(20 * time.Second):
		p.t.Fatalf("still running after 20 s; its log:\n%s", p.out)
		return nil
	}
}

// children are the pids of a process's children.
func children(pid int) []int {
	var pids []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range tasks {
		content, _ := os.ReadFile(path)
		for field := range strings.FieldsSeq(string(content)) {
			n, _ := strconv.Atoi(field)
			pids = append(pids, n)
		}
	}
	return pids
}

// gone reports whether a process has ended; a zombie has.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := bytes.Cut(stat, []byte(") "))
	return err != nil || bytes.HasPrefix(after, []byte("Z"))
}

// until polls a condition that another process makes true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s, and not yet: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func needsLibrary(t *testing.T) {
	if libraryDir == "" {
		t.Skip("the fake library needs gcc")
	}
}

func TestCommandLine(t *testing.T) {
	needsLibrary(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	two := machine(t, 2)
	lost := machine(t, 2, "fail nvmlDeviceGetPowerUsage 15 1")
	for name, tt := range map[string]struct {
		machine string
		args    []string
		env     string
		code    int
		want    []string
	}{
		"version":         {"", []string{"--version"}, "", 0, []string{"gpu-exporter "}},
		"help":            {"", []string{"--help"}, "", 0, []string{"--listen", ":9835", "--interval", "2s", "--source", "nvidia-smi", "check", "GPU_EXPORTER_"}},
		"mistyped flag":   {"", []string{"--intervall", "2s"}, "", 2, []string{"unknown flag --intervall", `"--interval"`}},
		"no interval":     {"", []string{"--interval", "soon"}, "", 2, []string{"--interval", "soon"}},
		"too short":       {"", []string{"--interval", "1ms"}, "", 2, []string{"interval 1ms", "100ms", "5m0s"}},
		"none at all":     {"", []string{"--interval", "0"}, "", 2, []string{"interval 0s"}},
		"too long":        {"", []string{"--interval", "1h"}, "", 2, []string{"interval 1h"}},
		"no source":       {"", []string{"--source", "dcgm"}, "", 2, []string{"--source", "auto", "nvml", "nvidia-smi"}},
		"source in env":   {"", nil, "GPU_EXPORTER_SOURCE=rocm", 2, []string{`gpu-exporter: GPU_EXPORTER_SOURCE: "rocm": write one of auto, nvml, nvidia-smi`}},
		"interval in env": {"", nil, "GPU_EXPORTER_INTERVAL=1ms", 2, []string{"gpu-exporter: GPU_EXPORTER_INTERVAL: interval 1ms: choose from 100ms to 5m0s\n"}},
		"no port":         {"", []string{"--listen", "9835"}, "", 2, []string{`gpu-exporter: --listen: "9835" is no address to listen on; write host:port`}},
		"no address":      {"", []string{"--listen", ""}, "", 2, []string{"no address to listen on", "--listen"}},
		"port taken":      {"", []string{"--listen", taken.Addr().String()}, "", 1, []string{"cannot listen on " + taken.Addr().String(), "the port is taken", "--listen"}},
		"worker by hand":  {"", []string{"nvml-worker"}, "", 2, []string{"nvml-worker", "of no use by hand"}},
		"unknown command": {"", []string{"chekc"}, "", 2, []string{"chekc"}},

		"check":             {two, []string{"check"}, "", 0, []string{"nvml (" + libraryDir + "/libnvidia-ml.so.1)", "570.86.15", "GPUs     2", "NVIDIA H200", "80 %", "20.0 of 140.4 GiB", "64 °C", "312 of 700 W"}},
		"check nvidia-smi":  {two, []string{"check", "--source", "nvidia-smi"}, "", 0, []string{"nvidia-smi (" + fakeSMIDir + "/nvidia-smi)", "81 %", "312 of 700 W"}},
		"check no driver":   {"", []string{"check"}, "", 1, []string{"no GPU can be read", "libnvidia-ml.so.1 is not on this machine", "nvidia-smi is neither in PATH nor", "What to do: "}},
		"check NVML alone":  {"", []string{"check", "--source", "nvml"}, "", 1, []string{"libnvidia-ml.so.1 is not on this machine", "install the NVIDIA driver"}},
		"check not loaded":  {"/nowhere/at/all", []string{"check"}, "", 1, []string{"driver is not loaded", "modprobe"}},
		"check one is lost": {lost, []string{"check"}, "", 0, []string{"GPUs     2", "80 %", "cannot be read: GPU is lost"}},
		"check all lost":    {machine(t, 2, "lost 0", "lost 1"), []string{"check"}, "", 1, []string{"GPUs     2", "cannot be read: GPU is lost", "the driver lists 2 and tells nothing of them", "What to do"}},
		"check NVML broken": {machine(t, 1, "crash nvmlInit_v2"), []string{"check"}, "", 0, []string{"NVML     not used: the NVML worker has died", "nvidia-smi (", "80 %"}},
	} {
		cmd := command(tt.machine, tt.args...)
		if tt.env != "" {
			cmd.Env = append(cmd.Env, tt.env)
		}
		out, err := cmd.CombinedOutput()
		code := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		if code != tt.code {
			t.Errorf("%s: exit %d; want %d\n%s", name, code, tt.code, out)
		}
		for _, want := range tt.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: no %q in\n%s", name, want, out)
			}
		}
		if code == 0 && strings.Contains(string(out), "0 NVIDIA GPUs") {
			t.Errorf("%s: it reads some, and says that there is none:\n%s", name, out)
		}
	}
}

func TestHelp(t *testing.T) {
	if err := commandline.Check(program, &flags{}, 24, "../.."); err != nil {
		t.Error(err)
	}
}

// Without a GPU it is up, answers, and says so in one line; it does not stop
// looking.
func TestNoDriver(t *testing.T) {
	p := start(t, "", "--interval", "100ms")
	p.until(`gpu_exporter_collection_failures_total{reason="no_driver"} 3`)
	var took []time.Duration
	for range 50 {
		began := time.Now()
		text := p.get("/metrics")
		took = append(took, time.Since(began))
		if !strings.Contains(text, "\ngpu_exporter_up 0\n") || strings.Contains(text, "nvidia_gpu_up") {
			t.Fatal(text)
		}
	}
	slices.Sort(took)
	t.Logf("/metrics without a driver: p50 %v, p98 %v", took[25], took[49])
	if got := p.get("/health"); got != `{"status":"ok"}`+"\n" {
		t.Errorf("/health: %q", got)
	}
	lines := strings.Split(strings.TrimSpace(p.out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[1], "libnvidia-ml.so.1 is not on this machine") {
		t.Errorf("its log:\n%s", p.out)
	}
}

// SIGTERM ends it and what it has started, also in the middle of a call that
// never returns.
func TestTermination(t *testing.T) {
	needsLibrary(t)
	path := machine(t, 2)
	p := start(t, path, "--interval", "100ms")
	p.until("gpu_exporter_up 1")
	worker := children(p.cmd.Process.Pid)
	if len(worker) != 1 {
		t.Fatalf("children: %v", worker)
	}
	describe(t, path, 2, "hang nvmlDeviceGetPowerUsage")
	p.until("gpu_exporter_up 0")
	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.exit(); err != nil {
		t.Errorf("exit: %v; want 0\n%s", err, p.out)
	}
	until(t, "the worker is gone", func() bool { return gone(worker[0]) })
}

// When it is killed, what it has started goes too, even in the middle of a call
// that never returns.
func TestNoOrphan(t *testing.T) {
	needsLibrary(t)
	for _, source := range []string{"nvml", "nvidia-smi"} {
		path := machine(t, 2)
		p := start(t, path, "--interval", "100ms", "--source", source)
		p.until("gpu_exporter_up 1")
		describe(t, path, 2, "hang nvmlDeviceGetPowerUsage", "smi hang")
		p.until("gpu_exporter_up 0")
		worker := children(p.cmd.Process.Pid)
		if len(worker) != 1 {
			t.Fatalf("%s: children: %v", source, worker)
		}
		p.cmd.Process.Kill()
		p.exit()
		until(t, source+": the child is gone", func() bool { return gone(worker[0]) })
	}
}

// The driver's library is never in the process that serves.
func TestDriverStaysOutside(t *testing.T) {
	needsLibrary(t)
	p := start(t, machine(t, 1), "--interval", "100ms")
	p.until("gpu_exporter_up 1")
	worker := children(p.cmd.Process.Pid)
	for pid, want := range map[int]bool{p.cmd.Process.Pid: false, worker[0]: true} {
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if got := bytes.Contains(maps, []byte("libnvidia-ml")); err != nil || got != want {
			t.Errorf("pid %d has the library: %v, %v; want %v", pid, got, err, want)
		}
	}
}

// Built without cgo, it needs the C library for the driver's sake, and nothing
// else.
func TestLinkage(t *testing.T) {
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	slices.Sort(libraries)
	if want := []string{"libc.so.6", "libdl.so.2", "libpthread.so.0"}; err != nil || !slices.Equal(libraries, want) {
		t.Errorf("needs %v, %v; want %v", libraries, err, want)
	}
}

// What it costs for 16 GPUs, logged; and that scrapes leave nothing behind, and
// start no process.
func TestCost(t *testing.T) {
	needsLibrary(t)
	path := machine(t, 16)
	p := start(t, path)
	p.until("gpu_exporter_up 1")
	worker := children(p.cmd.Process.Pid)[0]
	p.get("/metrics")
	fds := func() int {
		list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
		return len(list)
	}
	before := fds()
	const scrapes = 2000
	measure := func(path string) (p50, p99, used time.Duration) {
		took := make([]time.Duration, scrapes)
		used = cpu(t, p.cmd.Process.Pid)
		for i := range took {
			began := time.Now()
			p.get(path)
			took[i] = time.Since(began)
		}
		slices.Sort(took)
		return took[scrapes/2], took[scrapes*99/100], (cpu(t, p.cmd.Process.Pid) - used) / scrapes
	}
	for _, path := range []string{"/health", "/metrics"} { // the one for what HTTP and this machine take
		p50, p99, used := measure(path)
		t.Logf("%s with 16 GPUs: p50 %v, p99 %v, CPU of the exporter %v", path, p50, p99, used)
	}
	t.Logf("RSS %d KiB, and %d KiB of the worker", rss(t, p.cmd.Process.Pid), rss(t, worker))
	if after := fds(); after > before {
		t.Errorf("%d open files, after all scrapes %d", before, after)
	}
	if now := children(p.cmd.Process.Pid); !slices.Equal(now, []int{worker}) {
		t.Errorf("children %v; want the worker %d", now, worker)
	}
	if runs, err := os.ReadFile(path + ".runs"); err == nil {
		t.Errorf("nvidia-smi was run: %s", runs)
	}
}

// cpu is what a process has used.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		t.Log(err)
		return 0
	}
	var main, all int64
	fmt.Sscan(string(content), &main)
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, path := range tasks {
		var one int64
		content, _ := os.ReadFile(path)
		fmt.Sscan(string(content), &one)
		all += one
	}
	return time.Duration(max(main, all))
}

// rss is the resident memory of a process in KiB.
func rss(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}
