package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// probeEvery is the time between two health probes of a backend that is up.
	probeEvery = 5 * time.Second
	// probeDownEvery is the same for one that is not: users wait for it.
	probeDownEvery = time.Second
	// probeTimeout ends a probe. A slow answer is not a dead server: vLLM's
	// event loop stalls for seconds under bursts, and a backend that is taken
	// out for it throws its load on the others.
	probeTimeout = 5 * time.Second
	// maxModels bounds the list of models read from one backend, in bytes.
	maxModels = 1 << 20
)

// watch probes a backend until ctx ends.
func (g *Gateway) watch(ctx context.Context, b *backend) {
	for ctx.Err() == nil {
		wait := probeEvery
		if g.probe(ctx, b) != nil {
			wait = probeDownEvery
		}
		g.forget()
		select {
		case <-time.After(jitter(wait)):
			continue
		case <-b.fell: // a request has found it dead, and the next probe may be far
		case <-ctx.Done():
		}
		select {
		case <-time.After(jitter(probeDownEvery)):
		case <-ctx.Done():
		}
	}
}

// probe asks a backend whether it lives and which models it has.
func (g *Gateway) probe(ctx context.Context, b *backend) error {
	_, err := g.get(ctx, b, "/health")
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded) && !unreached(err):
		g.slow(b)
		return nil
	case err != nil:
		g.setDown(b, err)
		return err
	}
	g.setUp(b)
	g.learnModels(ctx, b)
	return nil
}

// learnModels reads the backend's model list, for routing and for the labels of
// metrics. A failure leaves the list as it was.
func (g *Gateway) learnModels(ctx context.Context, b *backend) {
	body, err := g.get(ctx, b, modelsPath)
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		g.doubt(b, "its models cannot be listed: "+err.Error())
		if !b.told.Swap(true) {
			g.log.Warn("models not listed; it gets those that no other backend lists", "backend", b.name, "error", err)
		}
		return
	}
	b.told.Store(false)
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		g.log.Debug("models not listed", "backend", b.name, "error", err)
		return
	}
	var models []string
	for _, m := range list.Data {
		models = append(models, m.ID)
	}
	added := g.pool.setModels(b, models)
	g.introduceCallers(g.conf.Load().callers, added)
	for _, m := range added {
		g.metrics.introduce(m, b.name)
		g.log.Info("model found", "model", m, "backend", b.name)
	}
}

// get asks a backend for a small answer of status 200.
func (g *Gateway) get(ctx context.Context, b *backend, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url.String()+path, nil)
	if err != nil {
		return nil, err
	}
	r.Host = b.host
	r.Header.Set("User-Agent", "vllm-gateway")
	if key := b.of.key.Load(); !key.IsZero() {
		r.Header.Set("Authorization", "Bearer "+key.Reveal())
	}
	resp, err := b.road.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return nil, fmt.Errorf("%s answers 401: it wants another key than the gateway has for it, or any", path)
	default:
		return nil, fmt.Errorf("%s answers %d", path, resp.StatusCode)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxModels))
}

func (g *Gateway) setUp(b *backend) {
	if g.pool.setState(b, up, "") {
		g.log.Info("backend is up", "backend", b.name)
	}
}

func (g *Gateway) setDown(b *backend, why error) {
	if g.pool.setState(b, down, why.Error()) {
		g.log.Warn("backend is down", "backend", b.name, "error", why)
		select {
		case b.fell <- struct{}{}:
		default:
		}
	}
}

// slow leaves the state as it is and says why nothing newer is known.
func (g *Gateway) slow(b *backend) {
	g.doubt(b, fmt.Sprintf("no answer to /health within %v", probeTimeout))
}

// doubt says on /health what is wrong with a backend that may be up all the same.
func (g *Gateway) doubt(b *backend, trouble string) {
	g.pool.mu.Lock()
	defer g.pool.mu.Unlock()
	b.trouble = trouble
}

// serveHealth answers /health: 200 while at least one backend is usable.
func (g *Gateway) serveHealth(w http.ResponseWriter, r *http.Request) {
	type view struct {
		Backend  string   `json:"backend"`
		State    state    `json:"state"`
		InFlight int      `json:"in_flight"`
		Models   []string `json:"models"`
		Trouble  string   `json:"trouble,omitempty"`
	}
	answer := struct {
		Status   string `json:"status"`
		Waiting  int    `json:"waiting_line"`
		Backends []view `json:"backends"`
	}{Status: "unavailable", Backends: []view{}}

	g.pool.mu.Lock()
	answer.Waiting = g.pool.line.total()
	for _, b := range g.pool.backends {
		if b.gone {
			continue
		}
		if b.state == up {
			answer.Status = "ok"
		}
		v := view{b.name, b.state, b.inFlight, append([]string{}, b.models...), b.trouble}
		if b.passive.times > 0 {
			v.State, v.Trouble = "ejected", "requests have failed; from time to time one tries it"
		}
		answer.Backends = append(answer.Backends, v)
	}
	g.pool.mu.Unlock()

	if g.draining.Load() {
		answer.Status = "draining"
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if answer.Status != "ok" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if r.Method != http.MethodHead {
		json.NewEncoder(w).Encode(answer)
	}
}
