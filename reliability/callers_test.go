//go:build reliability

package reliability

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// keyOf and hashOf are the key of a caller, and what the file has of it.
func keyOf(caller string) string { return "vg-the-key-of-" + caller }
func hashOf(caller string) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(keyOf(caller))))
}

// configFile writes a configuration file, and gives its path.
func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	replace(t, path, text)
	return path
}

// replace puts a file in the place of another, in one step.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// seen is what a caller has seen of a request.
type seen struct {
	status             int
	header             http.Header
	body               string // of an error
	prompt, completion int64  // by the usage of the answer
	events             int64  // of a stream, those that had text
	sent, head, end    time.Time
	err                error
}

func (s seen) String() string {
	return fmt.Sprintf("status %d, %d events, after %v: %v %s", s.status, s.events, s.end.Sub(s.sent).Round(time.Millisecond), s.err, s.body)
}

func (s seen) tokens() int64 { return s.prompt + s.completion }

// askAs sends a chat as a caller; on may leave a stream at an event.
func askAs(ctx context.Context, client *http.Client, url, caller, body string, on func(events int64)) (s seen) {
	s.sent = time.Now()
	defer func() { s.end = time.Now() }()
	req, err := http.NewRequestWithContext(ctx, "POST", url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+keyOf(caller))
	resp, err := client.Do(req)
	s.head = time.Now()
	if err != nil {
		s.err = err
		return s
	}
	defer resp.Body.Close()
	s.status, s.header = resp.StatusCode, resp.Header
	lines := bufio.NewReader(resp.Body)
	whole := false
	for {
		line, err := lines.ReadString('\n')
		data, event := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		var c struct {
			Choices []struct{ Delta struct{ Content string } }
			Usage   *struct {
				Prompt     int64 `json:"prompt_tokens"`
				Completion int64 `json:"completion_tokens"`
			}
		}
		switch {
		case s.status != 200:
			s.body += line
		case data == "[DONE]":
			whole = true
		case data != "" && json.Unmarshal([]byte(data), &c) == nil:
			if c.Usage != nil {
				s.prompt, s.completion = c.Usage.Prompt, c.Usage.Completion
				whole = whole || !event
			}
			if event && len(c.Choices) > 0 && c.Choices[0].Delta.Content != "" {
				if s.events++; on != nil {
					on(s.events)
				}
			}
		}
		if err == nil {
			continue
		}
		if err != io.EOF {
			s.err = err
		} else if s.status == 200 && !whole {
			s.err = io.ErrUnexpectedEOF
		}
		return s
	}
}

// chat is the body of a request; more are further members, each with a comma behind it.
func chat(more string) string {
	return `{` + more + `"messages":[{"role":"user","content":"Tell me of the sea, and of those who sail it"}]}`
}

const streamed = `"stream":true,"stream_options":{"include_usage":true},`

// What a billing job reads in the log is what the engine has counted, and what the
// callers have seen: of every request, however it was asked for; and of those whose
// caller has left, no less than the caller has got.
func TestBilling(t *testing.T) {
	const each = 60
	s := sim(t, 1, 2*time.Millisecond)
	path := configFile(t, fmt.Sprintf("backends: [{url: %s}]\nkeys:\n  - {name: alice, hash: %s}\n  - {name: bob, hash: %s}\n  - {name: carol, hash: %s, limits: {requests_per_minute: 1}}\n",
		s.url(), hashOf("alice"), hashOf("bob"), hashOf("carol")))
	g := front(t, nil, "--config", path, "--log-format", "json")
	client := newClient(t, true)
	var mu sync.Mutex
	whole, got := map[string]int64{}, map[string]int64{} // tokens of answers that came whole; events of those that were left
	var left int
	spread(3*each, 8, func(i int) *reply {
		caller := []string{"alice", "bob"}[i%2]
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		var r seen
		switch i % 3 {
		case 0:
			r = askAs(ctx, client, g.url(), caller, chat(streamed+`"max_tokens":40,`), nil)
		case 1:
			r = askAs(ctx, client, g.url(), caller, chat(`"max_tokens":40,`), nil)
		case 2:
			r = askAs(ctx, client, g.url(), caller, chat(streamed+`"max_tokens":2000,"ignore_eos":true,`), func(n int64) {
				if n == int64(i%7)+1 {
					leave()
				}
			})
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.status != 200 || r.err != nil && ctx.Err() == nil:
			t.Errorf("request %d: %v", i, r)
		case r.err != nil:
			left++
			got[caller] += r.events
		default:
			whole[caller] += r.tokens()
		}
		return nil
	})
	for i, want := range []int{200, 429} { // and who is refused pays nothing
		r := askAs(t.Context(), client, g.url(), "carol", chat(`"max_tokens":10,`), nil)
		if r.status != want {
			t.Errorf("carol's request %d: %v", i, r)
		}
		whole["carol"] += r.tokens()
	}
	if r := askAs(t.Context(), client, g.url(), "mallory", chat(""), nil); r.status != 401 {
		t.Errorf("mallory: %v", r)
	}
	until(t, "all are in the log", func() bool { return strings.Count(g.log.String(), `"msg":"request"`) == 3*each+3 })

	told, estimated := map[string]int64{}, map[string]int64{}
	estimates := 0
	for line := range strings.Lines(g.log.String()) {
		var entry struct {
			Msg, Caller string
			Charged     int64 `json:"charged_tokens"`
			Estimated   bool
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("not JSON: %s", line)
		}
		switch {
		case entry.Msg != "request":
		case entry.Estimated:
			estimated[entry.Caller] += entry.Charged
			estimates++
		default:
			told[entry.Caller] += entry.Charged
		}
	}

	m := g.metrics()
	for _, caller := range []string{"alice", "bob", "carol"} {
		label := fmt.Sprintf("caller=%q", caller)
		counted := int64(m.sum("gateway_caller_prompt_tokens_total", label) + m.sum("gateway_caller_completion_tokens_total", label))
		if told[caller] != whole[caller] || counted != whole[caller] || whole[caller] == 0 {
			t.Errorf("%s: %d tokens by the log, %d by /metrics, and the caller saw %d", caller, told[caller], counted, whole[caller])
		}
		if caller != "carol" && estimated[caller] <= got[caller] {
			t.Errorf("%s: left with %d tokens and was charged %d, which are not even these and the prompts", caller, got[caller], estimated[caller])
		}
		figure(t, "%s: %d tokens by the log, %d by /metrics, %d seen; where the caller left: %d charged, %d seen", caller, told[caller], counted, whole[caller], estimated[caller], got[caller])
	}
	if told["anonymous"] != 0 || estimates != left || left < each*9/10 { // some end whole between an event and the leaving
		t.Errorf("nobody in particular is charged %d; %d estimates, and %d were left of %d", told["anonymous"], estimates, left, each)
	}
}

