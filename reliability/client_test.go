//go:build reliability

package reliability

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// kind is how a request ended, as its client saw it.
type kind string

const (
	whole       kind = "whole"        // 200, and all of it, and right
	errorStatus kind = "error status" // no 2xx, and a body that OpenAI's clients understand
	errorEvent  kind = "error event"  // 200 and a part, and then it was told
	left        kind = "left"         // by the client
	unexplained kind = "unexplained"  // anything else: a silent end, a wrong byte
)

// reply is all that a client has seen of its request.
type reply struct {
	kind    kind
	why     string // of what is unexplained
	status  int
	text    string // of the completion, as far as it came
	backend int    // whose text it is; -1 where there is none, or it may be several's
	// done: the error event was followed by [DONE], as vLLM itself does it.
	done       bool
	begun, end time.Time
}

func (r *reply) String() string {
	return fmt.Sprintf("%s: status %d, backend %d, %q, after %v: %s", r.kind, r.status, r.backend, r.text, r.end.Sub(r.begun).Round(time.Millisecond), r.why)
}

// order is a completion that is asked for.
type order struct {
	prompt int
	tokens int
	stream bool
	id     string
}

func (o order) body() string {
	m := map[string]any{"messages": []any{map[string]any{"role": "user", "content": fmt.Sprintf("Tell me of number %d", o.prompt)}},
		"max_tokens": o.tokens, "ignore_eos": true, "temperature": 0}
	if o.stream {
		m["stream"], m["stream_options"] = true, map[string]any{"include_usage": true}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// texts is what each backend says to each prompt; none of it where of is nil. Simulators of different seeds
// say different things, so a client can tell by its text who answered, and that
// nothing of it is missing, doubled or somebody else's.
type texts struct {
	tokens int
	of     [][]string // [backend][prompt]
}

// learn asks the backends themselves.
func learn(t *testing.T, tokens, prompts int, backends ...*process) *texts {
	t.Helper()
	x := &texts{tokens: tokens}
	for _, b := range backends {
		var list []string
		for _, r := range spread(prompts, prompts, func(i int) *reply {
			return (&texts{tokens: tokens}).ask(t.Context(), apart, b.url(), order{prompt: i, stream: i%2 == 0}, nil)
		}) {
			if r.kind != whole {
				t.Fatalf("from %s itself: %v", b.addr, r)
			}
			list = append(list, r.text)
		}
		x.of = append(x.of, list)
	}
	return x
}

// pick is an order of the size that was learned.
func (x *texts) pick(n int, stream bool) order {
	return order{prompt: n % len(x.of[0]), stream: stream}
}

// ask sends a request and judges all that comes back. seen, if it is not nil, has
// the text of a stream whenever there is more of it.
func (x *texts) ask(ctx context.Context, client *http.Client, url string, o order, seen func(text string)) *reply {
	o.tokens = x.tokens
	r := &reply{backend: -1, begun: time.Now()}
	defer func() { r.end = time.Now() }()
	req, err := http.NewRequestWithContext(ctx, "POST", url+"/v1/chat/completions", strings.NewReader(o.body()))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if o.id != "" {
		req.Header.Set("X-Request-Id", o.id)
	}
	resp, err := client.Do(req)
	if err != nil {
		return r.broken(ctx, err)
	}
	defer resp.Body.Close()
	r.status = resp.StatusCode
	switch {
	case resp.StatusCode != 200:
		return r.refused(ctx, resp)
	case o.stream && !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream"), !o.stream && resp.Header.Get("Content-Type") != "application/json":
		return r.wrong("content type %q", resp.Header.Get("Content-Type"))
	case o.stream:
		x.stream(ctx, r, resp.Body, seen)
	default:
		x.document(ctx, r, resp.Body)
	}
	if r.kind == whole || r.kind == errorEvent || r.kind == left {
		x.compare(r, o)
	}
	return r
}

func (r *reply) wrong(format string, args ...any) *reply {
	r.kind, r.why = unexplained, fmt.Sprintf(format, args...)
	return r
}

// broken is an end that nobody has explained, unless the client itself left.
func (r *reply) broken(ctx context.Context, err error) *reply {
	if ctx.Err() != nil {
		r.kind = left
		return r
	}
	return r.wrong("%v", err)
}

// failure is an error as OpenAI's clients read it.
type failure struct {
	Error *struct {
		Message *string `json:"message"`
		Type    *string `json:"type"`
		Code    any     `json:"code"`
	} `json:"error"`
}

func (f failure) whole() bool {
	return f.Error != nil && f.Error.Message != nil && *f.Error.Message != "" && f.Error.Type != nil && *f.Error.Type != "" && f.Error.Code != nil
}

func (r *reply) refused(ctx context.Context, resp *http.Response) *reply {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return r.broken(ctx, err)
	}
	var f failure
	if err := json.Unmarshal(body, &f); err != nil || !f.whole() || resp.StatusCode < 400 {
		return r.wrong("status %d with %q", resp.StatusCode, body)
	}
	r.kind, r.why = errorStatus, *f.Error.Message
	return r
}

// completion is what the tests read of an answer, or of an event.
type completion struct {
	Choices []struct {
		Delta        struct{ Content string }
		Message      struct{ Content string }
		FinishReason *string `json:"finish_reason"`
	}
	Usage *struct {
		CompletionTokens int `json:"completion_tokens"`
	}
}

func (x *texts) document(ctx context.Context, r *reply, body io.Reader) {
	b, err := io.ReadAll(body)
	if err != nil {
		r.broken(ctx, err)
		return
	}
	var c completion
	if err := json.Unmarshal(b, &c); err != nil || len(c.Choices) != 1 || c.Usage == nil || c.Choices[0].FinishReason == nil {
		r.wrong("not a completion: %v in %q", err, b)
		return
	}
	r.kind, r.text = whole, c.Choices[0].Message.Content
	if c.Usage.CompletionTokens != x.tokens || *c.Choices[0].FinishReason != "length" {
		r.wrong("%d tokens of %d, finished by %s", c.Usage.CompletionTokens, x.tokens, *c.Choices[0].FinishReason)
	}
}

// stream reads events as a strict client does: each is one line of data and an
// empty one, and holds whole JSON.
func (x *texts) stream(ctx context.Context, r *reply, body io.Reader, seen func(string)) {
	lines := bufio.NewReader(body)
	tokens, finish := -1, ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			switch {
			case r.kind == errorEvent && line == "": // all is said, whether or not the connection is broken too
			case r.kind == whole && err == io.EOF && line == "":
			case r.kind == whole || r.kind == errorEvent:
				r.wrong("%q after the end, %v", line, err)
			case ctx.Err() != nil:
				r.kind = left
			default:
				r.wrong("silent end, %v after %q and %q", err, r.text, line)
			}
			return
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if empty, err := lines.ReadString('\n'); !ok || empty != "\n" {
			if ctx.Err() != nil {
				r.kind = left
				return
			}
			r.wrong("not a whole event: %q %q, %v", line, empty, err)
			return
		}
		data = strings.TrimSuffix(data, "\n")
		switch {
		case r.kind == errorEvent && data == "[DONE]" && !r.done:
			r.done = true
			continue
		case r.kind != "":
			r.wrong("%q after the end", data)
			return
		case data == "[DONE]":
			r.kind = whole
			if x.of != nil && (tokens != x.tokens || finish != "length") {
				r.wrong("%d tokens of %d, finished by %q", tokens, x.tokens, finish)
			}
			continue
		}
		var f failure
		if json.Unmarshal([]byte(data), &f) == nil && f.Error != nil {
			if !f.whole() {
				r.wrong("an error event without its parts: %s", data)
				return
			}
			r.kind, r.why = errorEvent, *f.Error.Message
			continue
		}
		var c completion
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			r.wrong("an event that is no JSON: %q", data)
			return
		}
		if c.Usage != nil {
			tokens = c.Usage.CompletionTokens
		}
		for _, choice := range c.Choices {
			r.text += choice.Delta.Content
			if choice.FinishReason != nil {
				finish = *choice.FinishReason
			}
			if seen != nil && choice.Delta.Content != "" {
				seen(r.text)
			}
		}
	}
}

