package gateway

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	connectTimeout = 3 * time.Second
	// idleConnTimeout is below the 5 s after which vLLM (uvicorn) closes idle
	// connections, so that a request is rarely sent on one that is just closing.
	idleConnTimeout = 3 * time.Second
	// maxAttempts bounds the backends that one request may be sent to.
	maxAttempts = 2
)

// call is one request as the backends get it.
type call struct {
	ctx    context.Context
	method string
	target string // path
	query  string
	header http.Header
	body   *payload
	want   want
	asked  bool // the gateway asked for usage
	stream bool // the client wants a stream, in a known dialect
	// upgrade: a WebSocket is asked for.
	upgrade bool
}

// hopHeaders are a matter between two neighbours (RFC 9110 7.6.1).
var hopHeaders = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// endToEnd gives the headers that go on to the other side.
func endToEnd(h http.Header) http.Header { return dropHops(h.Clone()) }

// dropHops takes the other headers out.
func dropHops(h http.Header) http.Header {
	lists := h["Connection"]
	for _, name := range hopHeaders {
		delete(h, name)
	}
	for _, list := range lists {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	return h
}

// backendHeader gives the headers of a request as the backend gets them.
func backendHeader(r *http.Request, id string) http.Header {
	h := endToEnd(r.Header)
	h.Set("X-Request-Id", id)
	for name := range h {
		if strings.Contains(name, "_") {
			delete(h, name) // to servers that make variables of headers, X_Y is X-Y
		}
	}
	h.Del("X-Data-Parallel-Rank") // pins one engine of a server: not for outsiders
	h.Del("Expect")               // the body is here already
	h.Del("Accept-Encoding")      // tokens are counted on plain bytes
	h.Del("Content-Length")
	return h
}

// to is the call as a request to one backend.
func (c *call) to(ctx context.Context, b *backend) *http.Request {
	header := c.header
	if key := b.of.key.Load(); !key.IsZero() {
		header = maps.Clone(header)
		header["Authorization"] = []string{"Bearer " + key.Reveal()}
	}
	r := blank.WithContext(ctx) // a copy
	r.Method, r.Host, r.Header = c.method, b.host, header
	r.URL = &url.URL{Scheme: b.url.Scheme, Host: b.url.Host, Path: c.target, RawQuery: c.query}
	if c.body != nil && len(c.body.data) > 0 {
		r.ContentLength = int64(len(c.body.data))
		r.GetBody = c.body.body
		r.Body, _ = c.body.body() // it is kept while there are attempts
	}
	return r
}

var blank = &http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}

// forward sends the call to a backend and, if that fails before there is anything
// to tell the client, to another one. The answer holds its lease until it is
// closed.
func (g *Gateway) forward(rec *record, c *call) (*answer, error) {
	var tried []*backend
	var failedAt time.Time // the first of them
	var refusal *answer    // of the first backend; says more than that the second is gone
	for {
		l, err := g.lease(rec, c, tried)
		if err != nil {
			if refusal != nil && c.ctx.Err() == nil {
				rec.on(refusal.backend)
				return refusal, nil
			}
			return nil, err
		}
		b := l.backend
		a, err := g.attempt(rec, c, l)
		failed := tried
		tried = append(tried, b)
		lifeless := err == nil && a.status == http.StatusInternalServerError && g.another(c, nil, tried) && g.engineIsDead(c.ctx, b)
		if err == nil && c.ctx.Err() != nil {
			a.close()
			return nil, blame(c.ctx, c.ctx.Err())
		}
		if err == nil && !retryStatus(a.status) && !lifeless {
			g.answered(c, b, failed, failedAt)
			return a, nil
		}
		failedAt = time.Now()
		if !g.another(c, err, tried) {
			g.unanswered(c, err, tried)
			if err != nil && refusal != nil && c.ctx.Err() == nil {
				rec.on(refusal.backend)
				return refusal, nil
			}
			return a, err
		}
		if a != nil {
			if a.keep() {
				refusal = a
			}
			a.close()
		}
		g.metrics.retries.Inc()
	}
}

// another reports whether the failed call is worth a further backend. Slow is
// not: the first backend may have the answer half ready, and the second is
// likely as busy.
func (g *Gateway) another(c *call, err error, tried []*backend) bool {
	if c.ctx.Err() != nil || len(tried) == maxAttempts {
		return false
	}
	worst := dead
	if err == nil {
		// An answer, with a status that asks for a retry: no reason to trade it
		// for the refusal of a backend that is known to be down.
		worst = ejected
	} else if !mendable(err) {
		return false
	}
	if g.pool.others(&c.want, tried) > worst {
		return false
	}
	if !g.pool.mayRetry() {
		g.metrics.retriesWithheld.Inc()
		return false
	}
	return true
}

