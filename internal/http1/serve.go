package http1

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// lingering is how long a client whose request was not read to its end has to take
// the answer, before the connection's end may take it away again.
const lingering = 500 * time.Millisecond

// preface is how a client begins that speaks HTTP/2 without having asked.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// serverConn is one connection of a server. One goroutine serves it, and all requests
// on it one after the other.
type serverConn struct {
	server   *Server
	conn     *conn
	tls      *tls.ConnectionState // nil: it is in the clear
	remote   string
	born     time.Time
	state    atomic.Int32           // one of connNew and so on
	lineEnds int                    // how many may lie ahead of the next request
	gone     bool                   // it is somebody else's
	running  atomic.Pointer[answer] // of the request that runs; nil: none does

	mu         sync.Mutex // guards what follows: deadlines may come from anywhere
	wanted     time.Time  // when reading the body is to end
	set        time.Time  // the read deadline that the connection has
	reading    bool       // the body is read from the network
	writeLimit bool       // the handler has set a write deadline
	stalled    time.Time  // else: the one that the connection has
}

// What a Shutdown must know of a connection.
const (
	connNew    = iota // it has said nothing yet
	connBusy          // a request has begun
	connIdle          // it waits for the next one
	connClosed        // by a Shutdown
)

func (c *serverConn) serve() {
	defer c.end()
	if !c.shake() {
		return
	}
	for c.serveOne() {
	}
}

// end closes the connection, whatever has happened.
func (c *serverConn) end() {
	if p := recover(); p != nil && p != http.ErrAbortHandler {
		stack := make([]byte, 64<<10)
		stack = stack[:runtime.Stack(stack, false)]
		c.server.logf("http: panic serving %s: %v\n%s", c.remote, p, stack)
	}
	if a := c.running.Load(); a != nil { // its handler has not returned
		c.gone = c.gone || a.abandon()
	}
	c.server.forget(c)
	if !c.gone {
		c.conn.Close()
	}
}

