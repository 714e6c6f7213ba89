package openai

import (
	"bytes"
	"io"
)

// MaxEvent is the longest event that [Events] gives whole, in bytes. No token
// is that long; images and sounds in a stream may be.
const MaxEvent = 64 << 10

// firstRead is the size that a buffer begins with: vLLM writes an event at a
// time, and most are a few hundred bytes.
const firstRead = 4 << 10

// Events cuts a stream of server-sent events into its events, in place, as
// bytes arrive. The pieces that it gives, laid end to end, are the stream byte
// for byte. Memory is bounded by twice [MaxEvent]. The zero value is ready.
//
// An event ends with an empty line; lines end with LF or CRLF. (A lone CR, which
// the standard also allows, ends no line here: no server of this field sends it.)
type Events struct {
	buf        []byte
	start, end int // buf[start:end] has been read and not been given
	searched   int // so much of it holds no event's end
	open       bool
}

// Fill reads once from r. Pieces that Next gave are no longer valid after it.
func (e *Events) Fill(r io.Reader) error {
	if e.start > 0 {
		copy(e.buf, e.buf[e.start:e.end])
		e.start, e.end = 0, e.end-e.start
	}
	if e.end == len(e.buf) {
		grown := make([]byte, max(firstRead, 2*len(e.buf)))
		copy(grown, e.buf[:e.end])
		e.buf = grown
	}
	n, err := r.Read(e.buf[e.end:])
	e.end += n
	return err
}

// Piece is a stretch of a stream: an event with its empty line, or, of an event
// longer than MaxEvent, a part of it.
type Piece struct {
	Bytes []byte
	// First and Last: the piece begins an event, and ends it. An event in one
	// piece has both.
	First, Last bool
}

// Next gives the next piece of what was read; one without bytes: read on.
func (e *Events) Next() Piece {
	unread := e.buf[e.start:e.end]
	first := !e.open
	if n := eventEnd(unread, e.searched); n > 0 {
		e.open = false
		e.start += n
		e.searched = 0
		return Piece{unread[:n], first, true}
	}
	e.searched = max(0, len(unread)-tail)
	if len(unread) > MaxEvent || e.open && len(unread) > tail {
		e.open = true
		e.start = e.end - tail
		e.searched = 0
		return Piece{unread[:len(unread)-tail], first, false}
	}
	return Piece{}
}

// Rest is what was read and not given: at the end of a stream, an event without
// its empty line, or the first half of one.
func (e *Events) Rest() Piece { return Piece{e.buf[e.start:e.end], !e.open, true} }

// Open reports whether part of a long event was given and its end was not.
func (e *Events) Open() bool { return e.open }

// tail is how much of a long event is held back, so that an empty line that
// straddles two reads is seen: a terminator is at most LF CR LF.
const tail = 2

// eventEnd gives the length of the first event in b, its empty line included; 0
// where none ends in b. The search begins at from.
func eventEnd(b []byte, from int) int {
	for at := from; ; {
		lf := bytes.IndexByte(b[at:], '\n')
		if lf < 0 {
			return 0
		}
		at += lf + 1
		rest := b[at:]
		if len(rest) > 0 && rest[0] == '\n' {
			return at + 1
		}
		if len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
			return at + 2
		}
	}
}

// data gives the payload of an event: its data lines without the field name,
// joined by LF where there are several; nil for an event without data (a
// comment, a bare retry).
func data(event []byte) []byte {
	var payload []byte
	for lines := 0; len(event) > 0; {
		line := event
		if lf := bytes.IndexByte(event, '\n'); lf >= 0 {
			line, event = event[:lf], event[lf+1:]
		} else {
			event = nil
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		value, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok {
			continue
		}
		value = bytes.TrimPrefix(value, []byte(" "))
		if lines++; lines == 1 {
			payload = value
			continue
		}
		payload = append(append(payload[:len(payload):len(payload)], '\n'), value...)
	}
	return payload
}
