package tracing

import (
	"log/slog"
	"strings"
	"sync"
	"time"
)

// troubles logs what hinders spans from being delivered. As long as nobody takes them
// that comes with every batch, so it is told once in a while.
type troubles struct {
	log     *slog.Logger
	to      string
	secrets []string

	mu     sync.Mutex
	told   time.Time
	untold int
}

const (
	tellEvery = time.Minute
	longest   = 300 // bytes of a message: it may hold a collector's whole answer
)

// handle is OpenTelemetry's handler of errors.
func (t *troubles) handle(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.told.IsZero() && time.Since(t.told) < tellEvery {
		t.untold++
		return
	}
	t.say(err)
}

// tell does so however short ago the last one was.
func (t *troubles) tell(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.say(err)
}

func (t *troubles) say(err error) {
	text := err.Error()
	for _, s := range t.secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "…")
		}
	}
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	attrs := []any{"to", t.to, "error", text}
	if t.untold > 0 {
		attrs = append(attrs, "more_since", t.untold)
	}
	t.log.Warn("spans are not delivered", attrs...)
	t.told, t.untold = time.Now(), 0
}
