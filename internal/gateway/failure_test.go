package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A stream that fails after its first token never ends cleanly: whole events,
// then an error event, no [DONE], and, when the client has had its time to take
// that, a broken connection.
func TestFailureAfterTheFirstToken(t *testing.T) {
	for name, tt := range map[string]struct {
		handle  http.HandlerFunc
		after   time.Duration
		code    int
		outcome string
		cause   string
	}{
		"cut":                   {sse(role, token("a"), time.Second, abort), time.Second, 502, "backend_error", causeCut},
		"cut within an event":   {sse(role, token("a")+`data: {"choices":[{"del`, time.Second, abort), time.Second, 502, "backend_error", causeCut},
		"ended without its end": {sse(role, token("a"), time.Second, stop), time.Second, 502, "backend_error", causeCut},
		"silent":                {sse(role, token("a"), hang), 5 * time.Minute, 504, "timeout", causeTimeout},
		"silent after a while":  {sse(role, token("a"), 4*time.Minute, ": ping\n\n", hang), 9 * time.Minute, 504, "timeout", causeTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				start := time.Now()
				resp, err := r.post("/v1/chat/completions", ask)
				if err != nil {
					t.Fatal(err)
				}
				got := r.broken(resp)
				if took := time.Since(start); took != tt.after+lastWords {
					t.Errorf("the connection broke after %v; want %v", took, tt.after+lastWords)
				}
				r.want(tt.after.Seconds(), "gateway_request_duration_seconds_sum")
				errorEvent := fmt.Sprintf(`"code":%d}}`, tt.code) + "\n\n"
				if !strings.HasPrefix(got, role+token("a")) || !strings.HasSuffix(got, errorEvent) || strings.Contains(got, "[DONE]") {
					t.Errorf("got %q; want the tokens, then an error event with %s", got, errorEvent)
				}
				if strings.Contains(got, "del") != strings.Contains(got, "delta") {
					t.Errorf("half an event was sent: %q", got)
				}
				r.want(1, "gateway_requests_total", "outcome", tt.outcome, "status", "2xx")
				r.want(1, "gateway_upstream_errors_total", "cause", tt.cause)
				r.want(1, "gateway_time_to_first_token_seconds_count")
				r.want(0, "gateway_tokens_per_second_count")
			}, tt.handle)
		})
	}
}

