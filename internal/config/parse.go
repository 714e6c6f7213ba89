package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Parse reads a file; name is for errors. The error is an [*Errors] with all that is
// wrong, each with its line; the File then has what could be read, so that more can be
// found. (Where the text is not even YAML the error has that alone, and File is nil.)
func Parse(name string, data []byte) (*File, error) {
	if len(data) > MaxSize {
		return nil, NewErrors(name, []Problem{{1, "", "the file is larger than " + strconv.Itoa(MaxSize>>20) + " MiB"}})
	}
	if at, why := unreadable(data); why != "" {
		return nil, NewErrors(name, []Problem{{lineOf(data, at), "", why}})
	}
	if len(data) >= cutFrom {
		if f, problems, ok := parseCut(data, cutSize); ok {
			return f, NewErrors(name, problems)
		}
	}
	f, problems := parseWhole(data)
	return f, NewErrors(name, problems)
}

func parseWhole(data []byte) (*File, []Problem) {
	doc, problem := document(data)
	if problem != nil {
		return nil, []Problem{*problem}
	}
	r := &reader{}
	return r.file(doc), r.problems
}

// parseCut is parseWhole with less memory; it may not come about.
func parseCut(data []byte, size int) (*File, []Problem, bool) {
	c := cutKeys(data, size)
	if c == nil {
		return nil, nil, false
	}
	doc, problem := document(c.rest)
	if problem != nil || !c.fits(doc) {
		return nil, nil, false
	}
	r := &reader{cut: c}
	f := r.file(doc)
	return f, r.problems, !c.failed
}

// file reads what stands in a document.
func (r *reader) file(doc *yaml.Node) *File {
	var f File
	root := value{node: doc}
	switch {
	case doc.Anchor != "" || doc.Kind == yaml.AliasNode:
		r.wrong(root, noAnchors)
	case doc.Style&yaml.TaggedStyle != 0:
		r.wrong(root, noTags)
	case doc.Kind != yaml.MappingNode:
		r.wrong(root, "the file must begin with a key, such as listen: \":9000\"")
	default:
		fileKeys.read(r, &f, root, "")
		r.contradictions(&f)
	}
	return &f
}

// contradictions finds what only the file can tell; most of what does not fit
// together is found where flags and file are one.
func (r *reader) contradictions(f *File) {
	first := map[string]At[string]{} // by alias: its model, and the line of the alias
	for _, m := range f.Models.Value {
		for i, a := range m.Aliases.Value {
			other, taken := first[a.Value]
			if taken && other.Value != m.Name.Value {
				at := &place{above: &place{above: &place{above: &place{name: "models"}, name: m.Name.Value}, name: "aliases"}, index: i}
				r.problems = append(r.problems, Problem{a.Line, at.String(), quote(a.Value) + " is an alias of " + quote(other.Value) + " too, on line " + strconv.Itoa(other.Line) + "; leave one out"})
				continue
			}
			first[a.Value] = At[string]{m.Name.Value, a.Line}
		}
	}
}

// document gives what stands in the only document of a file.
func document(data []byte) (*yaml.Node, *Problem) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	err := decode(d, &doc)
	switch {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0:
		return nil, &Problem{1, "", "the file is empty; docs/gateway.yaml is an example"}
	case err != nil:
		return nil, syntax(err, data)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Value == "" && root.Style == 0 && root.Anchor == "" {
		return nil, &Problem{1, "", "the file is empty; docs/gateway.yaml is an example"}
	}
	var second yaml.Node
	switch err := decode(d, &second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, syntax(err, data)
	default:
		return nil, &Problem{max(second.Line, 1), "", "a second document begins here (---); a file has one"}
	}
	return root, nil
}

// decode keeps a panic of the YAML library, of which none is known, from ending a
// gateway that reads its file again.
func decode(d *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("yaml: it cannot be read")
		}
	}()
	return d.Decode(n)
}

// unreadable finds what no text has, and where.
func unreadable(data []byte) (at int, why string) {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return i, "the text is not UTF-8; save it so"
		case r == '\r' && !bytes.HasPrefix(data[i:], []byte("\r\n")), r == 0x85, r == 0x2028, r == 0x2029:
			return i, "there is a line break of another kind in the line; end lines as other files do"
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', 0x7f <= r && r < 0xa0, r == 0xfffe, r == 0xffff:
			return i, fmt.Sprintf("there is a control character (U+%04X) in the line; take it out", r)
		}
		i += n
	}
	return 0, ""
}

