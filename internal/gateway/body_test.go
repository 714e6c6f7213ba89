package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Bodies share a bounded memory. Who finds none is refused, and told to come again;
// what is given back is there for the next.
func TestMemoryForBodies(t *testing.T) {
	inBubbleWith(t, func(c *Config) { c.BodyMemory = 9 << 19 }, func(r *rig) {
		big := `{"model":"tiny","prompt":"` + strings.Repeat("x", 1<<20-100) + `"}`
		var all ends
		codes := make(chan string, 10)
		for range 6 {
			go func() {
				resp, body := r.mustPost("/v1/completions", big)
				codes <- fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Retry-After"), " ", body)
			}()
		}
		time.Sleep(time.Second)
		small, _ := r.post("/v1/completions", `{"model":"tiny"}`)
		small.Body.Close()
		refused := 0
		for range 6 {
			if c := <-codes; strings.HasPrefix(c, "503 1 ") && strings.Contains(c, "Too many large requests") {
				refused++
			} else if !strings.HasPrefix(c, "200") {
				t.Errorf("answer: %s", c)
			}
		}
		if refused < 2 || refused > 3 {
			t.Errorf("%d of six requests of 1 MiB were refused at 4.5 MiB", refused)
		}
		r.want(float64(refused), "gateway_refused_requests_total", "reason", noMemory)
		for range 20 {
			if resp, _ := r.mustPost("/v1/completions", big); resp.StatusCode != 200 {
				t.Errorf("status %d when nothing runs", resp.StatusCode)
			}
		}
		all.all()
	}, answer200("text/plain", 10*time.Second, "x"))
}

// Who still reads a body that is gone is told so.
func TestReadingAReleasedBody(t *testing.T) {
	p := &payload{data: []byte("x"), room: &memory{}}
	r := p.reader()
	p.drop()
	if n, err := r.Read(make([]byte, 10)); n != 0 || err != errReleased {
		t.Errorf("%d, %v; want %v", n, err, errReleased)
	}
}

// The memory is given back however a request ends.
func TestMemoryIsGivenBack(t *testing.T) {
	var n atomic.Int32
	inBubbleWith(t, func(c *Config) { c.BodyMemory = 8 << 20 }, func(r *rig) {
		for range 50 {
			resp, err := r.post("/v1/chat/completions", ask)
			if err == nil {
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}
		r.post("/v1/chat/completions", strings.Repeat("x", 2<<20))
		r.mustGet("/v1/models")
		time.Sleep(time.Minute)
		if used := r.g.bodies.used.Load(); used != 0 {
			t.Errorf("%d bytes are still taken", used)
		}
	}, func(w http.ResponseWriter, req *http.Request) {
		scripts := []http.HandlerFunc{sse(role, token("a"), stop, done), sse(abort), sse(role, token("a"), abort), status(503), status(404), named("x")}
		scripts[int(n.Add(1))%len(scripts)](w, req)
	})
}