// A client can lose what it has received and not yet read when the connection is
// closed, so it gets the time to read the error event. The request is over at
// once all the same; only a drain waits for its client.
func TestTimeToReadAnErrorEvent(t *testing.T) {
	inBubble(t, func(r *rig) {
		ctx, hangUp := context.WithCancel(r.t.Context())
		resp, err := r.postAs(ctx, "/v1/chat/completions", ask)
		if err != nil {
			r.t.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		for !strings.Contains(lines.Text(), `"error"`) {
			if !lines.Scan() {
				r.t.Fatal("no error event: ", lines.Err())
			}
		}
		r.want(0, "gateway_queue_depth")
		r.want(0, "gateway_backend_in_flight")
		r.want(1, "gateway_request_duration_seconds_sum")
		told, drained := time.Now(), make(chan time.Duration)
		go func() { r.g.Drain(r.t.Context()); drained <- time.Since(told) }()
		time.Sleep(lastWords / 4)
		hangUp()
		if took := <-drained; took != lastWords/4+quiet {
			r.t.Errorf("the drain ended %v after the error event; want %v, a second after the client hung up", took, lastWords/4+quiet)
		}
	}, sse(role, token("a"), time.Second, abort))
}

// aborted is how vLLM ends what runs when it is told to stop: like any other end.
const aborted = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"x"},"logprobs":null,"finish_reason":"abort","stop_reason":null}]}` + "\n\n"

// What the engine has given up is never passed off as finished. Before anything
// has been sent, the client is told so by the status.
func TestAbortedAnswer(t *testing.T) {
	const (
		chatWhole     = `{"choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"abort"}],"usage":{"prompt_tokens":5,"completion_tokens":1}}`
		messagesWhole = `{"id":"chatcmpl-1","type":"message","content":[{"type":"text","text":"a"}],"usage":{"input_tokens":5,"output_tokens":1}}`
		delta         = `data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}` + "\n\n"
		messagesEnd   = `data: {"type":"message_delta","delta":{"stop_reason":null},"usage":{"output_tokens":1}}` + "\n\n" + `data: {"type":"message_stop"}` + "\n\n"
		messagesEmpty = `data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":0}}` + "\n\n" + `data: {"type":"message_stop"}` + "\n\n"
		completed     = `data: {"type":"response.completed","response":{"usage":{"input_tokens":5,"output_tokens":0}}}` + "\n\n"
	)
	for name, tt := range map[string]struct {
		path   string
		handle http.HandlerFunc
		begun  string // "": nothing of the answer was sent
	}{
		"chat, running":              {"/v1/chat/completions", sse(role, token("a"), time.Second, aborted, usage(5, 2), done), role + token("a")},
		"chat, in one piece at once": {"/v1/chat/completions", sse(role + token("a") + aborted + usage(5, 2) + done), role + token("a")},
		"chat, left open":            {"/v1/chat/completions", sse(role, token("a"), time.Second, aborted, hang), role + token("a")},
		"chat, at first, left open":  {"/v1/chat/completions", sse(role, aborted, hang), ""},
		"chat, queued":               {"/v1/chat/completions", sse(role, done), ""},
		"completions, queued":        {"/v1/completions", sse(done), ""},
		"chat, whole":                {"/v1/chat/completions", sized(chatWhole), ""},
		"messages, running":          {"/v1/messages", sse(delta, time.Second, messagesEnd), delta},
		"messages, queued":           {"/v1/messages", sse(messagesEmpty), ""},
		"messages, whole":            {"/v1/messages", sized(messagesWhole), ""},
		"transcription":              {"/v1/audio/transcriptions", sse(`data: {"choices":[{"delta":{"content":"a"}}]}`+"\n\n", aborted, done), `data: {"choices":[{"delta":{"content":"a"}}]}` + "\n\n"},
		"responses, queued":          {"/v1/responses", sse(completed), ""},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				start := time.Now()
				resp, err := r.post(tt.path, ask)
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if took := time.Since(start); took > 3*time.Second { // the second of linger is one of them
						t.Errorf("it took %v", took)
					}
				}()
				if tt.begun == "" {
					if got := r.read(resp); resp.StatusCode != 502 || !strings.Contains(got, "ended early") {
						t.Errorf("%d %q", resp.StatusCode, got)
					}
				} else if got := r.broken(resp); !strings.HasPrefix(got, tt.begun) || !strings.Contains(got[len(tt.begun):], `"code":502`) || strings.Contains(got, "DONE") || strings.Contains(got, "stop") {
					t.Errorf("got %q; want what came before, and an error event", got)
				}
				r.want(1, "gateway_requests_total", "outcome", "backend_error")
				r.want(1, "gateway_upstream_errors_total", "cause", causeCut)
			}, tt.handle)
		})
	}
}

// sized answers JSON of known length, as vLLM does.
func sized(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
		io.WriteString(w, answer)
	}
}

// Half of an event too long to be held has gone out already: it is closed first.
func TestFailureWithinALongEvent(t *testing.T) {
	half := "data: " + strings.Repeat("x", 100<<10)
	inBubble(t, func(r *rig) {
		resp, err := r.post("/v1/chat/completions", ask)
		if err != nil {
			t.Fatal(err)
		}
		got := r.broken(resp)
		at := strings.Index(got, "\n\ndata: {\"error\"")
		if at < 0 || !strings.HasPrefix(half, got[:at]) {
			t.Errorf("got …%q; want the half event, an empty line, an error event", got[max(0, len(got)-200):])
		}
	}, sse(half, time.Second, abort))
}

