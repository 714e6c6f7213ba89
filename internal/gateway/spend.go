package gateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/limits"
	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// Reasons of gateway_caller_refused_requests_total, beside those of limits.
const (
	notItsModel = "model"
	tooManyNow  = "concurrency"
)

// limitError is a request for which its caller has nothing left.
type limitError struct {
	reason  string
	message string
	retry   time.Duration // by then it has; 0: never
}

func (e *limitError) Error() string { return e.message }

// enter takes one of the places that a caller has for requests that run at a time.
func (rec *record) enter() error {
	who := rec.caller
	if who == nil || rec.route.free {
		return nil
	}
	n := who.running.Add(1)
	rec.entered = true
	if who.Concurrency > 0 && n > int64(who.Concurrency) {
		return &limitError{tooManyNow, fmt.Sprintf("Your API key may have %s running at a time. Try again when one has ended.", count(who.Concurrency, "request")), time.Second}
	}
	return nil
}

// reserve counts a request against its caller's limits, with as many tokens as it may
// use.
func (g *Gateway) reserve(ctx context.Context, rec *record, asked openai.Request) error {
	who := rec.caller
	if who == nil || rec.route.free {
		return nil
	}
	rec.guess = g.habits.guess(rec, asked)
	if who.Limits == (limits.Limits{}) {
		return nil
	}
	grant, err := rec.conf.limiter.Take(ctx, who.Name, who.Limits, rec.guess.most(who.Limits))
	if errors.Is(err, limits.ErrUnavailable) {
		g.metrics.limitsUnavailable.Inc()
		if rec.conf.FailOpen {
			return nil
		}
		return err
	}
	if err != nil {
		return blame(ctx, err)
	}
	tell(rec.w.Header(), grant)
	if grant.Over != "" {
		return overdrawn(grant, rec.guess.most(who.Limits))
	}
	rec.grant, rec.granted = grant, true
	return nil
}

// tell says how it stands, in the headers that OpenAI's clients know. (Those of the
// day are in the same manner; OpenAI has no such limit.)
func tell(h http.Header, grant limits.Grant) {
	for name, level := range map[string]limits.Level{"Requests": grant.Requests, "Tokens": grant.Tokens, "Tokens-Day": grant.DayTokens} {
		if level.Limit > 0 {
			h.Set("X-Ratelimit-Limit-"+name, strconv.FormatInt(level.Limit, 10))
			h.Set("X-Ratelimit-Remaining-"+name, strconv.FormatInt(level.Left, 10))
			h.Set("X-Ratelimit-Reset-"+name, level.Reset.Round(time.Millisecond).String())
		}
	}
}

// overdrawn says which limit is in the way, and what can be done.
func overdrawn(grant limits.Grant, need int64) error {
	e := &limitError{reason: string(grant.Over), retry: grant.Retry}
	when := "Try again in " + wait(grant.Retry) + "."
	of, span := grant.Tokens, "a minute"
	switch grant.Over {
	case limits.Requests:
		e.message = fmt.Sprintf("Your API key may make %s a minute. %s", count(grant.Requests.Limit, "request"), when)
		return e
	case limits.DayTokens:
		of, span = grant.DayTokens, "a day (of UTC)"
	}
	if grant.Retry == 0 {
		e.message = fmt.Sprintf("This request may take %s, and your API key may use %d %s. Ask for fewer with max_tokens, or shorten the prompt.", count(need, "token"), of.Limit, span)
		return e
	}
	e.message = fmt.Sprintf("Your API key may use %s %s; %d are left, and this request may take %d. %s", count(of.Limit, "token"), span, of.Left, need, when)
	return e
}

// wait prints a time to wait in whole seconds, rounded up.
func wait(d time.Duration) string {
	text := (time.Duration(seconds(d)) * time.Second).String()
	if rest, ok := strings.CutSuffix(text, "m0s"); ok {
		text = rest + "m"
	}
	if rest, ok := strings.CutSuffix(text, "h0m"); ok {
		text = rest + "h"
	}
	return text
}

// count prints a number of things.
func count[N int | int64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprint(n, " ", thing)
}

