package gateway

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func ofModel(m string) string { return `{"model":"` + m + `","stream":false}` }

// twoModels has the first backend serve small, the second large, the third both.
func (r *rig) twoModels() {
	for i, models := range [][]string{{"small"}, {"large"}, {"small", "large"}}[:len(r.backends)] {
		r.backends[i].set(func(b *fakeVLLM) { b.models = models })
	}
	time.Sleep(6 * time.Second)
}

// One gateway fronts several models: each request goes where its model is.
func TestModelsAreRouted(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.twoModels()
		count := map[string]int{}
		for range 20 {
			for _, m := range []string{"small", "large"} {
				resp, body := r.mustPost("/v1/chat/completions", ofModel(m))
				if resp.StatusCode != 200 {
					t.Errorf("%s: %d %s", m, resp.StatusCode, body)
				}
				count[m+" by "+body]++
			}
		}
		if count["small by second"]+count["large by first"] > 0 || count["small by first"] < 10 || count["large by second"] < 10 {
			t.Errorf("answers: %v", count)
		}
		if _, body := r.mustPost("/v1/chat/completions", `{}`); body == "" {
			t.Error("a request without a model is anybody's")
		}
	}, named("first"), named("second"), named("both"))
}

// A model that nobody has is refused as vLLM does, with the list of what there is;
// no backend is asked for it.
func TestUnknownModel(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.Aliases = map[string]string{"gpt-4": "small", "gpt-9": "nothing"} }, func(r *rig) {
		r.twoModels()
		resp, body := r.mustPost("/v1/chat/completions", ofModel("huge"))
		var got struct {
			Error struct {
				Message, Type, Param string
				Code                 int
			}
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || resp.StatusCode != 404 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		e := got.Error
		if e.Message != "The model `huge` does not exist. Valid aliases: gpt-4, large, small." || e.Type != "NotFoundError" || e.Param != "model" || e.Code != 404 {
			t.Errorf("%+v", e)
		}
		if resp, body := r.mustPost("/v1/chat/completions", ofModel("gpt-9")); resp.StatusCode != 404 || !strings.Contains(body, "`gpt-9`") {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		for _, path := range []string{"/v1/messages", "/v1/messages/count_tokens"} {
			want := `{"type":"error","error":{"type":"NotFoundError","message":"The model ` + "`huge`" + ` does not exist. Valid aliases: gpt-4, large, small."}}`
			if resp, body := r.mustPost(path, ofModel("huge")); resp.StatusCode != 404 || body != want {
				t.Errorf("%s: %d %s", path, resp.StatusCode, body)
			}
		}
		for _, b := range r.backends {
			if n := len(b.requests()); n > 0 {
				t.Errorf("%s got %d requests", b.addr, n)
			}
		}
		r.want(4, "gateway_requests_total", "model", "other", "status", "4xx", "outcome", "client_error")
	}, named("x"), named("y"))
}

