package openai

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Dialect is which of the four kinds of stream a path speaks.
type Dialect int

const (
	// Other is any other stream: every event with data counts as a token.
	Other Dialect = iota
	Chat
	Completions
	Responses
	Messages
)

// Stream reads what the events of one stream say.
type Stream struct {
	Dialect Dialect
	// Asked is set where the gateway asked for usage and the client did not:
	// then the chunk that brings nothing but usage is not the client's.
	Asked bool
	// Usage is what the stream has said of its cost so far.
	Usage Usage
	// ID is the id of the response, by which later requests may name it: of the
	// dialect Responses, from response.created on; "" where the stream gave none
	// that is well-formed.
	ID string

	alike  alike  // the last event that only bore a token
	forced bool   // the server puts usage on every chunk, asked or not
	kind   string // of the long event that is passing
	tail   []byte // its last bytes
}

// Fact is what one event says.
type Fact struct {
	// Token: the event bears a token: text, reasoning, or part of a tool call.
	Token bool
	// Finish: the event ends a choice. The engine's last step made it, with or
	// without text.
	Finish bool
	// End: the stream is complete; what comes after is nothing but its close.
	End bool
	// Aborted: the engine has given the answer up, and what follows looks like
	// the end of a finished one. vLLM does this to all that runs when it is
	// told to stop.
	Aborted bool
	// Extra: the event exists only because the gateway asked for usage.
	Extra bool
	// Failure is set where the engine reports an error within the stream.
	Failure *Failure
}

// Failure is an error that the engine reported inside a stream, whose status
// was 200 by then.
type Failure struct {
	// Status is the HTTP status that the error would have had; 500 where it
	// does not say.
	Status int
	// Body is the error as a JSON body.
	Body []byte
}

// Read says what a piece of the stream means. It never keeps the piece.
func (s *Stream) Read(p Piece) Fact {
	if !p.First || !p.Last {
		return s.readPart(p)
	}
	if s.alike.matches(p.Bytes) {
		return Fact{Token: true}
	}
	fact := s.readEvent(p.Bytes)
	if fact == (Fact{Token: true}) {
		s.alike.learn(s.Dialect, p.Bytes)
	}
	return fact
}

func (s *Stream) readEvent(event []byte) Fact {
	payload := bytes.TrimSpace(data(event))
	if len(payload) == 0 {
		return Fact{}
	}
	if string(payload) == "[DONE]" {
		return Fact{End: s.Dialect == Chat || s.Dialect == Completions || s.Dialect == Other}
	}
	switch s.Dialect {
	case Responses:
		return s.readResponses(payload)
	case Messages:
		return s.readMessages(payload)
	}
	return s.readChoices(payload)
}

// readChoices reads a chunk of chat, of completions, or of a stream of another
// kind (transcription chunks look like chat's).
func (s *Stream) readChoices(payload []byte) Fact {
	fact := Fact{Token: s.Dialect == Other}
	var usage []byte
	bare := true // no choices, or none in it
	o, ok := openObject(payload)
	for ok {
		var m member
		if m, ok = o.next(); !ok {
			break
		}
		switch string(m.name) {
		case "choices":
			bare = !filled(m.value)
			for choice, rest := elements(m.value); choice != nil; choice, rest = elements(rest) {
				s.readChoice(choice, &fact)
			}
		case "usage":
			if !isNull(m.value) {
				usage = m.value
			}
		case "error":
			if filled(m.value) {
				return Fact{Failure: failure(m.value, payload)}
			}
		}
	}
	if usage != nil {
		s.Usage.merge(usage)
		// Usage on a chunk with choices was not asked for: the server gives it
		// to everyone (--enable-force-include-usage), so the client would have
		// had the last chunk too.
		s.forced = s.forced || !bare
		fact.Extra = s.Asked && !s.forced
	}
	return fact
}

func (s *Stream) readChoice(choice []byte, fact *Fact) {
	o, ok := openObject(choice)
	for ok {
		var m member
		if m, ok = o.next(); !ok {
			return
		}
		switch string(m.name) {
		case "delta":
			fact.Token = fact.Token || s.Dialect == Chat && deltaBearsToken(m.value)
		case "text":
			fact.Token = fact.Token || s.Dialect == Completions && filled(m.value)
		case "finish_reason":
			fact.Finish = fact.Finish || filled(m.value)
			fact.Aborted = fact.Aborted || isAbort(m.value)
		}
	}
}

