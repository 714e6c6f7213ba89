package gpu

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

const (
	// quiet is for how long a line is not repeated.
	quiet = time.Minute
	// mostLines is how many different lines are remembered for that.
	mostLines = 1000
)

// journal writes what changes into the log, and nothing that stays as it is.
type journal struct {
	log    *slog.Logger
	state  string               // of the source
	gpus   map[string]string    // failures, by GPU; empty: it is read
	absurd map[string]bool      // what GPUs tell and cannot be
	said   map[string]time.Time // lines, by what they are about
}

// say writes a line, unless the same was written a moment ago, and reports
// whether it did: about tells the lines of one message apart. Whoever was not
// heard tries again at the next collection, so that the last line is always true
// in the end.
func (j *journal) say(level slog.Level, message, about string, args ...any) bool {
	now, key := time.Now(), message+"\x00"+about
	if t, ok := j.said[key]; ok && now.Sub(t) < quiet {
		return false
	}
	if j.said == nil || len(j.said) >= mostLines {
		j.said = map[string]time.Time{}
	}
	j.said[key] = now
	j.log.Log(context.Background(), level, message, args...)
	return true
}

// tell writes what a collection has changed. devices are the GPUs on the PCI bus,
// -1 if that is not known.
func (j *journal) tell(c *Collection, err error, devices int) {
	for _, f := range c.Faults {
		j.say(slog.LevelWarn, "the driver reports an XID error", fmt.Sprint(f.UUID, f.XID), "uuid", f.UUID, "xid", f.XID)
	}
	if err != nil {
		j.failed(explain(err), devices)
		return
	}
	state := "read by " + c.Source + " of " + c.Driver
	went := state == j.state
	if !went {
		args := []any{"source", c.Source, "driver", c.Driver, "gpus", len(c.GPUs)}
		if c.Instead != "" {
			args = append(args, "since", c.Instead)
		}
		if j.say(slog.LevelInfo, "GPUs are read", state, args...) {
			j.state = state
		}
	}
	j.changes(c, went)
}

func (j *journal) failed(e *Error, devices int) {
	state := string(e.Reason)
	if e.Reason == NoDriver || e.Reason == Driver {
		state += e.Text // what the others say differs from time to time
	}
	if state == j.state {
		return
	}
	level, message, args := slog.LevelWarn, "GPUs cannot be read; it tries again and again", []any{"reason", e.Reason, "error", e.Text}
	if e.Cure != "" {
		args = append(args, "cure", e.Cure)
	}
	if e.Reason == NoDriver && devices == 0 {
		level, message, args = slog.LevelInfo, "no NVIDIA GPU is on this machine's PCI bus; it goes on looking", []any{"driver", e.Text}
	}
	if j.say(level, message, state, args...) {
		j.state = state
	}
}

// changes are those of single GPUs. While it went well before, one that was not
// there has come.
func (j *journal) changes(c *Collection, went bool) {
	now := map[string]string{}
	for _, g := range c.GPUs {
		key := g.key()
		before, known := j.gpus[key]
		id := []any{"gpu", g.Index, "uuid", g.UUID, "name", g.Name}
		heard := true
		switch {
		case g.Failure != "" && g.Failure != before:
			heard = j.say(slog.LevelWarn, "a GPU cannot be read", key+g.Failure, append(id, "error", g.Failure)...)
		case g.Failure == "" && before != "":
			heard = j.say(slog.LevelInfo, "a GPU is read again", key, id...)
		case went && !known:
			heard = j.say(slog.LevelInfo, "a GPU has come", key, id...)
		}
		switch {
		case heard:
			now[key] = g.Failure
		case known:
			now[key] = before
		}
	}
	listed := func(key string) bool {
		return slices.ContainsFunc(c.GPUs, func(g GPU) bool { return g.key() == key })
	}
	for key, failure := range j.gpus {
		if !listed(key) && !j.say(slog.LevelWarn, "a GPU is gone", key, "uuid", key) {
			now[key] = failure
		}
	}
	j.gpus = now
}

// absurdity adds what a GPU tells and cannot be, and writes a line if that is new.
func (j *journal) absurdity(to map[string]bool, g *GPU, q Quantity, v int64) {
	key := g.key() + string(q)
	to[key] = true
	if j.absurd[key] {
		return
	}
	id := []any{"gpu", g.Index, "uuid", g.UUID, "quantity", q}
	if v != garbled {
		id = append(id, "value", v)
	}
	j.say(slog.LevelWarn, "a GPU tells what cannot be; it is not shown", key, id...)
}

// key tells a GPU from others.
func (g GPU) key() string {
	if g.UUID != "" {
		return g.UUID
	}
	return fmt.Sprint("index ", g.Index)
}
