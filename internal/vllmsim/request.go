package vllmsim

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// read decodes a request's body.
func read(r *http.Request, s shape, into any, checks ...early) *openai.Error {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if !jsonMedia.MatchString(media) {
		return invalid("", "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return bad("", nil, "There was an error parsing the body") // and nobody is left to read it
	}
	return decodeBody(body, s, into, checks...)
}

var jsonMedia = regexp.MustCompile(`^application/(\w+\+)?json$`)

// invalid is an error of the validation, before vLLM's own code runs: its type
// is the phrase of the status.
func invalid(param, message string) *openai.Error {
	e := openai.NewError(http.StatusBadRequest, message)
	e.Type = http.StatusText(http.StatusBadRequest)
	return about(param, e)
}

// bad is an error of vLLM's own code. The field and its value, where given, are
// put in the message as vLLM does; "" and nil are none.
func bad(param string, value any, format string, args ...any) *openai.Error {
	message := fmt.Sprintf(format, args...)
	switch {
	case param != "" && value != nil:
		message += fmt.Sprintf(" (parameter=%s, value=%v)", param, value)
	case param != "":
		message += fmt.Sprintf(" (parameter=%s)", param)
	}
	return about(param, openai.NewError(http.StatusBadRequest, message))
}

// about names the field that an error is about; "" is none.
func about(param string, e openai.Error) *openai.Error {
	if param != "" {
		e.Param = &param
	}
	return &e
}

// float prints as Python prints it: with a fraction.
type float float64

func (f float) String() string {
	s := strconv.FormatFloat(float64(f), 'g', -1, 64)
	if !strings.ContainsAny(s, ".eNI") {
		s += ".0"
	}
	return s
}

// known checks the model's name; none is the base model.
func (s *Server) known(name *string) (string, *openai.Error) {
	if name == nil || *name == "" {
		return s.cfg.Models[0], nil
	}
	if slices.Contains(s.cfg.Models, *name) {
		return *name, nil
	}
	return "", about("model", openai.NewError(http.StatusNotFound, fmt.Sprintf("The model `%s` does not exist. Valid aliases: %s.",
		*name, strings.Join(s.cfg.Models, ", "))))
}

// oneOrMany is a string, a list of strings, or null.
type oneOrMany []string

func (v *oneOrMany) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		*v = oneOrMany{unquote(data)}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(v))
}
