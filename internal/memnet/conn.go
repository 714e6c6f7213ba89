package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how much a connection holds in each direction before writes block,
// of the order of a loopback socket's buffers.
const window = 256 << 10

// conn is one end of a connection: it reads from in and writes to out.
type conn struct {
	in, out       *pipe
	local, remote addr
	owner         *listener // of a server's end
}

func pair(to string) (client, server *conn) {
	up, down := newPipe(), newPipe()
	client = &conn{in: down, out: up, local: "mem-client:0", remote: addr(to)}
	server = &conn{in: up, out: down, local: addr(to), remote: "mem-client:0"}
	return client, server
}

func (c *conn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.out.write(b) }

// Close ends both directions: the peer reads what is in flight, then EOF, and
// its writes fail.
func (c *conn) Close() error {
	c.in.close(net.ErrClosed, syscall.EPIPE)
	c.out.close(io.EOF, net.ErrClosed)
	if c.owner != nil {
		c.owner.remove(c)
	}
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.reader, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writer, t)
	return nil
}

// pipe is one direction.
type pipe struct {
	mu       sync.Mutex
	changed  sync.Cond
	data     []byte
	readErr  error // what a read gives once data is used up
	writeErr error // what a write gives
	reader   deadline
	writer   deadline
}

type deadline struct {
	timer   *time.Timer
	expired bool
}

func newPipe() *pipe {
	p := &pipe{}
	p.changed.L = &p.mu
	return p
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.reader.expired:
			return 0, os.ErrDeadlineExceeded
		case p.readErr == net.ErrClosed: // closed by the reader itself
			return 0, net.ErrClosed
		case len(p.data) > 0:
			n := copy(b, p.data)
			p.data = p.data[n:]
			p.changed.Broadcast()
			return n, nil
		case p.readErr != nil:
			return 0, p.readErr
		case len(b) == 0:
			return 0, nil
		}
		p.changed.Wait()
	}
}

func (p *pipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	written := 0
	for {
		switch {
		case p.writer.expired:
			return written, os.ErrDeadlineExceeded
		case p.writeErr != nil:
			return written, p.writeErr
		}
		if n := min(len(b), window-len(p.data)); n > 0 {
			p.data = append(p.data, b[:n]...)
			b = b[n:]
			written += n
			p.changed.Broadcast()
		}
		if len(b) == 0 {
			return written, nil
		}
		p.changed.Wait()
	}
}

// close sets what reads and writes give from now on; the first close holds for
// each side.
func (p *pipe) close(readErr, writeErr error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readErr == nil || readErr == net.ErrClosed {
		p.readErr = readErr
	}
	if p.writeErr == nil || writeErr == net.ErrClosed {
		p.writeErr = writeErr
	}
	p.stop(&p.reader, readErr == net.ErrClosed)
	p.stop(&p.writer, writeErr == net.ErrClosed)
	p.changed.Broadcast()
}

func (p *pipe) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readErr != nil && len(p.data) == 0 {
		return
	}
	p.data = nil
	p.readErr = syscall.ECONNRESET
	p.writeErr = syscall.EPIPE
	p.changed.Broadcast()
}

// stop ends a closed side's deadline timer, so that no timer outlives the test.
func (p *pipe) stop(d *deadline, closed bool) {
	if closed && d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func (p *pipe) setDeadline(d *deadline, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.expired = false
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.expired = true
		p.changed.Broadcast()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if d.timer == timer {
			d.expired = true
			p.changed.Broadcast()
		}
	})
	d.timer = timer
}
