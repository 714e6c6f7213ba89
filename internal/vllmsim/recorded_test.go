package vllmsim

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var record = flag.String("record", "", "URL of a real vLLM: write what it answers to vllm/recorded instead of comparing")

// TestRecorded sends the requests of vllm/recorded to the simulator and holds
// its answers to those of a real vLLM: status, headers, names, types and order
// of fields, order of events, and how counters move. vllm/README.md says how a
// recording is made. What differs on purpose stands in the recording itself,
// with the reason.
func TestRecorded(t *testing.T) {
	for folder, cfg := range map[string]Config{
		"generate": {Models: []string{"tiny"}, MaxModelLen: 2048},
		"embed":    {Models: []string{"tiny"}, MaxModelLen: 2048},
		"key":      {Models: []string{"tiny"}, MaxModelLen: 2048, APIKeys: []string{"secret"}},
	} {
		t.Run(folder, func(t *testing.T) {
			files, err := filepath.Glob("../../vllm/recorded/" + folder + "/*.http")
			if err != nil || len(files) == 0 {
				t.Fatalf("no recordings: %v", err)
			}
			for _, file := range files {
				t.Run(strings.TrimSuffix(filepath.Base(file), ".http"), func(t *testing.T) {
					e := readExchange(t, file)
					if *record != "" {
						e.play(t, http.DefaultClient, *record, func() { settle(t, *record) })
						e.write(t, file)
						return
					}
					real := e
					inBubble(t, cfg, func(t *testing.T, b *bubble) {
						e.play(t, b.client, "http://sim:8000", func() {
							time.Sleep(time.Minute) // of the bubble: whatever runs has ended
							synctest.Wait()
						})
					})
					real.consistent(t, "vLLM")
					e.consistent(t, "simulator")
					got := difference(real.shape(t), e.shape(t))
					if got != e.differs {
						if *update {
							e = real
							e.differs = got
							e.write(t, file)
							return
						}
						t.Errorf("- is vLLM's, + the simulator's. Found:\n%s\nknown:\n%s", got, e.differs)
					}
					if got != "" && strings.TrimSpace(e.reason) == "" {
						t.Error("no reason is given for what differs: ### differs: REASON")
					}
				})
			}
		})
	}
}

// An exchange is one file of vllm/recorded: parts, each under a line with ###.
type exchange struct {
	comment         string // lines with #
	method, path    string
	header          http.Header
	body            string
	leave           int  // the client leaves after so many events; 0: it stays
	anyLength       bool // chance decides how many tokens the answer has
	status          int
	answer          http.Header
	text            string
	metrics         string // what moved
	reason, differs string // known differences, and why
}

func readExchange(t *testing.T, file string) (e exchange) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n### ") {
		title, rest, _ := strings.Cut(part, "\n")
		switch {
		case i == 0:
			for strings.HasPrefix(part, "#") {
				title, part, _ = strings.Cut(part, "\n")
				e.comment += title + "\n"
				if n, ok := strings.CutPrefix(title, "# leave after "); ok {
					e.leave, err = strconv.Atoi(n)
				}
				e.anyLength = e.anyLength || title == "# of any length"
			}
			head, body, _ := strings.Cut(part, "\n\n")
			first, head, _ := strings.Cut(head, "\n")
			e.method, e.path, _ = strings.Cut(first, " ")
			e.header, e.body = readHeader(head), body
		case strings.HasPrefix(title, "answer "):
			e.status, err = strconv.Atoi(strings.TrimPrefix(title, "answer "))
			head, body, _ := strings.Cut(rest, "\n\n")
			e.answer, e.text = readHeader(head), body
		case title == "metrics":
			e.metrics = rest
		case strings.HasPrefix(title, "differs: "):
			e.reason, e.differs = strings.TrimPrefix(title, "differs: "), rest
		default:
			t.Fatalf("%s: a part named %q", file, title)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	return e
}

func readHeader(text string) http.Header {
	h := http.Header{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		h.Add(name, value)
	}
	return h
}

