package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/limits"
	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// record is all that is remembered of one request. It is written once, at the
// end: one log line, and every metric that is a matter of the whole request.
type record struct {
	g     *Gateway
	conf  *settings
	w     *writer
	route route
	id    string
	start time.Time
	// http10: the client cannot tell a cut body from a whole one by its framing.
	http10 bool

	caller *caller // nil: nobody in particular
	key    string  // the caller's
	// keyNumber is which of the caller's keys that is, from 1.
	keyNumber int
	entered   bool  // it has a place of the caller's
	guess     guess // what it may cost
	grant     limits.Grant
	granted   bool

	model    string      // as the client named it
	label    string      // the same, if a backend lists it; never a client's invention
	backend  string      // the last one tried
	series   *pairSeries // of label and backend; nil: none was tried
	attempts int
	inLine   time.Duration // spent waiting for a backend with room
	body     *payload      // nil until the request has been read

	read  time.Time     // the request was read whole
	own   time.Duration // from there to the first attempt, without the line
	first time.Time     // the first token, of a stream
	usage openai.Usage
	// tokenEvents is how many events of its stream have borne tokens.
	tokenEvents int

	earlier, later *record // among those that run; guarded by running.mu
	cancel         context.CancelCauseFunc
	atCut          atomic.Pointer[func()]

	outcome  outcome
	err      error
	released bool // the id has been given back
	told     bool // the client was told, in the stream, that it has failed
	spans    spans
}

// Phases of gateway_cancelled_requests_total.
const (
	beforeFirstByte = "before_first_byte"
	afterFirstByte  = "after_first_byte"
)

// otherModel stands for every model that no backend lists: labels come from
// backends, not from clients, or clients could make series without end.
const otherModel = "other"

func (g *Gateway) begin(w http.ResponseWriter, r *http.Request, rt route) *record {
	g.metrics.queueDepth.Inc()
	rec := &record{g: g, conf: g.settings(), w: g.newWriter(w), route: rt, start: time.Now(), http10: !r.ProtoAtLeast(1, 1), outcome: internal}
	asked := r.Header.Get("X-Request-Id")
	if c, _ := rec.conf.callers.find(asked); c != nil { // a key is no id: it would be logged
		asked = ""
	}
	rec.id = g.ids.take(asked)
	w.Header().Set("X-Request-Id", rec.id)
	rec.spans.begin(g.tracer, r, rec)
	return rec
}

// name notes which model the request is for.
func (rec *record) name(model string) {
	rec.model = model
	switch {
	case model == "", rec.g.pool.known(model):
		rec.label = model
	default:
		rec.label = otherModel
	}
}

// on notes which backend is tried.
func (rec *record) on(b *backend) {
	rec.backend, rec.series = b.name, b.series(rec.g.metrics, rec.label)
}

// fail notes the error that ends the request; the first one holds.
func (rec *record) fail(how outcome, err error) {
	if rec.err == nil {
		rec.outcome, rec.err = how, err
	}
}

// firstToken is observed as it happens: a stream may go on for many minutes.
func (rec *record) firstToken(at time.Time) {
	rec.first = at
	rec.series.ttft.Observe(at.Sub(rec.start).Seconds())
}

// begun notes that the answer's first bytes have gone out.
func (rec *record) begun(a *answer) {
	queued := a.sent.Sub(rec.read)
	rec.g.metrics.waiting.Observe(queued.Seconds())
	rec.g.metrics.overhead.Observe((rec.own + time.Since(a.ready)).Seconds())
}

// usageOf takes over what the answer has said of its cost.
func (rec *record) usageOf(a *answer) {
	switch {
	case a.stream != nil:
		rec.usage, rec.tokenEvents = a.stream.stream.Usage, a.stream.tokens
	case a.usage != nil:
		rec.usage = a.usage.Usage
	}
}

// finish notes an answer that the client has got whole.
func (rec *record) finish(a *answer) {
	rec.usageOf(a)
	a.settle()
	switch {
	case a.isStream() && a.stream.failure != nil:
		rec.g.metrics.upstreamErrors.WithLabelValues(a.backend.name, causeStream).Inc()
		rec.fail(backendError, errInStream)
	case rec.err == nil:
		rec.outcome = outcomeOf(a.status)
		if a.isStream() {
			a.stream.finish()
		}
	}
}

// outcomeOf is the outcome of an answer that was relayed whole.
func outcomeOf(status int) outcome {
	switch {
	case status >= 500:
		return backendError
	case status >= 400:
		return clientError
	}
	return ok
}

// release gives the id back: the backend is through with it. That is before the
// last bytes go out, for a client that has them may come again with the same id
// at once.
func (rec *record) release() {
	if !rec.released {
		rec.released = true
		rec.g.ids.give(rec.id)
	}
}