// mendable: another backend may do better.
func mendable(err error) bool {
	cause := causeOf(err)
	return cause == causeConnect || cause == causeReset || cause == causeCut || errors.Is(err, errBackendKey)
}

// retryStatus: the backend did not take the request. (vLLM answers 503 when its
// admission limit is reached; what stands before one may answer 429.)
func retryStatus(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// engineIsDead asks a backend that has answered 500 whether there is an engine
// behind it. The answer does not say: vLLM's API server outlives its engine for
// some seconds and answers 500 to everything, faster than any backend that
// works. Its /health knows; a client waits for that no longer than a second.
func (g *Gateway) engineIsDead(ctx context.Context, b *backend) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := g.get(ctx, b, "/health")
	if err == nil || ctx.Err() != nil {
		return false
	}
	g.setDown(b, err)
	return true
}

// attempt sends the call to one backend and waits until there is something to
// tell the client: see [answer.hold].
func (g *Gateway) attempt(rec *record, c *call, l *lease) (*answer, error) {
	b := l.backend
	rec.on(b)
	rec.attempts++
	sent := time.Now()
	if rec.attempts == 1 {
		rec.own = sent.Sub(rec.read) - rec.inLine
	}
	ctx, cancel := context.WithCancelCause(c.ctx)
	limit := time.AfterFunc(rec.conf.FirstByteTimeout, func() { cancel(errFirstByte) })
	defer limit.Stop()

	a := &answer{g: g, rec: rec, ctx: ctx, cancel: cancel, backend: b, lease: l, sent: sent, upgrade: c.upgrade}
	a.spans = rec.spans.attempt(a, c)
	resp, err := b.road.RoundTrip(c.to(a.spans.watch(ctx), b))
	if err == nil {
		a.take(resp, c.asked)
		err = a.hold()
	}
	if err == nil && a.status == http.StatusUnauthorized && (rec.conf.callers != nil || !b.of.key.Load().IsZero()) {
		err = errBackendKey // it is not the client's that was refused
	}
	if err = blame(ctx, err); err != nil {
		if ctx.Err() == nil {
			err = plain(err)
		}
		a.spans.fail(err)
		a.close()
		g.note(b, err)
		return nil, err
	}
	a.ready = time.Now()
	if a.status >= 500 {
		g.metrics.upstreamErrors.WithLabelValues(b.name, a.failedBy()).Inc()
	}
	return a, nil
}

// note counts a backend's failure. A connection that was refused is a server
// that is gone: no probe need say so first.
func (g *Gateway) note(b *backend, err error) {
	cause := causeOf(err)
	if cause == "" {
		return
	}
	g.metrics.upstreamErrors.WithLabelValues(b.name, cause).Inc()
	if unreached(err) { // a handshake is vLLM's own to make, and may be slow for its sake
		g.setDown(b, err)
	}
}

func (g *Gateway) lease(rec *record, c *call, tried []*backend) (*lease, error) {
	l, waited, err := g.pool.lease(c.ctx, &c.want, tried)
	rec.inLine += waited
	rec.spans.waited(waited, err)
	if err != nil {
		return nil, err
	}
	l.backend.running.Inc()
	return l, nil
}

func (g *Gateway) release(l *lease) {
	l.backend.running.Dec()
	l.release()
}

// answered notes what an answer says of the backends that were tried before.
// Light requests prove nothing: a server whose engine fails has a list of models.
func (g *Gateway) answered(c *call, b *backend, failed []*backend, at time.Time) {
	if !c.want.light {
		g.tellEjected(g.pool.answered(b, failed, at))
	}
}

// unanswered notes that no backend has answered, unless that was a matter of time.
func (g *Gateway) unanswered(c *call, err error, tried []*backend) {
	if c.ctx.Err() == nil && !c.want.light && (err == nil || mendable(err)) {
		g.tellEjected(g.pool.unanswered(tried, err == nil))
	}
}

func (g *Gateway) tellEjected(out map[*backend]time.Duration) {
	for f, hold := range out {
		g.metrics.ejections.WithLabelValues(f.name).Inc()
		g.log.Warn("backend is passed over", "backend", f.name, "for", hold, "reason", "it fails requests that others answer")
		time.AfterFunc(hold, g.pool.wake) // then one of those that wait may try it
	}
}
