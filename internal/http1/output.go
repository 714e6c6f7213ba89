package http1

import "sync"

const (
	// outSize is how much of an answer is gathered: what one read from a backend
	// gives, with a head.
	outSize = 18 << 10
	// gap is room between a head and the body for what is known last: how long the
	// body is, and whether the connection stays.
	gap = 64
	// sizeRoom is room for the line with a chunk's size, endRoom for what follows the
	// data of the last one.
	sizeRoom = len("ffff\r\n")
	endRoom  = len("\r\n0\r\n\r\n")
	// direct is what goes out without being copied, if nothing of it must be framed.
	direct = 2 << 10
)

var outs = sync.Pool{New: func() any { b := make([]byte, outSize); return &b }}

var blanks [gap]byte

// gather takes bytes of the body into out, which is sent when it is full.
func (a *answer) gather(p []byte) (n int, err error) {
	for {
		if a.framed == plain && len(a.out) == 0 && len(p)-n >= direct {
			m, err := a.put(p[n:])
			return n + m, err
		}
		a.take()
		room := max(cap(a.out)-len(a.out)-endRoom, 0)
		m := min(room, len(p)-n)
		a.out = append(a.out, p[n:n+m]...)
		if n += m; n == len(p) {
			return n, nil
		}
		if err := a.send(false); err != nil {
			return n, err
		}
	}
}

// send writes what is in out. last: the body ends with it.
func (a *answer) send(last bool) error {
	if len(a.out) == 0 {
		if last && a.framed == inChunks {
			_, err := a.put(lastChunk)
			return err
		}
		return nil
	}
	start := a.base
	n := len(a.out) - a.base
	if a.headLen > 0 {
		start = a.seal(n, last)
	} else if a.framed == inChunks {
		start -= putSize(a.out[:a.base], n)
	}
	if a.framed == inChunks && !a.isHead {
		if n > 0 {
			a.out = append(a.out, "\r\n"...)
		}
		if last {
			a.out = append(a.out, lastChunk...)
		}
	}
	_, err := a.put(a.out[start:])
	a.give()
	return err
}

var lastChunk = []byte("0\r\n\r\n")

// putSize writes the line with the size of a chunk at the end of room.
func putSize(room []byte, n int) (length int) {
	i := len(room) - 2
	room[i], room[i+1] = '\r', '\n'
	for ; n > 0; n >>= 4 {
		i--
		room[i] = "0123456789abcdef"[n&15]
	}
	return len(room) - i
}

// put writes to the connection.
func (a *answer) put(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	n, err := a.c.write(p)
	if err != nil {
		a.err, a.close = err, true
		a.cancel()
	}
	return n, err
}

// take sees to it that there is a buffer.
func (a *answer) take() {
	if a.buf != nil {
		return
	}
	a.buf = outs.Get().(*[]byte)
	a.out, a.base = (*a.buf)[:0], 0
	if a.framed == inChunks {
		a.out, a.base = (*a.buf)[:sizeRoom], sizeRoom
	}
}

// give gives the buffer back. One that a long head has made larger is let go.
func (a *answer) give() {
	if a.buf != nil {
		outs.Put(a.buf)
	}
	a.buf, a.out, a.base, a.headLen = nil, nil, 0, 0
}
