//go:build reliability

// Package reliability holds what docs/reliability.md promises against real
// processes: gateway, simulator and haproxy, on real TCP, and what goes wrong
// between them.
//
//	make test-reliability
//	make soak MINUTES=3
//	GATEWAY_ARGS='--routing prefix' make soak # further flags for every gateway
//
// Each test prints what it measured in lines that begin with "figure:".
package reliability

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binaries is where the real programs are, built once.
var binaries string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "reliability")
	if err != nil {
		panic(err)
	}
	build := exec.Command("go", "build", "-o", dir, "../cmd/vllm-gateway", "../cmd/vllm-sim")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	binaries = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// process is a running program of ours.
type process struct {
	t    *testing.T
	name string
	addr string
	args []string

	cmd   *exec.Cmd
	log   *lockedBuffer
	ended chan struct{} // closed once err and at are there
	err   error
	at    time.Time
}

// launch starts a program on a port of its own and waits until it listens.
func launch(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, addr: freeAddr(t), args: args}
	p.start()
	t.Cleanup(func() { p.kill() })
	return p
}

// start runs it, on the same port each time.
func (p *process) start() {
	p.t.Helper()
	p.log, p.ended = &lockedBuffer{}, make(chan struct{})
	p.cmd = exec.Command(filepath.Join(binaries, p.name), append([]string{"--listen", p.addr}, p.args...)...)
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func(cmd *exec.Cmd, ended chan struct{}) {
		err := cmd.Wait()
		p.err, p.at = err, time.Now()
		close(ended)
	}(p.cmd, p.ended)
	p.await(p.name + " is up")
}

// kill is kill -9. It returns once nothing is left.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// exit waits until the program has ended by itself.
func (p *process) exit() error {
	p.t.Helper()
	until(p.t, p.name+" has ended", func() bool {
		select {
		case <-p.ended:
			return true
		default:
			return false
		}
	})
	return p.err
}

func (p *process) await(word string) {
	p.t.Helper()
	until(p.t, p.name+" logs "+strconv.Quote(word), func() bool { return strings.Contains(p.log.String(), word) })
}

func (p *process) url() string { return "http://" + p.addr }

// patience is how long a condition may take to come true. It is far above what
// any of them needs, so that it decides nothing but when a test gives up.
const patience = 30 * time.Second

