package openai

import (
	"mime"
	"mime/multipart"

	"bytes"
	"io"
)

// Request is what the gateway needs to know of a request's body. Everything
// else in the body is between the client and vLLM.
type Request struct {
	// Model is "" where the body names none.
	Model string
	// Stream is set where the body asks for a stream.
	Stream bool

	object  bool   // the body is a JSON object, not a form
	options member // stream_options; end is 0 where the body has none
}

// Peek looks into a JSON body. A body that is not a JSON object gives the zero
// Request: saying what is wrong with it is vLLM's part. Where a name is
// repeated the last one holds, as in Python's json, which vLLM uses.
func Peek(body []byte) Request {
	var r Request
	o, ok := openObject(body)
	for ok {
		var m member
		if m, ok = o.next(); !ok {
			break
		}
		switch string(m.name) {
		case "model":
			r.Model = text(m.value)
		case "stream":
			r.Stream = isTrue(m.value)
		case "stream_options":
			r.options = m
		}
	}
	if !o.whole {
		return Request{}
	}
	r.object = true
	return r
}

// maxParts bounds the work of PeekForm; forms of this API have a dozen fields.
const maxParts = 100

// PeekForm looks into a multipart body, which is what the audio paths take.
func PeekForm(body []byte, contentType string) Request {
	var r Request
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
		value, err := io.ReadAll(io.LimitReader(part, 1<<10))
		if err != nil {
			return r
		}
		switch part.FormName() {
		case "model":
			r.Model = string(value)
		case "stream":
			r.Stream = saysYes(string(value))
		}
	}
	return r
}

// AskForUsage gives the body with stream_options.include_usage set to true and
// every other byte as it was. ok is false, and the body the same, where there
// is nothing to ask: the request is no stream, or a form, or it asks by itself, or it sets
// stream_options in a way that would give the client more than the one extra
// chunk which [Stream.Read] recognises (continuous_usage_stats), or in a way
// that is for vLLM to refuse.
//
// body must be the bytes that r was peeked from.
func (r Request) AskForUsage(body []byte) (asked []byte, ok bool) {
	if !r.Stream || !r.object {
		return body, false
	}
	if r.options.end == 0 {
		brace := skipSpace(body, 0)
		return splice(body, brace+1, brace+1, `"stream_options":{"include_usage":true},`), true
	}
	if isNull(r.options.value) {
		return splice(body, r.options.start, r.options.end, `{"include_usage":true}`), true
	}
	o, isObject := openObject(r.options.value)
	if !isObject {
		return body, false
	}
	var include member
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
			if !isFalse(m.value) && !isNull(m.value) {
				return body, false
			}
		}
	}
	at := r.options.start
	switch {
	case !o.whole:
		return body, false
	case empty:
		return splice(body, at+1, at+1, `"include_usage":true`), true
	case include.end == 0:
		return splice(body, at+1, at+1, `"include_usage":true,`), true
	case isFalse(include.value), isNull(include.value):
		return splice(body, at+include.start, at+include.end, `true`), true
	}
	return body, false
}

func splice(body []byte, from, to int, with string) []byte {
	out := make([]byte, 0, len(body)-(to-from)+len(with))
	out = append(out, body[:from]...)
	out = append(out, with...)
	return append(out, body[to:]...)
}
