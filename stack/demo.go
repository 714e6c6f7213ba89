package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// demo is a load that makes every panel of the dashboard move, on a laptop and
// without heating it: virtual users who ask the gateway over HTTP as anybody
// does. It makes way as soon as somebody else asks.
type demo struct {
	gateway string // URL
	log     *slog.Logger
	client  *http.Client
	token   string // marks the demo's own requests; nobody else can know it
	curve   []level

	mu      sync.Mutex
	changed chan struct{} // closed, and made anew, when users or paused changes
	users   int           // of the current level
	guests  int           // requests of others that run now
	paused  bool
	resume  *time.Timer // while paused and without a guest
	over    bool
	failing bool
	failed  time.Time // the last failure
}

// level is so many users for so long.
type level struct {
	users int
	span  time.Duration
}

// A cycle takes ten minutes. Neighbours are so far apart that the load's changes
// are detected as such (more than 1.5 times and 2 requests), and last longer
// than the 40 s that the detector looks back. 32 users are more than the
// simulator runs at once, so requests wait for a minute of the ten.
var demoCurve = []level{
	{2, time.Minute},
	{14, 150 * time.Second},
	{32, time.Minute},
	{14, 2 * time.Minute},
	{2, time.Minute},
	{20, 90 * time.Second},
	{2, time.Minute},
}

const (
	// makeWay is how long the demo stays away after the last request of others:
	// between the runs of a load test, and while somebody thinks about the next
	// curl.
	makeWay = time.Minute
	// settled is how long nothing must fail before failures count as over.
	settled = 10 * time.Second

	acquaint     = time.Second     // the gateway learns names by its first probe; until then they count as "other"
	startSpread  = 3 * time.Second // users do not all come at once
	askTimeout   = 2 * time.Minute
	firstBackoff = time.Second
	lastBackoff  = 10 * time.Second

	demoHeader = "X-Vllm-Stack-Demo"
)

// newDemo makes the load for a gateway at a URL. Its requests must come to the
// gateway through wrap.
func newDemo(gateway string, log *slog.Logger) *demo {
	// No proxy, whatever the environment says: the gateway is in this process.
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 100,
		IdleConnTimeout:     30 * time.Second,
	}
	return &demo{
		gateway: gateway, log: log, client: &http.Client{Transport: transport},
		token: rand.Text(), curve: demoCurve, changed: make(chan struct{}),
	}
}

// run makes load until ctx ends.
func (d *demo) run(ctx context.Context) {
	defer d.client.CloseIdleConnections()
	defer d.end()
	model, ok := d.model(ctx)
	if !ok {
		return
	}
	sleep(ctx, acquaint)
	most := 0
	for _, l := range d.curve {
		most = max(most, l.users)
	}
	var users sync.WaitGroup
	defer users.Wait()
	for i := range most {
		users.Go(func() { d.user(ctx, i, model) })
	}
	for n := 0; ctx.Err() == nil; n++ {
		l := d.curve[n%len(d.curve)]
		d.change(func() { d.users = l.users })
		sleep(ctx, l.span)
	}
}

// end keeps silent whoever comes and goes from now on.
func (d *demo) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if d.resume != nil {
		d.resume.Stop()
	}
}

// change changes what users wait for; the lock must not be held.
func (d *demo) change(what func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	what()
	d.tell()
}

// tell wakes those who wait; the lock must be held.
func (d *demo) tell() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// user is one virtual user: asks, reads the answer to its end, thinks about a
// second, and asks again.
func (d *demo) user(ctx context.Context, i int, model string) {
	rng := mathrand.New(mathrand.NewPCG(1, uint64(i)))
	backoff := firstBackoff
	for d.admit(ctx, i, rng) {
		err := d.ask(ctx, question(rng, model))
		if ctx.Err() != nil {
			return
		}
		d.report(err)
		think := time.Second/2 + upTo(rng, time.Second)
		if err == nil {
			backoff = firstBackoff
		} else {
			think = backoff/2 + upTo(rng, backoff)
			backoff = min(2*backoff, lastBackoff)
		}
		sleep(ctx, think)
	}
}

// admit waits until a user may ask. It gives false when there is nothing more
// to ask.
func (d *demo) admit(ctx context.Context, i int, rng *mathrand.Rand) bool {
	waited := false
	for {
		d.mu.Lock()
		free, changed := !d.paused && i < d.users, d.changed
		d.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return false
		case free && !waited:
			return true
		case free:
			waited = false
			sleep(ctx, upTo(rng, startSpread))
		default:
			waited = true
			select {
			case <-ctx.Done():
			case <-changed:
			}
		}
	}
}

// model is the first one that the gateway lists.
func (d *demo) model(ctx context.Context) (string, bool) {
	rng := mathrand.New(mathrand.NewPCG(1, 1<<32))
	for backoff := firstBackoff; d.admit(ctx, -1, rng); backoff = min(2*backoff, lastBackoff) {
		name, err := d.firstModel(ctx)
		if ctx.Err() != nil {
			break
		}
		d.report(err)
		if err == nil {
			return name, true
		}
		sleep(ctx, backoff)
	}
	return "", false
}