func seconds(d time.Duration) int64 { return int64(max(math.Ceil(d.Seconds()), 1)) }

// sayWhen tells clients when to come again; and where waiting is more than theirs
// do by themselves, that they need not try. (x-should-retry is what OpenAI's and
// Anthropic's read; a Retry-After of more than a minute they take for a mistake.)
func (e *limitError) sayWhen(h http.Header) {
	if e.retry > 0 {
		h.Set("Retry-After", strconv.FormatInt(seconds(e.retry), 10))
	}
	if e.retry == 0 || e.retry > time.Minute {
		h.Set("X-Should-Retry", "false")
	}
}

// guess is what a request may cost, in tokens.
type guess struct {
	openai.Estimate
	prompt     int64
	completion int64
	said       bool // the request says how much it generates at most
	later      bool // it generates when it is over, and nobody tells how much
}

func (g guess) total() int64 { return g.prompt + g.completion }

// most is what is reserved. Who does not say how much he wants is not refused for
// what others want.
func (g guess) most(l limits.Limits) int64 {
	n := g.total()
	if g.said {
		return n
	}
	for _, limit := range []int64{l.Tokens, l.DayTokens} {
		if limit > 0 && g.prompt <= limit {
			n = min(n, limit)
		}
	}
	return n
}

// habits are what requests have cost of late, by model: from that it is guessed what
// the next one may. Tokens are counted by the engine alone, and only afterwards.
type habits struct {
	mu sync.Mutex
	of map[string]habit
}

type habit struct {
	bytesPerToken float64 // of prompts
	completion    float64 // tokens, where the request does not say how many
}

// unsaid is how many tokens /v1/completions generates where the request says nothing
// of it (max_tokens of vLLM's CompletionRequest, 0.32).
const unsaid = 16

// A text has some four bytes for each token; most answers are shorter than this.
var noHabit = habit{bytesPerToken: openai.BytesPerToken, completion: 256}

// learning is how much the latest request changes a habit.
const learning = 1. / 16

func (h *habits) get(model string) habit {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known, ok := h.of[model]; ok {
		return known
	}
	return noHabit
}

func (h *habits) guess(rec *record, asked openai.Request) guess {
	if rec.route.light || rec.route.path == realtimePath {
		return guess{said: true}
	}
	habit := h.get(rec.label)
	e := asked.Estimate(rec.route.dialect)
	g := guess{Estimate: e, prompt: e.Prompt(habit.bytesPerToken), completion: e.Completion(), said: true}
	g.later = asked.Background && rec.route.dialect == openai.Responses
	switch {
	case g.completion > 0, rec.route.dialect == openai.Other: // which generates nothing
	case rec.route.dialect == openai.Completions:
		e.MaxTokens = unsaid
		g.completion = e.Completion()
	default:
		e.MaxTokens = int64(habit.completion)
		g.completion, g.said = e.Completion(), false
	}
	return g
}

// learn takes over what a request has cost.
func (h *habits) learn(model string, g guess, u openai.Usage) {
	text := int64(u.Prompt) - g.Known // tokens
	if model == otherModel || !u.HasPrompt || text <= 0 || g.Text == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	known, ok := h.of[model]
	if !ok {
		known = noHabit
	}
	known.bytesPerToken += (min(max(float64(g.Text)/float64(text), .5), 16) - known.bytesPerToken) * learning
	if !g.said && u.HasCompletion {
		known.completion += (float64(u.Completion) - known.completion) * learning
	}
	if h.of == nil {
		h.of = map[string]habit{}
	}
	h.of[model] = known // of models that backends list, so bounded
}

// cost is what a request has used: as the engine counted it, or, where it had no
// occasion to say so (a client that left, a stream that was cut), as near as can be
// told.
func (rec *record) cost() (tokens int64, estimated bool) {
	u := rec.usage
	prompt, completion := int64(u.Prompt), int64(u.Completion)
	switch {
	case u.HasPrompt && u.HasCompletion && rec.outcome == ok, u.HasPrompt && rec.route.dialect == openai.Other:
		return prompt + completion, false
	case rec.attempts == 0, rec.outcome != ok && rec.outcome != cancelled && rec.first.IsZero():
		return 0, false // nothing was generated for anybody
	}
	if !u.HasPrompt {
		prompt = rec.guess.prompt
	}
	if rec.guess.later {
		completion = max(completion, rec.guess.completion)
	}
	return prompt + max(completion, int64(rec.tokenEvents)), true
}

