package vllmsim

import (
	"encoding/json"
	"net/http"
	"strings"
)

type responsesRequest struct {
	Model           *string      `json:"model"`
	Input           inputItems   `json:"input"`
	Instructions    *string      `json:"instructions"`
	MaxOutputTokens *int         `json:"max_output_tokens"`
	Temperature     *float64     `json:"temperature"`
	TopP            *float64     `json:"top_p"`
	Stream          bool         `json:"stream"`
	Template        templateArgs `json:"chat_template_kwargs"`
}

// inputItems are the turns of a conversation, or one user's turn as text. Items
// that are not messages are left out.
type inputItems []message

func (i *inputItems) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*i = inputItems{{Role: "user", Content: messageText{text: text}}}
		return nil
	}
	var items []message
	if err := json.Unmarshal(data, &items); err != nil {
		return mistyped("input", "string")
	}
	for _, item := range items {
		if item.Role != "" {
			*i = append(*i, item)
		}
	}
	return nil
}

// chat is the same request to chat completions.
func (q *responsesRequest) chat() *chatRequest {
	c := &chatRequest{Messages: q.Input, MaxCompletionTokens: q.MaxOutputTokens, Template: q.Template}
	c.Model, c.Temperature, c.TopP, c.Stream = q.Model, q.Temperature, q.TopP, q.Stream
	if q.Instructions != nil {
		c.Messages = append([]message{{Role: "system", Content: messageText{text: *q.Instructions}}}, c.Messages...)
	}
	return c
}

func (s *Server) responses(w http.ResponseWriter, r *http.Request, t trouble) {
	var q responsesRequest
	if e := read(r, &q); e != nil {
		e.WriteTo(w)
		return
	}
	if q.Input == nil {
		missing("input").WriteTo(w)
		return
	}
	c, e := s.converse(r, q.chat())
	if e != nil {
		e.WriteTo(w)
		return
	}
	a := &answer{conversation: c, asked: &q, id: "resp_" + strings.TrimPrefix(c.id, "chatcmpl-")}
	if q.Stream {
		s.stream(w, r, c.job, t, &responseStream{answer: a})
		return
	}
	if s.collect(w, r, c.job, t) {
		a.finish()
		writeJSON(w, a.response())
	}
}

// answer is a conversation told as output items: reasoning, then a message.
type answer struct {
	*conversation
	asked  *responsesRequest
	id     string
	output []outputItem
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
	Output             []outputItem      `json:"output"`
	ParallelToolCalls  bool              `json:"parallel_tool_calls"`
	Temperature        float64           `json:"temperature"`
	ToolChoice         string            `json:"tool_choice"`
	Tools              []json.RawMessage `json:"tools"`
	TopP               float64           `json:"top_p"`
	Background         bool              `json:"background"`
	MaxOutputTokens    *int              `json:"max_output_tokens"`
	PreviousResponseID *string           `json:"previous_response_id"`
	ServiceTier        string            `json:"service_tier"`
	Status             string            `json:"status"`
	Truncation         string            `json:"truncation"`
	Usage              *responseUsage    `json:"usage"`
}

type incomplete struct {
	Reason string `json:"reason"`
}

type responseUsage struct {
	InputTokens        int                `json:"input_tokens"`
	InputTokensDetails responseCached     `json:"input_tokens_details"`
	OutputTokens       int                `json:"output_tokens"`
	OutputDetails      responseOutputInfo `json:"output_tokens_details"`
	TotalTokens        int                `json:"total_tokens"`
}

type responseCached struct {
	CachedTokens int `json:"cached_tokens"`
}

type responseOutputInfo struct {
	ReasoningTokens int `json:"reasoning_tokens"`
}

type outputItem struct {
	ID      string       `json:"id"`
	Summary []string     `json:"summary,omitzero"` // of reasoning: there, and empty
	Content []outputPart `json:"content"`
	Role    string       `json:"role,omitempty"`
	Status  string       `json:"status"`
	Type    string       `json:"type"`
}

type outputPart struct {
	Annotations []string `json:"annotations,omitzero"` // of text: there, and empty
	Text        string   `json:"text"`
	Type        string   `json:"type"`
	Logprobs    []string `json:"logprobs,omitzero"`
}

// item is a message, or reasoning.
func (a *answer) item(p part, status string, parts ...outputPart) outputItem {
	out := outputItem{Content: append([]outputPart{}, parts...), Status: status}
	out.ID = hex16(mixString(uint64(p), a.id))
	if p == reasoning {
		out.ID, out.Type, out.Summary = "rs_"+out.ID, "reasoning", []string{}
		return out
	}
	out.ID, out.Type, out.Role = "msg_"+out.ID, "message", "assistant"
	return out
}

func newPart(p part, text string) outputPart {
	if p == reasoning {
		return outputPart{Text: text, Type: "reasoning_text"}
	}
	return outputPart{Annotations: []string{}, Text: text, Type: "output_text", Logprobs: []string{}}
}

// finish makes the whole output.
func (a *answer) finish() {
	q := a.job.seqs[0]
	a.end = q.script.finish
	for _, p := range []part{reasoning, content} {
		if text := textOf(q.script.tokens, p); text != "" {
			a.output = append(a.output, a.item(p, "completed", newPart(p, text)))
		}
	}
}

// response is the answer as far as it has come.
func (a *answer) response() responseObject {
	out := responseObject{
		ID: a.id, CreatedAt: a.created, Instructions: a.asked.Instructions, Model: a.model, Object: "response",
		Output: append([]outputItem{}, a.output...), ParallelToolCalls: true, Temperature: 1,
		ToolChoice: "auto", Tools: []json.RawMessage{}, TopP: 1, MaxOutputTokens: a.asked.MaxOutputTokens,
		ServiceTier: "auto", Status: "in_progress", Truncation: "disabled",
	}
	if a.Temperature != nil {
		out.Temperature = *a.Temperature
	}
	if a.TopP != nil {
		out.TopP = *a.TopP
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
		InputTokens: len(a.prompt), InputTokensDetails: responseCached{a.job.seqs[0].cached},
		OutputTokens: len(tokens), OutputDetails: responseOutputInfo{count(tokens, reasoning)},
		TotalTokens: len(a.prompt) + len(tokens),
	}
	return out
}
