package vllmsim

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is seen to testdata instead of comparing")

// The exact bytes of small answers. The files are the review of a change to the
// wire format: go test ./internal/vllmsim -update, then read the diff.
func TestGoldenAnswers(t *testing.T) {
	const hi = `"messages":[{"role":"user","content":"hi <there>"}],"max_tokens":4,"seed":1`
	const tools = `"tools":[{"type":"function","function":{"name":"get_weather","parameters":{"type":"object","properties":{"city":{"type":"string"}}}}}]`
	for _, test := range []struct{ name, path, body string }{
		{"chat", "/v1/chat/completions", `{` + hi + `}`},
		{"chat-stream", "/v1/chat/completions", `{` + hi + `,"stream":true}`},
		{"chat-stream-usage", "/v1/chat/completions", `{` + hi + `,"stream":true,"stream_options":{"include_usage":true}}`},
		{"chat-stream-continuous", "/v1/chat/completions", `{` + hi + `,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`},
		{"chat-stream-reasoning", "/v1/chat/completions", `{` + hi + `,"stream":true,"chat_template_kwargs":{"enable_thinking":true},"stream_options":{"include_usage":true}}`},
		{"chat-stream-tool", "/v1/chat/completions", `{"messages":[{"role":"user","content":"hi"}],"seed":1,"stream":true,"tool_choice":"required",` + tools + `}`},
		{"chat-tool-named", "/v1/chat/completions", `{"messages":[{"role":"user","content":"hi"}],"seed":1,"tool_choice":{"type":"function","function":{"name":"get_weather"}},` + tools + `}`},
		{"chat-stream-n2-logprobs", "/v1/chat/completions", `{"messages":[{"role":"user","content":"hi"}],"max_tokens":2,"seed":1,"n":2,"logprobs":true,"top_logprobs":1,"stream":true}`},
		{"completions", "/v1/completions", `{"prompt":"Once upon","max_tokens":3,"seed":1,"logprobs":1}`},
		{"completions-stream-usage", "/v1/completions", `{"prompt":"Once upon","max_tokens":3,"seed":1,"stream":true,"stream_options":{"include_usage":true}}`},
		{"responses-stream", "/v1/responses", `{"input":"hi","max_output_tokens":2,"temperature":0,"stream":true}`},
		{"messages-stream", "/v1/messages", `{"model":"` + DefaultModel + `","messages":[{"role":"user","content":"hi"}],"max_tokens":2,"temperature":0,"stream":true}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, b *bubble) {
				status, got := b.call("POST", test.path, test.body, "X-Request-Id", "golden")
				if status != 200 {
					t.Fatalf("status %d: %s", status, got)
				}
				compare(t, filepath.Join("testdata", test.name+".txt"), got)
			})
		})
	}
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n got %s\nwant %s", file, got, want)
	}
}

// What goes wrong before a stream begins is plain JSON with its status, whether
// or not a stream was asked for.
func TestErrors(t *testing.T) {
	const chat, completions = "/v1/chat/completions", "/v1/completions"
	const msgs = `"messages":[{"role":"user","content":"hi"}]`
	long := strings.Repeat("word ", 3000)
	for _, test := range []struct {
		name, path, body string
		status           int
		kind, param      string
		message          string
	}{
		{"unknown model", chat, `{"model":"x",` + msgs + `}`, 404, "NotFoundError", "model", "The model `x` does not exist."},
		{"unknown model, stream", chat, `{"model":"x","stream":true,` + msgs + `}`, 404, "NotFoundError", "model", "The model `x` does not exist."},
		{"bad JSON", chat, `{"messages":`, 400, "Bad Request", "body.12", "json_invalid"},
		{"a list for a body", chat, `[]`, 400, "Bad Request", "body", "Input should be a valid dictionary"},
		{"no messages", chat, `{}`, 400, "Bad Request", "body.messages", "Field required"},
		{"messages of a wrong type", chat, `{"messages":"hi"}`, 400, "Bad Request", "body.messages", "Input should be a valid list"},
		{"max_tokens of a wrong type", chat, `{"max_tokens":"9",` + msgs + `}`, 400, "Bad Request", "body.max_tokens", "Input should be a valid integer"},
		{"empty messages", chat, `{"messages":[]}`, 400, "BadRequestError", "", "The decoder prompt cannot be empty"},
		{"an image", chat, `{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, 400, "BadRequestError", "", "is not a multimodal model"},
		{"stream_options without stream", chat, `{"stream_options":{"include_usage":true},` + msgs + `}`, 400, "Bad Request", "stream_options", "Stream options can only be defined when `stream=True`."},
		{"no tokens", chat, `{"max_tokens":0,` + msgs + `}`, 400, "BadRequestError", "max_tokens", "max_tokens must be at least 1, got 0."},
		{"no answers", chat, `{"n":0,` + msgs + `}`, 400, "BadRequestError", "n", "n must be at least 1, got 0."},
		{"temperature", chat, `{"temperature":-1,` + msgs + `}`, 400, "BadRequestError", "temperature", "temperature must be non-negative"},
		{"tool_choice without tools", chat, `{"tool_choice":"auto",` + msgs + `}`, 400, "Bad Request", "tool_choice", "`tools` must be set"},
		{"no such tool", chat, `{"tool_choice":{"function":{"name":"g"}},"tools":[{"type":"function","function":{"name":"f"}}],` + msgs + `}`, 400, "Bad Request", "tool_choice", "does not match any"},
		{"prompt too long", completions, `{"prompt":"` + long + `","stream":true}`, 400, "BadRequestError", "input_tokens", "the model's context length is only 2048 tokens"},
		{"answer too long", completions, `{"prompt":"hi","max_tokens":2048}`, 400, "BadRequestError", "input_tokens", "resulting in a maximum input length of 0 tokens"},
		{"no prompt", completions, `{}`, 400, "Bad Request", "prompt", "Either prompt or prompt_embeds must be provided"},
		{"no input", "/v1/embeddings", `{}`, 400, "Bad Request", "body.input", "Field required"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, b *bubble) {
				status, body := b.call("POST", test.path, test.body)
				var got struct {
					Error struct {
						Message, Type string
						Param         *string
						Code          int
					}
				}
				if err := json.Unmarshal([]byte(body), &got); err != nil {
					t.Fatalf("status %d, body %q: %v", status, body, err)
				}
				e, param := got.Error, ""
				if e.Param != nil {
					param = *e.Param
				}
				if status != test.status || e.Code != test.status || e.Type != test.kind || param != test.param || !strings.Contains(e.Message, test.message) {
					t.Errorf("status %d, %s\nwant %d %s, param %q, message with %q", status, body, test.status, test.kind, test.param, test.message)
				}
			})
		})
	}
}

