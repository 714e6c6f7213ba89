package vllmsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// read decodes a request's body. Its errors are those of FastAPI's validation,
// which vLLM answers with 400.
func read(r *http.Request, into any) *openai.Error {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if !jsonMedia.MatchString(media) {
		return invalid("", "Unsupported Media Type: Only 'application/json' is allowed")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return invalid("body", "{'type': 'json_invalid', 'loc': ('body',), 'msg': 'JSON decode error'}")
	}
	return decodeBody(body, into)
}

var jsonMedia = regexp.MustCompile(`^application/(\w+\+)?json$`)

func decodeBody(body []byte, into any) *openai.Error {
	err := json.Unmarshal(body, into)
	var syntax *json.SyntaxError
	var form *json.UnmarshalTypeError
	var own *openai.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own
	case errors.As(err, &syntax):
		return invalid(fmt.Sprintf("body.%d", syntax.Offset), fmt.Sprintf(
			"{'type': 'json_invalid', 'loc': ('body', %d), 'msg': 'JSON decode error', 'input': {}, 'ctx': {'error': '%s'}}",
			syntax.Offset, syntax.Error()))
	case errors.As(err, &form):
		field := strings.TrimPrefix(form.Field, "sampling.") // the struct shared by the endpoints
		return mistyped(field, pydanticType(form.Type.Kind().String()))
	}
	return invalid("body", "{'type': 'json_invalid', 'loc': ('body',), 'msg': 'JSON decode error'}")
}

// pydanticType is what pydantic calls a Go kind.
func pydanticType(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "integer"
	case strings.HasPrefix(kind, "float"):
		return "number"
	case kind == "bool":
		return "boolean"
	case kind == "slice":
		return "list"
	case kind == "struct", kind == "map":
		return "dictionary"
	}
	return kind
}

func mistyped(field, want string) *openai.Error {
	short := map[string]string{"integer": "int", "boolean": "bool", "number": "float", "dictionary": "dict"}[want]
	if short == "" {
		short = want
	}
	param := strings.TrimSuffix("body."+field, ".") // the body itself has no field
	return invalid(param, fmt.Sprintf("{'type': '%s_type', 'loc': %s, 'msg': 'Input should be a valid %s'}",
		short, loc(field), want))
}

func missing(field string) *openai.Error {
	return invalid("body."+field, fmt.Sprintf("{'type': 'missing', 'loc': %s, 'msg': 'Field required'}", loc(field)))
}

// refused is a rule of vLLM's own among the validations.
func refused(param, message string) *openai.Error {
	return invalid(param, fmt.Sprintf("{'type': 'value_error', 'loc': ('body',), 'msg': 'Value error, %s (parameter=%s)'}", message, param))
}

func loc(field string) string {
	if field == "" {
		return "('body',)"
	}
	return "('body', '" + strings.Join(strings.Split(field, "."), "', '") + "')"
}

// invalid is an error of the validation, before vLLM's own code runs: its type
// is the phrase of the status.
func invalid(param, what string) *openai.Error {
	e := openai.NewError(http.StatusBadRequest, "1 validation error:\n  "+what)
	e.Type = http.StatusText(http.StatusBadRequest)
	if param != "" {
		e.Param = &param
	}
	return &e
}

// bad is an error of vLLM's own code. A value is put in the message as vLLM
// does; nil is none.
func bad(param string, value any, format string, args ...any) *openai.Error {
	message := fmt.Sprintf(format, args...)
	if value != nil {
		message += fmt.Sprintf(" (parameter=%s, value=%v)", param, value)
	}
	e := openai.NewError(http.StatusBadRequest, message)
	if param != "" {
		e.Param = &param
	}
	return &e
}

// known checks the model's name; none is the base model.
func (s *Server) known(name *string) (string, *openai.Error) {
	if name == nil {
		return s.cfg.Models[0], nil
	}
	if slices.Contains(s.cfg.Models, *name) {
		return *name, nil
	}
	e := openai.NewError(http.StatusNotFound, fmt.Sprintf("The model `%s` does not exist.", *name))
	param := "model"
	e.Param = &param
	return "", &e
}

// oneOrMany is a string, a list of strings, or null.
type oneOrMany []string

func (v *oneOrMany) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		if string(data) != "null" {
			*v = oneOrMany{one}
		}
		return nil
	}
	var many []string
	if err := json.Unmarshal(data, &many); err != nil {
		return mistyped("stop", "string")
	}
	*v = many
	return nil
}
