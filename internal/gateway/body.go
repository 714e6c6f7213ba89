package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/http1"
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
func readBody(ctx context.Context, rec *record, r *http.Request, room *memory) (*payload, error) {
	w, max := rec.w, rec.conf.MaxBody
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
	rec.whenCut(func() {
		door.through(func() { rc.SetReadDeadline(time.Now()) })
	})
	p := &payload{room: room}
	data, err := readAll(http.MaxBytesReader(w, r.Body, max), r.ContentLength, p.grow)
	p.buf = data
	if err != nil {
		p.release()
		if http1 {
			w.Header().Set("Connection", "close")
		}
		if errors.Is(err, errNoRoom) {
			return nil, err
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
	p.data = data
	return p, nil
}

// trusted is how much memory is taken on the word of a Content-Length alone.
const trusted = 1 << 20

// spare is room behind a body for what the gateway may put into it.
const spare = 64

// readAll takes memory as bytes arrive, four times as much when there is not enough,
// and, once trusted bytes are here, for the rest of the announced length at once. The
// buffer is the caller's to give back.
func readAll(r io.Reader, announced int64, grow func(int) error) ([]byte, error) {
	buf := newBuffer(int(min(max(announced, 0)+spare, 64<<10)))
	if err := grow(cap(buf)); err != nil {
		return buf, err
	}
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
		if len(buf) < cap(buf) {
			continue
		}
		next := 4 * cap(buf)
		if announced >= int64(cap(buf)) && (next > trusted || announced+spare < int64(next)) {
			next = int(announced) + spare
		}
		larger := newBuffer(next)
		if err := grow(cap(larger)); err != nil {
			return buf, err
		}
		larger = append(larger, buf...)
		giveBuffer(buf)
		buf = larger
	}
}

// payload is a request's body, kept for another attempt until an answer begins.
type payload struct {
	mu      sync.Mutex
	data    []byte
	buf     []byte // where it was read into; nobody may hold on to it
	sending int    // attempts that the bytes are on their way to
	over    bool   // none will come any more
	room    *memory
	held    int // bytes taken of room
}

var errReleased = errors.New("the request body is no longer kept")

func isForm(contentType string) bool {
	return strings.HasPrefix(strings.ToLower(contentType), "multipart/form-data")
}

// body gives the payload to one attempt, which closes it once it is sent.
func (p *payload) body() (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil, errReleased
	}
	p.sending++
	return http1.NewBytes(p.data, p.sent), nil
}

func (p *payload) sent() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sending--
	p.forget()
}

// release forgets the bytes, once they are not on their way any more: a stream may
// go on for long after its prompt is of no more use here. p may be nil.
func (p *payload) release() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.forget()
}

func (p *payload) forget() {
	if p.over && p.sending == 0 {
		giveBuffer(p.buf)
		p.data, p.buf = nil, nil
		p.room.give(p.held)
		p.held = 0
	}
}

// grow takes memory for a buffer of so many bytes, in place of a smaller one.
func (p *payload) grow(size int) error {
	if !p.room.take(size - p.held) {
		return errNoRoom
	}
	p.held = size
	return nil
}

// memory is what all request bodies may take together. Bytes are taken as they
// arrive, not as they are announced; and who finds none left is refused, not made
// to wait: requests that wait for each other's memory, each with a part of its
// own, would wait for ever.
type memory struct {
	max  atomic.Int64 // 0: no bound
	used atomic.Int64
}

func (m *memory) take(n int) bool {
	if now, max := m.used.Add(int64(n)), m.max.Load(); max > 0 && now > max && n > 0 {
		m.used.Add(int64(-n))
		return false
	}
	return true
}

func (m *memory) give(n int) { m.used.Add(int64(-n)) }
