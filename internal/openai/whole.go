package openai

import "bytes"

// maxUsage bounds the usage object of an answer, in bytes; vLLM's is about 200.
const maxUsage = 4 << 10

// Body watches a JSON answer pass by and picks its usage out, in constant
// memory: the answer itself may be megabytes of embeddings. The zero value is
// ready; write the answer to it, piece by piece.
type Body struct {
	// Dialect decides whether there is an ID.
	Dialect Dialect
	// Usage is valid once the answer has passed.
	Usage Usage
	// ID is the id of the response, by which later requests may name it: of the
	// dialect Responses; "" where the answer gave none that is well-formed.
	ID string

	depth    int
	inString bool
	escaped  bool
	begun    bool
	closed   bool
	notJSON  bool

	isKey bool   // at depth 1: the string being read is a name
	name  []byte // the member being read, as far as it can be "usage" or "id"
	value []byte // the usage object, or the id, while it passes
}

// Write never fails and never keeps p.
func (b *Body) Write(p []byte) (int, error) {
	for i := 0; i < len(p) && !b.notJSON; {
		switch {
		case b.inString && !b.escaped:
			i += b.skipText(p[i:])
		case !b.inString && b.depth > 1 && !b.inUsage():
			i += skipTo(p[i:], `"{}[]`)
		}
		if i == len(p) {
			break
		}
		b.step(p[i])
		i++
	}
	return len(p), nil
}

// ReadWhole is Write of an answer that lies there whole, and says the same of it for
// less: of what is in its members it looks at nothing but their ends.
func (b *Body) ReadWhole(answer []byte) {
	o, ok := openObject(answer)
	for ok {
		var m member
		if m, ok = o.next(); !ok {
			return
		}
		switch {
		case string(m.name) == "usage" && len(m.value) < maxUsage:
			b.Usage.merge(m.value)
		case string(m.name) == "id" && b.Dialect == Responses:
			learnID(&b.ID, m.value)
		}
	}
}

// Whole reports whether the answer was one JSON object, to its last brace.
func (b *Body) Whole() bool { return b.closed && !b.notJSON }

// Aborted reports whether an answer in one piece is one that the engine has
// given up: see [Fact].
func (d Dialect) Aborted(answer []byte) bool {
	switch d {
	case Chat, Completions:
		for choice, rest := elements(get(answer, "choices")); choice != nil; choice, rest = elements(rest) {
			if isAbort(get(choice, "finish_reason")) {
				return true
			}
		}
	case Messages:
		return text(get(answer, "type")) == "message" && !filled(get(answer, "stop_reason"))
	}
	return false
}

// inUsage reports whether the member being read is the usage.
func (b *Body) inUsage() bool { return string(b.name) == `"usage"` }

// inID reports whether the member being read is the id that is wanted.
func (b *Body) inID() bool { return b.Dialect == Responses && string(b.name) == `"id"` }

// skipTo gives the index of the first of chars in p, or the end of p.
func skipTo(p []byte, chars string) int {
	if n := bytes.IndexAny(p, chars); n >= 0 {
		return n
	}
	return len(p)
}

// skipText passes over a string's plain characters, which is nearly all of
// nearly every answer.
func (b *Body) skipText(p []byte) int {
	n := skipTo(p, "\"\\")
	b.keep(p[:n]...)
	return n
}

func (b *Body) step(c byte) {
	if b.inString {
		b.keep(c)
		switch {
		case b.escaped:
			b.escaped = false
		case c == '\\':
			b.escaped = true
		case c == '"':
			b.inString = false
		}
		return
	}
	switch c {
	case ' ', '\t', '\r', '\n':
		return
	case '{', '[':
		b.open(c)
	case '}', ']':
		b.close(c)
	case '"':
		b.inString = true
		if b.depth == 1 && b.isKey {
			b.name = b.name[:0]
		}
		b.keep(c)
	case ',':
		if b.depth == 1 {
			b.endMember()
			return
		}
		b.keep(c)
	case ':':
		if b.depth == 1 {
			b.isKey = false
			return
		}
		b.keep(c)
	default:
		b.notJSON = b.depth == 0
		b.keep(c)
	}
}

func (b *Body) open(c byte) {
	if b.depth == 0 && (b.begun || c != '{') {
		b.notJSON = true
		return
	}
	b.keep(c)
	b.depth++
	if b.depth == 1 {
		b.begun, b.isKey = true, true
	}
}

func (b *Body) close(c byte) {
	b.depth--
	switch {
	case b.depth < 0:
		b.notJSON = true
	case b.depth == 0:
		b.endMember()
		b.closed = c == '}'
	default:
		b.keep(c)
	}
}

func (b *Body) endMember() {
	if b.inUsage() && len(b.value) > 0 && len(b.value) < maxUsage {
		b.Usage.merge(b.value)
	}
	if b.inID() {
		learnID(&b.ID, b.value)
	}
	b.name, b.value, b.isKey = b.name[:0], b.value[:0], true
}

// keep holds on to what may matter: a name as long as it may be "usage" or "id",
// and that member's value.
func (b *Body) keep(c ...byte) {
	switch {
	case b.depth == 0:
	case b.isKey && b.depth == 1:
		if room := 16 - len(b.name); room > 0 {
			b.name = append(b.name, c[:min(room, len(c))]...)
		}
	case b.inUsage(), b.inID():
		if room := maxUsage - len(b.value); room > 0 {
			b.value = append(b.value, c[:min(room, len(c))]...)
		}
	}
}
