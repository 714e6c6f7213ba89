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
	const flat = `"tools":[{"type":"function","name":"get_weather","parameters":{"type":"object","properties":{"city":{"type":"string"}}}}]`
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
		{"completions-echo", "/v1/completions", `{"prompt":"Once upon","max_tokens":3,"seed":1,"echo":true}`},
		{"completions-stream-usage", "/v1/completions", `{"prompt":"Once upon","max_tokens":3,"seed":1,"stream":true,"stream_options":{"include_usage":true}}`},
		{"responses-stream", "/v1/responses", `{"input":"hi","max_output_tokens":2,"temperature":0,"stream":true}`},
		{"responses-stream-reasoning", "/v1/responses", `{"input":"hi","max_output_tokens":20,"temperature":0,"reasoning":{"effort":"low"},"stream":true}`},
		{"responses-stream-tool", "/v1/responses", `{"input":"hi","temperature":0,"tool_choice":"required",` + flat + `,"stream":true}`},
		{"responses-tool-named", "/v1/responses", `{"input":"hi","temperature":0,"tool_choice":{"type":"function","name":"get_weather"},` + flat + `}`},
		{"messages-stream", "/v1/messages", `{"model":"` + DefaultModel + `","messages":[{"role":"user","content":"hi"}],"max_tokens":2,"temperature":0,"stream":true}`},
		{"messages-stream-thinking", "/v1/messages", `{"model":"` + DefaultModel + `","messages":[{"role":"user","content":"hi"}],"max_tokens":20,"temperature":0,"chat_template_kwargs":{"enable_thinking":true},"stream":true}`},
		{"messages-tool", "/v1/messages", `{"model":"` + DefaultModel + `","messages":[{"role":"user","content":"hi"}],"max_tokens":50,"temperature":0,"tool_choice":{"type":"tool","name":"f"},"tools":[{"name":"f","input_schema":{}}]}`},
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

// What vllm/recorded has no example of.
func TestErrors(t *testing.T) {
	const chat, completions = "/v1/chat/completions", "/v1/completions"
	const msgs = `"messages":[{"role":"user","content":"hi"}]`
	for _, test := range []struct {
		name, path, body string
		status           int
		kind, param      string
		message          string
	}{
		{"unknown model of several", chat, `{"model":"x",` + msgs + `}`, 404, "NotFoundError", "model", "The model `x` does not exist. Valid aliases: a, b."},
		{"a model of a wrong type", chat, `{"model":["a"],` + msgs + `}`, 400, "Bad Request", "body.model", "'input': '<list of 1 items>'"},
		{"a wrong element", completions, `{"prompt":["a",1]}`, 400, "Bad Request", "body.prompt.0", "5 validation errors"},
		{"a quoted word", chat, `{"tools":[{"type":"it's","function":{"name":"f"}}],` + msgs + `}`, 400, "Bad Request", "body.tools.0.type", `'input': "it's"`},
		{"five stop strings", chat, `{"stop":["a","b","c","d","e"],` + msgs + `}`, 400, "Bad Request", "body.stop", "List should have at most 4 items after validation, not 5"},
		{"a seed of 65 bits", chat, `{"seed":18446744073709551615,` + msgs + `}`, 400, "Bad Request", "body.seed", "less than or equal to 9223372036854775807"},
		{"early checks first", chat, `{"stream_options":{"include_usage":true},"max_tokens":"many"}`, 400, "BadRequestError", "stream_options", "Stream options can only"},
		{"a function without a name", chat, `{"tool_choice":{"function":{}},"tools":[{"function":{"name":"f"}}],` + msgs + `}`, 400, "BadRequestError", "tool_choice.function.name", "Expected field `name`"},
		{"answer longer than the context", completions, `{"prompt":"hi","max_tokens":2049}`, 400, "BadRequestError", "max_tokens", "max_tokens=2049 cannot be greater than max_model_len=2048."},
		{"answer longer than the context, newer field", chat, `{"max_completion_tokens":2049,` + msgs + `}`, 400, "BadRequestError", "max_completion_tokens", "max_completion_tokens=2049 cannot"},
		{"a prompt longer than the context", completions, `{"prompt":"` + strings.Repeat("word ", 3000) + `"}`, 400, "BadRequestError", "input_tokens",
			"maximum context length is 2048 tokens. However, your prompt contains at least 2049 input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=2049)"},
		{"a salt with a slash", chat, `{"cache_salt":"a/b",` + msgs + `}`, 400, "BadRequestError", "cache_salt", "must not contain '@', '/', '\\\\', or NUL."},
		{"JSON that ends too soon", chat, `{"messages"`, 400, "Bad Request", "body.11", "Expecting ':' delimiter"},
		{"JSON that goes on", chat, `{} {}`, 400, "Bad Request", "body.3", "Extra data"},
		{"JSON after more than ASCII", chat, `{"ü": x}`, 400, "Bad Request", "body.6", "Expecting value"},
		{"no input", "/v1/embeddings", `{}`, 400, "Bad Request", "body.input", "Field required"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, Config{Models: []string{"a", "b"}}, func(t *testing.T, b *bubble) {
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

// A list of digits in quotes is texts, although each could be a token.
func TestPromptForms(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		for prompt, want := range map[string]int{
			`"5"`:           2, // with the token that starts every text
			`["5", "6"]`:    4,
			`[5, 6]`:        2,
			`[[5], [6, 7]]`: 3,
		} {
			var got struct {
				Usage struct {
					PromptTokens int `json:"prompt_tokens"`
				}
			}
			_, body := b.call("POST", "/v1/completions", `{"prompt":`+prompt+`}`)
			if err := json.Unmarshal([]byte(body), &got); err != nil || got.Usage.PromptTokens != want {
				t.Errorf("prompt %s: %s; want %d prompt tokens", prompt, body, want)
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
