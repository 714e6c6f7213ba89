package vllmsim

import (
	"cmp"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// responseStream tells an answer in the events of the Responses API. The first
// two are sent before the engine has given anything, and there is no [DONE].
type responseStream struct {
	*answer
	sequence int
	current  part
	started  bool // an item of the current part is open
	said     string
	tokens   []token // of the open item
}

type responseEvent struct {
	Arguments    *string           `json:"arguments,omitempty"`
	ContentIndex *int              `json:"content_index,omitempty"`
	Delta        *string           `json:"delta,omitempty"`
	Item         any               `json:"item,omitempty"`
	ItemID       string            `json:"item_id,omitempty"`
	Logprobs     []responseLogprob `json:"logprobs,omitzero"`
	OutputIndex  *int              `json:"output_index,omitempty"`
	Part         any               `json:"part,omitempty"`
	Response     *responseObject   `json:"response,omitempty"`
	Sequence     int               `json:"sequence_number"`
	Text         *string           `json:"text,omitempty"`
	Type         string            `json:"type"`
	Name         string            `json:"name,omitempty"`
}

func (a *responseStream) event(e *events, kind string, v responseEvent) {
	v.Type, v.Sequence = kind, a.sequence
	a.sequence++
	e.named(kind, v)
}

func (a *responseStream) open(e *events) {
	for _, kind := range []string{"response.created", "response.in_progress"} {
		now := a.response()
		a.event(e, kind, responseEvent{Response: &now})
	}
}

func (a *responseStream) step(e *events, s step) {
	for _, d := range s {
		if text := textOf(d.tokens, reasoning); text != "" {
			a.words(e, reasoning, text, nil)
		}
		if text := textOf(d.tokens, content); text != "" {
			a.words(e, content, text, d.tokens)
		}
		if textOf(d.tokens, toolName)+textOf(d.tokens, toolArgs) != "" {
			a.words(e, toolName, textOf(d.tokens, toolArgs), nil)
		}
		if d.finish != "" {
			a.stop(e)
			a.end = d.finish
		}
	}
}

// eventOf is how the events of a part's deltas begin.
var eventOf = map[part]string{
	reasoning: "response.reasoning_text", content: "response.output_text", toolName: "response.function_call_arguments",
}

func (a *responseStream) words(e *events, p part, text string, tokens []token) {
	if a.started && a.current != p {
		a.stop(e)
	}
	if !a.started {
		a.started, a.current, a.said, a.tokens = true, p, "", nil
		a.event(e, "response.output_item.added", responseEvent{Item: a.item(p, "in_progress", "", nil), OutputIndex: a.at()})
		if p != toolName {
			a.inItem(e, "response.content_part.added", responseEvent{Part: contentOf(p, "", []responseLogprob{})})
		}
	}
	a.said += text
	a.tokens = append(a.tokens, tokens...)
	if text == "" { // only the name of a call
		return
	}
	v := responseEvent{Delta: &text}
	if p == content {
		v.Logprobs = append([]responseLogprob{}, a.logprobs(tokens, false)...)
	}
	a.inItem(e, eventOf[p]+".delta", v)
}

func (a *responseStream) stop(e *events) {
	if !a.started {
		return
	}
	said := a.said
	logprobs := a.logprobs(a.tokens, true)
	item := a.item(a.current, "completed", said, logprobs)
	switch a.current {
	case toolName:
		a.inItem(e, eventOf[toolName]+".done", responseEvent{Arguments: &said, Name: item.(callItem).Name})
	case content:
		a.inItem(e, eventOf[content]+".done", responseEvent{Text: &said, Logprobs: []responseLogprob{}})
	case reasoning:
		a.inItem(e, eventOf[reasoning]+".done", responseEvent{Text: &said})
	}
	if a.current != toolName {
		a.inItem(e, "response.content_part.done", responseEvent{Part: contentOf(a.current, said, logprobs)})
	}
	a.event(e, "response.output_item.done", responseEvent{Item: item, OutputIndex: a.at()})
	a.output = append(a.output, item)
	a.started = false
}

// inItem is an event about the open item, or about its only content.
func (a *responseStream) inItem(e *events, kind string, v responseEvent) {
	v.OutputIndex, v.ItemID = a.at(), a.itemID(a.current)
	if a.current != toolName {
		zero := 0
		v.ContentIndex = &zero
	}
	a.event(e, kind, v)
}

// at is the index of the open item, or of the next one.
func (a *responseStream) at() *int {
	index := len(a.output)
	return &index
}

// close says completed even where the answer is cut short, whose status is
// incomplete.
func (a *responseStream) close(e *events) {
	a.end = cmp.Or(a.end, "abort") // given up in the queue
	now := a.response()
	a.event(e, "response.completed", responseEvent{Response: &now})
}

// fail says nothing: vLLM makes an event of the error that is none of the
// Responses API's, trips over that, and the connection breaks
// (responses_stream_generator in vllm/entrypoints/openai/responses/serving.py).
func (a *responseStream) fail(*events, openai.Error) {}