// An error that the engine reports before any token is a true HTTP error: its
// code, its body.
func TestEngineErrorBeforeAnyToken(t *testing.T) {
	const body = `{"error": {"message": "KV cache is full", "type": "InternalServerError", "param": null, "code": 500}}`
	inBubble(t, func(r *rig) {
		resp, got := r.mustPost("/v1/chat/completions", ask)
		if resp.StatusCode != 500 || got != body || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%d %s %q; want 500 with the engine's own body", resp.StatusCode, resp.Header.Get("Content-Type"), got)
		}
		r.want(1, "gateway_requests_total", "status", "5xx", "outcome", "backend_error")
		r.want(1, "gateway_upstream_errors_total", "cause", causeStream)
		r.want(0, "gateway_time_to_first_token_seconds_count")
	}, sse(headers, role, time.Second, "data: "+body+"\n\n", done))
}

// One that it reports later passes through, and still counts. Nothing is added
// to it: the client has been told, end mark or not.
func TestEngineErrorWithinTheStream(t *testing.T) {
	const event = "data: {\"error\": {\"message\": \"boom\", \"code\": 500}}\n\n"
	const delta = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n"
	for name, tt := range map[string]struct{ path, stream string }{
		"chat":             {"/v1/chat/completions", role + token("a") + event + done},
		"chat, no [DONE]":  {"/v1/chat/completions", role + token("a") + event},
		"responses":        {"/v1/responses", delta + event + done},
		"responses failed": {"/v1/responses", delta + "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"message\":\"x\"}}}\n\n"},
		"messages":         {"/v1/messages", "data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"x\"}}\n\nevent: error\ndata: {\"type\":\"error\",\"error\":{\"message\":\"x\"}}\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				resp, got := r.mustPost(tt.path, ask)
				if resp.StatusCode != 200 || got != tt.stream {
					t.Errorf("%d %q; want %q", resp.StatusCode, got, tt.stream)
				}
				r.want(1, "gateway_requests_total", "status", "2xx", "outcome", "backend_error")
				r.want(1, "gateway_upstream_errors_total", "cause", causeStream)
				r.want(1, "gateway_upstream_errors_total")
				r.want(0, "gateway_tokens_per_second_count")
			}, sse(tt.stream[:len(tt.stream)/2], tt.stream[len(tt.stream)/2:]))
		})
	}
}

// Until the first token a failure has a true status.
func TestFailureBeforeTheFirstToken(t *testing.T) {
	for name, tt := range map[string]struct {
		handle  http.HandlerFunc
		after   time.Duration
		status  int
		outcome string
		cause   string
	}{
		// Sent twice: the first went out on a connection that the probe had used,
		// and which the server may have been closing.
		"cut before the head":   {sse(time.Second, abort), 2 * time.Second, 502, "backend_error", causeReset},
		"cut before a token":    {sse(headers, role, time.Second, abort), time.Second, 502, "backend_error", causeReset},
		"ended without a token": {sse(headers, role, time.Second), time.Second, 502, "backend_error", causeCut},
		"no head":               {sse(hang), 10 * time.Minute, 504, "timeout", causeTimeout},
		"no token":              {sse(headers, role, hang), 10 * time.Minute, 504, "timeout", causeTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				start := time.Now()
				resp, body := r.mustPost("/v1/chat/completions", ask)
				if took := time.Since(start); resp.StatusCode != tt.status || took != tt.after {
					t.Errorf("%d after %v; want %d after %v", resp.StatusCode, took, tt.status, tt.after)
				}
				if !strings.HasPrefix(body, `{"error":{"message":"`) || strings.Contains(body, "vllm-0") {
					t.Errorf("body %s; want an error in OpenAI's shape that names no address", body)
				}
				r.want(1, "gateway_requests_total", "outcome", tt.outcome)
				r.want(1, "gateway_upstream_errors_total", "cause", tt.cause)
				r.want(0, "gateway_time_to_first_token_seconds_count")
			}, tt.handle)
		})
	}
}

