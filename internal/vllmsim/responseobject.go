package vllmsim

import (
	"cmp"
	"encoding/json"
	"fmt"
)

// answer is a conversation told as output items: reasoning, a message, a call.
type answer struct {
	*conversation
	asked  *responsesRequest
	id     string
	room   int // tokens that the context has for the answer
	output []any
	end    string // finish reason; empty while it goes on
}

type responseObject struct {
	ID                 string            `json:"id"`
	CreatedAt          int64             `json:"created_at"`
	IncompleteDetails  *incomplete       `json:"incomplete_details"`
	Instructions       *string           `json:"instructions"`
	Metadata           json.RawMessage   `json:"metadata"`
	Model              string            `json:"model"`
	Object             string            `json:"object"`
	Output             []any             `json:"output"`
	ParallelToolCalls  bool              `json:"parallel_tool_calls"`
	Temperature        float             `json:"temperature"`
	ToolChoice         json.RawMessage   `json:"tool_choice"`
	Tools              []json.RawMessage `json:"tools"`
	TopP               float             `json:"top_p"`
	Background         bool              `json:"background"`
	MaxOutputTokens    int               `json:"max_output_tokens"`
	MaxToolCalls       *int              `json:"max_tool_calls"`
	PreviousResponseID *string           `json:"previous_response_id"`
	Prompt             json.RawMessage   `json:"prompt"`
	Reasoning          json.RawMessage   `json:"reasoning"`
	ServiceTier        string            `json:"service_tier"`
	Status             string            `json:"status"`
	Text               json.RawMessage   `json:"text"`
	TopLogprobs        *int              `json:"top_logprobs"`
	Truncation         string            `json:"truncation"`
	Usage              *responseUsage    `json:"usage"`
	User               *string           `json:"user"`
	PresencePenalty    float             `json:"presence_penalty"`
	FrequencyPenalty   float             `json:"frequency_penalty"`
	KVTransferParams   json.RawMessage   `json:"kv_transfer_params"`
	ECTransferParams   json.RawMessage   `json:"ec_transfer_params"`
	InputMessages      json.RawMessage   `json:"input_messages"`
	OutputMessages     json.RawMessage   `json:"output_messages"`
}

type incomplete struct {
	Reason string `json:"reason"`
}

// The lists by turn are of tools that vLLM runs itself, and empty without.
type responseUsage struct {
	InputTokens        int                `json:"input_tokens"`
	InputTokensDetails responseInputInfo  `json:"input_tokens_details"`
	OutputTokens       int                `json:"output_tokens"`
	OutputDetails      responseOutputInfo `json:"output_tokens_details"`
	TotalTokens        int                `json:"total_tokens"`
}

type responseInputInfo struct {
	CachedTokens     int    `json:"cached_tokens"`
	CacheWriteTokens int    `json:"cache_write_tokens"`
	InputPerTurn     [0]int `json:"input_tokens_per_turn"`
	CachedPerTurn    [0]int `json:"cached_tokens_per_turn"`
}

type responseOutputInfo struct {
	ReasoningTokens   int    `json:"reasoning_tokens"`
	ToolOutputTokens  int    `json:"tool_output_tokens"`
	OutputPerTurn     [0]int `json:"output_tokens_per_turn"`
	ToolOutputPerTurn [0]int `json:"tool_output_tokens_per_turn"`
}

// The kinds of item: each has its fields in an order of its own.
type (
	messageItem struct {
		ID      string          `json:"id"`
		Content []any           `json:"content"`
		Role    string          `json:"role"`
		Status  string          `json:"status"`
		Type    string          `json:"type"`
		Phase   json.RawMessage `json:"phase"`
	}
	reasoningItem struct {
		ID               string          `json:"id"`
		Summary          [0]string       `json:"summary"`
		Type             string          `json:"type"`
		Content          []any           `json:"content"` // null at first
		EncryptedContent json.RawMessage `json:"encrypted_content"`
		Status           json.RawMessage `json:"status"`
	}
	callItem struct {
		Arguments string          `json:"arguments"`
		CallID    string          `json:"call_id"`
		Name      string          `json:"name"`
		Type      string          `json:"type"`
		ID        string          `json:"id"`
		Async     json.RawMessage `json:"async"`
		Caller    json.RawMessage `json:"caller"`
		Namespace json.RawMessage `json:"namespace"`
		Status    string          `json:"status"`
	}
)

// The kinds of content of an item.
type (
	textContent struct {
		Annotations [0]string         `json:"annotations"`
		Text        string            `json:"text"`
		Type        string            `json:"type"`
		Logprobs    []responseLogprob `json:"logprobs"`
	}
	reasoningContent struct {
		Text string `json:"text"`
		Type string `json:"type"`
	}
)

// responseLogprob of a token. In deltas it has no bytes, and an alternative has
// no alternatives.
type responseLogprob struct {
	Token       string            `json:"token"`
	Bytes       []int             `json:"bytes,omitzero"`
	Logprob     float64           `json:"logprob"`
	TopLogprobs []responseLogprob `json:"top_logprobs,omitzero"`
}

// logprobs of tokens; nil where they are not asked for.
func (a *answer) logprobs(tokens []token, bytes bool) []responseLogprob {
	top := a.asked.logprobs()
	if top < 0 {
		return nil
	}
	var list []responseLogprob
	for _, entry := range newChatLogprobs(tokens, top).Content {
		l := responseLogprob{Token: entry.Token, Logprob: entry.Logprob, TopLogprobs: []responseLogprob{}}
		if bytes {
			l.Bytes = entry.Bytes
		}
		for _, other := range entry.TopLogprobs {
			alternative := responseLogprob{Token: other.Token, Logprob: other.Logprob}
			if bytes {
				alternative.Bytes = other.Bytes
			}
			l.TopLogprobs = append(l.TopLogprobs, alternative)
		}
		list = append(list, l)
	}
	return list
}

