package vllmsim

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

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
	TopK          int            `json:"top_k"`
	MinP          *float64       `json:"min_p"`
	Presence      *float64       `json:"presence_penalty"`
	Frequency     *float64       `json:"frequency_penalty"`
	Repetition    *float64       `json:"repetition_penalty"`
	Stream        bool           `json:"stream"`
	StreamOptions *streamOptions `json:"stream_options"`
	CacheSalt     string         `json:"cache_salt"`
	RequestID     string         `json:"request_id"`
	Truncate      *int           `json:"truncate_prompt_tokens"`
	LogitBias     map[string]any `json:"logit_bias"`
	ReturnIDs     bool           `json:"return_token_ids"`

	top     int    // alternatives that are told of each token
	ordinal uint64 // of the request, among all so far
}

type streamOptions struct {
	IncludeUsage         bool `json:"include_usage"`
	ContinuousUsageStats bool `json:"continuous_usage_stats"`
}

var (
	streamOptionsShape = model(may("include_usage", optional(boolean)), may("continuous_usage_stats", optional(boolean)))
	stopShape          = optional(either(text, atMost(maxStops, text)))
	formatShape        = either(
		model(need("type", oneOf("text", "json_object", "json_schema")), may("json_schema", optional(asIs(model(
			need("name", text), may("description", optional(text)), may("schema", optional(dict)), may("strict", optional(boolean))))))),
		model(need("type", oneOf("structural_tag")), need("format", anything)),
		model(need("type", oneOf("structural_tag")), need("structures", listOf(anything)), need("triggers", listOf(text))),
	)
)

func (p *sampling) answers() int {
	if p.N == nil {
		return 1
	}
	return *p.N
}

func (p *sampling) usage() bool { return p.StreamOptions != nil && p.StreamOptions.IncludeUsage }

// continuous needs include_usage as well, as in vLLM.
func (p *sampling) continuous() bool { return p.usage() && p.StreamOptions.ContinuousUsageStats }

func checkStreamOptions(in fields) *openai.Error {
	if in.truthy("stream_options") && !in.truthy("stream") {
		return bad("stream_options", nil, "Stream options can only be defined when `stream=True`.")
	}
	return nil
}

func checkFormat(in fields) *openai.Error {
	format := fieldsOf(in["response_format"])
	if unquote(format["type"]) == "json_schema" && !format.has("json_schema") {
		return bad("response_format", nil, "When response_format type is 'json_schema', the 'json_schema' field must be provided.")
	}
	return nil
}

func checkSalt(in fields) *openai.Error {
	salt := unquote(in["cache_salt"])
	switch {
	case !in.has("cache_salt"):
		return nil
	case salt == "":
		return bad("cache_salt", nil, "Parameter 'cache_salt' must be a non-empty string if provided.")
	case utf8.RuneCountInString(salt) > 128 || strings.ContainsAny(salt, "@/\\\x00"):
		return bad("cache_salt", nil, "Parameter 'cache_salt' must be at most 128 characters and must not contain '@', '/', '\\\\', or NUL.")
	}
	return nil
}

// checkLogprobs is for the field that says how many alternatives are told.
func checkLogprobs(name string) early {
	const prompt = "prompt_logprobs"
	return func(in fields) *openai.Error {
		asked := map[string]float64{}
		for _, f := range []string{prompt, name} {
			if !in.has(f) {
				continue
			}
			n, faults := number("", in[f])
			if faults != nil || in[f][0] == '"' {
				return bad(f, summary(in[f]), "`%s` must be an integer.", f)
			}
			asked[f], _ = strconv.ParseFloat(string(n), 64)
		}
		some := func(f string) bool { return asked[f] > 0 || asked[f] == -1 }
		switch {
		case in.truthy("stream") && some(prompt):
			return bad(prompt, nil, "`prompt_logprobs` are not available when `stream=True`.")
		case asked[prompt] < 0 && !some(prompt):
			return bad(prompt, string(in[prompt]), "`prompt_logprobs` must be a positive value or -1.")
		case asked[name] < 0 && !some(name):
			return bad(name, string(in[name]), "`%s` must be a positive value or -1.", name)
		case some("top_logprobs") && !in.truthy("logprobs"):
			return bad("top_logprobs", nil, "when using `top_logprobs`, `logprobs` must be set to true.")
		}
		return nil
	}
}

// vLLM's defaults of VLLM_MAX_N_SEQUENCES, VLLM_MAX_STOP_STRINGS and
// --max-logprobs.
const (
	maxAnswers  = 16384
	maxStops    = 4
	maxLogprobs = 20
)