func (e exchange) write(t *testing.T, file string) {
	var out bytes.Buffer
	head := func(h http.Header) {
		for _, name := range slices.Sorted(maps.Keys(h)) {
			for _, value := range h[name] {
				fmt.Fprintf(&out, "%s: %s\n", name, value)
			}
		}
	}
	fmt.Fprintf(&out, "%s%s %s\n", e.comment, e.method, e.path)
	head(e.header)
	fmt.Fprintf(&out, "\n%s\n### answer %d\n", e.body, e.status)
	head(e.answer)
	fmt.Fprintf(&out, "\n%s\n", e.text)
	if e.metrics != "" {
		fmt.Fprintf(&out, "### metrics\n%s\n", e.metrics)
	}
	if e.differs != "" {
		fmt.Fprintf(&out, "### differs: %s\n%s\n", e.reason, e.differs)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// play sends the request and keeps what is answered. rest returns when the
// server has nothing left to do.
func (e *exchange) play(t *testing.T, client *http.Client, url string, rest func()) {
	t.Helper()
	rest()
	before := samples(t, client, url)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, e.method, url+e.path, strings.NewReader(e.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = e.header.Clone()
	if req.Header.Get("Accept-Encoding") == "" {
		req.Header.Set("Accept-Encoding", "identity")
	}
	direct := *client
	direct.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := direct.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	e.status, e.answer = resp.StatusCode, resp.Header
	e.answer.Del("Date")
	if len(resp.TransferEncoding) > 0 {
		e.answer.Set("Transfer-Encoding", resp.TransferEncoding[0])
	}
	e.text = readEvents(t, resp.Body, e.leave)
	leave()
	rest()
	e.metrics = e.moved(before, samples(t, client, url))
}

// readEvents reads all, or so many events.
func readEvents(t *testing.T, body io.Reader, most int) string {
	t.Helper()
	if most == 0 {
		text, err := io.ReadAll(body)
		if err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		return string(text)
	}
	var text strings.Builder
	for lines := bufio.NewReader(body); most > 0; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", text.String(), err)
		}
		text.WriteString(line)
		if line == "\n" {
			most--
		}
	}
	return text.String()
}

// settle waits until nothing has moved in a real server for 200 ms.
func settle(t *testing.T, url string) {
	t.Helper()
	seen, since := "", time.Now()
	for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(20 * time.Millisecond) {
		now := fmt.Sprint(samples(t, http.DefaultClient, url))
		if now != seen {
			seen, since = now, time.Now()
		} else if time.Since(since) > 200*time.Millisecond {
			return
		}
	}
	t.Fatal("the server's metrics move although nothing is asked of it")
}

// samples are vLLM's counters, and the counts and sums of its histograms, but
// for times. Gauges are no news: they are back where they were.
func samples(t *testing.T, client *http.Client, url string) map[string]float64 {
	t.Helper()
	resp, err := client.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		series, value, _ := strings.Cut(line, "} ")
		name, labels, _ := strings.Cut(series, "{")
		if !strings.HasPrefix(name, "vllm:") || strings.HasSuffix(name, "seconds_sum") ||
			!strings.HasSuffix(name, "_total") && !strings.HasSuffix(name, "_count") && !strings.HasSuffix(name, "_sum") {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		kept := slices.DeleteFunc(strings.Split(labels, ","), func(l string) bool {
			return strings.HasPrefix(l, "engine=") || strings.HasPrefix(l, "model_name=")
		})
		found[name+"{"+strings.Join(kept, ",")+"}"] = v
	}
	return found
}

// moved lists what grew. How many tokens a prompt has is the tokenizer's
// business, and how many steps two sequences take together is a matter of luck,
// so that such a counter moved is all that is told. What the prefix cache had
// depends on earlier requests, and is left out.
func (e *exchange) moved(before, after map[string]float64) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(after)) {
		by := after[name] - before[name]
		switch {
		case by == 0 || ofCache.MatchString(name):
		case ofPrompt.MatchString(name) || (e.anyLength || e.leave > 0) && ofAnswer.MatchString(name):
			list = append(list, name+" moved")
		default:
			list = append(list, fmt.Sprintf("%s +%v", name, by))
		}
	}
	return strings.Join(list, "\n")
}

var (
	ofCache  = regexp.MustCompile(`prompt_tokens_(cached|by_source)|prefix_cache_hits|estimated_`)
	ofPrompt = regexp.MustCompile(`prompt_tokens_(total|sum)|prefill_kv_computed_tokens_sum|prefix_cache_queries|iteration_tokens_total`)
	ofAnswer = regexp.MustCompile(`generation_tokens_(total|sum)|inter_token_latency_seconds_count`)
)
