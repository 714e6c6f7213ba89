package vllmsim

import (
	"encoding/json"
	"net/http"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// Anthropic's Messages API. vLLM builds it on top of chat completions
// (vllm/entrypoints/anthropic/serving.py), so ids keep chat's prefix, and every
// event comes out of a chat chunk.

type messagesRequest struct {
	Model     *string         `json:"model"`
	Messages  []message       `json:"messages"`
	System    messageText     `json:"system"`
	MaxTokens *int            `json:"max_tokens"`
	Stop      oneOrMany       `json:"stop_sequences"`
	Stream    bool            `json:"stream"`
	Tools     []anthropicTool `json:"tools"`
	Choice    *anthropicPick  `json:"tool_choice"`

	Temperature *float64     `json:"temperature"`
	TopP        *float64     `json:"top_p"`
	Template    templateArgs `json:"chat_template_kwargs"`
}

type anthropicTool struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	InputSchema json.RawMessage `json:"input_schema"`
}

type anthropicPick struct {
	Type string `json:"type"`
	Name string `json:"name"`
}

// chat is the same request to chat completions.
func (q *messagesRequest) chat() *chatRequest {
	c := &chatRequest{Messages: q.Messages, Template: q.Template}
	c.Model, c.MaxTokens, c.Stop, c.Stream = q.Model, q.MaxTokens, q.Stop, q.Stream
	c.Temperature, c.TopP = q.Temperature, q.TopP
	if q.System.text != "" {
		c.Messages = append([]message{{Role: "system", Content: q.System}}, c.Messages...)
	}
	for _, t := range q.Tools {
		c.Tools = append(c.Tools, tool{"function", toolFunctionSpec{t.Name, t.Description, t.InputSchema}})
	}
	if q.Choice != nil {
		mode := map[string]string{"any": "required", "tool": "named"}[q.Choice.Type]
		if mode == "" {
			mode = q.Choice.Type
		}
		c.ToolChoice = toolChoice{mode, q.Choice.Name}
	}
	return c
}

func (q *messagesRequest) check() *openai.Error {
	switch {
	case q.Model == nil:
		return missing("model")
	case q.Messages == nil:
		return missing("messages")
	case q.MaxTokens == nil:
		return missing("max_tokens")
	case *q.MaxTokens < 1:
		return refused("max_tokens", "max_tokens must be positive")
	}
	return nil
}

func (s *Server) messages(w http.ResponseWriter, r *http.Request, t trouble) {
	var q messagesRequest
	if e := read(r, &q); e != nil {
		writeAnthropic(w, e)
		return
	}
	e := q.check()
	var c *conversation
	if e == nil {
		c, e = s.converse(r, q.chat())
	}
	if e != nil {
		writeAnthropic(w, e)
		return
	}
	if q.Stream {
		s.stream(w, r, c.job, t, &messageStream{conversation: c})
		return
	}
	if s.collect(w, r, c.job, t) {
		writeJSON(w, c.anthropic())
	}
}

// countTokens is /v1/messages/count_tokens.
func (s *Server) countTokens(w http.ResponseWriter, r *http.Request) {
	var q messagesRequest
	e := read(r, &q)
	if e == nil {
		_, e = s.known(q.Model)
	}
	if e != nil {
		writeAnthropic(w, e)
		return
	}
	c := q.chat()
	n := len(encode(render(c.Messages, c.Tools, true)))
	writeJSON(w, struct {
		InputTokens       int `json:"input_tokens"`
		ContextManagement any `json:"context_management"`
	}{n, map[string]int{"original_input_tokens": n}})
}

type anthropicError struct {
	Type  string `json:"type"`
	Error struct {
		Type    string `json:"type"`
		Message string `json:"message"`
	} `json:"error"`
}

func newAnthropicError(e openai.Error) anthropicError {
	out := anthropicError{Type: "error"}
	out.Error.Type, out.Error.Message = e.Type, e.Message
	return out
}

func writeAnthropic(w http.ResponseWriter, e *openai.Error) {
	writeStatus(w, e.Code, newAnthropicError(*e))
}

type anthropicUsage struct {
	InputTokens  int `json:"input_tokens"`
	OutputTokens int `json:"output_tokens"`
}

type anthropicMessage struct {
	ID           string           `json:"id"`
	Type         string           `json:"type,omitempty"`
	Role         string           `json:"role,omitempty"`
	Content      []anthropicBlock `json:"content"`
	Model        string           `json:"model"`
	StopReason   *string          `json:"stop_reason"`
	StopSequence *string          `json:"stop_sequence"`
	Usage        anthropicUsage   `json:"usage"`
}

type anthropicBlock struct {
	Type     string          `json:"type"`
	Text     *string         `json:"text,omitempty"`
	ID       string          `json:"id,omitempty"`
	Name     string          `json:"name,omitempty"`
	Input    json.RawMessage `json:"input,omitempty"`
	Thinking *string         `json:"thinking,omitempty"`
}

// stopReason is Anthropic's word for a finish reason.
func stopReason(finish string) *string {
	word := map[string]string{"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}[finish]
	return &word
}

// anthropic is the whole answer.
func (c *conversation) anthropic() anthropicMessage {
	q := c.job.seqs[0]
	tokens := q.script.tokens
	m := anthropicMessage{
		ID: c.id, Type: "message", Role: "assistant", Model: c.model, Content: []anthropicBlock{},
		StopReason: stopReason(c.reason(tokens, q.script.finish)),
		Usage:      anthropicUsage{len(c.prompt), len(tokens)},
	}
	if thought := textOf(tokens, reasoning); thought != "" {
		m.Content = append(m.Content, anthropicBlock{Type: "thinking", Thinking: &thought})
	}
	if text := textOf(tokens, content); text != "" {
		m.Content = append(m.Content, anthropicBlock{Type: "text", Text: &text})
	}
	if name := textOf(tokens, toolName); name != "" {
		input := json.RawMessage(textOf(tokens, toolArgs))
		if !json.Valid(input) { // cut short by max_tokens
			input = json.RawMessage("{}")
		}
		m.Content = append(m.Content, anthropicBlock{Type: "tool_use", ID: c.callID(0), Name: name, Input: input})
	}
	return m
}
