package gateway

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/http1"
	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// answer is a backend's answer, from its head to its end.
type answer struct {
	g       *Gateway
	rec     *record
	backend *backend
	lease   *lease
	ctx     context.Context // of this attempt; its cause says why it ended
	cancel  context.CancelCauseFunc

	status   int
	header   http.Header
	body     io.ReadCloser // nil where no answer came
	length   int64         // of the body; -1 where the head does not say
	unframed bool          // nothing but the connection's close says where it ends
	held     []byte        // read, and not sent yet
	eof      bool          // that is all
	sent     time.Time     // when the backend was asked
	ready    time.Time     // when there was something to send

	stream  *meter       // of a stream, else nil
	usage   *openai.Body // of a JSON answer, else nil
	upgrade bool         // a WebSocket was asked for
	failed  bool         // was a stream, and became an error
	closed  bool
	spans   *attemptSpans
}

// take begins with a head that has arrived.
func (a *answer) take(resp *http.Response, asked bool) {
	a.status, a.header, a.body = resp.StatusCode, dropHops(resp.Header), resp.Body
	a.length = resp.ContentLength
	a.unframed = resp.ContentLength < 0 && !slices.Contains(resp.TransferEncoding, "chunked")
	if coding := resp.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	switch kind = strings.ToLower(strings.TrimSpace(kind)); {
	case kind == "text/event-stream" && a.status/100 == 2:
		a.stream = newMeter(a.rec, asked)
		a.header.Del("Content-Length")
	case kind == "application/json":
		a.usage = &openai.Body{Dialect: a.rec.route.dialect}
	}
}

// hold reads until there is something to tell the client, and keeps it. Of a
// stream that is its first token, or its end, or MaxEvent bytes without either;
// of a small JSON answer, all of it; of any other, its first bytes. Until then
// every failure can still be told by a true status, or mended by another backend.
func (a *answer) hold() error {
	switch {
	case a.status == http.StatusSwitchingProtocols && a.upgrade && a.header.Get("Sec-WebSocket-Accept") != "":
		return nil
	case a.status < 200:
		return errMalformed // not asked for, or no status at all
	case a.stream == nil:
		return a.holdBytes()
	}
	m := a.stream
	err := a.body.(*http1.Body).Each(func(p []byte) bool {
		m.events.Add(p)
		a.held = append(a.held, m.read(time.Now())...)
		m.events.Keep()
		return m.first.IsZero() && m.failure == nil && !m.aborted && !m.ended && len(a.held) < openai.MaxEvent
	})
	if err == io.EOF {
		a.held, a.eof = append(a.held, m.rest(time.Now())...), true
	}
	switch {
	case m.failure != nil && m.first.IsZero():
		a.become(m.failure)
		return nil
	case m.aborted && m.first.IsZero(), m.ended && !m.begun() && m.failure == nil:
		return errCut
	case !m.first.IsZero(), m.ended, len(a.held) >= openai.MaxEvent:
		return nil
	case err == io.EOF && m.whole():
		return nil
	case err == io.EOF:
		return errCut
	}
	return err
}

func (a *answer) holdBytes() error {
	if a.usage != nil && 0 < a.length && a.length <= maxKept {
		return a.holdWhole()
	}
	buf := make([]byte, 4<<10)
	n, err := 0, error(nil)
	for n == 0 && err == nil {
		n, err = a.body.Read(buf)
	}
	a.held, a.eof = buf[:n], err == io.EOF
	if a.usage != nil {
		a.usage.Write(a.held)
	}
	switch {
	case n > 0: // an error will come again
		return nil
	case a.eof && a.unframed && a.usage != nil:
		return errCut // no JSON is empty
	case a.eof: // an answer without a body
		return nil
	}
	return err
}

// holdWhole reads an answer that the server has written in one go. A connection
// that breaks within it is mended like one that breaks before it.
func (a *answer) holdWhole() error {
	// That it has begun is known; from here on silence is what may not last.
	silence := time.AfterFunc(a.rec.conf.StreamIdleTimeout, func() { a.cancel(errSilent) })
	defer silence.Stop()
	a.held = make([]byte, a.length)
	if _, err := io.ReadFull(a.body, a.held); err != nil {
		return a.cut(err)
	}
	a.eof = true
	a.usage.ReadWhole(a.held)
	if a.status/100 == 2 && a.rec.route.dialect.Aborted(a.held) {
		return errCut
	}
	return nil
}

// become turns a stream in which the engine failed before any token into the
// HTTP error that it would have been, had vLLM known in time.
func (a *answer) become(f *openai.Failure) {
	a.body.Close()
	a.status, a.held, a.body = f.Status, f.Body, http.NoBody
	a.header = http.Header{"Content-Type": {"application/json"}}
	a.unframed, a.failed = false, true
}

// maxKept and keepWithin bound what is kept of an answer for which another
// backend is tried.
const (
	maxKept    = 64 << 10 // bytes
	keepWithin = time.Second
)

// keep reads a small answer to its end, so that it can still be given once its
// backend is released. It reports whether it is whole.
func (a *answer) keep() bool {
	limit := time.AfterFunc(keepWithin, func() { a.cancel(errSilent) })
	defer limit.Stop()
	rest, err := io.ReadAll(io.LimitReader(a.body, maxKept))
	a.held = append(a.held, rest...)
	a.body.Close()
	a.body = http.NoBody
	return err == nil && len(rest) < maxKept && !a.isStream()
}

// failedBy names the cause of an answer whose status is 5xx.
func (a *answer) failedBy() string {
	if a.failed {
		return causeStream
	}
	return causeStatus
}

// close ends the answer, whether or not it was read to its end, and gives the
// backend back.
func (a *answer) close() {
	if a.closed {
		return
	}
	a.closed = true
	a.spans.end(a)
	a.cancel(nil) // ends the upstream request, if it still runs, at once
	if a.body != nil {
		a.body.Close()
	}
	a.g.release(a.lease)
}

// isStream reports whether the answer goes to the client as a stream.
func (a *answer) isStream() bool { return a.stream != nil && !a.failed }

// writeHead sends status and headers.
func (a *answer) writeHead(w *writer) {
	if w.begun { // with comments
		return
	}
	h := w.Header()
	for name, values := range a.header {
		if name != "X-Request-Id" && !(a.rec.granted && isRateHeader(name)) {
			h[name] = values
		}
	}
	if a.isStream() && !a.rec.first.IsZero() {
		h.Add("Server-Timing", "ttft;dur="+millis(a.rec.first.Sub(a.rec.start)))
	}
	w.WriteHeader(a.status)
}
