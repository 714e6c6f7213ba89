package openai

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

// An exchange is what vllm/recorded holds of one: a request, and what a real
// vLLM answered (vllm/README.md).
type exchange struct {
	path, body string
	left       bool // the client left before the end
	status     int
	stream     bool
	answer     string
	generated  string // tokens by the engine's own metric; empty where it is left open
}

func recordings(t *testing.T) map[string]exchange {
	t.Helper()
	files, err := filepath.Glob("../../vllm/recorded/generate/*.http")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	all := map[string]exchange{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		request, rest, answered := strings.Cut(strings.TrimSuffix(string(text), "\n"), "\n### answer ")
		if !answered {
			continue // a request that is still to be recorded
		}
		var e exchange
		for strings.HasPrefix(request, "#") {
			var comment string
			comment, request, _ = strings.Cut(request, "\n")
			e.left = e.left || strings.HasPrefix(comment, "# leave after")
		}
		head, body, _ := strings.Cut(request, "\n\n")
		first, _, _ := strings.Cut(head, "\n")
		_, e.path, _ = strings.Cut(first, " ")
		e.body = body
		answer, rest, _ := strings.Cut(rest, "\n### ")
		metrics, _, _ := strings.Cut(rest, "\n### ")
		head, e.answer, _ = strings.Cut(answer, "\n\n")
		status, _, _ := strings.Cut(head, "\n")
		if e.status, err = strconv.Atoi(status); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		e.stream = strings.Contains(head, "Content-Type: text/event-stream")
		if m := generated.FindStringSubmatch(metrics); m != nil {
			e.generated = m[1]
		}
		all[strings.TrimSuffix(filepath.Base(file), ".http")] = e
	}
	return all
}

var generated = regexp.MustCompile(`vllm:generation_tokens_total\{\} \+(\d+)`)

var dialects = map[string]Dialect{
	"/v1/chat/completions": Chat, "/v1/completions": Completions, "/v1/responses": Responses, "/v1/messages": Messages,
}

// spoken is an event as an ordinary client decodes it, of any dialect.
type spoken struct {
	Type    string
	Choices []struct {
		Text  string
		Delta struct {
			Content, Reasoning string
			ToolCalls          []any `json:"tool_calls"`
		}
		FinishReason string `json:"finish_reason"`
	}
	Delta json.RawMessage
	Item  struct{ Type string }
	Block struct{ Type string } `json:"content_block"`

	Usage    *counts
	Message  struct{ Usage *counts }
	Response struct {
		ID    string
		Usage *counts
	}
}

type counts struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Input      int `json:"input_tokens"`
	Output     int `json:"output_tokens"`
}

// fact is what the event must mean to the gateway.
func (s spoken) fact() (f Fact) {
	for _, c := range s.Choices {
		said := c.Text + c.Delta.Content + c.Delta.Reasoning
		f.Token = f.Token || said != "" || len(c.Delta.ToolCalls) > 0
		f.Finish = f.Finish || c.FinishReason != ""
	}
	switch s.Type {
	case "response.output_item.added":
		f.Token = s.Item.Type == "function_call"
	case "response.output_text.delta", "response.function_call_arguments.delta":
		f.Token = string(s.Delta) != `""`
	case "content_block_start":
		f.Token = s.Block.Type == "tool_use"
	case "content_block_delta":
		f.Token = true // vLLM sends none that is empty
	case "response.completed":
		f.Finish, f.End = true, true
	case "message_delta":
		f.Finish = true
	case "message_stop":
		f.End = true
	}
	return f
}

