package vllmsim

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestParseFault(t *testing.T) {
	for _, test := range []struct {
		text string
		want Fault
		err  string // part of the error; empty for none
	}{
		{"unhealthy", Fault{Kind: unhealthy}, ""},
		{"stall,after=3,share=0.1", Fault{Kind: stall, After: 3, Share: 0.1}, ""},
		{"slow-first-token,delay=1.5s", Fault{Kind: slowFirstToken, Delay: 1500 * time.Millisecond}, ""},
		{"reject,status=429", Fault{Kind: reject, Status: 429}, ""},

		{"", Fault{}, `no fault kind ""; use one of crash, cut, error, reject, slow-first-token, slow-health, stall, unhealthy`},
		{"nonsense", Fault{}, `no fault kind "nonsense"`},
		{"stall,status=500", Fault{}, `fault stall: no key "status"; it takes after, share`},
		{"stall,after", Fault{}, `"after" is not KEY=VALUE`},
		{"stall,after=x", Fault{}, "use a whole number of events"},
		{"stall,after=-1", Fault{}, "after is -1; use 0 or more"},
		{"cut,share=2", Fault{}, "share is 2; use above 0 to 1"},
		{"cut,share=0", Fault{}, "share is 0; use above 0 to 1"},
		{"cut,share=NaN", Fault{}, "share is NaN; use above 0 to 1"},
		{"reject,status=200", Fault{}, "status is 200; use 400 to 599"},
		{"slow-health", Fault{}, "needs a delay"},
		{"slow-health,delay=soon", Fault{}, "use a duration such as 1.5s"},
	} {
		var got Fault
		err := got.UnmarshalText([]byte(test.text))
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: error %v; want one with %q", test.text, err, test.err)
			}
			continue
		}
		if err != nil || got != test.want {
			t.Errorf("%q = %+v, %v; want %+v", test.text, got, err, test.want)
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var back Fault
		if err := json.Unmarshal(again, &back); err != nil || back.share() != got.share() || back.status() != got.status() || back.After != got.After || back.Delay != got.Delay {
			t.Errorf("%s reads back as %+v, %v; want %+v", again, back, err, got)
		}
	}
}

func TestShareIsEvenlySpread(t *testing.T) {
	for _, test := range []struct {
		share float64
		want  string // one mark for each of the first twelve requests
	}{
		{0, "xxxxxxxxxxxx"},
		{1, "xxxxxxxxxxxx"},
		{0.5, ".x.x.x.x.x.x"},
		{0.1, ".........x.."},
		{0.75, ".xxx.xxx.xxx"},
	} {
		var got strings.Builder
		for n := 1; n <= 12; n++ {
			if (Fault{Share: test.share}).hits(n) {
				got.WriteByte('x')
			} else {
				got.WriteByte('.')
			}
		}
		if got.String() != test.want {
			t.Errorf("share %v hits %s; want %s", test.share, got.String(), test.want)
		}
	}
}

// Binary fractions must not lose or move a hit.
func TestShareIsExact(t *testing.T) {
	for hundredth := 1; hundredth <= 100; hundredth++ {
		f, hits := Fault{Share: float64(hundredth) / 100}, 0
		for n := 1; n <= 100; n++ {
			if f.hits(n) {
				hits++
			}
		}
		if hits != hundredth {
			t.Errorf("share %v hits %d of the first 100", f.Share, hits)
		}
	}
}

func withFault(f Fault) Config {
	cfg := plain
	cfg.Faults = []Fault{f}
	return cfg
}

func TestRejectFault(t *testing.T) {
	inBubble(t, withFault(Fault{Kind: reject, Share: 0.5}), func(t *testing.T, b *bubble) {
		for i, want := range []int{200, 503, 200, 503} {
			status, body := b.call("POST", "/v1/completions", `{"prompt":"hi","max_tokens":1}`)
			if status != want || want == 503 && !strings.Contains(body, `"type":"ServiceUnavailableError"`) {
				t.Errorf("request %d: %d %s; want %d", i+1, status, body, want)
			}
		}
	})
}

func TestSlowFirstTokenFault(t *testing.T) {
	inBubble(t, withFault(Fault{Kind: slowFirstToken, Delay: time.Second}), func(t *testing.T, b *bubble) {
		list := b.stream("/v1/completions", ask(1, 20, 2))
		if first(list) != 1030*time.Millisecond || last(list) != 1040*time.Millisecond {
			t.Errorf("first token at %v, last at %v; want 1.03s and 1.04s", first(list), last(list))
		}
	})
}

