package openai

import "encoding/json"

// Usage is what a request cost, as the engine counted it. Nothing else counts
// tokens: a chunk of a stream may hold several, or none.
type Usage struct {
	Prompt, Completion int
	// HasPrompt and HasCompletion tell a count of 0 from one not given
	// (embeddings have no completion).
	HasPrompt, HasCompletion bool
}

// merge takes over what the raw usage object says. The names are those of chat
// and completions, or those of responses and messages.
func (u *Usage) merge(raw []byte) {
	var counts struct {
		Prompt     *int `json:"prompt_tokens"`
		Completion *int `json:"completion_tokens"`
		Input      *int `json:"input_tokens"`
		Output     *int `json:"output_tokens"`
		// Anthropic's input_tokens are those that no cache had; vLLM tells the
		// others apart with --enable-prompt-tokens-details.
		CacheRead  int `json:"cache_read_input_tokens"`
		CacheWrite int `json:"cache_creation_input_tokens"`
	}
	if json.Unmarshal(raw, &counts) != nil {
		return
	}
	if counts.Input != nil {
		*counts.Input += counts.CacheRead + counts.CacheWrite
	}
	set(&u.Prompt, &u.HasPrompt, counts.Prompt, counts.Input)
	set(&u.Completion, &u.HasCompletion, counts.Completion, counts.Output)
}

func set(count *int, has *bool, names ...*int) {
	for _, n := range names {
		if n != nil && *n >= 0 {
			*count, *has = *n, true
		}
	}
}
