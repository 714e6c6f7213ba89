package wire

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// Cheap gives a TCP connection that reads and writes as net's does, without telling
// Go's scheduler of a system call that does not block. Mock and load generator share
// the machine with what is measured, so what they save is less noise.
func Cheap(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	cheap := &cheapConn{TCPConn: tcp, raw: raw}
	cheap.read, cheap.write = cheap.readSome, cheap.writeSome // once: a closure for each call would be garbage
	return cheap
}

type cheapConn struct {
	*net.TCPConn
	raw         syscall.RawConn
	read, write func(fd uintptr) bool
	in, out     []byte // what Read and Write are about
	got, put    int
	inErr       syscall.Errno
	outErr      syscall.Errno
}

func (c *cheapConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in = p
	if err := c.raw.Read(c.read); err != nil {
		return 0, err
	}
	switch {
	case c.inErr != 0:
		return 0, c.inErr
	case c.got == 0:
		return 0, io.EOF
	}
	return c.got, nil
}

func (c *cheapConn) readSome(fd uintptr) bool {
	for {
		n, _, err := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&c.in[0])), uintptr(len(c.in)))
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		}
		c.got, c.inErr = int(n), err
		return true
	}
}

func (c *cheapConn) Write(p []byte) (int, error) {
	c.out, c.put, c.outErr = p, 0, 0
	if err := c.raw.Write(c.write); err != nil {
		return c.put, err
	}
	if c.outErr != 0 {
		return c.put, c.outErr
	}
	return c.put, nil
}

func (c *cheapConn) writeSome(fd uintptr) bool {
	for c.put < len(c.out) {
		rest := c.out[c.put:]
		n, _, err := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest)))
		switch err {
		case 0:
			c.put += int(n)
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			c.outErr = err
			return true
		}
	}
	return true
}
