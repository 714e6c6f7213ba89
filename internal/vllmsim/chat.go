package vllmsim

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
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
	Echo                bool            `json:"echo"`
	AddPrompt           *bool           `json:"add_generation_prompt"`
	Continue            bool            `json:"continue_final_message"`
	ReturnText          bool            `json:"return_prompt_text"`

	limitName string // of MaxCompletionTokens, where it is another dialect's
}

// chatShape is ChatCompletionRequest
// (vllm/entrypoints/openai/chat_completion/protocol.py).
var chatShape = model(
	need("messages", listOf(messageShape)),
	may("model", optional(text)),
	may("frequency_penalty", optional(number)),
	may("logit_bias", optional(dict)),
	may("logprobs", optional(boolean)),
	may("top_logprobs", optional(integer)),
	may("max_tokens", optional(integer)),
	may("max_completion_tokens", optional(integer)),
	may("n", optional(integer)),
	may("presence_penalty", optional(number)),
	may("response_format", optional(formatShape)),
	may("seed", optional(long)),
	may("stop", stopShape),
	may("stream", optional(boolean)),
	may("stream_options", optional(streamOptionsShape)),
	may("temperature", optional(number)),
	may("top_p", optional(number)),
	may("tools", optional(listOf(toolShape))),
	may("tool_choice", optional(either(oneOf("none"), oneOf("auto"), oneOf("required"), asIs(model(
		need("function", model(need("name", text))), may("type", oneOf("function"))))))),
	may("reasoning_effort", optional(oneOf("none", "minimal", "low", "medium", "high", "xhigh", "max"))),
	may("include_reasoning", boolean),
	may("parallel_tool_calls", optional(boolean)),
	may("user", optional(text)),
	may("top_k", optional(integer)),
	may("min_p", optional(number)),
	may("repetition_penalty", optional(number)),
	may("include_stop_str_in_output", boolean),
	may("ignore_eos", boolean),
	may("min_tokens", integer),
	may("truncate_prompt_tokens", optional(least(-1, long))),
	may("prompt_logprobs", optional(integer)),
	may("echo", boolean),
	may("add_generation_prompt", boolean),
	may("continue_final_message", boolean),
	may("chat_template_kwargs", optional(dict)),
	may("priority", long),
	may("request_id", text),
	may("return_tokens_as_token_ids", optional(boolean)),
	may("return_token_ids", optional(boolean)),
	may("return_prompt_text", optional(boolean)),
	may("cache_salt", optional(text)),
)

// chatChecks are its checks that come before, in the order in which they run.
var chatChecks = []early{checkTurns, checkPrompting, checkTools, checkLogprobs("top_logprobs"), checkStreamOptions, checkFormat, checkSalt}

// checkTurns: vLLM goes through messages and their calls before it knows that
// they are lists.
func checkTurns(in fields) *openai.Error {
	if string(in["messages"]) == "null" {
		return bad("", nil, "'NoneType' object is not iterable")
	}
	var turns []json.RawMessage
	json.Unmarshal(in["messages"], &turns)
	for _, turn := range turns {
		calls := fieldsOf(turn)["tool_calls"]
		if _, err := strconv.ParseInt(string(calls), 10, 64); err == nil {
			return bad("", nil, "'int' object is not iterable")
		}
	}
	return nil
}

func checkPrompting(in fields) *openai.Error {
	if in.truthy("continue_final_message") && in.truthy("add_generation_prompt") {
		return bad("", nil, "Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
	}
	return nil
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

// check refuses a schema that vLLM's grammar has no word for.
func (f *responseFormat) check() *openai.Error {
	if f == nil || f.JSONSchema == nil {
		return nil
	}
	if word := strange(f.JSONSchema.Schema, 0); word != "" {
		return bad("", nil, "Grammar error: Invalid type: %s", word)
	}
	return nil
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

// limit of the answer; the newer field wins.
func (q *chatRequest) limit() limit {
	if q.MaxCompletionTokens != nil {
		return limit{cmp.Or(q.limitName, "max_completion_tokens"), q.MaxCompletionTokens}
	}
	return limit{"max_tokens", q.MaxTokens}
}

// thinks is whether the answer starts with reasoning.
func (q *chatRequest) thinks() bool { return q.Template.EnableThinking }

// prompts is whether the template ends with the start of a new turn.
func (q *chatRequest) prompts() bool { return q.AddPrompt == nil || *q.AddPrompt }

// role is whose turn the answer is.
func (q *chatRequest) role() string {
	if q.prompts() {
		return "assistant"
	}
	return q.Messages[len(q.Messages)-1].Role
}

// echoed is the last turn, where the answer goes on with it.
func (q *chatRequest) echoed() string {
	if last := q.Messages[len(q.Messages)-1]; q.Echo && last.Role == q.role() {
		return last.Content.text
	}
	return ""
}

// hidesReasoning is whether the client does not want to see it.
func (q *chatRequest) hidesReasoning() bool { return q.IncludeReasoning != nil && !*q.IncludeReasoning }

// conversation is a checked request with its answers planned.
type conversation struct {
	*chatRequest
	id      string
	created int64
	model   string
	text    string // the prompt's
	prompt  []int
	job     *job
}

func (s *Server) converse(r *http.Request, q *chatRequest) (*conversation, *openai.Error) {
	model, e := s.known(q.Model)
	if e != nil {
		return nil, e
	}
	if e := s.checkMessages(q.Messages); e != nil {
		return nil, e
	}
	if len(q.Messages) == 0 {
		return nil, bad("", nil, "Cannot apply chat template to an empty conversation. Provide at least one message.")
	}
	q.ToolChoice.settle(q.Tools)
	if q.Logprobs {
		q.top = q.TopLogprobs
	}
	q.ordinal = s.requests.Add(1)
	c := &conversation{
		chatRequest: q, id: "chatcmpl-" + s.id(r, &q.sampling), created: time.Now().Unix(), model: model,
		job: q.newJob(q.limit()),
	}
	c.text = render(q.Messages, q.Tools, q.prompts(), q.Continue)
	c.prompt = q.truncated(encode(c.text), s.cfg.MaxModelLen)
	room, e := s.room(len(c.prompt), q.limit(), &q.sampling)
	if e != nil {
		return nil, e
	}
	if e := q.ResponseFormat.check(); e != nil {
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
	if e := read(r, chatShape, &q, chatChecks...); e != nil {
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
		PromptText:        c.promptText(),
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
	answer.Usage = c.usageOf(said, thought).whole()
	return answer
}

// promptText is what the template made of the messages, where it was asked for.
func (c *conversation) promptText() json.RawMessage {
	if !c.ReturnText {
		return null
	}
	return encodeJSON(c.text)
}

func (c *conversation) message(tokens []token, choice int) chatFullMessage {
	text := c.echoed() + textOf(tokens, content)
	m := chatFullMessage{Role: c.role(), Content: &text}
	if thought := textOf(tokens, reasoning); thought != "" && !c.hidesReasoning() {
		m.Reasoning = &thought
	}
	switch name, args := textOf(tokens, toolName), textOf(tokens, toolArgs); {
	case name == "":
	case !json.Valid([]byte(args)): // cut short, which the parser takes for text
		text += "<tool_call>\n{\"name\": \"" + name + "\", \"arguments\": " + args
	default:
		m.ToolCalls = []fullToolCall{{ID: c.callID(choice), Type: "function", Function: fullFunction{name, args}}}
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
		u.CompletionTokensDetails = encodeJSON(usageDetails{thought})
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
