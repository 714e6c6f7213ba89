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
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/vllm-gateway/vllm-gateway/internal/http1"
	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// Gateway is an http.Handler.
type Gateway struct {
	log      *slog.Logger
	level    slog.Level // of the line per request
	dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	resolver *net.Resolver
	tracer   trace.Tracer

	conf     atomic.Pointer[settings]
	changing sync.Mutex // held by who changes the settings, and guards places and ended
	places   []*place
	ended    bool // the watchers are told to stop

	pool    pool
	ids     ids
	metrics *metrics
	scrape  http.Handler
	bodies  memory
	habits  habits
	local   *counting // nil: nobody has needed it

	settling sync.WaitGroup // the limits are told of ends

	running  running
	draining atomic.Bool
	life     context.Context // ends with the drain, and with it what still runs then
	end      context.CancelFunc
	watching context.Context
	watchers sync.WaitGroup
	unwatch  context.CancelFunc
	shared   *http1.Client // to all backends but those that have one of their own
}

// New makes a gateway and begins to probe its backends. The error is that of
// [Config.Validate].
func New(cfg Config) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Gateway{log: cfg.Log, level: cfg.RequestLevel, dial: cfg.Dial, resolver: cfg.Resolver, tracer: cfg.Tracer, metrics: newMetrics(cfg.Version)}
	if g.dial == nil {
		g.dial = (&net.Dialer{Timeout: connectTimeout}).DialContext
	}
	if g.resolver == nil {
		g.resolver = newResolver(nil)
	}
	g.pool = pool{running: map[uint64]int{}, begun: map[uint64]int{}, models: map[string]bool{}, listers: map[string]int{}}
	g.pool.line = line{rows: map[rowKey]*row{}, gauge: g.metrics.line}
	g.scrape = g.metrics.handler()
	g.life, g.end = context.WithCancel(context.Background())
	g.watching, g.unwatch = context.WithCancel(context.Background())
	g.shared = g.newRoad("")
	g.apply(cfg, nil)
	return g, nil
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
		if g.conf.Load().NoMetrics {
			break
		}
		g.own(w, r, g.scrape.ServeHTTP)
		return
	}
	rt, ok := find(path)
	if !ok {
		g.log.Info("no such path", "method", clip(r.Method), "path", clip(g.conf.Load().callers.hide(path)))
		openai.NewError(http.StatusNotFound, "This path is not served here.").WriteTo(w)
		return
	}
	g.serve(w, r, rt)
}

// Metrics serves /metrics, for a port of its own; see [Config.NoMetrics].
func (g *Gateway) Metrics() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) { g.own(w, r, g.scrape.ServeHTTP) })
	return mux
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
	rec := g.begin(w, r, rt)
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	rec.cancel = cancel
	g.running.begin(rec)
	defer g.running.end(rec)
	defer rec.linger(r.Context())
	defer rec.end()

	if err := g.admit(rec, r); err != nil {
		g.refuse(rec, err)
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
	if rt.path == modelsPath && r.Method == http.MethodGet && (len(rec.conf.Aliases) > 0 || !rec.conf.single || rec.caller.restricted()) {
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

// admit says whether a request gets in at all, before anything of it is read.
func (g *Gateway) admit(rec *record, r *http.Request) error {
	if g.life.Err() != nil {
		return errDraining
	}
	if err := g.identify(rec, r); err != nil {
		return err
	}
	if r.Method != rec.route.method && r.Method != http.MethodOptions {
		rec.w.Header().Set("Allow", rec.route.method+", OPTIONS")
		return errMethod
	}
	return rec.enter()
}

// preflight makes of a request that needs no key what the backends get: its headers.
// What else it brings is not read, or it could ask for something.
func (g *Gateway) preflight(ctx context.Context, rec *record, r *http.Request) *call {
	rec.body, rec.read = &payload{room: &g.bodies}, time.Now()
	c := &call{ctx: ctx, method: r.Method, target: rec.route.target(r.URL.EscapedPath()), body: rec.body, header: backendHeader(r, rec.id)}
	withhold(c.header, "")
	rec.spans.carry(c.header)
	c.want = want{caller: callerOf(r), priority: normal, light: true}
	return c
}

// call reads the request whole and makes of it what the backends get.
func (g *Gateway) call(ctx context.Context, rec *record, r *http.Request) (*call, error) {
	if rec.conf.callers != nil && rec.caller == nil {
		return g.preflight(ctx, rec, r), nil
	}
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil || !wellFormedQuery(r.URL.RawQuery) {
		return nil, errBadQuery
	}
	body, err := readBody(ctx, rec, r, &g.bodies)
	if err != nil {
		return nil, err
	}
	rec.body, rec.read = body, time.Now()
	c := &call{ctx: ctx, method: r.Method, target: rec.route.target(r.URL.EscapedPath()), query: r.URL.RawQuery, body: body}
	c.header = backendHeader(r, rec.id)
	if rec.conf.callers != nil {
		withhold(c.header, rec.key)
	}
	rec.spans.carry(c.header)
	if c.want, err = wanted(r, rec.caller); err != nil {
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
	named := rec.hide(asked.Model)
	if !rec.route.free && !rec.caller.mayUse(named, rec.conf) {
		rec.name(named)
		return nil, &modelForbidden{named}
	}
	if asked.Doubtful && rec.caller != nil && (rec.caller.restricted() || !isForm(r.Header.Get("Content-Type"))) {
		return nil, errDoubtful
	}
	model := g.resolve(rec.conf, named)
	if model != named {
		if asked, err = c.rename(model, asked, r.Header.Get("Content-Type")); err != nil {
			return nil, err
		}
	}
	c.want.model = model
	c.want.light = rec.route.light || r.Method == http.MethodOptions
	err = g.check(ctx, rec, model, named)
	rec.name(model) // now that it may just have been listed
	if err != nil {
		return nil, err
	}
	if err := g.reserve(ctx, rec, asked); err != nil {
		return nil, err
	}
	c.want.group, c.want.begins = groups(r, rec.conf, model, asked)
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
	if tcp, ok := conn.(interface{ SetLinger(int) error }); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}
