package vllmsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// A shape is what pydantic, which checks vLLM's requests, makes of a type: it
// gives a value as that type holds it (the string "9" is an integer, too), or
// all that is wrong with it. A request's shape lists its fields in vLLM's order,
// which is the order of what is reported.
type shape func(at string, in json.RawMessage) (json.RawMessage, []fault)

// fault is one mistake in a request.
type fault struct {
	kind, at, message string
	input             json.RawMessage
	ctx               string // in Python; empty for none
}

func wrong(kind, at, message string, in json.RawMessage) []fault {
	return []fault{{kind: kind, at: at, message: message, input: in}}
}

func anything(_ string, in json.RawMessage) (json.RawMessage, []fault) { return in, nil }

func text(at string, in json.RawMessage) (json.RawMessage, []fault) {
	if in[0] != '"' {
		return nil, wrong("string_type", at, "Input should be a valid string", in)
	}
	return in, nil
}

func integer(at string, in json.RawMessage) (json.RawMessage, []fault) {
	const want = "Input should be a valid integer"
	switch in[0] {
	case '"':
		s := strings.ReplaceAll(strings.TrimSpace(unquote(in)), "_", "")
		whole, fraction, _ := strings.Cut(s, ".")
		n, err := strconv.ParseInt(whole, 10, 64)
		if err != nil || strings.Trim(fraction, "0") != "" {
			return nil, wrong("int_parsing", at, want+", unable to parse string as an integer", in)
		}
		return encodeJSON(n), nil
	case 't':
		return json.RawMessage("1"), nil
	case 'f':
		return json.RawMessage("0"), nil
	case 'n', '[', '{':
		return nil, wrong("int_type", at, want, in)
	}
	if !bytes.ContainsAny(in, ".eE") {
		n, _ := strconv.ParseInt(string(in), 10, 64) // of more digits the nearest
		return encodeJSON(n), nil
	}
	n, err := strconv.ParseFloat(string(in), 64)
	if err != nil || n != math.Trunc(n) || math.Abs(n) >= 1<<63 {
		return nil, wrong("int_from_float", at, want+", got a number with a fractional part", in)
	}
	return encodeJSON(int64(n)), nil
}

func number(at string, in json.RawMessage) (json.RawMessage, []fault) {
	const want = "Input should be a valid number"
	switch in[0] {
	case '"':
		n, err := strconv.ParseFloat(strings.TrimSpace(unquote(in)), 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return nil, wrong("float_parsing", at, want+", unable to parse string as a number", in)
		}
		return encodeJSON(n), nil
	case 't':
		return json.RawMessage("1"), nil
	case 'f':
		return json.RawMessage("0"), nil
	case 'n', '[', '{':
		return nil, wrong("float_type", at, want, in)
	}
	return in, nil
}

func boolean(at string, in json.RawMessage) (json.RawMessage, []fault) {
	const want = "Input should be a valid boolean"
	switch in[0] {
	case 't', 'f':
		return in, nil
	case 'n', '[', '{':
		return nil, wrong("bool_type", at, want, in)
	}
	if n, err := strconv.ParseFloat(string(in), 64); err == nil && (n == 0 || n == 1) {
		return encodeJSON(n == 1), nil
	}
	switch strings.ToLower(strings.Trim(string(in), `"`)) {
	case "1", "true", "t", "yes", "y", "on":
		return json.RawMessage("true"), nil
	case "0", "false", "f", "no", "n", "off":
		return json.RawMessage("false"), nil
	}
	if _, faults := integer(at, in); faults != nil && in[0] != '"' {
		return nil, wrong("bool_type", at, want, in)
	}
	return nil, wrong("bool_parsing", at, want+", unable to interpret input", in)
}

func dict(at string, in json.RawMessage) (json.RawMessage, []fault) {
	if in[0] != '{' {
		return nil, wrong("dict_type", at, "Input should be a valid dictionary", in)
	}
	return in, nil
}

