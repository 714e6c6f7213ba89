package http1

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Client is an http.RoundTripper for HTTP/1.1: one connection for each request that
// is under way, as many as there are requests. It asks for no compression, follows
// nothing, and has no deadlines but those of the request's context.
//
// A connection is used again once its answer has been read to the end. If it breaks
// before a byte of the next answer, its server may just have been closing it, and the
// request is sent once more on a new one: once, so that a request which breaks servers
// is not tried on every connection that there is. That takes a body which GetBody can
// give again.
//
// The body of its answers is a [Body], but for that of an upgrade, which is an
// io.ReadWriteCloser, as of net/http.
type Client struct {
	// Dial connects; nil: net.Dialer does.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS is for https; nil: as tls has it.
	TLS *tls.Config
	// HandshakeTimeout bounds the TLS handshake; 0: nothing but the context does.
	HandshakeTimeout time.Duration
	// IdleTimeout closes connections that nobody has used for so long; 0: none is kept.
	IdleTimeout time.Duration
	// MaxIdle is how many are kept for a server.
	MaxIdle int

	idle idle
}

// maxAnswerHead bounds an answer's head, in bytes.
const maxAnswerHead = 256 << 10

// ErrMalformed: what came is not HTTP/1.1 as it should be.
var ErrMalformed = errors.New("malformed answer")

func malformed(what string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(what, args...))
}

// ErrHandshake: there is a connection, and TLS cannot be spoken on it, or not within
// HandshakeTimeout; nothing of the request has been sent. It wraps the reason.
var ErrHandshake = errors.New("no TLS")

// RoundTrip is http.RoundTripper's. Errors are those of connecting (*net.OpError with
// Op "dial"; ErrHandshake), of a connection that broke (io.EOF: before the answer;
// io.ErrUnexpectedEOF; *net.OpError), the context's, and ErrMalformed.
func (c *Client) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	trace := httptrace.ContextClientTrace(ctx)
	for first := true; ; first = false {
		if err := ctx.Err(); err != nil {
			closeBody(r)
			return nil, err
		}
		l, err := c.connect(ctx, r.URL, trace, first)
		if err != nil {
			closeBody(r)
			return nil, ended(ctx, err)
		}
		resp, err := l.send(ctx, r)
		if err == nil {
			return resp, nil
		}
		if !l.reused || l.heard || ctx.Err() != nil || !broke(err) {
			return nil, ended(ctx, err)
		}
		if r.Body == nil || r.Body == http.NoBody {
			continue
		}
		if r.GetBody == nil {
			return nil, err
		}
		body, err := r.GetBody()
		if err != nil {
			return nil, err
		}
		again := *r
		again.Body = body
		r = &again
	}
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		r.Body.Close()
	}
}

// ended gives the context's error where that is the reason.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// broke: the connection did, rather than bring nonsense.
func broke(err error) bool {
	return errors.As(err, new(*net.OpError)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// link is a connection to a server.
type link struct {
	*conn
	c      *Client
	key    string
	reused bool
	heard  bool      // something of the present answer has come
	since  time.Time // it has been idle
	writer *writer   // of the present request's body; nil: it was written at once
}

// connect gives an idle connection, if one may be used, or a new one.
func (c *Client) connect(ctx context.Context, to *url.URL, trace *httptrace.ClientTrace, reuse bool) (*link, error) {
	addr := to.Host
	if to.Port() == "" {
		addr = net.JoinHostPort(to.Hostname(), map[string]string{"https": "443"}[to.Scheme]+map[string]string{"http": "80"}[to.Scheme])
	}
	if trace != nil && trace.GetConn != nil {
		trace.GetConn(addr)
	}
	key := to.Host
	if to.Scheme == "https" {
		key = "https " + key
	}
	var l *link
	if reuse {
		l = c.idle.take(key, c.IdleTimeout)
	}
	if l == nil {
		conn, err := c.dial(ctx, addr, to)
		if err != nil {
			return nil, err
		}
		l = &link{conn: newConn(conn), c: c, key: key}
	}
	if trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{Conn: l.Conn, Reused: l.reused})
	}
	return l, nil
}

func (c *Client) dial(ctx context.Context, addr string, to *url.URL) (net.Conn, error) {
	dial := c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn = quicken(conn)
	if to.Scheme != "https" {
		return conn, nil
	}
	cfg := c.TLS.Clone()
	if cfg == nil {
		cfg = &tls.Config{}
	}
	if cfg.ServerName == "" {
		cfg.ServerName = to.Hostname()
	}
	secure := tls.Client(conn, cfg)
	limited := ctx
	if c.HandshakeTimeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, c.HandshakeTimeout)
		defer cancel()
	}
	if err := secure.HandshakeContext(limited); err != nil {
		conn.Close()
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	return secure, nil
}

// CloseIdleConnections closes what is kept and not in use.
func (c *Client) CloseIdleConnections() { c.idle.closeAll() }

// send sends the request and reads the head of its answer.
func (l *link) send(ctx context.Context, r *http.Request) (*http.Response, error) {
	l.heard = false
	stop := context.AfterFunc(ctx, l.interrupt)
	fail := func(err error) error {
		stop()
		l.Close()
		return err
	}
	if err := l.write(r); err != nil && !broke(err) {
		return nil, fail(err)
	} // a server that has answered before it read all may have closed: its answer is still there
	resp, err := l.readHead(r)
	if err != nil {
		return nil, fail(err)
	}
	b := &Body{link: l, ctx: ctx, stop: stop}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if !stop() {
			return nil, fail(ctx.Err())
		}
		resp.Body = struct {
			io.Reader
			io.WriteCloser
		}{l.conn, l.Conn}
		return resp, nil
	}
	if err := b.frame(r, resp); err != nil {
		return nil, fail(err)
	}
	resp.Body = b
	return resp, nil
}

