package load

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/vllm-gateway/vllm-gateway/bench/wire"
)

// body checks what an answer says, byte by byte, as it comes.
type body interface {
	// take looks at the next bytes, which came at a time of wire.Now.
	take(p []byte, now int64) error
	// end is told that these were all.
	end() error
}

// streamBody is a stream as it must be.
type streamBody struct {
	stream *wire.Stream
	next   int    // event that comes next
	part   []byte // what there is of it
	want   []byte // scratch
	last   int64  // when the last token was sent
	seen   func(event int, sent, now int64)
}

func (b *streamBody) take(p []byte, now int64) error {
	for len(p) > 0 {
		if b.next == b.stream.Events() {
			return fmt.Errorf("something follows the end mark: %.80q", p)
		}
		size := b.stream.Size(b.next)
		var event []byte
		if len(b.part) == 0 && len(p) >= size {
			event, p = p[:size], p[size:]
		} else {
			n := min(size-len(b.part), len(p))
			b.part, p = append(b.part, p[:n]...), p[n:]
			if len(b.part) < size {
				return nil
			}
			event = b.part
		}
		if err := b.event(event, now); err != nil {
			return err
		}
		b.part = b.part[:0]
	}
	return nil
}

func (b *streamBody) event(got []byte, now int64) error {
	var sent int64
	if b.stream.IsToken(b.next) {
		sent = b.stream.SentAt(got)
	}
	b.want = b.stream.Append(b.want[:0], b.next, sent)
	if !bytes.Equal(b.want, got) {
		return differ(fmt.Sprint("event ", b.next), b.want, got)
	}
	if sent != 0 {
		if sent < b.last || sent > now+clockError {
			return fmt.Errorf("event %d was sent at %d, and came at %d behind one of %d", b.next, sent, now, b.last)
		}
		b.last = sent
	}
	if b.seen != nil {
		b.seen(b.next, sent, now)
	}
	b.next++
	return nil
}

// clockError is how far two processes' clocks may lie apart, in nanoseconds.
const clockError = 100_000

func (b *streamBody) end() error {
	if b.next < b.stream.Events() {
		return fmt.Errorf("the stream was cut within event %d of %d", b.next, b.stream.Events())
	}
	return nil
}

func differ(what string, want, got []byte) error {
	at := 0
	for at < len(want) && at < len(got) && want[at] == got[at] {
		at++
	}
	from := max(0, at-20)
	cut := func(b []byte) []byte { return b[min(from, len(b)):min(at+40, len(b))] }
	return fmt.Errorf("%s differs at byte %d: …%q; want …%q", what, at, cut(got), cut(want))
}

// jsonBody is any other answer as it must be.
type jsonBody struct {
	want []byte
	at   int
}

func (b *jsonBody) take(p []byte, _ int64) error {
	if rest := b.want[b.at:]; !bytes.HasPrefix(rest, p) {
		return differ(fmt.Sprintf("the answer, from byte %d on,", b.at), rest, p)
	}
	b.at += len(p)
	return nil
}

func (b *jsonBody) end() error {
	if b.at < len(b.want) {
		return fmt.Errorf("the answer was cut at byte %d of %d", b.at, len(b.want))
	}
	return nil
}

// answer takes one HTTP/1.1 answer apart, as its bytes come, and gives what it says to
// its body. It takes only what is canonical: no target has a reason to send else.
type answer struct {
	body  body
	state state
	line  []byte // of the head, or of a chunk, as far as it is there
	left  int    // bytes of this chunk, or of the body
	begun bool   // some of the body is there
}

type state int

const (
	inHead  state = iota
	inSized       // a body of known length
	inSize        // the line before a chunk
	inChunk
	inChunkEnd // the line break behind one
	inTrailer
	done
)

const maxHead = 16 << 10 // bytes

// take looks at the next bytes. An error is the end.
func (a *answer) take(p []byte, now int64) error {
	for len(p) > 0 {
		switch a.state {
		case done:
			return fmt.Errorf("something follows the answer: %.80q", p)
		case inHead:
			from := max(0, len(a.line)-3)
			before := len(a.line)
			a.line = append(a.line, p...)
			i := bytes.Index(a.line[from:], []byte("\r\n\r\n"))
			if i < 0 {
				if len(a.line) > maxHead {
					return errors.New("a head without end")
				}
				return nil
			}
			end := from + i + 4
			p = p[end-before:]
			if err := a.head(a.line[:end]); err != nil {
				return err
			}
			a.line = a.line[:0]
		case inSized, inChunk:
			n := min(a.left, len(p))
			a.begun = true
			if err := a.body.take(p[:n], now); err != nil {
				return err
			}
			p = p[n:]
			if a.left -= n; a.left == 0 {
				if a.state == inChunk {
					a.state = inChunkEnd
				} else {
					a.state = done
				}
			}
		default:
			i := bytes.IndexByte(p, '\n')
			if i < 0 {
				a.line = append(a.line, p...)
				if len(a.line) > maxHead {
					return errors.New("a line without end")
				}
				return nil
			}
			a.line = append(a.line, p[:i+1]...)
			p = p[i+1:]
			if err := a.lineEnd(); err != nil {
				return err
			}
			a.line = a.line[:0]
		}
		if a.state == done {
			if err := a.body.end(); err != nil {
				return err
			}
		}
	}
	return nil
}

// lineEnd: a whole line of the chunks' framing is there.
func (a *answer) lineEnd() error {
	line, ok := bytes.CutSuffix(a.line, []byte("\r\n"))
	switch {
	case !ok:
		return fmt.Errorf("a line of the framing ends wrongly: %.80q", a.line)
	case a.state == inSize:
		n, err := hex(line)
		if err != nil {
			return err
		}
		a.left, a.state = n, inChunk
		if n == 0 {
			a.state = inTrailer
		}
	case len(line) > 0:
		return fmt.Errorf("an empty line of the framing has %.80q", line)
	case a.state == inChunkEnd:
		a.state = inSize
	default:
		a.state = done
	}
	return nil
}

func hex(line []byte) (int, error) {
	n := 0
	for _, c := range line {
		digit := bytes.IndexByte([]byte("0123456789abcdef"), c|0x20)
		if digit < 0 || n > 1<<30 {
			return 0, fmt.Errorf("no size of a chunk: %.80q", line)
		}
		n = n<<4 | digit
	}
	if len(line) == 0 {
		return 0, errors.New("an empty size of a chunk")
	}
	return n, nil
}

func (a *answer) head(head []byte) error {
	status, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("status %q, head %.300q", status, rest)
	}
	a.left = -1
	for line := range bytes.SplitSeq(rest, []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			if string(value) != "chunked" || a.left >= 0 {
				return fmt.Errorf("framing that nobody asked for: %.300q", rest)
			}
			a.state = inSize
		case bytes.EqualFold(name, []byte("Content-Length")):
			if a.left >= 0 || a.state == inSize {
				return fmt.Errorf("framing that nobody asked for: %.300q", rest)
			}
			a.left = 0
			for _, c := range value {
				if c < '0' || c > '9' || a.left > 1<<30 {
					return fmt.Errorf("no length: %.80q", value)
				}
				a.left = a.left*10 + int(c-'0')
			}
		case bytes.EqualFold(name, []byte("Connection")) && bytes.EqualFold(value, []byte("close")):
			return errors.New("the connection is to end with this answer: every target is told to keep it")
		}
	}
	switch {
	case a.state == inSize:
	case a.left > 0:
		a.state = inSized
	default:
		return fmt.Errorf("an answer without a body: %.300q", head)
	}
	return nil
}
