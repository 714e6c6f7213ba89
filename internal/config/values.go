package config

import (
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// Values are read as they are written: what YAML takes for numbers, booleans or
// dates plays no part. So no is a text, 010 no number, and 1:30 no ninety seconds.

func must[T any](cure string, k key[T]) key[T] {
	k.must = cure
	return k
}

func hidden[T any](k key[T]) key[T] {
	k.hidden = true
	return k
}

// section is a mapping of its own.
func section[T, S any](name string, keys object[S], to func(*T) *At[S]) key[T] {
	return key[T]{name: name, below: keys.paths(name + "."), read: func(r *reader, t *T, v value) {
		s := to(t)
		s.Line = v.node.Line
		keys.read(r, &s.Value, v, "")
	}}
}

// items is a list of mappings.
func items[T, S any](name, example string, keys object[S], to func(*T) *At[[]S], line func(*S, int)) key[T] {
	return key[T]{name: name, below: keys.paths(name + "[]."), read: func(r *reader, t *T, v value) {
		if v.node.Kind != yaml.SequenceNode {
			r.wrong(v, "must be a list; begin each item with a hyphen: %s", example)
			return
		}
		list := to(t)
		list.Line = v.node.Line
		for nodes := range r.pieces(v.node) {
			for _, n := range nodes {
				item := value{n, &place{above: v.at, index: len(list.Value)}}
				var s S
				line(&s, n.Line)
				if r.sound(item) {
					keys.read(r, &s, item, strings.TrimPrefix(example, "- "))
				}
				list.Value = append(list.Value, s)
			}
		}
	}}
}

// named is a mapping whose keys are free names.
func named[T, S any](name, example string, keys object[S], to func(*T) *At[[]S], called func(*S) *At[string]) key[T] {
	return key[T]{name: name, below: keys.paths(name + ".*."), read: func(r *reader, t *T, v value) {
		if !r.isMapping(v, nil, example+": {"+keys[0].name+": …}") {
			return
		}
		list := to(t)
		list.Line = v.node.Line
		lines := map[string]int{}
		for i := 0; i+1 < len(v.node.Content); i += 2 {
			name, node := v.node.Content[i], v.node.Content[i+1]
			if !r.plainKey(v, name) {
				continue
			}
			item := value{node, &place{above: v.at, name: name.Value}}
			switch first := lines[name.Value]; {
			case name.Value == "":
				r.wrong(value{name, v.at}, "a name is empty; write one, such as %s", example)
			case first > 0:
				r.wrong(value{name, item.at}, "stands here for the second time, the first is on line %d; put both together", first)
			case r.sound(item):
				var s S
				*called(&s) = At[string]{name.Value, name.Line}
				keys.read(r, &s, item, "")
				list.Value = append(list.Value, s)
			}
			lines[name.Value] = name.Line
		}
	}}
}

// scalar is one value; parse says what is wrong with it.
func scalar[T, V any](name string, to func(*T) *At[V], parse func(r *reader, v value) (V, bool)) key[T] {
	return key[T]{name: name, read: func(r *reader, t *T, v value) {
		if v.node.Kind != yaml.ScalarNode {
			r.wrong(v, "must be a single value, not a list and not a mapping")
			return
		}
		if parsed, ok := parse(r, v); ok {
			*to(t) = At[V]{parsed, v.node.Line}
		}
	}}
}

func text[T any](name string, to func(*T) *At[string]) key[T] {
	return scalar(name, to, (*reader).text)
}

func (r *reader) text(v value) (string, bool) {
	if strings.ContainsFunc(v.node.Value, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		r.wrong(v, "has a line break or a control character in it; write it on one line")
		return "", false
	}
	if strings.TrimSpace(v.node.Value) != v.node.Value {
		r.wrong(v, "%s begins or ends with a space; leave it out", v.shown())
		return "", false
	}
	return v.node.Value, true
}

// choice is one of some words.
func choice[T any](name string, to func(*T) *At[string], words ...string) key[T] {
	return scalar(name, to, func(r *reader, v value) (string, bool) {
		for _, w := range words {
			if v.node.Value == w {
				return w, true
			}
		}
		r.wrong(v, "%s is none of %s", v.shown(), strings.Join(words, ", "))
		return "", false
	})
}

// texts is a list of texts, each once.
func texts[T any](name string, to func(*T) *At[[]At[string]]) key[T] {
	return key[T]{name: name, read: func(r *reader, t *T, v value) {
		if v.node.Kind != yaml.SequenceNode {
			r.wrong(v, "must be a list, even of one: [name]")
			return
		}
		list := to(t)
		list.Line = v.node.Line
		var seen map[string]bool
		if len(v.node.Content) > 1 { // of 100,000 keys most have one model
			seen = map[string]bool{}
		}
		for _, item := range r.list(v) {
			s, ok := r.text(item)
			if !ok {
				continue
			}
			if seen[s] {
				r.wrong(item, "is in this list already; leave one out")
			}
			if seen != nil {
				seen[s] = true
			}
			list.Value = append(list.Value, At[string]{s, item.node.Line})
		}
	}}
}

// list gives the sound scalars of a list.
func (r *reader) list(v value) (found []value) {
	for i, n := range v.node.Content {
		item := value{n, &place{above: v.at, index: i}}
		switch {
		case !r.sound(item):
		case n.Kind != yaml.ScalarNode:
			r.wrong(item, "must be a single value, not a list and not a mapping")
		default:
			found = append(found, item)
		}
	}
	return found
}

// hashes is a hash, or a list of hashes. What is none is never repeated: it may be a
// key.
func hashes[T any](name string, to func(*T) *At[[]At[secret.Hash]]) key[T] {
	return key[T]{name: name, read: func(r *reader, t *T, v value) {
		found := []value{v}
		switch v.node.Kind {
		case yaml.SequenceNode:
			found = r.list(v)
		case yaml.MappingNode:
			r.wrong(v, "must be a hash, or a list of hashes")
			return
		}
		list := to(t)
		list.Line = v.node.Line
		for _, item := range found {
			h, err := secret.ParseHash(item.node.Value)
			if err != nil {
				r.wrong(item, "this is no hash (sha256: and 64 hexadecimal digits); keys do not stand in the file, only their hashes: vllm-gateway hash-key makes one of a key that it reads")
				continue
			}
			list.Value = append(list.Value, At[secret.Hash]{h, item.node.Line})
		}
	}}
}

// whole is a number without sign, point, exponent, quotes, or digits of other bases.
func whole[T any](name, example string, most int64, to func(*T) *At[int64]) key[T] {
	return scalar(name, to, func(r *reader, v value) (int64, bool) {
		s := v.node.Value
		digits := s != "" && strings.Trim(s, "0123456789") == ""
		n, err := strconv.ParseInt(s, 10, 64)
		switch {
		case digits && v.node.Style != 0:
			r.wrong(v, "%s is in quotes, which makes a text of it; write %s", v.shown(), clipped(s))
		case digits && len(s) > 1 && s[0] == '0':
			r.wrong(v, "%s begins with 0, which some readers of YAML take for octal; write %s", v.shown(), clipped(strings.TrimLeft(s[:len(s)-1], "0")+s[len(s)-1:]))
		case digits && (err != nil || n > most):
			r.wrong(v, "%s is too large; at most %d", v.shown(), most)
		case !digits && err == nil && n < 0:
			r.wrong(v, "%s is negative; write a whole number from 0 on, such as %s", v.shown(), example)
		case !digits && strings.Trim(s, "0123456789_, '") == "" && strings.ContainsAny(s, "0123456789"):
			r.wrong(v, "%s is not a whole number; leave out what parts the digits, such as in %s", v.shown(), example)
		case !digits:
			r.wrong(v, "%s is not a whole number; write one such as %s", v.shown(), example)
		default:
			return n, true
		}
		return 0, false
	})
}

func clipped(s string) string {
	if len(s) > 20 {
		return s[:20] + "…"
	}
	return s
}

func duration[T any](name, example string, to func(*T) *At[time.Duration]) key[T] {
	return scalar(name, to, func(r *reader, v value) (time.Duration, bool) {
		s := v.node.Value
		d, err := time.ParseDuration(s)
		days, isDays := strings.CutSuffix(s, "d")
		n, notWhole := strconv.Atoi(days)
		switch {
		case err == nil && d < 0:
			r.wrong(v, "%s is negative; write a time such as %s", v.shown(), example)
		case err == nil:
			return d, true
		case isDays && notWhole == nil && 0 < n && n < 1e5:
			r.wrong(v, "%s is not a time: there are no days; write %dh", v.shown(), n*24)
		case strings.Trim(s, "0123456789.") == "":
			r.wrong(v, "%s has no unit; write a time such as %s", v.shown(), example)
		default:
			r.wrong(v, "%s is not a time; write one such as %s or 1h30m", v.shown(), example)
		}
		return 0, false
	})
}

func size[T any](name string, to func(*T) *At[daemon.Bytes]) key[T] {
	return scalar(name, to, func(r *reader, v value) (b daemon.Bytes, ok bool) {
		if b.UnmarshalText([]byte(v.node.Value)) != nil {
			r.wrong(v, "%s is not a size; write a whole number of bytes, or one with KiB, MiB or GiB, such as 32MiB", v.shown())
			return 0, false
		}
		return b, true
	})
}