// A file of many keys (100,000; KEYS= for another number): what it costs to check it, to
// start with it and to load it again; and that its keys hold.
func TestManyKeys(t *testing.T) {
	many := number(t, "KEYS", 100_000)
	s := sim(t, 1, time.Millisecond)
	client := newClient(t, true)
	table := []string{fmt.Sprintf("%8s %10s %13s %10s %10s %11s %10s %10s %12s %10s", "keys", "file", "check-config", "start", "RSS", "peak of it", "reload", "CPU", "peak of it", "RSS after")}
	for _, n := range []int{2, many} {
		text := func(last string) string {
			var b bytes.Buffer
			fmt.Fprintf(&b, "backends: [{url: %s}]\nlimits: {requests_per_minute: 600, tokens_per_day: 5000000}\nkeys:\n", s.url())
			for i := range n - 1 {
				fmt.Fprintf(&b, "  - name: caller-%d\n    hash: %s\n    limits: {tokens_per_minute: %d}\n", i, hashOf(fmt.Sprint("caller-", i)), 100_000+i)
			}
			fmt.Fprintf(&b, "  - name: last\n    hash: %s\n", hashOf(last))
			return b.String()
		}
		path := configFile(t, text("one"))
		began := time.Now()
		out, err := exec.Command(filepath.Join(binaries, "vllm-gateway"), "check-config", path).CombinedOutput()
		checked := time.Since(began)
		if want := fmt.Sprintf("%s: ok: 1 backend, %d keys\n", path, n); err != nil || string(out) != want {
			t.Fatalf("check-config: %v, %q; want %q", err, out, want)
		}

		began = time.Now()
		g := &gateway{process: launch(t, "vllm-gateway", "--config", path)}
		until(t, "the gateway is well", func() bool { return g.health().Status == "ok" })
		started := time.Since(began)
		rss, _ := g.memory()
		startPeak := g.peak()
		as := func(caller string) int {
			return askAs(t.Context(), client, g.url(), caller, chat(streamed+`"max_tokens":5,`), nil).status
		}
		valid := func(last, former string) {
			t.Helper()
			for caller, want := range map[string]int{"caller-0": 200, fmt.Sprint("caller-", (n-1)/2): 200, fmt.Sprint("caller-", n-2): 200, fmt.Sprint("caller-", n-1): 401, last: 200, former: 401} {
				if n == 2 && caller == "caller-1" {
					continue
				}
				if got := as(caller); got != want {
					t.Errorf("with %d keys, %s: %d; want %d", n, caller, got, want)
				}
			}
		}
		valid("one", "two")

		var reloaded time.Duration
		var cpu float64
		names := []string{"one", "two"}
		for nth := range 3 { // the last one is measured
			last := names[(nth+1)%2]
			replace(t, path, text(last))
			g.forgetPeak()
			cpu = g.metrics().sum("process_cpu_seconds_total")
			began = time.Now()
			g.cmd.Process.Signal(syscall.SIGHUP)
			until(t, "it is loaded", func() bool { return strings.Count(g.log.String(), "configuration reloaded") == nth+1 })
			reloaded = time.Since(began)
			cpu = g.metrics().sum("process_cpu_seconds_total") - cpu
		}
		reloadPeak := g.peak()
		valid("two", "one")
		// What has been let go goes back to the system bit by bit.
		<-time.After(5 * time.Second)
		after, _ := g.memory()
		if limit := 512 << 10; after > limit || reloadPeak > 2*limit {
			t.Errorf("with %d keys %d MiB are resident, and %d were while loading", n, after>>10, reloadPeak>>10)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		mib := func(kib int) string { return fmt.Sprintf("%.0f MiB", float64(kib)/1024) }
		ms := func(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
		table = append(table, fmt.Sprintf("%8d %10s %13s %10s %10s %11s %10s %10s %12s %10s", n, mib(int(info.Size()>>10)), ms(checked), ms(started), mib(rss), mib(startPeak),
			ms(reloaded), fmt.Sprintf("%.2f s", cpu), mib(reloadPeak), mib(after)))
		g.kill()
	}
	for _, row := range table {
		figure(t, "%s", row)
	}
}

// peak gives the most that was resident, in KiB, since forgetPeak.
func (p *process) peak() int {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kib, _, _ := strings.Cut(rest, "kB")
	n, err := strconv.Atoi(strings.TrimSpace(kib))
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

func (p *process) forgetPeak() {
	p.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		p.t.Fatal(err)
	}
}
