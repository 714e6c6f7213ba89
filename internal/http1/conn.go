package http1

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// bufferSize is what one read asks for. Events of tokens have some hundred bytes, and
// most requests have less than this; 16 KiB would win 6 % where a backend writes
// faster than can be relayed, and lose memory.
const bufferSize = 4 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

func takeBuffer() *[]byte  { return buffers.Get().(*[]byte) }
func giveBuffer(b *[]byte) { buffers.Put(b) }

// conn is a connection of either side. It holds a buffer only while something is in
// it.
type conn struct {
	net.Conn
	quick *quick  // the same, or what lies below TLS; nil: there is none
	rest  []byte  // was read, and not used yet
	buf   *[]byte // holds rest; nil: it is empty
	ahead *ahead
}

// newConn makes a conn of a connection that may have been through quicken.
func newConn(c net.Conn) *conn {
	if secure, ok := c.(*tls.Conn); ok {
		return &conn{Conn: c, quick: asQuick(secure.NetConn())}
	}
	return &conn{Conn: c, quick: asQuick(c)}
}

// isQuick: what is read and written goes right to the socket.
func (c *conn) isQuick() bool { return c.quick != nil && c.Conn == net.Conn(c.quick) }

// underneath is the connection as net, or tls, made it, for somebody else. Nobody
// looks for a hangup any more.
func (c *conn) underneath() net.Conn {
	if c.isQuick() {
		return c.quick.plain()
	}
	if c.quick != nil {
		c.quick.hangup.forget()
	}
	return c.Conn
}

var errTooLong = errors.New("too long")

// fill reads once, and appends to rest. The error is errTooLong where rest has limit
// bytes already.
func (c *conn) fill(limit int) error {
	if len(c.rest) >= limit {
		return errTooLong
	}
	if c.buf == nil && c.isQuick() {
		buf, n, err := c.quick.readNew()
		if buf != nil {
			c.buf, c.rest = buf, (*buf)[:n]
		}
		return err
	}
	if c.buf == nil {
		c.buf = takeBuffer()
		c.rest = (*c.buf)[:0]
	}
	if len(c.rest) == cap(c.rest) {
		c.makeRoom()
	}
	free := c.rest[len(c.rest):cap(c.rest)]
	n, err := c.Conn.Read(free)
	c.rest = c.rest[:len(c.rest)+n]
	c.use(0)
	return err
}

// makeRoom moves rest to the front of its buffer, or into one of twice the size.
func (c *conn) makeRoom() {
	whole := *c.buf
	if len(c.rest) == len(whole) {
		grown := make([]byte, 2*len(whole))
		copy(grown, c.rest)
		c.give()
		c.buf, c.rest = &grown, grown[:len(whole)]
		return
	}
	c.rest = whole[:copy(whole, c.rest)]
}

// use drops the first n bytes of rest.
func (c *conn) use(n int) {
	c.rest = c.rest[n:]
	if len(c.rest) == 0 && c.buf != nil {
		c.give()
	}
}

func (c *conn) give() {
	if len(*c.buf) == bufferSize {
		giveBuffer(c.buf)
	}
	c.buf, c.rest = nil, nil
}

// Read gives what was read already, then what comes.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.use(n)
		return n, nil
	}
	return c.Conn.Read(p)
}

// each calls take with what was read already, then with all that comes, until take
// returns false, or nothing comes any more: then it gives the error. take is done with
// a piece when it returns.
func (c *conn) each(take func([]byte) bool) error {
	if len(c.rest) > 0 {
		goOn := take(c.rest)
		c.use(len(c.rest))
		if !goOn {
			return nil
		}
	}
	if c.isQuick() {
		return c.quick.each(take)
	}
	buf := takeBuffer()
	defer giveBuffer(buf)
	for {
		n, err := c.Conn.Read(*buf)
		if n > 0 && !take((*buf)[:n]) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// onHangup has f called, once, when the peer hangs up. f must not wait for anything.
// Nobody may read until offHangup.
func (c *conn) onHangup(f func()) {
	if c.quick != nil && c.quick.hangup.watch(c.quick) {
		c.quick.hangup.on(f)
		return
	}
	c.readAhead(f)
}

// offHangup: f does not run any more, and will not.
func (c *conn) offHangup() {
	if c.ahead != nil {
		c.stopAhead()
	} else if c.quick != nil {
		c.quick.hangup.off()
	}
}

// ahead is a byte that is read ahead: so a hangup is seen where the kernel does not
// tell of it, and what comes where nothing is to come.
type ahead struct {
	done chan struct{}
	b    [1]byte
	n    int
	err  error
}

// readAhead calls f when the peer has hung up; it may be nil.
func (c *conn) readAhead(f func()) {
	a := &ahead{done: make(chan struct{})}
	c.ahead = a
	go func() {
		defer close(a.done)
		a.n, a.err = c.Conn.Read(a.b[:])
		if errors.Is(a.err, os.ErrDeadlineExceeded) {
			a.err = nil
		}
		if a.err != nil && f != nil {
			f()
		}
	}()
}

// stopAhead puts what was read into rest, and reports whether the peer is still there.
func (c *conn) stopAhead() (there bool) {
	a := c.ahead
	c.ahead = nil
	c.Conn.SetReadDeadline(time.Unix(1, 0)) // ends the read
	<-a.done
	c.Conn.SetReadDeadline(time.Time{})
	if a.n == 0 {
		return a.err == nil
	}
	if c.buf == nil {
		c.buf = takeBuffer()
		c.rest = (*c.buf)[:0]
	}
	if len(c.rest) == cap(c.rest) {
		c.makeRoom()
	}
	c.rest = append(c.rest, a.b[0])
	return a.err == nil
}

// noEOF makes of an end that comes too early what it is.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
