package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/vllm-gateway/vllm-gateway/internal/http1"
	"github.com/vllm-gateway/vllm-gateway/internal/limits"
	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// outcome is how a request ended, a label of gateway_requests_total.
type outcome string

const (
	ok           outcome = "ok"            // answered whole, below 400
	clientError  outcome = "client_error"  // 4xx, the gateway's or the backend's
	cancelled    outcome = "cancelled"     // the client left
	backendError outcome = "backend_error" // unreachable, 5xx, an error in the stream, an answer cut short
	timedOut     outcome = "timeout"       // the backend was silent for too long
	unavailable  outcome = "unavailable"   // the gateway is shutting down
	refused      outcome = "refused"       // the gateway had no room for it
	limited      outcome = "limited"       // the caller has used up what it may
	internal     outcome = "internal"      // a fault of ours
)

// Causes of a backend's failure, a label of gateway_upstream_errors_total.
const (
	causeConnect = "connect" // no connection
	causeReset   = "reset"   // the connection ended before the answer had begun
	causeTimeout = "timeout" // silence, before or within the answer
	causeStatus  = "status"  // 5xx
	causeStream  = "stream"  // an error reported inside a stream
	causeCut     = "cut"     // the answer ended early
)

var causes = []string{causeConnect, causeReset, causeTimeout, causeStatus, causeStream, causeCut}

var (
	errFirstByte  = errors.New("the backend did not begin to answer in time")
	errSilent     = errors.New("the backend fell silent")
	errNoBackend  = errors.New("no backend is usable")
	errCut        = errors.New("the backend's answer ended early")
	errInStream   = errors.New("the engine reported an error inside the stream")
	errGone       = errors.New("the client left")
	errStalled    = errors.New("the client stopped reading")
	errDraining   = errors.New("the gateway is shutting down")
	errMethod     = errors.New("this path does not take this method; the Allow header says which it takes")
	errLeft       = errors.New("the client left before its request was whole")
	errNoStream   = errors.New("the backend did not answer with a stream")
	errMalformed  = errors.New("the backend's answer is not sound HTTP")
	errTooLarge   = errors.New("the request body is too large")
	errSlowBody   = errors.New("the request body did not arrive in time")
	errBadBody    = errors.New("the request body is broken")
	errDoubtful   = errors.New("the request body is written in a way that servers read differently; write JSON in UTF-8 without a byte order mark, and forms as browsers do")
	errBadQuery   = errors.New("the query string is broken")
	errNoRoom     = errors.New("request bodies take all the memory that they may")
	errPriority   = errors.New("X-Priority: write high, normal or low")
	errBackendKey = errors.New("the backend does not take the key that the gateway has for it")
	errUpgrade    = errors.New("this path takes WebSocket upgrades over HTTP/1.1 only")
)

// statusClientGone is what logs and metrics show for a client that left before
// an answer had begun; nobody receives it. (nginx's number.)
const statusClientGone = 499

// blame turns an error met under ctx into the reason why ctx ended, if it did:
// reads and writes only say that it had.
func blame(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return errGone
}

// broken reports whether a connection broke, rather than brought nonsense.
func broken(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, http1.ErrHandshake) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// plain gives an error of the transport as it may be logged. What is said of a
// broken connection names addresses and system errors; what is said of a
// malformed answer may quote it.
func plain(err error) error {
	if broken(err) || errors.Is(err, errCut) || errors.Is(err, errBackendKey) {
		return err
	}
	return errMalformed
}

