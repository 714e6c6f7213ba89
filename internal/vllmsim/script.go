package vllmsim

import (
	"math"
	"math/rand/v2"
	"strings"
	"unicode/utf8"
)

// part says what a token belongs to.
type part int

const (
	content part = iota
	reasoning
	toolName // starts a call; its text is the function's name
	toolArgs
	markup // counts as a token, and a parser swallows its text
)

// token is one step of a script.
type token struct {
	id   int
	text string // what the client gets of it
	part part
	hold bool // reaches the client together with the next token
}

// script is all that one sequence is going to say. It is written before the
// sequence runs: the engine only decides when each token comes.
type script struct {
	tokens []token // at least one
	finish string  // stop or length
	// stopped is the stop string that ended it; empty for none.
	stopped string
}

// speech is what a request asks of one sequence.
type speech struct {
	seed        uint64
	maxTokens   int // at least 1
	minTokens   int
	ignoreEOS   bool
	stop        []string
	includeStop bool
	think       bool
	call        *toolCall
	json        string // say just this; empty for free text
}

// toolCall is a call that the model is to make.
type toolCall struct{ name, arguments string }

// write makes up what a sequence says.
func write(sp speech, mean float64) script {
	rng := dice(sp.seed)
	s := script{finish: "stop"}
	switch {
	case sp.call != nil:
		s.tokens = callTokens(*sp.call)
	case sp.json != "":
		s.tokens = pieces(sp.json, content)
	default:
		s.tokens = prose(rng, sp.length(rng, mean), sp.think)
		s.cut(sp)
	}
	if s.stopped == "" {
		s.tokens = append(s.tokens, token{id: eos, part: markup})
	}
	if len(s.tokens) > sp.maxTokens {
		s.tokens, s.finish, s.stopped = s.tokens[:sp.maxTokens], "length", ""
	}
	holdSome(rng, s.tokens)
	return s
}

// length draws how many tokens come before the end of the answer: log-normal,
// as lengths of answers are, with a standard deviation of about half the mean.
func (sp speech) length(rng *rand.Rand, mean float64) int {
	if sp.ignoreEOS {
		return sp.maxTokens
	}
	const sigma = 0.47
	drawn := mean * math.Exp(sigma*rng.NormFloat64()-sigma*sigma/2)
	return min(max(int(drawn+0.5), sp.minTokens, 1), sp.maxTokens)
}

// cut ends the script at the first stop string that ends after min_tokens
// tokens. The stop string is not part of what the client gets, unless it asked.
func (s *script) cut(sp speech) {
	if len(sp.stop) == 0 {
		return
	}
	var said strings.Builder
	for i, t := range s.tokens {
		if t.part != content {
			continue
		}
		before := said.Len()
		said.WriteString(t.text)
		if i+1 < sp.minTokens {
			continue
		}
		for _, stop := range sp.stop {
			fresh := max(before-len(stop)+1, 0)
			at := strings.Index(said.String()[fresh:], stop)
			if stop == "" || at < 0 {
				continue
			}
			at += fresh
			s.tokens, s.stopped = s.tokens[:i+1], stop
			if sp.includeStop {
				at += len(stop)
			}
			trim(s.tokens, said.Len()-at)
			return
		}
	}
}

// trim takes n bytes off the end of the tokens' content.
func trim(tokens []token, n int) {
	for i := len(tokens) - 1; n > 0; i-- {
		t := &tokens[i]
		if t.part != content {
			continue
		}
		off := min(n, len(t.text))
		t.text = t.text[:len(t.text)-off]
		n -= off
	}
}

// holdSome lets about one token in sixteen wait for the next, as vLLM's do
// when its API process lags behind the engine.
func holdSome(rng *rand.Rand, tokens []token) {
	for i := 1; i+1 < len(tokens); i++ {
		t, next := &tokens[i], tokens[i+1]
		t.hold = rng.IntN(16) == 0 && t.part == next.part && (t.part == content || t.part == reasoning)
	}
}

// pieces makes one token of each piece of a text.
func pieces(text string, p part) []token {
	var tokens []token
	for _, id := range encode(text) {
		tokens = append(tokens, token{id: id, text: unpack(id), part: p})
	}
	return tokens
}

// callTokens writes a call in the manner of Hermes models: markup, the name,
// the arguments, markup.
func callTokens(c toolCall) []token {
	tokens := hidden("<tool_call>")
	tokens = append(tokens, token{id: pack(firstRunes(c.name)), text: c.name, part: toolName})
	tokens = append(tokens, pieces(c.arguments, toolArgs)...)
	return append(tokens, hidden("</tool_call>")...)
}

func hidden(text string) []token {
	tokens := pieces(text, markup)
	for i := range tokens {
		tokens[i].text = ""
	}
	return tokens
}

// firstRunes is the start of a name that fits one token's id.
func firstRunes(name string) string {
	n := 0
	for n < len(name) {
		_, size := utf8.DecodeRuneInString(name[n:])
		if n+size > pieceBytes {
			break
		}
		n += size
	}
	return name[:n]
}
