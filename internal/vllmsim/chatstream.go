package vllmsim

import (
	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// chatStream tells a conversation in chat.completion.chunk events.
type chatStream struct {
	*conversation
	fingerprint string
	started     bool
	said        []int // tokens, by choice
	thought     int
}

func (c *chatStream) open(*events) {}

func (c *chatStream) step(e *events, s step) {
	if !c.started {
		c.started = true
		c.roles(e)
	}
	for _, d := range s {
		c.delta(e, d)
	}
}

// roles come for all choices at once, with the first thing the engine gives.
func (c *chatStream) roles(e *events) {
	for i := range c.job.seqs {
		chunk := c.chunk(chatChoice{Index: i, Delta: chatDelta{Role: c.role(), Content: encodeJSON("")}}, i)
		chunk.PromptTokenIDs, chunk.PromptText = idsOrNull(c.ReturnIDs, c.prompt), c.promptText()
		e.data(chunk)
	}
	if c.echoed() == "" {
		return
	}
	for i := range c.job.seqs {
		e.data(c.chunk(chatChoice{Index: i, Delta: chatDelta{Content: encodeJSON(c.echoed())}}, i))
	}
}

func (c *chatStream) delta(e *events, d delta) {
	c.said[d.choice] += len(d.tokens)
	c.thought += count(d.tokens, reasoning)
	choice := chatChoice{Index: d.choice, Delta: c.words(d), TokenIDs: idsOrNull(c.ReturnIDs, idsOf(d.tokens))}
	if c.Logprobs {
		choice.Logprobs = newChatLogprobs(d.tokens, c.TopLogprobs)
	}
	if d.finish == "" && choice.Delta.empty() && !c.Logprobs && !c.ReturnIDs {
		return // a parser is still thinking about these tokens
	}
	if d.finish != "" {
		reason := c.reason(c.job.seqs[d.choice].script.tokens, d.finish)
		choice.FinishReason, choice.StopReason = &reason, orNull(d.stopped)
	}
	chunk := c.chunk(choice, d.choice)
	if d.finish != "" && !c.usage() {
		chunk.SystemFingerprint = c.fingerprint
	}
	e.data(chunk)
}

// words is what a delta's tokens say: at the end of an answer it can be nothing.
func (c *chatStream) words(d delta) chatDelta {
	var out chatDelta
	if text := textOf(d.tokens, content); text != "" {
		out.Content = encodeJSON(text)
	}
	if count(d.tokens, reasoning) > 0 && !c.hidesReasoning() {
		thought := textOf(d.tokens, reasoning)
		out.Reasoning = &thought
	}
	for _, t := range d.tokens {
		switch t.part {
		case toolName:
			out.ToolCalls = append(out.ToolCalls, toolDelta{ID: c.callID(d.choice), Type: "function", Function: toolFunction{Name: t.text}})
		case toolArgs:
			piece := t.text
			out.ToolCalls = append(out.ToolCalls, toolDelta{Function: toolFunction{Arguments: &piece}})
		}
	}
	if out.ToolCalls != nil && out.Content == nil {
		out.Content = null // the parser of tools sets it
	}
	return out
}

func (d chatDelta) empty() bool {
	return d.Role == "" && d.Content == nil && d.Reasoning == nil && len(d.ToolCalls) == 0
}

func (c *chatStream) chunk(choice chatChoice, index int) chatChunk {
	chunk := chatChunk{
		ID: c.id, Object: "chat.completion.chunk", Created: c.created, Model: c.model,
		Choices: []chatChoice{choice},
	}
	if c.continuous() {
		chunk.Usage = c.usageOf(c.said[index], c.thought)
		if chunk.Usage.CompletionTokensDetails == nil {
			chunk.Usage.CompletionTokensDetails = null
		}
	}
	return chunk
}

func (c *chatStream) close(e *events) {
	if !c.started { // given up in the queue
		c.roles(e)
	} else if c.usage() {
		total := 0
		for _, n := range c.said {
			total += n
		}
		e.data(chatChunk{
			ID: c.id, Object: "chat.completion.chunk", Created: c.created, Model: c.model, Choices: []chatChoice{},
			Usage: c.usageOf(total, c.thought), SystemFingerprint: c.fingerprint,
		})
	}
	e.raw("[DONE]")
}

func (c *chatStream) fail(e *events, err openai.Error) { e.failed(err) }
