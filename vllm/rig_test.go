//go:build vllm

// Package vllm holds the gateway against a real vLLM: two servers, each with a
// tiny model of random weights, on the CPU. `./run` sets it up; the first time
// that takes minutes.
package vllm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	bin string // where the real gateway is, built once
	// Engines are started once, both at the same time, and shared. A test that
	// kills one starts it again.
	wide   *engine // runs as many requests at once as come
	narrow *engine // runs four, so that others queue
)

// narrowSeqs is how many requests narrow runs at once.
const narrowSeqs = 4

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "vllm-gateway")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	bin = filepath.Join(dir, "vllm-gateway")
	build := exec.Command("go", "build", "-o", bin, "../cmd/vllm-gateway")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	wide, narrow = newEngine(8100), newEngine(8200, "--max-num-seqs", strconv.Itoa(narrowSeqs))
	wide.start()
	narrow.start()
	defer wide.kill()
	defer narrow.kill()
	return m.Run()
}

// engine is a vLLM server: an API server, its EngineCore and a worker, in a
// process group of their own.
type engine struct {
	addr string
	args []string

	cmd   *exec.Cmd
	ended chan struct{} // the API server has
	leash io.Closer
	log   lockedBuffer
}

// newEngine takes a port that nobody listens on, from those that the system
// gives to no outgoing connection: it has to stay free until the engine is up,
// and while it is down.
func newEngine(firstPort int, args ...string) *engine {
	addr := ""
	for port := firstPort; addr == ""; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			addr = l.Addr().String()
			l.Close()
		}
	}
	// A context far beyond the model's own: a step takes a millisecond, and
	// some requests here have to run until they are stopped.
	return &engine{addr: addr, args: append([]string{
		"--max-model-len", strconv.Itoa(endless + 1000),
		"--hf-overrides", fmt.Sprintf(`{"max_position_embeddings":%d}`, endless+1000),
		"--enable-log-requests",
	}, args...)}
}

// endless is more tokens than an engine makes within a test.
const endless = 100_000

func (e *engine) url() string { return "http://" + e.addr }

func (e *engine) start() {
	_, port, _ := net.SplitHostPort(e.addr)
	e.cmd = exec.Command("./run", append([]string{"--port", port}, e.args...)...)
	e.cmd.Stdout, e.cmd.Stderr = &e.log, &e.log
	e.cmd.WaitDelay = time.Second // its children have the same output, and may outlive it
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := e.cmd.Start(); err != nil {
		panic(err)
	}
	e.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		cmd.Wait()
		close(ended)
	}(e.cmd, e.ended)

	// However this process ends, its end of the pipe closes. vLLM's processes
	// outlive each other, and would outlive a test that panics.
	leash := exec.Command("sh", "-c", `cat; kill -s KILL -- "-$0"`, strconv.Itoa(e.cmd.Process.Pid))
	leash.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if e.leash, err = leash.StdinPipe(); err != nil {
		panic(err)
	}
	if err := leash.Start(); err != nil {
		panic(err)
	}
	go leash.Wait()
}

// ready waits until the engine answers, and shows its output if the test fails.
// One that has ended is started again.
func (e *engine) ready(t *testing.T) {
	t.Helper()
	select {
	case <-e.ended:
		e.start()
	default:
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s\n%s", e.cmd, e.log.tail())
		}
	})
	// The first start of all fetches vLLM.
	within(t, 15*time.Minute, "vLLM answers", func() error {
		select {
		case <-e.ended:
			t.Fatalf("%s: %v", e.cmd, e.cmd.ProcessState)
		default:
		}
		_, err := get(e.url() + "/health")
		return err
	})
}

// process finds one of the engine's processes by the name it gives itself, as
// VLLM::EngineCore.
func (e *engine) process(t *testing.T, name string) (pid int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		line, _ := os.ReadFile(file)
		candidate, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		group, err := syscall.Getpgid(candidate)
		if err == nil && group == e.cmd.Process.Pid && strings.HasPrefix(string(line), name) {
			return candidate
		}
	}
	t.Fatalf("no process %s", name)
	return 0
}

