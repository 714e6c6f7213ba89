package limits

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// journal is a log that can be waited for.
type journal struct {
	mu    sync.Mutex
	text  bytes.Buffer
	lines chan string
}

func newJournal() (*journal, *slog.Logger) {
	j := &journal{lines: make(chan string, 1000)}
	return j, slog.New(slog.NewTextHandler(j, nil))
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text.Write(line)
	j.lines <- string(line)
	return len(line), nil
}

// next waits for a line.
func (j *journal) next(t *testing.T, want string) string {
	t.Helper()
	select {
	case line := <-j.lines:
		if !strings.Contains(line, want) {
			t.Fatalf("the log says %q; want %q", line, want)
		}
		return line
	case <-time.After(patient):
		t.Fatalf("the log never says %q", want)
		return ""
	}
}

// soon looks for Redis often, where a test has to wait for it.
func soon() grid {
	g := usual
	g.every = 5 * time.Millisecond
	return g
}

// never does not look for it at all.
func never() grid {
	g := usual
	g.every = 24 * time.Hour
	return g
}

// Several gateways that ask one Redis, by its own clock, give no more than one would.
func TestSharedByTwo(t *testing.T) {
	const limit, callers = 50, 8
	s := startRedis(t)
	g := usual
	g.slot = time.Millisecond // a window of 120 ms
	var mu sync.Mutex
	slots := map[int64]int{}
	total := 0
	var all sync.WaitGroup
	for range 2 {
		l := s.shared(Options{}, g)
		for range callers {
			all.Go(func() {
				for {
					g, err := l.Take(t.Context(), "ann", Limits{Requests: limit, DayTokens: 1e9}, 3)
					if err == nil && g.Over == "" {
						err = l.Settle(t.Context(), "ann", g, 1)
					}
					mu.Lock()
					if err == nil && g.Over == "" {
						slots[g.slot]++
						total++
					}
					enough := total >= 3*limit
					mu.Unlock()
					if err != nil {
						t.Error(err)
					}
					if err != nil || enough {
						return
					}
				}
			})
		}
	}
	all.Wait()
	for first := range slots {
		n := 0
		for at, taken := range slots {
			if first <= at && at <= first+inWindow {
				n += taken
			}
		}
		if n > limit {
			t.Errorf("%d in a window; the limit is %d", n, limit)
		}
	}
	r, err := s.shared(Options{}, g).Take(t.Context(), "ann", Limits{DayTokens: 1e9}, 0)
	if used := 1e9 - r.DayTokens.Left; err != nil || used != int64(total) && r.DayTokens.Reset < day-time.Minute {
		t.Errorf("%d tokens of the day are counted, of %d; %v", used, total, err)
	}
}

// What is asked is one round trip each, and what is kept of it ends by itself.
func TestOneRoundTrip(t *testing.T) {
	s := startRedis(t)
	l := s.shared(Options{}, usual)
	lim := Limits{Requests: 10, Tokens: 10}
	if _, err := l.Take(t.Context(), "x", lim, 1); err != nil { // connects, and brings the script
		t.Fatal(err)
	}
	l.running.Wait() // the first probe is over
	before := s.asked()
	g, err := l.Take(t.Context(), "ann", lim, 8)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Settle(t.Context(), "ann", g, 5); err != nil {
		t.Fatal(err)
	}
	if n := s.asked() - before; n != 2 {
		t.Errorf("Take and Settle ask Redis %d times", n)
	}
	for _, same := range []func() error{
		func() error { return l.Settle(t.Context(), "ann", g, g.reserved) },
		func() error { return l.Settle(t.Context(), "ann", Grant{Over: Tokens}, 5) },
		func() error { _, err := l.Take(t.Context(), "ann", Limits{}, 5); return err },
	} {
		if err := same(); err != nil {
			t.Error(err)
		}
	}
	if n := s.asked() - before; n != 2 {
		t.Error("Redis is asked where there is nothing to say")
	}

	if ttl := s.do("PTTL", "vllm-gateway:{ann}").(int64); ttl <= 0 || ttl > 60500 {
		t.Errorf("what a minute needs is kept for %d ms", ttl)
	}
	if _, err := l.Take(t.Context(), "bob", Limits{DayTokens: 5}, 5); err != nil {
		t.Fatal(err)
	}
	if ttl := s.do("PTTL", "vllm-gateway:{bob}").(int64); ttl <= 0 || ttl > day.Milliseconds() {
		t.Errorf("what a day needs is kept for %d ms", ttl)
	}
	if g, err = l.Take(t.Context(), "eve", Limits{DayTokens: 5}, 5); err != nil {
		t.Fatal(err)
	}
	if err := l.Settle(t.Context(), "eve", g, 0); err != nil || s.do("EXISTS", "vllm-gateway:{eve}").(int64) != 0 {
		t.Errorf("nothing is used, and yet something is kept; %v", err)
	}
}

