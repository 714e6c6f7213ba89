package gateway

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
)

// serveModels answers /v1/models with what all usable backends list together.
// (With one backend the path is relayed like any other.) Backends are asked
// with the client's own headers, so a key that vLLM wants still decides.
func (g *Gateway) serveModels(rec *record, c *call) {
	backends := g.pool.usable()
	if len(backends) == 0 {
		backends = g.pool.all() // as on every other path
	}
	answers := make([]*modelList, len(backends))
	var wg sync.WaitGroup
	for i, b := range backends {
		wg.Go(func() { answers[i] = g.askModels(c, b) })
	}
	wg.Wait()

	if err := blame(c.ctx, c.ctx.Err()); err != nil {
		g.refuse(rec, err)
		return
	}
	body, refusal := union(answers, rec.conf.Aliases, func(model string) bool { return rec.caller.mayUse(model, rec.conf) })
	switch {
	case body != nil:
		rec.w.Header().Set("Content-Type", "application/json")
		rec.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		rec.w.Write(body)
		rec.outcome = ok
	case refusal != nil && refusal.status == http.StatusUnauthorized && (rec.conf.callers != nil || refusal.keyed):
		g.refuse(rec, errBackendKey)
	case refusal != nil:
		for name, values := range refusal.header {
			rec.w.Header()[name] = values
		}
		rec.w.WriteHeader(refusal.status)
		rec.w.Write(refusal.body)
		rec.outcome = outcomeOf(refusal.status)
	default:
		g.refuse(rec, errNoBackend)
	}
}

// modelList is one backend's answer to /v1/models.
type modelList struct {
	status int
	header http.Header
	body   []byte
	keyed  bool // it was asked with a key of its own
}

// askModels gives nil where the backend did not answer.
func (g *Gateway) askModels(c *call, b *backend) *modelList {
	ctx, cancel := context.WithTimeout(c.ctx, probeTimeout)
	defer cancel()
	resp, err := b.road.RoundTrip(c.to(ctx, b))
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode < 200 {
			return nil
		}
		var body []byte
		if body, err = io.ReadAll(io.LimitReader(resp.Body, maxModels)); err == nil {
			return &modelList{resp.StatusCode, endToEnd(resp.Header), body, !b.of.key.Load().IsZero()}
		}
	}
	if c.ctx.Err() == nil {
		g.note(b, err)
	}
	return nil
}

// union lays the lists together: each model once, of those that the caller may use, as the first backend that has
// it describes it. Without any list it gives the first refusal, if there is one.
func union(answers []*modelList, aliases map[string]string, may func(model string) bool) (body []byte, refusal *modelList) {
	all := struct {
		Object string            `json:"object"`
		Data   []json.RawMessage `json:"data"`
	}{Object: "list", Data: []json.RawMessage{}}
	seen := map[string]bool{}
	listed := false
	for _, a := range answers {
		if a == nil {
			continue
		}
		if a.status != http.StatusOK {
			if refusal == nil {
				refusal = a
			}
			continue
		}
		var list struct {
			Data []json.RawMessage `json:"data"`
		}
		if json.Unmarshal(a.body, &list) != nil {
			continue
		}
		listed = true
		for _, m := range list.Data {
			var model struct {
				ID string `json:"id"`
			}
			if json.Unmarshal(m, &model) == nil && !seen[model.ID] {
				seen[model.ID] = true
				if may(model.ID) {
					all.Data = append(all.Data, m)
				}
			}
		}
	}
	for _, alias := range sorted(aliases) {
		if model := aliases[alias]; seen[model] && !seen[alias] && may(alias) {
			m, _ := json.Marshal(map[string]string{"id": alias, "object": "model", "owned_by": "vllm-gateway", "root": model})
			all.Data = append(all.Data, m)
		}
	}
	if !listed {
		return nil, refusal
	}
	body, err := json.Marshal(all)
	if err != nil {
		return nil, refusal
	}
	return body, nil
}
