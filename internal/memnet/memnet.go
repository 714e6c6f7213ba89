// Package memnet is a network inside one process: listeners and dialers whose
// connections are buffers in memory. Tests run real HTTP clients and servers
// over it inside testing/synctest bubbles, where a connection's waits count as
// blocked and virtual time advances exactly.
//
// It behaves like TCP on loopback where programs can tell the difference:
// writes are buffered up to a window and then block, a closed peer is EOF
// after the bytes in flight, a dial to an address that nobody listens on is
// refused, and [Net.Kill] resets connections as the death of a process does.
// Only tests import it.
package memnet

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
)

// Net is one network. The zero value is ready to use.
type Net struct {
	mu        sync.Mutex
	listeners map[string]*listener
}

// Listen takes an address, any string without meaning to memnet, until the
// listener is closed.
func (n *Net) Listen(addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "mem", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	l := &listener{net: n, addr: addr, backlog: make(chan *conn, 4096), closed: make(chan struct{}), conns: map[*conn]bool{}}
	if n.listeners == nil {
		n.listeners = map[string]*listener{}
	}
	n.listeners[addr] = l
	return l, nil
}

// Dial connects to a listener; it has the shape of net.Dialer.DialContext, so
// that an http.Transport can use it.
func (n *Net) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	if l == nil {
		return nil, refused
	}
	client, server := pair(addr)
	server.owner = l
	if !l.add(server) {
		return nil, refused
	}
	select {
	case l.backlog <- server:
		return client, nil
	case <-ctx.Done():
		server.Close()
		return nil, ctx.Err()
	}
}

// Kill ends the listener at addr and resets every connection that it accepted,
// as kill -9 of a server with unread data does.
func (n *Net) Kill(addr string) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	if l == nil {
		return
	}
	l.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.in.reset()
		c.out.reset()
	}
}

type listener struct {
	net     *Net
	addr    string
	backlog chan *conn
	closed  chan struct{}

	mu    sync.Mutex
	conns map[*conn]bool // open ends on the server's side; nil once closed to new ones
	done  bool
}

func (l *listener) add(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return false
	}
	l.conns[c] = true
	return true
}

func (l *listener) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "mem", Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	l.mu.Lock()
	if l.done {
		l.mu.Unlock()
		return net.ErrClosed
	}
	l.done = true
	close(l.closed)
	l.mu.Unlock()

	l.net.mu.Lock()
	delete(l.net.listeners, l.addr)
	l.net.mu.Unlock()
	for {
		select {
		case c := <-l.backlog: // never accepted
			c.Close()
		default:
			return nil
		}
	}
}

func (l *listener) Addr() net.Addr { return addr(l.addr) }

type addr string

func (a addr) Network() string { return "mem" }
func (a addr) String() string  { return string(a) }
