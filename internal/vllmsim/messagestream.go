package vllmsim

import (
	"encoding/json"
	"fmt"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// messageStream tells a conversation in Anthropic's events: message_start,
// blocks of deltas, message_delta, message_stop. There is no [DONE].
type messageStream struct {
	*conversation
	started bool
	kind    string // of the open block; empty for none
	index   int    // of the open block, or of the next one
	said    int
}

type anthropicEvent struct {
	Type    string            `json:"type"`
	Message *anthropicMessage `json:"message,omitempty"`
	Delta   *anthropicDelta   `json:"delta,omitempty"`
	Block   *anthropicBlock   `json:"content_block,omitempty"`
	Index   *int              `json:"index,omitempty"`
	Usage   *anthropicUsage   `json:"usage,omitempty"`
}

type anthropicDelta struct {
	Type         string          `json:"type,omitempty"`
	Text         *string         `json:"text,omitempty"`
	Thinking     *string         `json:"thinking,omitempty"`
	PartialJSON  *string         `json:"partial_json,omitempty"`
	Signature    string          `json:"signature,omitempty"`
	StopReason   json.RawMessage `json:"stop_reason,omitempty"`
	StopSequence json.RawMessage `json:"stop_sequence,omitempty"`
}

func (m *messageStream) open(*events) {}

func (m *messageStream) step(e *events, s step) {
	m.begin(e)
	for _, d := range s {
		m.said += len(d.tokens)
		m.words(e, d.tokens)
	}
}

func (m *messageStream) begin(e *events) {
	if m.started {
		return
	}
	m.started = true
	m.event(e, anthropicEvent{Type: "message_start", Message: &anthropicMessage{
		ID: m.id, Type: "message", Role: "assistant", Content: []anthropicBlock{}, Model: m.model,
		StopReason: null, StopSequence: null, Usage: anthropicUsage{InputTokens: len(m.prompt)},
	}})
}

func (m *messageStream) words(e *events, tokens []token) {
	if thought := textOf(tokens, reasoning); thought != "" {
		empty := ""
		m.start(e, anthropicBlock{Type: "thinking", Thinking: &empty})
		m.delta(e, anthropicDelta{Type: "thinking_delta", Thinking: &thought})
	}
	if text := textOf(tokens, content); text != "" {
		empty := ""
		m.start(e, anthropicBlock{Type: "text", Text: &empty})
		m.delta(e, anthropicDelta{Type: "text_delta", Text: &text})
	}
	if name := textOf(tokens, toolName); name != "" {
		m.start(e, anthropicBlock{Type: "tool_use", ID: m.callID(0), Name: name, Input: json.RawMessage("{}")})
	}
	if args := textOf(tokens, toolArgs); args != "" {
		m.delta(e, anthropicDelta{Type: "input_json_delta", PartialJSON: &args})
	}
}

// start opens a block, unless one of its kind is open.
func (m *messageStream) start(e *events, b anthropicBlock) {
	if m.kind == b.Type {
		return
	}
	m.stop(e)
	m.kind = b.Type
	m.event(e, anthropicEvent{Type: "content_block_start", Block: &b, Index: m.at()})
}

func (m *messageStream) delta(e *events, d anthropicDelta) {
	m.event(e, anthropicEvent{Type: "content_block_delta", Delta: &d, Index: m.at()})
}

func (m *messageStream) stop(e *events) {
	if m.kind == "" {
		return
	}
	if m.kind == "thinking" {
		m.delta(e, anthropicDelta{Type: "signature_delta", Signature: m.signature()})
	}
	m.event(e, anthropicEvent{Type: "content_block_stop", Index: m.at()})
	m.kind = ""
	m.index++
}

func (m *messageStream) at() *int {
	index := m.index
	return &index
}

func (m *messageStream) close(e *events) {
	m.begin(e)
	m.stop(e)
	reason, sequence := m.stopped(m.job.seqs[0])
	if m.said == 0 { // given up in the queue: vLLM takes no reason for a good one
		reason = encodeJSON("end_turn")
	}
	m.event(e, anthropicEvent{
		Type: "message_delta", Delta: &anthropicDelta{StopReason: reason, StopSequence: sequence},
		Usage: &anthropicUsage{len(m.prompt), m.said},
	})
	m.event(e, anthropicEvent{Type: "message_stop"})
}

// fail does not say what went wrong: vLLM reads chat's error as if it were a
// chunk, and reports that it is none (message_stream_converter).
func (m *messageStream) fail(e *events, err openai.Error) {
	const lacks = "\n%s\n  Field required [type=missing, input_value={'error': {'message': 'In...am': None, 'code': 500}}, input_type=dict]\n" +
		"    For further information visit https://errors.pydantic.dev/2.14/v/missing"
	err.Type = "internal_error"
	err.Message = "2 validation errors for ChatCompletionStreamResponse" + fmt.Sprintf(lacks+lacks, "model", "choices")
	e.named("error", newAnthropicError(err))
}

func (m *messageStream) event(e *events, v anthropicEvent) { e.named(v.Type, v) }