// Every stream that a real vLLM sent is read as an ordinary client reads it.
func TestRecordedStreams(t *testing.T) {
	found := map[Dialect]int{}
	for name, e := range recordings(t) {
		if !e.stream {
			continue
		}
		t.Run(name, func(t *testing.T) {
			s := Stream{Dialect: dialects[e.path]}
			found[s.Dialect]++
			var want Usage
			var id string
			tokens, ends := 0, 0
			var cut Events
			source := iotest.OneByteReader(strings.NewReader(e.answer))
			for n := 0; ; {
				p := cut.Next()
				if p.Bytes == nil {
					if cut.fill(source) != nil {
						break
					}
					continue
				}
				n++
				if ends > 0 {
					t.Errorf("event %d comes after the end: %s", n, p.Bytes)
				}
				_, data, _ := strings.Cut(string(p.Bytes), "data: ")
				var event spoken
				wanted := Fact{End: data == "[DONE]\n\n"}
				if !wanted.End {
					if err := json.Unmarshal([]byte(data), &event); err != nil {
						t.Fatalf("event %d, %q: %v", n, p.Bytes, err)
					}
					wanted = event.fact()
				}
				for _, u := range []*counts{event.Usage, event.Message.Usage, event.Response.Usage} {
					if u != nil {
						// What a message has cost is said at its end; 0 stands there at first.
						want = Usage{u.Prompt + u.Input, u.Completion + u.Output, true, event.Type != "message_start"}
					}
				}
				if event.Response.ID != "" { // on three events of a stream, always the same
					id = event.Response.ID
				}
				got := s.Read(p)
				if got != wanted || s.Usage != want {
					t.Errorf("event %d, %s: %+v, %+v; want %+v, %+v", n, data, got, s.Usage, wanted, want)
				}
				if s.ID != id || s.Dialect == Responses && id == "" {
					t.Errorf("event %d: ID %q; want %q", n, s.ID, id)
				}
				if got.Token {
					tokens++
				}
				if got.End {
					ends++
				}
			}
			if rest := cut.Rest(); len(rest.Bytes) > 0 {
				t.Errorf("%q is left", rest.Bytes)
			}
			if e.left != (ends == 0) {
				t.Errorf("%d ends; the client left: %v", ends, e.left)
			}
			if e.generated == "" {
				return
			}
			// The engine's own count: a token is an event unless the engine made
			// several at once, or a stop string swallowed it. A prompt that comes
			// back (echo), and the name of a tool, take an event each.
			engine, _ := strconv.Atoi(e.generated)
			if s.Usage.HasCompletion && s.Usage.Completion != engine {
				t.Errorf("usage %+v; the engine counted %d", s.Usage, engine)
			}
			if tokens > engine+1 {
				t.Errorf("%d events bear tokens; the engine counted %d", tokens, engine)
			}
			if plain.MatchString(name) && tokens != engine {
				t.Errorf("%d events bear tokens; the engine counted %d", tokens, engine)
			}
		})
	}
	for path, d := range dialects {
		if found[d] < 4 {
			t.Errorf("%d streams of %s; want some", found[d], path)
		}
	}
}

// plain are streams of text in which each token has an event.
var plain = regexp.MustCompile(`^(chat|completions|responses|messages)(-stream|-stream-usage|-logprobs-stream|-n2-stream|-system-stream|-instructions-stream)$`)

// Only the chunk that brings nothing but usage is taken out of a client's
// stream, and where the usage is on every chunk, none is.
func TestRecordedExtraChunk(t *testing.T) {
	all := recordings(t)
	for name, want := range map[string]int{
		"chat-stream-usage": 1, "completions-stream-usage": 1, "chat-tools-required-stream-usage": 1, "chat-n2-stream-usage": 1,
		"chat-stream": 0, "completions-stream": 0, "chat-stream-usage-continuous": 0, "completions-stream-usage-continuous": 0,
	} {
		e, ok := all[name]
		if !ok {
			t.Errorf("no recording %s", name)
		}
		s := Stream{Dialect: dialects[e.path], Asked: true}
		extra := 0
		for _, event := range strings.SplitAfter(e.answer, "\n\n") {
			if !s.readEvent([]byte(event)).Extra {
				continue
			}
			if extra++; !strings.Contains(event, `"choices":[]`) {
				t.Errorf("%s: %s would be taken out", name, event)
			}
		}
		if extra != want {
			t.Errorf("%s: %d events would be taken out; want %d", name, extra, want)
		}
	}
}

// Answers in one piece, too, are read as an ordinary client reads them.
func TestRecordedAnswers(t *testing.T) {
	checked := 0
	for name, e := range recordings(t) {
		if _, generates := dialects[e.path]; !generates || e.stream || e.status != 200 {
			continue
		}
		var whole struct {
			ID    string
			Usage *counts
		}
		if err := json.Unmarshal([]byte(e.answer), &whole); err != nil || whole.Usage == nil {
			t.Errorf("%s: %v, usage %v", name, err, whole.Usage)
			continue
		}
		b := Body{Dialect: dialects[e.path]}
		b.Write([]byte(e.answer))
		if id := whole.ID; b.Dialect == Responses && (id == "" || b.ID != id) || b.Dialect != Responses && b.ID != "" {
			t.Errorf("%s: ID %q of %q", name, b.ID, id)
		}
		want := Usage{whole.Usage.Prompt + whole.Usage.Input, whole.Usage.Completion + whole.Usage.Output, true, true}
		if b.Usage != want || !b.Whole() {
			t.Errorf("%s: %+v, whole %v; want %+v", name, b.Usage, b.Whole(), want)
		}
		if e.generated != "" && e.generated != strconv.Itoa(b.Usage.Completion) {
			t.Errorf("%s: usage %+v; the engine counted %s", name, b.Usage, e.generated)
		}
		checked++
	}
	if checked < 50 {
		t.Errorf("%d answers; want more", checked)
	}
}

// A body says of a stream what vLLM makes of it.
func TestRecordedPeek(t *testing.T) {
	for name, e := range recordings(t) {
		if _, generates := dialects[e.path]; !generates || e.status != 200 {
			continue
		}
		if got := Peek([]byte(e.body)); got.Stream != e.stream {
			t.Errorf("%s: Stream = %v; vLLM streamed: %v", name, got.Stream, e.stream)
		}
	}
}
