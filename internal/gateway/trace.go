package gateway

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Attributes of spans, a row in docs/tracing.md each. Those that are not ours are
// named by OpenTelemetry's semantic conventions: HTTP, and GenAI as of 1.41, the last
// version that Go's constants are made of.
const (
	attrRequestID = attribute.Key("gateway.request.id")
	attrCaller    = attribute.Key("gateway.caller")
	attrModel     = attribute.Key("gateway.model")
	attrOutcome   = attribute.Key("gateway.outcome")
	attrReused    = attribute.Key("gateway.connection.reused")

	attrErrorType   = attribute.Key("error.type")
	attrMethod      = attribute.Key("http.request.method")
	attrResend      = attribute.Key("http.request.resend_count")
	attrStatus      = attribute.Key("http.response.status_code")
	attrRoute       = attribute.Key("http.route")
	attrHTTPVersion = attribute.Key("network.protocol.version")
	attrServer      = attribute.Key("server.address")
	attrPort        = attribute.Key("server.port")
	attrPath        = attribute.Key("url.path")
	attrScheme      = attribute.Key("url.scheme")
	attrOperation   = attribute.Key("gen_ai.operation.name")
	attrProvider    = attribute.Key("gen_ai.provider.name")
	attrAskedModel  = attribute.Key("gen_ai.request.model")
	attrStream      = attribute.Key("gen_ai.request.stream")
	attrInput       = attribute.Key("gen_ai.usage.input_tokens")
	attrOutput      = attribute.Key("gen_ai.usage.output_tokens")
)

// operations are the GenAI conventions' names of what is asked for, by route. They
// have none for the rest.
var operations = map[string]string{
	"/v1/chat/completions":       "chat",
	"/v1/chat/completions/batch": "chat",
	"/v1/responses":              "chat",
	"/v1/messages":               "chat",
	"/v1/completions":            "text_completion",
	"/v1/embeddings":             "embeddings",
	"/v2/embed":                  "embeddings",
}

// spans are a request's part of a trace. The zero spans are of no trace: tracing is
// off, and every method does nothing.
type spans struct {
	tracer trace.Tracer
	server trace.Span
	ctx    context.Context // holds server, and nothing else
	// sampled: somebody will see them. Else there is a trace to be carried on, and
	// nothing to be written down.
	sampled bool
}

// begin begins the request's own span: within the client's trace, if it sends one,
// else in a new one.
func (s *spans) begin(t trace.Tracer, r *http.Request, rec *record) {
	if t == nil {
		return
	}
	method := r.Method
	if method != rec.route.method && !slices.Contains(methods, method) {
		method = "HTTP" // the client's invention
	}
	parent := propagation.TraceContext{}.Extract(context.Background(), carrier(r.Header))
	s.tracer = t
	s.ctx, s.server = t.Start(parent, method+" "+rec.route.path, trace.WithTimestamp(rec.start), trace.WithSpanKind(trace.SpanKindServer))
	if s.sampled = s.server.IsRecording(); !s.sampled {
		return
	}
	if method == "HTTP" {
		method = "_OTHER"
	}
	version, scheme := strings.TrimPrefix(r.Proto, "HTTP/"), "http"
	if r.ProtoMajor > 1 {
		version = strconv.Itoa(r.ProtoMajor)
	}
	if r.TLS != nil {
		scheme = "https"
	}
	s.server.SetAttributes(
		attrMethod.String(method),
		attrRoute.String(rec.route.path),
		attrPath.String(rec.conf.callers.hide(rec.route.target(r.URL.EscapedPath()))),
		attrScheme.String(scheme),
		attrHTTPVersion.String(version),
		attrRequestID.String(rec.id),
	)
}

// oursToBlame: by the conventions what is answered 4xx is no error of a server. (The
// status that was sent may be that of comments.)
func oursToBlame(err error) bool {
	_, status, _ := verdict(err)
	return status >= http.StatusInternalServerError
}

var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodConnect}

