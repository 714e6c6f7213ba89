package vllmsim

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
)

// schema is as much of JSON Schema as sample needs.
type schema struct {
	Type       json.RawMessage   `json:"type"` // a word or a list of words
	Enum       []json.RawMessage `json:"enum"`
	Const      json.RawMessage   `json:"const"`
	Properties properties        `json:"properties"`
	Items      json.RawMessage   `json:"items"`
	AnyOf      []json.RawMessage `json:"anyOf"`
	OneOf      []json.RawMessage `json:"oneOf"`
}

// properties keep the order in which the schema has them.
type properties []property

type property struct {
	name   string
	schema json.RawMessage
}

func (p *properties) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(strings.NewReader(string(data)))
	if _, err := dec.Token(); err != nil {
		return err
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		var s json.RawMessage
		if err := dec.Decode(&s); err != nil {
			return err
		}
		if name, ok := name.(string); ok {
			*p = append(*p, property{name, s})
		}
	}
	return nil
}

// maxDepth keeps schemas that nest without end from doing so.
const maxDepth = 8

// sample makes up JSON that fits a schema, as far as it is understood: types,
// enum, const, properties, items, anyOf, oneOf. No schema gives an object.
func sample(text json.RawMessage, seed uint64) string {
	var b strings.Builder
	sampleInto(&b, dice(seed), text, 0)
	return b.String()
}

func sampleInto(b *strings.Builder, rng *rand.Rand, text json.RawMessage, depth int) {
	var s schema
	if json.Unmarshal(text, &s) != nil || depth > maxDepth {
		b.WriteString("{}")
		return
	}
	switch {
	case len(s.Const) > 0:
		b.Write(s.Const)
	case len(s.Enum) > 0:
		b.Write(s.Enum[rng.IntN(len(s.Enum))])
	case len(s.AnyOf) > 0:
		sampleInto(b, rng, s.AnyOf[0], depth+1)
	case len(s.OneOf) > 0:
		sampleInto(b, rng, s.OneOf[0], depth+1)
	default:
		sampleType(b, rng, s, depth)
	}
}

func sampleType(b *strings.Builder, rng *rand.Rand, s schema, depth int) {
	switch s.kind() {
	case "string":
		b.Write(encodeJSON(words[rng.IntN(len(words))]))
	case "integer":
		b.Write(encodeJSON(rng.IntN(100)))
	case "number":
		b.Write(encodeJSON(float64(rng.IntN(1000)) / 10))
	case "boolean":
		b.Write(encodeJSON(rng.IntN(2) == 0))
	case "null":
		b.WriteString("null")
	case "array":
		b.WriteString("[")
		sampleInto(b, rng, s.Items, depth+1)
		b.WriteString("]")
	default:
		sampleObject(b, rng, s, depth)
	}
}

func sampleObject(b *strings.Builder, rng *rand.Rand, s schema, depth int) {
	b.WriteString("{")
	for i, p := range s.Properties {
		if i > 0 {
			b.WriteString(", ")
		}
		b.Write(encodeJSON(p.name))
		b.WriteString(": ")
		sampleInto(b, rng, p.schema, depth+1)
	}
	b.WriteString("}")
}

// strange is a type in a schema that JSON has not; empty for none.
func strange(text json.RawMessage, depth int) string {
	var s schema
	if json.Unmarshal(text, &s) != nil || depth > maxDepth {
		return ""
	}
	if k := s.kind(); k != "" && !slices.Contains([]string{"string", "integer", "number", "boolean", "null", "array", "object"}, k) {
		return k
	}
	inner := slices.Concat([]json.RawMessage{s.Items}, s.AnyOf, s.OneOf)
	for _, p := range s.Properties {
		inner = append(inner, p.schema)
	}
	for _, t := range inner {
		if k := strange(t, depth+1); k != "" {
			return k
		}
	}
	return ""
}

// kind is the type, or the first of several.
func (s schema) kind() string {
	var one string
	if json.Unmarshal(s.Type, &one) == nil {
		return one
	}
	var many []string
	if json.Unmarshal(s.Type, &many) == nil && len(many) > 0 {
		return many[0]
	}
	return ""
}
