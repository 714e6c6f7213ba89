package http1

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Body is what follows an answer's head. When it has been read to its end, its
// connection is free for the next request.
type Body struct {
	link    *link
	ctx     context.Context
	stop    func() bool // tells the context that nothing is to be interrupted any more
	chunks  dechunker
	chunked bool
	left    int64 // of a body of known length; -1: to the connection's end
	close   bool  // the connection is not to be used again
	err     error // the end: io.EOF, or why there is none
	take    func([]byte) bool
}

// frame says where a body ends (RFC 9112 6.3).
func (b *Body) frame(r *http.Request, resp *http.Response) error {
	b.close = resp.ProtoMinor == 0 || hasToken(resp.Header["Connection"], "close")
	lengths, coding := resp.Header["Content-Length"], resp.Header["Transfer-Encoding"]
	length := int64(-1)
	switch {
	case len(coding) > 0 && len(lengths) > 0:
		return malformed("it has a Content-Length and a Transfer-Encoding")
	case len(coding) > 1 || len(coding) == 1 && !strings.EqualFold(coding[0], "chunked") || len(coding) == 1 && resp.ProtoMinor == 0:
		return malformed("its Transfer-Encoding is not plainly chunked")
	case len(lengths) > 1:
		return malformed("it has several Content-Lengths")
	case len(lengths) == 1:
		n, err := parseLength(lengths[0])
		if err != nil {
			return malformed("its Content-Length is no number")
		}
		length = n
	}
	resp.ContentLength = length
	switch status := resp.StatusCode; {
	case r.Method == http.MethodHead, status == http.StatusNoContent, status == http.StatusNotModified:
		if r.Method != http.MethodHead {
			resp.ContentLength = 0 // whatever is said of the body that it stands for
		}
		b.end(io.EOF)
	case len(coding) == 1:
		delete(resp.Header, "Transfer-Encoding")
		resp.TransferEncoding = chunked
		b.chunked = true
	case length == 0:
		b.end(io.EOF)
	case length > 0:
		b.left = length
	default:
		b.left, b.close = -1, true
	}
	resp.Close = b.close
	return nil
}

var chunked = []string{"chunked"}

// parseLength reads a Content-Length: digits, and nothing else.
func parseLength(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err == nil && (s[0] < '0' || s[0] > '9') {
		err = strconv.ErrSyntax
	}
	return int64(n), err
}

// hasToken reports whether a list of headers (RFC 9110 5.6.1) has a word.
func hasToken(lists []string, word string) bool {
	return slices.ContainsFunc(lists, func(list string) bool {
		for len(list) > 0 {
			var item string
			item, list, _ = strings.Cut(list, ",")
			if strings.EqualFold(strings.Trim(item, " \t"), word) {
				return true
			}
		}
		return false
	})
}

// end is the end of the body. Where it is sound, the connection is kept.
func (b *Body) end(err error) {
	if b.err != nil {
		return
	}
	b.err = err
	l := b.link
	undisturbed := b.stop()
	if err == io.EOF && undisturbed && !b.close && len(l.rest) == 0 && l.writer.wrote() {
		l.c.idle.put(l)
		return
	}
	if err != io.EOF && !undisturbed {
		b.err = ended(b.ctx, err)
	}
	l.Close()
}

// Each calls take with all that comes, one call for each read, until take returns
// false: then it returns nil, and may be called again. Else it returns io.EOF at the
// body's end, and an error where it is cut short. take is done with its bytes when it
// returns, and may write to them.
func (b *Body) Each(take func([]byte) bool) error {
	if b.err != nil {
		return b.err
	}
	b.take = take
	ended, stopped := false, false
	var broken error
	err := b.link.each(func(p []byte) bool {
		data, rest, err := b.unframe(p)
		if len(data) > 0 && !take(data) {
			stopped = true
		}
		ended = err == io.EOF
		if ended && len(rest) > 0 {
			b.close = true // said without being asked
		}
		if err != nil && !ended {
			broken = err
		}
		return err == nil && !stopped
	})
	switch {
	case ended:
		b.end(io.EOF)
	case broken != nil:
		b.end(broken)
	case err != nil:
		b.end(b.cut(err))
	}
	if stopped {
		return nil
	}
	return b.err
}

// cut says what an end of the connection means.
func (b *Body) cut(err error) error {
	if err == io.EOF && !b.chunked && b.left < 0 {
		return io.EOF
	}
	return noEOF(err)
}

// unframe gives the part of p that is data, laid end to end within p, and what lies
// behind the body's end. The error is io.EOF if that is in p.
func (b *Body) unframe(p []byte) (data, rest []byte, err error) {
	switch {
	case !b.chunked && b.left < 0:
		return p, nil, nil
	case !b.chunked:
		n := min(int64(len(p)), b.left)
		if b.left -= n; b.left == 0 {
			err = io.EOF
		}
		return p[:n], p[n:], err
	}
	for len(p) > 0 {
		piece, used, err := b.chunks.next(p)
		if err != nil {
			return data, nil, malformed("%v", err)
		}
		switch {
		case len(piece) == 0:
		case data == nil:
			data = piece
		default:
			n := len(data)
			data = data[:n+copy(data[n:n+len(piece)], piece)] // nearer to the front, where sizes stood
		}
		p = p[used:]
		if b.chunks.done() {
			return data, p, io.EOF
		}
	}
	return data, nil, nil
}

// Read is io.Reader's. The end is told along with the last bytes.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	l := b.link
	if !b.chunked {
		if b.left > 0 {
			p = p[:min(int64(len(p)), b.left)]
		}
		n, err := l.Read(p)
		if b.left > 0 {
			if b.left -= int64(n); b.left == 0 {
				err = io.EOF
				b.end(err)
				return n, err
			}
		}
		if err != nil {
			b.end(b.cut(err))
			return n, b.err
		}
		return n, nil
	}
	for {
		for len(l.rest) > 0 {
			in := l.rest[:min(len(l.rest), len(p))] // which gives no more than p has room for
			data, used, err := b.chunks.next(in)
			if err != nil {
				b.end(malformed("%v", err))
				return 0, b.err
			}
			n := copy(p, data)
			l.use(used)
			if b.chunks.done() {
				b.end(io.EOF)
				return n, io.EOF
			}
			if n > 0 {
				return n, nil
			}
		}
		if err := l.fill(maxAnswerHead); err != nil && len(l.rest) == 0 {
			b.end(b.cut(err))
			return 0, b.err
		}
	}
}

// Close ends the answer, wherever it is: what is not at its end takes its connection
// with it.
func (b *Body) Close() error {
	b.end(http.ErrBodyReadAfterClose)
	return nil
}
