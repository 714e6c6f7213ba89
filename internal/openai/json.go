package openai

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// object walks the members of one JSON object, without unmarshalling what
// nobody asked for. It checks the object's own frame and finds where values
// end; it does not validate inside them: who needs a value parses it.
type object struct {
	data  []byte
	pos   int
	whole bool // the closing brace was reached
}

// member is one name and its raw value, data[start:end].
type member struct {
	name       []byte
	value      []byte
	start, end int
}

// openObject begins a walk; ok is false where data does not begin an object.
func openObject(data []byte) (o object, ok bool) {
	i := skipSpace(data, 0)
	if i >= len(data) || data[i] != '{' {
		return object{}, false
	}
	return object{data: data, pos: i + 1}, true
}

// next gives the next member; false at the end of the object, or at the first
// byte that does not fit: whole tells which.
func (o *object) next() (m member, ok bool) {
	i := skipSpace(o.data, o.pos)
	if i < len(o.data) && o.data[i] == '}' {
		o.whole, o.pos = true, i+1
		return m, false
	}
	if i >= len(o.data) || o.data[i] != '"' {
		return m, false
	}
	end := skipString(o.data, i)
	if end < 0 {
		return m, false
	}
	m.name = unquote(o.data[i:end])
	i = skipSpace(o.data, end)
	if i >= len(o.data) || o.data[i] != ':' {
		return m, false
	}
	m.start = skipSpace(o.data, i+1)
	m.end = skipValue(o.data, m.start)
	if m.end < 0 {
		return m, false
	}
	m.value = o.data[m.start:m.end]
	i = skipSpace(o.data, m.end)
	switch {
	case i < len(o.data) && o.data[i] == ',':
		o.pos = i + 1
		if j := skipSpace(o.data, i+1); j < len(o.data) && o.data[j] == '}' {
			return m, false // a comma before the brace
		}
	case i < len(o.data) && o.data[i] == '}':
		o.pos = i
	default:
		return m, false
	}
	return m, true
}

// get gives the raw value of the last member called name, as JSON parsers do
// with a repeated name; nil where there is none.
func get(data []byte, name string) (value []byte) {
	o, ok := openObject(data)
	for ok {
		var m member
		if m, ok = o.next(); ok && string(m.name) == name {
			value = m.value
		}
	}
	return value
}

// elements walks a JSON array: each call gives the next raw element and the
// rest to call with; nil at the end, or where data is no array.
func elements(data []byte) (element, rest []byte) {
	i := skipSpace(data, 0)
	if i >= len(data) || (data[i] != '[' && data[i] != ',') {
		return nil, nil
	}
	i = skipSpace(data, i+1)
	end := skipValue(data, i)
	if end < 0 {
		return nil, nil
	}
	return data[i:end], data[end:]
}

func skipSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\t' || data[i] == '\n' || data[i] == '\r') {
		i++
	}
	return i
}

// skipString gives the index after the string that begins at i, or -1.
func skipString(data []byte, i int) int {
	for from := i + 1; ; {
		quote := bytes.IndexByte(data[from:], '"')
		if quote < 0 {
			return -1
		}
		quote += from
		slashes := 0
		for quote-1-slashes > i && data[quote-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return quote + 1
		}
		from = quote + 1
	}
}

// skipValue gives the index after the value that begins at i, or -1. Braces and
// brackets are counted, not matched.
func skipValue(data []byte, i int) int {
	if i >= len(data) {
		return -1
	}
	switch data[i] {
	case '"':
		return skipString(data, i)
	case '{', '[':
		return skipNested(data, i)
	}
	start := i
	for i < len(data) && !ends(data[i]) {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

// ends reports whether a byte ends a number or a word.
func ends(c byte) bool {
	switch c {
	case ',', ']', '}', ':', ' ', '\t', '\r', '\n', '"', '[', '{':
		return true
	}
	return false
}

func skipNested(data []byte, i int) int {
	for depth := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			if i = skipString(data, i) - 1; i < 0 {
				return -1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// unquote gives a raw string's text. The common case, no escapes, is a slice of
// the raw bytes.
func unquote(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return nil
	}
	return []byte(s)
}

// text gives a value that is a string; "" for any other.
func text(raw []byte) string {
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	return string(unquote(raw))
}

// filled reports whether a value holds anything: a string with characters, an
// object or array with contents, a number, true.
func filled(raw []byte) bool {
	if len(raw) == 0 || isNull(raw) {
		return false
	}
	switch raw[0] {
	case '"':
		return len(raw) > 2
	case '{', '[':
		i := skipSpace(raw, 1)
		return i < len(raw)-1
	}
	return true
}

func isNull(raw []byte) bool { return string(raw) == "null" }

// isTrue reports whether vLLM takes a value for true: besides true itself, 1 and
// a few words (pydantic's lax mode).
func isTrue(raw []byte) bool {
	if raw[0] == '"' {
		return saysYes(text(raw))
	}
	n, err := strconv.ParseFloat(string(raw), 64)
	return string(raw) == "true" || err == nil && n == 1
}

func saysYes(word string) bool {
	switch strings.ToLower(word) {
	case "true", "1", "t", "on", "y", "yes":
		return true
	}
	return false
}

// isFalse is the same for false.
func isFalse(raw []byte) bool {
	if raw[0] == '"' {
		switch strings.ToLower(text(raw)) {
		case "false", "0", "f", "off", "n", "no":
			return true
		}
		return false
	}
	n, err := strconv.ParseFloat(string(raw), 64)
	return string(raw) == "false" || err == nil && n == 0
}
