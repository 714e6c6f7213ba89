package gateway

import (
	"sync"

	"github.com/vllm-gateway/vllm-gateway/internal/limits"
)

// limiter is what counts for callers, and ends when another one has taken its place
// and nobody uses it any more.
type limiter struct {
	limits.Limiter

	mu      sync.Mutex
	users   int // requests that have something counted, or are about to
	retired bool
}

// use reports whether the limiter is the one that counts; then done must follow.
func (l *limiter) use() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.retired {
		l.users++
	}
	return !l.retired
}

func (l *limiter) done() {
	l.mu.Lock()
	l.users--
	last := l.retired && l.users == 0
	l.mu.Unlock()
	if last {
		l.Close()
	}
}

// retire is called once, when another one counts.
func (l *limiter) retire() {
	l.mu.Lock()
	l.retired = true
	unused := l.users == 0
	l.mu.Unlock()
	if unused {
		l.Close()
	}
}

// limiter gives the one that counts now, in use. (That of the settings with which a
// request has begun may just have been replaced.)
func (g *Gateway) limiter() *limiter {
	for {
		if l := g.conf.Load().limiter; l.use() {
			return l
		}
	}
}
