package gateway

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

func TestModelsOfAKey(t *testing.T) {
	only := keyed(func(c *Config, alice, bob *Caller) {
		c.Aliases = map[string]string{"best": "large", "nice": "tiny"}
		alice.Models = []string{"tiny"}
		bob.Models = []string{"best"}
	})
	inBubbleWith(t, only, func(r *rig) {
		r.backends[0].set(func(b *fakeVLLM) { b.models = []string{"tiny", "large"} })
		time.Sleep(10 * time.Second)
		for _, tt := range []struct {
			key, body string
			code      int
			message   string
		}{
			{aliceKey, `{"model":"tiny"}`, 200, ""},
			{aliceKey, `{"model":"nice"}`, 200, ""},
			{aliceKey, `{"model":"large"}`, 403, "Your API key may not be used for the model `large`."},
			{aliceKey, `{"model":"best"}`, 403, "Your API key may not be used for the model `best`."},
			{aliceKey, `{"model":"nothere"}`, 403, "Your API key may not be used for the model `nothere`."},
			{aliceKey, `{"model":"tiny","model":"large"}`, 403, "Your API key may not be used for the model `large`."},
			{aliceKey, `{}`, 403, "Your API key is for certain models only: the request must name one."},
			{aliceKey, "{\x00\"\x00m\x00", 403, "Your API key is for certain models only: the request must name one."}, // Python's json reads UTF-16 too
			{bobKey, `{"model":"best"}`, 200, ""},
			{bobKey, `{"model":"large"}`, 403, "Your API key may not be used for the model `large`."},
		} {
			resp, body := r.mustPost("/v1/chat/completions", tt.body, as(tt.key)...)
			var e struct {
				Error struct{ Message, Type string }
			}
			json.Unmarshal([]byte(body), &e)
			if resp.StatusCode != tt.code || e.Error.Message != tt.message || tt.code == 403 && e.Error.Type != "PermissionDeniedError" {
				t.Errorf("%s: %d %s; want %d", tt.body, resp.StatusCode, body, tt.code)
			}
		}
		r.want(6, "gateway_caller_refused_requests_total", "caller", "alice", "reason", "model")
		r.want(2, "gateway_caller_refused_requests_total", "caller", "alice", "model", "large") // best is an alias, and no label
		for key, want := range map[string][]string{aliceKey: {"tiny", "nice"}, bobKey: {"best"}} {
			req, _ := http.NewRequestWithContext(r.t.Context(), "GET", gatewayURL+"/v1/models", nil)
			req.Header.Set("Authorization", "Bearer "+key)
			_, body := r.whole(r.client.Do(req))
			var list struct{ Data []struct{ ID string } }
			json.Unmarshal([]byte(body), &list)
			var got []string
			for _, m := range list.Data {
				got = append(got, m.ID)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s sees %v; want %v", key, got, want)
			}
		}
		// What there is, of what it may use.
		r.backends[0].set(func(b *fakeVLLM) { b.models = []string{"large"} })
		time.Sleep(10 * time.Second)
		if resp, body := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(aliceKey)...); resp.StatusCode != 404 || strings.Contains(body, "large") {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}, hello)
}

