package openai

import "strconv"

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
	var counts [len(countNames)]int
	var has [len(countNames)]bool
	o, ok := openObject(raw)
	for ok {
		var m member
		if m, ok = o.next(); !ok {
			break
		}
		for i, name := range countNames {
			if string(m.name) != name {
				continue
			}
			n, err := strconv.Atoi(string(m.value))
			if has[i] = err == nil; !has[i] && !isNull(m.value) {
				return
			}
			counts[i] = n
		}
	}
	if !o.whole {
		return
	}
	// Anthropic's input_tokens are those that no cache had; vLLM tells the others
	// apart with --enable-prompt-tokens-details.
	counts[input] += counts[cacheRead] + counts[cacheWrite]
	set := func(count *int, given *bool, i int) {
		if has[i] && counts[i] >= 0 {
			*count, *given = counts[i], true
		}
	}
	set(&u.Prompt, &u.HasPrompt, prompt)
	set(&u.Prompt, &u.HasPrompt, input)
	set(&u.Completion, &u.HasCompletion, completion)
	set(&u.Completion, &u.HasCompletion, output)
}

const (
	prompt = iota
	completion
	input
	output
	cacheRead
	cacheWrite
)

var countNames = [...]string{"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"}
