package gateway

import (
	"io"
	"net/http"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// comments keep a connection alive on which nothing can be said yet: while a
// request waits for a backend, or for its first token. A nil *comments is none.
type comments struct{ quit, done chan struct{} }

// comment begins to send comments to a client that wants a stream, if the gateway
// is told to. Nobody else may write before stop.
func (g *Gateway) comment(rec *record, c *call) *comments {
	if rec.conf.CommentEvery == 0 || !c.stream {
		return nil
	}
	s := &comments{make(chan struct{}), make(chan struct{})}
	go func() {
		defer close(s.done)
		rc := http.NewResponseController(rec.w)
		defer rc.SetWriteDeadline(time.Time{})
		tick := time.NewTicker(rec.conf.CommentEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-s.quit:
				return
			}
			rc.SetWriteDeadline(time.Now().Add(lastWords)) // stop waits for this write
			rec.comment()
			if rc.Flush() != nil {
				return
			}
		}
	}()
	return s
}

func (s *comments) stop() {
	if s != nil {
		close(s.quit)
		<-s.done
	}
}

// comment sends one comment, and a stream's head before the first.
func (rec *record) comment() {
	if !rec.w.begun {
		rec.w.Header().Set("Content-Type", "text/event-stream")
		rec.w.WriteHeader(http.StatusOK)
	}
	io.WriteString(rec.w, ": waiting\n\n")
}

// tell says an error in a stream that has begun with comments.
func (rec *record) tell(e openai.Error) {
	rc := http.NewResponseController(rec.w)
	rc.SetWriteDeadline(time.Now().Add(lastWords))
	rec.w.Write(rec.route.dialect.ErrorEvent(e))
	rec.told = rc.Flush() == nil
}

// asEvent says an answer that is no stream in one that has begun with comments:
// mostly it is an error, and its status can no longer be told.
func (a *answer) asEvent(dog *watchdog) error {
	rest, err := io.ReadAll(io.LimitReader(a.body, maxKept))
	if err != nil {
		return a.cut(err)
	}
	a.rec.release()
	e := openai.ReadError(a.status, append(a.held, rest...))
	if a.status < 400 {
		a.rec.fail(backendError, errNoStream)
		e = openai.NewError(http.StatusBadGateway, "The model server did not answer with a stream.")
	}
	err = dog.write(a.rec.route.dialect.ErrorEvent(e), true)
	a.rec.told = err == nil
	return err
}
