package vllmsim

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

type chatRequest struct {
	sampling
	Messages            []message       `json:"messages"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Logprobs            bool            `json:"logprobs"`
	TopLogprobs         int             `json:"top_logprobs"`
	Tools               []tool          `json:"tools"`
	ToolChoice          toolChoice      `json:"tool_choice"`
	ResponseFormat      *responseFormat `json:"response_format"`
	Template            templateArgs    `json:"chat_template_kwargs"`
	IncludeReasoning    *bool           `json:"include_reasoning"`
}

// templateArgs hold what switches reasoning on, as with Qwen3 models.
type templateArgs struct {
	EnableThinking bool `json:"enable_thinking"`
}

type responseFormat struct {
	Type       string `json:"type"`
	JSONSchema *struct {
		Schema json.RawMessage `json:"schema"`
	} `json:"json_schema"`
}

func (f *responseFormat) check() *openai.Error {
	switch {
	case f == nil || f.Type == "text" || f.Type == "json_object":
		return nil
	case f.Type == "json_schema" && f.JSONSchema != nil:
		return nil
	case f.Type == "json_schema":
		return refused("response_format", "When response_format type is 'json_schema', the 'json_schema' field must be provided.")
	}
	return invalid("body.response_format.type", "{'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), "+
		"'msg': \"Input should be 'text', 'json_object' or 'json_schema'\"}")
}

// json is the text that fits the format; empty for free text.
func (f *responseFormat) json(seed uint64) string {
	switch {
	case f == nil || f.Type == "text":
		return ""
	case f.Type == "json_schema":
		return sample(f.JSONSchema.Schema, seed)
	}
	return `{"answer": ` + sample(json.RawMessage(`{"type":"string"}`), seed) + `}`
}

// maxAsked is the cap on the answer; the newer field wins.
func (q *chatRequest) maxAsked() *int {
	if q.MaxCompletionTokens != nil {
		return q.MaxCompletionTokens
	}
	return q.MaxTokens
}

// thinks is whether the answer starts with reasoning.
func (q *chatRequest) thinks() bool { return q.Template.EnableThinking }

// hidesReasoning is whether the client does not want to see it.
func (q *chatRequest) hidesReasoning() bool { return q.IncludeReasoning != nil && !*q.IncludeReasoning }

func (q *chatRequest) check() *openai.Error {
	if q.Messages == nil {
		return missing("messages")
	}
	if q.TopLogprobs > 0 && !q.Logprobs {
		return refused("top_logprobs", "when using `top_logprobs`, `logprobs` must be set to true.")
	}
	if q.Tools != nil && len(q.Tools) == 0 {
		return refused("tools", "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.")
	}
	if e := q.ToolChoice.settle(q.Tools); e != nil {
		return e
	}
	if e := q.ResponseFormat.check(); e != nil {
		return e
	}
	return q.sampling.check()
}

// conversation is a checked request with its answers planned.
type conversation struct {
	*chatRequest
	id      string
	created int64
	model   string
	prompt  []int
	job     *job
}

func (s *Server) converse(r *http.Request, q *chatRequest) (*conversation, *openai.Error) {
	if e := q.check(); e != nil {
		return nil, e
	}
	model, e := s.known(q.Model)
	if e != nil {
		return nil, e
	}
	if e := s.checkMessages(q.Messages); e != nil {
		return nil, e
	}
	q.ordinal = s.requests.Add(1)
	c := &conversation{
		chatRequest: q, id: "chatcmpl-" + s.requestID(r, q.ordinal), created: time.Now().Unix(), model: model,
		job: q.newJob(q.maxAsked()),
	}
	if len(q.Messages) > 0 {
		c.prompt = encode(render(q.Messages, q.Tools, true))
	}
	room, e := s.room(len(c.prompt), q.maxAsked(), &q.sampling)
	if e != nil {
		return nil, e
	}
	sp := q.speech(room)
	seed := s.seed(&q.sampling, c.prompt, 0)
	sp.think = q.thinks()
	sp.call = q.ToolChoice.call(q.Tools, q.Messages, seed)
	sp.json = q.ResponseFormat.json(seed)
	s.plan(c.job, c.prompt, &q.sampling, sp)
	return c, nil
}

func (s *Server) chat(w http.ResponseWriter, r *http.Request, t trouble) {
	var q chatRequest
	if e := read(r, &q); e != nil {
		e.WriteTo(w)
		return
	}
	c, e := s.converse(r, &q)
	if e != nil {
		e.WriteTo(w)
		return
	}
	if q.Stream {
		s.stream(w, r, c.job, t, &chatStream{conversation: c, fingerprint: s.fingerprint(), said: make([]int, len(c.job.seqs))})
		return
	}
	if s.collect(w, r, c.job, t) {
		writeJSON(w, c.response(s.fingerprint()))
	}
}

// response is the whole answer.
func (c *conversation) response(fingerprint string) chatResponse {
	said, thought := 0, 0
	answer := chatResponse{
		ID: c.id, Object: "chat.completion", Created: c.created, Model: c.model,
		SystemFingerprint: fingerprint,
		PromptTokenIDs:    idsOrNull(c.ReturnIDs, c.prompt),
	}
	for _, q := range c.job.seqs {
		tokens := q.script.tokens
		said += len(tokens)
		thought += count(tokens, reasoning)
		choice := chatFullChoice{
			Index: q.choice, Message: c.message(tokens, q.choice),
			FinishReason: c.reason(tokens, q.script.finish), StopReason: orNull(q.script.stopped),
			TokenIDs: idsOrNull(c.ReturnIDs, idsOf(tokens)),
		}
		if c.Logprobs {
			choice.Logprobs = newChatLogprobs(tokens, c.TopLogprobs)
		}
		answer.Choices = append(answer.Choices, choice)
	}
	answer.Usage = c.usageOf(said, thought)
	answer.Usage.PromptTokensDetails = null
	return answer
}

func (c *conversation) message(tokens []token, choice int) chatFullMessage {
	text := textOf(tokens, content)
	m := chatFullMessage{Role: "assistant", Content: &text}
	if thought := textOf(tokens, reasoning); thought != "" && !c.hidesReasoning() {
		m.Reasoning = &thought
	}
	if name := textOf(tokens, toolName); name != "" {
		call := fullFunction{name, textOf(tokens, toolArgs)}
		m.ToolCalls = []fullToolCall{{ID: c.callID(choice), Type: "function", Function: call}}
		if text == "" && c.ToolChoice.mode == "auto" {
			m.Content = nil
		}
	}
	return m
}

// reason is how the client is told of the end: calls that the model chose to
// make, or had to, are tool_calls; a named one stays stop.
func (c *conversation) reason(tokens []token, finish string) string {
	if finish == "stop" && c.ToolChoice.mode != "named" && count(tokens, toolName) > 0 {
		return "tool_calls"
	}
	return finish
}

func (c *conversation) callID(choice int) string {
	return "chatcmpl-tool-" + hex16(mixString(uint64(choice), c.id))
}

// usageOf counts reasoning apart only when there can be any, as a server without
// a reasoning parser does.
func (c *conversation) usageOf(said, thought int) *usage {
	u := newUsage(len(c.prompt), said)
	if c.thinks() {
		u.CompletionTokensDetails = &usageDetails{thought}
	}
	return u
}

func count(tokens []token, p part) int {
	n := 0
	for _, t := range tokens {
		if t.part == p {
			n++
		}
	}
	return n
}
