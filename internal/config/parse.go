package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
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
	doc, problem := document(data)
	if problem != nil {
		return nil, NewErrors(name, []Problem{*problem})
	}
	var f File
	r := &reader{}
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
	return &f, NewErrors(name, r.problems)
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
	if at := invalid(data); at >= 0 {
		return nil, &Problem{lineOf(data, at), "", "the text is not UTF-8; save it so"}
	}
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

func invalid(data []byte) int {
	for i := 0; i < len(data); {
		if data[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

func lineOf(data []byte, at int) int { return 1 + bytes.Count(data[:at], []byte("\n")) }

var yamlError = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

// cures are what to do about some of the YAML library's errors.
var cures = []struct{ says, cure string }{
	{"mapping values are not allowed", `is there a ": " too many, or is the line indented too far? Put a value with ": " in it in quotes`},
	{"could not find expected ':'", "is a colon missing, or the space behind it?"},
	{"did not find expected key", "is the line indented like its neighbours?"},
	{"did not find expected '-' indicator", "is the line indented like its neighbours?"},
	{"did not find expected ',' or", "is a bracket not closed, or a comma missing?"},
	{"did not find expected node content", "is a value missing?"},
	{"found character that cannot start any token", "put a value that begins with @, ` or % in quotes"},
	{"found unexpected end of stream", "is a quote not closed?"},
	{"unknown anchor", noAnchors},
	{"block sequence entries are not allowed", "begin the list on a line of its own"},
}

// syntax says of a text that is not YAML where it ceases to be.
func syntax(err error, data []byte) *Problem {
	// The library counts from 0 or from 1, as it comes; and a tab it does not name.
	for i, line := range bytes.Split(data, []byte("\n")) {
		indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
		if rest := line[len(indent):]; bytes.ContainsRune(indent, '\t') && len(bytes.TrimSpace(rest)) > 0 && rest[0] != '#' {
			return &Problem{i + 1, "", "the line is indented by a tab; YAML takes spaces only"}
		}
	}
	p := &Problem{Line: 1, Text: "this is not YAML"}
	m := yamlError.FindStringSubmatch(err.Error())
	if m == nil {
		return p
	}
	if n, err := strconv.Atoi(m[1]); err == nil {
		p.Line = min(max(n, 1), lineOf(data, len(data)))
	}
	for _, c := range cures {
		if strings.Contains(m[2], c.says) {
			if c.cure == noAnchors {
				return &Problem{p.Line, "", noAnchors}
			}
			p.Text += ": " + m[2] + "; " + c.cure
			return p
		}
	}
	p.Text += ": " + m[2]
	return p
}