// until polls a condition that another process makes true. Where it does not, more
// tells what there is instead.
func until(t *testing.T, what string, is func() bool, more ...func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); {
		if time.Now().After(deadline) {
			for _, m := range more {
				what += ": " + m()
			}
			t.Fatalf("waited %v, and not yet: %s", patience, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

var ports = struct {
	sync.Mutex
	next int
}{next: 20000 + os.Getpid()%8000}

// freeAddr gives an address that nobody listens on. It lies below the ports that
// the kernel gives to clients, so that a server can come back to it after a kill
// though thousands of connections are made meanwhile.
func freeAddr(t *testing.T) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 1000 {
		ports.next++
		addr := fmt.Sprintf("127.0.0.1:%d", ports.next)
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// sim starts a simulator that takes the same time for every step, however many
// share it: what the tests count must not depend on how fast this machine is.
func sim(t *testing.T, seed int, step time.Duration, args ...string) *process {
	t.Helper()
	return launch(t, "vllm-sim", append([]string{
		"--seed", strconv.Itoa(seed), "--step-base", step.String(), "--step-per-sequence", "0s", "--step-per-prefill-token", "0s",
		"--step-per-context-token", "0s", "--max-num-seqs", "4096", "--max-num-batched-tokens", "100000",
	}, args...)...)
}

// gateway is a running gateway with what it held before it had work.
type gateway struct {
	*process
	goroutines, fds float64
}

// front starts a gateway before backends and waits until it has asked each for
// its health. When the test ends, it must hold no more than now. GATEWAY_ARGS in
// the environment are further flags for every gateway.
func front(t *testing.T, backends []string, args ...string) *gateway {
	t.Helper()
	for _, b := range backends {
		args = append(args, "--backend", b)
	}
	args = append(args, strings.Fields(os.Getenv("GATEWAY_ARGS"))...)
	g := &gateway{process: launch(t, "vllm-gateway", args...)}
	until(t, "every backend was asked", func() bool {
		for _, b := range g.health().Backends {
			if b.State == "unknown" {
				return false
			}
		}
		return true
	})
	// A scrape has goroutines of its own, now one more, now one less.
	var goroutines, fds []float64
	for range 15 {
		m := g.metrics()
		goroutines, fds = append(goroutines, m.sum("go_goroutines")), append(fds, m.sum("process_open_fds"))
	}
	slices.Sort(goroutines)
	slices.Sort(fds)
	g.goroutines, g.fds = goroutines[7], fds[7]
	t.Cleanup(g.settled)
	return g
}

// settled fails unless the gateway is where it was when it started: nothing
// accepted, nothing leased, no goroutine and no descriptor more.
func (g *gateway) settled() {
	g.t.Helper()
	select {
	case <-g.ended:
		return
	default:
	}
	var m metrics
	var left string
	for deadline := time.Now().Add(patience); ; <-time.After(50 * time.Millisecond) {
		m = g.metrics()
		left = ""
		for _, is := range []struct {
			name string
			most float64
		}{{"gateway_queue_depth", 0}, {"gateway_backend_in_flight", 0}, {"go_goroutines", g.goroutines}, {"process_open_fds", g.fds}} {
			if v := m.sum(is.name); v > is.most {
				left += fmt.Sprintf(" %s is %v (before: %v)", is.name, v, is.most)
			}
		}
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			g.t.Errorf("%v after the last request:%s\n%s", patience, left, g.goroutinesNow())
			return
		}
	}
}

// goroutinesNow ends the gateway and gives what each of its goroutines did.
func (g *gateway) goroutinesNow() string {
	g.cmd.Process.Signal(syscall.SIGQUIT)
	g.exit()
	log := g.log.String()
	return log[max(0, strings.Index(log, "SIGQUIT")):]
}

// health is what the gateway says of itself on /health.
type health struct {
	Status   string `json:"status"`
	Backends []struct {
		Backend  string `json:"backend"`
		State    string `json:"state"`
		InFlight int    `json:"in_flight"`
	} `json:"backends"`
}

// apart asks for what is no part of the load, each time on a connection of its
// own that is gone afterwards.
var apart = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

func (g *gateway) health() (h health) {
	g.t.Helper()
	if err := json.Unmarshal(g.get("/health"), &h); err != nil {
		g.t.Fatalf("/health: %v", err)
	}
	return h
}

// up reports whether all of its backends are.
func (g *gateway) up() bool {
	for _, b := range g.health().Backends {
		if b.State != "up" {
			return false
		}
	}
	return true
}

func (g *gateway) get(path string) []byte {
	g.t.Helper()
	resp, err := apart.Get(g.url() + path)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return body
}

// metrics are samples in Prometheus's text format.
type metrics []string

func (g *gateway) metrics() metrics {
	g.t.Helper()
	return strings.Split(string(g.get("/metrics")), "\n")
}

// sum adds up the series of a name whose labels contain all of labels.
func (m metrics) sum(name string, labels ...string) (total float64) {
series:
	for _, line := range m {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		at := strings.LastIndexByte(rest, ' ')
		for _, l := range labels {
			if !strings.Contains(rest[:at], l) {
				continue series
			}
		}
		v, err := strconv.ParseFloat(rest[at+1:], 64)
		if err != nil {
			panic(line)
		}
		total += v
	}
	return total
}

var (
	pssLine = regexp.MustCompile(`(?m)^Pss: +(\d+) kB$`)
	rssLine = regexp.MustCompile(`(?m)^Rss: +(\d+) kB$`)
)

// memory gives a process's resident and proportional set in KiB.
func (p *process) memory() (rss, pss int) {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	kib := func(line *regexp.Regexp) int {
		n, err := strconv.Atoi(string(line.FindSubmatch(text)[1]))
		if err != nil {
			p.t.Fatal(err)
		}
		return n
	}
	return kib(rssLine), kib(pssLine)
}

// figure prints what a test has measured, for the table of docs/reliability.md.
// number is a size of a test that a release check may want larger.
func number(t *testing.T, name string, usual int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: not a number", name, text)
	}
	return n
}

func figure(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("figure: %s: %s", t.Name(), fmt.Sprintf(format, args...))
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
