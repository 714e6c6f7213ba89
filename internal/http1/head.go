package http1

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
)

// headScan looks for the end of a head in bytes that arrive piece by piece, and
// looks at none of them twice. The zero value is ready.
type headScan struct {
	at    int // where to look on
	line  int // where the line begins that has not ended
	first int // where the first line has ended, with its line end; 0: it has not
	lines int // how many have ended
}

// end gives the length of the head, with the empty line that ends it, once p, which
// has grown since the last call, holds all of it. A head without lines is no head.
func (s *headScan) end(p []byte) (n int, ok bool) {
	for {
		i := bytes.IndexByte(p[s.at:], '\n')
		if i < 0 {
			s.at = len(p)
			return 0, false
		}
		i += s.at
		length := i - s.line
		empty := length == 0 || length == 1 && p[s.line] == '\r'
		s.at, s.line = i+1, i+1
		if empty {
			return i + 1, true
		}
		if s.lines == 0 {
			s.first = i + 1
		}
		s.lines++
	}
}

// cutLine cuts the first line off. As net/http does, it takes a line feed alone for
// a line end too (RFC 9112 2.2); the second reader of the tests holds that nobody
// behind us can see it otherwise.
func cutLine(s string) (line, rest string) {
	i := strings.IndexByte(s, '\n')
	if i < 0 {
		return s, ""
	}
	line, rest = s[:i], s[i+1:]
	if i > 0 && line[i-1] == '\r' {
		line = line[:i-1]
	}
	return line, rest
}

var (
	errRequestLine = errors.New("malformed request line")
	errStatusLine  = errors.New("malformed status line")
	errVersion     = errors.New("unsupported protocol version")
	errHeaderLine  = errors.New("malformed header line")
)

// parseRequestLine takes "METHOD target HTTP/1.x" apart, which has no line end. The
// parts have one space between them. errVersion: it is a request line, but of
// another HTTP.
func parseRequestLine(line string) (method, target string, minor int, err error) {
	method, rest, _ := strings.Cut(line, " ")
	target, version, ok := strings.Cut(rest, " ")
	if !ok || target == "" || !isToken(method) {
		return "", "", 0, errRequestLine
	}
	for i := range len(target) {
		if target[i] <= ' ' || target[i] == 0x7f {
			return "", "", 0, errRequestLine
		}
	}
	minor, err = parseVersion(version)
	if err == errVersion {
		return method, target, 0, err
	}
	if err != nil {
		return "", "", 0, errRequestLine
	}
	return method, target, minor, nil
}

// parseVersion reads "HTTP/1.x". errVersion: another HTTP.
func parseVersion(s string) (minor int, err error) {
	if len(s) != len("HTTP/1.1") || s[:5] != "HTTP/" || !isDigit(s[5]) || s[6] != '.' || !isDigit(s[7]) {
		return 0, errHeaderLine
	}
	if s[5] != '1' {
		return 0, errVersion
	}
	return int(s[7] - '0'), nil
}

// parseStatusLine takes "HTTP/1.x 200 reason" apart, which has no line end. The
// reason may be missing, with its space too, and is nobody's matter.
func parseStatusLine(line []byte) (status, minor int, err error) {
	if len(line) < len("HTTP/1.1 200") || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return 0, 0, errStatusLine
	}
	if minor, err = parseVersion(string(line[:8])); err != nil {
		return 0, 0, errStatusLine
	}
	for _, c := range line[9:12] {
		if !isDigit(c) {
			return 0, 0, errStatusLine
		}
		status = 10*status + int(c-'0')
	}
	if status < 100 {
		return 0, 0, errStatusLine
	}
	for _, c := range line[12:] {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, 0, errStatusLine
		}
	}
	return status, minor, nil
}

// parseHeader reads the lines of a head behind its first. The empty line at their
// end may be there.
func parseHeader(block []byte) (http.Header, error) {
	return parseFields(string(block), bytes.Count(block, []byte{'\n'}))
}

// parseFields is parseHeader of a text that has so many lines, about. What it gives
// are parts of the text.
func parseFields(s string, lines int) (http.Header, error) {
	h := make(http.Header, min(lines, 64))
	values := make([]string, lines)
	for s != "" {
		line, rest := cutLine(s)
		if line == "" {
			if rest != "" {
				return nil, errHeaderLine
			}
			break
		}
		if rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
			var err error
			if s, err = unfold(s); err != nil {
				return nil, err
			}
			continue
		}
		s = rest
		name, value, ok := cutField(line)
		if !ok {
			return nil, errHeaderLine
		}
		switch before := h[name]; {
		case before != nil:
			h[name] = append(before, value)
		case len(values) > 0:
			values[0] = value
			h[name], values = values[:1:1], values[1:]
		default:
			h[name] = []string{value}
		}
	}
	return h, nil
}

// cutField takes a line "Name: value" apart. The name is in the canonical form of
// net/http.
func cutField(line string) (name, value string, ok bool) {
	canonical, first := true, true
	for i := range len(line) {
		c := line[i]
		if c == ':' {
			name, value = line[:i], line[i+1:]
			break
		}
		if !token[c] {
			return "", "", false
		}
		if first && 'a' <= c && c <= 'z' || !first && 'A' <= c && c <= 'Z' {
			canonical = false
		}
		first = c == '-'
	}
	if name == "" || !soundValue(value) {
		return "", "", false
	}
	if !canonical {
		name = http.CanonicalHeaderKey(name)
	}
	return name, trimSpace(value), true
}

// unfold makes one line of each that is folded (RFC 9112 5.2), with a space where
// the lines were joined.
func unfold(s string) (string, error) {
	var b strings.Builder
	b.Grow(len(s) + 2)
	for begun := false; s != ""; begun = true {
		var line string
		line, s = cutLine(s)
		switch folded := line != "" && (line[0] == ' ' || line[0] == '\t'); {
		case folded && !begun:
			return "", errHeaderLine
		case folded:
			b.WriteByte(' ')
		case begun:
			b.WriteString("\r\n") // a CR before it stays what it is: an error
		}
		b.WriteString(trimSpace(line))
	}
	b.WriteString("\r\n")
	return b.String(), nil
}

// trimSpace takes off what HTTP calls optional whitespace.
func trimSpace(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// soundValue: no control characters but the tab. Eight bytes are looked at in one go;
// where one of them may be a control character, one after the other.
func soundValue(s string) bool {
	const each = 0x0101010101010101 // the same in each byte
	for len(s) >= 8 {
		v := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		below := (v - ' '*each) &^ v
		del := v ^ 0x7f*each
		if (below|(del-each)&^del)&(0x80*each) != 0 && !allSound(s[:8]) {
			return false
		}
		s = s[8:]
	}
	return allSound(s)
}

func allSound(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// token has the bytes of which names are made (RFC 9110 5.6.2).
var token = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

func isToken(s string) bool {
	for i := range len(s) {
		if !token[s[i]] {
			return false
		}
	}
	return s != ""
}
