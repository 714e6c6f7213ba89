package gateway

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// vLLM sends its head before it has looked at the prompt. What the client gets
// first, and what the histogram says, is the first token's time.
func TestFirstTokenRule(t *testing.T) {
	inBubble(t, func(r *rig) {
		start := time.Now()
		resp, err := r.post("/v1/chat/completions", ask)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 300*time.Millisecond {
			t.Errorf("the head came after %v; want exactly 300ms", took)
		}
		if got := resp.Header.Get("Server-Timing"); got != "ttft;dur=300" {
			t.Errorf("Server-Timing: %s; want ttft;dur=300", got)
		}
		if got, want := r.read(resp), role+": ping\n\n"+token("Hi")+token(" there")+stop+done; got != want {
			t.Errorf("got\n%q; want\n%q", got, want)
		}
		r.want(1, "gateway_time_to_first_token_seconds_count", "model", "tiny", "backend", "vllm-0:8000")
		r.want(0.3, "gateway_time_to_first_token_seconds_sum")
	}, sse(headers, 100*time.Millisecond, role, 100*time.Millisecond, ": ping\n\n", 100*time.Millisecond, token("Hi"), 50*time.Millisecond, token(" there"), stop+usage(5, 3), done))
}

// (completion tokens − 1) / (last token − first token), and the gaps between.
func TestSpeedAndGaps(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.mustPost("/v1/chat/completions", ask)
		r.want(1, "gateway_tokens_per_second_count")
		r.want(4, "gateway_tokens_per_second_sum") // (4 - 1) / 0.75 s
		r.want(3, "gateway_inter_token_latency_seconds_count")
		r.want(0.75, "gateway_inter_token_latency_seconds_sum")
		r.want(5, "gateway_prompt_tokens_total", "model", "tiny")
		r.want(4, "gateway_completion_tokens_total", "model", "tiny")
		r.want(1, "gateway_requests_total", "model", "tiny", "path", "/v1/chat/completions", "status", "2xx", "outcome", "ok")
		r.want(1, "gateway_request_duration_seconds_count")
		r.want(1.75, "gateway_request_duration_seconds_sum") // the pause before the end belongs to it
	}, sse(headers, role, token("a"), 250*time.Millisecond, token("b c"), 250*time.Millisecond, ": ping\n\n", 250*time.Millisecond, token("d")+stop, usage(5, 4), time.Second, done))
}

// A stream of one token has no speed.
func TestOneTokenHasNoSpeed(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.mustPost("/v1/chat/completions", ask)
		r.want(0, "gateway_tokens_per_second_count")
		r.want(1, "gateway_completion_tokens_total")
	}, sse(role, token("a"), time.Second, stop, usage(5, 1), done))
}

// The only bytes that the gateway ever changes, both ways.
func TestUsageIsAskedForAndTakenOutAgain(t *testing.T) {
	const own = `{"model":"tiny","stream":true,"stream_options":{"include_usage":true},"unknown":{"kept": [1, 2.50]}}`
	const plain = `{"model":"tiny", "stream":false, "unknown":null}`
	for name, tt := range map[string]struct{ path, body, upstream, want string }{
		"chat, not asked":        {"/v1/chat/completions", ask, asked, role + token("x") + stop + done},
		"chat, asked by client":  {"/v1/chat/completions", own, own, role + token("x") + stop + usage(5, 2) + done},
		"chat, not streamed":     {"/v1/chat/completions", plain, plain, role + token("x") + stop + usage(5, 2) + done},
		"completions, not asked": {"/v1/completions", ask, asked, role + token("x") + stop + done},
		"responses never":        {"/v1/responses", ask, ask, role + token("x") + stop + usage(5, 2) + done + end},
		"messages never":         {"/v1/messages", ask, ask, role + token("x") + stop + usage(5, 2) + done + end},
		"embeddings never":       {"/v1/embeddings", ask, ask, role + token("x") + stop + usage(5, 2) + done},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				_, got := r.mustPost(tt.path, tt.body)
				if got != tt.want {
					t.Errorf("client got\n%q; want\n%q", got, tt.want)
				}
				if up := r.backends[0].requests()[0].body; up != tt.upstream {
					t.Errorf("backend got\n%s; want\n%s", up, tt.upstream)
				}
			}, func(w http.ResponseWriter, req *http.Request) {
				steps := []any{role, token("x"), stop, usage(5, 2) + done}
				if req.URL.Path == "/v1/responses" || req.URL.Path == "/v1/messages" {
					steps = append(steps, end)
				}
				sse(steps...)(w, req)
			})
		})
	}
}

