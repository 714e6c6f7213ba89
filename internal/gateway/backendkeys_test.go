package gateway

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

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
