package gateway

import (
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// meter counts a stream's tokens while its bytes pass.
type meter struct {
	rec    *record
	stream openai.Stream
	events openai.Events

	first, last time.Time // the first and the latest token
	finished    bool      // a choice has ended
	ended       bool      // the stream's own end mark has passed
	aborted     bool      // the engine has given it up: what looks like its end is none, and is not passed on
	failure     *openai.Failure
	tokens      int // events that have borne some
}

func newMeter(rec *record, asked bool) *meter {
	return &meter{
		rec:    rec,
		stream: openai.Stream{Dialect: rec.route.dialect, Asked: asked},
	}
}

// read looks at every event that has arrived and gives the bytes that are for
// the client: all of them, but for the usage chunk that only the gateway asked
// for. They are valid until the next Fill.
func (m *meter) read(at time.Time) (out []byte) {
	gap := false // a piece was left out: what follows does not adjoin out
	for {
		p := m.events.Next()
		if p.Bytes == nil {
			return out
		}
		if m.skip(p, at) {
			gap = out != nil
			continue
		}
		switch {
		case out == nil:
			out = p.Bytes
		case gap:
			out = append(out[:len(out):len(out)], p.Bytes...)
		default:
			out = out[:len(out)+len(p.Bytes)] // pieces lie end to end
		}
	}
}

// rest gives what stands after the last empty line of a stream that has ended,
// if that is for the client: a server may leave the last empty line out.
func (m *meter) rest(at time.Time) []byte {
	p := m.events.Rest()
	if len(p.Bytes) == 0 || m.skip(p, at) {
		return nil
	}
	return p.Bytes
}

// skip notes what a piece says, and reports whether it is not for the client.
func (m *meter) skip(p openai.Piece, at time.Time) bool {
	fact := m.stream.Read(p)
	m.aborted = m.aborted || fact.Aborted
	if m.aborted {
		return true
	}
	if fact.Token {
		m.tokens++
	}
	if fact.Token && m.first.IsZero() {
		m.first, m.last = at, at
		m.rec.firstToken(at)
	} else if (fact.Token || fact.Finish) && !m.first.IsZero() {
		m.rec.series.gap.Observe(at.Sub(m.last).Seconds())
		m.last = at
	}
	m.finished = m.finished || fact.Finish
	m.ended = m.ended || fact.End
	if m.failure == nil {
		m.failure = fact.Failure
	}
	return fact.Extra
}

// begun reports whether the engine has done anything for a stream that has
// ended. One that vLLM gives up before that ends cleanly all the same: in chat
// and completions without a finish_reason, elsewhere as an answer for which no
// token was generated (an empty one has its end token).
func (m *meter) begun() bool {
	switch m.stream.Dialect {
	case openai.Chat, openai.Completions:
		return !m.first.IsZero() || m.finished
	}
	u := m.stream.Usage
	return !m.first.IsZero() || !u.HasCompletion || u.Completion > 0
}

// whole reports whether a stream that the backend has closed was complete. An
// error that the engine reports may be its last word, and streams of a kind
// unknown here have no end mark that could be missed.
func (m *meter) whole() bool {
	return !m.aborted && (m.ended || m.failure != nil || m.stream.Dialect == openai.Other)
}

// shortest is the span below which a stream's tokens have arrived together:
// dividing by it would measure the network, and a single such value would spoil
// every mean.
const shortest = time.Millisecond

// finish observes what can be said only of a finished stream.
func (m *meter) finish() {
	span := m.last.Sub(m.first)
	if n := m.stream.Usage.Completion; n >= 2 && span >= shortest {
		m.rec.series.speed.Observe(float64(n-1) / span.Seconds())
	}
}