func optional(s shape) shape {
	return func(at string, in json.RawMessage) (json.RawMessage, []fault) {
		if in[0] == 'n' {
			return in, nil
		}
		return s(at, in)
	}
}

func listOf(s shape) shape {
	return func(at string, in json.RawMessage) (json.RawMessage, []fault) {
		if in[0] != '[' {
			return nil, wrong("list_type", at, "Input should be a valid list", in)
		}
		var list []json.RawMessage
		json.Unmarshal(in, &list) // it was valid as part of the body
		var faults []fault
		same := true
		for i, v := range list {
			out, f := s(at+"."+strconv.Itoa(i), v)
			same = same && bytes.Equal(out, v)
			list[i], faults = out, append(faults, f...)
		}
		switch {
		case faults != nil:
			return nil, faults
		case same:
			return in, nil
		}
		return encodeJSON(list), nil
	}
}

// atMost is a list of n or less.
func atMost(n int, s shape) shape {
	return func(at string, in json.RawMessage) (json.RawMessage, []fault) {
		out, faults := listOf(s)(at, in)
		if has := size(out); faults == nil && has > n {
			f := wrong("too_long", at, fmt.Sprintf("List should have at most %d items after validation, not %d", n, has), in)
			f[0].ctx = fmt.Sprintf("'field_type': 'List', 'max_length': %d, 'actual_length': %d", n, has)
			return nil, f
		}
		return out, faults
	}
}

// long is an integer of 64 bits; others have no bounds.
func long(at string, in json.RawMessage) (json.RawMessage, []fault) {
	n, err := strconv.ParseInt(string(in), 10, 64)
	if !errors.Is(err, strconv.ErrRange) {
		return integer(at, in)
	}
	kind, sign := "less", "le"
	if n < 0 {
		kind, sign = "greater", "ge"
	}
	f := wrong(kind+"_than_equal", at, fmt.Sprintf("Input should be %s than or equal to %d", kind, n), in)
	f[0].ctx = fmt.Sprintf("'%s': %d", sign, n)
	return nil, f
}

// least is a number of n or more.
func least(n int, s shape) shape {
	return func(at string, in json.RawMessage) (json.RawMessage, []fault) {
		out, faults := s(at, in)
		if v, err := strconv.ParseFloat(string(out), 64); faults == nil && err == nil && v < float64(n) {
			f := wrong("greater_than_equal", at, fmt.Sprintf("Input should be greater than or equal to %d", n), in)
			f[0].ctx = fmt.Sprintf("'ge': %d", n)
			return nil, f
		}
		return out, faults
	}
}

func oneOf(words ...string) shape {
	var quoted []string
	for _, w := range words {
		quoted = append(quoted, quotePython(w))
	}
	last := len(quoted) - 1
	want := quoted[last]
	if last > 0 {
		want = strings.Join(quoted[:last], ", ") + " or " + want
	}
	ctx := "'expected': " + quotePython(want)
	return func(at string, in json.RawMessage) (json.RawMessage, []fault) {
		if in[0] == '"' && slices.Contains(words, unquote(in)) {
			return in, nil
		}
		f := wrong("literal_error", at, "Input should be "+want, in)
		f[0].ctx = ctx
		return nil, f
	}
}

// either is a union: the first shape that takes the value as it is, else the
// first that takes it at all, else what all of them say is wrong.
func either(shapes ...shape) shape {
	return func(at string, in json.RawMessage) (json.RawMessage, []fault) {
		var faults []fault
		var taken json.RawMessage
		for _, s := range shapes {
			out, f := s(at, in)
			switch {
			case f != nil:
				faults = append(faults, f...)
			case bytes.Equal(out, in):
				return in, nil
			case taken == nil:
				taken = out
			}
		}
		if taken != nil {
			return taken, nil
		}
		return nil, faults
	}
}