// An adapter can be used as soon as it is loaded; who asks for what is not there
// does not make the backends list their models over and over.
func TestModelsAreLookedUpAgain(t *testing.T) {
	inBubble(t, func(r *rig) {
		time.Sleep(1500 * time.Millisecond) // between two probes
		r.backends[1].set(func(b *fakeVLLM) { b.models = []string{"tiny", "adapter"} })
		if resp, body := r.mustPost("/v1/chat/completions", ofModel("adapter")); resp.StatusCode != 200 || body != "y" {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		before := r.backends[0].lists()
		for range 100 {
			if resp, _ := r.mustPost("/v1/chat/completions", ofModel("none")); resp.StatusCode != 404 {
				t.Errorf("status %d", resp.StatusCode)
			}
		}
		if n := r.backends[0].lists() - before; n > 1 {
			t.Errorf("a hundred wrong requests had the models listed %d times", n)
		}
	}, named("x"), named("y"))
}

// Not for its neighbour's typo of a moment ago is an adapter refused, and its first
// request is counted by its name.
func TestAdapterJustLoaded(t *testing.T) {
	inBubble(t, func(r *rig) {
		time.Sleep(2 * time.Second)
		r.mustPost("/v1/chat/completions", ofModel("typo"))
		time.Sleep(200 * time.Millisecond)
		r.backends[0].set(func(b *fakeVLLM) { b.models = []string{"tiny", "lora"} })
		if resp, body := r.mustPost("/v1/chat/completions", ofModel("lora")); resp.StatusCode != 200 {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		r.want(1, "gateway_requests_total", "model", "lora")
	}, named("x"))
}

// A WebSocket's model is in its query, and may be an alias, or nobody's.
func TestRealtimeModel(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.Aliases = map[string]string{"gpt": "tiny"} }, func(r *rig) {
		for model, want := range map[string]string{"gpt": "418 ", "nobody": "404 "} {
			conn, in := r.dialRaw()
			io.WriteString(conn, "GET /v1/realtime?model="+model+"&x=1 HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			line, _ := in.ReadString('\n')
			if !strings.HasPrefix(line, "HTTP/1.1 "+want) {
				t.Errorf("%s: %q; want %s", model, line, want)
			}
			conn.Close()
		}
		if got := r.backends[0].requests(); len(got) != 1 || got[0].uri != "/v1/realtime?model=tiny&x=1" {
			t.Errorf("the backend got %+v", got)
		}
	}, status(418))
}

// Only where an answer is stored does it say where to go.
func TestPreviousIsOfResponses(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.mustPost("/v1/responses", ofModel("tiny"))
		for range 10 {
			r.mustPost("/v1/chat/completions", `{"model":"tiny","previous_response_id":"resp_1"}`)
		}
		if n := len(r.backends[1].requests()); n < 5 {
			t.Errorf("the second backend got %d of 11 requests", n)
		}
	}, answer200("application/json", `{"id":"resp_1"}`), answer200("application/json", `{"id":"resp_2"}`))
}

// A backend that does not list its models may have any.
func TestModelsNotListed(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.Backends = append(c.Backends, "http://mute:8000") }, func(r *rig) {
		b := r.vllm("mute:8000", named("mute"))
		b.set(func(b *fakeVLLM) { b.mute = true })
		time.Sleep(6 * time.Second)
		for range 3 {
			if resp, body := r.mustPost("/v1/chat/completions", ofModel("secret")); resp.StatusCode != 200 || body != "mute" {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if _, body := r.mustPost("/v1/chat/completions", ofModel("tiny")); body != "open" { // who lists it has it
				t.Errorf("answered by %s", body)
			}
		}
	}, named("open"))
}

// An alias is the model's other name: the backend reads the model's own, byte for
// byte otherwise, and clients find the alias in the list.
func TestAlias(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.Aliases = map[string]string{"gpt-4o": "tiny", "gpt-9": "nothing"} }, func(r *rig) {
		r.mustPost("/v1/chat/completions", `{ "messages": [], "model" : "gpt-4o" , "x":1}`)
		r.mustPost("/v1/chat/completions", `{"model":"gpt-4o","stream":true}`)
		form := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\ngpt-4o\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-4o\r\n--b--\r\n"
		r.mustPost("/v1/audio/transcriptions", form, "Content-Type", "multipart/form-data; boundary=b")
		var bodies []string
		for _, got := range r.backends[0].requests() {
			bodies = append(bodies, got.body)
		}
		want := []string{
			`{ "messages": [], "model" : "tiny" , "x":1}`,
			`{"stream_options":{"include_usage":true},"model":"tiny","stream":true}`,
			strings.Replace(form, "\r\n\r\ngpt-4o\r\n--b--", "\r\n\r\ntiny\r\n--b--", 1),
		}
		for i := range want {
			if bodies[i] != want[i] {
				t.Errorf("the backend got %q\nwant %q", bodies[i], want[i])
			}
		}
		_, list := r.mustGet("/v1/models")
		if want := `{"object":"list","data":[{"id":"tiny","object":"model"},{"id":"gpt-4o","object":"model","owned_by":"vllm-gateway","root":"tiny"}]}`; list != want {
			t.Errorf("models: %s", list)
		}
		r.want(3, "gateway_requests_total", "model", "tiny")
	}, answer200("application/json", `{}`))
}

