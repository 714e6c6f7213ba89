package vllmsim

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// plain is a cost that is easy to add up: 10 ms a step, 1 ms a prompt token.
var plain = Config{Cost: Cost{Base: 10 * time.Millisecond, PerSequence: -1, PerPrefillToken: time.Millisecond, PerContextToken: -1}}

// ask is a streaming completion over so many prompt tokens, the first of which
// tells prompts apart, with so many tokens to say.
func ask(id, prompt, tokens int) string {
	ids := make([]string, prompt)
	for i := range ids {
		ids[i] = fmt.Sprint(id*10_000 + i + 1)
	}
	return fmt.Sprintf(`{"prompt":[%s],"max_tokens":%d,"ignore_eos":true,"stream":true}`, strings.Join(ids, ","), tokens)
}

// first and last are when a stream's first and last token came.
func first(list []event) time.Duration { return list[0].at }
func last(list []event) time.Duration  { return list[len(list)-1].at }

func TestStepsTakeWhatTheyCost(t *testing.T) {
	inBubble(t, plain, func(t *testing.T, b *bubble) {
		list := b.stream("/v1/completions", ask(1, 20, 5))
		if first(list) != 30*time.Millisecond || last(list) != 70*time.Millisecond {
			t.Errorf("first token at %v, last at %v; want 30ms (10 + 20 prompt tokens) and 70ms (4 steps more)", first(list), last(list))
		}
	})
}

// A gateway that took the headers for the first token would see a TTFT of 0.
func TestHeadersComeBeforePrefill(t *testing.T) {
	inBubble(t, plain, func(t *testing.T, b *bubble) {
		resp := b.do(t.Context(), "POST", "/v1/completions", ask(1, 20, 5))
		if b.since() != 0 {
			t.Errorf("headers after %v; want at once", b.since())
		}
		b.events(resp)
	})
}

