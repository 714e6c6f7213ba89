package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A stream that waits is told to its client by comments, if that is wanted: then
// its head goes out first, and what fails later is told in the stream.
func TestComments(t *testing.T) {
	const comment = ": waiting\n\n"
	for name, tt := range map[string]struct {
		backend http.HandlerFunc
		body    string
		want    string
	}{
		"a stream":               {sse(headers, role, 35*time.Second, token("a"), stop, done), ask, comment + comment + comment + role + token("a") + stop + done},
		"a quick one":            {sse(headers, role, 5*time.Second, token("a"), stop, done), ask, role + token("a") + stop + done},
		"a refusal":              {late(15*time.Second, status(404)), ask, comment + `data: {"error":{"message":"from the backend","type":"NotFoundError","param":null,"code":404}}` + "\n\n"},
		"an answer of its own":   {answer200("application/json", 15*time.Second, "{}"), ask, comment + `data: {"error":{"message":"The model server did not answer with a stream.","type":"BadGatewayError","param":null,"code":502}}` + "\n\n"},
		"no stream":              {answer200("application/json", 35*time.Second, `{"x":1}`), `{"model":"tiny"}`, `{"x":1}`},
		"cut before its token":   {sse(headers, role, 15*time.Second, abort), ask, comment + `data: {"error":{"message":"The model server broke the connection before it answered.","type":"BadGatewayError","param":null,"code":502}}` + "\n\n"},
		"the engine's own error": {sse(headers, 15*time.Second, "data: {\"error\":{\"message\":\"full\",\"type\":\"X\",\"param\":\"p\",\"code\":503}}\n\n"), ask, comment + `data: {"error":{"message":"full","type":"X","param":"p","code":503}}` + "\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbleWith(t, func(c *Config) { c.CommentEvery = 10 * time.Second }, func(r *rig) {
				resp, err := r.post("/v1/chat/completions", tt.body)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				if string(body) != tt.want || resp.StatusCode != 200 {
					t.Errorf("%d %q\nwant %q", resp.StatusCode, body, tt.want)
				}
				if strings.Contains(tt.want, ":") && !strings.HasPrefix(resp.Header.Get("Content-Type"), map[bool]string{true: "text/event-stream", false: "application/json"}[strings.Contains(tt.want, "data:")]) {
					t.Errorf("Content-Type %s", resp.Header.Get("Content-Type"))
				}
			}, tt.backend)
		})
	}
}

// late answers after some time.
func late(d time.Duration, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		play(w, req, []any{d})
		h(w, req)
	}
}

// What was no stream has failed, whatever its status.
func TestNoStreamIsCounted(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.CommentEvery = time.Second }, func(r *rig) {
		r.mustPost("/v1/chat/completions", ask)
		r.want(1, "gateway_requests_total", "outcome", "backend_error", "status", "2xx")
	}, answer200("application/json", 3*time.Second, `{"x":1}`))
}

// While it waits in line, too; and a client that reads nothing holds nobody up.
func TestCommentsInLine(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.CommentEvery, c.MaxInFlight, c.MaxWaiting = 10*time.Second, 1, 10 }, func(r *rig) {
		var all ends
		all.send(r, "runs")
		_, body := r.mustPost("/v1/chat/completions", ask)
		if n := strings.Count(body, ": waiting\n\n"); n != 5 || !strings.HasSuffix(body, done) { // it runs for 30 s; then the other does
			t.Errorf("%d comments in %q", n, body)
		}
		all.all()
	}, sse(headers, 29*time.Second, role, token("a"), stop, time.Second, done))
}
