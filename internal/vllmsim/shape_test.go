package vllmsim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
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
// usage.
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
