package http1

import "errors"

const (
	// maxChunkLine is how long a chunk's size may be with its extensions, which
	// nobody reads, in bytes.
	maxChunkLine = 4000
	// maxTrailers is how much may follow the last chunk, in bytes.
	maxTrailers = 4000
	// maxExcess is how many bytes of a body may say nothing: see count.
	maxExcess = 16 << 10
	// maxChunk is the largest size of a chunk, in bytes; nobody has sent one that is
	// nearly as large.
	maxChunk = 1 << 62
)

var (
	errChunk     = errors.New("malformed chunked encoding")
	errChunkLong = errors.New("chunked encoding with too much beside its data")
)

// dechunker takes a chunked body apart, as it arrives. The zero value is ready. It is
// strict (RFC 9112 7.1): lines end with CR LF, sizes have at most 16 digits, and what
// is no data has bounds.
type dechunker struct {
	state  chunkState
	digits int8
	left   uint64 // of the chunk's data; while its size is read, the size
	line   int    // how long the line is, or the trailers
	excess int    // bytes that say nothing
}

type chunkState uint8

const (
	chunkSize  chunkState = iota
	chunkSpace            // behind the size, before the line's end
	chunkExtension
	chunkLine // behind the CR of a size's line
	chunkData
	chunkCR // behind the data
	chunkLF
	trailerBegin // of a line
	trailerName
	trailerValue
	trailerLF
	lastLF // of the empty line that ends the body
	chunksDone
	chunksBroken
)

// done reports that the body has ended, trailers included.
func (d *dechunker) done() bool { return d.state == chunksDone }

// next gives the next stretch of data, which lies in p, and how many bytes of p it is
// done with. data may be empty with used > 0: there was none. An error is for good.
func (d *dechunker) next(p []byte) (data []byte, used int, err error) {
	i := 0
	for i < len(p) && d.state != chunkData {
		if d.state == chunksDone {
			return nil, i, nil
		}
		if err := d.step(p[i]); err != nil {
			d.state = chunksBroken
			return nil, i, err
		}
		i++
	}
	if i == len(p) {
		return nil, i, nil
	}
	n := int(min(d.left, uint64(len(p)-i)))
	data = p[i : i+n]
	i += n
	if d.left -= uint64(n); d.left == 0 {
		d.state = chunkCR
		if len(p)-i >= 2 && p[i] == '\r' && p[i+1] == '\n' {
			i += 2
			d.begin()
		}
	}
	return data, i, nil
}

func (d *dechunker) begin() { d.state, d.digits, d.left, d.line = chunkSize, 0, 0, 0 }

// step takes one byte that is no data.
func (d *dechunker) step(c byte) error {
	switch d.state {
	case chunkSize:
		if n := hexDigit[c]; n != 0 {
			if d.digits++; d.digits > 16 {
				return errChunk
			}
			d.left = d.left<<4 | uint64(n-1)
			d.line++
			return nil
		}
		if d.digits == 0 {
			return errChunk
		}
		return d.endSize(c)
	case chunkSpace:
		if c == ';' { // net/http does not know this space either
			return errChunk
		}
		return d.endSize(c)
	case chunkExtension:
		switch d.line++; {
		case c == '\r':
			d.state = chunkLine
		case c == '\n':
			return errChunk
		case d.line > maxChunkLine:
			return errChunkLong
		}
	case chunkLine:
		if c != '\n' {
			return errChunk
		}
		return d.count()
	case chunkCR:
		if c != '\r' {
			return errChunk
		}
		d.state = chunkLF
	case chunkLF:
		if c != '\n' {
			return errChunk
		}
		d.begin()
	case chunksBroken:
		return errChunk
	default:
		return d.trailer(c)
	}
	return nil
}

func (d *dechunker) endSize(c byte) error {
	switch c {
	case '\r':
		d.state = chunkLine
	case ';':
		d.state = chunkExtension
	case ' ', '\t':
		d.state = chunkSpace
	default:
		return errChunk
	}
	if d.line++; d.line > maxChunkLine {
		return errChunkLong
	}
	return nil
}

// count begins a chunk's data. A sender may say each byte in a chunk of its own, but
// must not say much more than its data beside it: 16 bytes for each chunk and twice
// the data are free, as in net/http (CVE-2023-39326).
func (d *dechunker) count() error {
	if d.left > maxChunk {
		return errChunk
	}
	d.excess += d.line + 3 - 16
	if free := 2 * d.left; free >= uint64(max(d.excess, 0)) {
		d.excess = 0
	} else if d.excess -= int(free); d.excess > maxExcess {
		return errChunkLong
	}
	d.state = chunkData
	if d.left == 0 {
		d.state, d.line = trailerBegin, 0
	}
	return nil
}

func (d *dechunker) trailer(c byte) error {
	if d.line++; d.line > maxTrailers {
		return errChunkLong
	}
	switch d.state {
	case trailerBegin:
		switch {
		case c == '\r':
			d.state = lastLF
		case token[c]:
			d.state = trailerName
		default:
			return errChunk
		}
	case trailerName:
		switch {
		case c == ':':
			d.state = trailerValue
		case !token[c]:
			return errChunk
		}
	case trailerValue:
		switch {
		case c == '\r':
			d.state = trailerLF
		case c < ' ' && c != '\t' || c == 0x7f:
			return errChunk
		}
	case trailerLF:
		if c != '\n' {
			return errChunk
		}
		d.state = trailerBegin
	case lastLF:
		if c != '\n' {
			return errChunk
		}
		d.state = chunksDone
	}
	return nil
}

// hexDigit has the value of each digit, and one more.
var hexDigit = func() (t [256]uint8) {
	for i, c := range []byte("0123456789abcdef") {
		t[c] = uint8(i) + 1
	}
	for i, c := range []byte("ABCDEF") {
		t[c] = uint8(i) + 11
	}
	return t
}()
