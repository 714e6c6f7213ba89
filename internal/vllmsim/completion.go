package vllmsim

import (
	"encoding/json"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

type completionRequest struct {
	sampling
	Prompt         prompts         `json:"prompt"`
	Echo           bool            `json:"echo"`
	Logprobs       *int            `json:"logprobs"`
	ResponseFormat *responseFormat `json:"response_format"`
}

// defaultCompletionTokens is max_tokens of /v1/completions when it has none.
const defaultCompletionTokens = 16

// prompts is text, token ids, or a list of either.
type prompts [][]int

func (p *prompts) UnmarshalJSON(data []byte) error {
	var text string
	var ids []int
	var texts []string
	switch {
	case json.Unmarshal(data, &text) == nil:
		if text != "" {
			*p = prompts{withBOS(text)}
		}
	case json.Unmarshal(data, &ids) == nil:
		*p = prompts{ids}
	case json.Unmarshal(data, &texts) == nil:
		for _, t := range texts {
			*p = append(*p, withBOS(t))
		}
	case json.Unmarshal(data, (*[][]int)(p)) == nil:
	default:
		return mistyped("prompt", "string")
	}
	return nil
}

func withBOS(text string) []int { return append([]int{bos}, encode(text)...) }

func (q *completionRequest) check() *openai.Error {
	if len(q.Prompt) == 0 {
		return refused("prompt", "Either prompt or prompt_embeds must be provided and non-empty.")
	}
	if q.Logprobs != nil && *q.Logprobs < 0 {
		return refused("logprobs", "`logprobs` must be a positive value or -1.")
	}
	if e := q.ResponseFormat.check(); e != nil {
		return e
	}
	return q.sampling.check()
}

// completion is a checked request with its answers planned.
type completion struct {
	*completionRequest
	id          string
	created     int64
	model       string
	fingerprint string
	job         *job
	said        []int // tokens, by choice
	offset      []int // characters, by choice
}

func (s *Server) complete(r *http.Request, q *completionRequest) (*completion, *openai.Error) {
	if e := q.check(); e != nil {
		return nil, e
	}
	model, e := s.known(q.Model)
	if e != nil {
		return nil, e
	}
	if q.MaxTokens == nil {
		limit := defaultCompletionTokens
		q.MaxTokens = &limit
	}
	q.ordinal = s.requests.Add(1)
	c := &completion{
		completionRequest: q, id: "cmpl-" + s.requestID(r, q.ordinal), created: time.Now().Unix(), model: model,
		fingerprint: s.fingerprint(), job: q.newJob(q.MaxTokens),
	}
	for _, prompt := range q.Prompt {
		room, e := s.room(len(prompt), q.MaxTokens, &q.sampling)
		if e != nil {
			return nil, e
		}
		sp := q.speech(room)
		sp.json = q.ResponseFormat.json(s.seed(&q.sampling, prompt, 0))
		s.plan(c.job, prompt, &q.sampling, sp)
	}
	c.said, c.offset = make([]int, len(c.job.seqs)), make([]int, len(c.job.seqs))
	return c, nil
}

func (s *Server) completions(w http.ResponseWriter, r *http.Request, t trouble) {
	var q completionRequest
	if e := read(r, &q); e != nil {
		e.WriteTo(w)
		return
	}
	c, e := s.complete(r, &q)
	if e != nil {
		e.WriteTo(w)
		return
	}
	if q.Stream {
		s.stream(w, r, c.job, t, c)
		return
	}
	if s.collect(w, r, c.job, t) {
		writeJSON(w, c.response())
	}
}

// promptTokens counts each prompt once, however many answers it gets.
func (c *completion) promptTokens() int {
	total := 0
	for _, p := range c.Prompt {
		total += len(p)
	}
	return total
}

// echoed is what comes before an answer's first text.
func (c *completion) echoed(choice int) string {
	if !c.Echo {
		return ""
	}
	prompt := c.Prompt[choice/c.answers()]
	if len(prompt) > 0 && prompt[0] == bos {
		prompt = prompt[1:]
	}
	return decode(prompt)
}

func (c *completion) logprobs(tokens []token, choice int) *completionLogprobs {
	if c.Logprobs == nil {
		return nil
	}
	return newCompletionLogprobs(tokens, *c.Logprobs, c.offset[choice])
}

func (c *completion) response() completionResponse {
	answer := completionResponse{
		ID: c.id, Object: "text_completion", Created: c.created, Model: c.model, SystemFingerprint: c.fingerprint,
	}
	said := 0
	for _, q := range c.job.seqs {
		said += len(q.script.tokens)
		answer.Choices = append(answer.Choices, completionFullChoice{
			Index: q.choice, Text: c.echoed(q.choice) + textOf(q.script.tokens, content),
			Logprobs:     c.logprobs(q.script.tokens, q.choice),
			FinishReason: q.script.finish, StopReason: orNull(q.script.stopped),
			TokenIDs:       idsOrNull(c.ReturnIDs, idsOf(q.script.tokens)),
			PromptTokenIDs: idsOrNull(c.ReturnIDs, c.Prompt[q.choice/c.answers()]),
		})
	}
	answer.Usage = newUsage(c.promptTokens(), said)
	answer.Usage.PromptTokensDetails = null
	return answer
}

func (c *completion) open(*events) {}

func (c *completion) step(e *events, s step) {
	for _, d := range s {
		c.delta(e, d)
	}
}

func (c *completion) delta(e *events, d delta) {
	choice := completionChoice{
		Index: d.choice, Text: textOf(d.tokens, content), Logprobs: c.logprobs(d.tokens, d.choice),
		StopReason: orNull(d.stopped), TokenIDs: idsOrNull(c.ReturnIDs, idsOf(d.tokens)),
	}
	prompt := c.Prompt[d.choice/c.answers()]
	if c.said[d.choice] == 0 {
		choice.Text = c.echoed(d.choice) + choice.Text
		choice.PromptTokenIDs = idsOrNull(c.ReturnIDs, prompt)
	}
	c.said[d.choice] += len(d.tokens)
	c.offset[d.choice] += utf8.RuneCountInString(choice.Text)
	chunk := c.chunk(choice)
	if d.finish != "" {
		chunk.Choices[0].FinishReason = &d.finish
		if !c.usage() {
			chunk.SystemFingerprint = c.fingerprint
		}
	}
	if c.continuous() {
		chunk.Usage = newUsage(len(prompt), c.said[d.choice])
	}
	e.data(chunk)
}

func (c *completion) chunk(choices ...completionChoice) completionChunk {
	if choices == nil {
		choices = []completionChoice{}
	}
	return completionChunk{ID: c.id, Object: "text_completion", Created: c.created, Model: c.model, Choices: choices}
}

func (c *completion) close(e *events) {
	if c.usage() {
		total := 0
		for _, n := range c.said {
			total += n
		}
		chunk := c.chunk()
		chunk.Usage, chunk.SystemFingerprint = newUsage(c.promptTokens(), total), c.fingerprint
		e.data(chunk)
	}
	e.raw("[DONE]")
}

func (c *completion) fail(e *events, err openai.Error) { e.failed(err) }
