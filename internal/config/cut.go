package config

import (
	"bytes"
	"iter"

	"go.yaml.in/yaml/v3"
)

// The YAML library makes a tree of a whole text, of some twenty times its size. So of a
// large file the list of keys, which is what makes files large, is taken out and read
// some hundred items at a time. Where this fails, in whatever way, the text is read as
// a whole: that alone decides what is an error. Where it does not fail the outcome is
// the same, which FuzzCut holds.

// cutFrom is the size from which it is worth it, and cutSize what is read at a time, in
// bytes.
const (
	cutFrom = 256 << 10
	cutSize = 64 << 10
)

// cut is the list of keys, taken out of a text.
type cut struct {
	rest   []byte // the text without it, and as many lines
	items  []byte // whole lines
	line   int    // of the first item
	indent int    // of its hyphen
	size   int    // of a piece
	node   *yaml.Node
	failed bool
}

// cutKeys finds the list below a line "keys:"; nil if there is none.
func cutKeys(data []byte, size int) *cut {
	header, line := 0, 1
	for !isHeader(data[header:]) {
		next := bytes.IndexByte(data[header:], '\n')
		if next < 0 {
			return nil
		}
		header += next + 1
		line++
	}
	start := header + bytes.IndexByte(data[header:], '\n') + 1
	if start == header {
		return nil
	}
	c := &cut{line: line + 1, indent: -1, size: size}
	end, lines := start, 0
	for end < len(data) {
		text := data[end:]
		next := bytes.IndexByte(text, '\n') + 1
		if next == 0 {
			next = len(text)
		}
		text = text[:next]
		indent := len(text) - len(bytes.TrimLeft(text, " "))
		if content := bytes.TrimSpace(text); len(content) > 0 && content[0] != '#' {
			if c.indent < 0 {
				if !isItem(text[indent:]) {
					return nil
				}
				c.indent = indent
				c.line += lines
				start, lines = end, 0
			}
			if indent < c.indent || indent == c.indent && !isItem(text[indent:]) {
				break
			}
		}
		end += next
		lines++
	}
	if c.indent < 0 || end < len(data) && !isLetter(data[end]) { // what follows is another key, or it is not for us
		return nil
	}
	c.items = data[start:end]
	c.rest = append(append(bytes.Clone(data[:start]), bytes.Repeat([]byte("\n"), bytes.Count(c.items, []byte("\n")))...), data[end:]...)
	return c
}

// isHeader reports whether a line has the key whose items follow, and nothing else.
func isHeader(text []byte) bool {
	rest, ok := bytes.CutPrefix(text, []byte("keys:"))
	if !ok {
		return false
	}
	if end := bytes.IndexByte(rest, '\n'); end >= 0 {
		rest = rest[:end]
	}
	after := bytes.TrimLeft(bytes.TrimRight(rest, "\r"), " ")
	return len(after) == 0 || after[0] == '#' && len(after) < len(rest)
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func isItem(text []byte) bool {
	return len(text) > 1 && text[0] == '-' && (text[1] == ' ' || text[1] == '\n' || text[1] == '\r')
}

// fits reports whether the list was what the library finds below a key of that name,
// and makes a list of the nothing that it has found in its place.
func (c *cut) fits(root *yaml.Node) bool {
	if root.Kind != yaml.MappingNode || root.Style != 0 || root.Anchor != "" {
		return false
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		name, value := root.Content[i], root.Content[i+1]
		if name.Value == "keys" && name.Kind == yaml.ScalarNode && name.Style == 0 && name.Column == 1 && name.Line < c.line {
			if value.Kind != yaml.ScalarNode || value.Style != 0 || value.Value != "" || value.Anchor != "" {
				return false
			}
			c.node = value
			*value = yaml.Node{Kind: yaml.SequenceNode, Line: c.line, Column: c.indent + 1}
			return true
		}
	}
	return false
}

// pieces gives the items of a list, some at a time.
func (r *reader) pieces(list *yaml.Node) iter.Seq[[]*yaml.Node] {
	return func(yield func([]*yaml.Node) bool) {
		if r.cut == nil || r.cut.node != list {
			yield(list.Content)
			return
		}
		text, line := r.cut.items, r.cut.line
		for len(text) > 0 {
			piece := text[:r.cut.next(text)]
			text = text[len(piece):]
			root, problem := document(piece)
			if problem != nil || root.Kind != yaml.SequenceNode || root.Style != 0 || root.Anchor != "" || root.Column != r.cut.indent+1 {
				r.cut.failed = true
				return
			}
			shift(root, line-1)
			line += bytes.Count(piece, []byte("\n"))
			if !yield(root.Content) {
				return
			}
		}
	}
}

// next gives the end of the next piece: before an item.
func (c *cut) next(text []byte) int {
	for at := min(c.size, len(text)); at < len(text); {
		line := bytes.IndexByte(text[at:], '\n')
		if line < 0 {
			break
		}
		at += line + 1
		if rest := text[at:]; len(rest) > c.indent && len(bytes.TrimLeft(rest[:c.indent], " ")) == 0 && isItem(rest[c.indent:]) {
			return at
		}
	}
	return len(text)
}

// shift moves a tree down by some lines.
func shift(n *yaml.Node, lines int) {
	n.Line += lines
	for _, below := range n.Content {
		shift(below, lines)
	}
}