// A healthy stream may last as long as it likes.
func TestLongStreamIsNotCut(t *testing.T) {
	var steps []any
	steps = append(steps, role)
	for range 100 {
		steps = append(steps, token("a"), 4*time.Minute)
	}
	inBubble(t, func(r *rig) {
		r.mustPost("/v1/chat/completions", ask)
		r.want(1, "gateway_requests_total", "outcome", "ok")
	}, sse(append(steps, stop+done)...))
}

// A body that is no stream is never passed off as whole.
func TestCutBody(t *testing.T) {
	const answer = `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}`
	short := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
		play(w, r, []any{answer[:20], abort})
	}
	for name, handle := range map[string]http.HandlerFunc{
		"chunked":  answer200("application/json", answer[:20], abort),
		"unframed": unframed("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + answer[:20]),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				resp, err := r.post("/v1/chat/completions", `{"model":"tiny"}`)
				if err != nil {
					t.Fatal(err)
				}
				if got := r.broken(resp); got != answer[:20] {
					t.Errorf("got %q", got)
				}
				r.want(1, "gateway_requests_total", "outcome", "backend_error")
				r.want(1, "gateway_upstream_errors_total", "cause", causeCut)
			}, handle)
		})
	}
	// A small one of known length is held until it is there.
	inBubble(t, func(r *rig) {
		if resp, got := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`); resp.StatusCode != 502 || !strings.Contains(got, "ended early") {
			t.Errorf("%d %s", resp.StatusCode, got)
		}
		r.want(1, "gateway_requests_total", "outcome", "backend_error")
		r.want(1, "gateway_upstream_errors_total", "cause", causeCut)
	}, short)
	inBubble(t, func(r *rig) {
		if resp, got := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`); resp.StatusCode != 200 || got != answer {
			t.Errorf("%d %s", resp.StatusCode, got)
		}
		r.want(1, "gateway_retries_total")
		r.want(3, "gateway_prompt_tokens_total")
	}, short, answer200("application/json", answer))
	inBubble(t, func(r *rig) {
		start := time.Now()
		resp, got := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`)
		if took := time.Since(start); resp.StatusCode != 504 || !strings.Contains(got, "fell silent") || took != 5*time.Minute {
			t.Errorf("%d %s after %v", resp.StatusCode, got, took)
		}
	}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
		play(w, r, []any{answer[:20], hang})
	})
	inBubble(t, func(r *rig) {
		if _, got := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`); got != answer {
			t.Errorf("got %q", got)
		}
		r.want(3, "gateway_prompt_tokens_total")
		r.want(4, "gateway_completion_tokens_total")
		r.want(0, "gateway_time_to_first_token_seconds_count")
	}, unframed("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"+answer))
}

// What breaks the end of a body is not quoted in the log.
func TestMalformedTrailerIsNotQuoted(t *testing.T) {
	inBubble(t, func(r *rig) {
		resp, err := r.post("/v1/chat/completions", `{"model":"tiny"}`)
		if err != nil {
			t.Fatal(err)
		}
		r.broken(resp)
		if strings.Contains(r.logged(), "completion's words") {
			t.Errorf("the log quotes the answer:\n%s", r.logged())
		}
	}, unframed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nthe completion's words\r\n\r\n"))
}

// unframed answers with raw bytes and the connection's close.
func unframed(raw string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(conn, raw)
		conn.Close()
	}
}

// The error event waits for no client either, just where its buffers are full.
func TestErrorEventForAStalledClient(t *testing.T) {
	for missing := 0; missing < 1200; missing += 100 {
		flood := token(strings.Repeat("z", inFlight-missing))
		inBubble(t, func(r *rig) {
			resp, err := r.post("/v1/chat/completions", ask)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			time.Sleep(6 * time.Minute)
			r.want(0, "gateway_queue_depth")
		}, sse(flood, time.Second, abort))
	}
}

