package vllmsim

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// errClosed ends requests that come when the engine is closed.
var errClosed = errors.New("the engine is closed")

// sequence is one answer in the making.
type sequence struct {
	job    *job
	choice int
	prompt int    // how many of tokens are the prompt
	tokens []int  // the prompt, and what has been said
	script script // what is to be said
	sent   int    // how much of the script the client has been given

	computed int // tokens whose KV is cached
	hashes   []uint64
	blocks   []*block
	cached   int // prompt tokens that the prefix cache had when it first ran

	preempted int // times

	arrived, admitted, first, last time.Time
}

func (q *sequence) said() int { return len(q.tokens) - q.prompt }

func (q *sequence) done() bool { return q.said() == len(q.script.tokens) }

// generated is what has been said; of an embedding nothing is.
func (q *sequence) generated() int {
	if q.job.pooling {
		return 0
	}
	return q.said()
}

// longest is the length of the longest answer to the same prompt, and whether
// all of them have ended.
func (q *sequence) longest() (tokens int, all bool) {
	first := q.choice / q.job.n * q.job.n
	for _, s := range q.job.seqs[first : first+q.job.n] {
		if !s.done() {
			return 0, false
		}
		tokens = max(tokens, s.generated())
	}
	return tokens, true
}

// job is one request as the engine sees it: its sequences, and an outbox that
// never blocks the engine.
type job struct {
	seqs  []*sequence
	salt  uint64 // separates prefix caches
	n     int    // answers asked for per prompt
	limit int    // max_tokens; 0 when the request named none
	// pooling: a prompt is computed and nothing said. The one token of such a
	// sequence's script stands for its vector.
	pooling bool

	// Both belong to the engine.
	running int // sequences that have not ended
	aborted bool

	mu      sync.Mutex
	steps   []step
	ended   bool
	arrival chan struct{} // holds one token while there may be news
}

// step is what one engine step gave one request: at most one delta for each of
// its sequences.
type step []delta

type delta struct {
	choice int
	tokens []token
	// finish is why the sequence ended; empty while it goes on.
	finish  string
	stopped string
}

func newJob(n int) *job { return &job{n: n, arrival: make(chan struct{}, 1)} }

// add gives the job one more sequence.
func (j *job) add(prompt []int, s script) {
	tokens := make([]int, len(prompt), len(prompt)+len(s.tokens))
	copy(tokens, prompt)
	j.seqs = append(j.seqs, &sequence{job: j, choice: len(j.seqs), prompt: len(prompt), tokens: tokens, script: s})
}

// put hands over a step; it never waits.
func (j *job) put(s step, ended bool) {
	j.mu.Lock()
	if len(s) > 0 {
		j.steps = append(j.steps, s)
	}
	j.ended = j.ended || ended
	j.mu.Unlock()
	select {
	case j.arrival <- struct{}{}:
	default:
	}
}

// told reports whether there is something left for next to give.
func (j *job) told() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.steps) > 0 || j.ended
}

// next waits for the next step. It returns io.EOF after the last one, the
// context's error when that ends first, and errClosed when the engine does.
func (j *job) next(ctx context.Context, e *engine) (step, error) {
	for {
		j.mu.Lock()
		if len(j.steps) > 0 {
			s := j.steps[0]
			j.steps = j.steps[1:]
			j.mu.Unlock()
			return s, nil
		}
		ended := j.ended
		j.mu.Unlock()
		if ended {
			return nil, io.EOF
		}
		select {
		case <-j.arrival:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-e.abandoned:
			if !j.told() {
				return nil, errClosed
			}
		}
	}
}
