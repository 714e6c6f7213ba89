package http1

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// shyTime is how long a Shutdown gives a connection that has said nothing yet: a
// request may be on its way.
const shyTime = 5 * time.Second

// Server serves HTTP/1.0 and HTTP/1.1. It reads less leniently than net/http, sets no
// header that the handler has not set, but for Date and what says where an answer
// ends, knows no trailers, and answers only once a request has been read or dropped.
type Server struct {
	// Handler answers. It must be set.
	Handler http.Handler
	// ReadHeaderTimeout is how long a request's head may take from its first byte, and
	// a connection to say its first; 0 is without end. A handshake has as long, and a
	// body that nobody reads, where it has no deadline.
	ReadHeaderTimeout time.Duration
	// ReadTimeout is how long a body may take from the end of its head, unless the
	// handler says otherwise; 0 is without end.
	ReadTimeout time.Duration
	// IdleTimeout is how long a connection waits for its next request; it may be a
	// second less. 0 is as ReadTimeout.
	IdleTimeout time.Duration
	// StallTimeout is how long a client may at least leave what it is sent unread,
	// before its connection is broken off, where the handler has set no deadline for
	// writing; it may be twice as long. 0 is without end.
	StallTimeout time.Duration
	// MaxHeaderBytes is how large a request's head may be; 0 is 1 MiB.
	MaxHeaderBytes int
	// TLSConfig, if set, has the server speak TLS.
	TLSConfig *tls.Config
	// HTTP2, if set, is given connections that speak HTTP/2: over TLS, after the
	// handshake, as *tls.Conn; in the clear, with what was read of them. They are its
	// own from then on, to be closed too.
	HTTP2 func(net.Conn)
	// ErrorLog gets panics, broken handshakes, and what the listener says; nil is
	// log's own.
	ErrorLog *log.Logger

	closing   atomic.Bool
	mu        sync.Mutex
	listeners []net.Listener
	conns     map[*serverConn]struct{}
	none      chan struct{} // closed when conns gets empty; nil while nobody waits
}

func (s *Server) logf(format string, args ...any) {
	if s.ErrorLog != nil {
		s.ErrorLog.Printf(format, args...)
	} else {
		log.Printf(format, args...)
	}
}

func (s *Server) maxHeaderBytes() int {
	if s.MaxHeaderBytes > 0 {
		return s.MaxHeaderBytes
	}
	return http.DefaultMaxHeaderBytes
}

func (s *Server) idleTimeout() time.Duration {
	if s.IdleTimeout != 0 {
		return s.IdleTimeout
	}
	return s.ReadTimeout
}

// Serve serves what a listener accepts, until that fails for good. After a Shutdown
// or Close the error is http.ErrServerClosed.
func (s *Server) Serve(l net.Listener) error {
	if _, ok := l.(*net.TCPListener); ok {
		startWatching() // at once, so that what runs when nothing does is known from the start
	}
	defer l.Close()
	if !s.listen(l) {
		return http.ErrServerClosed
	}
	var config *tls.Config
	if s.TLSConfig != nil {
		config = s.TLSConfig.Clone()
		if len(config.NextProtos) == 0 {
			if s.HTTP2 != nil {
				config.NextProtos = []string{"h2"}
			}
			config.NextProtos = append(config.NextProtos, "http/1.1")
		}
	}
	var pause time.Duration
	for {
		accepted, err := l.Accept()
		if err != nil {
			if s.closing.Load() {
				return http.ErrServerClosed
			}
			if passing, ok := err.(interface{ Temporary() bool }); ok && passing.Temporary() { // no descriptors, mostly
				pause = min(max(2*pause, 5*time.Millisecond), time.Second)
				s.logf("http: Accept error: %v; retrying in %v", err, pause)
				time.Sleep(pause)
				continue
			}
			return err
		}
		pause = 0
		c := &serverConn{server: s, remote: accepted.RemoteAddr().String(), born: time.Now()}
		accepted = quicken(accepted)
		if config != nil {
			accepted = tls.Server(accepted, config)
		}
		c.conn = newConn(accepted)
		if !s.remember(c) {
			accepted.Close()
			return http.ErrServerClosed
		}
		go c.serve()
	}
}

func (s *Server) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.listeners = append(s.listeners, l)
	return true
}

func (s *Server) remember(c *serverConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	if s.conns == nil {
		s.conns = map[*serverConn]struct{}{}
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) forget(c *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 && s.none != nil {
		close(s.none)
		s.none = nil
	}
}

// Shutdown closes the listeners and all connections on which nothing runs, and waits
// for the others to get there; their clients are told with the answer. When ctx ends
// before, it returns ctx's error. Connections that are somebody else's (hijacked, or
// HTTP/2's) are not its matter.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.close()
	tick := time.NewTicker(shyTime / 10)
	defer tick.Stop()
	for {
		none := s.closeIdle()
		select {
		case <-none:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// close closes the listeners: nothing new comes.
func (s *Server) close() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing.Store(true)
	for _, l := range s.listeners {
		if e := l.Close(); e != nil && !errors.Is(e, net.ErrClosed) {
			err = e
		}
	}
	s.listeners = nil
	return err
}

// closeIdle closes the connections on which nothing runs. The channel is closed once
// none is left.
func (s *Server) closeIdle() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.state.CompareAndSwap(connIdle, connClosed) || time.Since(c.born) >= shyTime && c.state.CompareAndSwap(connNew, connClosed) {
			go c.conn.Close() // as in Close
		}
	}
	if s.none == nil {
		s.none = make(chan struct{})
	}
	none := s.none
	if len(s.conns) == 0 {
		close(s.none)
		s.none = nil
	}
	return none
}

// Close closes the listeners and all connections; what runs on them finds its context
// ended.
func (s *Server) Close() error {
	err := s.close()
	s.mu.Lock()
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	var all sync.WaitGroup
	for _, c := range conns {
		if a := c.running.Load(); a != nil {
			a.cancel()
		}
		all.Go(func() { c.conn.Close() }) // over TLS it may take a while
	}
	all.Wait()
	return err
}
