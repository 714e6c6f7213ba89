package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// wanted reads from a request's head who asks, and how much it matters.
func wanted(r *http.Request, who *caller) (w want, err error) {
	w.caller, w.priority = callerOf(r), normal
	if who != nil {
		w.caller, w.priority = who.turns, who.priority
	}
	if name := r.Header.Get("X-Priority"); name != "" {
		asked, ok := priorities[strings.ToLower(name)]
		if !ok {
			return w, errPriority
		}
		w.priority = asked
		if who != nil { // who has a key has its priority, or less
			w.priority = max(asked, who.priority)
		}
	}
	return w, nil
}

var callerSeed = maphash.MakeSeed()

// callerOf tells callers apart in the waiting line, and nowhere else: by the key
// that they have for vLLM, or without one by their address.
func callerOf(r *http.Request) uint64 {
	for _, name := range []string{"Authorization", "X-Api-Key"} {
		if key := r.Header.Get(name); key != "" {
			return maphash.String(callerSeed, key)
		}
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return maphash.String(callerSeed, host)
}

// groups say which group a request belongs to, where the policy goes by groups; see
// want.
func groups(r *http.Request, conf *settings, model string, asked openai.Request) (group uint64, begins [2]uint64) {
	of := func(b []byte) uint64 {
		if len(b) == 0 {
			return 0
		}
		return hash(hash(hashSeed, []byte(model+"\x00")), b) | 1
	}
	if conf.Routing != Session && conf.Routing != Prefix {
		return 0, begins
	}
	group = of([]byte(r.Header.Get(conf.SessionHeader)))
	if group != 0 || conf.Routing == Session {
		return group, begins
	}
	begins = [2]uint64{of(asked.Prefix(conf.PrefixBytes)), of(asked.Opening(conf.PrefixBytes))}
	if begins[1] == begins[0] {
		begins[1] = 0
	}
	return 0, begins
}

// resolve gives the model that a request is to get: what its alias stands for, and
// while none of its backends is up, its fallback.
func (g *Gateway) resolve(conf *settings, model string) string {
	if of, ok := conf.Aliases[model]; ok {
		model = of
	}
	other, ok := conf.Fallbacks[model]
	if ok && g.pool.others(&want{model: model}, nil) >= dead && g.pool.others(&want{model: other}, nil) < dead {
		return other
	}
	return model
}

// rename has the call ask for another model.
func (c *call) rename(model string, asked openai.Request, contentType string) (openai.Request, error) {
	asked.Model = model
	switch {
	case len(c.body.data) == 0:
		query, _ := url.ParseQuery(c.query) // checked before
		query.Set("model", model)
		c.query = query.Encode()
	case isForm(contentType):
		var ok bool
		if c.body.data, ok = openai.FormWithModel(c.body.data, contentType, model); !ok {
			return asked, fmt.Errorf("%w: the form's field model cannot be replaced", errBadBody)
		}
	default:
		c.body.data = asked.WithModel(c.body.data, model)
		return openai.Peek(c.body.data), nil
	}
	return asked, nil
}

// modelError is a model that no backend has.
type modelError struct {
	model string
	there []string // those that there are
}

// maxNamed bounds the models that an error names.
const maxNamed = 50

// Error is in the words of vLLM (0.32).
func (e *modelError) Error() string {
	there := strings.Join(e.there[:min(len(e.there), maxNamed)], ", ")
	if len(e.there) > maxNamed {
		there += ", … (GET /v1/models lists all)"
	}
	return "The model `" + clip(e.model) + "` does not exist. Valid aliases: " + there + "."
}

func (e *modelError) body() openai.Error {
	err := openai.NewError(http.StatusNotFound, e.Error())
	param := "model"
	err.Param = &param
	return err
}

// writeTo answers as vLLM does, which on these paths speaks like Anthropic.
func (e *modelError) writeTo(w http.ResponseWriter, rt route) {
	err := e.body()
	if !strings.HasPrefix(rt.path, "/v1/messages") {
		err.WriteTo(w)
		return
	}
	var answer struct {
		Type  string `json:"type"`
		Error struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		} `json:"error"`
	}
	answer.Type, answer.Error.Type, answer.Error.Message = "error", err.Type, err.Message
	body, _ := json.Marshal(answer)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(err.Code)
	w.Write(body)
}

// relist is how old a backend's list of models may be when a model is refused:
// adapters are loaded, and used at once.
const relist = 100 * time.Millisecond

// check gives a *modelError if no backend has the model; it says the name that the
// client knows.
func (g *Gateway) check(ctx context.Context, rec *record, model, named string) error {
	if model == "" || g.pool.mayHave(model) {
		return nil
	}
	var wg sync.WaitGroup
	asking, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, b := range g.pool.those(func(b *backend) bool { return b.state != down }) {
		wg.Go(func() { g.relist(asking, b) })
	}
	wg.Wait()
	if g.pool.mayHave(model) {
		return nil
	}
	there := slices.DeleteFunc(g.models(rec.conf), func(m string) bool { return !rec.caller.mayUse(m, rec.conf) })
	return &modelError{named, there}
}

// relist reads a backend's list unless it is fresh, for one request at a time: the
// others wait for what that one brings.
func (g *Gateway) relist(ctx context.Context, b *backend) {
	select {
	case b.relisting <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-b.relisting }()
	g.pool.mu.Lock()
	fresh := time.Since(b.listed) < relist
	g.pool.mu.Unlock()
	if !fresh {
		g.learnModels(ctx, b)
	}
}

// mayHave reports whether some backend lists the model, or does not say what it
// has. (Where there is no backend at all, that is what there is to say.)
func (p *pool) mayHave(model string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	none := true
	for _, b := range p.backends {
		if b.gone {
			continue
		}
		none = false
		if p.has(b, model) {
			return true
		}
	}
	return none
}

// models gives the names that can be asked for, sorted.
func (g *Gateway) models(conf *settings) []string {
	var there []string
	for _, b := range g.pool.all() {
		g.pool.mu.Lock()
		there = append(there, b.models...)
		g.pool.mu.Unlock()
	}
	for alias, model := range conf.Aliases {
		if slices.Contains(there, model) {
			there = append(there, alias)
		}
	}
	slices.Sort(there)
	return slices.Compact(there)
}

// responseID gives the id of an answer that a path names.
func responseID(rt route, escapedPath string) string {
	before, after, ok := strings.Cut(rt.path, "{id}")
	if !ok {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(escapedPath, before), after)
}
