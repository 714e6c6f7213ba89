package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// bodyTimeout is how long a request's body may take to arrive. ServeHTTP sets
// it for every request, read or not: net/http reads the rest of a body that
// nobody wanted before it answers.
const bodyTimeout = time.Minute

// doubtful: another server may see the end of this request elsewhere, so nothing
// behind it on its connection may be taken for a request (RFC 9112 6.1). net/http
// drops a Content-Length that stands beside a Transfer-Encoding, drops any
// Transfer-Encoding of an HTTP/1.0 request, says nothing of either, and goes on
// with the connection.
func doubtful(r *http.Request) bool {
	return r.ProtoMajor == 1 && (len(r.TransferEncoding) > 0 || r.ProtoMinor == 0)
}

// readBody reads the whole body before anything else is done: the model must be
// known, a second backend may need the same bytes, a slow client must hold no
// capacity, and net/http notices that a client has left only once its body is
// read.
//
// ctx is the request's; a drain that ends it ends the reading.
func readBody(ctx context.Context, w http.ResponseWriter, r *http.Request, max int64) (*payload, error) {
	http1 := r.ProtoMajor == 1 // in HTTP/2 "close" would end the other streams too
	if r.ContentLength > max {
		if http1 {
			w.Header().Set("Connection", "close")
		}
		return nil, bodyError(&http.MaxBytesError{Limit: max}, max)
	}
	rc := http.NewResponseController(w)
	var door door
	defer door.shut()
	defer context.AfterFunc(ctx, func() {
		door.through(func() { rc.SetReadDeadline(time.Now()) })
	})()
	data, err := readAll(http.MaxBytesReader(w, r.Body, max), r.ContentLength)
	if err != nil {
		if http1 {
			w.Header().Set("Connection", "close")
		}
		if errors.Is(context.Cause(ctx), errDraining) {
			return nil, errDraining
		}
		if ctx.Err() != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, errLeft
		}
		return nil, bodyError(err, max)
	}
	rc.SetReadDeadline(time.Time{})
	return &payload{data: data}, nil
}

// trusted is how much memory is taken on the word of a Content-Length alone.
const trusted = 1 << 20

// readAll takes memory as bytes arrive, and, once trusted bytes are here, for the
// rest of the announced length at once: doubling would cost up to twice that.
func readAll(r io.Reader, announced int64) ([]byte, error) {
	buf := make([]byte, 0, min(max(announced+1, 512), 64<<10))
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
		if len(buf) == cap(buf) {
			next := int64(2 * cap(buf))
			if next > trusted && announced >= int64(cap(buf)) {
				next = announced + 1
			}
			buf = append(make([]byte, 0, next), buf...)
		}
	}
}

// payload is a request's body, kept for another attempt until an answer begins.
type payload struct {
	mu   sync.Mutex
	data []byte
	sent bool // some attempt has read it to its end
}

var errReleased = errors.New("the request body is no longer kept")

// reader reads the payload from its beginning.
func (p *payload) reader() io.ReadCloser {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = false
	return &payloadReader{p: p, size: len(p.data)}
}

// release forgets the bytes, unless they are still on their way: a stream may
// go on for long after its prompt is of no more use here.
func (p *payload) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sent {
		p.data = nil
	}
}

type payloadReader struct {
	p         *payload
	off, size int
}

// Read gives EOF by its own count: net/http asks for more once after the last
// byte, and by then the payload may have been released.
func (r *payloadReader) Read(b []byte) (int, error) {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	if r.off == r.size {
		return 0, io.EOF
	}
	if r.off > len(r.p.data) {
		return 0, errReleased
	}
	n := copy(b, r.p.data[r.off:])
	if r.off += n; r.off == r.size {
		r.p.sent = true
	}
	return n, nil
}

func (r *payloadReader) Close() error { return nil }
