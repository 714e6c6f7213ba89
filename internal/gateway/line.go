package gateway

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// priority says how much a request matters.
type priority int

const (
	high priority = iota
	normal
	low
	levels
)

var priorities = map[string]priority{"high": high, "normal": normal, "low": low}

// share says how many turns each priority gets while all of them wait. None
// gets nothing: what is only unimportant is not never.
var share = [levels]float64{high: 16, normal: 4, low: 1}

// line is where requests wait while all backends that could take them are full.
// It is not one row: each caller has its own in each priority, and whose turn it is
// is decided when a backend becomes free. First the priority, by shares; then the
// caller that has the least running; then who came first.
//
// It is guarded by pool.mu.
type line struct {
	max    int           // requests in it
	limit  time.Duration // that one waits; 0: none
	rows   map[rowKey]*row
	length [levels]int
	passed [levels]float64 // turns that a priority has had, over its share
	gauge  interface{ Set(float64) }
}

type rowKey struct {
	priority priority
	caller   uint64
}

type row struct{ waiters []*waiter }

// waiter is one request in the line.
type waiter struct {
	want
	tried  []*backend
	limit  time.Duration // line.limit, as it was when it came
	passed int           // times that one behind it was called before it
	called chan *lease   // has room for one
	sent   error         // why it must go, if called is closed
}

// waitError is a request that the line did not take, or did not keep.
type waitError struct {
	why   string
	own   bool          // the caller fills the line by itself
	retry time.Duration // by then it may be worth another try
}

func (e *waitError) Error() string { return e.why }

// Reasons of gateway_refused_requests_total.
const (
	lineFull    = "line_full"
	lineTooLong = "wait_too_long"
	noMemory    = "no_memory"
	noLimits    = "limits_unavailable"
)

// lease takes a backend for a request, and waits for one if need be; it says how
// long. The error is errNoBackend, a *waitError, or why ctx has ended.
func (p *pool) lease(ctx context.Context, w *want, tried []*backend) (l *lease, waited time.Duration, err error) {
	p.mu.Lock()
	if w.seq == 0 {
		p.seq++
		w.seq = p.seq
	}
	l, best := p.take(w, tried)
	var me *waiter
	switch {
	case l != nil:
	case best == useless:
		err = errNoBackend
	default:
		me, err = p.join(w, tried)
	}
	p.mu.Unlock()
	if me == nil {
		return l, 0, err
	}
	began := time.Now()
	l, err = p.wait(ctx, me)
	return l, time.Since(began), err
}

// wait is until a request in the line is called up, or must go.
func (p *pool) wait(ctx context.Context, me *waiter) (*lease, error) {
	var err error
	var late <-chan time.Time
	if me.limit > 0 {
		timer := time.NewTimer(me.limit)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case l, ok := <-me.called:
		if !ok {
			return nil, me.sent
		}
		return l, nil
	case <-late:
		err = &waitError{why: lineTooLong}
	case <-ctx.Done():
		err = blame(ctx, ctx.Err())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.line.leave(me) { // called, or sent away, at this very moment
		l, ok := <-me.called
		if ok && ctx.Err() == nil {
			return l, nil
		}
		if ok {
			p.mu.Unlock()
			l.release()
			p.mu.Lock()
		}
	}
	if refused, ok := err.(*waitError); ok {
		refused.retry = p.expect(&me.want, p.line.ahead(&me.want))
	}
	return nil, err
}

// join puts a request into its row: at the end, unless it has been tried before
// and keeps its place. A full line has room for a caller who has less in it than
// another: the one with the most loses its last.
func (p *pool) join(w *want, tried []*backend) (*waiter, error) {
	ahead := p.line.ahead(w)
	wait := p.expect(w, ahead)
	if p.line.limit > 0 && wait > p.line.limit && len(tried) == 0 {
		return nil, &waitError{why: lineTooLong, retry: wait - p.line.limit}
	}
	if p.line.total() >= p.line.max {
		last := p.line.greediest(w)
		if last == nil {
			return nil, &waitError{why: lineFull, own: p.line.of(w.caller) > 0, retry: wait}
		}
		p.line.leave(last)
		last.sent = &waitError{why: lineFull, own: true, retry: wait}
		close(last.called)
	}
	return p.line.enter(w, tried), nil
}

// expect gives how long a request waits at the least with so many ahead of it, as
// backends have worked of late; 0 where nothing is known of that.
func (p *pool) expect(w *want, ahead int) time.Duration {
	rate := 0.0 // leases that end, a second
	for _, b := range p.backends {
		if p.rank(b, w, nil) == useless {
			continue
		}
		if b.service == 0 {
			return 0
		}
		rate += float64(p.cap) / b.service
	}
	if rate == 0 {
		return 0
	}
	return time.Duration(float64(ahead) / rate * float64(time.Second))
}

// callUp gives a backend that has become free to those whose turn it is.
func (p *pool) callUp(b *backend) {
	for p.line.total() > 0 && p.isFree(b) {
		next := p.line.next(p.running, func(w *waiter) bool {
			r := p.rank(b, &w.want, w.tried)
			return r != useless && (r == fit || r == p.best(&w.want, w.tried))
		})
		if next == nil {
			return
		}
		next = p.nearer(next, b)
		p.line.serve(next)
		next.called <- p.give(b, &next.want)
	}
}

// lookahead is how far into a row is looked for a request that the free backend has
// cached, and how often its first one is passed for such.
const lookahead = 16

// nearer gives the request of a row that goes to a backend in place of its first,
// which may not belong there: where all backends are full what comes free is the only
// choice, and to go by order alone would leave every prompt to chance.
func (p *pool) nearer(first *waiter, b *backend) *waiter {
	if first.passed >= lookahead || p.belongs(&first.want, b) {
		return first
	}
	row := p.line.rows[rowKey{first.priority, first.caller}].waiters
	row = row[slices.Index(row, first)+1:]
	for _, w := range row[:min(len(row), lookahead)] {
		if p.rank(b, &w.want, w.tried) == fit && p.belongs(&w.want, b) {
			first.passed++
			return w
		}
	}
	return first
}

// belongs reports whether no backend is nearer to a request's group.
func (p *pool) belongs(w *want, b *backend) bool {
	group := w.group
	if group == 0 && w.begins[0] != 0 {
		inFlight := 0
		for _, other := range p.backends {
			inFlight += other.inFlight
		}
		group = p.telling(w.begins, inFlight)
	}
	if group == 0 {
		return true
	}
	own := score(group, b)
	for _, other := range p.backends {
		if other != b && score(group, other) > own && p.rank(other, w, nil) == fit {
			return false
		}
	}
	return true
}

// wake looks whether there is room for those that wait.
func (p *pool) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.callAll()
}

