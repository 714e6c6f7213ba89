package gateway

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

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
