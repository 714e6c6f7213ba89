// Package gateway is the reverse proxy in front of vLLM servers: it relays their
// API byte for byte, tells the truth about it on /metrics, and keeps everything
// else on their port out of reach.
//
//	g, err := gateway.New(cfg)
//	http.Serve(l, g)
//	g.Drain(ctx)
//
// It never translates between APIs, never gathers a stream, never logs a prompt,
// a completion or a key, and never lets an answer that it knows has failed look
// like a finished one.
package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// Gateway is an http.Handler.
type Gateway struct {
	cfg     Config
	pool    pool
	ids     ids
	metrics *metrics
	scrape  http.Handler
	bodies  memory

	running  running
	draining atomic.Bool
	life     context.Context // ends with the drain: what still runs then ends with it
	end      context.CancelCauseFunc
	watchers sync.WaitGroup
	roads    []*road
	single   bool // there is one backend, and will be no other
	unwatch  context.CancelFunc
}

// New makes a gateway and begins to probe its backends. The error is that of
// [Config.Validate].
func New(cfg Config) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: connectTimeout}).DialContext
	}
	if cfg.SessionHeader == "" {
		cfg.SessionHeader = "X-Session-Id"
	}
	if cfg.PrefixBytes == 0 {
		cfg.PrefixBytes = 1024
	}
	if cfg.Resolver == nil {
		cfg.Resolver = newResolver(nil)
	}
	if cfg.MaxLoad == 0 {
		cfg.MaxLoad = defaultMaxLoad
	}
	g := &Gateway{cfg: cfg, metrics: newMetrics(cfg.Version), bodies: memory{max: cfg.BodyMemory}}
	g.pool = pool{choose: policies[cmp.Or(cfg.Routing, LeastInFlight)], maxLoad: cfg.MaxLoad, cap: cfg.MaxInFlight, running: map[uint64]int{}, begun: map[uint64]int{}, models: map[string]bool{}, listers: map[string]int{}}
	g.pool.line = line{max: cfg.MaxWaiting, limit: cfg.MaxWait, rows: map[rowKey]*row{}, gauge: g.metrics.line}
	g.scrape = g.metrics.handler()
	g.life, g.end = context.WithCancelCause(context.Background())
	var watching context.Context
	watching, g.unwatch = context.WithCancel(context.Background())
	shared := newRoad(cfg, "")
	g.roads = append(g.roads, shared)
	for _, text := range cfg.Backends {
		src, _ := parseSource(text) // validated above
		s := &place{source: src, weight: max(cfg.Weights[text], 1), road: shared}
		if src.kind == static {
			g.single = len(cfg.Backends) == 1
			found, _ := src.lookup(watching, nil) // cannot fail
			g.update(watching, s, found)
			continue
		}
		if src.kind == hosts && src.scheme == "https" {
			s.road = newRoad(cfg, strings.TrimSuffix(src.name, ".")) // what is connected to is an address
			g.roads = append(g.roads, s.road)
		}
		g.watchers.Go(func() { g.follow(watching, s) })
	}
	return g, nil
}

func newTransport(cfg Config) *http.Transport {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	return &http.Transport{
		Protocols:           &http1,
		DialContext:         cfg.Dial,
		DisableCompression:  true,
		IdleConnTimeout:     idleConnTimeout,
		MaxIdleConnsPerHost: 1024, // no limit on open ones: that would be a waiting line that nobody sees
		TLSHandshakeTimeout: connectTimeout,
	}
}

// ServeHTTP is the whole list of what can be reached.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	rc.SetWriteDeadline(time.Time{}) // an earlier request on the connection may have set one
	if g.draining.Load() || doubtful(r) {
		w.Header().Set("Connection", "close")
	}
	path := r.URL.EscapedPath()
	switch path {
	case "/health":
		g.own(w, r, g.serveHealth)
		return
	case "/metrics":
		g.own(w, r, g.scrape.ServeHTTP)
		return
	}
	rt, ok := find(path)
	if !ok {
		g.cfg.Log.Info("no such path", "method", clip(r.Method), "path", clip(path))
		openai.NewError(http.StatusNotFound, "This path is not served here.").WriteTo(w)
		return
	}
	g.serve(w, r, rt)
}