// callAll does the same for all backends, after something has changed.
func (p *pool) callAll() {
	for _, b := range p.backends {
		p.callUp(b)
	}
}

func (l *line) total() int { return l.length[high] + l.length[normal] + l.length[low] }

// all gives the requests in the line, in no order.
func (l *line) all() (waiters []*waiter) {
	for _, r := range l.rows {
		waiters = append(waiters, r.waiters...)
	}
	return waiters
}

// of counts what a caller has in the line.
func (l *line) of(caller uint64) (n int) {
	for c := range levels {
		if r := l.rows[rowKey{c, caller}]; r != nil {
			n += len(r.waiters)
		}
	}
	return n
}

// ahead gives how many will at the least be served before a request that comes
// now. Of those of lower priorities that is none; and of each caller no more than
// this one has itself, since they take turns.
func (l *line) ahead(w *want) (n int) {
	mine := 0
	if r := l.rows[rowKey{w.priority, w.caller}]; r != nil {
		mine = len(r.waiters)
	}
	for key, r := range l.rows {
		switch {
		case key.priority > w.priority:
		case key == rowKey{w.priority, w.caller}:
			n += mine
		default:
			n += min(len(r.waiters), mine)
		}
	}
	return n
}

func (l *line) enter(w *want, tried []*backend) *waiter {
	me := &waiter{want: *w, tried: slices.Clone(tried), limit: l.limit, called: make(chan *lease, 1)}
	key := rowKey{w.priority, w.caller}
	r := l.rows[key]
	if r == nil {
		r = &row{}
		l.rows[key] = r
	}
	i, _ := slices.BinarySearchFunc(r.waiters, me, func(a, b *waiter) int { return cmp.Compare(a.seq, b.seq) })
	r.waiters = slices.Insert(r.waiters, i, me)
	l.grow(w.priority, 1)
	return me
}

// leave takes a request out of the line; false: it is not there any more.
func (l *line) leave(w *waiter) bool {
	key := rowKey{w.priority, w.caller}
	r := l.rows[key]
	if r == nil {
		return false
	}
	i := slices.Index(r.waiters, w)
	if i < 0 {
		return false
	}
	if i == 0 {
		r.waiters[0] = nil
		r.waiters = r.waiters[1:]
	} else {
		r.waiters = slices.Delete(r.waiters, i, i+1)
	}
	if len(r.waiters) == 0 {
		delete(l.rows, key)
	}
	l.grow(w.priority, -1)
	return true
}

// serve takes out a request whose turn it is.
func (l *line) serve(w *waiter) {
	l.passed[w.priority] += 1 / share[w.priority]
	l.leave(w)
}

func (l *line) grow(c priority, by int) {
	l.length[c] += by
	l.gauge.Set(float64(l.total()))
}

// next gives the request whose turn it is, of those that may go.
func (l *line) next(running map[uint64]int, may func(*waiter) bool) *waiter {
	var best [levels]*waiter
	for key, r := range l.rows {
		rival := best[key.priority]
		if rival != nil && running[rival.caller] < running[key.caller] {
			continue
		}
		for _, w := range r.waiters {
			if rival != nil && running[rival.caller] == running[key.caller] && rival.seq < w.seq {
				break
			}
			if may(w) {
				best[key.priority] = w
				break
			}
		}
	}
	var next *waiter
	for _, w := range best {
		if w != nil && (next == nil || l.passed[w.priority] < l.passed[next.priority]) {
			next = w
		}
	}
	if next != nil { // who cannot use its turns does not save them up
		for i, w := range best {
			if w == nil {
				l.passed[i] = max(l.passed[i], l.passed[next.priority])
			}
		}
	}
	return next
}

// greediest gives the last request of the caller that has the most in the line, if
// that is more than w's caller would have, and w is not less important.
func (l *line) greediest(w *want) *waiter {
	var most *row
	for key, r := range l.rows {
		if key.priority < w.priority || key.caller == w.caller {
			continue
		}
		if n, last := len(r.waiters), r.waiters[len(r.waiters)-1]; most == nil || n > len(most.waiters) || n == len(most.waiters) && last.seq > most.waiters[n-1].seq {
			most = r
		}
	}
	if most == nil || len(most.waiters) <= l.of(w.caller)+1 {
		return nil
	}
	return most.waiters[len(most.waiters)-1]
}

// retryAfter gives whole seconds, at least one, and not so many that a client
// stays away from servers that are idle again.
func (e *waitError) retryAfter() string {
	return fmt.Sprint(int(min(max(math.Ceil(e.retry.Seconds()), 1), 60)))
}
