package vllmsim

import (
	"net/http"
)

type tokenizeRequest struct {
	Model               *string   `json:"model"`
	Prompt              *string   `json:"prompt"`
	Messages            []message `json:"messages"`
	Tools               []tool    `json:"tools"`
	AddSpecialTokens    *bool     `json:"add_special_tokens"`
	AddGenerationPrompt *bool     `json:"add_generation_prompt"`
	ReturnTokenStrs     bool      `json:"return_token_strs"`
}

// tokenizeShape is TokenizeCompletionRequest or TokenizeChatRequest
// (vllm/entrypoints/serve/tokenize/protocol.py).
var tokenizeShape = either(
	model(
		may("model", optional(text)),
		need("prompt", text),
		may("add_special_tokens", boolean),
		may("return_token_strs", optional(boolean)),
	),
	model(
		may("model", optional(text)),
		need("messages", listOf(messageShape)),
		may("add_generation_prompt", boolean),
		may("return_token_strs", optional(boolean)),
		may("add_special_tokens", boolean),
		may("tools", optional(listOf(toolShape))),
	),
)

var detokenizeShape = model(may("model", optional(text)), need("tokens", listOf(least(0, integer))))

type tokenizeResponse struct {
	Count       int      `json:"count"`
	MaxModelLen int      `json:"max_model_len"`
	Tokens      []int    `json:"tokens"`
	TokenStrs   []string `json:"token_strs"`
}

// tokens are those that the same prompt has on the generating endpoints.
func (q *tokenizeRequest) tokens() []int {
	switch {
	case q.Messages != nil:
		return encode(render(q.Messages, q.Tools, q.AddGenerationPrompt == nil || *q.AddGenerationPrompt, false))
	case q.AddSpecialTokens == nil || *q.AddSpecialTokens:
		return withBOS(*q.Prompt)
	}
	return encode(*q.Prompt)
}

func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) {
	var q tokenizeRequest
	if e := read(r, tokenizeShape, &q); e != nil {
		e.WriteTo(w)
		return
	}
	if _, e := s.known(q.Model); e != nil {
		e.WriteTo(w)
		return
	}
	ids := q.tokens()
	answer := tokenizeResponse{Count: len(ids), MaxModelLen: s.cfg.MaxModelLen, Tokens: ids}
	if q.ReturnTokenStrs {
		for _, id := range ids {
			answer.TokenStrs = append(answer.TokenStrs, unpack(id))
		}
	}
	writeJSON(w, answer)
}

func (s *Server) detokenize(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Model  *string `json:"model"`
		Tokens []int   `json:"tokens"`
	}
	if e := read(r, detokenizeShape, &q); e != nil {
		e.WriteTo(w)
		return
	}
	if _, e := s.known(q.Model); e != nil {
		e.WriteTo(w)
		return
	}
	writeJSON(w, map[string]string{"prompt": decode(q.Tokens)})
}
