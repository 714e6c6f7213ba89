package gateway

import "sync"

// door is the way for timers and contexts into what belongs to a handler: its
// ResponseWriter must not be touched once the handler has returned (net/http's
// for HTTP/2 panics), and neither stopping a timer nor a context waits for a
// function that has begun. The zero value is open.
type door struct {
	mu     sync.Mutex
	closed bool
}

// through calls f, unless the door is shut.
func (d *door) through(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		f()
	}
}

// shut returns when nobody is within; nobody gets in after it.
func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
}