// verdict is what an error means for everybody: the client, metrics, the log.
// message is for the client and names no addresses.
func verdict(err error) (how outcome, status int, message string) {
	var full *waitError
	switch {
	case errors.As(err, &full) && full.own:
		return refused, http.StatusTooManyRequests, "Too many of your requests are waiting. Try again later."
	case errors.As(err, &full):
		return refused, http.StatusServiceUnavailable, "All model servers are busy, and the wait would be too long. Try again later."
	case errors.Is(err, errNoKey):
		return clientError, http.StatusUnauthorized, "A valid API key is needed, as \"Authorization: Bearer …\" or \"x-api-key: …\"."
	case errors.As(err, new(*modelForbidden)):
		return clientError, http.StatusForbidden, err.Error()
	case errors.As(err, new(*limitError)):
		return limited, http.StatusTooManyRequests, err.Error()
	case errors.Is(err, limits.ErrUnavailable):
		return refused, http.StatusServiceUnavailable, "The limits of your API key cannot be looked up at the moment. Try again."
	case errors.Is(err, errBackendKey):
		return backendError, http.StatusBadGateway, "The model server refused the gateway."
	case errors.Is(err, errNoRoom):
		return refused, http.StatusServiceUnavailable, "Too many large requests at a time. Try again later."
	case errors.Is(err, errGone), errors.Is(err, errStalled):
		return cancelled, statusClientGone, err.Error()
	case errors.Is(err, errLeft):
		return cancelled, http.StatusBadRequest, err.Error()
	case errors.As(err, new(*modelError)):
		return clientError, http.StatusNotFound, err.Error()
	case errors.Is(err, errMethod):
		return clientError, http.StatusMethodNotAllowed, err.Error()
	case errors.Is(err, errDraining):
		return unavailable, http.StatusServiceUnavailable, "The gateway is shutting down. Try again."
	case errors.Is(err, errNoBackend):
		return backendError, http.StatusServiceUnavailable, "No model server is ready. Try again."
	case errors.Is(err, errTooLarge):
		return clientError, http.StatusRequestEntityTooLarge, err.Error()
	case errors.Is(err, errSlowBody):
		return clientError, http.StatusRequestTimeout, err.Error()
	case errors.Is(err, errBadBody), errors.Is(err, errDoubtful), errors.Is(err, errBadQuery), errors.Is(err, errPriority), errors.Is(err, errKeyInURL):
		return clientError, http.StatusBadRequest, err.Error()
	case errors.Is(err, errUpgrade):
		return clientError, http.StatusUpgradeRequired, err.Error()
	case errors.Is(err, errFirstByte):
		return timedOut, http.StatusGatewayTimeout, "The model server did not begin to answer in time."
	case errors.Is(err, errSilent):
		return timedOut, http.StatusGatewayTimeout, "The model server fell silent in the middle of its answer."
	case errors.Is(err, errCut):
		return backendError, http.StatusBadGateway, "The model server's answer ended early."
	case causeOf(err) == causeConnect:
		return backendError, http.StatusBadGateway, "The model server could not be reached."
	}
	return backendError, http.StatusBadGateway, "The model server broke the connection before it answered."
}

// unreached reports whether a connection could not be made. Where that took too long,
// net says so in two ways, by chance: one of them is a [context.DeadlineExceeded], as
// of an answer that does not come.
func unreached(err error) bool {
	var dial *net.OpError
	return errors.As(err, &dial) && dial.Op == "dial"
}

// causeOf names a backend's failure; "" for what is not the backend's.
func causeOf(err error) string {
	switch {
	case unreached(err), errors.Is(err, http1.ErrHandshake):
		return causeConnect
	case errors.Is(err, errFirstByte), errors.Is(err, errSilent), errors.Is(err, context.DeadlineExceeded):
		return causeTimeout
	case errors.Is(err, errCut):
		return causeCut
	case errors.Is(err, errBackendKey):
		return causeStatus
	case errors.Is(err, errGone), errors.Is(err, errStalled), errors.Is(err, errDraining):
		return ""
	}
	return causeReset
}

// bodyError tells why a request body could not be read.
func bodyError(err error, max int64) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return fmt.Errorf("%w: the limit is %d bytes", errTooLarge, max)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSlowBody
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return errLeft
	}
	return fmt.Errorf("%w: %v", errBadBody, err)
}

// refuse answers a request to which nothing has been sent yet.
func (g *Gateway) refuse(rec *record, err error) {
	how, status, message := verdict(err)
	rec.fail(how, err)
	if status == statusClientGone {
		rec.w.status = status // for the log; there is nobody to send it to
		panic(http.ErrAbortHandler)
	}
	e := openai.NewError(status, message)
	var wait *waitError
	var model *modelError
	var limit *limitError
	switch {
	case errors.Is(err, errNoKey):
		g.metrics.unauthorized.Inc()
		rec.w.Header().Set("WWW-Authenticate", "Bearer")
	case errors.As(err, &limit):
		limit.sayWhen(rec.w.Header())
	case errors.As(err, &wait):
		g.metrics.refused.WithLabelValues(wait.why).Inc()
		rec.w.Header().Set("Retry-After", wait.retryAfter())
	case errors.As(err, &model):
		e = model.body()
	case status == http.StatusServiceUnavailable:
		switch {
		case errors.Is(err, errNoRoom):
			g.metrics.refused.WithLabelValues(noMemory).Inc()
		case errors.Is(err, limits.ErrUnavailable):
			g.metrics.refused.WithLabelValues(noLimits).Inc()
		}
		rec.w.Header().Set("Retry-After", "1")
	}
	if rec.w.begun { // comments have gone out
		rec.tell(e)
		return
	}
	if model != nil {
		model.writeTo(rec.w, rec.route)
		return
	}
	e.WriteTo(rec.w)
}