// end ends the request's own span.
func (s *spans) end(rec *record, at time.Time) {
	if !s.sampled {
		return
	}
	s.server.SetAttributes(attrOutcome.String(string(rec.outcome)), attrCaller.String(rec.callerName()))
	if rec.label != "" {
		s.server.SetAttributes(attrModel.String(rec.label))
	}
	if rec.w.begun {
		s.server.SetAttributes(attrStatus.Int(rec.w.status))
	}
	switch {
	case rec.outcome == ok, rec.outcome == cancelled, rec.outcome == clientError, rec.outcome == limited:
	case rec.outcome == refused && !oursToBlame(rec.err):
	default:
		fail(s.server, rec.outcome, rec.err, rec.w.status)
	}
	s.server.End(trace.WithTimestamp(at))
}

// carry has what is sent to backends go on with the trace.
func (s *spans) carry(h http.Header) {
	if s.tracer != nil {
		inject(s.ctx, h)
	}
}

// waited notes the time that a request has spent in the line, up to now.
func (s *spans) waited(d time.Duration, err error) {
	if !s.sampled || d == 0 {
		return
	}
	now := time.Now()
	span := s.child(s.ctx, "wait", now.Add(-d))
	failWith(span, err)
	span.End(trace.WithTimestamp(now))
}

func (s *spans) child(ctx context.Context, name string, at time.Time) trace.Span {
	_, span := s.tracer.Start(ctx, name, trace.WithTimestamp(at))
	return span
}

// attemptSpans are those of one attempt. nil is none.
type attemptSpans struct {
	of        *spans
	client    trace.Span
	ctx       context.Context // holds client, and nothing else
	operation string          // in the GenAI conventions' words; "": they have none
	method    string
	resend    int  // attempts before it
	stream    bool // one was asked for
	connects  []connect
	err       error // why there is no answer
}

// connect is the way to one connection.
type connect struct {
	from, to time.Time // to: zero while there is none
	reused   bool
}

// maxConnects bounds them: net/http takes another pooled connection as long as it
// finds those that it takes closed.
const maxConnects = 8

// attempt begins the span of one attempt, which goes to the backend in the place of
// the client's.
func (s *spans) attempt(a *answer, c *call) *attemptSpans {
	if !s.sampled {
		return nil
	}
	rec := a.rec
	at := &attemptSpans{of: s, method: c.method, resend: rec.attempts - 1, stream: c.stream}
	name := c.method + " " + rec.route.path
	if op := operations[rec.route.path]; op != "" && c.method == rec.route.method {
		at.operation = op
		name = strings.TrimSuffix(at.operation+" "+rec.label, " ")
	}
	at.ctx, at.client = s.tracer.Start(s.ctx, name, trace.WithTimestamp(a.sent), trace.WithSpanKind(trace.SpanKindClient))
	c.header = maps.Clone(c.header) // the last attempt's may still be being written
	inject(at.ctx, c.header)
	return at
}

// watch has the attempt see how it comes to a connection. net/http tells it from
// within RoundTrip.
func (s *attemptSpans) watch(ctx context.Context) context.Context {
	if s == nil {
		return ctx
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			if len(s.connects) < maxConnects {
				s.connects = append(s.connects, connect{from: time.Now()})
			}
		},
		GotConn: func(i httptrace.GotConnInfo) {
			if last := len(s.connects) - 1; s.connects[last].to.IsZero() {
				s.connects[last].to, s.connects[last].reused = time.Now(), i.Reused
			}
		},
	})
}

// fail notes why an attempt has brought no answer.
func (s *attemptSpans) fail(err error) {
	if s != nil {
		s.err = err
	}
}