// kill ends all of the engine's processes.
func (e *engine) kill() {
	e.leash.Close()
	<-e.ended
}

// gateway is a running gateway.
type gateway struct {
	t     *testing.T
	cmd   *exec.Cmd
	addr  string
	log   lockedBuffer
	ended chan error
}

// start runs a gateway before the engines and waits until it finds them usable.
func start(t *testing.T, engines ...*engine) *gateway {
	t.Helper()
	g := &gateway{t: t, addr: freeAddr(), ended: make(chan error, 1)}
	args := []string{"--listen", g.addr}
	for _, e := range engines {
		e.ready(t)
		args = append(args, "--backend", e.url())
	}
	g.cmd = exec.Command(bin, args...)
	g.cmd.Stderr = &g.log
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { g.ended <- g.cmd.Wait() }()
	t.Cleanup(func() {
		g.cmd.Process.Kill()
		if t.Failed() {
			t.Logf("%s\n%s", g.cmd, g.log.tail())
		}
	})
	within(t, 20*time.Second, "the gateway finds its backends and their model", func() error {
		page, err := scrape(g.url())
		if up := page.sum("gateway_backend_up"); up != float64(len(engines)) {
			return fmt.Errorf("%v are up, %v", up, err)
		}
		if !strings.Contains(g.log.String(), "model found") {
			return errors.New("no model found")
		}
		return nil
	})
	return g
}

func (g *gateway) url() string { return "http://" + g.addr }

// request gives the gateway's log line of a request.
func (g *gateway) request(id string) (line string) {
	g.t.Helper()
	within(g.t, 10*time.Second, "the gateway logs request "+id, func() error {
		for l := range strings.Lines(g.log.String()) {
			if strings.Contains(l, " msg=request id="+id+" ") {
				line = l
				return nil
			}
		}
		return errors.New("no such line")
	})
	return line
}

// rests waits until so many requests have ended in all, and nothing runs, and
// gives the metrics then.
func (g *gateway) rests(requests int) (page metrics) {
	g.t.Helper()
	within(g.t, 20*time.Second, "the gateway comes to rest", func() error {
		var err error
		if page, err = scrape(g.url()); err != nil {
			return err
		}
		if ended, open := page.sum("gateway_requests_total"), page.sum("gateway_queue_depth"); ended != float64(requests) || open != 0 {
			return fmt.Errorf("%v requests have ended, %v have not; want %d and 0", ended, open, requests)
		}
		return nil
	})
	return page
}

// metrics is a /metrics page: the value of each series, by its name and labels
// as printed.
type metrics map[string]float64

var sample = regexp.MustCompile(`(?m)^([a-z_:]+(?:\{.*\})?) (\S+)$`)

func scrape(url string) (metrics, error) {
	text, err := get(url + "/metrics")
	page := metrics{}
	for _, m := range sample.FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, err
		}
		page[m[1]] = v
	}
	return page, err
}

// sum adds up the series of a metric that have all of the labels, given as
// printed.
func (m metrics) sum(name string, labels ...string) (sum float64) {
series:
	for series, v := range m {
		if rest, ok := strings.CutPrefix(series, name); !ok || rest != "" && rest[0] != '{' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(series, l) {
				continue series
			}
		}
		sum += v
	}
	return sum
}

// since gives what has been added to each series since an earlier page.
func (m metrics) since(earlier metrics) metrics {
	added := metrics{}
	for series, v := range m {
		added[series] = v - earlier[series]
	}
	return added
}

// now gives a metrics page that must be there.
func now(t *testing.T, url string) metrics {
	t.Helper()
	page, err := scrape(url)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// within polls until is gives no error.
func within(t *testing.T, limit time.Duration, what string, is func() error) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; {
		err := is()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v, and not yet: %s: %v", limit, what, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

var getter = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func get(url string) (string, error) {
	resp, err := getter.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(body), err
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// lockedBuffer keeps what a process prints.
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

// tail is the last 8 KB.
func (b *lockedBuffer) tail() string { s := b.String(); return s[max(0, len(s)-8<<10):] }
