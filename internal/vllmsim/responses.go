package vllmsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// OpenAI's Responses API, as vllm/entrypoints/openai/responses has it. Nothing is
// stored, which is vLLM's default: each answer is forgotten once it is given.

type responsesRequest struct {
	Background        bool              `json:"background"`
	Include           []string          `json:"include"`
	Input             inputItems        `json:"input"`
	Instructions      *string           `json:"instructions"`
	MaxOutputTokens   *int              `json:"max_output_tokens"`
	MaxToolCalls      *int              `json:"max_tool_calls"`
	Metadata          json.RawMessage   `json:"metadata"`
	Model             *string           `json:"model"`
	ParallelToolCalls *bool             `json:"parallel_tool_calls"`
	PreviousID        *string           `json:"previous_response_id"`
	Reasoning         json.RawMessage   `json:"reasoning"`
	ServiceTier       string            `json:"service_tier"`
	Stream            bool              `json:"stream"`
	Temperature       *float64          `json:"temperature"`
	Text              json.RawMessage   `json:"text"`
	ToolChoice        json.RawMessage   `json:"tool_choice"`
	Tools             []json.RawMessage `json:"tools"`
	TopLogprobs       int               `json:"top_logprobs"`
	TopP              *float64          `json:"top_p"`
	Truncation        string            `json:"truncation"`
	User              *string           `json:"user"`
	IncludeStop       bool              `json:"include_stop_str_in_output"`
	PresencePenalty   *float64          `json:"presence_penalty"`
	FrequencyPenalty  *float64          `json:"frequency_penalty"`
	RequestID         string            `json:"request_id"`
	CacheSalt         string            `json:"cache_salt"`
	Seed              *int64            `json:"seed"`
	Stop              oneOrMany         `json:"stop"`
	IgnoreEOS         bool              `json:"ignore_eos"`
	Template          templateArgs      `json:"chat_template_kwargs"`
}

// responsesShape has the fields that a client may get wrong, in vLLM's order. Of
// an item of the input, vLLM tries some fifty types and lists what is wrong with
// each; here it is a message, if it is not of a type of its own.
var responsesShape = model(
	may("background", optional(boolean)),
	may("include", optional(listOf(oneOf("code_interpreter_call.outputs", "computer_call_output.output.image_url",
		"file_search_call.results", "message.input_image.image_url", "message.output_text.logprobs", "reasoning.encrypted_content")))),
	need("input", either(text, listOf(inputItem))),
	may("instructions", optional(text)),
	may("max_output_tokens", optional(integer)),
	may("max_tool_calls", optional(integer)),
	may("metadata", optional(asIs(dict))),
	may("model", optional(text)),
	may("parallel_tool_calls", optional(boolean)),
	may("previous_response_id", optional(text)),
	may("reasoning", optional(asIs(dict))),
	may("service_tier", oneOf("auto", "default", "flex", "scale", "priority")),
	may("stream", optional(boolean)),
	may("temperature", optional(number)),
	may("text", optional(asIs(model(may("format", optional(model(need("type", oneOf("text", "json_schema", "json_object"))))))))),
	may("tool_choice", either(oneOf("none", "auto", "required"), asIs(dict))),
	may("tools", listOf(asIs(model(need("type", text))))),
	may("top_logprobs", optional(integer)),
	may("top_p", optional(number)),
	may("truncation", optional(oneOf("auto", "disabled"))),
	may("user", optional(text)),
	may("include_stop_str_in_output", boolean),
	may("presence_penalty", optional(number)),
	may("frequency_penalty", optional(number)),
	may("request_id", text),
	may("cache_salt", optional(text)),
	may("seed", optional(integer)),
	may("stop", optional(either(text, listOf(text)))),
	may("ignore_eos", boolean),
	may("chat_template_kwargs", optional(dict)),
)

func inputItem(at string, in json.RawMessage) (json.RawMessage, []fault) {
	if kind := unquote(fieldsOf(in)["type"]); kind != "" && kind != "message" {
		return in, nil
	}
	return asIs(model(need("role", oneOf("user", "assistant", "system", "developer")), need("content", either(text, listOf(dict)))))(at, in)
}

// responsesEarly are the rules that vLLM holds a body to before it looks at fields.
func responsesEarly(given fields) *openai.Error {
	choice := unquote(given["tool_choice"])
	named := fieldsOf(given["tool_choice"])
	name := unquote(named["name"])
	function := unquote(named["type"]) == "function" || unquote(named["type"]) == "custom"
	var tools []fields
	json.Unmarshal(given["tools"], &tools) // what is no list of objects is refused later
	switch {
	case choice == "required" && len(tools) == 0:
		return bad("tool_choice", nil, "Tool choice 'required' must be specified with 'tools' parameter.")
	case function && !slices.ContainsFunc(tools, func(t fields) bool { return unquote(t["name"]) == name }):
		return bad("tool_choice", nil, "Tool choice 'function' not found in 'tools' parameter.")
	case given.has("prompt"):
		return bad("prompt", nil, "prompt template is not supported")
	case given.truthy("background") && string(given["store"]) == "false":
		return bad("background", nil, "background can only be used when `store` is true")
	}
	return nil
}