// end ends the spans of an attempt that is over; its context must still be able to
// say whether it has ended before.
func (s *attemptSpans) end(a *answer) {
	if s == nil {
		return
	}
	now, rec := time.Now(), a.rec
	s.describe(a)
	err := s.err
	if err == nil {
		err = rec.err
	}
	byStatus := err == nil && a.status >= http.StatusBadRequest
	if err == nil && !byStatus && rec.outcome == internal { // no end has come of it yet
		err = blame(a.ctx, a.ctx.Err())
	}
	failAs := func(span trace.Span) {
		switch {
		case !byStatus:
			failWith(span, err)
		case a.failed:
			fail(span, backendError, errInStream, 0)
		default:
			fail(span, backendError, nil, a.status)
		}
	}
	var sent time.Time // on a connection
	for _, c := range s.connects {
		span := s.of.child(s.ctx, "connect", c.from)
		if c.to.IsZero() {
			c.to = now
			failAs(span)
		} else {
			span.SetAttributes(attrReused.Bool(c.reused))
			sent = c.to
		}
		span.End(trace.WithTimestamp(c.to))
	}
	var first time.Time
	if a.stream != nil {
		first = a.stream.first
	}
	switch {
	case !first.IsZero():
		s.of.child(s.ctx, "first token", sent).End(trace.WithTimestamp(first))
		span := s.of.child(s.ctx, "stream", first)
		failAs(span)
		span.End(trace.WithTimestamp(now))
	case s.stream && !sent.IsZero(): // it was waited for, in vain
		span := s.of.child(s.ctx, "first token", sent)
		failAs(span)
		span.End(trace.WithTimestamp(now))
	}
	failAs(s.client)
	s.client.End(trace.WithTimestamp(now))
}

// describe says what was asked of whom, and what came of it.
func (s *attemptSpans) describe(a *answer) {
	rec := a.rec
	set := make([]attribute.KeyValue, 0, 12)
	if s.operation != "" {
		set = append(set, attrOperation.String(s.operation), attrProvider.String("vllm"))
		if rec.model != "" {
			set = append(set, attrAskedModel.String(clip(rec.model)))
		}
		if s.stream {
			set = append(set, attrStream.Bool(true))
		}
		if rec.usage.HasPrompt {
			set = append(set, attrInput.Int(rec.usage.Prompt))
		}
		if rec.usage.HasCompletion {
			set = append(set, attrOutput.Int(rec.usage.Completion))
		}
	}
	host, port, _ := net.SplitHostPort(a.backend.name)
	number, _ := strconv.Atoi(port)
	set = append(set, attrMethod.String(s.method), attrServer.String(host), attrPort.Int(number))
	if s.resend > 0 {
		set = append(set, attrResend.Int(s.resend))
	}
	if a.status > 0 && !a.failed {
		set = append(set, attrStatus.Int(a.status))
	}
	s.client.SetAttributes(set...)
}

// failWith marks what has ended with an error, unless nobody is to blame: clients
// may leave.
func failWith(span trace.Span, err error) {
	if err == nil {
		return
	}
	if how, _, _ := verdict(err); how != cancelled {
		fail(span, how, err, 0)
	}
}

// fail marks a span as failed. The error's text is what the log has, too, but for
// that of a connection, which may name a client's address; of an answer's status
// there is no more to say.
func fail(span trace.Span, how outcome, err error, status int) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op != "dial" {
		_, _, text = verdict(err)
	}
	span.SetStatus(codes.Error, text)
	span.SetAttributes(attrErrorType.String(errorType(how, err, status)))
}

// errorType names an error by a word of a fixed set.
func errorType(how outcome, err error, status int) string {
	var wait *waitError
	switch {
	case err == nil && status >= http.StatusBadRequest:
		return strconv.Itoa(status)
	case errors.As(err, &wait):
		return wait.why
	case errors.Is(err, errNoRoom):
		return noMemory
	case errors.Is(err, errNoBackend):
		return "no_backend"
	case errors.Is(err, errInStream):
		return causeStream
	case errors.Is(err, errNoStream):
		return "no_stream"
	case err != nil && (how == backendError || how == timedOut):
		return causeOf(err)
	}
	return string(how)
}

// inject writes the span of ctx into the headers, for whatever trace stands there.
func inject(ctx context.Context, h http.Header) {
	delete(h, "Tracestate") // said of the parent; goes on only with it
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
}

// carrier reads a trace's headers. traceparent is one, or none; tracestate may come
// in parts (W3C Trace Context, 3.2 and 3.3).
type carrier http.Header

// Get is called with the names in lower case.
func (h carrier) Get(name string) string {
	all := http.Header(h).Values(name)
	switch {
	case name != "tracestate" && len(all) == 1:
		return all[0]
	case name == "tracestate":
		state := strings.Join(all, ",")
		if key := presentedKey(http.Header(h)); key != "" && strings.Contains(state, key) {
			return "" // it would go to backends, and to who collects spans
		}
		return state
	}
	return ""
}

func (h carrier) Set(string, string) {}
func (h carrier) Keys() []string     { return nil }
