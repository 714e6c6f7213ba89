package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// object is what may stand in a mapping that is read into a T.
type object[T any] []key[T]

// key is one key of a mapping.
type key[T any] struct {
	name string
	// must, where the key must be there, is what is said if it is not.
	must string
	// hidden: nothing that stands below is repeated in errors.
	hidden bool
	read   func(r *reader, to *T, v value)
	// below are the paths of the keys in it, with the name: "tls.cert".
	below []string
}

// value is a node, and where it stands.
type value struct {
	node *yaml.Node
	at   *place
}

// place is the path of a value. It is written out only for an error: there may be
// a million values.
type place struct {
	above  *place
	name   string // or, of an item of a list, "" and its index
	index  int
	hidden bool
}

func (p *place) String() string {
	switch {
	case p == nil:
		return ""
	case p.name == "":
		return p.above.String() + "[" + strconv.Itoa(p.index) + "]"
	case p.above == nil:
		return p.name
	}
	return p.above.String() + "." + p.name
}

func (p *place) isHidden() bool { return p != nil && (p.hidden || p.above.isHidden()) }

// reader gathers what is wrong.
type reader struct {
	problems []Problem
	cut      *cut // the list that is read piece by piece; mostly nil
}

func (r *reader) wrong(v value, format string, args ...any) {
	if len(r.problems) >= maxKept {
		return
	}
	r.problems = append(r.problems, Problem{max(v.node.Line, 1), v.at.String(), fmt.Sprintf(format, args...)})
}

// shown gives a value for an error.
func (v value) shown() string {
	if v.at.isHidden() {
		return "what stands here"
	}
	return quote(v.node.Value)
}

func (o object[T]) names() (names []string) {
	for _, k := range o {
		names = append(names, k.name)
	}
	return names
}

func (o object[T]) paths(above string) (paths []string) {
	for _, k := range o {
		if len(k.below) == 0 {
			paths = append(paths, above+k.name)
		}
		for _, b := range k.below {
			paths = append(paths, above+b)
		}
	}
	return paths
}

// read takes a mapping. It goes on behind what is wrong, so that all is found.
func (o object[T]) read(r *reader, to *T, v value, example string) {
	if !r.isMapping(v, o.names(), example) {
		return
	}
	seen := make([]int, len(o)) // lines
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		name, node := v.node.Content[i], v.node.Content[i+1]
		if !r.plainKey(v, name) {
			continue
		}
		at := slices.IndexFunc(o, func(k key[T]) bool { return k.name == name.Value })
		if at < 0 {
			r.unknown(value{name, v.at}, o.names())
			continue
		}
		below := value{node, &place{above: v.at, name: name.Value, hidden: o[at].hidden}}
		if seen[at] > 0 {
			r.wrong(value{name, below.at}, "stands here for the second time, the first is on line %d; leave one out", seen[at])
			continue
		}
		seen[at] = max(name.Line, 1)
		if r.sound(below) {
			o[at].read(r, to, below)
		}
	}
	for i, k := range o {
		if k.must != "" && seen[i] == 0 {
			r.wrong(v, "there is no %s; %s", k.name, k.must)
		}
	}
}

// plainKey reports whether the name of a key is one.
func (r *reader) plainKey(in value, name *yaml.Node) bool {
	switch {
	case name.Kind == yaml.AliasNode || name.Anchor != "":
		r.wrong(value{name, in.at}, noAnchors)
	case name.Kind != yaml.ScalarNode || name.Style&yaml.TaggedStyle != 0:
		r.wrong(value{name, in.at}, "the name of a key must be plain text")
	default:
		return true
	}
	return false
}

const (
	noAnchors = "anchors and aliases (& and *) are not taken; write the value out, or put it in quotes if it is meant to begin so"
	noTags    = "tags (!) are not taken; leave it out, or put the value in quotes if it is meant to begin so"
)

// sound reports whether a value is there, and nothing of YAML that is not taken.
func (r *reader) sound(v value) bool {
	switch n := v.node; {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.wrong(v, noAnchors)
	case n.Style&yaml.TaggedStyle != 0:
		r.wrong(v, noTags)
	case n.Kind == yaml.ScalarNode && n.Style == 0 && n.Value == "":
		r.wrong(v, "has no value; give it one, or leave the key out")
	case n.Kind == yaml.ScalarNode && n.Style == 0 && slices.Contains([]string{"~", "null", "Null", "NULL"}, n.Value):
		r.wrong(v, "%s is no value; leave the key out", n.Value)
	case n.Kind == yaml.ScalarNode && n.Value == "":
		r.wrong(v, "is empty; give it a value, or leave the key out")
	case n.Kind != yaml.ScalarNode && len(n.Content) == 0 && v.at.name != "" && (r.cut == nil || r.cut.node != n):
		r.wrong(v, "is empty; put something in it, or leave the key out")
	default:
		return true
	}
	return false
}

func (r *reader) isMapping(v value, names []string, example string) bool {
	if v.node.Kind == yaml.MappingNode {
		return true
	}
	if example != "" {
		r.wrong(v, "must have keys of its own, such as %s", example)
	} else {
		r.wrong(v, "must have keys of its own, of %s", strings.Join(names, ", "))
	}
	return false
}

// harmless reports whether a name can be no secret.
func harmless(name string) bool {
	other := func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '_' && r != '-' }
	return name != "" && len(name) <= 24 && !strings.ContainsFunc(name, other)
}

// unknown says of a key that it is none, and what may have been meant.
func (r *reader) unknown(name value, names []string) {
	if len(r.problems) >= maxKept {
		return
	}
	n := name.node.Value
	shown := quote(n)
	if name.at.isHidden() && !harmless(n) {
		shown = "what stands here"
	}
	says := func(format string, args ...any) {
		r.wrong(name, "there is no key %s%s", shown, fmt.Sprintf(format, args...))
	}
	switch near := nearest(n, names); {
	case n == "<<":
		r.wrong(name, noAnchors)
	case slices.Contains(names, "hash") && slices.Contains([]string{"key", "api_key", "apikey", "token", "secret", "password", "value"}, strings.ToLower(n)):
		says("; keys do not stand in the file, only their hashes: give hash, which vllm-gateway hash-key makes of a key that it reads")
	case near != "":
		says("; did you mean %s?", near)
	default:
		for _, path := range allKeys() {
			if at := strings.LastIndexByte(path, '.'); at > 0 && path[at+1:] == n {
				says(" here; it belongs in %s", path[:at])
				return
			}
		}
		for _, path := range allKeys() {
			if first, _, _ := strings.Cut(path, "."); strings.TrimSuffix(first, "[]") == n {
				says(" here; it belongs at the top, without indentation")
				return
			}
		}
		says("; there are %s", strings.Join(names, ", "))
	}
}
