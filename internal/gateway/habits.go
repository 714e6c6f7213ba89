package gateway

import (
	"sync"

	"github.com/vllm-gateway/vllm-gateway/internal/limits"
	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// guess is what a request may cost, in tokens.
type guess struct {
	openai.Estimate
	prompt     int64
	completion int64
	said       bool // the request says how much it generates at most
	later      bool // it generates when it is over, and nobody tells how much
}

func (g guess) total() int64 { return g.prompt + g.completion }

// most is what is reserved. Who does not say how much he wants is not refused for
// what others want.
func (g guess) most(l limits.Limits) int64 {
	n := g.total()
	if g.said {
		return n
	}
	for _, limit := range []int64{l.Tokens, l.DayTokens} {
		if limit > 0 && g.prompt <= limit {
			n = min(n, limit)
		}
	}
	return n
}

// habits are what requests have cost of late, by model: from that it is guessed what
// the next one may. Tokens are counted by the engine alone, and only afterwards.
type habits struct {
	mu sync.Mutex
	of map[string]habit
}

type habit struct {
	bytesPerToken float64 // of prompts
	completion    float64 // tokens, where the request does not say how many
}

// unsaid is how many tokens /v1/completions generates where the request says nothing
// of it (max_tokens of vLLM's CompletionRequest, 0.32).
const unsaid = 16

// A text has some four bytes for each token; most answers are shorter than this.
var noHabit = habit{bytesPerToken: openai.BytesPerToken, completion: 256}

// learning is how much the latest request changes a habit.
const learning = 1. / 16

func (h *habits) get(model string) habit {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known, ok := h.of[model]; ok {
		return known
	}
	return noHabit
}

func (h *habits) guess(rec *record, asked openai.Request) guess {
	if rec.route.light || rec.route.path == realtimePath {
		return guess{said: true}
	}
	habit := h.get(rec.label)
	e := asked.Estimate(rec.route.dialect)
	g := guess{Estimate: e, prompt: e.Prompt(habit.bytesPerToken), completion: e.Completion(), said: true}
	g.later = asked.Background && rec.route.dialect == openai.Responses
	switch {
	case g.completion > 0, rec.route.dialect == openai.Other: // which generates nothing
	case rec.route.dialect == openai.Completions:
		e.MaxTokens = unsaid
		g.completion = e.Completion()
	default:
		e.MaxTokens = int64(habit.completion)
		g.completion, g.said = e.Completion(), false
	}
	return g
}

// learn takes over what a request has cost.
func (h *habits) learn(model string, g guess, u openai.Usage) {
	text := int64(u.Prompt) - g.Known // tokens
	if model == otherModel || !u.HasPrompt || text <= 0 || g.Text == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	known, ok := h.of[model]
	if !ok {
		known = noHabit
	}
	known.bytesPerToken += (min(max(float64(g.Text)/float64(text), .5), 16) - known.bytesPerToken) * learning
	if !g.said && u.HasCompletion {
		known.completion += (float64(u.Completion) - known.completion) * learning
	}
	if h.of == nil {
		h.of = map[string]habit{}
	}
	h.of[model] = known // of models that backends list, so bounded
}
