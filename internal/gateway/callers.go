package gateway

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// caller is a Caller, and what it has running.
type caller struct {
	*Caller
	priority priority
	turns    uint64 // what it is called in the waiting line
	running  *atomic.Int64
}

// callers knows whose a key is.
type callers struct {
	list []caller
	// of finds callers by the first bytes of their keys' hashes: nobody can choose
	// what they are, so that the time which the map takes tells nothing of value; the
	// whole is then compared in constant time.
	of map[uint64][]holder
}

type holder struct {
	hash   secret.Hash
	caller *caller
	number int // of the caller's keys, from 1
}

func start(h secret.Hash) uint64 { return binary.NativeEndian.Uint64(h[:]) }

// newCallers gives nil where there are none. What those of before have running counts
// on, and so does what is about to: a request may have begun and not be counted yet.
func newCallers(list []Caller, before *settings) *callers {
	if len(list) == 0 {
		return nil
	}
	running := map[string]*atomic.Int64{}
	if before != nil && before.callers != nil {
		for _, c := range before.callers.list {
			running[c.Name] = c.running
		}
	}
	all := &callers{list: make([]caller, len(list)), of: make(map[uint64][]holder, len(list))}
	for i := range list {
		c := &all.list[i]
		*c = caller{Caller: &list[i], priority: normal, turns: maphash.String(callerSeed, list[i].Name), running: running[list[i].Name]}
		if c.Priority != "" {
			c.priority = priorities[c.Priority]
		}
		if c.running == nil {
			c.running = new(atomic.Int64)
		}
		for j, h := range c.Keys {
			all.of[start(h)] = append(all.of[start(h)], holder{h, c, j + 1})
		}
	}
	return all
}

// find gives the caller whose key it is, or nil; and which of its keys. all may be nil.
func (all *callers) find(key string) (c *caller, number int) {
	if all == nil || len(key) < secret.MinKey {
		return nil, 0
	}
	h := secret.HashOf(key)
	for _, holder := range all.of[start(h)] {
		if holder.hash.Is(h) {
			return holder.caller, holder.number
		}
	}
	return nil, 0
}

// presentedKey gives the key that a request has: as OpenAI's clients send it, or as
// Anthropic's do. Of both the first holds; one that is there twice is none.
func presentedKey(h http.Header) string {
	if values := h["Authorization"]; len(values) > 0 {
		scheme, key, _ := strings.Cut(values[0], " ")
		if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") {
			return ""
		}
		return strings.TrimSpace(key)
	}
	if values := h["X-Api-Key"]; len(values) == 1 {
		return values[0]
	}
	return ""
}

var (
	errNoKey    = errors.New("no valid API key")
	errKeyInURL = errors.New("the API key is in the URL, where logs and proxies see it; send it as \"Authorization: Bearer\", and replace it")
)

// identify says who asks. Where there are keys nobody gets further without one, but
// for browsers' preflights, which cannot have any (vLLM lets them pass as well).
func (g *Gateway) identify(rec *record, r *http.Request) error {
	if rec.conf.callers == nil || r.Method == http.MethodOptions {
		return nil
	}
	key := presentedKey(r.Header)
	c, number := rec.conf.callers.find(key)
	if c == nil {
		return errNoKey
	}
	rec.caller, rec.key, rec.keyNumber = c, key, number
	if strings.Contains(r.URL.RawQuery, key) || strings.Contains(r.URL.EscapedPath(), key) {
		return errKeyInURL
	}
	return nil
}

// withhold takes the caller's key out of what backends get, wherever it stands; and
// the headers that may have none but a key of this gateway's.
func withhold(h http.Header, key string) {
	h.Del("Authorization")
	h.Del("X-Api-Key")
	if key == "" {
		return
	}
	for name, values := range h {
		if slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, key) }) {
			delete(h, name)
		}
	}
}

// maxCallers bounds the callers that metrics know by name, over the life of the
// process: series stay, and there may be a hundred thousand keys.
const maxCallers = 1000

// callerLabel gives the label of a caller: its name, or "other" for those that come
// when so many others have.
func (m *metrics) callerLabel(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.callers[name] {
		if len(m.callers) == maxCallers {
			return otherCaller
		}
		m.callers[name] = true
	}
	return name
}

const otherCaller = "other"

// callerLabel gives the label of a request's caller. One that has been taken out since
// the request began has no series any more, and gets none again.
func (rec *record) callerLabel() string {
	now, name := rec.g.conf.Load(), rec.caller.Name
	if now != rec.conf && (now.callers == nil || !slices.ContainsFunc(now.callers.list, func(c caller) bool { return c.Name == name })) {
		return otherCaller
	}
	return rec.g.metrics.callerLabel(name)
}

// maxIntroduced bounds the callers whose series begin at 0, before they have asked for
// anything: rate() does not see the step from nothing to 1. Of more callers than these
// most will never use most of the models.
const maxIntroduced = 100

// introduceCallers makes series of callers for models.
func (g *Gateway) introduceCallers(all *callers, models []string) {
	if all == nil || len(all.list) > maxIntroduced {
		return
	}
	for _, c := range all.list {
		name := g.metrics.callerLabel(c.Name)
		for _, model := range models {
			g.metrics.callerRequests.WithLabelValues(name, model, string(ok))
			g.metrics.callerPromptTokens.WithLabelValues(name, model)
			g.metrics.callerCompletionTokens.WithLabelValues(name, model)
		}
	}
}

// forgetCallers drops the series of those who are callers no longer.
func (m *metrics) forgetCallers(now *callers) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gone := maps.Clone(m.callers)
	if now != nil {
		for _, c := range now.list {
			delete(gone, c.Name)
		}
	}
	for name := range gone {
		m.drop("caller", name)
		delete(m.callers, name)
	}
}

// mayUse reports whether a caller may ask for a model by a name. It says nothing of
// whether the model exists.
func (c *caller) mayUse(named string, conf *settings) bool {
	if !c.restricted() {
		return true
	}
	return slices.Contains(c.Models, named) || named != "" && slices.Contains(c.Models, conf.Aliases[named])
}

// hide takes the caller's key out of what it has put there itself: the name of a model
// goes into errors, the log and traces.
func (rec *record) hide(model string) string {
	if rec.key == "" {
		return model
	}
	return strings.ReplaceAll(model, rec.key, secret.New(rec.key).String())
}

// hide takes keys out of the beginning of a path, which is all that is logged: some
// put theirs there, as other services have it.
func (all *callers) hide(path string) string {
	if all == nil {
		return path
	}
	parts := strings.Split(path[:min(len(path), 512)], "/")
	for i, part := range parts {
		if c, _ := all.find(part); c != nil {
			parts[i] = secret.New(part).String()
		}
	}
	return strings.Join(parts, "/")
}

// restricted reports whether a caller may use some models only.
func (c *caller) restricted() bool { return c != nil && len(c.Models) > 0 }

// modelForbidden is a model that the caller may not use, or none: what vLLM would
// take then is not said anywhere.
type modelForbidden struct{ model string }

func (e *modelForbidden) Error() string {
	if e.model == "" {
		return "Your API key is for certain models only: the request must name one."
	}
	return "Your API key may not be used for the model `" + clip(e.model) + "`."
}