// settleWithin bounds the time for which the end of a request is told to the limits.
const settleWithin = time.Second

// account ends what a request had of its caller.
func (g *Gateway) account(rec *record) {
	who := rec.caller
	if who == nil {
		return
	}
	if rec.entered {
		who.running.Add(-1)
	}
	name := rec.callerLabel()
	g.metrics.callerRequests.WithLabelValues(name, rec.label, string(rec.outcome)).Inc()
	g.metrics.callerPromptTokens.WithLabelValues(name, rec.label).Add(float64(rec.usage.Prompt))
	g.metrics.callerCompletionTokens.WithLabelValues(name, rec.label).Add(float64(rec.usage.Completion))
	var limit *limitError
	switch {
	case errors.As(rec.err, &limit):
		g.metrics.callerRefused.WithLabelValues(name, rec.label, limit.reason).Inc()
	case errors.As(rec.err, new(*modelForbidden)):
		g.metrics.callerRefused.WithLabelValues(name, rec.label, notItsModel).Inc()
	case errors.Is(rec.err, limits.ErrUnavailable):
		g.metrics.callerRefused.WithLabelValues(name, rec.label, noLimits).Inc()
	}
	if rec.outcome == ok {
		g.habits.learn(rec.label, rec.guess, rec.usage)
	}
	if !rec.granted {
		return
	}
	used, _ := rec.cost()
	// Not here: the client has its answer when the handler returns.
	rec.conf.limiter.join()
	g.settling.Go(func() {
		defer rec.conf.limiter.leave()
		ctx, cancel := context.WithTimeout(context.Background(), settleWithin)
		defer cancel()
		if err := rec.conf.limiter.Settle(ctx, who.Name, rec.grant, used); err != nil {
			g.log.Debug("reservation stands as it is", "id", rec.id, "error", err)
		}
	})
}

// counting is a Limiter that is closed when nobody has it any more: the settings that
// hold, requests that have begun with them, and what is told to it of their ends.
type counting struct {
	limits.Limiter
	users atomic.Int64
}

func newCounting(l limits.Limiter) *counting {
	c := &counting{Limiter: l}
	c.users.Store(1)
	return c
}

// join reports false if it is closed already. No limiter has room for all.
func (c *counting) join() bool {
	if c == nil {
		return true
	}
	for {
		n := c.users.Load()
		if n == 0 {
			return false
		}
		if c.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (c *counting) leave() {
	if c != nil && c.users.Add(-1) == 0 {
		c.Close()
	}
}

// limiterOf gives what counts for callers, joined: the one that has counted until now,
// if it is the same.
func (g *Gateway) limiterOf(cfg Config, before *settings) (*counting, error) {
	switch o := cfg.SharedLimits; {
	case len(cfg.Callers) == 0:
		return nil, nil
	case o == nil:
		if g.local == nil {
			g.local = newCounting(limits.NewLocal()) // and this stays: it may be wanted again
		}
		g.local.join()
		return g.local, nil
	case before != nil && before.SharedLimits != nil && before.limiter != nil && sameRedis(*before.SharedLimits, *o):
		before.limiter.join()
		return before.limiter, nil
	default:
		shared := *o
		shared.Log = g.log
		l, err := limits.NewShared(shared)
		if err != nil {
			return nil, err
		}
		return newCounting(l), nil
	}
}

// settings gives those that hold now, with their limiter joined.
func (g *Gateway) settings() *settings {
	for {
		conf := g.conf.Load()
		if conf.limiter.join() {
			return conf
		} // others have come to hold between both
	}
}

func sameRedis(a, b limits.Options) bool {
	return a.URL == b.URL && a.Password.Equal(b.Password) && a.Timeout == b.Timeout
}

// isRateHeader: what a backend says of limits is not about this caller.
func isRateHeader(name string) bool { return strings.HasPrefix(name, "X-Ratelimit-") }
