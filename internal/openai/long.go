package openai

import (
	"bytes"
	"strings"
)

// maxTail is how much of a long event's end is kept, in bytes: the usage of
// response.completed stands near it.
const maxTail = 4 << 10

// readPart reads a part of an event that is too long to be held. What it is
// stands in its head: the event line, or what of its JSON is whole there.
func (s *Stream) readPart(p Piece) Fact {
	var fact Fact
	if p.First {
		s.kind, s.tail = longKind(p.Bytes), s.tail[:0]
		fact.Token = s.longBearsToken(p.Bytes)
		if s.Dialect == Responses && s.kind == "response.created" {
			learnID(&s.ID, headID(data(p.Bytes)))
		}
	}
	s.keepTail(p.Bytes)
	if p.Last {
		s.endLong(&fact)
	}
	return fact
}

// longKind names a long event of responses or messages; "" for others. vLLM
// writes an event line; within the JSON the type may come last.
func longKind(head []byte) string {
	if rest, ok := bytes.CutPrefix(head, []byte("event:")); ok {
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		return string(bytes.TrimSpace(line))
	}
	return text(get(data(head), "type"))
}

// longBearsToken: a chunk whose choices are whole in its head says by itself
// (what is long is something else, such as the ids of the prompt's tokens); one
// whose choices are what is long has content.
func (s *Stream) longBearsToken(head []byte) bool {
	switch s.Dialect {
	case Responses, Messages:
		return strings.HasSuffix(s.kind, "delta") && s.kind != "message_delta"
	case Other:
		return true
	}
	payload := data(head)
	if get(payload, "choices") == nil {
		return true
	}
	probe := Stream{Dialect: s.Dialect}
	return probe.readChoices(payload).Token
}

// headID gives the raw id of a response whose event is too long to be held:
// response.created repeats the instructions, and the id stands before them.
// A quote inside a string is escaped, so "response": can only be a name.
func headID(payload []byte) []byte {
	_, response, _ := bytes.Cut(payload, []byte(`"response":`))
	return get(response, "id")
}

func (s *Stream) keepTail(part []byte) {
	s.tail = append(s.tail, part[max(0, len(part)-maxTail):]...)
	if over := len(s.tail) - maxTail; over > 0 {
		s.tail = append(s.tail[:0], s.tail[over:]...)
	}
}

// endLong says what the end of a long event means. A quote inside a string is
// escaped, so "usage": can only be a name.
func (s *Stream) endLong(fact *Fact) {
	switch s.kind {
	case "response.completed", "response.incomplete":
		name := []byte(`"usage":`)
		if at := bytes.LastIndex(s.tail, name); at >= 0 {
			at = skipSpace(s.tail, at+len(name))
			if end := skipValue(s.tail, at); end > 0 {
				s.Usage.merge(s.tail[at:end])
			}
		}
		fact.End, fact.Finish = true, true
	case "response.failed", "error":
		e := NewError(500, "The model server reported an error too long to pass on.")
		fact.Failure = &Failure{Status: e.Code, Body: e.Body()}
		fact.End = s.kind == "response.failed"
	}
}