// inputItems are the turns of a conversation, or one user's turn as text. Items
// that the toy template has no place for are left out.
type inputItems []message

func (i *inputItems) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		*i = inputItems{{Role: "user", Content: messageText{text: unquote(data)}}}
		return nil
	}
	var items []struct {
		message
		Type   string          `json:"type"`
		Output json.RawMessage `json:"output"`
	}
	if err := json.Unmarshal(data, &items); err != nil {
		return err
	}
	var raw []json.RawMessage
	json.Unmarshal(data, &raw)
	for n, item := range items {
		switch {
		case item.Type == "function_call":
			*i = append(*i, message{Role: "assistant", ToolCalls: raw[n]})
		case item.Type == "function_call_output":
			*i = append(*i, message{Role: "tool", Content: messageText{text: string(item.Output)}})
		case item.Role != "":
			*i = append(*i, item.message)
		}
	}
	return nil
}

// logprobs is how many alternatives of each token are to be told; -1 where not
// even the token's own is.
func (q *responsesRequest) logprobs() int {
	if !slices.Contains(q.Include, "message.output_text.logprobs") {
		return -1
	}
	return q.TopLogprobs
}

// chat is the same request to chat completions.
func (q *responsesRequest) chat() *chatRequest {
	c := &chatRequest{Messages: q.Input, MaxCompletionTokens: q.MaxOutputTokens, limitName: "max_output_tokens", Template: q.Template}
	c.Model, c.Temperature, c.TopP, c.Stream = q.Model, q.Temperature, q.TopP, q.Stream
	c.Seed, c.Stop, c.IncludeStop, c.IgnoreEOS, c.CacheSalt = q.Seed, q.Stop, q.IncludeStop, q.IgnoreEOS, q.CacheSalt
	if top := q.logprobs(); top >= 0 {
		c.Logprobs, c.TopLogprobs = true, top
	}
	if q.Instructions != nil {
		c.Messages = append([]message{{Role: "system", Content: messageText{text: *q.Instructions}}}, c.Messages...)
	}
	if effort := unquote(fieldsOf(q.Reasoning)["effort"]); effort != "" {
		c.Template.EnableThinking = effort != "none"
	}
	for _, t := range q.Tools {
		var spec toolFunctionSpec
		if unquote(fieldsOf(t)["type"]) == "function" && json.Unmarshal(t, &spec) == nil {
			c.Tools = append(c.Tools, tool{"function", spec})
		}
	}
	c.ToolChoice.mode = unquote(q.ToolChoice)
	if name := unquote(fieldsOf(q.ToolChoice)["name"]); name != "" {
		c.ToolChoice = toolChoice{"named", name}
	}
	if format := fieldsOf(fieldsOf(q.Text)["format"]); format != nil { // chat has one more wrapping
		json.Unmarshal(encodeJSON(map[string]any{"type": format["type"], "json_schema": format}), &c.ResponseFormat)
	}
	return c
}

func (s *Server) responses(w http.ResponseWriter, r *http.Request, t trouble) {
	var q responsesRequest
	if e := read(r, responsesShape, &q, responsesEarly); e != nil {
		e.WriteTo(w)
		return
	}
	if e := s.checkStored(&q); e != nil {
		e.WriteTo(w)
		return
	}
	c, e := s.converse(r, q.chat())
	if e != nil {
		e.WriteTo(w)
		return
	}
	a := &answer{conversation: c, asked: &q, id: q.RequestID, room: s.cfg.MaxModelLen - len(c.prompt)}
	if a.id == "" {
		a.id = "resp_" + s.uuid(c.ordinal)
	}
	if q.Stream {
		s.stream(w, r, c.job, t, &responseStream{answer: a})
		return
	}
	if s.collect(w, r, c.job, t) {
		a.finish()
		writeJSON(w, a.response())
	}
}

// checkStored refuses what needs an earlier answer, or to be one.
func (s *Server) checkStored(q *responsesRequest) *openai.Error {
	if _, e := s.known(q.Model); e != nil {
		return e
	}
	if q.Background {
		e := openai.NewError(http.StatusBadRequest, "This vLLM engine does not support `store=True` and therefore does not support the background mode. "+
			"To enable these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server.")
		param := "background"
		e.Type, e.Param = "invalid_request_error", &param
		return &e
	}
	if q.PreviousID != nil {
		return notStored(*q.PreviousID)
	}
	return nil
}

func notStored(id string) *openai.Error {
	e := openai.NewError(http.StatusNotFound, fmt.Sprintf("Response with id '%s' not found.", id))
	param := "response_id"
	e.Type, e.Param = "invalid_request_error", &param
	return &e
}

// storedResponse is GET /v1/responses/{id}, and POST …/{id}/cancel.
func (s *Server) storedResponse(w http.ResponseWriter, r *http.Request) {
	id, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/responses/"), "/")
	notStored(id).WriteTo(w)
}
