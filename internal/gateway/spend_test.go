package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/limits"
	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// limitedTo has alice limited, and bob not.
func limitedTo(l limits.Limits) func(*Config) {
	return keyed(func(_ *Config, alice, _ *Caller) { alice.Limits = l })
}

// left gives what is left of alice's limits, by asking for one more request that costs
// nothing but itself.
func (r *rig) spent() (requests, tokens int64) {
	r.t.Helper()
	synctest.Wait()
	l := limits.Limits{Requests: 1 << 30, Tokens: 1 << 30}
	g, err := r.g.local.Take(r.t.Context(), "alice", l, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return g.Requests.Limit - g.Requests.Left - 1, g.Tokens.Limit - g.Tokens.Left
}

func TestRequestLimit(t *testing.T) {
	inBubbleWith(t, limitedTo(limits.Limits{Requests: 3}), func(r *rig) {
		start := time.Now()
		for i := range 3 {
			resp, _ := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(aliceKey)...)
			if got := resp.Header.Get("X-Ratelimit-Remaining-Requests"); resp.StatusCode != 200 || got != fmt.Sprint(2-i) || resp.Header.Get("X-Ratelimit-Limit-Requests") != "3" {
				t.Errorf("request %d: %d, %s left", i, resp.StatusCode, got)
			}
			time.Sleep(10 * time.Second)
		}
		resp, body := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(aliceKey)...)
		var e struct {
			Error struct {
				Message, Type string
				Code          int
			}
		}
		json.Unmarshal([]byte(body), &e)
		if resp.StatusCode != 429 || e.Error.Code != 429 || e.Error.Type != "RateLimitError" || e.Error.Message != "Your API key may make 3 requests a minute. Try again in 31s." {
			t.Errorf("the fourth: %d %s", resp.StatusCode, body)
		}
		for name, want := range map[string]string{"Retry-After": "31", "X-Should-Retry": "", "X-Ratelimit-Remaining-Requests": "0", "X-Ratelimit-Reset-Requests": "50.5s", "X-Ratelimit-Limit-Tokens": ""} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %q; want %q", name, got, want)
			}
		}
		for _, free := range []string{"/v1/models", "/version"} { // cost nothing
			req, _ := http.NewRequestWithContext(r.t.Context(), "GET", gatewayURL+free, nil)
			req.Header.Set("Authorization", "Bearer "+aliceKey)
			if resp, _ := r.whole(r.client.Do(req)); resp.StatusCode != 200 {
				t.Errorf("%s: %d", free, resp.StatusCode)
			}
		}
		if resp, _ := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(bobKey)...); resp.StatusCode != 200 || resp.Header.Get("X-Ratelimit-Limit-Requests") != "" {
			t.Errorf("bob: %d %v", resp.StatusCode, resp.Header)
		}
		time.Sleep(time.Until(start.Add(61 * time.Second))) // when Retry-After has said
		if resp, _ := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(aliceKey)...); resp.StatusCode != 200 {
			t.Errorf("when Retry-After had said: %d", resp.StatusCode)
		}
		r.want(1, "gateway_caller_refused_requests_total", "caller", "alice", "reason", "requests")
		r.want(1, "gateway_caller_requests_total", "caller", "alice", "outcome", "limited")
	}, hello)
}

// What a backend says of limits is about others.
func TestBackendsRateHeaders(t *testing.T) {
	other := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Ratelimit-Remaining-Requests", "999")
		hello(w, r)
	}
	inBubbleWith(t, limitedTo(limits.Limits{Requests: 3}), func(r *rig) {
		for key, want := range map[string]string{aliceKey: "2", bobKey: "999"} {
			resp, _ := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(key)...)
			if got := resp.Header.Values("X-Ratelimit-Remaining-Requests"); len(got) != 1 || got[0] != want {
				t.Errorf("%s: %v left; want %s", key, got, want)
			}
		}
	}, other)
}

