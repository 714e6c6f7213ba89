//go:build reliability

package reliability

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// bare is a backend on bare TCP, for what no HTTP server would do.
type bare struct {
	addr string
	// asked counts the requests that came, probes left out.
	asked atomic.Int64
	// deaf: probes are not answered either.
	deaf bool
	// accepted, if it is set, has a connection before anything is read of it, and
	// reports whether it shall be.
	accepted func(c *net.TCPConn) bool
	// serve has a request that has arrived whole, and reports whether the
	// connection shall go on.
	serve func(c *call) bool
}

// call is a request, and the connection that it came on.
type call struct {
	*net.TCPConn
	in  *bufio.Reader
	req *http.Request
	nth int // of this connection, probes counted
}

func (b *bare) url() string { return "http://" + b.addr }

// listen begins to serve; the listener and all connections end with the test.
func (b *bare) listen(t *testing.T) *bare {
	t.Helper()
	b.addr = freeAddr(t)
	l, err := net.Listen("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	open := map[*net.TCPConn]bool{}
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		for c := range open {
			c.Close()
		}
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c := conn.(*net.TCPConn)
			mu.Lock()
			open[c] = true
			mu.Unlock()
			go func() {
				b.run(c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			}()
		}
	}()
	return b
}

func (b *bare) run(c *net.TCPConn) {
	if b.accepted != nil && !b.accepted(c) {
		return
	}
	in := bufio.NewReader(c)
	for nth := 1; ; nth++ {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		if r.Method == "GET" && !b.deaf {
			body := `{"object":"list","data":[{"id":"m","object":"model"}]}`
			if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
				return
			}
			continue
		}
		if r.Method == "POST" {
			b.asked.Add(1)
		}
		if !b.serve(&call{c, in, r, nth}) {
			return
		}
	}
}

// write sends bytes as they are. A client that is gone is noticed elsewhere.
func (c *call) write(text string) { io.WriteString(c.TCPConn, text) }

// chunk frames bytes as one chunk.
func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

// reset closes a connection by RST.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

const streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"

// delta is an event with a token.
func delta(text string) string {
	return `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"` + text + `"},"finish_reason":null}]}` + "\n\n"
}

// role is the event that vLLM sends before any token.
const role = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n"

const done = "data: [DONE]\n\n"

// finish ends a completion.
const finish = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"

// ask is the body of a request for a stream, where the backend is bare.
const ask = `{"model":"m","messages":[{"role":"user","content":"Hello"}],"stream":true}`
