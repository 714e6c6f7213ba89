package vllmsim

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// Anthropic's Messages API. vLLM builds it on top of chat completions
// (vllm/entrypoints/anthropic/serving.py), so ids keep chat's prefix, and every
// event comes out of a chat chunk.

type messagesRequest struct {
	Model     *string         `json:"model"`
	Messages  []anthropicTurn `json:"messages"`
	System    anthropicBlocks `json:"system"`
	MaxTokens *int            `json:"max_tokens"`
	Stop      oneOrMany       `json:"stop_sequences"`
	Stream    bool            `json:"stream"`
	Tools     []anthropicTool `json:"tools"`
	Choice    *anthropicPick  `json:"tool_choice"`

	Temperature *float64     `json:"temperature"`
	TopK        int          `json:"top_k"`
	TopP        *float64     `json:"top_p"`
	CacheSalt   string       `json:"cache_salt"`
	Template    templateArgs `json:"chat_template_kwargs"`
}

type anthropicTurn struct {
	Role    string          `json:"role"`
	Content anthropicBlocks `json:"content"`
}

// anthropicBlocks are the parts of a turn; text alone is one of them.
type anthropicBlocks []anthropicBlock

func (b *anthropicBlocks) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		said := unquote(data)
		*b = anthropicBlocks{{Type: "text", Text: &said}}
		return nil
	}
	return json.Unmarshal(data, (*[]anthropicBlock)(b))
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

// Both requests of vllm/entrypoints/anthropic/protocol.py.
var (
	anthropicContent = either(text, listOf(asIs(model(need("type", oneOf("text", "image", "tool_use", "tool_result",
		"tool_reference", "thinking", "redacted_thinking", "tool_addition", "tool_removal"))))))
	anthropicModel = need("model", obeys(text, func(in json.RawMessage) string {
		if string(in) == `""` {
			return "Model is required"
		}
		return ""
	}))
	anthropicTurns = need("messages", listOf(model(need("role", oneOf("user", "assistant", "system")), need("content", anthropicContent))))
	anthropicTools = may("tools", optional(listOf(model(need("name", text), may("description", optional(text)), need("input_schema", dict)))))
	anthropicPicks = may("tool_choice", optional(obeys(model(need("type", oneOf("auto", "any", "tool", "none")), may("name", optional(text))),
		func(in json.RawMessage) string {
			if pick := fieldsOf(in); unquote(pick["type"]) == "tool" && !pick.truthy("name") {
				return "tool_choice.name is required when type is 'tool'"
			}
			return ""
		})))

	messagesShape = model(
		anthropicModel,
		anthropicTurns,
		need("max_tokens", obeys(integer, func(in json.RawMessage) string {
			if in[0] == '-' || string(in) == "0" {
				return "max_tokens must be positive"
			}
			return ""
		})),
		may("metadata", optional(dict)),
		may("stop_sequences", optional(atMost(maxStops, text))),
		may("stream", optional(boolean)),
		may("system", optional(anthropicContent)),
		may("temperature", optional(number)),
		anthropicPicks,
		anthropicTools,
		may("top_k", optional(integer)),
		may("top_p", optional(number)),
		may("cache_salt", optional(text)),
		may("chat_template_kwargs", optional(dict)),
	)
	countShape = model(anthropicModel, anthropicTurns, may("system", optional(anthropicContent)), anthropicPicks, anthropicTools,
		may("chat_template_kwargs", optional(dict)))
)

// turns are the chat messages of one turn: results of tools become messages of
// their own, ahead of what else the user says.
func (t anthropicTurn) turns() []message {
	var all []message
	var said []string
	own := message{Role: t.Role}
	var calls []json.RawMessage
	for _, b := range t.Content {
		switch b.Type {
		case "text":
			said = append(said, *cmp.Or(b.Text, new(string)))
		case "image":
			own.Content.media = true
		case "tool_use":
			calls = append(calls, encodeJSON(fullToolCall{b.ID, "function", fullFunction{b.Name, string(b.Input)}}))
		case "tool_result":
			var result messageText
			json.Unmarshal(b.Content, &result) // a result that is neither text nor parts has no text
			result.media = false
			all = append(all, message{Role: "tool", Content: result})
		}
	}
	own.Content.text = strings.Join(said, "\n")
	if calls != nil {
		own.ToolCalls = encodeJSON(calls)
	}
	if t.Role == "user" && said == nil && !own.Content.media {
		return all // vLLM leaves out a user who says nothing
	}
	return append(all, own)
}

