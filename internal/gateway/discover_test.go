package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// byDNS has the gateway look its backends up, and the test set the records.
func byDNS(source string) func(*Config) {
	return func(c *Config) { c.Backends = []string{source} }
}

// health gives the states of all backends.
func (r *rig) health() (status string, states map[string]string) {
	_, body := r.mustGet("/health")
	var h struct {
		Status   string
		Backends []struct{ Backend, State string }
	}
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		r.t.Fatalf("%v in %s", err, body)
	}
	states = map[string]string{}
	for _, b := range h.Backends {
		states[b.Backend] = b.State
	}
	return h.Status, states
}

// Backends come and go with the name's addresses; what runs on one that has gone
// goes on.
func TestBackendsByDNS(t *testing.T) {
	inBubbleWith(t, byDNS("dns+http://vllm.test.:8000"), func(r *rig) {
		if resp, body := r.mustPost("/v1/chat/completions", ask); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("without a backend: %d %s", resp.StatusCode, body)
		}
		if status, states := r.health(); status != "unavailable" || len(states) != 0 {
			t.Errorf("/health without a backend: %s %v", status, states)
		}
		slow := sse(role, token("a"), time.Minute, stop, done)
		r.vllm("10.0.0.1:8000", slow)
		r.vllm("10.0.0.2:8000", slow)
		r.dns.set("vllm.test.", "10.0.0.1", "10.0.0.2")
		time.Sleep(6 * time.Second)
		if status, states := r.health(); status != "ok" || len(states) != 2 || states["10.0.0.2:8000"] != "up" {
			t.Errorf("/health: %s %v", status, states)
		}
		bodies := make(chan string)
		for range 4 {
			go func() {
				_, body := r.mustPost("/v1/chat/completions", ask)
				bodies <- body
			}()
		}
		r.want(2, "gateway_backend_in_flight", "backend", "10.0.0.1:8000")
		r.want(2, "gateway_backend_in_flight", "backend", "10.0.0.2:8000")

		r.vllm("[fd00::3]:8000", named("third"))
		r.dns.set("vllm.test.", "10.0.0.2", "fd00::3")
		time.Sleep(6 * time.Second)
		if _, states := r.health(); len(states) != 2 || states["[fd00::3]:8000"] != "up" {
			t.Errorf("/health: %v", states)
		}
		for range 10 { // the first is no longer asked, and the third has the least
			if _, body := r.mustPost("/v1/chat/completions", ask); body != "third" {
				t.Errorf("answered by %q", body)
			}
		}
		for range 4 {
			if body := <-bodies; !strings.HasSuffix(body, done) {
				t.Errorf("a stream ended with %q", body)
			}
		}
	})
}

// A look that brings nothing changes nothing: neither a server that fails, nor a
// name that is gone for a moment.
func TestDNSFails(t *testing.T) {
	inBubbleWith(t, byDNS("dns+http://vllm.test.:8000"), func(r *rig) {
		r.vllm("10.0.0.1:8000", named("x"))
		r.dns.set("vllm.test.", "10.0.0.1")
		time.Sleep(6 * time.Second)
		for _, trouble := range []func(){func() { r.dns.fail(true) }, func() { r.dns.fail(false); r.dns.set("vllm.test.") }} {
			trouble()
			time.Sleep(time.Minute)
			if resp, body := r.mustPost("/v1/chat/completions", ask); resp.StatusCode != 200 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		}
		if n := strings.Count(r.logged(), "backends not found"); n != 2 { // before the first record, and since
			t.Errorf("the log says %d times that nothing was found", n)
		}
		r.dns.set("vllm.test.", "10.0.0.1")
		time.Sleep(6 * time.Second)
		if log := r.logged(); !strings.Contains(log, "backends found again") {
			t.Error("the log does not say that they are found again")
		}
	})
}

// SRV records bring the port, and shares.
func TestBackendsBySRV(t *testing.T) {
	inBubbleWith(t, byDNS("srv+http://_http._tcp.vllm.test."), func(r *rig) {
		r.vllm("vllm-0.vllm.test:8001", named("0"))
		r.vllm("vllm-1.vllm.test:8002", named("1"))
		r.dns.setSRV("_http._tcp.vllm.test.",
			net.SRV{Target: "vllm-0.vllm.test.", Port: 8001, Weight: 1},
			net.SRV{Target: "vllm-1.vllm.test.", Port: 8002, Weight: 3})
		time.Sleep(6 * time.Second)
		count := map[string]int{}
		for range 40 {
			_, body := r.mustPost("/v1/chat/completions", ask)
			count[body]++
		}
		if count["0"] != 10 || count["1"] != 30 {
			t.Errorf("answers by backend: %v; want 10 and 30", count)
		}
		r.want(1, "gateway_backend_up", "backend", "vllm-1.vllm.test:8002")
	})
}

// In a rollout the old servers may be gone from DNS before the new ones have listed
// their models, if ever they do.
func TestRolloutByDNS(t *testing.T) {
	for _, mute := range []bool{false, true} {
		inBubbleWith(t, func(c *Config) {
			byDNS("dns+http://vllm.test.:8000")(c)
			capped(1, 10)(c)
		}, func(r *rig) {
			r.vllm("10.0.0.1:8000", late(time.Minute, named("old")))
			r.dns.set("vllm.test.", "10.0.0.1")
			time.Sleep(6 * time.Second)
			var all ends
			all.send(r, "runs")
			all.send(r, "waits")
			r.vllm("10.0.0.2:8000", named("new")).set(func(b *fakeVLLM) { b.mute = mute })
			r.dns.set("vllm.test.", "10.0.0.2")
			time.Sleep(6 * time.Second)
			if resp, body := r.mustPost("/v1/chat/completions", ask); resp.StatusCode != 200 || body != "new" {
				t.Errorf("mute %v: %d %s", mute, resp.StatusCode, body)
			}
			if list := all.all(); list[0].body != "new" || list[1].body != "old" {
				t.Errorf("mute %v: %+v", mute, list)
			}
		})
	}
}