// A limiter that another one has replaced ends when nobody has it any more. (No bubble:
// what speaks to Redis would wait for the network.)
func TestReplacedLimiterEnds(t *testing.T) {
	cfg := Config{Backends: []string{"http://127.0.0.1:1"}, FirstByteTimeout: time.Minute, StreamIdleTimeout: time.Minute, MaxBody: 1 << 20, Log: slog.New(slog.DiscardHandler)}
	limitedTo(limits.Limits{Requests: 100})(&cfg)
	cfg.SharedLimits = &limits.Options{URL: "redis://127.0.0.1:1"}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		g.Drain(ctx)
	}()
	ended := func(c *counting) bool {
		_, err := c.Take(t.Context(), "alice", limits.Limits{Requests: 1}, 0)
		return strings.HasSuffix(err.Error(), ": closed")
	}
	of := g.settings() // a request begins
	for _, url := range []string{"redis://127.0.0.1:1", "redis://127.0.0.1:2"} {
		cfg.SharedLimits = &limits.Options{URL: url}
		if err := g.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		if same := g.conf.Load().limiter == of.limiter; same != (url == "redis://127.0.0.1:1") {
			t.Errorf("%s: the same limiter: %v", url, same)
		}
	}
	if ended(of.limiter) {
		t.Error("it has ended before the request that has it")
	}
	if of.limiter.leave(); !ended(of.limiter) {
		t.Error("it goes on, and nobody has it")
	}
}

// What was reserved is settled by what was used, however a request ends.
func TestTokensAreSettled(t *testing.T) {
	prompt := strings.Repeat("word", 100) // 400 bytes; a hundred tokens, as they are guessed
	chat := func(more string) string {
		return `{"model":"tiny",` + more + `"messages":[{"role":"user","content":"` + prompt + `"}]}`
	}
	const stream = `"stream":true,"max_tokens":500,`
	for name, tt := range map[string]struct {
		backend  http.HandlerFunc
		body     string
		leave    bool
		during   int64 // counted while it runs
		after    int64
		estimate bool
	}{
		"an answer":                   {hello, chat(`"max_tokens":500,`), false, 0, 10, false},
		"a stream":                    {sse(role, token("a"), time.Second, token("b"), stop, usage(90, 2), done), chat(stream), false, 601, 92, false},
		"more than reserved":          {sse(role, token("a"), time.Second, stop, usage(90, 900), done), chat(stream), false, 601, 990, false},
		"cut":                         {sse(role, token("a"), token("b"), time.Second, abort), chat(stream), false, 601, 103, true},
		"cut, and it had said":        {sse(role, token("a"), `data: {"choices":[],"usage":{"prompt_tokens":90,"completion_tokens":7}}`+"\n\n", time.Second, abort), chat(stream), false, 601, 97, true},
		"left":                        {sse(role, token("a"), token("b"), token("c"), hang), chat(stream), true, 601, 104, true},
		"left before a token":         {sse(role, hang), chat(stream), true, 601, 101, true},
		"left an answer":              {answer200("application/json", hang), chat(`"max_tokens":500,`), true, 601, 101, true},
		"refused by the engine":       {status(400), chat(stream), false, 0, 0, false},
		"failed before a token":       {status(500), chat(stream), false, 0, 0, false},
		"no usage":                    {sse(role, token("a"), token("b"), time.Second, stop, done), chat(stream), false, 601, 103, true},
		"two answers":                 {sse(role, token("a"), time.Second, stop, usage(90, 4), done), chat(`"n":2,` + stream), false, 1101, 94, false},
		"it does not say how much":    {sse(role, token("a"), time.Second, stop, usage(90, 4), done), chat(`"stream":true,`), false, 357, 94, false},
		"more than the gateway takes": {hello, chat(`"max_tokens":100000000,`), false, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbleWith(t, limitedTo(limits.Limits{Tokens: 1e6}), func(r *rig) {
				ctx, leave := context.WithCancel(r.t.Context())
				defer leave()
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					if resp, err := r.postAs(ctx, "/v1/chat/completions", tt.body, as(aliceKey)...); err == nil {
						io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
				}()
				time.Sleep(500 * time.Millisecond)
				if _, tokens := r.spent(); tt.during > 0 && tokens != tt.during {
					t.Errorf("while it runs %d tokens are counted; want %d", tokens, tt.during)
				}
				if tt.leave {
					leave()
				}
				<-ended
				if _, tokens := r.spent(); tokens != tt.after {
					t.Errorf("in the end %d tokens are counted; want %d", tokens, tt.after)
				}
				_, line, _ := strings.Cut(r.logged(), `"msg":"request"`)
				if !strings.Contains(line, fmt.Sprintf(`"charged_tokens":%d`, tt.after)) || strings.Contains(line, `"estimated":true`) != tt.estimate {
					t.Errorf("logged %s", line)
				}
			}, tt.backend)
		})
	}
}

