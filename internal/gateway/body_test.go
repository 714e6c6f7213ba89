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

// What is on its way stays until it is sent; then it is gone, and who asks for it is
// told so.
func TestReleaseOfABody(t *testing.T) {
	p := &payload{data: []byte("x"), room: &memory{}, held: 1}
	p.room.take(1)
	first, _ := p.body()
	p.release()
	if string(p.data) != "x" || p.room.used.Load() != 1 {
		t.Error("a body that is on its way was released")
	}
	if _, err := p.body(); err != errReleased {
		t.Errorf("%v; want %v", err, errReleased)
	}
	first.Close()
	first.Close()
	if p.data != nil || p.room.used.Load() != 0 || p.sending != 0 {
		t.Errorf("%q, %d bytes, on its way to %d: still kept", p.data, p.room.used.Load(), p.sending)
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