// A clock that is put back makes nobody wait for longer than a window, and loses
// nothing. One that is put back over midnight does not give the day again.
func TestClockPutBack(t *testing.T) {
	r := startRedis(t).rig()
	l := Limits{Requests: 2, Tokens: 100, DayTokens: 100}
	r.wait(10 * day)
	g := r.take(t, "ann", l, 30)
	r.wait(-5 * day)
	if got, want := says(r.take(t, "ann", l, 30)), "taken; 0/2 1m0.5s; 40/100 1m0.5s; 40/100 24h0m0s"; got != want {
		t.Errorf("five days back: %s\nwant %s", got, want)
	}
	r.wait(-250 * time.Millisecond)
	if got, want := says(r.take(t, "ann", l, 30)), "requests, retry 1m0.25s; 0/2 1m0.25s; 40/100 1m0.25s; 40/100 250ms"; got != want {
		t.Errorf("over midnight: %s\nwant %s", got, want)
	}
	r.settle(t, "ann", g, 10)
	if got, want := says(r.take(t, "ann", l, 30)), "requests, retry 1m0.25s; 0/2 1m0.25s; 60/100 1m0.25s; 60/100 250ms"; got != want {
		t.Errorf("given back: %s\nwant %s", got, want)
	}
}

// A value that another program has put there is as none.
func TestForeignValue(t *testing.T) {
	s := startRedis(t)
	l := s.shared(Options{}, never())
	for i, put := range [][]any{{"SET", "x"}, {"SET", "\x93\x01\x02\xa1a"}, {"SET", "\xc1\xff"}, {"LPUSH", "x"}, {"SET", "\x05"}, {"SET", strings.Repeat("x", 60)}} {
		caller := fmt.Sprint("caller", i)
		s.do(put[0], keyOf(caller), put[1])
		for left := range 2 {
			if g, err := l.Take(t.Context(), caller, Limits{Tokens: 2}, 1); err != nil || g.Tokens.Left != int64(1-left) {
				t.Errorf("%q: %s, %v", put, says(g), err)
			}
		}
	}
}

// What gateways have counted is there when they are, and when Redis is that keeps it.
func TestRestart(t *testing.T) {
	s := startRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	j, log := newJournal()
	l := s.shared(Options{Log: log}, soon())
	lim := Limits{Tokens: 100, DayTokens: 100}
	// Connections lie ready that will be dead.
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := l.Take(t.Context(), "ann", lim, 5); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s.kill()
	if _, err := l.Take(t.Context(), "ann", lim, 1); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Redis is dead, and Take says %v", err)
	}
	j.next(t, "Redis is away")
	if err := l.Settle(t.Context(), "ann", Grant{limits: lim, reserved: 3}, 1); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Redis is dead, and Settle says %v", err)
	}
	old := l.client.Load()
	s.start()
	j.next(t, "Redis is back")
	if l.client.Load() == old { // TLS does not show that a connection is dead
		t.Error("connections to a Redis that is no more are kept")
	}
	for range 8 {
		all.Go(func() {
			if _, err := l.Take(t.Context(), "ann", lim, 5); err != nil {
				t.Errorf("Redis is back, and Take says %v", err)
			}
		})
	}
	all.Wait()
	if g, err := s.shared(Options{}, usual).Take(t.Context(), "ann", lim, 0); err != nil || g.DayTokens.Left != 20 {
		t.Errorf("after the restart: %s, %v", says(g), err)
	}
}

// A Redis that stands still costs each request its timeout at most, and only those that
// are there when it stops.
func TestStandstill(t *testing.T) {
	s := startRedis(t)
	j, log := newJournal()
	l := s.shared(Options{Log: log, Timeout: 50 * time.Millisecond}, soon())
	lim := Limits{Requests: 1000, Tokens: 1000}
	take := func() error {
		_, err := l.Take(t.Context(), "ann", lim, 1)
		return err
	}
	l.running.Wait()
	s.signal(syscall.SIGSTOP)
	if err := take(); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Redis stands still, and Take says %v", err)
	}
	// Now nobody asks it: or they would meet a client that has been closed.
	alone := s.shared(Options{Timeout: 50 * time.Millisecond}, never())
	if _, err := alone.Take(t.Context(), "ann", lim, 1); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Redis stands still, and Take says %v", err)
	}
	alone.client.Load().Close()
	for range 100 {
		if _, err := alone.Take(t.Context(), "ann", lim, 1); !errors.Is(err, ErrUnavailable) || errors.Is(err, redis.ErrClosed) {
			t.Fatalf("Redis is away, and Take says %v", err)
		}
	}
	j.next(t, "Redis is away")
	s.signal(syscall.SIGCONT)
	j.next(t, "Redis is back")
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := take(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after Close, Take says %v", err)
	}
}