// A request that is over the limit has nothing looked up for it.
func TestOverTheLimitAsksNobody(t *testing.T) {
	inBubbleWith(t, limitedTo(limits.Limits{Requests: 1}), func(r *rig) {
		for _, code := range []int{200, 429} {
			before := len(r.backends[0].requests()) + len(r.backends[1].requests())
			resp, _ := r.mustPost("/v1/responses", fmt.Sprintf(`{"model":"tiny","input":"x","previous_response_id":"resp_%d"}`, code), as(aliceKey)...)
			if resp.StatusCode != code {
				t.Errorf("answered %d; want %d", resp.StatusCode, code)
			}
			if n := len(r.backends[0].requests()) + len(r.backends[1].requests()) - before; code == 429 && n != 0 {
				t.Errorf("backends were asked %d times", n)
			}
		}
	}, status(200), status(404))
}

// An answer that is made in the background is paid for when it is asked for: it is had
// for nothing later.
func TestBackgroundIsCounted(t *testing.T) {
	queued := answer200("application/json", `{"id":"resp_1","object":"response","status":"queued","output":[],"usage":null}`)
	for body, want := range map[string]int64{
		`{"model":"tiny","background":true,"max_output_tokens":500,"input":"12345678"}`: 502,
		`{"model":"tiny","background":true,"input":"12345678"}`:                         258,
	} {
		inBubbleWith(t, limitedTo(limits.Limits{Tokens: 1e6}), func(r *rig) {
			r.mustPost("/v1/responses", body, as(aliceKey)...)
			if _, tokens := r.spent(); tokens != want {
				t.Errorf("%s: %d tokens are counted; want %d", body, tokens, want)
			}
		}, queued)
	}
}

// Who has no tokens left is told so, and what to do.
func TestTokenLimit(t *testing.T) {
	const chat = `{"model":"tiny","max_tokens":%d,"messages":[{"role":"user","content":"hello"}]}`
	for name, tt := range map[string]struct {
		limits  limits.Limits
		before  int // asks for so many first
		now     int
		message string
		retry   string
		again   string // X-Should-Retry
	}{
		"a minute": {limits.Limits{Tokens: 100}, 90, 60, "Your API key may use 100 tokens a minute; 7 are left, and this request may take 63. Try again in 1m.", "60", ""},
		"a day":    {limits.Limits{DayTokens: 100}, 90, 60, "Your API key may use 100 tokens a day (of UTC); 7 are left, and this request may take 63. Try again in 24h.", "86400", "false"},
		"never":    {limits.Limits{Tokens: 100}, 0, 200, "This request may take 203 tokens, and your API key may use 100 a minute. Ask for fewer with max_tokens, or shorten the prompt.", "", "false"},
		"absurd":   {limits.Limits{Tokens: 100}, 0, math.MaxInt64, "This request may take 4611686018427387906 tokens, and your API key may use 100 a minute. Ask for fewer with max_tokens, or shorten the prompt.", "", "false"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbleWith(t, limitedTo(tt.limits), func(r *rig) {
				var before sync.WaitGroup
				defer before.Wait()
				if tt.before > 0 {
					before.Go(func() { r.mustPost("/v1/chat/completions", fmt.Sprintf(chat, tt.before), as(aliceKey)...) })
					time.Sleep(500 * time.Millisecond)
				}
				resp, body := r.mustPost("/v1/chat/completions", fmt.Sprintf(chat, tt.now), as(aliceKey)...)
				var e struct{ Error struct{ Message string } }
				json.Unmarshal([]byte(body), &e)
				if resp.StatusCode != 429 || e.Error.Message != tt.message || resp.Header.Get("Retry-After") != tt.retry || resp.Header.Get("X-Should-Retry") != tt.again {
					t.Errorf("%d %s %v", resp.StatusCode, body, resp.Header)
				}
			}, aSecond)
		})
	}
}

