package openai

import (
	"bytes"
	"math"
	"strconv"
)

// BytesPerToken is what a token is long, for want of better knowledge: of English text
// some 4 bytes. Of other text, of code and of other models it is something else; usage
// tells, afterwards.
const BytesPerToken = 4.0

// mediaTokens is what a picture, a sound or a film is taken for. How many tokens one is,
// its size and the model say, and neither is known here: pictures are mostly some
// hundreds.
const mediaTokens = 500

// Estimate is what a request may cost, as far as its body tells before anything has
// run. It is a guess, for want of the model's tokenizer: what was used, usage says.
type Estimate struct {
	// Text is how many bytes of text the model will read.
	Text int64
	// Known is how many tokens of the prompt are not in Text: those that the body has
	// as numbers, and a fixed number for each picture and the like.
	Known int64
	// MaxTokens is how many tokens each answer may have at most, as the body asks; 0
	// if it does not say, or the path generates nothing.
	MaxTokens int64
	// Answers is how many answers the body asks for: 1 at least.
	Answers int64
}

// Prompt is how many tokens the prompt may have: never less than 0. A bytesPerToken that
// is no number above 0 is as BytesPerToken.
func (e Estimate) Prompt(bytesPerToken float64) int64 {
	if !(bytesPerToken > 0) || math.IsInf(bytesPerToken, 0) {
		bytesPerToken = BytesPerToken
	}
	tokens := math.Ceil(float64(e.Text) / bytesPerToken)
	if tokens >= math.MaxInt64/2 {
		return math.MaxInt64 / 2
	}
	return min(int64(tokens)+e.Known, math.MaxInt64/2)
}

// Completion is how many tokens all answers together may have at most; 0 if the body
// does not say.
func (e Estimate) Completion() int64 { return times(e.MaxTokens, e.Answers) }

// times multiplies what is not below 0, up to half of the highest int64: so two of them
// can be added.
func times(a, b int64) int64 {
	if b > 0 && a > math.MaxInt64/2/b {
		return math.MaxInt64 / 2
	}
	return a * b
}

// estimated are the members that say what a request may cost, by their names in vLLM's
// protocols (0.32): chat, completions, responses, messages; embeddings, also Cohere's,
// classify, pooling; rerank and score, where each query is read together with each
// document, or each with its own.
var estimated = [...]string{
	"instructions", "system", "prompt", "messages", "input", "inputs", "texts", "images", "tools", "prompt_embeds",
	"query", "queries", "text_1", "data_1",
	"documents", "items", "text_2", "data_2",
	"max_completion_tokens", "max_tokens", "max_output_tokens", "n", "best_of",
}

// estimatedAt says where in estimated a name is.
var estimatedAt = func() map[string]int {
	at := map[string]int{}
	for i, name := range estimated {
		at[name] = i
	}
	return at
}()

// Estimate looks through the body, all of it: it is for callers whose tokens are
// limited. A body that is no JSON object is taken for text, and a form for nothing: its
// sound cannot be told from its size.
func (r Request) Estimate(d Dialect) Estimate {
	e := Estimate{Answers: 1}
	o, ok := openObject(r.body)
	if !r.object || !ok {
		e.Text = int64(len(r.body))
		return e
	}
	var values [len(estimated)][]byte // of a repeated name the last one
	for ok {
		var m member
		if m, ok = o.next(); !ok {
			break
		}
		if i, known := estimatedAt[string(m.name)]; known {
			values[i] = m.value
		}
	}
	value := func(name string) []byte { return values[estimatedAt[name]] }
	queries, documents := Estimate{}, Estimate{}
	nQueries, nDocuments := int64(0), int64(0)
	for i, name := range estimated {
		if len(values[i]) == 0 {
			continue
		}
		switch name {
		case "query", "queries", "text_1", "data_1":
			queries.read(values[i], false)
			nQueries += length(values[i])
		case "documents", "items", "text_2", "data_2":
			documents.read(values[i], false)
			nDocuments += length(values[i])
		case "tools":
			e.read(values[i], true)
		case "instructions", "system", "prompt", "messages", "input", "inputs", "texts", "images":
			e.read(values[i], false)
		}
	}
	repeated := int64(1)
	if nQueries > 0 {
		repeated = max(1, nDocuments/nQueries)
	}
	e.Text += times(queries.Text, repeated) + documents.Text
	e.Known += times(queries.Known, repeated) + documents.Known

	switch d {
	case Chat:
		e.MaxTokens = most(value("max_completion_tokens"), value("max_tokens"))
		e.Answers = max(1, integer(value("n")))
		// Of a batch each conversation has an answer of its own.
		if first, _ := elements(value("messages")); len(first) > 0 && first[0] == '[' {
			e.Answers = times(e.Answers, length(value("messages")))
		}
	case Completions:
		e.MaxTokens = most(value("max_tokens"))
		e.Answers = max(1, integer(value("n")), integer(value("best_of")))
		e.Answers = times(e.Answers, max(1, prompts(value("prompt"))+prompts(value("prompt_embeds"))))
	case Responses:
		e.MaxTokens = most(value("max_output_tokens"))
	case Messages:
		e.MaxTokens = most(value("max_tokens"))
	}
	return e
}