// inFlight is what memnet holds between gateway and client, and the client's own
// buffer.
const inFlight = 256<<10 + 4<<10

// A body of known length is watched to its last byte, which net/http would write
// once nobody looks any more.
func TestStalledAtTheLastBytes(t *testing.T) {
	body := strings.Repeat("z", inFlight+2<<10)
	inBubble(t, func(r *rig) {
		resp, err := r.post("/v1/embeddings", `{"model":"tiny"}`)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		time.Sleep(6 * time.Minute)
		r.want(1, "gateway_requests_total", "outcome", "cancelled")
	}, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		io.WriteString(w, body)
	})
}

// A client that no longer reads holds a backend only so long.
func TestStalledClient(t *testing.T) {
	flood := strings.Repeat(token(strings.Repeat("z", 1000)), 2000)
	inBubble(t, func(r *rig) {
		start := time.Now()
		resp, err := r.post("/v1/chat/completions", ask)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		time.Sleep(6 * time.Minute)
		if ended := r.backends[0].requests()[0].ended.Sub(start); ended != 5*time.Minute {
			t.Errorf("the backend was let go after %v; want 5m", ended)
		}
		r.want(1, "gateway_requests_total", "outcome", "cancelled")
	}, sse(role, flood, hang))
}

// After any mix of ends the counters add up and nothing is left running; the
// rig checks the gauges after every test.
func TestNoCountIsLost(t *testing.T) {
	kinds := []http.HandlerFunc{
		sse(role, 10*time.Millisecond, token("a"), token("b"), stop, usage(5, 2), done),
		sse(role, token("a"), 10*time.Millisecond, abort),
		sse(headers, 10*time.Millisecond, abort),
		sse(role, token("a"), hang),
		sse(hang),
		answer200("application/json", 10*time.Millisecond, `{"usage":{"prompt_tokens":1}}`),
		func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) },
		func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(400) },
		func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	}
	const each = 30
	inBubble(t, func(r *rig) {
		ended := make(chan bool)
		for i := range each * len(kinds) {
			go func() {
				defer func() { ended <- true }()
				resp, err := r.post("/v1/chat/completions", ask, "Kind", fmt.Sprint(i%len(kinds)))
				if err != nil {
					return
				}
				defer resp.Body.Close()
				if i%len(kinds) == 3 {
					bufio.NewReader(resp.Body).ReadString('\n') // then leave
					return
				}
				io.Copy(io.Discard, resp.Body)
			}()
		}
		for range each * len(kinds) {
			<-ended
		}
		time.Sleep(time.Second)
		r.want(each*float64(len(kinds)), "gateway_requests_total")
		r.want(2*each, "gateway_requests_total", "outcome", "ok")
		r.want(each, "gateway_requests_total", "outcome", "cancelled")
		r.want(each, "gateway_requests_total", "outcome", "timeout")
		r.want(each, "gateway_requests_total", "outcome", "client_error")
		r.want(4*each, "gateway_requests_total", "outcome", "backend_error")
		r.want(3*each, "gateway_time_to_first_token_seconds_count")
		r.want(each, "gateway_cancelled_requests_total")
	}, func(w http.ResponseWriter, req *http.Request) {
		var kind int
		fmt.Sscan(req.Header.Get("Kind"), &kind)
		kinds[kind](w, req)
	})
}

// An answer that has no body is not one whose body is missing, whatever its head says.
func TestNotModified(t *testing.T) {
	for _, length := range []string{"", "Content-Length: 12\r\n"} {
		inBubble(t, func(r *rig) {
			if resp, got := r.mustPost("/v1/completions", `{"model":"tiny"}`); resp.StatusCode != http.StatusNotModified || got != "" {
				t.Errorf("%d %q", resp.StatusCode, got)
			}
		}, unframed("HTTP/1.1 304 Not Modified\r\nContent-Type: application/json\r\n"+length+"\r\n"))
	}
}