func isAbort(finishReason []byte) bool { return string(finishReason) == `"abort"` }

// deltaBearsToken: the first delta of a choice names a role and holds no token.
// Reasoning has had two names (vLLM dropped reasoning_content for reasoning).
func deltaBearsToken(delta []byte) bool {
	o, ok := openObject(delta)
	for ok {
		var m member
		if m, ok = o.next(); !ok {
			return false
		}
		switch string(m.name) {
		case "content", "reasoning", "reasoning_content", "tool_calls", "function_call", "refusal":
			if filled(m.value) {
				return true
			}
		}
	}
	return false
}

// readResponses reads an event of a responses stream. response.created and
// response.in_progress leave vLLM before its engine has seen the request; they
// say nothing of tokens. The type is in the JSON: the event line may be missing.
func (s *Stream) readResponses(payload []byte) Fact {
	kind := text(get(payload, "type"))
	if kind == "response.created" {
		learnID(&s.ID, get(get(payload, "response"), "id"))
	}
	switch kind {
	case "response.completed", "response.incomplete":
		s.Usage.merge(get(get(payload, "response"), "usage"))
		return Fact{End: true, Finish: true}
	case "response.failed":
		if err := get(get(payload, "response"), "error"); filled(err) {
			return Fact{Failure: failure(err, wrap(err)), End: true}
		}
		return Fact{Failure: failure(nil, payload), End: true}
	case "response.output_item.added":
		return Fact{Token: strings.HasSuffix(text(get(get(payload, "item"), "type")), "_call")}
	}
	if err := get(payload, "error"); kind == "error" || filled(err) {
		return Fact{Failure: failure(err, payload)}
	}
	return Fact{Token: strings.HasSuffix(kind, ".delta") && filled(get(payload, "delta"))}
}

// readMessages reads an event of a stream in Anthropic's dialect.
func (s *Stream) readMessages(payload []byte) Fact {
	kind := text(get(payload, "type"))
	switch kind {
	case "message_start":
		s.Usage.merge(get(get(payload, "message"), "usage"))
		s.Usage.HasCompletion = false // a placeholder until the end
		return Fact{}
	case "message_delta":
		s.Usage.merge(get(payload, "usage"))
		// The dialect has no word for an aborted answer: vLLM says null, and in
		// an answer in one piece nothing.
		return Fact{Finish: true, Aborted: isNull(get(get(payload, "delta"), "stop_reason"))}
	case "message_stop":
		return Fact{End: true}
	case "content_block_start":
		return Fact{Token: text(get(get(payload, "content_block"), "type")) == "tool_use"}
	case "content_block_delta":
		delta := get(payload, "delta")
		return Fact{Token: filled(get(delta, "text")) || filled(get(delta, "thinking")) || filled(get(delta, "partial_json"))}
	}
	if err := get(payload, "error"); kind == "error" || filled(err) {
		return Fact{Failure: failure(err, payload)}
	}
	return Fact{}
}

// failure reads an error object, whose code is the HTTP status in vLLM's
// errors and may be anything elsewhere.
func failure(err, body []byte) *Failure {
	f := &Failure{Status: 500, Body: bytes.Clone(body)}
	var code int
	if json.Unmarshal(get(err, "code"), &code) == nil && code >= 400 && code <= 599 {
		f.Status = code
	}
	return f
}

func wrap(err []byte) []byte {
	return append(append([]byte(`{"error":`), err...), '}')
}

// ErrorEvent is the event that tells the client, in its dialect, that a stream
// which had begun has failed. It stands where the rest of the stream should be;
// no end mark follows it.
func (d Dialect) ErrorEvent(e Error) []byte {
	switch d {
	case Responses:
		event, _ := json.Marshal(struct {
			Type    string `json:"type"`
			Code    int    `json:"code"`
			Message string `json:"message"`
			Error   Error  `json:"error"`
		}{"error", e.Code, e.Message, e})
		return append(append([]byte("event: error\ndata: "), event...), "\n\n"...)
	case Messages:
		event, _ := json.Marshal(struct {
			Type  string `json:"type"`
			Error Error  `json:"error"`
		}{"error", e})
		return append(append([]byte("event: error\ndata: "), event...), "\n\n"...)
	}
	return append(append([]byte("data: "), e.Body()...), "\n\n"...)
}
