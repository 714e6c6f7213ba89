package gateway

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

const aliceKey, bobKey = "vg-ALICE-OPENSESAME", "vg-BOB-OPENSESAME"

// keyed has two callers, alice and bob.
func keyed(change ...func(c *Config, alice, bob *Caller)) func(*Config) {
	return func(c *Config) {
		c.Callers = []Caller{
			{Name: "alice", Keys: []secret.Hash{secret.HashOf("vg-ALICE-BEFORE-THAT"), secret.HashOf(aliceKey)}},
			{Name: "bob", Keys: []secret.Hash{secret.HashOf(bobKey)}},
		}
		for _, f := range change {
			f(c, &c.Callers[0], &c.Callers[1])
		}
	}
}

var hello = answer200("application/json", `{"model":"tiny","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}`)

func TestKeys(t *testing.T) {
	inBubbleWith(t, keyed(), func(r *rig) {
		for _, tt := range []struct {
			name   string
			path   string
			header []string
			code   int
		}{
			{"none", "", nil, 401},
			{"alice's", "", as(aliceKey), 200},
			{"the one before", "", as("vg-ALICE-BEFORE-THAT"), 200},
			{"bob's", "", as(bobKey), 200},
			{"as Anthropic has it", "", []string{"X-Api-Key", aliceKey}, 200},
			{"another letter case of the scheme", "", []string{"Authorization", "bearer " + aliceKey}, 200},
			{"wrong", "", as("vg-ALICE"), 401},
			{"longer", "", as(aliceKey + "x"), 401},
			{"another case", "", as(strings.ToLower(aliceKey)), 401},
			{"its hash", "", as(secret.HashOf(aliceKey).String()), 401},
			{"empty", "", as(""), 401},
			{"no scheme", "", []string{"Authorization", aliceKey}, 401},
			{"another scheme", "", []string{"Authorization", "Basic " + aliceKey}, 401},
			{"a wrong one beside a right one", "", []string{"Authorization", "Bearer x", "X-Api-Key", aliceKey}, 401},
			{"in the query", "?key=" + aliceKey, nil, 401},
			{"in the query as well", "?key=" + aliceKey, as(aliceKey), 400},
		} {
			resp, body := r.mustPost("/v1/chat/completions"+tt.path, `{"model":"tiny"}`, tt.header...)
			if resp.StatusCode != tt.code {
				t.Errorf("%s: %d %s; want %d", tt.name, resp.StatusCode, body, tt.code)
			}
			if tt.code == 401 && (resp.Header.Get("WWW-Authenticate") != "Bearer" || body != `{"error":{"message":"A valid API key is needed, as \"Authorization: Bearer …\" or \"x-api-key: …\".","type":"AuthenticationError","param":null,"code":401}}`) {
				t.Errorf("%s: %v %s", tt.name, resp.Header, body)
			}
		}
		// Of a caller with two keys the log says which it was, so that the old one can go
		// when it is used no more.
		if log := r.logged(); strings.Count(log, `"key":1`) != 1 || strings.Count(log, `"key":2`) != 4 {
			t.Errorf("the log says of the keys of alice: %s", log)
		}
		r.want(10, "gateway_unauthorized_requests_total")
		r.want(5, "gateway_caller_requests_total", "caller", "alice") // one had its key in the URL
		r.want(4, "gateway_caller_requests_total", "caller", "alice", "outcome", "ok")
		r.want(28, "gateway_caller_prompt_tokens_total", "caller", "alice", "model", "tiny")
		r.want(12, "gateway_caller_completion_tokens_total", "caller", "alice", "model", "tiny")
		if n := len(r.backends[0].requests()); n != 5 {
			t.Errorf("%d requests have reached the backend", n)
		}
	}, hello)
}

// Where two hashes begin alike the rest decides.
func TestHashesThatBeginAlike(t *testing.T) {
	almost := secret.HashOf(aliceKey)
	almost[len(almost)-1] ^= 1
	inBubbleWith(t, func(c *Config) { c.Callers = []Caller{{Name: "alice", Keys: []secret.Hash{almost}}} }, func(r *rig) {
		if resp, _ := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(aliceKey)...); resp.StatusCode != 401 {
			t.Errorf("answered %d", resp.StatusCode)
		}
	}, hello)
}

