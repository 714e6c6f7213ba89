package daemon

import (
	"cmp"
	"net"
	"net/http"
	"sync"
)

// http2Server is net/http, for HTTP/2 alone: its listener is the server of HTTP/1,
// which gives it the connections that turn out to speak HTTP/2.
type http2Server struct {
	*http.Server
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

func (s Server) newHTTP2(addr net.Addr) *http2Server {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http2Server{
		Server: &http.Server{
			Handler:   s.Handler,
			Protocols: &protocols,
			// No WriteByteTimeout: it would end all streams of a connection whose client
			// reads slowly, and when to do so is the handler's to say, for each of them.
			HTTP2: &http.HTTP2Config{
				MaxConcurrentStreams:          maxStreams,
				MaxReceiveBufferPerConnection: connBuffer,
				MaxReceiveBufferPerStream:     streamBuffer,
				SendPingTimeout:               pingAfter,
				PingTimeout:                   s.peerTimeout(),
			},
			// "OPTIONS *" is the handler's to refuse, too.
			DisableGeneralOptionsHandler: true,
			ReadHeaderTimeout:            readHeaderTimeout,
			ReadTimeout:                  s.ReadTimeout,
			IdleTimeout:                  cmp.Or(s.KeepAlive, keepAlive),
			MaxHeaderBytes:               maxHeaderBytes,
			ErrorLog:                     s.errorLog(),
		},
		conns:  make(chan net.Conn),
		closed: make(chan struct{}),
		addr:   addr,
	}
}

func (s *http2Server) serve() error { return s.Server.Serve(acceptor{s}) }

// end closes all connections.
func (s *http2Server) end() { s.Server.Close() }

// take gives the server a connection; once it is closed, nobody has it.
func (s *http2Server) take(c net.Conn) {
	select {
	case s.conns <- c:
	case <-s.closed:
		c.Close()
	}
}

// acceptor is the server's listener.
type acceptor struct{ s *http2Server }

func (a acceptor) Accept() (net.Conn, error) {
	select {
	case c := <-a.s.conns:
		return c, nil
	case <-a.s.closed:
		return nil, net.ErrClosed
	}
}

func (a acceptor) Close() error {
	a.s.once.Do(func() { close(a.s.closed) })
	return nil
}

func (a acceptor) Addr() net.Addr { return a.s.addr }