// whose names the backend whose text begins so; -1 where several's do, or none's.
func (x *texts) whose(text string, o order) int {
	found := -1
	for i, list := range x.of {
		if strings.HasPrefix(list[o.prompt], text) {
			if found >= 0 {
				return -1
			}
			found = i
		}
	}
	return found
}

// compare holds a text against those that the backends were heard to say.
func (x *texts) compare(r *reply, o order) {
	if x.of == nil || r.text == "" && r.kind != whole {
		return
	}
	r.backend = x.whose(r.text, o)
	known := false
	for _, list := range x.of {
		known = known || list[o.prompt] == r.text || r.kind != whole && strings.HasPrefix(list[o.prompt], r.text)
	}
	if !known {
		r.wrong("no backend says %q", r.text)
	}
}

// newClient keeps as many connections as it is asked for, or none.
func newClient(t *testing.T, keepAlive bool) *http.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 4096, DisableCompression: true, DisableKeepAlives: !keepAlive}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// tally counts replies by their kind, and reports each that is not as it must be.
type tally struct {
	t      *testing.T
	counts map[kind]int
	shown  int
}

func (c *tally) add(r *reply, allowed ...kind) {
	c.t.Helper()
	if c.counts == nil {
		c.counts = map[kind]int{}
	}
	c.counts[r.kind]++
	for _, k := range allowed {
		if r.kind == k {
			return
		}
	}
	if c.shown++; c.shown <= 10 {
		c.t.Errorf("%v", r)
		return
	}
	c.t.Fail()
}

func (c *tally) all() (n int) {
	for _, k := range c.counts {
		n += k
	}
	return n
}

// spread sends n requests over some workers and gives the replies in order.
func spread(n, workers int, ask func(i int) *reply) []*reply {
	replies := make([]*reply, n)
	var next atomic.Int64
	done := make(chan struct{})
	for range workers {
		go func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				replies[i] = ask(i)
			}
			done <- struct{}{}
		}()
	}
	for range workers {
		<-done
	}
	return replies
}