// most is the first of values that says something.
func most(values ...[]byte) int64 {
	for _, v := range values {
		if len(v) > 0 && !isNull(v) {
			return integer(v)
		}
	}
	return 0
}

// integer reads a number as vLLM would (pydantic's lax mode takes "7" and 7.0 for 7),
// and what it would refuse, somehow: never below 0.
func integer(raw []byte) int64 {
	if len(raw) == 0 {
		return 0
	}
	if len(raw) > 1 && raw[0] == '"' {
		raw = bytes.TrimSpace(raw[1 : len(raw)-1])
	}
	const longest = 400 // the longest float64, written out, is shorter
	if len(raw) > longest {
		raw = raw[:longest]
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return min(max(n, 0), math.MaxInt64/2)
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	switch {
	case err != nil && !math.IsInf(f, 1), !(f > 0):
		return 0
	case f >= math.MaxInt64/2:
		return math.MaxInt64 / 2
	}
	return int64(f)
}

// length is how many elements a value has; of what is no array it is one.
func length(value []byte) (n int64) {
	if len(value) == 0 || isNull(value) {
		return 0
	}
	if value[0] != '[' {
		return 1
	}
	for element, rest := elements(value); element != nil; element, rest = elements(rest) {
		n++
	}
	return n
}

// prompts is how many prompts there are in the member prompt: a list of numbers is one.
func prompts(value []byte) int64 {
	if first, _ := elements(value); len(value) > 0 && value[0] == '[' && len(first) > 0 && first[0] != '"' && first[0] != '[' {
		return 1
	}
	return length(value)
}

// read adds what a value has in it for the model: the text of its strings, a token for
// each number, and media. written says that the model reads the names, too, as it does
// of tools, which templates print as JSON.
//
// It goes through the bytes once and keeps no stack: a body may be nested as deep as it
// is long.
func (e *Estimate) read(value []byte, written bool) {
	var name []byte // of the member whose value comes next
	for i := 0; i < len(value); {
		switch c := value[i]; {
		case c == '"':
			end := skipString(value, i)
			if end < 0 {
				return
			}
			raw := value[i+1 : end-1]
			i = end
			if at := skipSpace(value, end); at < len(value) && value[at] == ':' {
				name, i = raw, skipSpace(value, at+1)
				switch {
				case written:
					e.Text += int64(len(raw))
				case isMedium(raw):
					if i = skipValue(value, i); i < 0 {
						return
					}
					e.Known += mediaTokens
				}
				continue
			}
			if !written && (isDataURL(raw) || string(name) == "data" && isBase64(raw)) {
				e.Known += mediaTokens
			} else {
				e.Text += textLength(raw)
			}
		case c == '-' || '0' <= c && c <= '9':
			e.Known++
			for i < len(value) && !ends(value[i]) {
				i++
			}
		default:
			i++
		}
		name = nil
	}
}

// isMedium reports whether a member of this name is a picture, a sound or a film,
// whatever is in it: a URL, or an object with one.
func isMedium(name []byte) bool {
	switch string(name) {
	case "image_url", "video_url", "audio_url", "input_audio", "image_embeds", "audio_embeds":
		return true
	}
	return false
}

// isDataURL reports whether a string is a data: URL (RFC 2397) of something in base64.
func isDataURL(raw []byte) bool {
	if !bytes.HasPrefix(raw, []byte("data:")) {
		return false
	}
	head, _, ok := bytes.Cut(raw[:min(len(raw), 200)], []byte(";base64,"))
	return ok && bytes.IndexByte(head, ' ') < 0
}

// isBase64 reports whether a string begins with what can hardly be text.
func isBase64(raw []byte) bool {
	const enough = 64
	if len(raw) < enough {
		return false
	}
	for _, c := range raw[:enough] {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '/' || c == '-' || c == '_' || c == '\\') {
			return false
		}
	}
	return true
}

// textLength is how many bytes of UTF-8 a raw string is: many clients write all that is
// not ASCII as \uXXXX.
func textLength(raw []byte) int64 {
	n := int64(len(raw))
	escapes := bytes.Count(raw, []byte{'\\'})
	if escapes == 0 {
		return n
	}
	if !bytes.Contains(raw, []byte(`\u`)) { // each is a byte; of a row of backslashes every other is none
		return n - int64(escapes-bytes.Count(raw, []byte(`\\`)))
	}
	return unescapedLength(raw)
}

func unescapedLength(raw []byte) int64 {
	n := int64(len(raw))
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 || i+1 >= len(raw) {
			return n
		}
		if raw[i+1] != 'u' || i+6 > len(raw) {
			n--
			raw = raw[i+2:]
			continue
		}
		code, err := strconv.ParseUint(string(raw[i+2:i+6]), 16, 16)
		switch {
		case err != nil: // vLLM will refuse it
		case code < 0x80:
			n -= 5
		case code < 0x800, 0xd800 <= code && code < 0xe000: // of two halves, each two of four bytes
			n -= 4
		default:
			n -= 3
		}
		raw = raw[i+6:]
	}
}