func (rec *record) end() {
	rec.body.release()
	m, took := rec.g.metrics, time.Since(rec.start)
	rec.release()
	m.queueDepth.Dec()
	m.rps.Inc()
	m.requests.WithLabelValues(rec.label, rec.route.path, class(rec.w.status), string(rec.outcome)).Inc()
	if s := rec.series; s == nil {
		m.duration.WithLabelValues(rec.label, rec.backend).Observe(took.Seconds())
	} else {
		s.duration.Observe(took.Seconds())
		if rec.usage.HasPrompt {
			s.prompt.Add(float64(rec.usage.Prompt))
		}
		if rec.usage.HasCompletion {
			s.completion.Add(float64(rec.usage.Completion))
		}
	}
	if rec.outcome == cancelled {
		phase := beforeFirstByte
		if rec.w.begun && !errors.Is(rec.err, errLeft) {
			phase = afterFirstByte
		}
		m.cancelled.WithLabelValues(phase).Inc()
	}
	rec.g.account(rec)
	rec.log(took)
	rec.spans.end(rec, rec.start.Add(took))
	rec.conf.limiter.leave()
}

// linger leaves the connection open until a client that was told of a failure
// has hung up, or has had the time to. A close right behind the last words can
// overtake them within the client: fetch throws away what it has received and
// not yet handed on when the connection closes.
func (rec *record) linger(client context.Context) {
	if !rec.told {
		return
	}
	select {
	case <-client.Done():
	case <-time.After(lastWords):
	}
}

// anonymous is the caller of a request without a key, or with one that is none.
const anonymous = "anonymous"

func (rec *record) callerName() string {
	if rec.caller == nil {
		return anonymous
	}
	return rec.caller.Name
}

func (rec *record) log(took time.Duration) {
	attrs := []slog.Attr{
		slog.String("id", rec.id),
		slog.String("caller", rec.callerName()),
		slog.String("path", rec.route.path),
		slog.String("model", clip(rec.model)),
		slog.String("backend", rec.backend),
		slog.Int("status", rec.w.status),
		slog.String("outcome", string(rec.outcome)),
		slog.Float64("duration_s", took.Seconds()),
	}
	if rec.inLine > 0 {
		attrs = append(attrs, slog.Float64("waited_s", rec.inLine.Seconds()))
	}
	if rec.attempts > 1 {
		attrs = append(attrs, slog.Int("attempts", rec.attempts))
	}
	if !rec.first.IsZero() {
		attrs = append(attrs, slog.Float64("ttft_s", rec.first.Sub(rec.start).Seconds()))
	}
	if rec.usage.HasPrompt {
		attrs = append(attrs, slog.Int("prompt_tokens", rec.usage.Prompt))
	}
	if rec.usage.HasCompletion {
		attrs = append(attrs, slog.Int("completion_tokens", rec.usage.Completion))
	}
	if rec.caller != nil && len(rec.caller.Keys) > 1 {
		attrs = append(attrs, slog.Int("key", rec.keyNumber))
	}
	if rec.caller != nil && !rec.route.free {
		tokens, estimated := rec.cost()
		attrs = append(attrs, slog.Int64("charged_tokens", tokens))
		if estimated {
			attrs = append(attrs, slog.Bool("estimated", true))
		}
	}
	if rec.err != nil {
		attrs = append(attrs, slog.String("error", rec.err.Error()))
	}
	rec.g.log.LogAttrs(context.Background(), rec.g.level, "request", attrs...)
}

// clip keeps a client's words from filling the log.
func clip(s string) string {
	if len(s) > 128 {
		return s[:128] + "…"
	}
	return s
}

func class(status int) string {
	switch status / 100 {
	case 1:
		return "1xx"
	case 2:
		return "2xx"
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	}
	return "5xx"
}

// writer remembers what was sent.
type writer struct {
	http.ResponseWriter
	status  int
	begun   bool
	leaving *atomic.Bool
	sender  sender // nil: it has to be told to flush
}

// sender is a ResponseWriter that can send at once what it is given.
type sender interface{ Send(p []byte) error }

func (g *Gateway) newWriter(w http.ResponseWriter) *writer {
	s, _ := w.(sender)
	return &writer{ResponseWriter: w, leaving: &g.draining, sender: s}
}

// Send sends what it is given, at once.
func (w *writer) Send(b []byte) error {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	if w.sender != nil {
		return w.sender.Send(b)
	}
	if _, err := w.ResponseWriter.Write(b); err != nil {
		return err
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *writer) WriteHeader(status int) {
	w.status, w.begun = status, true
	if w.leaving.Load() { // since the request came, it may be
		w.Header().Set("Connection", "close")
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