// shake does the handshake of TLS, and gives connections away that then speak HTTP/2.
func (c *serverConn) shake() (goOn bool) {
	s := c.server
	secure, ok := c.conn.Conn.(*tls.Conn)
	if !ok {
		c.deadline(timeAfter(s.ReadHeaderTimeout))
		return true
	}
	if s.ReadHeaderTimeout > 0 {
		secure.SetDeadline(time.Now().Add(s.ReadHeaderTimeout))
	}
	if err := secure.Handshake(); err != nil {
		reason := err.Error()
		if wrong, ok := err.(tls.RecordHeaderError); ok && wrong.Conn != nil && looksLikeHTTP(wrong.RecordHeader) {
			io.WriteString(wrong.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
			reason = "client sent an HTTP request to an HTTPS server"
		}
		s.logf("http: TLS handshake error from %s: %s", c.remote, reason)
		return false
	}
	secure.SetDeadline(time.Time{})
	state := secure.ConnectionState()
	c.tls = &state
	if state.NegotiatedProtocol == "h2" && s.HTTP2 != nil {
		c.hand(secure)
		return false
	}
	c.deadline(timeAfter(s.ReadHeaderTimeout))
	return true
}

func looksLikeHTTP(record [5]byte) bool {
	switch string(record[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET":
		return true
	}
	return false
}

// hand gives the connection to HTTP/2.
func (c *serverConn) hand(to net.Conn) {
	c.gone = true
	c.server.forget(c)
	c.server.HTTP2(to)
}

// serveOne serves one request, and reports whether another may follow.
func (c *serverConn) serveOne() (more bool) {
	s := c.server
	head, lines, err := c.readHead()
	if err != nil {
		c.refuse(err)
		return false
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, f, err := readRequest(ctx, head, lines)
	if err != nil {
		c.refuse(err)
		return false
	}
	r.RemoteAddr, r.TLS = c.remote, c.tls
	a := &answer{c: c, header: make(http.Header), cancel: cancel, isHead: r.Method == http.MethodHead, minor: r.ProtoMinor, close: r.Close, length: -1}
	a.begin(r, f)
	c.want(timeAfter(s.ReadTimeout))
	c.running.Store(a)
	if !a.hasBody {
		c.watch(a)
	}
	method := r.Method // the handler may change it
	s.Handler.ServeHTTP(a, r)
	more = a.finish()
	read, busy := a.body.finish()
	c.running.Store(nil)
	switch {
	case a.hijacked:
		c.gone = true
		return false
	case busy: // whoever reads is to be woken, not overtaken
		return false
	case !read:
		c.linger()
		return false
	}
	if a.watched {
		c.unwatch()
	}
	c.writeBy(time.Time{})
	if method == http.MethodPost {
		c.lineEnds = 4 // old browsers send some behind a body (RFC 9112 2.2)
	}
	return more
}

// begin says what the handler reads.
func (a *answer) begin(r *http.Request, f framing) {
	a.body.a = a
	if f.length == 0 {
		a.body.err, r.Body = io.EOF, http.NoBody
		return
	}
	a.hasBody, r.Body = true, &a.body
	a.body.left, a.body.coded, a.body.expect = f.length, f.length < 0, f.expects
}

// readHead waits for a request and gives its head. An error that is no *refusal wants
// no answer.
func (c *serverConn) readHead() (head string, lines int, err error) {
	fresh := c.state.Load() == connNew
	c.skipLineEnds() // they make no request, and a connection that has none is idle
	if !fresh && !c.idle() {
		return "", 0, net.ErrClosed
	}
	limit := c.server.maxHeaderBytes()
	var scan headScan
	for awake, checked := false, false; ; {
		c.skipLineEnds()
		rest := c.conn.rest
		if len(rest) > 0 {
			if !awake && !c.wake() {
				return "", 0, net.ErrClosed
			}
			if fresh && c.tls == nil && c.server.HTTP2 != nil && strings.HasPrefix(preface, string(rest[:min(len(rest), len(preface))])) {
				if len(rest) >= len(preface) {
					c.deadline(time.Time{})
					c.hand(c.conn)
					return "", 0, net.ErrClosed
				}
			} else if n, ok := scan.end(rest); ok && n <= limit {
				head = string(rest[:n])
				c.conn.use(n)
				return head, scan.lines, nil
			} else if len(rest) > limit {
				return "", 0, errTooLarge
			} else if scan.first > 0 && !checked { // no need to wait for the rest
				checked = true
				line, _ := cutLine(string(rest[:scan.first]))
				if method, _, _, err := parseRequestLine(line); err != nil {
					return "", 0, lineRefusal(method, err)
				}
			}
			if !awake {
				awake = true
				c.deadline(timeAfter(c.server.ReadHeaderTimeout))
			}
		}
		if err := c.conn.fill(limit + 1); err != nil && len(c.conn.rest) == len(rest) {
			if err == io.EOF && awake {
				return "", 0, badRequest("")
			}
			return "", 0, err
		}
	}
}

// skipLineEnds drops those that may lie ahead of a request.
func (c *serverConn) skipLineEnds() {
	for ; c.lineEnds > 0 && len(c.conn.rest) > 0; c.lineEnds-- {
		if b := c.conn.rest[0]; b != '\r' && b != '\n' {
			c.lineEnds = 0
			return
		}
		c.conn.use(1)
	}
}

// idle: nothing runs on the connection. It reports whether another request is wanted.
func (c *serverConn) idle() bool {
	if len(c.conn.rest) == 0 {
		c.idleDeadline()
		c.state.Store(connIdle)
	}
	return !c.server.closing.Load()
}

// wake: a request begins. It reports whether a Shutdown has not come before it.
func (c *serverConn) wake() bool {
	return c.state.CompareAndSwap(connIdle, connBusy) || c.state.CompareAndSwap(connNew, connBusy) || c.state.Load() == connBusy
}

// refuse answers what is no request.
func (c *serverConn) refuse(err error) {
	r, ok := err.(*refusal)
	if !ok {
		return
	}
	text := strconv.Itoa(r.status) + " " + r.Error()
	b := appendHead(nil, 1, r.status, http.Header{"Content-Type": {"text/plain; charset=utf-8"}})
	b = append(appendLength(b, int64(len(text))), "Connection: close\r\n\r\n"...)
	if !r.head {
		b = append(b, text...)
	}
	c.conn.SetWriteDeadline(time.Now().Add(lingering))
	if _, err := c.conn.Write(b); err == nil {
		c.linger()
	}
}

// linger lets a client that may still be sending take its answer: a connection that
// is closed with something unread in it is reset, and takes with it what the client
// has not read. The client sees the end at once; what it sends is dropped.
func (c *serverConn) linger() {
	half, ok := c.conn.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.conn.SetReadDeadline(time.Now().Add(lingering))
	buf := takeBuffer()
	defer giveBuffer(buf)
	for {
		if _, err := c.conn.Conn.Read(*buf); err != nil {
			return
		}
	}
}