func lineOf(data []byte, at int) int { return 1 + bytes.Count(data[:at], []byte("\n")) }

// yamlError takes an error of the library apart. It is made ready for the first one.
var yamlError = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)
})

// cures are what to do about the YAML library's errors.
var cures = []struct {
	says, cure string
	kind       int
}{
	{"mapping values are not allowed", `is there a ": " too many, or is the line indented too far? Put a value with ": " in it in quotes`, asItSays},
	{"could not find expected ':'", "is a colon missing, or the space behind it?", asItSays},
	{"did not find expected key", "indent the line like its neighbours", whereItFails},
	{"did not find expected '-' indicator", "indent the line like its neighbours", whereItFails},
	{"did not find expected ',' or", "here or further up a bracket is not closed, or a comma is missing", oneMore},
	{"did not find expected node content", "a value is missing, or begins with a sign that means something in YAML; put it in quotes", whereItFails},
	{"found character that cannot start any token", "put a value that begins with @, ` or % in quotes", asItSays},
	{"found unexpected end of stream", "here or further up a quote is not closed", asItSays},
	{"found incompatible YAML document", "leave the line with %YAML out", asItSays},
	{"block sequence entries are not allowed", "begin the list on a line of its own", asItSays},
}

// What the library says of lines: that of its scanner is right; its parser counts from
// 0; and of blocks it has the line where they begin, not where it fails.
const (
	asItSays = iota
	oneMore
	whereItFails
)

// syntax says of a text that is not YAML where it ceases to be.
func syntax(err error, data []byte) *Problem {
	for i, line := range bytes.Split(data, []byte("\n")) { // the library does not speak of tabs
		indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
		if rest := line[len(indent):]; bytes.ContainsRune(indent, '\t') && len(bytes.TrimSpace(rest)) > 0 && rest[0] != '#' {
			return &Problem{i + 1, "", "the line is indented by a tab; YAML takes spaces only"}
		}
	}
	p := &Problem{Line: 1, Text: "this is not YAML"}
	m := yamlError().FindStringSubmatch(err.Error())
	if m == nil {
		return p
	}
	if strings.HasPrefix(m[2], "unknown anchor") { // by its name, which may be a secret
		return &Problem{locate(data, err), "", noAnchors}
	}
	p.Line, _ = strconv.Atoi(m[1])
	p.Text += ": " + m[2]
	for _, c := range cures {
		if !strings.HasPrefix(m[2], c.says) {
			continue
		}
		p.Text += "; " + c.cure
		switch c.kind {
		case oneMore:
			p.Line++
		case whereItFails:
			p.Line = locate(data, err)
		}
		break
	}
	p.Line = min(max(p.Line, 1), lineOf(data, len(data)))
	return p
}

// locate finds the first line with which the library fails. It is the last that the
// library has asked for, or one of the few before, as it looks ahead; and with fewer
// lines than that it would not have failed so.
func locate(data []byte, failure error) int {
	lines := bytes.SplitAfter(data, []byte("\n"))
	asked := 0
	fails := func(lines [][]byte, asked *int) bool {
		d := yaml.NewDecoder(&byLine{lines, asked})
		var n yaml.Node
		err := decode(d, &n)
		return err != nil && message(err) == message(failure)
	}
	fails(lines, &asked)
	const ahead = 4
	for n := max(asked-ahead, 1); n < asked; n++ {
		var ignored int
		if fails(lines[:n], &ignored) {
			return n
		}
	}
	return max(asked, 1)
}

// message is an error of the library without its line.
func message(err error) string {
	if m := yamlError().FindStringSubmatch(err.Error()); m != nil {
		return m[2]
	}
	return err.Error()
}

// byLine gives a line for each Read, and counts them.
type byLine struct {
	lines [][]byte
	given *int
}

func (b *byLine) Read(to []byte) (int, error) {
	if len(b.lines) == 0 {
		return 0, io.EOF
	}
	n := copy(to, b.lines[0])
	if b.lines[0] = b.lines[0][n:]; len(b.lines[0]) == 0 {
		b.lines = b.lines[1:]
		*b.given++
	}
	return n, nil
}