// The hash of a key that can be guessed lets nobody in.
func TestShortKeys(t *testing.T) {
	short := strings.Repeat("k", secret.MinKey-1)
	inBubbleWith(t, func(c *Config) {
		c.Callers = []Caller{{Name: "alice", Keys: []secret.Hash{secret.HashOf(short), secret.HashOf(short + "k")}}}
	}, func(r *rig) {
		for key, code := range map[string]int{short: 401, short + "k": 200} {
			if resp, _ := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(key)...); resp.StatusCode != code {
				t.Errorf("%d characters: %d; want %d", len(key), resp.StatusCode, code)
			}
		}
	}, hello)
}

// Two keys of one caller are one caller in the waiting line.
func TestTurnsAreOfCallers(t *testing.T) {
	inBubbleWith(t, keyed(func(c *Config, _, _ *Caller) { c.MaxInFlight, c.MaxWaiting = 10, 10 }), func(r *rig) {
		var list ends
		for _, key := range []string{aliceKey, "vg-ALICE-BEFORE-THAT", bobKey} {
			list.send(r, key, as(key)...)
		}
		r.g.pool.mu.Lock()
		callers := len(r.g.pool.running)
		r.g.pool.mu.Unlock()
		if list.all(); callers != 2 {
			t.Errorf("two callers with three keys take turns as %d", callers)
		}
	}, aSecond)
}

// A key that is there twice is none: who stands between may read the other.
func TestKeyTwice(t *testing.T) {
	inBubbleWith(t, keyed(), func(r *rig) {
		req, _ := http.NewRequestWithContext(r.t.Context(), "POST", gatewayURL+"/v1/chat/completions", strings.NewReader(`{}`))
		req.Header["Authorization"] = []string{"Bearer " + aliceKey, "Bearer " + bobKey}
		if resp, _ := r.whole(r.client.Do(req)); resp.StatusCode != 401 {
			t.Errorf("answered %d", resp.StatusCode)
		}
	}, hello)
}

// The key is seen by nobody: no backend, no log, no answer, whatever goes wrong.
func TestKeysStayHere(t *testing.T) {
	var answers bytes.Buffer
	inBubbleWith(t, keyed(func(c *Config, alice, _ *Caller) { alice.Models = []string{"tiny"} }), func(r *rig) {
		for _, header := range [][]string{
			as(aliceKey),
			{"X-Api-Key", aliceKey},
			{"Authorization", "Bearer " + aliceKey, "X-Api-Key", aliceKey, "Api-Key", aliceKey, "Cookie", "session=1; key=" + aliceKey, "X-Forwarded-Authorization", "Bearer " + aliceKey},
			{"Authorization", "Bearer " + aliceKey, "X-Request-Id", aliceKey},
			{"X-Request-Id", aliceKey},
			as("vg-WRONG-OPENSESAME"),
			{"Authorization", "Bearer " + aliceKey, "X-Api-Key", "vg-ANOTHER-OPENSESAME"},
		} {
			for _, body := range []string{`{"model":"tiny"}`, `{"model":"` + aliceKey + `"}`, `{`, ``} {
				for _, path := range []string{"/v1/chat/completions", "/v1/chat/completions?k=" + aliceKey, "/v1/responses", "/nowhere", "/" + aliceKey + "/v1/chat/completions", "/v1/responses/" + aliceKey + "/cancel"} {
					resp, got := r.mustPost(path, body, header...)
					if !strings.Contains(body, "OPENSESAME") { // what the client itself says of models
						resp.Header.Write(&answers)
						answers.WriteString(got)
					}
				}
			}
		}
		r.backends[0].kill()
		_, got := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(aliceKey)...)
		answers.WriteString(got)
		for i, req := range r.backends[0].requests() {
			var head bytes.Buffer
			req.header.Write(&head)
			if strings.Contains(head.String()+req.uri, "OPENSESAME") {
				t.Errorf("request %d took the key to the backend: %s %v", i, req.uri, req.header)
			}
		}
		if strings.Contains(answers.String(), "OPENSESAME") {
			t.Errorf("an answer has a key in it: %s", answers.String())
		}
		_, health := r.mustGet("/health")
		_, metrics := r.mustGet("/metrics")
		for name, text := range map[string]string{"log": r.logged(), "health": health, "metrics": metrics} {
			if strings.Contains(text, "OPENSESAME") {
				t.Errorf("%s: there is a key in it", name)
			}
		}
	}, hello)
}