// obeys is a rule of vLLM's own for a value of the right shape; it gives what is
// wrong, or nothing.
func obeys(s shape, rule func(json.RawMessage) string) shape {
	return func(at string, in json.RawMessage) (json.RawMessage, []fault) {
		out, faults := s(at, in)
		if faults != nil {
			return nil, faults
		}
		if says := rule(out); says != "" {
			f := wrong("value_error", at, "Value error, "+says, in)
			f[0].ctx = "'error': ValueError(" + quotePython(says) + ")"
			return nil, f
		}
		return out, nil
	}
}

// field is one of a model's.
type field struct {
	name     string
	shape    shape
	required bool
}

func need(name string, s shape) field { return field{name, s, true} }

func may(name string, s shape) field { return field{name, s, false} }

// model is an object with these fields. Others do no harm, and are dropped.
func model(all ...field) shape {
	return func(at string, in json.RawMessage) (json.RawMessage, []fault) {
		if in[0] != '{' {
			return nil, wrong("model_attributes_type", at, "Input should be a valid dictionary or object to extract fields from", in)
		}
		taken, faults := take(all, at, in, fieldsOf(in))
		if faults != nil {
			return nil, faults
		}
		return encodeJSON(taken), nil
	}
}

// take is what of an object's given fields a model has.
func take(all []field, at string, in json.RawMessage, given fields) (fields, []fault) {
	taken, faults := fields{}, []fault(nil)
	for _, f := range all {
		v, ok := given[f.name]
		switch {
		case ok:
			out, wrongs := f.shape(at+"."+f.name, v)
			taken[f.name], faults = out, append(faults, wrongs...)
		case f.required:
			faults = append(faults, wrong("missing", at+"."+f.name, "Field required", in)...)
		}
	}
	return taken, faults
}

// asIs checks a value, and keeps it as it came: with fields that the shape does
// not know, and in the order in which they were.
func asIs(s shape) shape {
	return func(at string, in json.RawMessage) (json.RawMessage, []fault) {
		_, faults := s(at, in)
		return in, faults
	}
}

// fields are an object's.
type fields map[string]json.RawMessage

func fieldsOf(in json.RawMessage) (f fields) {
	if json.Unmarshal(in, &f) != nil {
		return nil
	}
	return f
}

// has is whether a field is there, and not null.
func (f fields) has(name string) bool { return len(f[name]) > 0 && f[name][0] != 'n' }

// truthy is Python's idea of it.
func (f fields) truthy(name string) bool {
	switch v := string(f[name]); v {
	case "", "null", "false", `""`, "0", "0.0":
		return false
	default:
		return v[0] != '[' && v[0] != '{' || size(f[name]) > 0
	}
}

// early is a check of vLLM's that runs before fields are looked at.
type early func(fields) *openai.Error

// decodeBody reads a body into a struct. Its errors are those of FastAPI's
// validation, which vLLM answers with 400.
func decodeBody(body []byte, s shape, into any, checks ...early) *openai.Error {
	body = bytes.TrimSpace(body)
	if len(body) == 0 || string(body) == "null" {
		return reported(wrong("missing", "body", "Field required", null))
	}
	if f := misspelt(body); f != nil {
		return reported(f)
	}
	if given := fieldsOf(body); given != nil {
		for _, check := range checks {
			if e := check(given); e != nil {
				return e
			}
		}
	}
	taken, faults := s("body", body)
	if faults != nil {
		return reported(faults)
	}
	if json.Unmarshal(taken, into) != nil { // parts of a message that its shape lets pass
		return bad("", nil, "There was an error parsing the body")
	}
	return nil
}