func (d *demo) firstModel(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := d.do(ctx, "GET", "/v1/models", nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var list struct{ Data []struct{ ID string } }
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return "", err
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("GET /v1/models: status %d", resp.StatusCode)
	case json.Unmarshal(body, &list) != nil || len(list.Data) == 0:
		return "", errors.New("GET /v1/models: no model is listed")
	}
	return list.Data[0].ID, nil
}

func (d *demo) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, d.gateway+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set(demoHeader, d.token)
	req.Header.Set("User-Agent", "vllm-stack-demo")
	if method == "POST" {
		req.Header.Set("Content-Type", "application/json")
	}
	return d.client.Do(req)
}

// ask sends a question and reads the answer to its end. The error is nil if it
// went as it was meant to.
func (d *demo) ask(ctx context.Context, q query) error {
	limit := askTimeout
	if q.leaves > 0 {
		limit = q.leaves
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	resp, err := d.do(ctx, "POST", q.path, q.body)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	switch {
	case q.leaves > 0 && ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	case resp.StatusCode != q.status:
		return fmt.Errorf("POST %s: status %d", q.path, resp.StatusCode)
	}
	return nil
}

// report logs when requests begin to fail and when they are through again,
// however many users see it.
func (d *demo) report(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err != nil && !d.failing:
		d.failing = true
		d.log.Warn("demo load: requests fail; it tries again and again", "error", err)
	case err == nil && d.failing && time.Since(d.failed) >= settled:
		d.failing = false
		d.log.Info("demo load: requests get through again")
	}
	if err != nil {
		d.failed = time.Now()
	}
}

// wrap goes round the gateway's handler: it lets the demo's own requests pass
// without their mark, and sees those of others, for whom the demo makes way.
func (d *demo) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get(demoHeader) == d.token:
			r = r.WithContext(r.Context()) // a copy: the server's own stays as it is
			r.Header = r.Header.Clone()
			r.Header.Del(demoHeader)
		case strings.HasPrefix(r.URL.Path, "/v1/"):
			d.arrive()
			defer d.leave()
		}
		next.ServeHTTP(w, r)
	})
}

func (d *demo) arrive() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.guests++
	if d.resume != nil {
		d.resume.Stop()
		d.resume = nil
	}
	if d.paused {
		return
	}
	d.paused = true
	d.tell()
	if !d.over {
		d.log.Info("demo load: pauses, since other requests have come", "until", makeWay.String()+" after the last of them")
	}
}

func (d *demo) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.guests--
	if d.guests > 0 {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(makeWay, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.resume != timer || d.over {
			return // a guest came just now
		}
		d.resume = nil
		d.paused = false
		d.tell()
		d.log.Info("demo load: goes on")
	})
	d.resume = timer
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, span time.Duration) {
	t := time.NewTimer(span)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func upTo(rng *mathrand.Rand, span time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(span)))
}

// query is one request, and how it is to end.
type query struct {
	path   string
	body   []byte
	status int
	leaves time.Duration // the client does not wait longer than this
}

// question draws what a user asks. Of 1000 requests some 20 are left in the
// middle and 14 are wrong, so that the panels of errors have something to show;
// all others should be answered.
func question(rng *mathrand.Rand, model string) query {
	q := query{path: "/v1/chat/completions", status: http.StatusOK}
	answer := 80 + rng.IntN(241) // tokens: long enough that users spend more time waiting than thinking
	body := map[string]any{
		"model":      model,
		"stream":     true,
		"min_tokens": answer,
		"max_tokens": answer + 64*rng.IntN(2), // some end by themselves, some at the limit
	}
	prompt := sentence(rng, 6+rng.IntN(40))
	if rng.IntN(8) == 0 {
		prompt = sentence(rng, 200+rng.IntN(500)) // somebody pastes a page
	}
	messages := []map[string]string{{"role": "user", "content": prompt}}
	if rng.IntN(5) < 2 {
		messages = append([]map[string]string{{"role": "system", "content": houseRules}}, messages...)
	}

	switch n := rng.IntN(1000); {
	case n < 7:
		body["model"], q.status = "no-such-model", http.StatusNotFound
	case n < 14:
		body["temperature"], q.status = -1, http.StatusBadRequest
	case n < 34:
		q.leaves = 200*time.Millisecond + upTo(rng, time.Second)
	case n < 184:
		q.path = "/v1/completions"
		body["stream"], body["prompt"] = false, prompt
	}
	if q.path == "/v1/chat/completions" {
		body["messages"] = messages
	}
	q.body, _ = json.Marshal(body) // strings and numbers: it cannot fail
	return q
}

// houseRules is a long system prompt that many share, as applications do; the
// engine finds it in its prefix cache.
var houseRules = strings.Repeat("You are the assistant of a small public library. "+
	"Answer in plain words and in the language of the question. Say so when you do not know. "+
	"Name the shelf when you recommend a book, and never promise that it is there today. ", 8)

var words = strings.Fields("the a of and to in for with about how why when where what which who " +
	"book garden river engine letter winter bread music train window story city mountain question " +
	"explain compare describe write find remember translate shorten count build repair paint carry " +
	"old small bright quiet early simple strange heavy gentle northern seven many")

// sentence is so many words without meaning: the simulator does not read them.
func sentence(rng *mathrand.Rand, length int) string {
	var b strings.Builder
	for i := range length {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(words[rng.IntN(len(words))])
	}
	return b.String()
}