// Without keys nothing is asked for, and vLLM's own key goes through.
func TestNoKeys(t *testing.T) {
	inBubble(t, func(r *rig) {
		if resp, _ := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as("vllms-own")...); resp.StatusCode != 200 {
			t.Errorf("answered %d", resp.StatusCode)
		}
		if got := r.backends[0].requests()[0].header.Get("Authorization"); got != "Bearer vllms-own" {
			t.Errorf("the backend got %q", got)
		}
		r.want(0, "gateway_caller_requests_total")
	}, hello)
}

func TestOpenPaths(t *testing.T) {
	inBubbleWith(t, keyed(), func(r *rig) {
		for path, code := range map[string]int{"/health": 200, "/metrics": 200, "/v1/models": 401, "/version": 401, "/v1/realtime": 401} {
			if resp, _ := r.mustGet(path); resp.StatusCode != code {
				t.Errorf("%s: %d; want %d", path, resp.StatusCode, code)
			}
		}
		req, _ := http.NewRequestWithContext(r.t.Context(), "OPTIONS", gatewayURL+"/v1/chat/completions", nil)
		req.Header.Set("Authorization", "Bearer x")
		if resp, _ := r.whole(r.client.Do(req)); resp.StatusCode != 200 {
			t.Errorf("a preflight: %d", resp.StatusCode)
		}
		if got := r.backends[0].requests()[0].header.Get("Authorization"); got != "" {
			t.Errorf("a preflight took %q along", got)
		}
	}, hello)
	inBubbleWith(t, func(c *Config) { c.NoMetrics = true }, func(r *rig) {
		if resp, _ := r.mustGet("/metrics"); resp.StatusCode != 404 {
			t.Errorf("/metrics answers %d here, and is elsewhere", resp.StatusCode)
		}
	}, hello)
}

// A key's priority is the highest that its requests can have.
func TestPriorityOfAKey(t *testing.T) {
	one := keyed(func(c *Config, alice, bob *Caller) {
		c.MaxInFlight, c.MaxWaiting = 1, 100
		alice.Priority = "low"
	})
	inBubbleWith(t, one, func(r *rig) {
		var list ends
		list.send(r, "first", as(bobKey)...)
		list.send(r, "alice", append(as(aliceKey), "X-Priority", "high")...)
		list.send(r, "bob's low", append(as(bobKey), "X-Priority", "low")...)
		list.send(r, "bob", as(bobKey)...)
		var order []string
		for _, e := range list.all() {
			order = append(order, e.name)
		}
		// bob's is of normal priority, and goes first; of the two low ones alice's,
		// who has had nothing, and came first.
		if want := []string{"first", "bob", "alice", "bob's low"}; !slices.Equal(order, want) {
			t.Errorf("served %q; want %q", order, want)
		}
	}, aSecond)
}

func TestConcurrencyOfAKey(t *testing.T) {
	two := keyed(func(_ *Config, alice, _ *Caller) { alice.Concurrency = 2 })
	inBubbleWith(t, two, func(r *rig) {
		var list ends
		for _, name := range []string{"1", "2", "3"} {
			list.send(r, name, as(aliceKey)...)
		}
		list.send(r, "bob", as(bobKey)...)
		all := list.all()
		if first := all[0]; first.name != "3" || first.code != 429 || first.after != 0 || first.retry != "1" || !strings.Contains(first.body, "Your API key may have 2 requests running at a time") || !strings.Contains(first.body, `"type":"RateLimitError"`) {
			t.Errorf("the third: %+v", first)
		}
		for _, e := range all[1:] {
			if e.code != 200 {
				t.Errorf("%+v", e)
			}
		}
		r.want(1, "gateway_caller_refused_requests_total", "caller", "alice", "reason", "concurrency")
		r.want(1, "gateway_requests_total", "outcome", "limited")
		r.want(0, "gateway_refused_requests_total")
		if resp, _ := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(aliceKey)...); resp.StatusCode != 200 {
			t.Errorf("a place was not given back: %d", resp.StatusCode)
		}
	}, aSecond)
}