// An address that comes again may be another server, of another name.
func TestAddressesChangeHands(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.Backends = []string{"dns+http://a.test.:8000", "dns+http://b.test.:8000"} }, func(r *rig) {
		r.vllm("10.0.0.1:8000", named("x"))
		r.vllm("10.0.0.2:8000", named("y"))
		r.dns.set("a.test.", "10.0.0.1")
		r.dns.set("b.test.", "10.0.0.2")
		time.Sleep(12 * time.Second)
		r.dns.set("a.test.", "10.0.0.2")
		r.dns.set("b.test.", "10.0.0.1")
		time.Sleep(30 * time.Second)
		for _, b := range r.g.pool.all() {
			if want := map[string]string{"10.0.0.1:8000": "b.test:8000", "10.0.0.2:8000": "a.test:8000"}[b.name]; b.host != want {
				t.Errorf("%s is called %s; want %s", b.name, b.host, want)
			}
		}
		if len(r.g.pool.backends) != 2 {
			t.Errorf("%d backends are kept", len(r.g.pool.backends))
		}
		r.mustPost("/v1/chat/completions", ask)
		r.want(1, "gateway_requests_total", "outcome", "ok")
	})
}

// A cluster gives each pod an address of its own: series of those that have gone
// do not pile up, and an address that comes again counts on.
func TestSeriesOfGoneBackends(t *testing.T) {
	inBubbleWith(t, byDNS("dns+http://vllm.test.:8000"), func(r *rig) {
		for i := range 30 {
			addr := fmt.Sprintf("10.0.0.%d", i)
			b := r.vllm(addr+":8000", named(addr))
			r.dns.set("vllm.test.", addr)
			time.Sleep(6 * time.Second)
			if _, body := r.mustPost("/v1/chat/completions", ask); body != addr {
				t.Errorf("%s: answered by %q", addr, body)
			}
			time.Sleep(time.Minute)
			b.stop()
		}
		if log := r.logged(); strings.Count(log, `"msg":"backend is no longer named"`) != 29 {
			t.Error("the log does not tell of each that goes")
		}
		r.want(1, "gateway_request_duration_seconds_count", "backend", "10.0.0.29:8000")
		r.want(1, "gateway_request_duration_seconds_count", "backend", "10.0.0.25:8000") // gone, and not for long
		r.want(0, "gateway_request_duration_seconds_count", "backend", "10.0.0.5:8000")
		series := 0
		for line := range strings.Lines(r.scrape()) {
			if strings.Contains(line, `backend="10.0.0.5:8000"`) {
				series++
			}
		}
		r.g.pool.mu.Lock()
		kept := len(r.g.pool.backends)
		r.g.pool.mu.Unlock()
		if series > 0 || kept > 12 {
			t.Errorf("%d series of one that is long gone, %d backends kept", series, kept)
		}
		r.dns.set("vllm.test.", "10.0.0.28")
		time.Sleep(6 * time.Second)
		r.vllm("10.0.0.28:8000", named("again"))
		time.Sleep(6 * time.Second)
		if _, body := r.mustPost("/v1/chat/completions", ask); body != "again" {
			t.Errorf("answered by %q", body)
		}
		r.want(2, "gateway_request_duration_seconds_count", "backend", "10.0.0.28:8000")
	})
}

func (r *rig) scrape() string {
	_, body := r.mustGet("/metrics")
	return body
}

// The name in the Host header, and in the certificate, is the one that was given;
// see source_test.go for the rest of what a name may bring.
func TestHostOfANamedBackend(t *testing.T) {
	inBubbleWith(t, byDNS("dns+http://vllm.test.:8000"), func(r *rig) {
		hosts := make(chan string, 1)
		r.vllm("10.0.0.1:8000", func(w http.ResponseWriter, req *http.Request) {
			hosts <- req.Host
			io.WriteString(w, "x")
		})
		r.dns.set("vllm.test.", "10.0.0.1")
		time.Sleep(6 * time.Second)
		r.mustPost("/v1/chat/completions", ask)
		if host := <-hosts; host != "vllm.test:8000" {
			t.Errorf("Host: %s", host)
		}
	})
}

// One backend that two sources name is one backend.
func TestNamedByTwoSources(t *testing.T) {
	inBubbleWith(t, func(c *Config) {
		c.Backends = []string{"http://10.0.0.1:8000", "dns+http://vllm.test.:8000"}
		c.Weights = map[string]int{"dns+http://vllm.test.:8000": 5}
	}, func(r *rig) {
		r.vllm("10.0.0.1:8000", named("1"))
		r.vllm("10.0.0.2:8000", named("2"))
		r.dns.set("vllm.test.", "10.0.0.1", "10.0.0.2")
		time.Sleep(6 * time.Second)
		if _, states := r.health(); len(states) != 2 {
			t.Errorf("/health: %v", states)
		}
		for i, b := range r.g.pool.all() {
			if want := []int{1, 5}[i]; b.weight != want {
				t.Errorf("%s has the weight %d; want %d", b.name, b.weight, want)
			}
		}
		r.dns.set("vllm.test.", "10.0.0.2")
		time.Sleep(6 * time.Second)
		if _, states := r.health(); len(states) != 2 {
			t.Errorf("/health: %v; the first is named by its address", states)
		}
	})
}