// With one backend and no aliases /v1/models is relayed, unless the caller is not to
// see all of it.
func TestModelsOfAKeyOneBackend(t *testing.T) {
	inBubbleWith(t, keyed(func(c *Config, alice, _ *Caller) { alice.Models = []string{"other"} }), func(r *rig) {
		for key, want := range map[string]bool{aliceKey: false, bobKey: true} {
			req, _ := http.NewRequestWithContext(r.t.Context(), "GET", gatewayURL+"/v1/models", nil)
			req.Header.Set("Authorization", "Bearer "+key)
			if _, body := r.whole(r.client.Do(req)); strings.Contains(body, "tiny") != want {
				t.Errorf("%s sees %s", key, body)
			}
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

// The backend's own key is the gateway's matter: sent in place of the client's, to
// probes as well; and if it is refused, that is no fault of the client's.
func TestBackendKeys(t *testing.T) {
	const backends = "vg-THE-BACKENDS-OWN"
	var good atomic.Bool
	guarded := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+backends || !good.Load() {
			w.WriteHeader(401)
			return
		}
		hello(w, r)
	}
	own := func(c *Config) {
		keyed()(c)
		c.BackendKeys = map[string]secret.Text{c.Backends[0]: secret.New(backends)}
	}
	inBubbleWith(t, own, func(r *rig) {
		good.Store(true)
		if resp, body := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(aliceKey)...); resp.StatusCode != 200 {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		good.Store(false)
		resp, body := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(aliceKey)...)
		if resp.StatusCode != 502 || !strings.Contains(body, "The model server refused the gateway.") {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		r.want(1, "gateway_upstream_errors_total", "cause", "status")
		if strings.Contains(r.logged(), backends) {
			t.Error("the log has the backend's key")
		}
	}, guarded)
	// Another backend may take it.
	both := func(c *Config) {
		own(c)
		c.BackendKeys[c.Backends[1]] = c.BackendKeys[c.Backends[0]]
	}
	inBubbleWith(t, both, func(r *rig) {
		good.Store(false)
		for range 4 {
			if resp, body := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(aliceKey)...); resp.StatusCode != 200 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		}
	}, guarded, hello)
}

// That it is the backends' key which is refused holds for lists of models too, and where
// there are no callers.
func TestBackendKeyOfModels(t *testing.T) {
	own := func(c *Config) {
		c.BackendKeys = map[string]secret.Text{c.Backends[0]: secret.New("vg-own"), c.Backends[1]: secret.New("vg-own")}
	}
	inBubbleWith(t, own, func(r *rig) {
		for _, b := range r.backends {
			b.set(func(b *fakeVLLM) { b.mute = true })
		}
		if resp, body := r.mustGet("/v1/models"); resp.StatusCode != 502 || !strings.Contains(body, "refused the gateway") {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}, hello, hello)
}

// The list of models is asked for with the backend's key.
func TestBackendKeyOfProbes(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.Backends = []string{"http://locked:8000"} }, func(r *rig) {
		got := make(chan string, 10)
		locked := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			got <- req.URL.Path + " " + req.Header.Get("Authorization")
			w.Write([]byte(`{"data":[]}`))
		})
		l, err := r.net.Listen("locked:8000")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: locked}
		go srv.Serve(l)
		defer srv.Close()
		cfg := r.g.conf.Load().Config
		cfg.BackendKeys = map[string]secret.Text{"http://locked:8000": secret.New("vg-own")}
		if err := r.g.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		for _, want := range []string{"/health Bearer vg-own", "/v1/models Bearer vg-own"} {
			if first := <-got; first != want {
				t.Errorf("asked %q; want %q", first, want)
			}
		}
	})
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

// What vLLM may read otherwise than the gateway does is no way round a caller's models,
// nor round its limits.
func TestDoubtfulBodies(t *testing.T) {
	only := keyed(func(_ *Config, alice, _ *Caller) { alice.Models = []string{"tiny"} })
	inBubbleWith(t, only, func(r *rig) {
		form := func(head string) string {
			return "--xx\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ntiny\r\n--xx\r\n" + head + "\r\n\r\nlarge\r\n--xx--\r\n"
		}
		const audio, kind = "/v1/audio/transcriptions", "multipart/form-data; boundary=xx"
		for _, tt := range []struct {
			key, path, kind, body string
			code                  int
		}{
			{aliceKey, audio, kind, form(`Content-Disposition: form-data; name="prompt"`), 200},
			{aliceKey, audio, kind, form(`Content-Disposition: form-data; name="model"`), 403},
			{aliceKey, audio, kind, form(`Content-Disposition: x; name="model"`), 400},
			{aliceKey, audio, kind, form("Content-Disposition: form-data; name=\"x\"\r\nContent-Disposition: form-data; name=\"model\""), 400},
			{bobKey, audio, kind, form(`Content-Disposition: x; name="prompt"`), 200},
			{bobKey, "/v1/chat/completions", "application/json", "\xef\xbb\xbf" + `{"model":"tiny","stream":true}`, 400},
			{bobKey, "/v1/chat/completions", "application/json", "{\x00}\x00", 400},
		} {
			if resp, body := r.mustPost(tt.path, tt.body, append(as(tt.key), "Content-Type", tt.kind)...); resp.StatusCode != tt.code {
				t.Errorf("%q: %d %s; want %d", tt.body, resp.StatusCode, body, tt.code)
			}
		}
	}, hello)
	inBubble(t, func(r *rig) { // without keys it is vLLM's part
		if resp, _ := r.mustPost("/v1/chat/completions", "\xef\xbb\xbf{}"); resp.StatusCode != 200 {
			t.Errorf("answered %d", resp.StatusCode)
		}
	}, hello)
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
