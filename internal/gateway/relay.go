package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/http1"
	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// lastWords is how long a client has to take what is said to it at the end (an
// error event, or the rest of a stream whose drain is over), and then to hang up.
const lastWords = time.Second

// relay sends the answer to the client as it arrives and returns when it has
// ended. After an error the client has not got all of it, and knows.
func (a *answer) relay(w *writer) error {
	dog := a.watchdog(w)
	defer dog.stop()
	a.rec.whenCut(dog.hurry)
	err := a.relayAll(dog)
	if err != nil && a.isStream() {
		a.fail(dog, err)
	}
	return err
}

func (a *answer) relayAll(dog *watchdog) error {
	if dog.w.begun && !a.isStream() {
		return a.asEvent(dog)
	}
	a.settle()
	a.writeHead(dog.w)
	if a.eof || a.isStream() && a.stream.ended {
		a.rec.release()
	}
	if err := dog.write(a.held, true); err != nil {
		return err
	}
	a.rec.begun(a)
	a.held = nil
	if a.isStream() {
		return a.relayStream(dog)
	}
	return a.relayBytes(dog)
}

// relayStream: one read, one look at its events, one write and flush; no timer
// between them that would gather more.
func (a *answer) relayStream(dog *watchdog) error {
	m := a.stream
	if m.aborted || a.eof && !m.whole() {
		return errCut
	}
	if a.eof {
		return nil
	}
	var failed error
	err := a.body.(*http1.Body).Each(func(p []byte) bool {
		now := time.Now()
		dog.pat(now)
		m.events.Add(p)
		out := m.read(now)
		if m.ended {
			a.rec.release()
		}
		failed = dog.write(out, true)
		m.events.Keep()
		return failed == nil && !m.aborted
	})
	switch {
	case failed != nil:
		return failed
	case m.aborted:
		return errCut
	case err == io.EOF:
		rest := m.rest(time.Now()) // the end mark may be in it
		if !m.whole() {
			return errCut
		}
		return dog.write(rest, true)
	case m.ended: // all that matters is here
		return nil
	}
	return a.cut(err)
}

// relayBytes relays an answer that is no stream of events. One whose length is
// known goes out as fast as it fills the connection's buffer; any other is
// flushed piece by piece, since it may be a stream of another kind.
func (a *answer) relayBytes(dog *watchdog) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	flush := a.header.Get("Content-Length") == ""
	for {
		n, err := a.body.Read(*buf)
		dog.pat(time.Now())
		if a.usage != nil {
			a.usage.Write((*buf)[:n])
		}
		if err == io.EOF {
			a.rec.release()
		}
		if err := dog.write((*buf)[:n], flush); err != nil {
			return err
		}
		switch {
		case err == nil:
		case err != io.EOF:
			return a.cut(err)
		case a.unframed && a.usage != nil && !a.usage.Whole():
			return errCut
		default:
			return dog.flush() // while somebody watches; net/http would, but without end
		}
	}
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// cut tells why a read from the backend failed.
func (a *answer) cut(err error) error {
	if a.ctx.Err() != nil {
		return blame(a.ctx, err)
	}
	return fmt.Errorf("%w: %v", errCut, plain(err))
}

// fail tells the client, in the stream, that the stream has failed: its status
// has been sent, and an end that looks clean would be a lie.
func (a *answer) fail(dog *watchdog, err error) {
	how, status, message := verdict(err)
	if how == cancelled {
		return
	}
	dog.hurry()
	if a.stream.events.Open() || a.eof {
		io.WriteString(dog.w, "\n\n") // ends the half event
	}
	dog.w.Write(a.stream.stream.Dialect.ErrorEvent(openai.NewError(status, message)))
	a.rec.told = dog.rc.Flush() == nil
}

// watchdog ends an answer that no longer moves, whichever side it is that
// stands still.
type watchdog struct {
	a       *answer
	w       *writer
	rc      *http.ResponseController
	limit   time.Duration
	start   time.Time
	moved   atomic.Int64 // when something last did: time.Duration from start
	writing atomic.Bool
	timer   *time.Timer // set for when nothing had moved, as if nothing will: to set it for each event is dear
	door    door
}

func (a *answer) watchdog(w *writer) *watchdog {
	d := &watchdog{a: a, w: w, rc: http.NewResponseController(w), limit: a.rec.conf.StreamIdleTimeout, start: time.Now()}
	d.door.through(func() { d.timer = time.AfterFunc(d.limit, d.wake) })
	return d
}

// wake looks whether something has moved, and comes again when it must have by then.
func (d *watchdog) wake() {
	left := d.limit - (time.Since(d.start) - time.Duration(d.moved.Load()))
	if left <= 0 {
		d.bite()
		return
	}
	d.door.through(func() { d.timer.Reset(left) })
}

func (d *watchdog) bite() {
	if !d.writing.Load() {
		d.a.cancel(errSilent)
		return
	}
	d.a.cancel(errStalled)
	d.door.through(func() { d.rc.SetWriteDeadline(time.Now()) }) // ends the write that hangs
}

// hurry leaves the client lastWords to take what is still to be said.
func (d *watchdog) hurry() {
	d.door.through(func() { d.rc.SetWriteDeadline(time.Now().Add(lastWords)) })
}

// pat: something moved.
func (d *watchdog) pat(now time.Time) { d.moved.Store(int64(now.Sub(d.start))) }

func (d *watchdog) stop() {
	d.door.shut()
	d.timer.Stop()
}

// write sends bytes to the client. It fails only if the client is gone, or does
// not read.
func (d *watchdog) write(p []byte, flush bool) error {
	if len(p) == 0 {
		return nil
	}
	d.writing.Store(true)
	var err error
	if flush {
		err = d.w.Send(p)
	} else {
		_, err = d.w.Write(p)
	}
	return d.wrote(err)
}

func (d *watchdog) flush() error {
	d.writing.Store(true)
	return d.wrote(d.rc.Flush())
}

func (d *watchdog) wrote(err error) error {
	d.writing.Store(false)
	d.pat(time.Now())
	if err != nil {
		if d.a.ctx.Err() != nil {
			return blame(d.a.ctx, err)
		}
		return fmt.Errorf("%w: %v", errGone, err)
	}
	return nil
}

// millis prints a duration in milliseconds, to the microsecond.
func millis(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', -1, 64)
}
