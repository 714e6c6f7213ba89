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
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if err := json.Unmarshal(data, &parts); err != nil {
		return mistyped("messages.content", "string")
	}
	var texts []string
	for _, p := range parts {
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

// render is TinyLlama's chat template, with tools put ahead of the turns.
func render(messages []message, tools []tool, prompt bool) string {
	var b strings.Builder
	if len(tools) > 0 {
		b.WriteString("<|tools|>\n" + string(encodeJSON(tools)) + "</s>\n")
	}
	for _, m := range messages {
		b.WriteString("<|" + m.Role + "|>\n" + m.Content.text)
		if len(m.ToolCalls) > 0 && string(m.ToolCalls) != "null" {
			b.Write(m.ToolCalls)
		}
		b.WriteString("</s>\n")
	}
	if prompt {
		b.WriteString("<|assistant|>\n")
	}
	return b.String()
}

func (s *Server) checkMessages(messages []message) *openai.Error {
	for _, m := range messages {
		if m.Role == "" {
			return missing("messages.role")
		}
		if m.Content.media {
			return bad("", nil, "%s is not a multimodal model", s.cfg.Models[0])
		}
	}
	return nil
}
