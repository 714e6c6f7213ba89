package http1

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// refusal is what the server itself answers to what is no request, or none that it
// knows. The connection ends with it.
type refusal struct {
	status int
	text   string // behind the status's own; may be empty
	head   bool   // it was a HEAD: the answer has no body
}

func (r *refusal) Error() string {
	s := http.StatusText(r.status)
	if r.text != "" {
		s += ": " + r.text
	}
	return s
}

func badRequest(text string) error { return &refusal{status: http.StatusBadRequest, text: text} }

var errTooLarge = &refusal{status: http.StatusRequestHeaderFieldsTooLarge}

// framing is what a request's head says of what follows.
type framing struct {
	length  int64 // of the body; -1: it comes in chunks
	expects bool  // the client waits for a 100
}

// blank is copied for each request: WithContext is the only way to give one its
// context, and makes a copy.
var blank http.Request

// readRequest makes a request of a head that has so many lines, its first included. What it accepts
// net/http accepts too, and understands likewise.
func readRequest(ctx context.Context, head string, lines int) (*http.Request, framing, error) {
	line, rest := cutLine(head)
	method, target, minor, err := parseRequestLine(line)
	if err != nil {
		return nil, framing{}, lineRefusal(method, err)
	}
	r := blank.WithContext(ctx)
	f, err := fillRequest(r, method, target, minor, rest, lines)
	if refused, ok := err.(*refusal); ok && method == http.MethodHead {
		refused.head = true
	}
	return r, f, err
}

func lineRefusal(method string, err error) error {
	if err == errVersion {
		return &refusal{http.StatusHTTPVersionNotSupported, errVersion.Error(), method == http.MethodHead}
	}
	return badRequest("")
}

func fillRequest(r *http.Request, method, target string, minor int, fields string, lines int) (f framing, err error) {
	r.Method, r.RequestURI = method, target
	r.ProtoMajor, r.ProtoMinor = 1, minor
	switch minor {
	case 0:
		r.Proto = "HTTP/1.0"
	case 1:
		r.Proto = "HTTP/1.1"
	default:
		r.Proto = "HTTP/1." + string(rune('0'+minor))
	}
	if r.URL, err = parseTarget(method, target); err != nil {
		return f, badRequest("")
	}
	if r.Header, err = parseFields(fields, lines-1); err != nil {
		return f, badRequest("")
	}
	h := r.Header
	hosts := h["Host"]
	switch {
	case len(hosts) > 1:
		return f, badRequest("")
	case len(hosts) == 0 && minor >= 1 && method != http.MethodConnect:
		return f, badRequest("missing required Host header")
	case len(hosts) == 1 && !httpguts.ValidHostHeader(hosts[0]):
		return f, badRequest("malformed Host header")
	}
	if r.Host = r.URL.Host; r.Host == "" && len(hosts) == 1 {
		r.Host = hosts[0]
	}
	delete(h, "Host")
	connection := h["Connection"]
	r.Close = hasToken(connection, "close") || minor == 0 && !hasToken(connection, "keep-alive")
	if f.length, err = frame(h, minor); err != nil {
		return f, err
	}
	r.ContentLength = f.length
	if f.length < 0 {
		r.TransferEncoding = []string{"chunked"}
	}
	for _, e := range h["Expect"] {
		if !strings.EqualFold(e, "100-continue") {
			return f, &refusal{status: http.StatusExpectationFailed}
		}
		f.expects = minor >= 1 && f.length != 0
	}
	return f, nil
}

// parseTarget is what net/http does, with a short way for what most requests have: a
// path that is spelled plainly.
func parseTarget(method, target string) (*url.URL, error) {
	if isPlainPath(target) {
		return &url.URL{Path: target}, nil
	}
	if method == http.MethodConnect && target[0] != '/' {
		u, err := url.ParseRequestURI("http://" + target)
		if err == nil {
			u.Scheme = ""
		}
		return u, err
	}
	return url.ParseRequestURI(target)
}

func isPlainPath(s string) bool {
	if s[0] != '/' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= '/' && c <= '9' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}

// frame says where a request's body ends (RFC 9112 6.3): -1 is in chunks. Of a length
// beside chunks, and of chunks over HTTP/1.0, it does what net/http does: the one
// that does not count is taken out. Whoever passes the request on must know that
// another server might have read it otherwise.
func frame(h http.Header, minor int) (int64, error) {
	codings, coded := h["Transfer-Encoding"]
	delete(h, "Transfer-Encoding")
	if coded = coded && minor >= 1; coded && (len(codings) > 1 || !strings.EqualFold(codings[0], "chunked")) {
		return 0, &refusal{status: http.StatusNotImplemented, text: "unsupported transfer encoding"}
	}
	length := int64(0)
	if lengths := h["Content-Length"]; len(lengths) > 0 {
		for _, other := range lengths[1:] {
			if other != lengths[0] {
				return 0, badRequest("")
			}
		}
		var err error
		if length, err = parseLength(lengths[0]); err != nil {
			return 0, badRequest("")
		}
		h["Content-Length"] = lengths[:1:1]
	}
	if !coded {
		return length, nil
	}
	delete(h, "Content-Length")
	for _, list := range h["Trailer"] { // nobody gets to see trailers, so these are but names
		for name := range strings.SplitSeq(list, ",") {
			switch http.CanonicalHeaderKey(trimSpace(name)) {
			case "Transfer-Encoding", "Trailer", "Content-Length":
				return 0, badRequest("")
			}
		}
	}
	delete(h, "Trailer")
	return -1, nil
}
