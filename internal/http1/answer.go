package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// outSize is how much of an answer is gathered: what one read from a backend
	// gives, with a head.
	outSize = 18 << 10
	// gap is room between a head and the body for what is known last: how long the
	// body is, and whether the connection stays.
	gap = 64
	// sizeRoom is room for the line with a chunk's size, endRoom for what follows the
	// data of the last one.
	sizeRoom = len("ffff\r\n")
	endRoom  = len("\r\n0\r\n\r\n")
	// direct is what goes out without being copied, if nothing of it must be framed.
	direct = 2 << 10
)

var outs = sync.Pool{New: func() any { b := make([]byte, outSize); return &b }}

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

var blanks [gap]byte

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

// gather takes bytes of the body into out, which is sent when it is full.
func (a *answer) gather(p []byte) (n int, err error) {
	for {
		if a.framed == plain && len(a.out) == 0 && len(p)-n >= direct {
			m, err := a.put(p[n:])
			return n + m, err
		}
		a.take()
		room := max(cap(a.out)-len(a.out)-endRoom, 0)
		m := min(room, len(p)-n)
		a.out = append(a.out, p[n:n+m]...)
		if n += m; n == len(p) {
			return n, nil
		}
		if err := a.send(false); err != nil {
			return n, err
		}
	}
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

// send writes what is in out. last: the body ends with it.
func (a *answer) send(last bool) error {
	if len(a.out) == 0 {
		if last && a.framed == inChunks {
			_, err := a.put(lastChunk)
			return err
		}
		return nil
	}
	start := a.base
	n := len(a.out) - a.base
	if a.headLen > 0 {
		start = a.seal(n, last)
	} else if a.framed == inChunks {
		start -= putSize(a.out[:a.base], n)
	}
	if a.framed == inChunks && !a.isHead {
		if n > 0 {
			a.out = append(a.out, "\r\n"...)
		}
		if last {
			a.out = append(a.out, lastChunk...)
		}
	}
	_, err := a.put(a.out[start:])
	a.give()
	return err
}

var lastChunk = []byte("0\r\n\r\n")

// putSize writes the line with the size of a chunk at the end of room.
func putSize(room []byte, n int) (length int) {
	i := len(room) - 2
	room[i], room[i+1] = '\r', '\n'
	for ; n > 0; n >>= 4 {
		i--
		room[i] = "0123456789abcdef"[n&15]
	}
	return len(room) - i
}

// put writes to the connection.
func (a *answer) put(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	n, err := a.c.write(p)
	if err != nil {
		a.err, a.close = err, true
		a.cancel()
	}
	return n, err
}

// take sees to it that there is a buffer.
func (a *answer) take() {
	if a.buf != nil {
		return
	}
	a.buf = outs.Get().(*[]byte)
	a.out, a.base = (*a.buf)[:0], 0
	if a.framed == inChunks {
		a.out, a.base = (*a.buf)[:sizeRoom], sizeRoom
	}
}

// give gives the buffer back. One that a long head has made larger is let go.
func (a *answer) give() {
	if a.buf != nil {
		outs.Put(a.buf)
	}
	a.buf, a.out, a.base, a.headLen = nil, nil, 0, 0
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
	short := a.length >= 0 && a.written < a.length && !a.isHead
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
func (a *answer) SetReadDeadline(t time.Time) error { return a.c.readBy(t) }

// SetWriteDeadline is that of the connection; it ends with the answer.
func (a *answer) SetWriteDeadline(t time.Time) error { return a.c.writeBy(t) }

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

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}
