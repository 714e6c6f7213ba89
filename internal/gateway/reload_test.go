package gateway

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/limits"
	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// reload changes what holds.
func (r *rig) reload(change func(*Config)) {
	r.t.Helper()
	if err := r.g.Reload(r.changed(change)); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
}

func (r *rig) changed(change func(*Config)) Config {
	cfg := r.g.conf.Load().Config
	cfg.Backends = slices.Clone(cfg.Backends)
	change(&cfg)
	return cfg
}

// who gives the body of an answer.
func (r *rig) who(header ...string) string {
	r.t.Helper()
	_, body := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, header...)
	return body
}

// What runs goes on as it has begun; what comes then gets the new.
func TestReload(t *testing.T) {
	slow := sse(role, token("a"), time.Minute, token("b"), stop, done)
	inBubble(t, func(r *rig) {
		resp, err := r.post("/v1/chat/completions", ask)
		if err != nil {
			t.Fatal(err)
		}
		second := r.vllm("second:8000", named("second"))
		r.reload(func(c *Config) {
			c.Backends = []string{"http://" + second.addr}
			c.StreamIdleTimeout = time.Second // which the stream's silence is longer than
		})
		if got := r.who(); got != "second" {
			t.Errorf("answered by %q", got)
		}
		if _, states := r.health(); len(states) != 1 || states["second:8000"] != "up" {
			t.Errorf("/health: %v", states)
		}
		if body := r.read(resp); !strings.HasSuffix(body, token("b")+stop+done) {
			t.Errorf("the stream was changed: %q", body)
		}
		r.want(1, "gateway_config_last_reload_successful")
		// Its series go ten minutes later, with nobody asking.
		if r.want(0, "gateway_backend_up", "backend", "vllm-0:8000"); !r.has("gateway_backend_up", "vllm-0:8000") {
			t.Error("the series of what has gone are gone at once")
		}
		time.Sleep(11 * time.Minute)
		if r.has("gateway_backend_up", "vllm-0:8000") {
			t.Error("the series of what has gone stay")
		}
	}, slow)
}

// has reports whether a backend has a series.
func (r *rig) has(name, backend string) bool {
	families, _ := r.g.metrics.registry.Gather()
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name && holds(m, []string{"backend", backend}) {
				return true
			}
		}
	}
	return false
}

// A Config with something wrong changes nothing.
func TestReloadRefused(t *testing.T) {
	inBubbleWith(t, keyed(), func(r *rig) {
		before := r.g.conf.Load()
		for name, change := range map[string]func(*Config){
			"two mistakes": func(c *Config) { c.Backends, c.MaxBody = []string{"gopher://x"}, -1 },
			"no keys left": func(c *Config) { c.Callers = nil },
			"redis":        func(c *Config) { c.SharedLimits = &limits.Options{URL: "http://redis"} },
		} {
			err := r.g.Reload(r.changed(change))
			if err == nil {
				t.Fatalf("%s: taken", name)
			}
			r.g.ReloadFailed(err)
			r.want(0, "gateway_config_last_reload_successful")
			if r.g.conf.Load() != before || len(r.g.places) != 1 {
				t.Errorf("%s: something was changed", name)
			}
		}
		if log := r.logged(); strings.Count(log, `"msg":"configuration not reloaded; the one before holds"`) != 4 || !strings.Contains(log, "gopher") || !strings.Contains(log, "not opened to everybody") {
			t.Errorf("the log does not say what was wrong, a line for each: %s", log)
		}
		r.g.ReloadFailed(errors.New("no such file"))
		if !strings.Contains(r.logged(), "no such file") {
			t.Error("the log does not say what was wrong")
		}
		if resp, _ := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(aliceKey)...); resp.StatusCode != 200 {
			t.Errorf("answered %d", resp.StatusCode)
		}
		r.reload(func(*Config) {})
		r.want(1, "gateway_config_last_reload_successful")
	}, hello)
}