func TestRoutes(t *testing.T) {
	inBubble(t, Config{Models: []string{"base", "other"}}, func(t *testing.T, b *bubble) {
		for _, test := range []struct {
			method, path string
			status       int
			want         string
		}{
			{"GET", "/health", 200, ""},
			{"GET", "/ping", 200, ""},
			{"GET", "/version", 200, `{"version":"` + Version + `"}`},
			{"GET", "/load", 200, `{"server_load":0}`},
			{"GET", "/sim/faults", 200, `[]`},
			{"GET", "/nowhere", 404, `{"detail":"Not Found"}`},
			{"GET", "/v1/completions", 405, `{"detail":"Method Not Allowed"}`},
			{"POST", "/v1/models", 405, `{"detail":"Method Not Allowed"}`},
		} {
			status, body := b.call(test.method, test.path, "")
			if status != test.status || body != test.want {
				t.Errorf("%s %s = %d %s; want %d %s", test.method, test.path, status, body, test.status, test.want)
			}
		}
		_, models := b.call("GET", "/v1/models", "")
		for _, want := range []string{`"id":"base"`, `"id":"other"`, `"root":"base"`, `"max_model_len":2048`, `"owned_by":"vllm"`} {
			if !strings.Contains(models, want) {
				t.Errorf("GET /v1/models lacks %s: %s", want, models)
			}
		}
	})
}

// curl -d without a content type is refused by vLLM, too.
func TestOnlyJSONIsRead(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		status, body := b.call("POST", "/v1/completions", `{"prompt":"hi"}`, "Content-Type", "text/plain")
		if status != 400 || !strings.Contains(body, "Unsupported Media Type") {
			t.Errorf("status %d, %s; want 400 Unsupported Media Type", status, body)
		}
	})
}
