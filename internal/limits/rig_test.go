package limits

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// server is a real Redis that can be ended and started again. It listens on a socket
// in the file system, and a relay makes a port of it: so no port has to be guessed that
// may be somebody else's by then.
type server struct {
	t      testing.TB
	dir    string
	args   []string
	cmd    *exec.Cmd
	relay  net.Listener
	client *redis.Client // the test's own
}

func startRedis(t testing.TB, args ...string) *server {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		if binary, err = exec.LookPath("valkey-server"); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("neither redis-server nor valkey-server is installed, and CI is to test with one")
			}
			t.Skip("neither redis-server nor valkey-server is installed: limits that gateways share are not tested")
		}
	}
	dir, err := os.MkdirTemp("", "redis") // a socket's path has a hundred characters, and t.TempDir's may have more
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &server{t: t, dir: dir, args: append([]string{binary}, args...)}
	s.start()
	t.Cleanup(s.kill)
	if s.relay, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var relayed sync.WaitGroup
	relayed.Go(func() { s.serve(&relayed) })
	t.Cleanup(relayed.Wait)
	t.Cleanup(func() { s.relay.Close() })
	s.client = redis.NewClient(&redis.Options{Network: "unix", Addr: s.socket(), Protocol: 2, DialerRetries: 1})
	t.Cleanup(func() { s.client.Close() })
	return s
}

func (s *server) socket() string { return filepath.Join(s.dir, "s") }
func (s *server) url() string    { return "redis://" + s.relay.Addr().String() }

// start returns when it answers.
func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.args[0], append([]string{"--port", "0", "--unixsocket", s.socket(), "--save", "", "--dir", s.dir, "--daemonize", "no"}, s.args[1:]...)...)
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	// It says so itself; there is nothing to poll.
	var said strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(said.String(), "connections at "+s.socket()) {
		n, err := out.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			s.t.Fatalf("Redis did not start: %v\n%s", err, said.String())
		}
	}
	go io.Copy(io.Discard, out)
}

func (s *server) kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) signal(sig syscall.Signal) {
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) serve(relayed *sync.WaitGroup) {
	for {
		in, err := s.relay.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("unix", s.socket())
		if err != nil {
			in.Close()
			continue
		}
		pass := func(to, from net.Conn) {
			io.Copy(to, from)
			to.Close()
			from.Close()
		}
		relayed.Go(func() { pass(in, out) })
		relayed.Go(func() { pass(out, in) })
	}
}

func (s *server) do(args ...any) any {
	s.t.Helper()
	v, err := s.client.Do(context.Background(), args...).Result()
	if err != nil && err != redis.Nil {
		s.t.Fatal(err)
	}
	return v
}

// asked is how many scripts Redis has run.
func (s *server) asked() (n int) {
	for line := range strings.Lines(s.do("INFO", "commandstats").(string)) {
		if name, rest, _ := strings.Cut(line, ":calls="); strings.HasPrefix(name, "cmdstat_eval") {
			var calls int
			fmt.Sscan(strings.Split(rest, ",")[0], &calls)
			n += calls
		}
	}
	return n
}

// patient is long enough for the busiest machine: no test waits for it to pass.
const patient = time.Minute

func (s *server) shared(o Options, g grid) *Shared {
	s.t.Helper()
	if o.URL == "" {
		o.URL = s.url()
	}
	if o.Timeout == 0 {
		o.Timeout = patient
	}
	l, err := newShared(o, g)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return l
}

// rig is a Limiter and its clock, which starts at the beginning of a day and moves when
// it is told to. All it does is exact.
type rig struct {
	Limiter
	now func() time.Duration // since the beginning
	// wait has the time pass; less than 0 only for Shared.
	wait func(time.Duration)
}

// clockedScript is the script with a clock that the test sets, and nothing else changed:
// a real Redis runs it.
func clockedScript(t testing.TB) *redis.Script {
	const asks, set = `redis.call('TIME')`, `redis.call('HMGET', 'clock', 's', 'us')`
	if strings.Count(source, asks) != 1 {
		t.Fatalf("the script asks for the time %d times", strings.Count(source, asks))
	}
	return redis.NewScript(strings.Replace(source, asks, set, 1))
}

// epoch is when bubbles begin.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *server) rig() rig {
	var since time.Duration
	set := func() {
		us := epoch.Add(since).UnixMicro()
		s.do("HSET", "clock", "s", us/1e6, "us", us%1e6)
	}
	s.do("FLUSHALL")
	set()
	g := usual
	g.script = clockedScript(s.t)
	return rig{s.shared(Options{}, g), func() time.Duration { return since }, func(d time.Duration) { since += d; set() }}
}

func localRig(t testing.TB) rig {
	start := time.Now()
	if !start.Equal(epoch) {
		t.Fatal("not in a bubble")
	}
	return rig{NewLocal(), func() time.Duration { return time.Since(start) }, time.Sleep}
}

// both runs tests with each Limiter.
func both(t *testing.T, tests map[string]func(t *testing.T, r rig)) {
	t.Run("local", func(t *testing.T) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { test(t, localRig(t)) })
			})
		}
	})
	t.Run("shared", func(t *testing.T) {
		s := startRedis(t)
		for name, test := range tests {
			t.Run(name, func(t *testing.T) { test(t, s.rig()) })
		}
	})
}

func (r rig) take(t testing.TB, caller string, l Limits, tokens int64) Grant {
	t.Helper()
	g, err := r.Take(t.Context(), caller, l, tokens)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (r rig) settle(t testing.TB, caller string, g Grant, used int64) {
	t.Helper()
	if err := r.Settle(t.Context(), caller, g, used); err != nil {
		t.Fatal(err)
	}
}

// says is a Grant in a line.
func says(g Grant) string {
	line := "taken"
	if g.Over != "" {
		line = fmt.Sprintf("%s, retry %v", g.Over, g.Retry)
	}
	for _, l := range []Level{g.Requests, g.Tokens, g.DayTokens} {
		if l == (Level{}) {
			line += "; -"
		} else {
			line += fmt.Sprintf("; %d/%d %v", l.Left, l.Limit, l.Reset)
		}
	}
	return line
}