// The Responses API talks before it has a token; the others do not.
func TestEventsBeforeTheFirstToken(t *testing.T) {
	for _, test := range []struct {
		path, body string
		early      int
	}{
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"hi"}],"stream":true}`, 0},
		{"/v1/completions", `{"prompt":"hi","stream":true}`, 0},
		{"/v1/messages", `{"model":"` + DefaultModel + `","messages":[{"role":"user","content":"hi"}],"max_tokens":9,"stream":true}`, 0},
		{"/v1/responses", `{"input":"hi","stream":true}`, 2},
	} {
		inBubble(t, plain, func(t *testing.T, b *bubble) {
			early := 0
			for _, e := range b.stream(test.path, test.body) {
				if e.at == 0 {
					early++
				}
			}
			if early != test.early {
				t.Errorf("%s: %d events before the first step ends; want %d", test.path, early, test.early)
			}
		})
	}
}

func TestLongPromptsArePrefilledInChunks(t *testing.T) {
	cfg := plain
	cfg.MaxNumBatchedTokens = 64
	inBubble(t, cfg, func(t *testing.T, b *bubble) {
		list := b.stream("/v1/completions", ask(1, 100, 1))
		if want := (10 + 64 + 10 + 36) * time.Millisecond; first(list) != want {
			t.Errorf("first token at %v; want %v: two steps", first(list), want)
		}
	})
}

func TestPrefixCacheSkipsWhatItHas(t *testing.T) {
	inBubble(t, plain, func(t *testing.T, b *bubble) {
		b.stream("/v1/completions", ask(1, 40, 1))
		began := b.since()
		list := b.stream("/v1/completions", ask(1, 40, 1))
		// 40 tokens are two full blocks and 8 tokens.
		if got, want := first(list)-began, 18*time.Millisecond; got != want {
			t.Errorf("TTFT with a cached prefix = %v; want %v", got, want)
		}
		if got := b.metric("vllm:prefix_cache_hits_total" + labels); got != "32" {
			t.Errorf("prefix_cache_hits = %s; want 32", got)
		}
		if got := b.metric("vllm:prefix_cache_queries_total" + labels); got != "80" {
			t.Errorf("prefix_cache_queries = %s; want 80", got)
		}
		salted := strings.Replace(ask(1, 40, 1), `{`, `{"cache_salt":"s",`, 1)
		began = b.since()
		if got, want := first(b.stream("/v1/completions", salted))-began, 50*time.Millisecond; got != want {
			t.Errorf("TTFT with another salt = %v; want %v: nothing is shared", got, want)
		}
	})
}

func TestSequencesBeyondTheLimitWait(t *testing.T) {
	cfg := plain
	cfg.MaxNumSeqs = 1
	inBubble(t, cfg, func(t *testing.T, b *bubble) {
		var all sync.WaitGroup
		var one, two []event
		all.Go(func() { one = b.stream("/v1/completions", ask(1, 10, 5)) })
		synctest.Wait()
		all.Go(func() { two = b.stream("/v1/completions", ask(2, 10, 5)) })
		time.Sleep(45 * time.Millisecond)
		running, waiting := b.metric("vllm:num_requests_running"+labels), b.metric("vllm:num_requests_waiting"+labels)
		if running != "1" || waiting != "1" {
			t.Errorf("running %s, waiting %s; want 1 and 1", running, waiting)
		}
		all.Wait()
		if last(one) != 60*time.Millisecond || first(two) != 80*time.Millisecond {
			t.Errorf("the first ends at %v, the second starts at %v; want 60ms and 80ms", last(one), first(two))
		}
	})
}

// What a client that leaves held is free for the next at the next step: the
// reason why a gateway must pass a disconnect on at once.
func TestAbortFreesCapacity(t *testing.T) {
	cfg := plain
	cfg.MaxNumSeqs = 1
	inBubble(t, cfg, func(t *testing.T, b *bubble) {
		ctx, leave := context.WithCancel(t.Context())
		resp := b.do(ctx, "POST", "/v1/completions", ask(1, 10, 1000))
		time.Sleep(25 * time.Millisecond) // first token at 20 ms, steps end at 30, 40, …
		leave()
		resp.Body.Close()
		list := b.stream("/v1/completions", ask(2, 10, 1))
		if want := 50 * time.Millisecond; first(list) != want {
			t.Errorf("the next one's first token at %v; want %v", first(list), want)
		}
		if got := b.metric(`vllm:request_success_total{engine="0",finished_reason="abort",model_name="` + DefaultModel + `"}`); got != "0" {
			t.Errorf("aborted requests = %s; want 0: vLLM counts no lost clients", got)
		}
		if got := b.metric("vllm:kv_cache_usage_perc" + labels); got != "0" {
			t.Errorf("KV cache usage = %s; want 0", got)
		}
	})
}

// A client that leaves while it waits never runs.
func TestAbortWhileWaiting(t *testing.T) {
	cfg := plain
	cfg.MaxNumSeqs = 1
	inBubble(t, cfg, func(t *testing.T, b *bubble) {
		var all sync.WaitGroup
		all.Go(func() { b.stream("/v1/completions", ask(1, 10, 20)) })
		synctest.Wait()
		ctx, leave := context.WithCancel(t.Context())
		resp := b.do(ctx, "POST", "/v1/completions", ask(2, 10, 20))
		leave()
		resp.Body.Close()
		all.Wait()
		synctest.Wait()
		if got := b.metric("vllm:prompt_tokens_total" + labels); got != "10" {
			t.Errorf("prompt tokens = %s; want the 10 of the first", got)
		}
	})
}

// When the KV cache is full, the sequence that came last gives way, and computes
// its tokens again.
func TestPreemption(t *testing.T) {
	cfg := plain
	cfg.MaxModelLen, cfg.KVCacheTokens = 64, 64 // four blocks
	inBubble(t, cfg, func(t *testing.T, b *bubble) {
		var all sync.WaitGroup
		var one, two []event
		all.Go(func() { one = b.stream("/v1/completions", ask(1, 30, 10)) })
		synctest.Wait()
		all.Go(func() { two = b.stream("/v1/completions", ask(2, 20, 20)) })
		all.Wait()
		if got := b.metric("vllm:num_preemptions_total" + labels); got != "1" {
			t.Errorf("preemptions = %s; want 1", got)
		}
		// One: 40 ms of prefill, a step of 30 ms with the second's prefill, then
		// eight of 10 ms. It needs its third block for its fourth token.
		if want := 150 * time.Millisecond; last(one) != want {
			t.Errorf("the first ends at %v; want %v", last(one), want)
		}
		if n := len(two); n < 15 || last(two) < last(one) {
			t.Errorf("the second has %d events, its end at %v; want all its tokens, after the first (%v)", n, last(two), last(one))
		}
		if got := b.metric("vllm:generation_tokens_total" + labels); got != "30" {
			t.Errorf("generated tokens = %s; want 30: none twice", got)
		}
	})
}

// The preempted goes ahead of those that never ran, even of one for which there
// would be room.
func TestPreemptedComesFirst(t *testing.T) {
	cfg := plain
	cfg.MaxModelLen, cfg.KVCacheTokens, cfg.MaxNumSeqs = 64, 64, 2
	inBubble(t, cfg, func(t *testing.T, b *bubble) {
		var all sync.WaitGroup
		streams := make([][]event, 3)
		for i, body := range []string{ask(1, 30, 10), ask(2, 20, 20), ask(3, 10, 1)} {
			all.Go(func() { streams[i] = b.stream("/v1/completions", body) })
			synctest.Wait()
		}
		all.Wait()
		if first(streams[2]) < last(streams[0]) {
			t.Errorf("the third ran at %v, while the preempted second waited for the first to end at %v", first(streams[2]), last(streams[0]))
		}
	})
}

// What vLLM does when it is told to stop: everything ends as if it were finished.
// Seen on vLLM 0.32.0.
func TestCloseGivesUpWhatRuns(t *testing.T) {
	const chat, completions, messages, responses = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
	cfg := plain
	cfg.MaxNumSeqs = 1
	for _, test := range []struct {
		path, body      string
		running, queued string // in the end of the answer
	}{
		{chat, `{"messages":[{"role":"user","content":"hi"}],"ignore_eos":true,"max_tokens":1000,"stream":true}`,
			`"finish_reason":"abort","stop_reason":null,"token_ids":null}],"system_fingerprint":`, `"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}` + "\n\ndata: [DONE]"},
		{chat, `{"messages":[{"role":"user","content":"hi"}],"ignore_eos":true,"max_tokens":1000}`,
			`"finish_reason":"abort"`, `"content":"","refusal":null`},
		{completions, `{"prompt":"hi","ignore_eos":true,"max_tokens":1000,"stream":true}`, `"finish_reason":"abort"`, ""},
		{messages, `{"model":"` + DefaultModel + `","messages":[{"role":"user","content":"hi"}],"max_tokens":1000,"stream":true}`,
			`"delta":{"stop_reason":null,"stop_sequence":null}`, `"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":19,"output_tokens":0}}`},
		{responses, `{"input":"hi","max_output_tokens":1000,"stream":true}`, `"status":"completed"`, `"output_tokens":0`},
	} {
		inBubble(t, cfg, func(t *testing.T, b *bubble) {
			ends := make(chan string, 2)
			for range 2 { // the second waits for the first
				go func() {
					status, text := b.call("POST", test.path, test.body)
					ends <- fmt.Sprint(status, text)
				}()
				time.Sleep(50 * time.Millisecond)
			}
			b.sim.Close()
			got := []string{<-ends, <-ends}
			if !strings.Contains(got[0], test.running) || test.queued != "" && strings.Contains(got[0], test.queued) {
				slices.Reverse(got) // as they came in
			}
			for i, want := range []string{test.running, test.queued} {
				stream := strings.Contains(test.body, "stream") && test.path != messages && test.path != responses
				if !strings.Contains(got[i], want) || !strings.HasPrefix(got[i], "200") || stream && !strings.HasSuffix(got[i], "data: [DONE]\n\n") {
					t.Errorf("%s %s: the end is …%s; want %s", test.path, test.body, got[i][max(0, len(got[i])-900):], want)
				}
			}
		})
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := New(Config{MaxNumSeqs: -1, KVCacheTokens: 100, MeanOutputTokens: 0.5, Faults: []Fault{{Kind: "x"}}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"max-num-seqs is -1", "kv-cache-tokens is 100", "mean-output-tokens is 0.5", `no fault kind "x"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
}

var _ http.Handler = (*Server)(nil)
