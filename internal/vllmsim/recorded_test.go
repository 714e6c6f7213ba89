package vllmsim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
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

// shape is what of an answer must be the same from every server, by lines.
func (e exchange) shape(t *testing.T) []string {
	t.Helper()
	lines := []string{fmt.Sprintf("status %d", e.status)}
	for _, name := range slices.Sorted(maps.Keys(e.answer)) {
		value := e.answer.Get(name)
		switch name {
		case "Content-Length":
			value = "given"
		case "Location":
			value = anyHost.ReplaceAllString(value, "http://HOST")
		}
		lines = append(lines, strings.ToLower(name)+": "+value)
	}
	switch kind := e.answer.Get("Content-Type"); {
	case e.path == "/metrics":
		lines = append(lines, metricShapes(e.text)...)
	case strings.HasPrefix(kind, "text/event-stream"):
		lines = append(lines, eventShapes(e.text)...)
	case kind == "application/json":
		lines = append(lines, jsonShape("", e.text)...)
	default:
		lines = append(lines, e.text)
	}
	if e.anyLength || e.leave > 0 || strings.Contains(e.body, "continuous_usage_stats") {
		for i, line := range lines {
			lines[i] = tokensSaid.ReplaceAllString(line, "$1 integer")
		}
	}
	for line := range strings.Lines(e.metrics) {
		// The parsers' own counter is one of the things that docs/simulator.md
		// calls absent.
		if !strings.HasPrefix(line, "vllm:tool_call_parser_invocations") {
			lines = append(lines, "metric "+strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// tokensSaid is chance's in some answers, and in each chunk where every chunk has
// usage. The stop string that was met is chance's, too.
var tokensSaid = regexp.MustCompile(`((?:completion|output)_tokens) \d+$`)

// consistent checks what must hold within every answer, whoever gives it.
func (e exchange) consistent(t *testing.T, who string) {
	t.Helper()
	ids, sequence, ends := map[string]bool{}, 0.0, 0
	see := func(text string) {
		var v map[string]any
		if json.Unmarshal([]byte(text), &v) != nil {
			return
		}
		usage, _ := v["usage"].(map[string]any)
		if response, ok := v["response"].(map[string]any); ok {
			usage, _ = response["usage"].(map[string]any)
		}
		number := func(names ...string) (sum float64) {
			for _, name := range names {
				n, _ := usage[name].(float64)
				sum += n
			}
			return sum
		}
		if total, ok := usage["total_tokens"]; ok && total != number("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens") {
			t.Errorf("%s: usage does not add up: %v", who, usage)
		}
		if id, ok := v["id"].(string); ok {
			ids[id] = true
		}
		if n, ok := v["sequence_number"]; ok {
			if n != sequence {
				t.Errorf("%s: sequence_number %v; want %v", who, n, sequence)
			}
			sequence++
		}
	}
	if !strings.HasPrefix(e.answer.Get("Content-Type"), "text/event-stream") {
		see(e.text)
		return
	}
	for line := range strings.Lines(e.text) {
		data, _ := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		see(data)
		if data == "[DONE]" || strings.HasSuffix(data, `"type":"message_stop"}`) || strings.HasSuffix(data, `"type":"response.completed"}`) {
			ends++
		}
	}
	if len(ids) > 1 || e.leave == 0 && ends != 1 {
		t.Errorf("%s: ids %v, %d end marks", who, ids, ends)
	}
}

// eventShapes gives each event's shape, once where several in a row have it.
// Answers to one prompt take turns as luck has it, so those of one choice come
// together.
func eventShapes(text string) []string {
	events := strings.SplitAfter(text, "\n\n")
	slices.SortStableFunc(events, func(a, b string) int { return choiceOf(a) - choiceOf(b) })
	var lines []string
	last := ""
	for _, event := range events {
		var shape []string
		for line := range strings.Lines(event) {
			line = strings.TrimSuffix(line, "\n")
			data, ok := strings.CutPrefix(line, "data: ")
			if ok && strings.HasPrefix(data, "{") {
				shape = append(shape, "data:")
				shape = append(shape, jsonShape("  ", data)...)
			} else if line != "" {
				shape = append(shape, line)
			}
		}
		if !strings.HasSuffix(event, "\n\n") && event != "" {
			shape = append(shape, "no empty line at the end")
		}
		if now := strings.Join(shape, "\n"); now != last {
			lines, last = append(lines, shape...), now
		}
	}
	return lines
}

// choiceOf is the index of an event's choice; an event without one comes last.
func choiceOf(event string) int {
	if found := choiceIndex.FindStringSubmatch(event); found != nil {
		index, _ := strconv.Atoi(found[1])
		return index
	}
	return math.MaxInt
}

var choiceIndex = regexp.MustCompile(`"choices":\[\{"index":(\d+)`)

// metricShapes is the name, type and labels of every series of vLLM's own, and
// the edges of buckets. What Python's client and its HTTP middleware add is left
// out: process_*, python_*, http_* and the _created samples.
func metricShapes(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		family, isType := strings.CutPrefix(line, "# TYPE ")
		name := family
		if !isType {
			name = line[:max(0, strings.LastIndex(line, " "))]
			name = edge.ReplaceAllStringFunc(name, func(le string) string {
				v, _ := strconv.ParseFloat(le[len(`le="`):len(le)-1], 64)
				return fmt.Sprintf(`le="%v"`, v)
			})
			name = anyCache.ReplaceAllString(name, "vllm:cache_config_info")
			if bare, labels, ok := strings.Cut(strings.TrimSuffix(name, "}"), "{"); ok {
				sorted := slices.Sorted(strings.SplitSeq(labels, ","))
				name = bare + "{" + strings.Join(sorted, ",") + "}"
			}
		}
		if strings.HasPrefix(name, "vllm:") && !strings.Contains(name, "_created") && !strings.Contains(name, "tool_call_parser") {
			lines = append(lines, strings.TrimSpace(name))
		}
	}
	slices.Sort(lines)
	return lines
}

var (
	edge     = regexp.MustCompile(`le="[^"]*"`)
	anyCache = regexp.MustCompile(`vllm:cache_config_info.*`) // its labels are the engine's configuration
)

// jsonShape is a line for each field: its path and type, or its value where that
// is one of a known few.
func jsonShape(indent, text string) []string {
	var lines []string
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(text)); err != nil {
		return []string{indent + "not JSON: " + err.Error()}
	}
	if compact.String() != text {
		lines = append(lines, indent+"with spaces")
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return append(lines, valueShape(d, indent, "")...)
}

// valueShape reads one value.
func valueShape(d *json.Decoder, indent, path string) []string {
	token, err := d.Token()
	if err != nil {
		return []string{indent + path + " broken: " + err.Error()}
	}
	line := func(format string, args ...any) []string {
		return []string{indent + path + " " + fmt.Sprintf(format, args...)}
	}
	switch v := token.(type) {
	case json.Delim:
		var lines []string
		if v == '[' {
			// Of elements of the same shape one speaks for all.
			seen, n := map[string]bool{}, 0
			for d.More() {
				n++
				element := valueShape(d, indent, path+"[]")
				if key := strings.Join(element, "\n"); !seen[key] {
					seen[key], lines = true, append(lines, element...)
				}
			}
			if n > 0 && (path == ".choices" || path == ".data") {
				lines = append(lines, line("has %d", n)...)
			}
		} else {
			for d.More() {
				key, _ := d.Token()
				name := fmt.Sprint(key)
				if strings.HasSuffix(path, "top_logprobs[]") && !slices.Contains([]string{"token", "logprob", "bytes"}, name) ||
					strings.HasSuffix(path, "prompt_logprobs[]") {
					name = "TOKEN" // tokens, or their ids, for keys
				}
				for _, l := range valueShape(d, indent, path+"."+name) {
					if !strings.Contains(l, ".TOKEN") || !slices.Contains(lines, l) {
						lines = append(lines, l)
					}
				}
			}
		}
		d.Token()
		if strings.HasSuffix(path, ".input") { // a tool's: the model's own words
			return line("object")
		}
		if lines == nil {
			return line("%c%c", v, v+2)
		}
		return lines
	case json.Number:
		if exact.MatchString(path[strings.LastIndex(path, ".")+1:]) {
			return line("%s", v)
		}
		if strings.ContainsAny(v.String(), ".eE") {
			return line("float")
		}
		return line("integer")
	case string:
		switch name := path[strings.LastIndex(path, ".")+1:]; {
		case v == "":
			return line(`""`)
		case freeText.MatchString(name):
			return line("text")
		default:
			v = anyHex.ReplaceAllStringFunc(v, func(hex string) string { return fmt.Sprintf("HEX%d", len(hex)) })
			return line("%q", anyNumber.ReplaceAllString(v, "N"))
		}
	default:
		return line("%v", v)
	}
}

var (
	// exact are numbers that do not depend on the tokenizer.
	exact = regexp.MustCompile(`^(code|index|(output|content)_index|(completion|output|reasoning)_tokens|max_(model_len|output_tokens|tokens)|temperature|top_p|(presence|frequency)_penalty)$`)
	// freeText are fields of which a server may say what it likes.
	freeText  = regexp.MustCompile(`^(content|text|embedding|reasoning|delta|token|decoded_token|tokens\[\]|arguments|partial_json|thinking|prompt|token_strs\[\]|TOKEN|stop_sequence|prompt_text)$`)
	anyHost   = regexp.MustCompile(`^http://[^/]*`)
	anyHex    = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8,}`)
	anyNumber = regexp.MustCompile(`\b\d+\b`)
)

// difference is what a patch would say: lines that only one side has, in order.
func difference(a, b []string) string {
	// most[i][j] is how many lines a[i:] and b[j:] share in order.
	most := make([][]int, len(a)+1)
	for i := range most {
		most[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				most[i][j] = most[i+1][j+1] + 1
			} else {
				most[i][j] = max(most[i+1][j], most[i][j+1])
			}
		}
	}
	var out []string
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && most[i+1][j] >= most[i][j+1]:
			out = append(out, "- "+a[i])
			i++
		default:
			out = append(out, "+ "+b[j])
			j++
		}
	}
	return strings.Join(out, "\n")
}