// Who does not say how much he wants is let in as long as there is something left of
// the limit's whole.
func TestUnsaidIsNotRefused(t *testing.T) {
	inBubbleWith(t, limitedTo(limits.Limits{Tokens: 100}), func(r *rig) {
		if resp, body := r.mustPost("/v1/chat/completions", `{"model":"tiny","messages":[]}`, as(aliceKey)...); resp.StatusCode != 200 {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}, hello)
}

// What requests of a model cost of late is what the next one is taken for.
func TestHabits(t *testing.T) {
	var h habits
	if got := h.get("tiny"); got != noHabit {
		t.Errorf("nothing is known of it: %+v", got)
	}
	for range 200 {
		h.learn("tiny", guess{Estimate: openai.Estimate{Text: 1000, Known: 500}}, openai.Usage{HasPrompt: true, Prompt: 900, HasCompletion: true, Completion: 3000})
	}
	if got := h.get("tiny"); math.Abs(got.bytesPerToken-2.5) > .05 || math.Abs(got.completion-3000) > 30 {
		t.Errorf("a token is 2.5 bytes, and answers have 3000: %+v", got)
	}
	for range 200 {
		h.learn("tiny", guess{Estimate: openai.Estimate{Text: 1}, said: true}, openai.Usage{HasPrompt: true, Prompt: 1e6, HasCompletion: true, Completion: 1})
	}
	if got := h.get("tiny"); got.bytesPerToken < .5 || math.Abs(got.completion-3000) > 30 {
		t.Errorf("what cannot be, or was asked for, is not learnt: %+v", got)
	}
	for _, model := range []string{otherModel} {
		h.learn(model, guess{Estimate: openai.Estimate{Text: 1}}, openai.Usage{HasPrompt: true, Prompt: 1})
	}
	if len(h.of) != 1 {
		t.Errorf("learnt of %v", h.of)
	}
}

// A limiter that cannot be asked: what then, the Config says. (No bubble: what speaks
// to Redis would wait for the network.)
func TestLimitsUnavailable(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == modelsPath {
			io.WriteString(w, `{"data":[{"id":"tiny"}]}`)
			return
		}
		hello(w, r)
	}))
	defer backend.Close()
	for open, want := range map[bool]int{true: 200, false: 503} {
		cfg := Config{Backends: []string{backend.URL}, FirstByteTimeout: time.Minute, StreamIdleTimeout: time.Minute, MaxBody: 1 << 20, Log: slog.New(slog.DiscardHandler)}
		limitedTo(limits.Limits{Requests: 100})(&cfg)
		cfg.SharedLimits, cfg.FailOpen = &limits.Options{URL: "redis://127.0.0.1:1"}, open
		g, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			req := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(`{"model":"tiny"}`))
			req.Header.Set("Authorization", "Bearer "+aliceKey)
			w := httptest.NewRecorder()
			g.ServeHTTP(w, req)
			if w.Code != want || !open && (w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "cannot be looked up")) {
				t.Errorf("open %v: %d %v %s", open, w.Code, w.Header(), w.Body)
			}
		}
		if got := sumOf(t, g.metrics.registry, "gateway_limits_unavailable_total"); got != 10 {
			t.Errorf("counted %v times", got)
		}
		if got := sumOf(t, g.metrics.registry, "gateway_refused_requests_total", "reason", "limits_unavailable"); got != map[bool]float64{true: 0, false: 10}[open] {
			t.Errorf("open %v: %v refused", open, got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		g.Drain(ctx)
	}
}