// end ends the streams that have no [DONE].
const end = "data: {\"type\":\"message_stop\"}\n\n" + "data: {\"type\":\"response.completed\",\"response\":{}}\n\n"

// Tokens that arrive together have no speed either.
func TestTokensAtOnceHaveNoSpeed(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.mustPost("/v1/chat/completions", ask)
		r.want(0, "gateway_tokens_per_second_count")
		r.want(3, "gateway_completion_tokens_total")
	}, sse(role, token("a"), 900*time.Microsecond, token("b c"), stop, usage(5, 3), done))
}

// Each dialect has its own idea of what comes before the first token.
func TestFirstTokenOfEachDialect(t *testing.T) {
	for path, tt := range map[string]struct{ before, first, after string }{
		"/v1/chat/completions": {role, `data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"call-1","function":{"name":"f"}}]}}]}` + "\n\n", done},
		"/v1/completions":      {`data: {"choices":[{"text":""}]}` + "\n\n", `data: {"choices":[{"text":"x"}]}` + "\n\n", done},
		"/v1/responses": {
			"event: response.created\ndata: {\"type\":\"response.created\",\"response\":{}}\n\nevent: response.in_progress\ndata: {\"type\":\"response.in_progress\"}\n\n",
			"event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n",
			"data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":2}}}\n\n"},
		"/v1/messages": {
			"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"text\"}}\n\n",
			"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n",
			"data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":2}}\n\ndata: {\"type\":\"message_stop\"}\n\n"},
		"/v1/audio/transcriptions": {": waiting\n\n", "data: {\"text\":\"x\"}\n\n", "data: [DONE]\n\n"},
	} {
		t.Run(path, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				start := time.Now()
				resp, err := r.post(path, `{"model":"tiny","stream":true}`)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took != 2*time.Second {
					t.Errorf("the head came after %v; want 2s", took)
				}
				if got := r.read(resp); got != tt.before+tt.first+tt.after {
					t.Errorf("got\n%q; want\n%q", got, tt.before+tt.first+tt.after)
				}
				r.want(2, "gateway_time_to_first_token_seconds_sum")
				r.want(1, "gateway_requests_total", "outcome", "ok")
				if path == "/v1/responses" || path == "/v1/messages" {
					r.want(5, "gateway_prompt_tokens_total")
					r.want(2, "gateway_completion_tokens_total")
				}
			}, sse(headers, time.Second, tt.before, time.Second, tt.first, time.Second, tt.after))
		})
	}
}

// A stream that the engine ends without a word is the client's to judge.
func TestStreamWithoutTokens(t *testing.T) {
	inBubble(t, func(r *rig) {
		resp, got := r.mustPost("/v1/chat/completions", ask)
		if resp.StatusCode != 200 || got != role+stop+done {
			t.Errorf("%d %q; want 200 %q", resp.StatusCode, got, role+stop+done)
		}
		if resp.Header.Get("Server-Timing") != "" {
			t.Error("there was no first token to time")
		}
		r.want(0, "gateway_time_to_first_token_seconds_count")
		r.want(1, "gateway_requests_total", "outcome", "ok")
	}, sse(role, time.Second, stop, usage(5, 0), done))
}

// The end mark is the end, even if the connection lingers, or breaks behind it.
func TestEndMarkIsTheEnd(t *testing.T) {
	inBubble(t, func(r *rig) {
		start := time.Now()
		resp, err := r.post("/v1/chat/completions", ask)
		if err != nil || time.Since(start) != time.Second {
			t.Errorf("the head came after %v, %v; want 1s", time.Since(start), err)
		}
		r.read(resp)
	}, sse(role, time.Second, stop, done, time.Second))
	inBubble(t, func(r *rig) {
		if _, got := r.mustPost("/v1/chat/completions", ask); got != role+token("a")+stop+done {
			t.Errorf("got %q", got)
		}
		r.want(1, "gateway_requests_total", "outcome", "ok")
	}, sse(role, token("a"), stop, done, time.Second, abort))
}

// Streams of another kind are passed on piece by piece as well.
func TestOtherStreamsFlow(t *testing.T) {
	inBubble(t, func(r *rig) {
		start := time.Now()
		resp, err := r.post("/v1/chat/completions", `{}`)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for i := range 3 {
			line := make([]byte, 2)
			if _, err := io.ReadFull(resp.Body, line); err != nil || time.Since(start) != time.Duration(i)*time.Second {
				t.Errorf("piece %d came after %v, %v", i, time.Since(start), err)
			}
		}
		io.Copy(io.Discard, resp.Body)
	}, answer200("application/x-ndjson", "1\n", time.Second, "2\n", time.Second, "3\n"))
}

