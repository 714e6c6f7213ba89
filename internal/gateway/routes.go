package gateway

import (
	"net/http"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// route is one path that is relayed. What is not in the table is not reachable:
// vLLM's operator endpoints (/sleep, /pause, /update_weights, …) stand on the
// same port as its API and most of them ask for no key.
type route struct {
	method  string
	path    string // as it goes to the backend, and as the label of metrics
	dialect openai.Dialect
	// light: it asks the engine for no tokens, and does not wait for room.
	light bool
	// free: it is of no model, and neither a caller's models nor its limits are about
	// it.
	free bool
	// usage: stream_options.include_usage is vLLM's word for this path.
	usage bool
}

var routes = []route{
	{method: http.MethodPost, path: "/v1/chat/completions", dialect: openai.Chat, usage: true},
	{method: http.MethodPost, path: "/v1/chat/completions/batch", dialect: openai.Chat},
	{method: http.MethodPost, path: "/v1/completions", dialect: openai.Completions, usage: true},
	{method: http.MethodPost, path: "/v1/systemone"},
	{method: http.MethodPost, path: "/v1/embeddings"},
	{method: http.MethodPost, path: "/v2/embed"},
	{method: http.MethodPost, path: "/v1/responses", dialect: openai.Responses},
	{method: http.MethodGet, path: "/v1/responses/{id}", dialect: openai.Responses, light: true, free: true},
	{method: http.MethodPost, path: "/v1/responses/{id}/cancel", dialect: openai.Responses, light: true, free: true},
	{method: http.MethodPost, path: "/v1/messages", dialect: openai.Messages},
	{method: http.MethodPost, path: "/v1/messages/count_tokens", light: true},
	{method: http.MethodPost, path: "/rerank"},
	{method: http.MethodPost, path: "/v1/rerank"},
	{method: http.MethodPost, path: "/v2/rerank"},
	{method: http.MethodPost, path: "/score"},
	{method: http.MethodPost, path: "/v1/score"},
	{method: http.MethodPost, path: "/generative_scoring"},
	{method: http.MethodPost, path: "/classify"},
	{method: http.MethodPost, path: "/pooling"},
	{method: http.MethodPost, path: "/tokenize", light: true},
	{method: http.MethodPost, path: "/detokenize", light: true},
	{method: http.MethodPost, path: "/v1/audio/transcriptions"},
	{method: http.MethodPost, path: "/v1/audio/translations"},
	{method: http.MethodGet, path: modelsPath, light: true, free: true},
	{method: http.MethodGet, path: realtimePath},
	{method: http.MethodGet, path: "/version", light: true, free: true},
}

const (
	modelsPath   = "/v1/models"
	realtimePath = "/v1/realtime"
)

var (
	exact     = map[string]route{}
	responses = map[string]route{} // by what follows the id
)

func init() {
	for _, rt := range routes {
		if _, after, ok := strings.Cut(rt.path, "{id}"); ok {
			responses[after] = rt
			continue
		}
		exact[rt.path] = rt
	}
}

// find gives the route of a path as the client spelled it, before any decoding:
// a path that would have to be decoded, cleaned or folded to fit does not fit,
// so nothing can read it differently from the way it was judged here.
func find(escapedPath string) (route, bool) {
	if rt, ok := exact[escapedPath]; ok {
		return rt, true
	}
	rest, ok := strings.CutPrefix(escapedPath, "/v1/responses/")
	if !ok {
		return route{}, false
	}
	id, after := rest, ""
	if slash := strings.IndexByte(rest, '/'); slash >= 0 {
		id, after = rest[:slash], rest[slash:]
	}
	rt, ok := responses[after]
	return rt, ok && openai.WellFormedID(id)
}

// target is the path to ask the backend for.
func (rt route) target(escapedPath string) string {
	if strings.Contains(rt.path, "{id}") {
		return escapedPath // judged byte by byte in find
	}
	return rt.path
}

// wellFormedQuery: a query goes on as it is spelled, so it must be one to all
// readers. net/url takes "#", bytes beyond ASCII, and spaces (which HTTP/2 can
// carry) into it; to others a fragment or the version begins there, or the request
// is broken.
func wellFormedQuery(query string) bool {
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}
