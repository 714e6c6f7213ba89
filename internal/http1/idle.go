package http1

import (
	"sync"
	"time"
)

// idle are connections that nobody uses.
type idle struct {
	mu    sync.Mutex
	of    map[string][]*link // of each server, the latest last
	n     int
	sweep *time.Timer // nil: none is idle
}

// take gives the connection that was used last, if it still lives.
func (i *idle) take(key string, timeout time.Duration) *link {
	for {
		l := i.pop(key)
		if l == nil {
			return nil
		}
		if time.Since(l.since) < timeout && l.lives() {
			return l
		}
		l.Close()
	}
}

func (i *idle) pop(key string) *link {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := i.of[key]
	if len(all) == 0 {
		return nil
	}
	last := len(all) - 1
	l := all[last]
	all[last] = nil
	i.of[key] = all[:last]
	i.n--
	return l
}

// put keeps a connection for the next request.
func (i *idle) put(l *link) {
	timeout := l.c.IdleTimeout
	l.since, l.reused = time.Now(), true
	l.rests()
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.of[l.key]) >= l.c.MaxIdle || timeout <= 0 {
		go l.Close() // of TLS it may take time
		return
	}
	if i.of == nil {
		i.of = map[string][]*link{}
	}
	i.of[l.key] = append(i.of[l.key], l)
	i.n++
	if i.sweep == nil {
		i.sweep = time.AfterFunc(timeout, func() { i.clean(timeout) })
	}
}

// clean closes what has been idle for too long, and comes again for the rest.
func (i *idle) clean(timeout time.Duration) {
	now := time.Now()
	next := timeout
	i.drop(func(l *link) bool {
		left := l.since.Add(timeout).Sub(now)
		if left > 0 {
			next = min(next, left)
		}
		return left <= 0
	})
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.n > 0 {
		i.sweep.Reset(next)
	} else {
		i.sweep = nil
	}
}

func (i *idle) closeAll() { i.drop(func(*link) bool { return true }) }

// drop closes those of which is says so.
func (i *idle) drop(is func(*link) bool) {
	var out []*link
	i.mu.Lock()
	for key, all := range i.of {
		kept := all[:0]
		for _, l := range all {
			if is(l) {
				out = append(out, l)
			} else {
				kept = append(kept, l)
			}
		}
		clear(all[len(kept):])
		if i.of[key] = kept; len(kept) == 0 {
			delete(i.of, key)
		}
	}
	i.n -= len(out)
	i.mu.Unlock()
	for _, l := range out {
		l.lives() // ends who waits for its end
		l.Close()
	}
}

// rests: nobody uses the connection from here on, and nothing is to come on it.
func (l *link) rests() {
	if !l.isQuick() {
		l.readAhead(nil)
	}
}

// lives reports whether a connection that has rested may be used: its server has
// neither closed it nor said anything, which would be taken for the next answer.
func (l *link) lives() bool {
	if l.isQuick() {
		return l.quick.silent()
	}
	return l.stopAhead() && len(l.rest) == 0
}