func (a *answer) itemID(p part) string {
	return map[part]string{reasoning: "rs_", content: "msg_", toolName: "fc_"}[p] + hex16(mixString(uint64(p), a.id))
}

// item of a part with what it says so far. The status is empty where vLLM does
// not tell it.
func (a *answer) item(p part, status, said string, logprobs []responseLogprob) any {
	id := a.itemID(p)
	var all []any
	if said != "" {
		all = []any{contentOf(p, said, logprobs)}
	}
	switch p {
	case reasoning:
		return reasoningItem{ID: id, Type: "reasoning", Content: all, Status: orNull(status)}
	case toolName:
		name := textOf(a.job.seqs[0].script.tokens, toolName)
		return callItem{Arguments: said, CallID: a.callID(0), Name: name, Type: "function_call", ID: id, Status: status}
	}
	return messageItem{ID: id, Content: append([]any{}, all...), Role: "assistant", Status: status, Type: "message"}
}

func contentOf(p part, said string, logprobs []responseLogprob) any {
	if p == reasoning {
		return reasoningContent{said, "reasoning_text"}
	}
	return textContent{Text: said, Type: "output_text", Logprobs: logprobs}
}

// finish makes the whole output.
func (a *answer) finish() {
	q := a.job.seqs[0]
	a.end = q.script.finish
	m := a.message(q.script.tokens, 0)
	if m.Reasoning != nil {
		a.output = append(a.output, a.item(reasoning, "", *m.Reasoning, nil))
	}
	if m.Content != nil && *m.Content != "" {
		a.output = append(a.output, a.item(content, "completed", *m.Content, a.logprobs(q.script.tokens, true)))
	}
	for _, call := range m.ToolCalls {
		a.output = append(a.output, a.item(toolName, "completed", call.Function.Arguments, nil))
	}
}

// response is the answer as far as it has come.
func (a *answer) response() responseObject {
	q := a.asked
	or := func(v *float64, otherwise float) float {
		if v == nil {
			return otherwise
		}
		return float(*v)
	}
	out := responseObject{
		ID: a.id, CreatedAt: a.created, Instructions: q.Instructions, Metadata: q.Metadata, Model: a.model,
		Object: "response", Output: append([]any{}, a.output...), ParallelToolCalls: q.ParallelToolCalls == nil || *q.ParallelToolCalls,
		Temperature: or(q.Temperature, 1), ToolChoice: q.choice(), Tools: []json.RawMessage{}, TopP: or(q.TopP, 1),
		MaxOutputTokens: a.room, MaxToolCalls: q.MaxToolCalls, Reasoning: printed(q.Reasoning, "context", "effort", "generate_summary", "mode", "summary"),
		ServiceTier: cmp.Or(q.ServiceTier, "auto"), Status: "in_progress", Text: q.textConfig(), Truncation: cmp.Or(q.Truncation, "disabled"), User: q.User,
		PresencePenalty: or(q.PresencePenalty, 0), FrequencyPenalty: or(q.FrequencyPenalty, 0),
	}
	for _, t := range q.Tools {
		if unquote(fieldsOf(t)["type"]) == "function" {
			t = printed(t, "name", "parameters", "strict", "type", "allowed_callers", "async", "defer_loading", "description", "output_schema")
		}
		out.Tools = append(out.Tools, t)
	}
	if q.MaxOutputTokens != nil {
		out.MaxOutputTokens = min(a.room, *q.MaxOutputTokens)
	}
	if top := q.logprobs(); top >= 0 {
		out.TopLogprobs = &top
	}
	if a.end == "" {
		return out
	}
	tokens := a.job.seqs[0].script.tokens
	out.Status = "completed"
	if a.end == "length" {
		out.Status, out.IncompleteDetails = "incomplete", &incomplete{"max_output_tokens"}
	}
	out.Usage = &responseUsage{
		InputTokens: len(a.prompt), InputTokensDetails: responseInputInfo{CachedTokens: a.job.seqs[0].cached},
		OutputTokens: len(tokens), OutputDetails: responseOutputInfo{ReasoningTokens: count(tokens, reasoning)},
		TotalTokens: len(a.prompt) + len(tokens),
	}
	return out
}

// choice is what vLLM has made of tool_choice.
func (q *responsesRequest) choice() json.RawMessage {
	switch {
	case len(q.Tools) == 0:
		return json.RawMessage(`"none"`)
	case q.ToolChoice == nil:
		return json.RawMessage(`"auto"`)
	case unquote(fieldsOf(q.ToolChoice)["type"]) == "function":
		return printed(q.ToolChoice, "name", "type")
	}
	return q.ToolChoice
}

func (q *responsesRequest) textConfig() json.RawMessage {
	config := fieldsOf(q.Text)
	if config.has("format") {
		names := []string{"type"}
		if unquote(fieldsOf(config["format"])["type"]) == "json_schema" {
			names = []string{"name", "schema", "type", "description", "strict"}
		}
		config["format"] = printed(config["format"], names...)
	}
	return printed(encodeJSON(config), "format", "verbosity")
}

// printed is an object as pydantic prints it again: these fields, in this order,
// null where they were not given.
func printed(in json.RawMessage, names ...string) json.RawMessage {
	given := fieldsOf(in)
	if given == nil {
		return null
	}
	var out []byte
	for _, name := range names {
		value := given[name]
		if value == nil {
			value = null
		}
		out = fmt.Appendf(out, ",%q:%s", name, value)
	}
	out[0] = '{'
	return append(out, '}')
}

func (f float) MarshalJSON() ([]byte, error) { return []byte(f.String()), nil }
