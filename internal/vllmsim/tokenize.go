package vllmsim

import (
	"net/http"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
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

type tokenizeResponse struct {
	Count       int      `json:"count"`
	MaxModelLen int      `json:"max_model_len"`
	Tokens      []int    `json:"tokens"`
	TokenStrs   []string `json:"token_strs"`
}

// tokens are those that the same prompt has on the generating endpoints.
func (q *tokenizeRequest) tokens() ([]int, *openai.Error) {
	switch {
	case q.Messages != nil:
		return encode(render(q.Messages, q.Tools, q.AddGenerationPrompt == nil || *q.AddGenerationPrompt)), nil
	case q.Prompt == nil:
		return nil, missing("prompt")
	case q.AddSpecialTokens == nil || *q.AddSpecialTokens:
		return withBOS(*q.Prompt), nil
	}
	return encode(*q.Prompt), nil
}

func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) {
	var q tokenizeRequest
	if e := read(r, &q); e != nil {
		e.WriteTo(w)
		return
	}
	if _, e := s.known(q.Model); e != nil {
		e.WriteTo(w)
		return
	}
	ids, e := q.tokens()
	if e != nil {
		e.WriteTo(w)
		return
	}
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
	if e := read(r, &q); e != nil {
		e.WriteTo(w)
		return
	}
	if _, e := s.known(q.Model); e != nil {
		e.WriteTo(w)
		return
	}
	if q.Tokens == nil {
		missing("tokens").WriteTo(w)
		return
	}
	writeJSON(w, map[string]string{"prompt": decode(q.Tokens)})
}