// check is _verify_args of vLLM's SamplingParams (vllm/sampling_params.py), in
// its order; room is how many tokens may be said.
func (p *sampling) check(room int) *openai.Error {
	or := func(v *float64, otherwise float64) float64 {
		if v == nil {
			return otherwise
		}
		return *v
	}
	n, temperature, topP := p.answers(), or(p.Temperature, 1), or(p.TopP, 1)
	presence, frequency, repetition, minP := or(p.Presence, 0), or(p.Frequency, 0), or(p.Repetition, 1), or(p.MinP, 0)
	var strange []string // keys that are no token ids
	for key := range p.LogitBias {
		if _, err := strconv.Atoi(key); err != nil {
			strange = append(strange, quotePython(key))
		}
	}
	slices.Sort(strange)
	list := "[" + strings.Join(strange, ", ") + "]"
	switch {
	case strange != nil:
		return bad("logit_bias", list, "logit_bias contains key(s) that cannot be converted to integer token IDs: %s", list)
	case n < 1:
		return bad("", nil, "n must be at least 1, got %d.", n)
	case n > maxAnswers:
		return bad("", nil, "n must be at most %d, got %d. To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable.", maxAnswers, n)
	case presence < -2 || presence > 2:
		return bad("", nil, "presence_penalty must be in [-2, 2], got %v.", float(presence))
	case frequency < -2 || frequency > 2:
		return bad("", nil, "frequency_penalty must be in [-2, 2], got %v.", float(frequency))
	case repetition <= 0:
		return bad("", nil, "repetition_penalty must be greater than zero, got %v.", float(repetition))
	case temperature < 0:
		return bad("temperature", float(temperature), "temperature must be non-negative, got %v.", float(temperature))
	case temperature > 2:
		return bad("temperature", float(temperature), "temperature must be in [0, 2], got %v.", float(temperature))
	case topP <= 0 || topP > 1:
		return bad("top_p", float(topP), "top_p must be in (0, 1], got %v.", float(topP))
	case p.TopK < -1:
		return bad("", nil, "top_k must be 0 (disable), or at least 1, got %d.", p.TopK)
	case minP < 0 || minP > 1:
		return bad("", nil, "min_p must be in [0, 1], got %v.", float(minP))
	case room < 1:
		return bad("max_tokens", room, "max_tokens must be at least 1, got %d.", room)
	case p.MinTokens < 0:
		return bad("", nil, "min_tokens must be greater than or equal to 0, got %d.", p.MinTokens)
	case p.MinTokens > room:
		return bad("", nil, "min_tokens must be less than or equal to max_tokens=%d, got %d.", room, p.MinTokens)
	case temperature == 0 && n > 1:
		return bad("", nil, "n must be 1 when using greedy sampling, got %d.", n)
	case p.top > maxLogprobs:
		return bad("logprobs", p.top, "Requested sample logprobs of %d, which is greater than max allowed: %d", p.top, maxLogprobs)
	}
	return nil
}

// truncated keeps so many tokens of a prompt as were asked for; -1 is as many as
// leave room for one more.
func (p *sampling) truncated(prompt []int, context int) []int {
	if p.Truncate == nil {
		return prompt
	}
	keep := *p.Truncate
	if keep < 0 {
		keep = context - 1
	}
	return prompt[:min(keep, len(prompt))]
}

// limit is how many tokens an answer may have at most, and the field that says so.
type limit struct {
	name  string
	asked *int // nil: what is left of the context
}

// room is how many tokens may follow a prompt: what was asked for, as far as the
// context has room for it.
func (s *Server) room(prompt int, l limit, p *sampling) (int, *openai.Error) {
	most := s.cfg.MaxModelLen
	if l.asked != nil && *l.asked > most {
		return 0, bad(l.name, *l.asked, "%s=%d cannot be greater than max_model_len=%d. Please request fewer output tokens.", l.name, *l.asked, most)
	}
	if prompt == 0 {
		return 0, bad("", nil, "The decoder prompt cannot be empty")
	}
	if prompt > most {
		// vLLM stops to count there.
		return 0, bad("input_tokens", most+1, "This model's maximum context length is %d tokens. However, your prompt contains at least %d input tokens, "+
			"which exceeds this limit even without any output tokens. Please reduce the length of the input prompt.", most, most+1)
	}
	room := most - prompt
	if l.asked != nil {
		room = min(room, *l.asked)
	}
	return room, p.check(room)
}

// id is what follows the prefix of the response's id: a request id of the header
// goes before one of the body.
func (s *Server) id(r *http.Request, p *sampling) string {
	if p.RequestID != "" && r.Header.Get("X-Request-Id") == "" {
		return p.RequestID
	}
	return s.requestID(r, p.ordinal)
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
func (p *sampling) newJob(l limit) *job {
	j := newJob(p.answers())
	if l.asked != nil {
		j.limit = *l.asked
	}
	if p.CacheSalt != "" {
		j.salt = mixString(0, p.CacheSalt)
	}
	return j
}