// While no backend of a model is up, its fallback answers; then it does again.
func TestFallback(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.Fallbacks = map[string]string{"large": "small"} }, func(r *rig) {
		r.twoModels()
		post := func() (by, read string) {
			_, by = r.mustPost("/v1/chat/completions", ofModel("large"))
			for _, b := range r.backends {
				if got := b.requests(); len(got) > 0 {
					read = got[len(got)-1].body
				}
			}
			return by, read
		}
		if by, _ := post(); by != "large" {
			t.Errorf("answered by %s", by)
		}
		r.backends[1].set(func(b *fakeVLLM) { b.sick = true })
		time.Sleep(6 * time.Second)
		if by, _ := post(); by != "small" {
			t.Errorf("answered by %s", by)
		}
		if got := r.backends[0].requests()[0].body; got != ofModel("small") {
			t.Errorf("the fallback read %s", got)
		}
		r.backends[0].set(func(b *fakeVLLM) { b.sick = true })
		time.Sleep(6 * time.Second)
		if by, _ := post(); by != "large" { // where neither is up, what was asked for is tried
			t.Errorf("answered by %s", by)
		}
		r.backends[1].set(func(b *fakeVLLM) { b.sick = false })
		time.Sleep(6 * time.Second)
		if by, _ := post(); by != "large" {
			t.Errorf("answered by %s", by)
		}
	}, named("small"), named("large"))
}

// What vLLM keeps of an answer is on one server: whoever asks for it, and whoever
// goes on from it, gets there, by whichever gateway.
func TestResponsesComeHome(t *testing.T) {
	store := func(name string, stored map[string]bool) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if req.Method == "POST" && req.URL.Path == "/v1/responses" {
				id := "resp_" + name
				stored[id] = true
				answer200("application/json", `{"id":"`+id+`","object":"response","by":"`+name+`"}`)(w, req)
				return
			}
			id := strings.TrimSuffix(strings.TrimPrefix(req.URL.Path, "/v1/responses/"), "/cancel")
			if !stored[id] {
				status(404)(w, req)
				return
			}
			answer200("application/json", `{"id":"`+id+`","by":"`+name+`"}`)(w, req)
		}
	}
	inBubble(t, func(r *rig) {
		for range 3 {
			r.mustPost("/v1/responses", ofModel("tiny"))
		}
		check := func(when string) {
			for _, name := range []string{"a", "b", "c"} {
				for range 3 {
					if resp, body := r.mustGet("/v1/responses/resp_" + name); resp.StatusCode != 200 || !strings.Contains(body, `"by":"`+name) {
						t.Errorf("%s: GET %s: %d %s", when, name, resp.StatusCode, body)
					}
				}
				if resp, body := r.mustPost("/v1/responses/resp_"+name+"/cancel", ""); resp.StatusCode != 200 || !strings.Contains(body, `"by":"`+name) {
					t.Errorf("%s: cancel %s: %d %s", when, name, resp.StatusCode, body)
				}
				if _, body := r.mustPost("/v1/responses", `{"model":"tiny","previous_response_id":"resp_`+name+`"}`); !strings.Contains(body, `"by":"`+name) {
					t.Errorf("%s: on from %s: %s", when, name, body)
				}
			}
			if resp, _ := r.mustGet("/v1/responses/resp_x"); resp.StatusCode != 404 {
				t.Errorf("%s: one that nobody has: %d", when, resp.StatusCode)
			}
		}
		check("remembered")
		if n := len(r.backends[0].requests()); n > 15 {
			t.Errorf("one backend got %d requests: they are asked though the home is known", n)
		}
		r.g.pool.homes = homes{} // as after a restart, or at another gateway
		check("asked for")
	}, store("a", map[string]bool{}), store("b", map[string]bool{}), store("c", map[string]bool{}))
}

// The ids that are remembered are bounded, and the oldest go first.
func TestHomesAreBounded(t *testing.T) {
	var h homes
	b := &backend{}
	for i := range 3 * maxHomes {
		h.put(string(rune(i)), b)
	}
	h.put(string(rune(3*maxHomes-1)), b)
	if len(h.of) != maxHomes || len(h.order) != maxHomes || h.of[string(rune(2*maxHomes-1))] != nil || h.of[string(rune(2*maxHomes))] != b {
		t.Errorf("%d ids, %d in order", len(h.of), len(h.order))
	}
}
