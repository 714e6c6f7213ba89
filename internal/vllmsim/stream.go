package vllmsim

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// dialect is how one endpoint tells a stream: chat, completions, responses or
// messages.
type dialect interface {
	// open comes before the engine has given anything.
	open(*events)
	step(*events, step)
	close(*events)
	// fail ends a stream that has begun; without an event the connection breaks.
	fail(*events, openai.Error)
}

// stream answers with the job's tokens as they come: headers at once, then one
// flushed write for each engine step.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, j *job, t trouble, d dialect) {
	defer s.engine.abort(j)
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	out := &sender{w: w, rc: http.NewResponseController(w), trouble: t, dialect: d}
	err := s.tell(r, out, j, t, d)
	switch {
	case errors.Is(err, errStalled):
		s.hang(r)
	case errors.Is(err, errCut), errors.Is(err, errClosed):
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) tell(r *http.Request, out *sender, j *job, t trouble, d dialect) error {
	if err := out.trip(); err != nil {
		return err
	}
	if err := out.send(d.open); err != nil {
		return err
	}
	if f, ok := t[slowFirstToken]; ok && !s.pause(r, f.Delay) {
		return context.Canceled
	}
	s.engine.submit(j)
	for {
		st, err := j.next(r.Context(), s.engine)
		if err == io.EOF {
			return out.send(d.close)
		}
		if err != nil {
			return err
		}
		if err := out.send(func(e *events) { d.step(e, st) }); err != nil {
			return err
		}
	}
}

// hang is silence until the client leaves.
func (s *Server) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.engine.quit:
		panic(http.ErrAbortHandler)
	}
}

var (
	errStalled = errors.New("fault: stalled")
	errCut     = errors.New("fault: cut")
	errFailed  = errors.New("fault: error in the stream")
)

// sender writes events, and counts them for the faults.
type sender struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	sent    int
	trouble trouble
	dialect dialect
}

func (o *sender) send(tell func(*events)) error {
	var e events
	tell(&e)
	if len(e.list) == 0 {
		return nil
	}
	for _, event := range e.list {
		if _, err := o.w.Write(event); err != nil {
			return err
		}
		o.sent++
		if err := o.trip(); err != nil {
			return err
		}
	}
	return o.rc.Flush()
}

// trip lets the request's trouble come once enough events are written. At 0 it
// also sends the headers off.
func (o *sender) trip() error {
	due := func(kind string) bool {
		f, ok := o.trouble[kind]
		return ok && f.After == o.sent
	}
	err := error(nil)
	switch {
	case due(cut):
		err = errCut
	case due(stall):
		err = errStalled
	case due(inStreamError):
		var e events
		o.dialect.fail(&e, openai.NewError(http.StatusInternalServerError, "Internal server error"))
		for _, event := range e.list {
			o.w.Write(event)
		}
		err = errFailed
		if e.list == nil {
			err = errCut
		}
	}
	if err != nil || o.sent == 0 {
		o.rc.Flush()
	}
	return err
}

// collect waits for all of a job's answers; false says that there is no one to
// answer, or that it is answered already.
func (s *Server) collect(w http.ResponseWriter, r *http.Request, j *job, t trouble) bool {
	defer s.engine.abort(j)
	if _, ok := t[cut]; ok {
		panic(http.ErrAbortHandler)
	}
	if _, ok := t[stall]; ok {
		s.hang(r)
		return false
	}
	if _, ok := t[inStreamError]; ok {
		openai.NewError(http.StatusInternalServerError, "Internal server error").WriteTo(w)
		return false
	}
	if f, ok := t[slowFirstToken]; ok && !s.pause(r, f.Delay) {
		return false
	}
	s.engine.submit(j)
	for {
		_, err := j.next(r.Context(), s.engine)
		switch {
		case err == io.EOF:
			return true
		case errors.Is(err, errClosed):
			panic(http.ErrAbortHandler)
		case err != nil:
			return false
		}
	}
}
