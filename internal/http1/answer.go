package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// answer is the http.ResponseWriter of one request. It holds a buffer from a write to
// the next flush.
type answer struct {
	c      *serverConn
	header http.Header
	body   requestBody

	isHead  bool // the request's method is HEAD
	minor   int  // the request's, as in HTTP/1.x
	hasBody bool // the request
	duplex  bool
	cancel  func() // of the request's context
	watched bool   // the client: it has sent all that it had to

	mu       sync.Mutex // nobody writes beside the handler, and if so not into another's buffer
	buf      *[]byte    // out's, to be given back
	out      []byte
	base     int   // where the body begins in out
	headLen  int   // of the head that is in out, without its last lines; 0: it has left
	status   int   // 0: none was said
	length   int64 // what was declared; -1: nothing
	written  int64
	framed   framed
	close    bool // the connection ends with the answer
	hijacked bool
	over     bool
	err      error // of a write
}

// framed says how a body's end is told.
type framed uint8

const (
	undecided framed = iota
	plain            // by a length, or by the connection's end
	inChunks
)

func (a *answer) Header() http.Header { return a.header }

// WriteHeader is net/http's: what is in the header now is what is sent.
func (a *answer) WriteHeader(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writeHeader(status)
}

func (a *answer) writeHeader(status int) {
	switch {
	case a.hijacked || a.over:
		return
	case a.status != 0:
		a.c.server.logf("http: superfluous WriteHeader(%d)", status)
		return
	case status < 100 || status > 999:
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	case status < 200 && status != http.StatusSwitchingProtocols:
		if a.minor >= 1 {
			a.take()
			a.out = append(appendHead(a.out[:0], a.minor, status, a.header), "\r\n"...)
			a.put(a.out)
			a.give()
		}
		return
	}
	a.status = status
	if a.length = -1; bodyAllowed(status) {
		if lengths := a.header["Content-Length"]; len(lengths) > 0 {
			if n, err := parseLength(trimSpace(lengths[0])); err == nil {
				a.length = n
			}
		}
	}
	a.close = a.close || hasToken(a.header["Connection"], "close")
	a.take()
	a.out = appendHead(a.out[:0], a.minor, status, a.header)
	a.headLen = len(a.out)
	a.base = a.headLen + gap
	for len(a.out) < a.base {
		a.out = append(a.out, blanks[:a.base-len(a.out)]...)
	}
}

// Write is net/http's. The bytes leave with the next Flush, or when there are many.
func (a *answer) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.write(p)
}

func (a *answer) write(p []byte) (int, error) {
	switch {
	case a.hijacked:
		return 0, http.ErrHijacked
	case a.over:
		return 0, net.ErrClosed
	case a.status == 0:
		a.writeHeader(http.StatusOK)
	}
	switch {
	case len(p) == 0:
		return 0, nil
	case !bodyAllowed(a.status):
		return 0, http.ErrBodyNotAllowed
	}
	a.written += int64(len(p))
	switch {
	case a.length >= 0 && a.written > a.length:
		return 0, http.ErrContentLength
	case a.isHead:
		return len(p), nil
	case a.err != nil:
		return 0, a.err
	}
	return a.gather(p)
}

// Send is Write and FlushError in one: a piece of a stream leaves at once.
func (a *answer) Send(p []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := a.write(p); err != nil {
		return err
	}
	return a.flush()
}

// Flush is http.Flusher's.
func (a *answer) Flush() { a.FlushError() }

// FlushError sends what was written, in one write. The error is that of the
// connection.
func (a *answer) FlushError() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.flush()
}

func (a *answer) flush() error {
	switch {
	case a.hijacked:
		return http.ErrHijacked
	case a.over:
		return net.ErrClosed
	case a.status == 0:
		a.writeHeader(http.StatusOK)
	}
	if a.err != nil {
		return a.err
	}
	return a.send(false)
}

// goOn tells a client that waits for it to send the body, unless it has an answer.
func (a *answer) goOn() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status == 0 && !a.hijacked && !a.over {
		a.put([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	}
}

// finish sends what is left when the handler has returned, and reports whether
// another request may follow on the connection.
func (a *answer) finish() (more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hijacked {
		return false
	}
	if a.status == 0 {
		a.writeHeader(http.StatusOK)
	}
	// What would have made it too long was refused, and is missing as well.
	short := a.length >= 0 && a.written != a.length && !a.isHead
	if a.err == nil {
		a.send(true)
	}
	a.give()
	a.over = true
	return !a.close && !short
}

// abandon: the handler has panicked. What was not sent is not. It reports whether the
// connection is somebody else's.
func (a *answer) abandon() (hijacked bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.give()
	a.over = true
	return a.hijacked
}

// SetReadDeadline is for the body's bytes that have not arrived.
func (a *answer) SetReadDeadline(t time.Time) error {
	if a.c.running.Load() != a { // it would be the next request's
		return net.ErrClosed
	}
	return a.c.readBy(t)
}

// SetWriteDeadline is that of the connection; it ends with the answer.
func (a *answer) SetWriteDeadline(t time.Time) error {
	if a.c.running.Load() != a {
		return net.ErrClosed
	}
	return a.c.writeBy(t)
}

// EnableFullDuplex leaves the request's body alone when the answer begins.
func (a *answer) EnableFullDuplex() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.duplex = true
	return nil
}

// Hijack gives the handler the connection, as net or tls made it, and what was read
// of it. What was written leaves first.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.hijacked:
		return nil, nil, http.ErrHijacked
	case a.over:
		return nil, nil, net.ErrClosed
	}
	if _, busy := a.body.finish(); busy {
		return nil, nil, errors.New("http1: the request's body is being read")
	}
	if a.status != 0 && a.err == nil {
		a.send(false)
	}
	a.give()
	a.hijacked = true
	conn, ahead := a.c.letGo(a)
	in := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(ahead), conn), max(len(ahead), 1<<10))
	if len(ahead) > 0 {
		in.Peek(len(ahead))
	}
	return conn, bufio.NewReadWriter(in, bufio.NewWriterSize(conn, 1<<10)), nil
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
