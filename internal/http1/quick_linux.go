//go:build linux && !plain

package http1

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// quick is a TCP connection whose reads and writes do not wake threads. It is for one
// reader and one writer at a time.
//
// net's tell the scheduler of every system call. A write to a socket takes 5 to 20 µs,
// since the receiver's part of TCP is done within it; that is long enough for the
// runtime to think that the thread blocks and to wake another one for the rest, which
// finds nothing to do. But a socket of net's never blocks. So the calls are made
// without a word to the scheduler, from within [syscall.RawConn], which goes on to say
// when to wait, and for how long. (The same is done in gVisor's link to the network.)
//
// Together with hangup_linux.go, measured against the tag plain in one run, as ratios
// to nginx: an event of 500 streams 1.44 with and 1.60 without, a small request 6.0 and
// 6.3.
type quick struct {
	*net.TCPConn
	raw     syscall.RawConn
	in, out transfer
	take    func([]byte) bool // of each
	sure    bool              // the end will be told of
	buf     *[]byte           // of readNew
	new     func(fd uintptr) (done bool)
	hangup  hangup
	tryNow  func(fd uintptr) // out.try, once
}

// transfer is one read or write that is under way. Its functions are made once: made
// for each call they would each be an allocation.
type transfer struct {
	p   []byte
	n   int
	err error
	try func(fd uintptr) (done bool)
}

// quicken gives a connection that does the same for less, or the same one.
func quicken(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	q := &quick{TCPConn: tcp, raw: raw}
	q.in.try, q.out.try, q.new = q.tryRead, q.tryWrite, q.tryReadNew
	q.tryNow = func(fd uintptr) { q.tryWrite(fd) }
	return q
}

// asQuick finds the quick connection that c is, or lies on.
func asQuick(c net.Conn) *quick {
	q, _ := c.(*quick)
	return q
}

// plain is the connection that net made.
func (q *quick) plain() net.Conn {
	q.hangup.forget()
	return q.TCPConn
}

func (q *quick) Close() error {
	q.hangup.forget()
	return q.TCPConn.Close()
}

// Read is net.Conn's.
func (q *quick) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	q.in.p = p
	return q.finish("read", &q.in, q.raw.Read(q.in.try))
}

func (q *quick) tryRead(fd uintptr) bool {
	n, errno := call(syscall.SYS_READ, fd, q.in.p)
	return q.in.end(n, errno, io.EOF)
}

// readNew reads into a buffer that is taken when there is something to read.
func (q *quick) readNew() (*[]byte, int, error) {
	q.in.p = nil
	n, err := q.finish("read", &q.in, q.raw.Read(q.new))
	buf := q.buf
	q.buf = nil
	return buf, n, err
}

func (q *quick) tryReadNew(fd uintptr) bool {
	buf := takeBuffer()
	n, errno := call(syscall.SYS_READ, fd, *buf)
	if n > 0 && errno == 0 {
		q.buf = buf
	} else {
		giveBuffer(buf)
	}
	return q.in.end(n, errno, io.EOF)
}

// each calls take with all that arrives, until take returns false or nothing comes any
// more. Between two pieces it waits within one call, and holds no buffer.
//
// A read that does not fill its buffer has emptied the socket, and what comes later
// wakes us (epoll(7), question 9). That saves the read that finds nothing, one of three
// system calls an event. But for one thing: an end that came along with the data has
// woken us already. The hangup tells of it.
func (q *quick) each(take func([]byte) bool) error {
	q.take, q.sure = take, q.hangup.watch(q)
	q.hangup.on(q.poke)
	_, err := q.finish("read", &q.in, q.raw.Read(q.tryEach))
	if q.hangup.hasHung() && errors.Is(err, os.ErrDeadlineExceeded) { // from now on no read waits
		q.sure = false
		q.SetReadDeadline(time.Time{})
		_, err = q.finish("read", &q.in, q.raw.Read(q.tryEach))
	}
	q.hangup.off()
	if q.hangup.hasHung() {
		q.SetReadDeadline(time.Time{}) // the poke may have come too late to end a wait
	}
	q.take = nil
	return err
}

// poke ends a wait.
func (q *quick) poke() { q.SetReadDeadline(time.Unix(1, 0)) }

func (q *quick) tryEach(fd uintptr) bool {
	buf := wide.Get().(*[]byte)
	defer wide.Put(buf)
	for {
		n, errno := call(syscall.SYS_READ, fd, *buf)
		if errno != 0 || n == 0 {
			return q.in.end(n, errno, io.EOF)
		}
		if !q.take((*buf)[:n]) {
			return true
		}
		if n < len(*buf) && q.sure {
			return false
		}
	}
}

// wide are buffers for a backend that writes faster than can be relayed. Nobody holds
// one while he waits.
var wide = sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }}

// Write is net.Conn's.
func (q *quick) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	q.out.p = p
	// Mostly there is room, and then nothing need be made ready for a wait.
	if err := q.raw.Control(q.tryNow); err != nil || q.out.err != nil || q.out.n == len(p) {
		return q.finish("write", &q.out, err)
	}
	return q.finish("write", &q.out, q.raw.Write(q.out.try))
}

func (q *quick) tryWrite(fd uintptr) bool {
	for q.out.n < len(q.out.p) {
		n, errno := call(syscall.SYS_WRITE, fd, q.out.p[q.out.n:])
		if errno != 0 {
			return q.out.end(0, errno, nil)
		}
		q.out.n += n
	}
	return true
}

// writeBothNow writes what there is room for of two stretches, without waiting.
func (q *quick) writeBothNow(a, b []byte) (int, error) {
	n, err := q.finish("write", &q.out, q.raw.Write(func(fd uintptr) bool {
		parts := [2]syscall.Iovec{{Base: unsafe.SliceData(a)}, {Base: unsafe.SliceData(b)}}
		parts[0].SetLen(len(a))
		parts[1].SetLen(len(b))
		for {
			n, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&parts)), uintptr(len(parts)))
			switch errno {
			case 0:
				q.out.n = int(n)
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
			default:
				q.out.err = errno
			}
			return true
		}
	}))
	return n, err
}

// silent reports whether the peer has neither said anything nor closed.
func (q *quick) silent() bool {
	silent := false
	q.raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		silent = errno == syscall.EAGAIN
	})
	return silent
}

// end notes how a try went, and reports whether the transfer is over.
func (t *transfer) end(n int, errno syscall.Errno, none error) bool {
	switch {
	case errno == syscall.EAGAIN:
		return false
	case errno != 0:
		t.err = errno
	case n == 0:
		t.err = none
	default:
		t.n = n
	}
	return true
}

// finish gives what a transfer has come to, with errors as net has them.
func (q *quick) finish(op string, t *transfer, waited error) (n int, err error) {
	n, err = t.n, t.err
	t.p, t.n, t.err = nil, 0, nil
	if waited != nil {
		if wrapped := (*net.OpError)(nil); errors.As(waited, &wrapped) {
			waited = wrapped.Err
		}
		return n, q.wrap(op, waited)
	}
	if errno, ok := err.(syscall.Errno); ok {
		return n, q.wrap(op, os.NewSyscallError(op, errno))
	}
	return n, err
}

func (q *quick) wrap(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: q.LocalAddr(), Addr: q.RemoteAddr(), Err: err}
}

// call reads or writes. The socket is a non-blocking one.
func call(which, fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(which, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}