// The end of ctx ends Take, though Redis does not answer; and the tokens are given back
// when it does.
func TestContextEndsTake(t *testing.T) {
	s := startRedis(t)
	l := s.shared(Options{}, usual)
	lim := Limits{Requests: 10, Tokens: 100}
	l.running.Wait()
	left := errors.New("the client has left")
	ctx, cancel := context.WithCancelCause(t.Context())
	s.signal(syscall.SIGSTOP)
	ended := make(chan error)
	go func() {
		_, err := l.Take(ctx, "ann", lim, 60)
		ended <- err
	}()
	for l.client.Load().PoolStats().IdleConns != 0 { // until it has been asked
		runtime.Gosched()
	}
	cancel(left)
	if err := <-ended; err != left {
		t.Errorf("ctx has ended, and Take says %v", err)
	}
	s.signal(syscall.SIGCONT)
	l.running.Wait()
	if g, err := l.Take(t.Context(), "ann", lim, 100); err != nil || g.Over != "" || g.Requests.Left != 8 {
		t.Errorf("afterwards: %s, %v", says(g), err)
	}
	if _, err := l.Take(ctx, "ann", lim, 1); err != left {
		t.Errorf("ctx has ended before, and Take says %v", err)
	}
	if _, err := NewLocal().Take(ctx, "ann", lim, 1); err != left {
		t.Errorf("ctx has ended before, and Local's Take says %v", err)
	}
	g, err := l.Take(t.Context(), "bob", lim, 60)
	if err == nil {
		err = l.Settle(ctx, "bob", g, 100)
	}
	if g, _ = l.Take(t.Context(), "bob", lim, 0); err != nil || g.Tokens.Left != 0 {
		t.Errorf("what a client that has left has used is not counted: %s, %v", says(g), err)
	}
}

func TestPassword(t *testing.T) {
	s := startRedis(t, "--requirepass", "OPENSESAME")
	s.client.Options().Password = "OPENSESAME"
	for name, tt := range map[string]struct{ user, password, says string }{
		"wrong":       {"", "WRONGSECRET", "WRONGPASS"},
		"none":        {"", "", "NOAUTH"},
		"no such one": {"ann@", "WRONGSECRET", "WRONGPASS"},
		"right":       {"", "OPENSESAME", ""},
		"by name":     {"default@", "OPENSESAME", ""},
	} {
		t.Run(name, func(t *testing.T) {
			j, log := newJournal()
			url := strings.Replace(s.url(), "://", "://"+tt.user, 1)
			l := s.shared(Options{URL: url, Password: secret.New(tt.password), Log: log}, never())
			_, err := l.Take(t.Context(), "ann", Limits{Requests: 1e6}, 1)
			if tt.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Take says %v", err)
			}
			line := j.next(t, tt.says)
			for _, said := range []string{line, err.Error()} {
				if strings.Contains(said, "SECRET") || strings.Contains(said, "SESAME") {
					t.Errorf("it tells the password: %s", said)
				}
			}
		})
	}
}

// Whoever may read and not write is as good as away, and does not come and go.
func TestReadOnly(t *testing.T) {
	s := startRedis(t)
	j, log := newJournal()
	l := s.shared(Options{Log: log}, soon())
	l.running.Wait()
	s.do("REPLICAOF", filepath.Join(s.dir, "nobody"), "1")
	if _, err := l.Take(t.Context(), "ann", Limits{Requests: 5}, 1); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Take of a replica says %v", err)
	}
	j.next(t, "READONLY")
	for before := s.asked(); s.asked() < before+6; { // three probes, or more
		runtime.Gosched()
	}
	if len(j.lines) > 0 {
		t.Errorf("and then the log says %q", <-j.lines)
	}
	s.do("REPLICAOF", "NO", "ONE")
	j.next(t, "Redis is back")
	if _, err := l.Take(t.Context(), "ann", Limits{Requests: 5}, 1); err != nil {
		t.Error(err)
	}
}

