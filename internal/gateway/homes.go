package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// homes remembers which backend has which answer of /v1/responses: vLLM keeps
// them in the memory of one server. It is guarded by pool.mu.
type homes struct {
	of    map[string]*backend
	order []string // the ids, as a ring
	next  int
}

// maxHomes bounds the ids that are remembered; beyond it the oldest goes. What is
// not remembered, by this gateway or after its restart, is asked for.
const maxHomes = 1 << 14

func (h *homes) put(id string, b *backend) {
	if h.of == nil {
		h.of = map[string]*backend{}
	}
	if _, ok := h.of[id]; !ok {
		if len(h.order) < maxHomes {
			h.order = append(h.order, id)
		} else {
			delete(h.of, h.order[h.next])
			h.order[h.next] = id
			h.next = (h.next + 1) % maxHomes
		}
	}
	h.of[id] = b
}

// settle notes where an answer lives.
func (p *pool) settle(id string, b *backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.homes.put(id, b)
}

// settle remembers where an answer lives, as soon as it has said its id.
func (a *answer) settle() {
	id := ""
	switch {
	case a.stream != nil:
		id = a.stream.stream.ID
	case a.usage != nil:
		id = a.usage.ID
	}
	if id != "" && a.rec.route.dialect == openai.Responses && !a.rec.conf.single {
		a.g.pool.settle(id, a.backend)
	}
}

// findHome is how long backends have to say whether they have an answer.
const findHome = 2 * time.Second

// home gives the backend that has the answer of an id, and nil where none says so:
// then any may tell the client that it does not exist.
func (g *Gateway) home(c *call, id string) *backend {
	p := &g.pool
	p.mu.Lock()
	b := p.homes.of[id]
	if b != nil && b.gone {
		b = nil
	}
	p.mu.Unlock()
	if b != nil {
		return b
	}
	backends := p.usable()
	if len(backends) < 2 || !openai.WellFormedID(id) {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, findHome)
	defer cancel()
	found := make(chan *backend, len(backends))
	ask := *c // which goes on before the last has answered
	ask.method, ask.target, ask.query, ask.body = http.MethodGet, "/v1/responses/"+id, "", nil
	for _, b := range backends {
		go func() {
			if !hasAnswer(ctx, &ask, b) {
				b = nil
			}
			found <- b
		}()
	}
	for range backends {
		if b := <-found; b != nil {
			p.settle(id, b)
			return b
		}
	}
	return nil
}

// hasAnswer asks with the client's own headers, so that what it may not see, it
// does not find.
func hasAnswer(ctx context.Context, ask *call, b *backend) bool {
	resp, err := b.road.RoundTrip(ask.to(ctx, b))
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
