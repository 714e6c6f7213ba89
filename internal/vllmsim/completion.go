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
	Suffix         string          `json:"suffix"`
	ResponseFormat *responseFormat `json:"response_format"`
}

// defaultCompletionTokens is max_tokens of /v1/completions when it has none.
const defaultCompletionTokens = 16

// prompts is text, token ids, or a list of either.
type prompts [][]int

func (p *prompts) UnmarshalJSON(data []byte) error {
	var one string
	var ids []int
	var texts []string
	switch {
	case json.Unmarshal(data, &one) == nil:
		if one != "" {
			*p = prompts{withBOS(one)}
		}
	case json.Unmarshal(data, &ids) == nil:
		if len(ids) > 0 {
			*p = prompts{ids}
		}
	case json.Unmarshal(data, &texts) == nil:
		for _, t := range texts {
			*p = append(*p, withBOS(t))
		}
	default:
		return json.Unmarshal(data, (*[][]int)(p))
	}
	return nil
}

var promptShape = either(listOf(least(0, integer)), listOf(listOf(least(0, integer))), text, listOf(text))

func withBOS(text string) []int { return append([]int{bos}, encode(text)...) }

// completionShape is CompletionRequest
// (vllm/entrypoints/openai/completion/protocol.py).
var completionShape = model(
	may("model", optional(text)),
	may("prompt", optional(promptShape)),
	may("echo", optional(boolean)),
	may("frequency_penalty", optional(number)),
	may("logit_bias", optional(dict)),
	may("logprobs", optional(integer)),
	may("max_tokens", optional(integer)),
	may("n", integer),
	may("presence_penalty", optional(number)),
	may("seed", optional(long)),
	may("stop", stopShape),
	may("stream", optional(boolean)),
	may("stream_options", optional(streamOptionsShape)),
	may("suffix", optional(text)),
	may("temperature", optional(number)),
	may("top_p", optional(number)),
	may("user", optional(text)),
	may("top_k", optional(integer)),
	may("min_p", optional(number)),
	may("repetition_penalty", optional(number)),
	may("include_stop_str_in_output", boolean),
	may("ignore_eos", boolean),
	may("min_tokens", integer),
	may("truncate_prompt_tokens", optional(least(-1, long))),
	may("prompt_logprobs", optional(integer)),
	may("add_special_tokens", boolean),
	may("response_format", optional(formatShape)),
	may("priority", long),
	may("request_id", text),
	may("return_tokens_as_token_ids", optional(boolean)),
	may("return_token_ids", optional(boolean)),
	may("cache_salt", optional(text)),
)

// completionChecks are its checks that come before, in the order in which they
// run.
var completionChecks = []early{checkPrompt, checkStreamOptions, checkLogprobs("logprobs"), checkFormat, checkSalt}

func checkPrompt(in fields) *openai.Error {
	if !in.has("prompt") || string(in["prompt"]) == `""` {
		return bad("prompt", nil, "Either prompt or prompt_embeds must be provided and non-empty.")
	}
	return nil
}

// completion is a checked request with its answers planned.
type completion struct {
	*completionRequest
	id          string
	created     int64
	model       string
	fingerprint string
	job         *job
	mute        bool  // only the prompt is told
	said        []int // tokens, by choice
	offset      []int // characters, by choice
}

func (s *Server) complete(r *http.Request, q *completionRequest) (*completion, *openai.Error) {
	model, e := s.known(q.Model)
	if e != nil {
		return nil, e
	}
	if q.Suffix != "" {
		return nil, about("suffix", openai.NewError(http.StatusBadRequest, "suffix is only supported for models with FIM completion rendering"))
	}
	if len(q.Prompt) == 0 {
		return nil, bad("", nil, "You must pass at least one prompt")
	}
	if e := q.ResponseFormat.check(); e != nil {
		return nil, e
	}
	most := limit{"max_tokens", q.MaxTokens}
	if most.asked == nil {
		most.asked = new(defaultCompletionTokens)
	}
	mute := q.Echo && *most.asked == 0
	if mute {
		most.asked = new(1) // which the engine says all the same
	}
	if q.Logprobs != nil {
		q.top = *q.Logprobs
	}
	q.ordinal = s.requests.Add(1)
	c := &completion{
		completionRequest: q, id: "cmpl-" + s.id(r, &q.sampling), created: time.Now().Unix(), model: model,
		fingerprint: s.fingerprint(), job: q.newJob(most), mute: mute,
	}
	for i, prompt := range q.Prompt {
		prompt = q.truncated(prompt, s.cfg.MaxModelLen)
		q.Prompt[i] = prompt
		room, e := s.room(len(prompt), most, &q.sampling)
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
	if e := read(r, completionShape, &q, completionChecks...); e != nil {
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

// tell is what a client reads of an answer's tokens; the first are told with the
// prompt, where it is to be echoed.
func (c *completion) tell(choice int, tokens []token, first bool) (string, *completionLogprobs) {
	echo := c.Echo && first
	if c.mute {
		tokens = nil
	}
	said, before := textOf(tokens, content), []token(nil)
	if echo {
		for _, id := range c.Prompt[choice/c.answers()] {
			before = append(before, token{id: id, text: unpack(id)})
		}
		if len(before) > 0 && before[0].id == bos {
			before = before[1:]
		}
		if !c.ReturnIDs {
			said = textOf(before, content) + said
		}
	}
	if c.Logprobs == nil {
		return said, nil
	}
	logprobs := newCompletionLogprobs(append(before, tokens...), *c.Logprobs, c.offset[choice])
	if echo {
		logprobs.forget()
	}
	return said, logprobs
}

func (c *completion) response() completionResponse {
	answer := completionResponse{
		ID: c.id, Object: "text_completion", Created: c.created, Model: c.model, SystemFingerprint: c.fingerprint,
	}
	said := 0
	for _, q := range c.job.seqs {
		said += len(q.script.tokens)
		text, logprobs := c.tell(q.choice, q.script.tokens, true)
		answer.Choices = append(answer.Choices, completionFullChoice{
			Index: q.choice, Text: text, Logprobs: logprobs,
			FinishReason: q.script.finish, StopReason: orNull(q.script.stopped),
			TokenIDs:       idsOrNull(c.ReturnIDs, idsOf(q.script.tokens)),
			PromptTokenIDs: idsOrNull(c.ReturnIDs, c.Prompt[q.choice/c.answers()]),
		})
	}
	answer.Usage = newUsage(c.promptTokens(), said).whole()
	return answer
}

func (c *completion) open(*events) {}

func (c *completion) step(e *events, s step) {
	for _, d := range s {
		c.delta(e, d)
	}
}

func (c *completion) delta(e *events, d delta) {
	first := c.said[d.choice] == 0
	said, logprobs := c.tell(d.choice, d.tokens, first)
	choice := completionChoice{
		Index: d.choice, Text: said, Logprobs: logprobs,
		StopReason: orNull(d.stopped), TokenIDs: idsOrNull(c.ReturnIDs, idsOf(d.tokens)),
	}
	prompt := c.Prompt[d.choice/c.answers()]
	if first {
		choice.PromptTokenIDs = idsOrNull(c.ReturnIDs || c.Echo, prompt)
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
