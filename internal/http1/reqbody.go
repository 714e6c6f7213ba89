package http1

import (
	"io"
	"net/http"
	"sync"
)

// maxDrop is how much of a body that nobody has read is read and dropped, for the
// next request's sake, in bytes. net/http has the same.
const maxDrop = 256 << 10

// requestBody is what follows a request's head.
type requestBody struct {
	a      *answer
	mu     sync.Mutex
	left   int64 // of a body of known length
	coded  bool  // it comes in chunks
	chunks dechunker
	expect bool  // the client waits for a 100 before it sends
	err    error // the end: io.EOF, or why there is none
	closed bool
}

// Read is io.Reader's. The end comes with the last bytes.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return 0, http.ErrBodyReadAfterClose
	case b.err != nil:
		return 0, b.err
	case len(p) == 0:
		return 0, nil
	}
	if b.expect {
		b.expect = false
		b.a.goOn()
	}
	return b.read(p)
}

// Close lets no more be read. The rest is dropped when the answer's head goes out.
func (b *requestBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

func (b *requestBody) read(p []byte) (n int, err error) {
	if b.coded {
		n, err = b.readChunks(p)
	} else {
		n, err = b.a.c.readBody(p[:min(int64(len(p)), b.left)])
		if b.left -= int64(n); b.left == 0 {
			err = io.EOF
		} else {
			err = noEOF(err)
		}
	}
	if b.err = err; err == io.EOF {
		b.a.c.watch(b.a)
	}
	return n, err
}

func (b *requestBody) readChunks(p []byte) (n int, err error) {
	c := b.a.c
	for {
		for len(c.conn.rest) > 0 {
			if n == len(p) {
				return n, nil
			}
			// No more than there is room for: what is looked at is used.
			data, used, err := b.chunks.next(c.conn.rest[:min(len(c.conn.rest), len(p)-n)])
			n += copy(p[n:], data)
			c.conn.use(used)
			if err != nil {
				return n, err
			}
			if b.chunks.done() {
				return n, io.EOF
			}
		}
		if n > 0 {
			return n, nil
		}
		if err := c.fillBody(); err != nil && len(c.conn.rest) == 0 {
			return 0, noEOF(err)
		}
	}
}

// drop reads what is left, if it is not much, and reports whether that was all.
func (b *requestBody) drop() bool {
	if !b.mu.TryLock() { // somebody reads, beside the handler: it is theirs
		return false
	}
	defer b.mu.Unlock()
	if b.err != nil || b.expect || b.left > maxDrop {
		return b.err == io.EOF
	}
	b.closed = true // what is dropped is not to be missed without a word
	b.a.c.wantSoon()
	buf := takeBuffer()
	defer giveBuffer(buf)
	for n := 0; n <= maxDrop && b.err == nil; {
		m, _ := b.read(*buf)
		n += m
	}
	return b.err == io.EOF
}

// finish: the handler is done with the body. It reports whether all of it was read, so
// that the next request follows; busy: somebody still reads.
func (b *requestBody) finish() (read, busy bool) {
	if !b.mu.TryLock() {
		return false, true
	}
	defer b.mu.Unlock()
	b.closed = true
	return b.err == io.EOF, false
}
