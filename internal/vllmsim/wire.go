package vllmsim

import "encoding/json"

// The shapes of vLLM's answers. vLLM prints streamed chunks without the fields
// that its code left unset, and whole answers with all fields; null stands for
// a field that was set to nothing.

var null = json.RawMessage("null")

type usage struct {
	PromptTokens            int             `json:"prompt_tokens"`
	TotalTokens             int             `json:"total_tokens"`
	CompletionTokens        int             `json:"completion_tokens"`
	PromptTokensDetails     json.RawMessage `json:"prompt_tokens_details,omitempty"`
	CompletionTokensDetails json.RawMessage `json:"completion_tokens_details,omitempty"`
}

// whole is the usage of an answer in one piece, which has all fields.
func (u *usage) whole() *usage {
	u.PromptTokensDetails = null
	if u.CompletionTokensDetails == nil {
		u.CompletionTokensDetails = null
	}
	return u
}

type usageDetails struct {
	ReasoningTokens int `json:"reasoning_tokens"`
}

func newUsage(prompt, completion int) *usage {
	return &usage{PromptTokens: prompt, TotalTokens: prompt + completion, CompletionTokens: completion}
}

type chatChunk struct {
	ID                string          `json:"id"`
	Object            string          `json:"object"`
	Created           int64           `json:"created"`
	Model             string          `json:"model"`
	Choices           []chatChoice    `json:"choices"`
	Usage             *usage          `json:"usage,omitempty"`
	SystemFingerprint string          `json:"system_fingerprint,omitempty"`
	PromptTokenIDs    json.RawMessage `json:"prompt_token_ids,omitempty"`
	PromptText        json.RawMessage `json:"prompt_text,omitempty"`
}

type chatChoice struct {
	Index        int             `json:"index"`
	Delta        chatDelta       `json:"delta"`
	Logprobs     *chatLogprobs   `json:"logprobs"`
	FinishReason *string         `json:"finish_reason"`
	StopReason   json.RawMessage `json:"stop_reason,omitempty"`
	TokenIDs     json.RawMessage `json:"token_ids,omitempty"`
}

type chatDelta struct {
	Role      string          `json:"role,omitempty"`
	Content   json.RawMessage `json:"content,omitempty"`
	Reasoning *string         `json:"reasoning,omitempty"`
	ToolCalls []toolDelta     `json:"tool_calls,omitempty"`
}

type toolDelta struct {
	ID       string       `json:"id,omitempty"`
	Type     string       `json:"type,omitempty"`
	Index    int          `json:"index"`
	Function toolFunction `json:"function"`
}

type toolFunction struct {
	Name      string  `json:"name,omitempty"`
	Arguments *string `json:"arguments,omitempty"`
}

type chatResponse struct {
	ID                string           `json:"id"`
	Object            string           `json:"object"`
	Created           int64            `json:"created"`
	Model             string           `json:"model"`
	Choices           []chatFullChoice `json:"choices"`
	ServiceTier       *string          `json:"service_tier"`
	SystemFingerprint string           `json:"system_fingerprint"`
	Usage             *usage           `json:"usage"`
	PromptLogprobs    json.RawMessage  `json:"prompt_logprobs"`
	PromptTokenIDs    json.RawMessage  `json:"prompt_token_ids"`
	PromptText        json.RawMessage  `json:"prompt_text"`
	KVTransferParams  json.RawMessage  `json:"kv_transfer_params"`
	ECTransferParams  json.RawMessage  `json:"ec_transfer_params"`
	Metrics           json.RawMessage  `json:"metrics"`
}

type chatFullChoice struct {
	Index        int             `json:"index"`
	Message      chatFullMessage `json:"message"`
	Logprobs     *chatLogprobs   `json:"logprobs"`
	FinishReason string          `json:"finish_reason"`
	StopReason   json.RawMessage `json:"stop_reason"`
	TokenIDs     json.RawMessage `json:"token_ids"`
	Routed       json.RawMessage `json:"routed_experts"`
}

type chatFullMessage struct {
	Role         string          `json:"role"`
	Content      *string         `json:"content"`
	Refusal      *string         `json:"refusal"`
	Annotations  json.RawMessage `json:"annotations"`
	Audio        json.RawMessage `json:"audio"`
	FunctionCall json.RawMessage `json:"function_call"`
	ToolCalls    []fullToolCall  `json:"tool_calls,omitempty"`
	Reasoning    *string         `json:"reasoning"`
}

type fullToolCall struct {
	ID       string       `json:"id"`
	Type     string       `json:"type"`
	Function fullFunction `json:"function"`
}

type fullFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

type completionChunk struct {
	ID                string             `json:"id"`
	Object            string             `json:"object"`
	Created           int64              `json:"created"`
	Model             string             `json:"model"`
	Choices           []completionChoice `json:"choices"`
	Usage             *usage             `json:"usage,omitempty"`
	SystemFingerprint string             `json:"system_fingerprint,omitempty"`
}

type completionChoice struct {
	Index          int                 `json:"index"`
	Text           string              `json:"text"`
	Logprobs       *completionLogprobs `json:"logprobs"`
	FinishReason   *string             `json:"finish_reason"`
	StopReason     json.RawMessage     `json:"stop_reason"`
	PromptTokenIDs json.RawMessage     `json:"prompt_token_ids"`
	TokenIDs       json.RawMessage     `json:"token_ids"`
}

type completionResponse struct {
	ID                string                 `json:"id"`
	Object            string                 `json:"object"`
	Created           int64                  `json:"created"`
	Model             string                 `json:"model"`
	Choices           []completionFullChoice `json:"choices"`
	ServiceTier       *string                `json:"service_tier"`
	SystemFingerprint string                 `json:"system_fingerprint"`
	Usage             *usage                 `json:"usage"`
	KVTransferParams  json.RawMessage        `json:"kv_transfer_params"`
	ECTransferParams  json.RawMessage        `json:"ec_transfer_params"`
	Metrics           json.RawMessage        `json:"metrics"`
}

type completionFullChoice struct {
	Index          int                 `json:"index"`
	Text           string              `json:"text"`
	Logprobs       *completionLogprobs `json:"logprobs"`
	FinishReason   string              `json:"finish_reason"`
	StopReason     json.RawMessage     `json:"stop_reason"`
	TokenIDs       json.RawMessage     `json:"token_ids"`
	PromptLogprobs json.RawMessage     `json:"prompt_logprobs"`
	PromptTokenIDs json.RawMessage     `json:"prompt_token_ids"`
	Routed         json.RawMessage     `json:"routed_experts"`
}

// orNull prints a string, or null for none.
func orNull(s string) json.RawMessage {
	if s == "" {
		return null
	}
	return encodeJSON(s)
}

// idsOrNull prints token ids where they were asked for, else null.
func idsOrNull(asked bool, ids []int) json.RawMessage {
	if !asked {
		return null
	}
	return encodeJSON(ids)
}

func idsOf(tokens []token) []int {
	ids := make([]int, len(tokens))
	for i, t := range tokens {
		ids[i] = t.id
	}
	return ids
}

// textOf is what the client reads of the tokens of one part.
func textOf(tokens []token, p part) string {
	var text []byte
	for _, t := range tokens {
		if t.part == p {
			text = append(text, t.text...)
		}
	}
	return string(text)
}
