package vllmsim

import (
	"strings"
	"testing"
)

func TestMessages(t *testing.T) {
	const (
		ask    = `{"role":"user","content":"How is the weather?"}`
		called = `{"role":"assistant","content":[{"type":"text","text":"Let me see."},{"type":"tool_use","id":"c","name":"get_weather","input":{}}]}`
		result = `{"role":"user","content":[{"type":"tool_result","tool_use_id":"c","content":[{"type":"text","text":"sunny"}]}]}`
		tools  = `"tools":[{"name":"get_weather","input_schema":{"type":"object","properties":{"city":{"type":"string"}}}}]`
	)
	for _, test := range []struct {
		name, rest string // of the body
		status     int
		want, not  string
	}{
		{"a call", `"messages":[` + ask + `],` + tools, 200, `"stop_reason":"tool_use"`, `"type":"text"`},
		{"an agent that has had its call", `"messages":[` + ask + `,` + called + `,` + result + `],` + tools, 200, `"stop_reason":"end_turn"`, "tool_use"},
		{"a named call", `"messages":[` + ask + `],"tool_choice":{"type":"tool","name":"get_weather"},` + tools, 200, `"stop_reason":"tool_use"`, `"type":"text"`},
		{"no call", `"messages":[` + ask + `],"tool_choice":{"type":"none"},` + tools, 200, `"stop_reason":"end_turn"`, "tool_use"},
		{"thinking", `"messages":[` + ask + `],"chat_template_kwargs":{"enable_thinking":true}`, 200, `"signature":"`, `"stop_sequence"`},
		{"an image", `"messages":[{"role":"user","content":[{"type":"image","source":{}}]}]`, 400, `{"type":"error","error":{"type":"BadRequestError","message":"`, ""},
		{"an unknown part", `"messages":[{"role":"user","content":[{"type":"video"}]}]`, 400, `body.messages.0.content`, `{"type":"error"`},
		{"a tool without a name", `"messages":[` + ask + `],"tool_choice":{"type":"tool"},` + tools, 400, "tool_choice.name is required when type is 'tool'", `{"type":"error"`},
		{"no name of a model", `"model":"","messages":[` + ask + `]`, 400, "Model is required", `{"type":"error"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, b *bubble) {
				status, body := b.call("POST", "/v1/messages", `{"model":"`+DefaultModel+`","max_tokens":500,"temperature":0,`+test.rest+`}`)
				if status != test.status || !strings.Contains(body, test.want) || test.not != "" && strings.Contains(body, test.not) {
					t.Errorf("%d %s; want %d with %s, without %s", status, body, test.status, test.want, test.not)
				}
			})
		})
	}
}

// A tool's call and its result are part of the prompt.
func TestMessagesCountTools(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		count := func(messages string) string {
			_, body := b.call("POST", "/v1/messages/count_tokens", `{"model":"`+DefaultModel+`","messages":[`+messages+`]}`)
			return body
		}
		const call, result = `{"type":"tool_use","id":"c","name":"f","input":{}}`, `{"type":"tool_result","tool_use_id":"c","content":"sunny"}`
		bare := count(`{"role":"assistant","content":[]}`)
		if got := count(`{"role":"assistant","content":[` + call + `]}`); got == bare {
			t.Errorf("%s with a call and without", got)
		}
		if got := count(`{"role":"assistant","content":[]},{"role":"user","content":[` + result + `]}`); got == bare {
			t.Errorf("%s with a result and without", got)
		}
	})
}

// vLLM takes chat's error for a chunk that lacks fields, says so, and ends the
// stream there.
func TestMessagesErrorFault(t *testing.T) {
	inBubble(t, withFault(Fault{Kind: inStreamError, After: 3}), func(t *testing.T, b *bubble) {
		const ask = `{"model":"` + DefaultModel + `","max_tokens":9,"messages":[{"role":"user","content":"hi"}]`
		list := b.stream("/v1/messages", ask+`,"stream":true}`)
		const want = `{"type":"error","error":{"type":"internal_error","message":"2 validation errors for ChatCompletionStreamResponse\nmodel\n  Field required`
		if len(list) != 4 || !strings.HasPrefix(list[3].data, want) {
			t.Errorf("events %v; want three, then %s", list, want)
		}
		status, body := b.call("POST", "/v1/messages", ask+`}`)
		if status != 500 || body != `{"type":"error","error":{"type":"InternalServerError","message":"Internal server error"}}` {
			t.Errorf("without a stream: %d %s", status, body)
		}
	})
}