// chat is the same request to chat completions.
func (q *messagesRequest) chat() *chatRequest {
	c := &chatRequest{Template: q.Template, MaxCompletionTokens: q.MaxTokens}
	c.Model, c.MaxTokens, c.Stop, c.Stream = q.Model, q.MaxTokens, q.Stop, q.Stream
	c.Temperature, c.TopK, c.TopP, c.CacheSalt = q.Temperature, q.TopK, q.TopP, q.CacheSalt
	if q.System != nil {
		c.Messages = anthropicTurn{"system", q.System}.turns()
	}
	for _, t := range q.Messages {
		c.Messages = append(c.Messages, t.turns()...)
	}
	for _, t := range q.Tools {
		c.Tools = append(c.Tools, tool{"function", toolFunctionSpec{t.Name, t.Description, t.InputSchema}})
	}
	if q.Choice != nil {
		mode := map[string]string{"any": "required", "tool": "named"}[q.Choice.Type]
		c.ToolChoice = toolChoice{cmp.Or(mode, q.Choice.Type), q.Choice.Name}
	}
	return c
}

// Mistakes that the validation finds are told as everywhere, all others in
// Anthropic's shape.
func (s *Server) messages(w http.ResponseWriter, r *http.Request, t trouble) {
	var q messagesRequest
	if e := read(r, messagesShape, &q); e != nil {
		e.WriteTo(w)
		return
	}
	c, e := s.converse(r, q.chat())
	if e != nil {
		writeAnthropic(w, e)
		return
	}
	if q.Stream {
		s.stream(w, r, c.job, t, &messageStream{conversation: c})
		return
	}
	if _, ok := t[inStreamError]; ok {
		e := openai.NewError(http.StatusInternalServerError, "Internal server error")
		writeAnthropic(w, &e)
		return
	}
	if s.collect(w, r, c.job, t) {
		writeJSON(w, c.anthropic())
	}
}

// countTokens is /v1/messages/count_tokens.
func (s *Server) countTokens(w http.ResponseWriter, r *http.Request) {
	var q messagesRequest
	if e := read(r, countShape, &q); e != nil {
		e.WriteTo(w)
		return
	}
	if _, e := s.known(q.Model); e != nil {
		writeAnthropic(w, e)
		return
	}
	c := q.chat()
	n := len(encode(render(c.Messages, c.Tools, true, false)))
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

// anthropicMessage is printed whole, without what is null, or begins a stream,
// with nulls.
type anthropicMessage struct {
	ID           string           `json:"id"`
	Type         string           `json:"type"`
	Role         string           `json:"role"`
	Content      []anthropicBlock `json:"content"`
	Model        string           `json:"model"`
	StopReason   json.RawMessage  `json:"stop_reason,omitempty"`
	StopSequence json.RawMessage  `json:"stop_sequence,omitempty"`
	Usage        anthropicUsage   `json:"usage"`
}

// anthropicBlock is a part of a turn, or of an answer.
type anthropicBlock struct {
	Type      string          `json:"type"`
	Text      *string         `json:"text,omitempty"`
	ID        string          `json:"id,omitempty"`
	Name      string          `json:"name,omitempty"`
	Input     json.RawMessage `json:"input,omitempty"`
	Content   json.RawMessage `json:"content,omitempty"` // of a tool's result
	Thinking  *string         `json:"thinking,omitempty"`
	Signature string          `json:"signature,omitempty"`
}

// stopped is Anthropic's word for how a sequence ended, and the stop string that
// ended it; both may be null. A call that is named ends with stop in chat.
func (c *conversation) stopped(q *sequence) (reason, sequence json.RawMessage) {
	switch {
	case q.script.finish == "length":
		return encodeJSON("max_tokens"), null
	case q.script.finish == "abort":
		return null, null
	case count(q.script.tokens, toolName) > 0:
		return encodeJSON("tool_use"), null
	case q.script.stopped != "":
		return encodeJSON("stop_sequence"), orNull(q.script.stopped)
	}
	return encodeJSON("end_turn"), null
}

// signature of thinking: 32 hex digits.
func (c *conversation) signature() string {
	h := mixString(uint64(reasoning), c.id)
	return hex16(h) + hex16(mix(h, 0))
}

// anthropic is the whole answer.
func (c *conversation) anthropic() anthropicMessage {
	q := c.job.seqs[0]
	reason, sequence := c.stopped(q)
	m := anthropicMessage{
		ID: c.id, Type: "message", Role: "assistant", Model: c.model,
		Usage: anthropicUsage{len(c.prompt), len(q.script.tokens)},
	}
	if q.script.finish != "abort" {
		m.StopReason = reason
	}
	if q.script.stopped != "" {
		m.StopSequence = sequence
	}
	said := c.message(q.script.tokens, 0)
	if said.Reasoning != nil {
		m.Content = append(m.Content, anthropicBlock{Type: "thinking", Thinking: said.Reasoning, Signature: c.signature()})
	}
	if said.Content != nil && *said.Content != "" {
		m.Content = append(m.Content, anthropicBlock{Type: "text", Text: said.Content})
	}
	for _, call := range said.ToolCalls {
		m.Content = append(m.Content, anthropicBlock{Type: "tool_use", ID: call.ID, Name: call.Function.Name, Input: json.RawMessage(call.Function.Arguments)})
	}
	if m.Content == nil { // clients rely on one block
		m.Content = []anthropicBlock{{Type: "text", Text: new(string)}}
	}
	return m
}