// A backend may begin to answer before it has read a long prompt to its end.
func TestAnswerBeforeTheBodyIsRead(t *testing.T) {
	long := `{"model":"tiny","stream":true,"prompt":"` + strings.Repeat("p", 900<<10) + `"}`
	inBubble(t, func(r *rig) {
		if _, got := r.mustPost("/v1/completions", long); !strings.HasSuffix(got, done) {
			t.Errorf("got %q", got)
		}
	}, nil)
}

// What waits for a first token is bounded: beyond 64 KiB it goes out, and the
// first token is still timed when it comes.
func TestHeldBytesAreBounded(t *testing.T) {
	filler := strings.Repeat(": "+strings.Repeat("x", 1022)+"\n\n", 65)
	inBubble(t, func(r *rig) {
		start := time.Now()
		resp, err := r.post("/v1/chat/completions", ask)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the head came after %v; want 0", took)
		}
		if got := r.read(resp); got != filler+token("x")+stop+done {
			t.Errorf("%d bytes differ from what was sent", len(got))
		}
		r.want(7, "gateway_time_to_first_token_seconds_sum")
	}, sse(filler, 7*time.Second, token("x"), stop+done))
}

// An event longer than any buffer passes byte for byte.
func TestLongEventPasses(t *testing.T) {
	long := "data: {\"choices\":[{\"delta\":{\"content\":\"" + strings.Repeat("y", 5*openai.MaxEvent) + "\"}}]}\n\n"
	inBubble(t, func(r *rig) {
		if _, got := r.mustPost("/v1/chat/completions", ask); got != role+long+token("x")+long+stop+done {
			t.Errorf("%d bytes differ from what was sent", len(got))
		}
	}, sse(role, long, token("x"), long, stop, usage(1, 3), done))
}

// Long events keep their meaning: the end mark of a responses stream repeats the
// whole answer, a prelude may be long without being a token, and neither may be
// taken for the other.
func TestLongEventsKeepTheirMeaning(t *testing.T) {
	pad := strings.Repeat("x", 3*openai.MaxEvent)
	const delta = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n"
	completed := "event: response.completed\ndata: {\"response\":{\"output\":\"" + pad + "\",\"usage\":{\"input_tokens\":5,\"output_tokens\":2}},\"type\":\"response.completed\"}\n\n"
	typed := "data: {\"type\":\"response.completed\",\"response\":{\"output\":\"" + pad + "\",\"usage\":{\"input_tokens\":5,\"output_tokens\":2}}}\n\n"
	created := "event: response.created\ndata: {\"response\":{\"instructions\":\"" + pad + "\"}}\n\n"
	ids := "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"prompt_token_ids\":[" + strings.Repeat("1,", openai.MaxEvent) + "1]}\n\n"
	for name, tt := range map[string]struct {
		path  string
		steps []any
		ttft  float64
	}{
		"completed":       {"/v1/responses", []any{2 * time.Second, delta, completed}, 2},
		"completed, bare": {"/v1/responses", []any{2 * time.Second, delta, typed}, 2},
		"created":         {"/v1/responses", []any{created, 2 * time.Second, delta, completed}, 2},
		"content":         {"/v1/chat/completions", []any{2 * time.Second, token(pad), time.Second, token("a"), stop, usage(5, 2), done}, 2},
		"prompt's ids":    {"/v1/chat/completions", []any{ids, 2 * time.Second, token("a"), stop, usage(5, 2), done}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.mustPost(tt.path, ask)
				r.want(tt.ttft, "gateway_time_to_first_token_seconds_sum")
				r.want(1, "gateway_requests_total", "outcome", "ok")
				r.want(5, "gateway_prompt_tokens_total")
				r.want(2, "gateway_completion_tokens_total")
			}, sse(tt.steps...))
		})
	}
}

// Any 2xx may be a stream, and says so by its type alone.
func TestStreamWithStatus201(t *testing.T) {
	inBubble(t, func(r *rig) {
		resp, got := r.mustPost("/v1/chat/completions", ask)
		if resp.StatusCode != 201 || got != role+token("a")+stop+done || resp.Header.Get("Server-Timing") == "" {
			t.Errorf("%d %q", resp.StatusCode, got)
		}
	}, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Content-Encoding", "identity")
		w.WriteHeader(201)
		play(w, req, []any{role, token("a"), stop, usage(5, 1), done})
	})
}

