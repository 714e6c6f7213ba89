package vllmsim

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// events are server-sent events on their way into one write.
type events struct{ list [][]byte }

func (e *events) data(v any) { e.list = append(e.list, frame("", encodeJSON(v))) }

func (e *events) named(name string, v any) { e.list = append(e.list, frame(name, encodeJSON(v))) }

func (e *events) raw(text string) { e.list = append(e.list, frame("", []byte(text))) }

// failed is an error in the middle of a stream of chat or completions: Python's
// spacing, and [DONE] after it as after success.
func (e *events) failed(err openai.Error) {
	e.raw(pythonic(err.Body()))
	e.raw("[DONE]")
}

func frame(name string, data []byte) []byte {
	var b bytes.Buffer
	if name != "" {
		b.WriteString("event: " + name + "\n")
	}
	b.WriteString("data: ")
	b.Write(data)
	b.WriteString("\n\n")
	return b.Bytes()
}

// encodeJSON leaves <, > and & alone, as pydantic does.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // our own structs: cannot fail
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// pythonic spaces JSON as Python's json.dumps does.
func pythonic(compact []byte) string {
	var b []byte
	quoted := false
	for i, c := range compact {
		b = append(b, c)
		switch {
		case c == '"' && !escaped(compact[:i]):
			quoted = !quoted
		case !quoted && (c == ':' || c == ','):
			b = append(b, ' ')
		}
	}
	return string(b)
}

// escaped says whether what follows has an odd number of backslashes before it.
func escaped(before []byte) bool {
	return (len(before)-len(bytes.TrimRight(before, `\`)))%2 == 1
}

func writeJSON(w http.ResponseWriter, v any) { writeStatus(w, http.StatusOK, v) }

func writeStatus(w http.ResponseWriter, status int, v any) {
	body := encodeJSON(v)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body) // the client may be gone: nobody is left to tell
}
