package vllmsim

import (
	"slices"
	"sync"
	"time"
)

// engine steps through the work of all requests, as vLLM's engine core does:
// one goroutine, one step after another while there is work, asleep otherwise.
type engine struct {
	cfg       Config
	metrics   *metrics
	quit      chan struct{}
	stopped   chan struct{}
	abandoned chan struct{} // closed once nothing more will come of any request
	wake      chan struct{} // holds one token while there may be work
	gpu       gpu

	mu      sync.Mutex
	cache   *kvCache
	waiting []*sequence // first come, first served
	running []*sequence // in order of admission; the last is preempted first
}

func newEngine(cfg Config, m *metrics) *engine {
	e := &engine{
		cfg: cfg, metrics: m,
		quit: make(chan struct{}), stopped: make(chan struct{}), abandoned: make(chan struct{}), wake: make(chan struct{}, 1),
		cache: newKVCache(cfg.KVCacheTokens / blockSize),
	}
	go e.run()
	return e
}

// close ends the engine. As vLLM does when it is told to stop, it gives up all
// that runs with the finish reason "abort", and what waits without a word.
func (e *engine) close() {
	close(e.quit)
	<-e.stopped
	e.mu.Lock()
	defer e.mu.Unlock()
	last := map[*job]step{}
	for _, q := range e.running {
		last[q.job] = append(last[q.job], delta{choice: q.choice, tokens: q.script.tokens[q.sent:q.said()], finish: "abort"})
	}
	for _, q := range slices.Concat(e.running, e.waiting) {
		q.script.tokens, q.script.finish, q.script.stopped = q.script.tokens[:q.said()], "abort", ""
	}
	for _, q := range slices.Concat(e.running, e.waiting) {
		q.job.put(last[q.job], true)
		delete(last, q.job)
	}
	close(e.abandoned)
}

// submit puts a request at the end of the waiting line.
func (e *engine) submit(j *job) {
	now := time.Now()
	e.mu.Lock()
	for _, q := range j.seqs {
		q.arrived = now
		e.waiting = append(e.waiting, q)
	}
	j.running = len(j.seqs)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// abort makes the engine drop what is left of a request at its next step.
func (e *engine) abort(j *job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	j.aborted = true
}

func (e *engine) run() {
	defer close(e.stopped)
	// The engine's own clock: steps follow each other on it without the
	// lateness that timers of an operating system add to each sleep.
	clock := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		e.mu.Lock()
		e.reap()
		batch := e.schedule()
		e.metrics.queues(len(e.running), len(e.waiting), e.cache.usage())
		e.mu.Unlock()

		if len(batch.work) == 0 {
			select {
			case <-e.wake:
				clock = time.Now()
				continue
			case <-e.quit:
				return
			}
		}
		began := notFarBehind(clock)
		took := e.cfg.Cost.step(len(batch.work), batch.prefill, batch.context)
		clock = began.Add(took)
		e.gpu.step(began, clock, e.cfg.Cost.busyShare(len(batch.work), took))
		timer.Reset(time.Until(clock))
		select {
		case <-timer.C:
		case <-e.quit:
			return
		}
		e.mu.Lock()
		e.finish(batch)
		e.mu.Unlock()
	}
}

// notFarBehind keeps a process that was suspended from racing to make up for it.
func notFarBehind(clock time.Time) time.Time {
	if now := time.Now(); now.Sub(clock) > 50*time.Millisecond {
		return now
	}
	return clock
}

// reap drops the sequences of aborted requests.
func (e *engine) reap() {
	gone := func(q *sequence) bool {
		if q.job.aborted {
			e.cache.release(q.blocks)
		}
		return q.job.aborted
	}
	e.waiting = slices.DeleteFunc(e.waiting, gone)
	e.running = slices.DeleteFunc(e.running, gone)
}

// finish is the end of a step: what was computed counts, every sequence whose
// tokens are all computed says its next one, and each request gets its share in
// one piece.
func (e *engine) finish(b batch) {
	now := time.Now()
	var order []*job
	given := map[*job]step{}
	said := 0
	for _, w := range b.work {
		q := w.seq
		if q.job.aborted {
			continue
		}
		e.advance(q, w.tokens)
		if q.computed < len(q.tokens) {
			continue
		}
		if !q.job.pooling {
			said++
		}
		e.speak(q, now)
		d, ok := q.deliver()
		if ok && given[q.job] == nil {
			order = append(order, q.job)
		}
		if ok {
			given[q.job] = append(given[q.job], d)
		}
	}
	e.running = slices.DeleteFunc(e.running, (*sequence).done)
	for _, j := range order {
		j.put(given[j], j.running == 0)
	}
	e.metrics.step(b.prefill, said)
}

// advance counts computed tokens, and makes the blocks they fill findable.
func (e *engine) advance(q *sequence, tokens int) {
	from := q.computed / blockSize
	q.computed += tokens
	q.hashes = chain(q.hashes, q.job.salt, q.tokens)
	for i := from; i < q.computed/blockSize; i++ {
		e.cache.fill(q.blocks[i], q.hashes[i])
	}
}

// speak adds the next token of the script, and lets go of what a sequence held
// once it has said all.
func (e *engine) speak(q *sequence, now time.Time) {
	q.tokens = append(q.tokens, q.script.tokens[q.said()].id)
	if q.said() == 1 {
		q.first = now
		e.metrics.firstToken(q)
	} else {
		e.metrics.interToken.Observe(now.Sub(q.last).Seconds())
	}
	q.last = now
	if q.done() {
		e.cache.release(q.blocks)
		q.job.running--
		e.metrics.finish(q)
	}
}

// deliver gives what the client has not got yet, unless it is held back.
func (q *sequence) deliver() (delta, bool) {
	n := q.said()
	if q.script.tokens[n-1].hold && !q.done() {
		return delta{}, false
	}
	d := delta{choice: q.choice, tokens: q.script.tokens[q.sent:n]}
	q.sent = n
	if q.done() {
		d.finish, d.stopped = q.script.finish, q.script.stopped
	}
	return d, true
}
