package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// bodyTimeout is how long a request's body may take to arrive.
const bodyTimeout = time.Minute

// readBody reads the whole body before anything else is done: the model must be
// known, a second backend may need the same bytes, a slow client must hold no
// capacity, and net/http notices that a client has left only once its body is
// read.
//
// ctx is the request's; a drain that ends it ends the reading.
func readBody(ctx context.Context, w http.ResponseWriter, r *http.Request, max int64) (*payload, error) {
	if len(r.TransferEncoding) > 0 {
		// net/http drops a Content-Length that stands beside a Transfer-Encoding
		// and goes on with the connection; RFC 9112 6.1 wants it closed.
		w.Header().Set("Connection", "close")
	}
	if r.ContentLength > max {
		w.Header().Set("Connection", "close")
		return nil, bodyError(&http.MaxBytesError{Limit: max}, max)
	}
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	defer context.AfterFunc(ctx, func() { rc.SetReadDeadline(time.Now()) })()
	data, err := readAll(http.MaxBytesReader(w, r.Body, max), r.ContentLength)
	if err != nil {
		w.Header().Set("Connection", "close")
		if errors.Is(context.Cause(ctx), errDraining) {
			return nil, errDraining
		}
		return nil, bodyError(err, max)
	}
	rc.SetReadDeadline(time.Time{})
	return &payload{data: data}, nil
}

// readAll trusts an announced length only so far: memory is taken as bytes
// arrive.
func readAll(r io.Reader, announced int64) ([]byte, error) {
	var buf bytes.Buffer
	if announced > 0 {
		buf.Grow(int(min(announced, 64<<10)) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(r)
	return buf.Bytes(), err
}

// payload is a request's body, kept for another attempt until an answer begins.
type payload struct {
	mu   sync.Mutex
	data []byte
	sent bool // some attempt has read it to its end
}

var errReleased = errors.New("the request body is no longer kept")

// reader reads the payload from its beginning.
func (p *payload) reader() io.ReadCloser { return &payloadReader{p: p} }

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
	p   *payload
	off int
}

func (r *payloadReader) Read(b []byte) (int, error) {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	if r.off > len(r.p.data) {
		return 0, errReleased
	}
	n := copy(b, r.p.data[r.off:])
	if r.off += n; r.off == len(r.p.data) {
		r.p.sent = true
		if n == 0 {
			return 0, io.EOF
		}
	}
	return n, nil
}

func (r *payloadReader) Close() error { return nil }
