package openai

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"slices"
)

// Request is what the gateway needs to know of a request's body. Everything
// else in the body is between the client and vLLM. It holds on to the body's
// bytes.
type Request struct {
	// Model is "" where the body names none.
	Model string
	// Stream is set where the body asks for a stream.
	Stream bool
	// Previous is the id of the answer that the request goes on from, of
	// responses: previous_response_id. It is as the client wrote it.
	Previous string
	// Background is set where the body asks for an answer that is made when the request
	// is over, of responses.
	Background bool
	// Doubtful is set where vLLM may read another thing in the body than what stands
	// here: in JSON that is not UTF-8, or begins with a byte order mark; in a form that
	// is not written as forms are.
	Doubtful bool

	body    []byte             // nil of a form
	object  bool               // the body is a JSON object, not a form
	model   member             // end is 0 where the body has none, as of all that follow
	options member             // stream_options
	reads   [len(reads)]member // what the model reads, in the order of reads
}

// reads names the members that the model reads, in the order in which it reads
// them: instructions (responses) and system (messages) stand before the turns,
// wherever in the body they are. tools are not among them: where they come is
// for each model's template to say, and most clients that share them share the
// instructions too.
var reads = [...]string{"instructions", "system", "prompt", "messages", "input"}

// Peek looks into a JSON body. A body that is not a JSON object gives a Request that
// names nothing: saying what is wrong with it is vLLM's part. Where a name is
// repeated the last one holds, as in Python's json, which vLLM uses.
func Peek(body []byte) Request {
	if isForeign(body) {
		return Request{body: body, Doubtful: true}
	}
	r := Request{body: body}
	o, ok := openObject(body)
	for ok {
		var m member
		if m, ok = o.next(); !ok {
			break
		}
		switch string(m.name) {
		case "model":
			r.Model, r.model = text(m.value), m
		case "stream":
			r.Stream = isTrue(m.value)
		case "background":
			r.Background = isTrue(m.value)
		case "stream_options":
			r.options = m
		case "previous_response_id":
			r.Previous = text(m.value)
		default:
			if i := slices.Index(reads[:], string(m.name)); i >= 0 {
				r.reads[i] = m
			}
		}
	}
	if !o.whole {
		return Request{body: body}
	}
	r.object = true
	return r
}

// Prefix gives the first n bytes, or fewer, of what the model will read, for
// telling requests that begin alike: the raw JSON of instructions, system,
// prompt, messages and input, one after the other, to the end of the user's first
// turn: what comes after it grows, and a conversation is to keep its prefix. nil
// where the body has none. It is a copy, so it does not keep the body.
//
// The bytes are as the client wrote them. Two clients that space or escape their
// JSON differently share no prefix here, though the model reads the same; one
// client's requests do.
func (r Request) Prefix(n int) []byte {
	var reads [len(reads)][]byte
	total := 0
	for i, m := range r.reads {
		if !isNull(m.value) {
			reads[i] = m.value[:opens(m.value, nil)]
			total += len(reads[i])
		}
	}
	if n = min(n, total); n <= 0 {
		return nil
	}
	prefix := make([]byte, 0, n)
	for _, value := range reads {
		prefix = append(prefix, value[:min(len(value), n-len(prefix))]...)
	}
	return prefix
}

// Opening is the same for requests whose prefix is everybody's, a long system prompt:
// the first n bytes, or fewer, of each of instructions, system, and the turns up to
// the user's first one, so that this one is among them. nil where the body has no
// turns: of a prompt nobody can say what in it is the user's.
func (r Request) Opening(n int) []byte {
	var opening []byte
	add := func(value []byte) { opening = append(opening, value[:min(max(n, 0), len(value))]...) }
	turns := false
	for i, m := range r.reads {
		switch {
		case len(m.value) == 0 || isNull(m.value) || reads[i] == "prompt":
			continue
		case reads[i] == "messages" || reads[i] == "input":
			turns = true
			if m.value[0] == '[' {
				opens(m.value, add)
				continue
			}
		}
		add(m.value)
	}
	if !turns {
		return nil
	}
	return opening
}

// maxOpens bounds the turns ahead of the user's first: examples, mostly.
const maxOpens = 16

// opens gives where in a list of turns the user's first one ends, and calls each with
// the turns up to there. Of anything else it is the end.
func opens(value []byte, each func(turn []byte)) int {
	turn, rest := elements(value)
	if turn == nil || value[0] != '[' {
		return len(value)
	}
	for range maxOpens {
		if each != nil {
			each(turn)
		}
		end := len(value) - len(rest)
		if text(get(turn, "role")) == "user" {
			return end
		}
		if turn, rest = elements(rest); turn == nil {
			break
		}
	}
	return len(value)
}

// WithModel gives the body with model as the value of its member model, and
// every other byte as it was; the body itself where it has no such member. Of a
// repeated member the last value is replaced, and the others stay: the last one
// is what Peek has read and what vLLM reads, and replacing all would let a small
// body of nothing but models grow to many times its size.
//
// body must be the bytes that r was peeked from. The result needs a Peek of its
// own before [Request.AskForUsage]: few requests name a model by another name.
func (r Request) WithModel(body []byte, model string) []byte {
	if r.model.end == 0 {
		return body
	}
	name, _ := json.Marshal(model) // a string has no way to fail
	return splice(body, r.model.start, r.model.end, string(name))
}

