package vllmsim

import (
	"slices"
	"time"
)

// batch is the work of one step.
type batch struct {
	work []work
	// prefill and context are sums over the work: prompt tokens (and tokens
	// computed again after a preemption), and tokens that attention reads.
	prefill, context int
}

type work struct {
	seq    *sequence
	tokens int // to compute in this step
}

func (b *batch) add(q *sequence, tokens int) {
	b.work = append(b.work, work{q, tokens})
	if q.said() == 0 || tokens > 1 {
		b.prefill += tokens
	}
	b.context += q.computed + tokens
}

// schedule fills one step by the rules of vLLM's scheduler
// (vllm/v1/core/sched/scheduler.py): the running sequences first, then the
// waiting ones in order, within the step's token budget, the number of
// sequences and the KV cache. When a running sequence gets no block, the last
// one admitted is preempted: it loses its blocks and goes to the head of the
// waiting line, to compute its tokens again.
func (e *engine) schedule() batch {
	var b batch
	budget := e.cfg.MaxNumBatchedTokens
	preempted := false
	for i := 0; i < len(e.running) && budget > 0; i++ {
		q := e.running[i]
		n := min(len(q.tokens)-q.computed, budget)
		for !e.reserve(q, n) {
			preempted = true
			e.preempt()
			if i == len(e.running) { // it was q itself
				return b
			}
		}
		b.add(q, n)
		budget -= n
	}
	for !preempted && budget > 0 && len(e.waiting) > 0 && len(e.running) < e.cfg.MaxNumSeqs {
		n, ok := e.admit(e.waiting[0], budget)
		if !ok {
			break
		}
		q := e.waiting[0]
		e.waiting = slices.Delete(e.waiting, 0, 1)
		e.running = append(e.running, q)
		b.add(q, n)
		budget -= n
	}
	return b
}

// admit gives the head of the waiting line its first blocks, those that the
// prefix cache has among them. It says how many tokens to compute, and false
// when the KV cache has no room.
func (e *engine) admit(q *sequence, budget int) (int, bool) {
	q.hashes = chain(q.hashes, q.job.salt, q.tokens)
	// The last token is computed in any case: its output is what is wanted.
	hits := e.cache.find(q.hashes[:(len(q.tokens)-1)/blockSize])
	for _, b := range hits {
		e.cache.hold(b)
	}
	q.blocks = hits
	q.computed = len(hits) * blockSize
	n := min(len(q.tokens)-q.computed, budget)
	if !e.reserve(q, n) {
		e.cache.release(q.blocks)
		q.blocks = nil
		return 0, false
	}
	if q.admitted.IsZero() {
		q.admitted = time.Now()
		q.cached = q.computed
		e.metrics.prefix(len(q.tokens), q.cached)
	}
	return n, true
}

// reserve gives a sequence the blocks for its next n tokens, all or none.
func (e *engine) reserve(q *sequence, n int) bool {
	need := (q.computed+n+blockSize-1)/blockSize - len(q.blocks)
	if need > e.cache.free() {
		return false
	}
	for range need {
		q.blocks = append(q.blocks, e.cache.take())
	}
	return true
}

func (e *engine) preempt() {
	last := len(e.running) - 1
	q := e.running[last]
	e.running = e.running[:last]
	e.cache.release(q.blocks)
	q.blocks = nil // and admit starts over
	e.waiting = slices.Insert(e.waiting, 0, q)
	q.preempted++
	e.metrics.preemptions.Inc()
}