// interrupt ends what the connection is at.
func (l *link) interrupt() { l.SetDeadline(time.Unix(1, 0)) }

// write sends the request: in one go, if the socket takes it so; else what is left is
// sent while the answer is waited for, which may well come before.
func (l *link) write(r *http.Request) error {
	l.writer = nil
	buf := takeBuffer()
	defer func() { giveBuffer(buf) }()
	head, err := appendRequest((*buf)[:0], r)
	if err != nil {
		closeBody(r)
		return err
	}
	data, err := bytesOf(r.Body)
	if err == nil && int64(len(data)) != r.ContentLength {
		err = fmt.Errorf("the body has %d bytes, and a Content-Length of %d", len(data), r.ContentLength)
	}
	if err != nil {
		closeBody(r)
		return err
	}
	w := &writer{to: l.Conn, body: r.Body}
	if l.isQuick() {
		n, err := l.quick.writeBothNow(head, data)
		if err != nil || n == len(head)+len(data) {
			w.end()
			return err
		}
		head, data = head[min(n, len(head)):], data[max(n-len(head), 0):]
	}
	w.head, w.data = append([]byte(nil), head...), data
	w.done = make(chan struct{})
	l.writer = w
	go w.run()
	return nil
}

// Bytes is a request's body that lies in memory and is sent from there, without being
// copied.
type Bytes struct {
	bytes.Reader
	data []byte
	done func()
}

// NewBytes makes a body of data, which must stay as it is until done is called: once,
// when the body is closed. [Client.RoundTrip] closes it, whether or not it succeeds,
// and perhaps later than it returns.
func NewBytes(data []byte, done func()) *Bytes {
	b := &Bytes{data: data, done: done}
	b.Reset(data)
	return b
}

// Close is io.Closer's.
func (b *Bytes) Close() error {
	if b.done != nil {
		b.done()
		b.done = nil
	}
	return nil
}

func bytesOf(body io.Reader) ([]byte, error) {
	switch b := body.(type) {
	case nil:
		return nil, nil
	case *Bytes:
		return b.data, nil
	}
	return io.ReadAll(body)
}

// writer writes what a socket has not taken at once.
type writer struct {
	to         net.Conn
	head, data []byte
	body       io.Closer
	done       chan struct{} // closed when all is written, or nothing more can be
	failed     atomic.Bool
}

func (w *writer) run() {
	defer close(w.done)
	defer w.end()
	for _, p := range [][]byte{w.head, w.data} {
		if len(p) == 0 {
			continue
		}
		if _, err := w.to.Write(p); err != nil {
			w.failed.Store(true) // the answer says why, or the connection does
			return
		}
	}
}

func (w *writer) end() {
	if w.body != nil {
		w.body.Close()
	}
}

// wrote reports whether the request has been sent whole.
func (w *writer) wrote() bool {
	if w == nil {
		return true
	}
	select {
	case <-w.done:
		return !w.failed.Load()
	default:
		return false
	}
}

// appendRequest appends the request's head. Hop-by-hop headers are the caller's to
// leave out; nil values leave a header out.
func appendRequest(b []byte, r *http.Request) ([]byte, error) {
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.URL.RequestURI()...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	b = append(b, host...)
	b = append(b, "\r\n"...)
	head := len(b)
	for name, values := range r.Header {
		if name == "Host" || name == "Content-Length" || name == "Transfer-Encoding" {
			continue
		}
		for _, value := range values {
			if strings.ContainsAny(value, "\r\n\x00") {
				return b[:head], fmt.Errorf("header %s has a value that cannot be sent", name)
			}
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, value...)
			b = append(b, "\r\n"...)
		}
	}
	if r.ContentLength > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, r.ContentLength, 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// readHead reads the answer's head. Of those that say only that it will come (1xx)
// nothing is told, but for an upgrade.
func (l *link) readHead(r *http.Request) (*http.Response, error) {
	for range maxInterim {
		head, err := l.head(maxAnswerHead)
		if err != nil {
			return nil, err
		}
		line := bytes.TrimSuffix(head[:bytes.IndexByte(head, '\n')], []byte("\r"))
		status, minor, err := parseStatusLine(line)
		if err != nil {
			return nil, malformed("%v", err)
		}
		header, err := parseHeader(head[bytes.IndexByte(head, '\n')+1:])
		if err != nil {
			return nil, malformed("%v", err)
		}
		l.use(len(head))
		if status/100 == 1 && status != http.StatusSwitchingProtocols {
			continue
		}
		return &http.Response{
			Status:     strconv.Itoa(status) + " " + http.StatusText(status),
			StatusCode: status,
			Proto:      "HTTP/1." + strconv.Itoa(minor),
			ProtoMajor: 1,
			ProtoMinor: minor,
			Header:     header,
			Request:    r,
		}, nil
	}
	return nil, malformed("too many interim answers")
}

// maxInterim bounds the answers before the answer.
const maxInterim = 16

// head gives a head, once it is here, from the start line to the empty one. It is valid
// until the next fill.
func (l *link) head(limit int) ([]byte, error) {
	var scan headScan
	for {
		if n, ok := scan.end(l.rest); ok {
			return l.rest[:n], nil
		}
		before := len(l.rest)
		err := l.fill(limit)
		l.heard = l.heard || len(l.rest) > 0
		switch {
		case err == nil, len(l.rest) > before:
		case err == errTooLong:
			return nil, malformed("its head is longer than %d bytes", limit)
		case len(l.rest) > 0:
			return nil, noEOF(err)
		default:
			return nil, err
		}
	}
}
