package openai

import (
	"encoding/json"
	"net/http"
)

// Error is an error in the shape that OpenAI's clients, and vLLM, agree on.
// On the wire it is wrapped: {"error":{…}}.
type Error struct {
	Message string `json:"message"`
	Type    string `json:"type"`
	// Param names the faulty field of the request; nil prints as null.
	Param *string `json:"param"`
	// Code is the HTTP status, as vLLM sends it (OpenAI itself sends a word or
	// null here).
	Code int `json:"code"`
}

// NewError gives the error for an HTTP status, with the type name that vLLM
// uses for that status (vllm/entrypoints/openai: BadRequestError,
// NotFoundError, …).
func NewError(status int, message string) Error {
	return Error{Message: message, Type: typeOf(status), Code: status}
}

func (e Error) Error() string { return e.Message }

// Body is the error as a whole HTTP response body.
func (e Error) Body() []byte {
	body, err := json.Marshal(struct {
		Error Error `json:"error"`
	}{e})
	if err != nil { // strings and an int: cannot fail
		panic(err)
	}
	return body
}

// WriteTo answers a request with the error. Headers that the caller has set
// (Retry-After, Allow) are kept.
func (e Error) WriteTo(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code)
	w.Write(e.Body()) // the client may be gone: nobody is left to tell
}

func typeOf(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "BadRequestError"
	case http.StatusUnauthorized:
		return "AuthenticationError"
	case http.StatusForbidden:
		return "PermissionDeniedError"
	case http.StatusNotFound:
		return "NotFoundError"
	case http.StatusMethodNotAllowed:
		return "MethodNotAllowedError"
	case http.StatusRequestTimeout:
		return "RequestTimeoutError"
	case http.StatusRequestEntityTooLarge:
		return "RequestTooLargeError"
	case http.StatusTooManyRequests:
		return "RateLimitError"
	case http.StatusNotImplemented:
		return "NotImplementedError"
	case http.StatusBadGateway:
		return "BadGatewayError"
	case http.StatusServiceUnavailable:
		return "ServiceUnavailableError"
	case http.StatusGatewayTimeout:
		return "GatewayTimeoutError"
	}
	if status >= 500 {
		return "InternalServerError"
	}
	return "BadRequestError"
}

// ReadError gives the error that a JSON body of some status reports, as far as it
// does: bodies of vLLM differ in shape (an object, a flat one in old versions, a
// string).
func ReadError(status int, body []byte) Error {
	e := NewError(status, http.StatusText(status))
	var outer struct {
		Error   json.RawMessage
		Message string
	}
	if json.Unmarshal(body, &outer) != nil {
		return e
	}
	var inner struct {
		Message, Type string
		Param         *string
	}
	var text string
	switch {
	case json.Unmarshal(outer.Error, &inner) == nil && inner.Message != "":
		e.Message, e.Param = inner.Message, inner.Param
		if inner.Type != "" {
			e.Type = inner.Type
		}
	case json.Unmarshal(outer.Error, &text) == nil && text != "":
		e.Message = text
	case outer.Message != "":
		e.Message = outer.Message
	}
	return e
}
