package vllmsim

import (
	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// responseStream tells an answer in the events of the Responses API. The first
// two are sent before the engine has given anything, and there is no [DONE].
type responseStream struct {
	*answer
	sequence int
	current  part
	started  bool // an item of the current part is open
	text     string
}

type responseEvent struct {
	ContentIndex *int            `json:"content_index,omitempty"`
	Delta        *string         `json:"delta,omitempty"`
	Item         *outputItem     `json:"item,omitempty"`
	ItemID       string          `json:"item_id,omitempty"`
	Logprobs     []string        `json:"logprobs,omitzero"`
	OutputIndex  *int            `json:"output_index,omitempty"`
	Part         *outputPart     `json:"part,omitempty"`
	Response     *responseObject `json:"response,omitempty"`
	Sequence     int             `json:"sequence_number"`
	Text         *string         `json:"text,omitempty"`
	Type         string          `json:"type"`
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
		for _, p := range []part{reasoning, content} {
			if text := textOf(d.tokens, p); text != "" {
				a.words(e, p, text)
			}
		}
		if d.finish != "" {
			a.stop(e)
			a.end = d.finish
		}
	}
}

func (a *responseStream) words(e *events, p part, text string) {
	if a.started && a.current != p {
		a.stop(e)
	}
	if !a.started {
		a.started, a.current, a.text = true, p, ""
		item := a.item(p, "in_progress")
		a.event(e, "response.output_item.added", responseEvent{Item: &item, OutputIndex: a.at()})
		empty := newPart(p, "")
		a.inItem(e, "response.content_part.added", responseEvent{Part: &empty})
	}
	a.text += text
	v := responseEvent{Delta: &text}
	if p == content {
		v.Logprobs = []string{}
	}
	a.inItem(e, "response."+newPart(p, "").Type+".delta", v)
}

func (a *responseStream) stop(e *events) {
	if !a.started {
		return
	}
	whole := newPart(a.current, a.text)
	v := responseEvent{Text: &whole.Text}
	if a.current == content {
		v.Logprobs = []string{}
	}
	a.inItem(e, "response."+whole.Type+".done", v)
	a.inItem(e, "response.content_part.done", responseEvent{Part: &whole})
	item := a.item(a.current, "completed", whole)
	a.event(e, "response.output_item.done", responseEvent{Item: &item, OutputIndex: a.at()})
	a.output = append(a.output, item)
	a.started = false
}

// inItem is an event about the only content of the open item.
func (a *responseStream) inItem(e *events, kind string, v responseEvent) {
	zero := 0
	v.ContentIndex, v.OutputIndex = &zero, a.at()
	v.ItemID = a.item(a.current, "").ID
	a.event(e, kind, v)
}

// at is the index of the open item, or of the next one.
func (a *responseStream) at() *int {
	index := len(a.output)
	return &index
}

func (a *responseStream) close(e *events) {
	now := a.response()
	a.event(e, "response.completed", responseEvent{Response: &now})
}

func (a *responseStream) fail(e *events, err openai.Error) { e.failed(err) }