// own serves one of the gateway's own paths.
func (g *Gateway) own(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		openai.NewError(http.StatusMethodNotAllowed, errMethod.Error()).WriteTo(w)
		return
	}
	serve(w, r)
}

// serve is the way of a request, top to bottom.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, rt route) {
	g.running.begin()
	defer g.running.end()
	rec := g.begin(w, r, rt)
	defer rec.linger(r.Context())
	defer rec.end()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(g.life, func() { cancel(errDraining) })()

	switch {
	case g.life.Err() != nil:
		g.refuse(rec, errDraining)
		return
	case r.Method != rt.method && r.Method != http.MethodOptions:
		w.Header().Set("Allow", rt.method+", OPTIONS")
		g.refuse(rec, errMethod)
		return
	}
	c, err := g.call(ctx, rec, r)
	if err != nil {
		g.refuse(rec, err)
		return
	}
	if rt.path == realtimePath && r.Method == http.MethodGet {
		g.upgrade(rec, c, r)
		return
	}
	if rt.path == modelsPath && r.Method == http.MethodGet && (len(g.cfg.Aliases) > 0 || !g.single) {
		g.serveModels(rec, c)
		return
	}
	comments := g.comment(rec, c)
	a, err := g.forward(rec, c)
	comments.stop()
	if err != nil {
		g.refuse(rec, err)
		return
	}
	defer a.close()
	c.body.release()
	if err := a.relay(rec.w); err != nil {
		g.abort(rec, a, err)
	}
	rec.finish(a)
}

// call reads the request whole and makes of it what the backends get.
func (g *Gateway) call(ctx context.Context, rec *record, r *http.Request) (*call, error) {
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil || !wellFormedQuery(r.URL.RawQuery) {
		return nil, errBadQuery
	}
	body, err := readBody(ctx, rec.w, r, g.cfg.MaxBody, &g.bodies)
	if err != nil {
		return nil, err
	}
	rec.body, rec.read = body, time.Now()
	c := &call{ctx: ctx, method: r.Method, target: rec.route.target(r.URL.EscapedPath()), query: r.URL.RawQuery, body: body}
	c.header = backendHeader(r, rec.id)
	rec.spans.carry(c.header)
	if c.want, err = wanted(r); err != nil {
		return nil, err
	}

	var asked openai.Request
	if kind := r.Header.Get("Content-Type"); isForm(kind) {
		asked = openai.PeekForm(body.data, kind)
	} else {
		asked = openai.Peek(body.data)
	}
	if rec.route.path == realtimePath { // it has no body
		asked.Model = r.URL.Query().Get("model")
	}
	named := asked.Model
	model := g.resolve(named)
	if model != named {
		if asked, err = c.rename(model, asked, r.Header.Get("Content-Type")); err != nil {
			return nil, err
		}
	}
	c.want.model = model
	c.want.light = rec.route.light || r.Method == http.MethodOptions
	err = g.check(ctx, model, named)
	rec.name(model) // now that it may just have been listed
	if err != nil {
		return nil, err
	}
	c.want.key, c.want.begins = g.keys(r, model, asked)
	if id := cmp.Or(responseID(rec.route, r.URL.EscapedPath()), asked.Previous); id != "" && rec.route.dialect == openai.Responses {
		c.want.home = g.home(c, id)
	}
	c.stream = asked.Stream && rec.route.dialect != openai.Other
	if rec.route.usage {
		body.data, c.asked = asked.AskForUsage(body.data)
	}
	return c, nil
}

// abort ends an answer that the client has got a part of, in such a way that
// nobody can take the part for the whole.
func (g *Gateway) abort(rec *record, a *answer, err error) {
	how, _, _ := verdict(err)
	rec.usageOf(a)
	rec.fail(how, err)
	if cause := causeOf(err); cause != "" {
		g.metrics.upstreamErrors.WithLabelValues(a.backend.name, cause).Inc()
	}
	if rec.http10 && !a.isStream() {
		reset(rec.w)
	}
	panic(http.ErrAbortHandler)
}

// reset breaks a connection so that the client cannot miss it. An HTTP/1.0 body
// of unknown length ends with the connection, so closing it, which is what
// ErrAbortHandler does, would pass a part off as the whole.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}