// Each part of a Config holds from the reload on.
func TestReloadEach(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.reload(func(c *Config) { c.Aliases = map[string]string{"nice": "tiny"} })
		if resp, _ := r.mustPost("/v1/chat/completions", `{"model":"nice"}`); resp.StatusCode != 200 {
			t.Errorf("alias: %d", resp.StatusCode)
		}
		r.reload(func(c *Config) { c.NoMetrics = true })
		if resp, _ := r.mustGet("/metrics"); resp.StatusCode != 200 {
			t.Errorf("/metrics, which stays where it was: %d", resp.StatusCode)
		}
		r.reload(func(c *Config) { c.MaxBody = 10 })
		if resp, _ := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`); resp.StatusCode != 413 {
			t.Errorf("largest body: %d", resp.StatusCode)
		}
		r.reload(func(c *Config) { c.MaxBody, c.BodyMemory = 1<<20, 1<<20 })
		if r.g.bodies.max.Load() != 1<<20 {
			t.Error("memory for bodies is as before")
		}
		r.reload(func(c *Config) { keyed()(c) })
		if resp, _ := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`); resp.StatusCode != 401 {
			t.Errorf("without a key: %d", resp.StatusCode)
		}
		r.reload(func(c *Config) {
			c.Callers = []Caller{{Name: "carol", Keys: []secret.Hash{secret.HashOf("vg-CAROL-OPENSESAME")}}}
		})
		for key, code := range map[string]int{aliceKey: 401, "vg-CAROL-OPENSESAME": 200} {
			if resp, _ := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`, as(key)...); resp.StatusCode != code {
				t.Errorf("%s: %d; want %d", key, resp.StatusCode, code)
			}
		}
		r.reload(func(c *Config) { c.FirstByteTimeout = time.Second })
		r.vllm("slow:8000", sse(role, hang))
		r.reload(func(c *Config) { c.Backends = []string{"http://slow:8000"} })
		if resp, _ := r.mustPost("/v1/chat/completions", ask, as("vg-CAROL-OPENSESAME")...); resp.StatusCode != 504 {
			t.Errorf("first byte: %d", resp.StatusCode)
		}
	}, hello)
}

// A cap that comes, goes, and comes: those that wait are let go, and nothing is
// counted twice.
func TestReloadCap(t *testing.T) {
	inBubble(t, func(r *rig) {
		var list ends
		list.send(r, "before the cap")
		r.reload(capped(1, 10))
		list.send(r, "waits")
		list.send(r, "waits too")
		r.want(2, "gateway_waiting_line")
		time.Sleep(500 * time.Millisecond)
		r.reload(capped(0, 10))
		r.want(0, "gateway_waiting_line")
		r.reload(capped(2, 10))
		list.send(r, "full again")
		r.want(1, "gateway_waiting_line")
		for _, e := range list.all() {
			if want := map[string]time.Duration{"before the cap": time.Second, "waits": 1500 * time.Millisecond, "waits too": 1500 * time.Millisecond, "full again": 2 * time.Second}[e.name]; e.code != 200 || e.after != want {
				t.Errorf("%s: %d after %v; want %v", e.name, e.code, e.after, want)
			}
		}
		if n := len(r.g.pool.running); n != 0 {
			t.Errorf("%d callers have something running", n)
		}
	}, aSecond)
}

// A weight holds for what is there already, and a backend that changes its scheme or
// its source is another one. Nobody is refused meanwhile.
func TestReloadPlaces(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.vllm("10.0.0.1:8000", named("one"))
		r.vllm("10.0.0.2:8000", named("two"))
		r.dns.set("vllm.test.", "10.0.0.1")
		for _, backends := range [][]string{
			{"dns+http://vllm.test.:8000"},
			{"http://10.0.0.1:8000"},
			{"dns+http://vllm.test.:8000", "http://10.0.0.1:8000"},
			{"http://10.0.0.1:8000"},
			{"http://10.0.0.2:8000", "http://10.0.0.1:8000"},
			{"http://10.0.0.2:8000"},
			{"dns+http://vllm.test.:8000"},
		} {
			r.reload(func(c *Config) { c.Backends = backends })
			resp, body := r.mustPost("/v1/chat/completions", ask)
			if resp.StatusCode != 200 || len(backends) == 1 && body == "two" != (backends[0] == "http://10.0.0.2:8000") {
				t.Errorf("%v: %d, by %q", backends, resp.StatusCode, body)
			}
			if _, states := r.health(); len(states) != len(backends) && len(backends) == 1 {
				t.Errorf("%v: %v", backends, states)
			}
		}
		r.reload(func(c *Config) { c.Backends = []string{"https://10.0.0.1:8000"} })
		if _, states := r.health(); len(states) != 1 {
			t.Errorf("another scheme: %v", states)
		}
		if b := r.g.pool.all(); len(b) != 1 || b[0].url.Scheme != "https" {
			t.Errorf("another scheme: %v", b[0].url)
		}
		r.reload(func(c *Config) { c.Backends = []string{"http://10.0.0.1:8000", "http://10.0.0.2:8000"} })
		time.Sleep(2 * time.Second)
		r.reload(func(c *Config) {
			c.Weights, c.Routing = map[string]int{"http://10.0.0.1:8000": 3}, RoundRobin
		})
		var one int
		for range 40 {
			if r.who() == "one" {
				one++
			}
		}
		if one != 30 {
			t.Errorf("of 40 requests %d went to the backend of weight 3", one)
		}
		r.reload(func(c *Config) { c.Backends, c.Weights = []string{"dns+http://vllm.test.:8000"}, nil })
		r.reload(func(c *Config) { c.Weights = map[string]int{c.Backends[0]: 5} })
		if b := r.g.pool.all(); len(b) != 1 || b[0].weight != 5 {
			t.Errorf("what DNS has found keeps its weight: %+v", b)
		}
	}, hello)
}

// Those that wait for a backend when it is taken away get another; or are told, if
// there is none for them.
func TestReloadMovesTheLine(t *testing.T) {
	inBubbleWith(t, capped(1, 10), func(r *rig) {
		var list ends
		list.send(r, "runs")
		list.send(r, "waits")
		second := r.vllm("second:8000", named("second"))
		second.models = []string{"tiny"}
		r.reload(func(c *Config) { c.Backends = []string{"http://second:8000"} })
		for _, e := range list.all() {
			if want := map[string]string{"runs": "x", "waits": "second"}[e.name]; e.code != 200 || e.body != want {
				t.Errorf("%s: %d %q; want %q", e.name, e.code, e.body, want)
			}
		}
	}, aSecond)
}

func TestReloadAfterDrain(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.g.Drain(r.t.Context())
		if err := r.g.Reload(r.changed(func(c *Config) { c.Backends = []string{"dns+http://vllm.test.:8000"} })); !errors.Is(err, errEnded) {
			t.Errorf("a gateway that has ended takes a Config: %v", err)
		}
	}, hello)
}

// A thousand reloads beneath two hundred streams, with backends that come and go:
// every stream is whole, and nothing is left of it all. (In a bubble, a goroutine
// that is left fails the test.)
func TestReloadUnderStreams(t *testing.T) {
	var steps []any
	steps = append(steps, role)
	whole := role
	for i := range 20 {
		text := token(fmt.Sprint(i, " "))
		steps, whole = append(steps, text, time.Second), whole+text
	}
	steps, whole = append(steps, stop, done), whole+stop+done
	stream := sse(steps...)
	inBubbleWith(t, keyed(), func(r *rig) {
		r.vllm("10.0.0.1:8000", stream)
		r.dns.set("vllm.test.", "10.0.0.1")
		const streams = 200
		bodies := make(chan string, streams)
		for i := range streams {
			go func() {
				time.Sleep(time.Duration(i) * 20 * time.Millisecond)
				resp, err := r.post("/v1/chat/completions", ask, as(aliceKey)...)
				if err != nil {
					bodies <- err.Error()
					return
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				bodies <- string(body)
			}()
		}
		always := r.g.conf.Load().Backends[0]
		for i := range 1000 {
			cfg := r.changed(func(c *Config) {
				c.Backends = [][]string{{always}, {always, "dns+http://vllm.test.:8000"}, {"dns+http://vllm.test.:8000"}, {"http://10.0.0.1:8000", always}}[i%4]
				c.MaxInFlight, c.MaxWaiting = []int{0, 500, 150}[i%3], 1000
				c.Callers[1].Keys = []secret.Hash{secret.HashOf(fmt.Sprint("vg-BOB-OPENSESAME-", i))}
			})
			if i%10 == 9 {
				cfg.Backends = nil
			}
			if err := r.g.Reload(cfg); (err != nil) != (i%10 == 9) {
				t.Fatalf("reload %d: %v", i, err)
			}
			time.Sleep(25 * time.Millisecond)
		}
		for i := range streams {
			if body := <-bodies; body != whole {
				t.Fatalf("stream %d was changed: %q", i, body)
			}
		}
		r.want(streams, "gateway_requests_total", "outcome", "ok")
		if n := r.metric("gateway_requests_total"); n != streams {
			t.Errorf("%v requests", n)
		}
		r.reload(func(c *Config) { c.Backends = []string{always} })
		time.Sleep(11 * time.Minute)
		if n := r.kept(); n != 1 {
			t.Errorf("%d backends are remembered", n)
		}
	}, stream)
}

// A backend that two places have named stays when one of them is taken out.
func TestReloadOneOfTwoNames(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.vllm("10.0.0.1:8000", named("one"))
		r.dns.set("vllm.test.", "10.0.0.1")
		for _, backends := range [][]string{
			{"http://10.0.0.1:8000", "dns+http://vllm.test.:8000"},
			{"dns+http://vllm.test.:8000"},
		} {
			r.reload(func(c *Config) { c.Backends = backends })
			if resp, body := r.mustPost("/v1/chat/completions", `{"model":"tiny"}`); resp.StatusCode != 200 || body != "one" {
				t.Errorf("%v: %d %s", backends, resp.StatusCode, body)
			}
		}
	}, hello)
}

// A request that began just before a reload, and is counted just behind it, is one of
// those that its caller has running.
func TestReloadKeepsCounting(t *testing.T) {
	var cfg Config
	keyed()(&cfg)
	before := &settings{callers: newCallers(cfg.Callers, nil)}
	now := newCallers(cfg.Callers, before)
	who(before.callers, aliceKey).running.Add(1)
	if n := who(now, aliceKey).running.Load(); n != 1 {
		t.Errorf("alice has %d running; want 1", n)
	}
	if n := who(now, bobKey).running.Load(); n != 0 {
		t.Errorf("bob has %d running; want 0", n)
	}
}

// who gives the caller whose key it is.
func who(all *callers, key string) *caller {
	c, _ := all.find(key)
	return c
}