// Nothing is left behind, whatever Redis was doing when Close came: there, dead, or
// deaf.
func TestCloseLeavesNothing(t *testing.T) {
	deaf, err := net.Listen("tcp", "127.0.0.1:0") // it takes connections, and nothing more
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	s := startRedis(t)
	for name, url := range map[string]string{"there": s.url(), "dead": "redis://127.0.0.1:1", "deaf": "redis://" + deaf.Addr().String(), "deaf to TLS": "rediss://" + deaf.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			g := soon()
			g.every = time.Millisecond
			l, err := newShared(Options{URL: url, Timeout: time.Millisecond}, g)
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for range connections / 2 { // after more that fail go-redis sleeps for a second before it ends
				all.Go(func() { l.Take(t.Context(), "ann", Limits{Requests: 5}, 1) })
			}
			all.Wait()
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if err := l.Close(); err != nil {
				t.Errorf("a second Close: %v", err)
			}
			// What go-redis has begun ends by itself, and not at once.
			for deadline := time.Now().Add(patient); ; runtime.Gosched() {
				stacks := make([]byte, 1<<20)
				stacks = stacks[:runtime.Stack(stacks, true)]
				if bytes.Contains(stacks, []byte("(*Shared).find(")) || bytes.Contains(stacks, []byte("(*Shared).run(")) {
					t.Fatalf("Close has not waited:\n%s", stacks)
				}
				if !bytes.Contains(stacks, []byte("go-redis/v9/internal/pool")) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("goroutines are left:\n%s", stacks)
				}
			}
		})
	}
}

func TestValidate(t *testing.T) {
	password := secret.New("SECRET")
	for name, tt := range map[string]struct {
		o    Options
		says string // "": it is right
	}{
		"plain":             {Options{URL: "redis://redis:6379/0"}, ""},
		"host alone":        {Options{URL: "redis://redis"}, ""},
		"slash":             {Options{URL: "rediss://redis/"}, ""},
		"IPv6":              {Options{URL: "redis://[::1]:1/15"}, ""},
		"password":          {Options{URL: "redis://redis", Password: password}, ""},
		"user":              {Options{URL: "rediss://ann@redis", Password: password}, ""},
		"nothing":           {Options{}, "does not begin with redis:"},
		"no scheme":         {Options{URL: "redis:6379"}, "does not begin with redis:"},
		"another scheme":    {Options{URL: "http://redis"}, "does not begin with redis:"},
		"only a secret":     {Options{URL: "SECRET:x@redis"}, "does not begin with redis:"},
		"no host":           {Options{URL: "redis://"}, "no host"},
		"only a port":       {Options{URL: "redis://:6379"}, "no host"},
		"port 0":            {Options{URL: "redis://redis:0"}, "port"},
		"port too high":     {Options{URL: "redis://redis:65536"}, "port"},
		"port a word":       {Options{URL: "redis://redis:SECRET"}, "cannot be read"},
		"its password":      {Options{URL: "redis://:SECRET@redis"}, "password in it"},
		"an empty one":      {Options{URL: "redis://ann:@redis"}, "password in it"},
		"with a slash":      {Options{URL: "redis://ann:SEC/RET@redis"}, "cannot be read"},
		"with a percent":    {Options{URL: "redis://ann:%SECRET@redis"}, "cannot be read"},
		"a bad database":    {Options{URL: "redis://redis/SECRET"}, "database"},
		"a negative one":    {Options{URL: "redis://redis/-1"}, "database"},
		"two of them":       {Options{URL: "redis://redis/0/1"}, "database"},
		"a big one":         {Options{URL: "redis://redis/99999999999"}, "database"},
		"a query":           {Options{URL: "redis://redis?password=SECRET"}, "behind a ?"},
		"an empty query":    {Options{URL: "redis://redis?"}, "behind a ?"},
		"a fragment":        {Options{URL: "redis://redis#SECRET"}, "behind a ?"},
		"user alone":        {Options{URL: "redis://SECRET@redis"}, "no password"},
		"timeout below 0":   {Options{URL: "redis://redis", Timeout: -1}, "timeout"},
		"control character": {Options{URL: "redis://redis\n"}, "cannot be read"},
	} {
		err := tt.o.Validate()
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v; want %q", name, err, tt.says)
		}
		if err != nil && (strings.Contains(err.Error(), "SEC") || strings.Contains(err.Error(), "RET@")) {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
		if l, err2 := NewShared(tt.o); err2 == nil {
			l.Close()
		} else if err == nil || err.Error() != err2.Error() {
			t.Errorf("%s: NewShared says %v", name, err2)
		}
	}
}

func FuzzValidate(f *testing.F) {
	f.Add("redis://ann@redis:6379/0")
	f.Add("rediss://:SECRET@[::1]:1/a?b#c")
	f.Fuzz(func(t *testing.T, url string) {
		o := Options{URL: url, Password: secret.New("x")}
		ro, err := o.redis()
		if err == nil && (ro.Addr == "" || ro.Password != "x" || ro.DB < 0 || (ro.TLSConfig != nil) != strings.HasPrefix(strings.ToLower(url), "rediss:")) {
			t.Errorf("%q: %+v", url, ro)
		}
	})
}
