package http1

import (
	"bytes"
	"net"
	"time"
)

// Deadlines are set as rarely as can be: each is a change to the runtime's timers. That
// of a body is set when somebody has to wait for it, which most bodies need not; that
// of an idle connection stays as long as it is about right.

func timeAfter(d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

// deadline is when reading ends, now.
func (c *serverConn) deadline(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setDeadline(t)
}

func (c *serverConn) setDeadline(t time.Time) error {
	if t.Equal(c.set) {
		return nil
	}
	c.set = t
	return c.conn.SetReadDeadline(t)
}

// idleDeadline gives an idle connection its time. The one that it has from before will
// do if it is a second short at most.
func (c *serverConn) idleDeadline() {
	limit := c.server.idleTimeout()
	by := timeAfter(limit)
	c.mu.Lock()
	defer c.mu.Unlock()
	if short := by.Sub(c.set); c.set.IsZero() || short < 0 || short > min(time.Second, limit/8) {
		c.setDeadline(by)
	}
}

// want is when reading the body of the next request ends, unless its handler says
// otherwise.
func (c *serverConn) want(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = t
}

// wantSoon is for a body that is only dropped, while its answer waits.
func (c *serverConn) wantSoon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wanted.IsZero() {
		c.wanted = timeAfter(c.server.ReadHeaderTimeout)
	}
}

// readBy is when reading the body ends; it may be said while it is read.
func (c *serverConn) readBy(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = t
	if c.reading {
		return c.setDeadline(t)
	}
	return nil
}

// writeBy is when writing ends, as the handler says it; zero: it says nothing.
func (c *serverConn) writeBy(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() && !c.writeLimit {
		return nil
	}
	c.writeLimit, c.stalled = !t.IsZero(), time.Time{}
	return c.conn.SetWriteDeadline(t)
}

// notStalled sees to it that the next write has its time; twice as much, so that this
// is seldom to be done.
func (c *serverConn) notStalled() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if limit := c.server.StallTimeout; limit > 0 && !c.writeLimit && time.Until(c.stalled) < limit {
		c.stalled = timeAfter(2 * limit)
		c.conn.SetWriteDeadline(c.stalled)
	}
}

// maxWrite is how much goes out at once: of a part of it the client must take
// something in its time.
const maxWrite = 64 << 10

func (c *serverConn) write(p []byte) (n int, err error) {
	for {
		c.notStalled()
		m, err := c.conn.Write(p[n:min(len(p), n+maxWrite)])
		if n += m; n == len(p) || err != nil {
			return n, err
		}
	}
}

// beginReading: somebody waits for the body.
func (c *serverConn) beginReading() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = true
	c.setDeadline(c.wanted)
}

func (c *serverConn) endReading() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
}

// readBody reads bytes of a body, if only by waiting for them.
func (c *serverConn) readBody(p []byte) (int, error) {
	if len(c.conn.rest) == 0 {
		c.beginReading()
		defer c.endReading()
	}
	return c.conn.Read(p)
}

// fillBody is readBody into the connection's rest, which is empty.
func (c *serverConn) fillBody() error {
	c.beginReading()
	defer c.endReading()
	return c.conn.fill(1)
}

// watch has the request's context end when the client leaves. All of the request has
// been read.
func (c *serverConn) watch(a *answer) {
	a.watched = true
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn.quick == nil { // a byte will be read ahead
		c.setDeadline(time.Time{})
	}
	c.conn.onHangup(a.cancel)
	if c.conn.ahead != nil { // here too, where the kernel does not tell
		c.setDeadline(time.Time{})
	}
}

// unwatch ends it.
func (c *serverConn) unwatch() {
	readAhead := c.conn.ahead != nil
	c.conn.offHangup()
	if readAhead {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.set = time.Time{} // as it is now
	}
}

// letGo gives the connection to a handler, and what was read of it.
func (c *serverConn) letGo(a *answer) (conn net.Conn, ahead []byte) {
	if a.watched {
		c.unwatch()
	}
	ahead = bytes.Clone(c.conn.rest)
	c.conn.use(len(ahead))
	conn = c.conn.underneath()
	conn.SetDeadline(time.Time{})
	c.server.forget(c)
	return conn, ahead
}
