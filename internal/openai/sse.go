package openai

import (
	"bytes"
	"sync"
)

// MaxEvent is the longest event that [Events] gives whole, in bytes. No token
// is that long; images and sounds in a stream may be.
const MaxEvent = 64 << 10

// Events cuts a stream of server-sent events into its events, in place, as
// bytes arrive. The pieces that it gives, laid end to end, are the stream byte
// for byte. It copies nothing, but an event that comes in parts; memory is bounded by
// twice [MaxEvent]. The zero value is ready.
//
// An event ends with an empty line; lines end with LF or CRLF. (A lone CR, which
// the standard also allows, ends no line here: no server of this field sends it.)
type Events struct {
	unread   []byte  // what was added and not given
	own      []byte  // memory that unread lies in between Keep and Add, and a long part always
	isOwn    bool    // it lies there
	joined   *[]byte // memory that it lies in where it did not begin with what was added last; nil: it did
	searched int     // so much of it holds no event's end
	open     bool
}

// Add takes what the stream goes on with. It must stay as it is until Keep, which must
// come before the next Add.
func (e *Events) Add(p []byte) {
	switch {
	case len(e.unread) == 0:
		e.unread, e.isOwn = p, false
	case len(e.unread) > longPart: // to copy it each time would be dear
		e.own = append(e.unread, p...)
		e.unread = e.own
	default:
		e.joined = joints.Get().(*[]byte)
		*e.joined = append(append((*e.joined)[:0], e.unread...), p...)
		e.unread, e.isOwn = *e.joined, false
	}
}

// longPart is what a part of an event may have, in bytes, to be joined with what comes
// in memory that is not the stream's own: a stream whose events come in crowds would
// else need new memory for each crowd.
const longPart = 16 << 10

var joints = sync.Pool{New: func() any { return new([]byte) }}

// Keep keeps what was added and not given. The pieces that were given are no longer
// valid after it.
func (e *Events) Keep() {
	switch {
	case len(e.unread) == 0:
		if e.unread = nil; cap(e.own) > longPart {
			e.own = nil
		}
	case !e.isOwn || len(e.unread) <= longPart:
		e.own = append(e.own[:0], e.unread...) // which may lie further back in it
		e.unread, e.isOwn = e.own, true
	}
	if e.joined != nil {
		joints.Put(e.joined)
		e.joined = nil
	}
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
	unread, first := e.unread, !e.open
	if n := eventEnd(unread, e.searched); n > 0 {
		e.open = false
		e.unread = unread[n:]
		e.searched = 0
		return Piece{unread[:n], first, true}
	}
	e.searched = max(0, len(unread)-tail)
	if len(unread) > MaxEvent || e.open && len(unread) > tail {
		e.open = true
		e.unread = unread[len(unread)-tail:]
		e.searched = 0
		return Piece{unread[:len(unread)-tail], first, false}
	}
	return Piece{}
}

// Rest is what was read and not given: at the end of a stream, an event without
// its empty line, or the first half of one.
func (e *Events) Rest() Piece { return Piece{e.unread, !e.open, true} }

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