// seriesOf counts the series that a caller has.
func (r *rig) seriesOf(caller string) (n int) {
	families, _ := r.g.metrics.registry.Gather()
	for _, f := range families {
		for _, m := range f.Metric {
			if holds(m, []string{"caller", caller}) {
				n++
			}
		}
	}
	return n
}

// The series of a few callers begin at 0, and end with them.
func TestCallerSeries(t *testing.T) {
	inBubbleWith(t, keyed(), func(r *rig) {
		if a, b := r.seriesOf("alice"), r.seriesOf("bob"); a != 3 || b != 3 {
			t.Errorf("before anything, alice has %d series and bob %d; want 3", a, b)
		}
		r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(bobKey)...)
		r.reload(func(c *Config) {
			c.Callers = []Caller{c.Callers[0], {Name: "carol", Keys: []secret.Hash{secret.HashOf("vg-CAROL-OPENSESAME")}}}
		})
		if a, b, c := r.seriesOf("alice"), r.seriesOf("bob"), r.seriesOf("carol"); a != 3 || b != 0 || c != 3 {
			t.Errorf("after a reload alice has %d, bob %d, carol %d; want 3, 0, 3", a, b, c)
		}
	}, hello)
}

// What a caller still has running when it is taken out brings its series not back.
func TestCallerSeriesStayAway(t *testing.T) {
	inBubbleWith(t, keyed(), func(r *rig) {
		var list ends
		list.send(r, "runs", as(aliceKey)...)
		r.reload(func(c *Config) { c.Callers = c.Callers[1:] })
		if all := list.all(); all[0].code != 200 {
			t.Errorf("%+v", all[0])
		}
		r.want(1, "gateway_caller_requests_total", "caller", "other")
		if n := r.seriesOf("alice"); n != 0 {
			t.Errorf("alice, who is gone, has %d series", n)
		}
	}, aSecond)
}

// Of a hundred thousand callers a thousand have series.
func TestCallerSeriesAreBounded(t *testing.T) {
	m := newMetrics("test")
	for i := range maxCallers {
		if name := strings.Repeat("x", i+1); m.callerLabel(name) != name {
			t.Fatalf("caller %d has no label of its own", i)
		}
	}
	if a, b := m.callerLabel("x"), m.callerLabel("one more"); a != "x" || b != otherCaller {
		t.Errorf("labels are %q and %q", a, b)
	}
}

// Nobody needs a key for a preflight, so nothing of it but its headers goes on, and it
// asks for nothing.
func TestPreflightWithoutKey(t *testing.T) {
	inBubbleWith(t, keyed(func(c *Config, _, _ *Caller) { c.Aliases = map[string]string{"best": "tiny"} }), func(r *rig) {
		for path, body := range map[string]string{
			"/v1/chat/completions?model=tiny": `{"model":"tiny","messages":[{"role":"user","content":"hi"}]}`,
			"/v1/completions":                 `{"model":"nothere"}`, // whose refusal would list all models
			"/v1/responses":                   strings.Repeat(" ", 1<<17),
			"/v1/responses/resp_1":            "",
		} {
			lists := r.backends[0].lists()
			req, _ := http.NewRequestWithContext(r.t.Context(), "OPTIONS", gatewayURL+path, strings.NewReader(body))
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("X-Asked", "yes")
			resp, answer := r.whole(r.client.Do(req))
			if resp.StatusCode != 200 {
				t.Errorf("%s: %d %s", path, resp.StatusCode, answer)
			}
			got := r.backends[0].requests()
			last := got[len(got)-1]
			if last.method != "OPTIONS" || last.body != "" || strings.Contains(last.uri, "?") || last.header.Get("X-Asked") != "yes" {
				t.Errorf("%s: the backend got %+v", path, last)
			}
			if n := r.backends[0].lists() - lists; n != 0 {
				t.Errorf("%s: models were asked for %d times", path, n)
			}
		}
	}, hello, hello)
}
