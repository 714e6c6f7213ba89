package vllmsim

import (
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

const weather = `"tools":[{"type":"function","name":"get_weather","parameters":{"type":"object","properties":{"city":{"type":"string"}}}}]`

func TestResponses(t *testing.T) {
	for _, test := range []struct {
		name, body string
		status     int
		want, not  string
	}{
		{"a call", `{"input":"How is the weather?",` + weather + `}`, 200, `"type":"function_call"`, `"type":"message"`},
		{"an agent that has made its call", `{"input":[{"role":"user","content":"How is the weather?"},
			{"type":"function_call","call_id":"c","name":"get_weather","arguments":"{}"}],` + weather + `}`, 200, `"type":"message"`, `"type":"function_call"`},
		{"an agent that has had its answer", `{"input":[{"role":"user","content":"How is the weather?"},
			{"type":"function_call_output","call_id":"c","output":"sunny"}],` + weather + `}`, 200, `"type":"message"`, `"type":"function_call"`},
		{"a call that is cut short is text", `{"input":"hi","max_output_tokens":8,"tool_choice":"required",` + weather + `}`, 200,
			`"text":"<tool_call>\n{\"name\": \"get_weather\", \"arguments\": `, `"type":"function_call"`},
		{"a named call", `{"input":"hi","tool_choice":{"type":"function","name":"get_weather"},` + weather + `}`, 200, `"tool_choice":{"name":"get_weather","type":"function"}`, "none"},
		{"no effort", `{"input":"hi","reasoning":{"effort":"none"}}`, 200, `"effort":"none"`, `"type":"reasoning"`},
		{"reasoning", `{"input":"hi","reasoning":{"effort":"low"}}`, 200, `"type":"reasoning"`, `"reasoning_tokens":0`},
		{"an id of the client's", `{"input":"hi","request_id":"resp_mine"}`, 200, `{"id":"resp_mine",`, ""},
		{"what is left of the context", `{"input":"hi","temperature":0.5}`, 200, `"temperature":0.5,`, `"max_output_tokens":null`},
		{"JSON", `{"input":"hi","text":{"format":{"type":"json_object"}}}`, 200, `"text":{"format":{"type":"json_object"},"verbosity":null}`, `"text":"{}`},
		{"a call without tools", `{"input":"hi","tool_choice":"required"}`, 400, "Tool choice 'required' must be specified with 'tools' parameter. (parameter=tool_choice)", "Bad Request"},
		{"no such tool", `{"input":"hi","tool_choice":{"type":"function","name":"f"},` + weather + `}`, 400, "Tool choice 'function' not found in 'tools' parameter.", "Bad Request"},
		{"a stored prompt", `{"input":"hi","prompt":{"id":"p"}}`, 400, "prompt template is not supported (parameter=prompt)", "Bad Request"},
		{"longer than the context", `{"input":"hi","max_output_tokens":2049}`, 400, "max_output_tokens=2049 cannot be greater than max_model_len=2048.", "Bad Request"},
		{"an unknown role", `{"input":[{"role":"wizard","content":"hi"}]}`, 400, "body.input", "resp_"},
		{"an unknown thing to include", `{"input":"hi","include":["all"]}`, 400, `"param":"body.include.0"`, "resp_"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, b *bubble) {
				status, body := b.call("POST", "/v1/responses", test.body)
				if status != test.status || !strings.Contains(body, test.want) || test.not != "" && strings.Contains(body, test.not) {
					t.Errorf("%d %s; want %d with %s, without %s", status, body, test.status, test.want, test.not)
				}
			})
		})
	}
}

// vLLM cannot tell of an error in a stream of this API: the connection breaks.
func TestResponsesErrorFault(t *testing.T) {
	inBubble(t, withFault(Fault{Kind: inStreamError, After: 5}), func(t *testing.T, b *bubble) {
		list, err := b.events(b.do(t.Context(), "POST", "/v1/responses", `{"input":"hi","stream":true}`))
		if len(list) != 5 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d events, then %v; want 5, unexpected EOF", len(list), err)
		}
	})
}

// Whatever the body, the answer is an error for the client, or JSON.
func FuzzResponsesAndMessagesBody(f *testing.F) {
	for _, body := range []string{
		`{"input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]},{"type":"function_call_output","output":[]}],"include":["message.output_text.logprobs"],"top_logprobs":2}`,
		`{"input":"hi","tool_choice":{"type":"custom","name":"f"},"tools":[{"type":"custom","name":"f"},{"type":"function","name":"g"}],"text":{},"reasoning":{}}`,
		`{"input":"hi","text":{"format":{"type":"json_schema","name":"a","schema":{"type":"integer"}}},"max_output_tokens":1}`,
		`{"model":"` + DefaultModel + `","max_tokens":3,"system":[{"type":"text"}],"messages":[{"role":"user","content":[{"type":"tool_result","content":5},{"type":"text","text":null}]}]}`,
		`{"model":"` + DefaultModel + `","max_tokens":30,"messages":[{"role":"assistant","content":[{"type":"tool_use"}]}],"tool_choice":{"type":"any"},"tools":[{"name":"f","input_schema":{"const":[}}]}`,
	} {
		f.Add([]byte(body))
	}
	s, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("POST", "/", nil)
		check := func(answer any) {
			if text := encodeJSON(answer); !json.Valid(text) {
				t.Errorf("%q is answered with %q", body, text)
			}
		}
		var q responsesRequest
		if decodeBody(body, responsesShape, &q, responsesEarly) == nil {
			if c, e := s.converse(r, q.chat()); e == nil {
				a := &answer{conversation: c, asked: &q}
				a.finish()
				check(a.response())
			}
		}
		var m messagesRequest
		if decodeBody(body, messagesShape, &m) == nil {
			if c, e := s.converse(r, m.chat()); e == nil {
				check(c.anthropic())
			}
		}
	})
}
