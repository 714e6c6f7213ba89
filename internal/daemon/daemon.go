// Package daemon is what every command of ours needs round its handler: the
// version, the log, a listener with sane limits, signals, and a drain that lets
// running requests end. It knows nothing of what the handler does.
package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/http1"
)

const (
	// readHeaderTimeout ends connections that trickle their headers (slowloris).
	readHeaderTimeout = 10 * time.Second
	// maxHeaderBytes keeps giant headers away from the backend (CVE-2025-48956
	// is what one of them does to vLLM).
	maxHeaderBytes = 64 << 10
	// maxStreams is how many requests one HTTP/2 connection may have at a time:
	// Go's own bound since CVE-2023-39325, said here so that it stays.
	maxStreams = 250
	// connBuffer and streamBuffer are what a client may send over HTTP/2 before
	// anybody has read it: on one connection, and of one request. They bound memory,
	// and the speed of an upload to one of them a round trip.
	connBuffer   = 1 << 20
	streamBuffer = 256 << 10
	// pingAfter is how long an HTTP/2 connection may be silent before its client is
	// asked whether it is there.
	pingAfter = 30 * time.Second
	// lastWrites is how long answers that are already written may take to leave
	// after Drain.
	lastWrites = time.Second
	// keepAlive is how long an idle connection is kept where nobody says else.
	keepAlive = 2 * time.Minute
)

// Server is one HTTP server on one port, over HTTP/1.1 and HTTP/2 (in the clear
// too).
type Server struct {
	// Name is the command's, for the log.
	Name string
	// Listen is the address to listen on, host:port; an empty host is every
	// interface.
	Listen string
	// ListenFlag is the flag that sets Listen, for errors; empty is --listen.
	ListenFlag string
	Handler    http.Handler
	// TLSCert and TLSKey name PEM files. Both empty: no TLS. When they change they are
	// read again, without a restart; what is wrong with the new ones is logged, and
	// the ones before go on.
	TLSCert, TLSKey string
	// KeepAlive closes connections that have been idle for so long; 0 is 2
	// minutes.
	KeepAlive time.Duration
	// PeerTimeout is how long an HTTP/2 client that has fallen silent may leave a
	// ping unanswered before its connection is closed; 0 is 5 minutes. A client that
	// reads nothing does not answer either: less than what it is otherwise allowed
	// would cut it early. Over HTTP/1 it is how long a client may read nothing, at
	// least; twice as long at most.
	PeerTimeout time.Duration
	// ReadTimeout is how long a request may take to arrive; 0 leaves it to the
	// handler.
	ReadTimeout time.Duration
	// Leave, if set, is called first when the process is asked to stop: whoever
	// asks shall be told to go elsewhere, and be served all the same.
	Leave func()
	// DrainDelay is how long the drain waits then. With 0 the port is closed at
	// once; else it stays open to the end of the drain, for whoever scrapes.
	DrainDelay time.Duration
	// DrainTimeout is how long running requests may take to end after that; 0
	// ends them at once.
	DrainTimeout time.Duration
	// Drain, if set, is called once after the delay. Requests may still come, on
	// connections that are there at least. It returns when nothing is left to wait
	// for; when its context ends, it must end what still runs and return soon.
	Drain func(context.Context)
	Log   *slog.Logger
	// About is logged beside the address at the start: what the server fronts.
	About []any
}

// Run serves until the process gets SIGINT or SIGTERM, or ctx ends; then it
// drains and returns nil. A second signal kills the process at once. Errors are
// those of listening and of the TLS files.
func (s Server) Run(ctx context.Context) error {
	ctx, forget := Signalled(ctx)
	defer forget()
	l, err := s.Open(ctx)
	if err != nil {
		return err
	}
	return s.Serve(ctx, l)
}

// Signalled is ctx, ended by SIGINT or SIGTERM too. Once it has ended, signals
// have their usual effect again: the next one kills.
func Signalled(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, forget := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, forget)
	return ctx, forget
}

