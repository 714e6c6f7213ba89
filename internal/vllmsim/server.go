// Package vllmsim is a vLLM server without a model: an http.Handler with vLLM's
// endpoints, bytes and metrics, on top of a model of its engine (continuous
// batching, a paged KV cache with prefix caching, preemption) that takes as
// long as a small model on a small GPU does. It lets a gateway, a load test or
// a dashboard be tried where there is no GPU, and it fails on request in the
// ways that real servers do.
//
//	s, err := vllmsim.New(vllmsim.Config{})
//	defer s.Close()
//	http.ListenAndServe("127.0.0.1:8000", s)
//
// Its time is the runtime's, so it runs in testing/synctest bubbles with exact
// durations. docs/simulator.md says what it models and what it does not.
package vllmsim

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// Version is the vLLM release whose wire format is followed.
const Version = "0.32.0"

// Server is one vLLM server with one engine.
type Server struct {
	cfg     Config
	started time.Time
	metrics *metrics
	engine  *engine
	faults  faults
	routes  map[string]map[string]http.HandlerFunc // by path and method
	close   sync.Once

	requests atomic.Uint64 // so far
	load     atomic.Int64  // now running
}

// New starts a server's engine; Close ends it. Errors name every field that
// cannot be.
func New(cfg Config) (*Server, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	m := newMetrics(cfg)
	s := &Server{cfg: cfg, started: time.Now(), metrics: m, engine: newEngine(cfg, m)}
	s.faults.set(cfg.Faults)
	s.routes = map[string]map[string]http.HandlerFunc{
		"/v1/chat/completions":      {"POST": s.generation(s.chat)},
		"/v1/completions":           {"POST": s.generation(s.completions)},
		"/v1/responses":             {"POST": s.generation(s.responses)},
		"/v1/responses/{}":          {"GET": s.storedResponse},
		"/v1/responses/{}/cancel":   {"POST": s.storedResponse},
		"/v1/messages":              {"POST": s.generation(s.messages)},
		"/v1/messages/count_tokens": {"POST": s.countTokens},
		"/v1/embeddings":            {"POST": s.generation(s.embeddings)},
		"/v1/models":                {"GET": s.models},
		"/tokenize":                 {"POST": s.tokenize},
		"/detokenize":               {"POST": s.detokenize},
		"/health":                   {"GET": s.health},
		"/ping":                     {"GET": s.health, "POST": s.health},
		"/version":                  {"GET": s.version},
		"/load":                     {"GET": s.serverLoad},
		"/metrics":                  {"GET": m.handler().ServeHTTP},
		"/sim/faults":               {"GET": s.faultAdmin, "PUT": s.faultAdmin, "DELETE": s.faultAdmin},
	}
	return s, nil
}

// responseID is a path that names a response.
var responseID = regexp.MustCompile(`^/v1/responses/[^/]+(/cancel)?$`)

// Close ends the engine. Requests that run are cut off, as when a process ends.
func (s *Server) Close() { s.close.Do(s.engine.close) }

// ServeHTTP answers as FastAPI does where no route fits.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "uvicorn")
	if r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != "" {
		refuseOrigin(w, r)
		return
	}
	if strings.HasPrefix(r.URL.Path, "/v1") && !s.opens(r.Header.Get("Authorization")) {
		writeStatus(w, http.StatusUnauthorized, map[string]string{"error": "Unauthorized"})
		return
	}
	w.Header().Set("Vary", "Origin")
	methods, ok := s.routes[responseID.ReplaceAllString(r.URL.Path, "/v1/responses/{}$1")]
	if bare := strings.TrimSuffix(r.URL.Path, "/"); !ok && s.routes[bare] != nil {
		w.Header().Set("Location", "http://"+r.Host+bare)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	if !ok {
		writeStatus(w, http.StatusNotFound, detail{"Not Found"})
		return
	}
	handle, ok := methods[r.Method]
	if !ok {
		var allow []string
		for method := range methods {
			allow = append(allow, method)
		}
		slices.Sort(allow)
		w.Header().Set("Allow", strings.Join(allow, ", "))
		writeStatus(w, http.StatusMethodNotAllowed, detail{"Method Not Allowed"})
		return
	}
	handle(w, r)
}

// opens reports whether a client with that header may use /v1. Everything else
// is open to everybody, as with vLLM.
func (s *Server) opens(authorization string) bool {
	scheme, key, _ := strings.Cut(authorization, " ")
	return len(s.cfg.APIKeys) == 0 || strings.EqualFold(scheme, "bearer") && slices.Contains(s.cfg.APIKeys, key)
}

// refuseOrigin answers a browser's preflight: vLLM allows no other origin unless
// it is told to.
func refuseOrigin(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network")
	h.Set("Access-Control-Allow-Methods", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, QUERY")
	h.Set("Access-Control-Max-Age", "600")
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusBadRequest)
	io.WriteString(w, "Disallowed CORS origin")
}

type detail struct {
	Detail string `json:"detail"`
}

// generation wraps a handler that uses the engine.
func (s *Server) generation(handle func(http.ResponseWriter, *http.Request, trouble)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.load.Add(1)
		defer s.load.Add(-1)
		t := s.faults.next(slowFirstToken, stall, cut, inStreamError, reject)
		if f, ok := t[reject]; ok {
			openai.NewError(f.status(), "The server is refusing requests for now.").WriteTo(w)
			return
		}
		handle(w, r, t)
	}
}

// requestID is what follows the prefix of the nth response's id: the caller's
// X-Request-Id, else a fresh one.
func (s *Server) requestID(r *http.Request, n uint64) string {
	if id := r.Header.Get("X-Request-Id"); id != "" {
		return id
	}
	return s.uuid(n)
}

// uuid is 16 hex digits that depend on the seed.
func (s *Server) uuid(n uint64) string {
	return fmt.Sprintf("%016x", mix(s.cfg.Seed, n))
}

// fingerprint is vLLM's: its version, and a hash of the engine's configuration.
func (s *Server) fingerprint() string {
	return fmt.Sprintf("vllm-%s-%08x", Version, uint32(mixString(s.cfg.Seed, s.cfg.Models[0])))
}