// misspelt says where a body stops being JSON, in the words of Python's parser.
func misspelt(body []byte) []fault {
	var whole json.RawMessage
	err := json.Unmarshal(body, &whole)
	if err == nil {
		return nil
	}
	at, ended := len(body), err.Error() == "unexpected end of JSON input"
	if ended {
		// What is missing at the end is what a wrong character there hides.
		err = json.Unmarshal(append(slices.Clip(body), 1), &whole)
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && !ended {
		at = int(syntax.Offset) - 1
	}
	problem := fmt.Sprint(err)
	says := "Expecting value"
	for _, words := range [][2]string{
		{"object key string", "Expecting property name enclosed in double quotes"},
		{"after object key:value", "Expecting ',' delimiter"},
		{"after array element", "Expecting ',' delimiter"},
		{"after object key", "Expecting ':' delimiter"},
		{"after top-level", "Extra data"},
		{"in string literal", "Invalid control character at"},
		{"in string escape", `Invalid \escape`},
		{`in \u hexadecimal`, `Invalid \uXXXX escape`},
	} {
		if strings.Contains(problem, words[0]) {
			says = words[1]
			break
		}
	}
	switch {
	case ended && strings.Contains(problem, " in string"):
		at, says = lastString(body), "Unterminated string starting at"
	case strings.Contains(problem, "in string escape"):
		at-- // to the backslash
	case strings.Contains(problem, "in literal"):
		at = len(bytes.TrimRight(body[:at], "truefalsn"))
	}
	f := wrong("json_invalid", "body."+strconv.Itoa(utf8.RuneCount(body[:at])), "JSON decode error", json.RawMessage("{}"))
	f[0].ctx = "'error': " + quotePython(says)
	return f
}

// lastString is where the last string of a body starts.
func lastString(body []byte) int {
	start, open := 0, false
	for i, c := range body {
		if c == '"' && !(open && escaped(body[:i])) {
			if open = !open; open {
				start = i
			}
		}
	}
	return start
}

// vLLM's bounds on what it reports
// (vllm/entrypoints/serve/exception_handling/handlers/validation.py).
const (
	maxFaults     = 10
	maxFaultInput = 200
	maxFault      = 1000
)

// reported is the error that vLLM makes of faults. It comes before vLLM's own
// code runs: its type is the phrase of the status.
func reported(faults []fault) *openai.Error {
	label := "error"
	if len(faults) > 1 {
		label = "errors"
	}
	message := fmt.Sprintf("%d validation %s:", len(faults), label)
	for _, f := range faults[:min(len(faults), maxFaults)] {
		message += "\n  " + shorten(f.String(), maxFault)
	}
	if more := len(faults) - maxFaults; more > 0 {
		message += fmt.Sprintf("\n  ...and %d more %s", more, label)
	}
	return invalid(faults[0].at, message)
}

// String is as Python prints the dictionary.
func (f fault) String() string {
	s := fmt.Sprintf("{'type': '%s', 'loc': %s, 'msg': %s, 'input': %s", f.kind, quotePython(f.at), quotePython(f.message), quotePython(summary(f.input)))
	if f.ctx != "" {
		s += ", 'ctx': {" + f.ctx + "}"
	}
	return s + "}"
}

// summary is how vLLM shows a value of which it does not know the size.
func summary(in json.RawMessage) string {
	if len(in) == 0 {
		return "None"
	}
	switch in[0] {
	case '"':
		return shorten(unquote(in), maxFaultInput)
	case '[':
		return fmt.Sprintf("<list of %d items>", size(in))
	case '{':
		return fmt.Sprintf("<dict of %d items>", size(in))
	}
	return shorten(inPython(in), maxFaultInput)
}

// inPython is a number, boolean or null as Python prints it.
func inPython(in json.RawMessage) string {
	if word, ok := map[byte]string{'n': "None", 't': "True", 'f': "False"}[in[0]]; ok {
		return word
	}
	return string(in)
}

func shorten(s string, limit int) string {
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit]) + "...[truncated]"
	}
	return s
}

// size is how many elements a list or an object has.
func size(in json.RawMessage) int {
	var list []json.RawMessage
	if json.Unmarshal(in, &list) == nil {
		return len(list)
	}
	return len(fieldsOf(in))
}

func unquote(in json.RawMessage) (s string) {
	json.Unmarshal(in, &s) // it was valid as part of the body
	return s
}

// quotePython quotes as Python's repr does.
func quotePython(s string) string {
	quote := "'"
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = `"`
	}
	return quote + strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`, quote, `\`+quote).Replace(s) + quote
}
