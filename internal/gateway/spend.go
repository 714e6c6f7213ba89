package gateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
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
	var room [160]byte
	all, ends := room[:0], [len(rateHeaders)][3]int{}
	for i, level := range [...]limits.Level{grant.Requests, grant.Tokens, grant.DayTokens} {
		all = strconv.AppendInt(all, level.Limit, 10)
		ends[i][0] = len(all)
		all = strconv.AppendInt(all, level.Left, 10)
		ends[i][1] = len(all)
		all = append(all, level.Reset.Round(time.Millisecond).String()...)
		ends[i][2] = len(all)
	}
	// One text and one list for all of them: every answer has these.
	text, values, from := string(all), make([]string, 0, 3*len(rateHeaders)), 0
	for i, limit := range [...]int64{grant.Requests.Limit, grant.Tokens.Limit, grant.DayTokens.Limit} {
		for j, end := range ends[i] {
			if limit > 0 {
				n := len(values)
				values = append(values, text[from:end])
				h[rateHeaders[i][j]] = values[n : n+1 : n+1]
			}
			from = end
		}
	}
}

// rateHeaders are the headers of each limit: how much it is, what is left, and when all
// of it will be there again.
var rateHeaders = [...][3]string{rateHeader("Requests"), rateHeader("Tokens"), rateHeader("Tokens-Day")}

func rateHeader(limit string) [3]string {
	return [3]string{"X-Ratelimit-Limit-" + limit, "X-Ratelimit-Remaining-" + limit, "X-Ratelimit-Reset-" + limit}
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
	settle := func(ctx context.Context) {
		if err := rec.conf.limiter.Settle(ctx, who.Name, rec.grant, used); err != nil {
			g.log.Debug("reservation stands as it is", "id", rec.id, "error", err)
		}
	}
	if rec.conf.SharedLimits == nil {
		settle(context.Background())
		return
	}
	// Not here: the client has its answer when the handler returns.
	rec.conf.limiter.join()
	g.settling.Go(func() {
		defer rec.conf.limiter.leave()
		ctx, cancel := context.WithTimeout(context.Background(), settleWithin)
		defer cancel()
		settle(ctx)
	})
}

// isRateHeader: what a backend says of limits is not about this caller.
func isRateHeader(name string) bool { return strings.HasPrefix(name, "X-Ratelimit-") }