// Open listens, and serves nobody yet: for commands with several servers, none
// of which is to begin before all have their port.
func (s Server) Open(ctx context.Context) (net.Listener, error) {
	if err := CheckListen(s.Listen); err != nil {
		return nil, fmt.Errorf("%s: %w", s.listenFlag(), err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.Listen)
	if err != nil {
		return nil, s.listenError(err)
	}
	return l, nil
}

// Serve is Run on a listener from Open, without an ear for signals.
func (s Server) Serve(ctx context.Context, l net.Listener) error {
	front, second := s.httpServers(l.Addr())
	if s.TLSCert != "" || s.TLSKey != "" {
		c, err := s.certificate(ctx)
		if err != nil {
			l.Close()
			return err
		}
		front.TLSConfig = &tls.Config{GetCertificate: c}
	}
	failed := make(chan error, 2)
	go func() { failed <- second.serve() }()
	go func() { failed <- front.Serve(l) }()
	s.Log.Info(s.Name+" is up", append([]any{"listen", l.Addr().String(), "version", Version()}, s.About...)...)

	select {
	case err := <-failed:
		front.Close()
		second.end()
		return fmt.Errorf("serve on %s: %w", s.Listen, err)
	case <-ctx.Done():
	}
	s.drain(front, second, l)
	return nil
}

// httpServers are the two of a port: for HTTP/1, which gets all connections, and for
// HTTP/2.
func (s Server) httpServers(at net.Addr) (*http1.Server, *http2Server) {
	second := s.newHTTP2(at)
	front := s.newHTTP1()
	front.HTTP2 = second.take
	return front, second
}

func (s Server) newHTTP1() *http1.Server {
	return &http1.Server{
		Handler:           s.Handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       s.ReadTimeout,
		IdleTimeout:       cmp.Or(s.KeepAlive, keepAlive),
		StallTimeout:      s.peerTimeout(),
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          s.errorLog(),
	}
}

func (s Server) peerTimeout() time.Duration { return cmp.Or(s.PeerTimeout, 5*time.Minute) }

func (s Server) errorLog() *log.Logger {
	return slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn)
}

func (s Server) drain(front *http1.Server, second *http2Server, l net.Listener) {
	s.Log.Info(s.Name+" is draining", "delay", s.DrainDelay, "limit", s.DrainTimeout)
	if s.Leave != nil {
		s.Leave()
	}
	if s.DrainDelay == 0 {
		l.Close()
	}
	time.Sleep(s.DrainDelay)
	ctx, cancel := context.WithTimeout(context.Background(), s.DrainTimeout)
	defer cancel()
	if s.Drain != nil {
		s.Drain(ctx)
		ctx, cancel = context.WithTimeout(context.Background(), lastWrites)
		defer cancel()
	}
	var idle sync.WaitGroup // waits for connections to fall idle
	idle.Go(func() { front.Shutdown(ctx) })
	idle.Go(func() { second.Shutdown(ctx) })
	idle.Wait()
	front.Close()
	second.end()
	s.Log.Info(s.Name + " is down")
}

// CheckListen says what is wrong with an address to listen on.
func CheckListen(addr string) error {
	const form = "write host:port, or :port for all interfaces"
	if addr == "" { // net would choose any port
		return errors.New("there is no address to listen on; " + form)
	}
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fmt.Errorf("%q is no address to listen on; %s", addr, form)
	}
	return nil
}

func (s Server) listenError(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("cannot listen on %s: the port is taken; stop what has it, or choose another with %s", s.Listen, s.listenFlag())
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("cannot listen on %s: not permitted; ports below 1024 need privileges, choose another with %s", s.Listen, s.listenFlag())
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("cannot listen on %s: this machine has no such address; choose another with %s", s.Listen, s.listenFlag())
	}
	if unknown, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Errorf("cannot listen on %s: %s: %s; choose another with %s", s.Listen, unknown.Name, unknown.Err, s.listenFlag())
	}
	return fmt.Errorf("cannot listen on %s: %w", s.Listen, err)
}

func (s Server) listenFlag() string {
	if s.ListenFlag == "" {
		return "--listen"
	}
	return s.ListenFlag
}