// maxParts bounds the work of PeekForm where a form is doubtful; forms of this API have
// a dozen fields.
const maxParts = 100

// PeekForm looks into a multipart body, which is what the audio paths take.
func PeekForm(body []byte, contentType string) Request {
	var r Request
	take := func(name, value string) {
		switch name {
		case "model":
			r.Model = value
		case "stream":
			r.Stream = saysYes(value)
		}
	}
	if plainForm(body, contentType, take) {
		return r
	}
	r = Request{Doubtful: true}
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return r
	}
	form := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for range maxParts {
		part, err := form.NextRawPart()
		if err != nil {
			return r
		}
		if part.FileName() != "" {
			continue
		}
		value, err := io.ReadAll(io.LimitReader(part, maxField))
		if err != nil {
			return r
		}
		take(part.FormName(), string(value))
	}
	return r
}

// FormWithModel gives a multipart body with model as the value of its last field
// model, and every other byte as it was. ok is false where it has no such field,
// or is not written as RFC 2046 has it.
func FormWithModel(body []byte, contentType, model string) (renamed []byte, ok bool) {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil || params["boundary"] == "" {
		return body, false
	}
	end := "\r\n--" + params["boundary"]
	from, to := 0, 0
	for at := 0; ; {
		length := bytes.Index(body[at:], []byte("\r\n\r\n"))
		if length < 0 {
			break
		}
		head, value := body[at:at+length], at+length+len("\r\n\r\n")
		if length = bytes.Index(body[value:], []byte(end)); length < 0 {
			break
		}
		if at = value + length; fieldName(head) == "model" {
			from, to = value, at
		}
	}
	if from == 0 {
		return body, false
	}
	return splice(body, from, to, model), true
}

// fieldName gives the name of a form's field, and "" for a file.
func fieldName(head []byte) string {
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if !bytes.EqualFold(bytes.TrimSpace(name), []byte("Content-Disposition")) {
			continue
		}
		_, params, err := mime.ParseMediaType(string(value))
		if _, isFile := params["filename"]; err == nil && !isFile {
			return params["name"]
		}
	}
	return ""
}

// AskForUsage gives the body with stream_options.include_usage set to true (and
// continuous_usage_stats to false, where it did nothing and would now) and every
// other byte as it was. ok is false, and the body the same, where there
// is nothing to ask: the request is no stream, or a form, or it asks by itself, or it sets
// stream_options in a way that would give the client more than the one extra
// chunk which [Stream.Read] recognises (continuous_usage_stats without a word of
// include_usage: what that means depends on the version), or in a way that is for vLLM
// to refuse.
//
// body must be the bytes that r was peeked from. Where they have room behind them, they
// are changed in place: prompts are long. Then there is nothing more to ask of r.
func (r Request) AskForUsage(body []byte) (asked []byte, ok bool) {
	if !r.Stream || !r.object {
		return body, false
	}
	if r.options.end == 0 {
		brace := skipSpace(body, 0)
		return spliceIn(body, brace+1, brace+1, `"stream_options":{"include_usage":true},`), true
	}
	if isNull(r.options.value) {
		return spliceIn(body, r.options.start, r.options.end, `{"include_usage":true}`), true
	}
	o, isObject := openObject(r.options.value)
	if !isObject {
		return body, false
	}
	var include, continuous member
	empty := true
	for {
		m, more := o.next()
		if !more {
			break
		}
		empty = false
		switch string(m.name) {
		case "include_usage":
			include = m
		case "continuous_usage_stats":
			continuous = m
		}
	}
	at := r.options.start
	refused := include.end > 0 && (isFalse(include.value) || isNull(include.value))
	switch more := continuous.end > 0 && !isFalse(continuous.value) && !isNull(continuous.value); {
	case !o.whole, more && !(refused && isTrue(continuous.value)):
		return body, false
	case more: // which does nothing without the other; and is not to, with it
		first, second := include, continuous
		if first.start > second.start {
			first, second = second, first
		}
		with := map[int]string{include.start: "true", continuous.start: "false"}
		body = spliceIn(body, at+second.start, at+second.end, with[second.start])
		return spliceIn(body, at+first.start, at+first.end, with[first.start]), true
	case empty:
		return spliceIn(body, at+1, at+1, `"include_usage":true`), true
	case include.end == 0:
		return spliceIn(body, at+1, at+1, `"include_usage":true,`), true
	case refused:
		return spliceIn(body, at+include.start, at+include.end, `true`), true
	}
	return body, false
}

func splice(body []byte, from, to int, with string) []byte {
	out := make([]byte, 0, len(body)-(to-from)+len(with))
	out = append(out, body[:from]...)
	out = append(out, with...)
	return append(out, body[to:]...)
}

// spliceIn is splice within the body's own memory, if that has room.
func spliceIn(body []byte, from, to int, with string) []byte {
	n := len(body) - (to - from) + len(with)
	if n > cap(body) {
		return splice(body, from, to, with)
	}
	out := body[:n]
	copy(out[from+len(with):], body[to:])
	copy(out[from:], with)
	return out
}