// A client that leaves ends the work on the backend at that very moment,
// whatever phase the request is in.
func TestCancelReachesTheBackendAtOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		body   string
		handle http.HandlerFunc
		phase  string
	}{
		"before the head":        {ask, sse(hang), beforeFirstByte},
		"before the first token": {ask, sse(headers, role, hang), beforeFirstByte},
		"within the stream":      {ask, sse(role, token("a"), 500*time.Millisecond, token("b"), hang), afterFirstByte},
		"not a stream":           {`{"model":"tiny"}`, answer200("application/json", hang), beforeFirstByte},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				start := time.Now()
				ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
				defer cancel()
				resp, err := r.postAs(ctx, "/v1/chat/completions", tt.body)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
				}
				if err == nil {
					t.Error("the request was not cancelled")
				}
				time.Sleep(time.Millisecond) // virtual: lets everything settle
				if ended := r.backends[0].requests()[0].ended; ended.Sub(start) != time.Second {
					t.Errorf("the backend saw the client leave after %v; want exactly 1s", ended.Sub(start))
				}
				r.want(1, "gateway_cancelled_requests_total", "phase", tt.phase)
				r.want(1, "gateway_requests_total", "outcome", "cancelled")
				r.want(0, "gateway_upstream_errors_total")
				r.want(0, "gateway_tokens_per_second_count")
			}, tt.handle)
		})
	}
}

// The queue is what is waiting and running, at any moment.
func TestQueueDepthWhileRunning(t *testing.T) {
	inBubble(t, func(r *rig) {
		for range 3 {
			go func() {
				if resp, err := r.post("/v1/chat/completions", ask); err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}()
		}
		time.Sleep(time.Second)
		r.want(3, "gateway_queue_depth")
		r.want(3, "gateway_backend_in_flight", "backend", "vllm-0:8000")
		time.Sleep(10 * time.Second)
		r.want(0, "gateway_queue_depth")
		r.want(3, "gateway_requests_total", "outcome", "ok")
	}, sse(role, 5*time.Second, token("a"), stop+done))
}

// One line a request, with what an operator needs and no word of what was said.
func TestLogLine(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.mustPost("/v1/chat/completions", ask, "X-Request-Id", "abc-1", "Authorization", "Bearer sk-secret")
		log := r.logged()
		for _, want := range []string{`"id":"abc-1"`, `"caller":"anonymous"`, `"model":"tiny"`, `"backend":"vllm-0:8000"`, `"status":200`, `"outcome":"ok"`, `"ttft_s":0.2`, `"duration_s":0.7`, `"prompt_tokens":5`, `"completion_tokens":2`} {
			if !strings.Contains(log, want) {
				t.Errorf("no %s in\n%s", want, log)
			}
		}
		for _, secret := range []string{"secret", "whisper"} {
			if strings.Contains(log, secret) {
				t.Errorf("the log tells %q:\n%s", secret, log)
			}
		}
	}, sse(200*time.Millisecond, role, token("whisper"), 500*time.Millisecond, stop, usage(5, 2), done))
}

// Over HTTP/2 in the clear, the same.
func TestHTTP2Client(t *testing.T) {
	inBubble(t, func(r *rig) {
		var h2c http.Protocols
		h2c.SetUnencryptedHTTP2(true)
		tr := &http.Transport{DialContext: r.net.Dial, Protocols: &h2c}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Post(gatewayURL+"/v1/chat/completions", "application/json", strings.NewReader(ask))
		if err != nil {
			t.Fatal(err)
		}
		if resp.ProtoMajor != 2 {
			t.Errorf("spoke HTTP/%d", resp.ProtoMajor)
		}
		if got := r.broken(resp); !strings.HasPrefix(got, role+token("a")) || !strings.Contains(got, `"code":502`) {
			t.Errorf("got %q", got)
		}
	}, sse(role, token("a"), time.Second, abort))
}

// What stands behind the last empty line of a stream is sent, once: the end mark may
// be there. A half event that was no end is ended before the error that follows it.
func TestStreamWithoutItsLastEmptyLine(t *testing.T) {
	const token, finish = `data: {"choices":[{"text":"x"}]}`, `data: {"choices":[{"text":"","finish_reason":"stop"}]}`
	for said, want := range map[string]string{
		token + "\n\ndata: [DONE]":  token + "\n\ndata: [DONE]",
		finish + "\n\ndata: [DONE]": finish + "\n\ndata: [DONE]",
		token:                       token + "\n\ndata: {\"error\":",
	} {
		inBubble(t, func(r *rig) {
			resp, err := r.post("/v1/completions", `{"model":"tiny","stream":true}`)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(resp.Body)
			if text, _, failed := strings.Cut(string(got), `{"message"`); text != want || failed != (said == token) {
				t.Errorf("got %q; want %q", got, want)
			}
		}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, said)
		})
	}
}
