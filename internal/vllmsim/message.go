package vllmsim

import (
	"encoding/json"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// message is one turn of a conversation.
type message struct {
	Role      string          `json:"role"`
	Content   messageText     `json:"content"`
	ToolCalls json.RawMessage `json:"tool_calls"`
}

// messageText is text, or a list of parts of which the texts are taken.
type messageText struct {
	text  string
	media bool // it has parts that are not text
}

func (m *messageText) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &m.text) == nil { // null too
		return nil
	}
	var parts []json.RawMessage
	if err := json.Unmarshal(data, &parts); err != nil {
		return err
	}
	var texts []string
	for _, part := range parts {
		var p struct {
			Type string `json:"type"`
			Text string `json:"text"`
		}
		if json.Unmarshal(part, &p.Text) == nil {
			p.Type = "text"
		} else if err := json.Unmarshal(part, &p); err != nil {
			return err
		}
		switch p.Type {
		case "text", "input_text", "output_text":
			texts = append(texts, p.Text)
		case "thinking", "redacted_thinking", "tool_use", "tool_result":
			// parts of earlier turns that the toy template leaves out
		default:
			m.media = true
		}
	}
	m.text = strings.Join(texts, "\n")
	return nil
}

// render is TinyLlama's chat template, with tools put ahead of the turns. It ends
// with the start of a new turn, or leaves the last one open.
func render(messages []message, tools []tool, prompt, open bool) string {
	var b strings.Builder
	if len(tools) > 0 {
		b.WriteString("<|tools|>\n" + string(encodeJSON(tools)) + "</s>\n")
	}
	for i, m := range messages {
		b.WriteString("<|" + m.Role + "|>\n" + m.Content.text)
		if len(m.ToolCalls) > 0 && string(m.ToolCalls) != "null" {
			b.Write(m.ToolCalls)
		}
		if !open || i+1 < len(messages) {
			b.WriteString("</s>\n")
		}
	}
	if prompt {
		b.WriteString("<|assistant|>\n")
	}
	return b.String()
}

func (s *Server) checkMessages(messages []message) *openai.Error {
	for _, m := range messages {
		if m.Content.media {
			return bad("", nil, "%s is not a multimodal model", s.cfg.Models[0])
		}
	}
	return nil
}

// messageShape is ChatCompletionMessageParam (vllm/renderers/chat_utils.py): one
// of the library openai's kinds, or a message with any role, or openai_harmony's.
// Parts of a content are not looked at here.
func messageShape(at string, in json.RawMessage) (json.RawMessage, []fault) {
	given := fieldsOf(in)
	var faults []fault
	for _, kind := range messageKinds {
		here := at + "." + kind.name
		var f []fault
		switch {
		case given != nil:
			_, f = take(kind.fields, here, in, given)
		case kind.name == "Message":
			_, f = model()(here, in)
		default:
			_, f = dict(here, in)
		}
		if f == nil {
			return in, nil
		}
		faults = append(faults, f...)
	}
	return nil, faults
}

type messageKind struct {
	name   string
	fields []field
}

var messageKinds = func() []messageKind {
	parts := func(at string, in json.RawMessage) (json.RawMessage, []fault) {
		if in[0] != '[' && in[0] != '{' {
			return nil, wrong("iterable_type", at, "Input should be iterable", in)
		}
		return in, nil
	}
	said := either(text, parts)
	role := func(word string) field { return need("role", oneOf(word)) }
	name := may("name", text)
	return []messageKind{
		{"ChatCompletionDeveloperMessageParam", []field{need("content", said), role("developer"), name}},
		{"ChatCompletionSystemMessageParam", []field{need("content", said), role("system"), name}},
		{"ChatCompletionUserMessageParam", []field{need("content", said), role("user"), name}},
		{"ChatCompletionAssistantMessageParam", []field{role("assistant"), may("content", optional(said)), name, may("tool_calls", parts)}},
		{"ChatCompletionToolMessageParam", []field{need("content", said), role("tool"), need("tool_call_id", text)}},
		{"ChatCompletionFunctionMessageParam", []field{need("content", optional(text)), need("name", text), role("function")}},
		{"CustomChatCompletionMessageParam", []field{need("role", text), may("content", either(text, listOf(anything))), name}},
		{"Message", []field{need("author", anything), may("content", listOf(anything))}},
	}
}()
