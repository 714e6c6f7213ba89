package vllmsim

import (
	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// sampling are the parameters that chat and completions share. Fields that the
// simulator has no use for are not read, and do no harm.
type sampling struct {
	Model         *string        `json:"model"`
	N             *int           `json:"n"`
	MaxTokens     *int           `json:"max_tokens"`
	MinTokens     int            `json:"min_tokens"`
	Stop          oneOrMany      `json:"stop"`
	IncludeStop   bool           `json:"include_stop_str_in_output"`
	IgnoreEOS     bool           `json:"ignore_eos"`
	Seed          *int64         `json:"seed"`
	Temperature   *float64       `json:"temperature"`
	TopP          *float64       `json:"top_p"`
	Stream        bool           `json:"stream"`
	StreamOptions *streamOptions `json:"stream_options"`
	CacheSalt     string         `json:"cache_salt"`
	ReturnIDs     bool           `json:"return_token_ids"`

	ordinal uint64 // of the request, among all so far
}

type streamOptions struct {
	IncludeUsage         bool `json:"include_usage"`
	ContinuousUsageStats bool `json:"continuous_usage_stats"`
}

// maxAnswers is vLLM's default of VLLM_MAX_N_SEQUENCES.
const maxAnswers = 16384

func (p *sampling) answers() int {
	if p.N == nil {
		return 1
	}
	return *p.N
}

func (p *sampling) usage() bool { return p.StreamOptions != nil && p.StreamOptions.IncludeUsage }

// continuous needs include_usage as well, as in vLLM.
func (p *sampling) continuous() bool { return p.usage() && p.StreamOptions.ContinuousUsageStats }

// check covers what vLLM's SamplingParams refuses.
func (p *sampling) check() *openai.Error {
	switch {
	case p.StreamOptions != nil && !p.Stream:
		return refused("stream_options", "Stream options can only be defined when `stream=True`.")
	case p.answers() < 1:
		return bad("n", p.answers(), "n must be at least 1, got %d.", p.answers())
	case p.answers() > maxAnswers:
		return bad("n", p.answers(), "n must be at most %d, got %d.", maxAnswers, p.answers())
	case p.Temperature != nil && *p.Temperature < 0:
		return bad("temperature", *p.Temperature, "temperature must be non-negative, got %v.", *p.Temperature)
	case p.TopP != nil && (*p.TopP <= 0 || *p.TopP > 1):
		return bad("top_p", *p.TopP, "top_p must be in (0, 1], got %v.", *p.TopP)
	case p.MinTokens < 0:
		return bad("min_tokens", p.MinTokens, "min_tokens must be greater than or equal to 0, got %d.", p.MinTokens)
	}
	return nil
}

// room is how many tokens may follow a prompt: what was asked for, else all
// that is left of the context.
func (s *Server) room(prompt int, asked *int, p *sampling) (int, *openai.Error) {
	want := 0
	if asked != nil {
		want = *asked
	}
	limit := s.cfg.MaxModelLen - max(want, 0)
	switch {
	case prompt == 0:
		return 0, bad("", nil, "The decoder prompt cannot be empty")
	case prompt > limit:
		return 0, bad("input_tokens", prompt, "You passed %d input tokens and requested %d output tokens. "+
			"However, the model's context length is only %d tokens, resulting in a maximum input length of %d tokens. "+
			"Please reduce the length of the input prompt.", prompt, want, s.cfg.MaxModelLen, limit)
	}
	room := s.cfg.MaxModelLen - prompt
	if asked != nil {
		room = want
	}
	switch {
	case room < 1:
		return 0, bad("max_tokens", room, "max_tokens must be at least 1, got %d.", room)
	case p.MinTokens > room:
		return 0, bad("min_tokens", p.MinTokens, "min_tokens must be less than or equal to max_tokens=%d, got %d.", room, p.MinTokens)
	}
	return room, nil
}

// speech is the part of the parameters that says what is written.
func (p *sampling) speech(room int) speech {
	return speech{
		maxTokens: room, minTokens: p.MinTokens, ignoreEOS: p.IgnoreEOS,
		stop: p.Stop, includeStop: p.IncludeStop,
	}
}

// seed makes the text depend on the prompt and the request's seed; without a
// seed, and with a temperature above 0, also on how many requests came before.
func (s *Server) seed(p *sampling, prompt []int, choice int) uint64 {
	h := mixTokens(mix(s.cfg.Seed, uint64(choice)), prompt)
	switch {
	case p.Seed != nil:
		h = mix(h, uint64(*p.Seed))
	case p.Temperature == nil || *p.Temperature > 0:
		h = mix(h, p.ordinal)
	}
	return h
}

// plan makes the engine's job of a prompt: n answers to it.
func (s *Server) plan(j *job, prompt []int, p *sampling, sp speech) {
	for range p.answers() {
		sp.seed = s.seed(p, prompt, len(j.seqs))
		j.add(prompt, write(sp, s.cfg.MeanOutputTokens))
	}
}

// newJob is an empty job with what the parameters say of all its answers.
func (p *sampling) newJob(asked *int) *job {
	j := newJob(p.answers())
	if asked != nil {
		j.limit = *asked
	}
	if p.CacheSalt != "" {
		j.salt = mixString(0, p.CacheSalt)
	}
	return j
}