func TestStallFault(t *testing.T) {
	inBubble(t, withFault(Fault{Kind: stall, After: 2}), func(t *testing.T, b *bubble) {
		ctx, leave := context.WithTimeout(t.Context(), time.Hour)
		defer leave()
		list, err := b.events(b.do(ctx, "POST", "/v1/completions", ask(1, 20, 9)))
		if len(list) != 2 || !errors.Is(err, context.DeadlineExceeded) || b.since() != time.Hour {
			t.Errorf("%d events, then %v after %v; want 2, then silence until the client leaves after 1h", len(list), err, b.since())
		}
	})
}

func TestCutFault(t *testing.T) {
	for _, after := range []int{0, 2} {
		inBubble(t, withFault(Fault{Kind: cut, After: after}), func(t *testing.T, b *bubble) {
			resp := b.do(t.Context(), "POST", "/v1/completions", ask(1, 20, 9))
			list, err := b.events(resp)
			if resp.StatusCode != 200 || len(list) != after || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("after %d: status %d, %d events, then %v; want 200, %d, unexpected EOF", after, resp.StatusCode, len(list), err, after)
			}
			time.Sleep(20 * time.Millisecond) // the step that runs, and the next
			if got := b.metric("vllm:num_requests_running" + labels); got != "0" {
				t.Errorf("after %d: running = %s; want 0: a lost client is an abort", after, got)
			}
		})
	}
}

func TestErrorFault(t *testing.T) {
	inBubble(t, withFault(Fault{Kind: inStreamError, After: 1}), func(t *testing.T, b *bubble) {
		list := b.stream("/v1/completions", ask(1, 20, 9))
		const want = `{"error": {"message": "Internal server error", "type": "InternalServerError", "param": null, "code": 500}}`
		if len(list) != 3 || list[1].data != want || list[2].data != "[DONE]" {
			t.Errorf("events %v; want one, then %s and [DONE]", list, want)
		}
		if status, _ := b.call("POST", "/v1/completions", `{"prompt":"hi","max_tokens":1}`); status != 500 {
			t.Errorf("without a stream: status %d; want 500", status)
		}
	})
}

func TestHealthFaults(t *testing.T) {
	cfg := Config{Faults: []Fault{{Kind: slowHealth, Delay: time.Minute}, {Kind: unhealthy}}}
	inBubble(t, cfg, func(t *testing.T, b *bubble) {
		status, _ := b.call("GET", "/health", "")
		if status != 503 || b.since() != time.Minute {
			t.Errorf("/health = %d after %v; want 503 after 1m", status, b.since())
		}
	})
}

func TestFaultsOverHTTP(t *testing.T) {
	inBubble(t, plain, func(t *testing.T, b *bubble) {
		for _, test := range []struct {
			method, body string
			status       int
			want         string
		}{
			{"PUT", `[{"kind":"reject","status":503,"share":0.1},{"kind":"slow-health","delay":"2s"}]`, 200,
				`[{"kind":"reject","share":0.1,"status":503},{"delay":"2s","kind":"slow-health","share":1}]`},
			{"PUT", `[{"kind":"stall","after":1.5}]`, 400, "fault stall: after=1.5: use a whole number of events"},
			{"PUT", `{}`, 400, "the body is not a JSON list such as"},
			{"PUT", `[{"kind":"crash"}]`, 501, "fault crash: this server cannot end its process"},
			{"GET", "", 200, `[{"kind":"reject","share":0.1,"status":503},{"delay":"2s","kind":"slow-health","share":1}]`},
			{"DELETE", "", 200, `[]`},
			{"GET", "", 200, `[]`},
		} {
			status, body := b.call(test.method, "/sim/faults", test.body)
			if status != test.status || !strings.Contains(body, test.want) {
				t.Errorf("%s %s = %d %s; want %d %s", test.method, test.body, status, body, test.status, test.want)
			}
		}
	})
}

func TestCrashFault(t *testing.T) {
	crashed := false
	inBubble(t, Config{OnCrash: func() { crashed = true }}, func(t *testing.T, b *bubble) {
		req := b.request(t.Context(), "PUT", "/sim/faults", `[{"kind":"crash"}]`)
		if _, err := b.client.Do(req); err == nil || !crashed {
			t.Errorf("error %v, crashed %v; want the connection lost and a crash", err, crashed)
		}
	})
	if _, err := New(Config{Faults: []Fault{{Kind: crash}}}); err == nil {
		t.Error("a server that crashes from the start was made")
	}
}
