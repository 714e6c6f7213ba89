package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/http1"
	"github.com/vllm-gateway/vllm-gateway/internal/limits"
	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// wire is a gateway between two ends of bytes, over real sockets: what it costs is not
// hidden behind what a client or a server of HTTP costs.
type wire struct {
	client  net.Conn
	answer  []byte        // what the backend says; nil: arrived gives its connection
	arrived chan net.Conn // with a request on it, all read
}

var lastBytes = []byte(`"}]}`) // ends each request

const hotKey = "sk-0123456789abcdef0123456789abcdef"

// hot starts a gateway with a key that has limits, and sends one request through it
// up to the backend.
func hot(t testing.TB, answer []byte) *wire {
	t.Helper()
	w := &wire{answer: answer, arrived: make(chan net.Conn, 1)}
	l := listen(t)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go w.serve(conn)
		}
	}()
	g, err := New(Config{
		Backends:         []string{"http://" + l.Addr().String()},
		FirstByteTimeout: time.Minute, StreamIdleTimeout: time.Minute, MaxBody: 1 << 20,
		Callers: []Caller{{Name: "a", Keys: []secret.Hash{secret.HashOf(hotKey)}, Limits: limits.Limits{Requests: 1 << 40, Tokens: 1 << 40, DayTokens: 1 << 40}}},
		Log:     slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	front := listen(t)
	s := &http1.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second}
	go s.Serve(front)
	for deadline := time.Now().Add(20 * time.Second); len(g.pool.usable()) == 0 || !g.pool.known("m"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the backend does not come up")
		}
	}
	if w.client, err = net.Dial("tcp", front.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.client.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		g.Drain(ctx)
		s.Close()
	})
	return w
}

func listen(t testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serve answers probes; of anything else it answers what there is an answer for, and
// hands over the connection where there is none.
func (w *wire) serve(conn net.Conn) {
	buf := make([]byte, 1<<20)
	for {
		n, err := conn.Read(buf)
		switch {
		case err != nil:
			return
		case !bytes.HasPrefix(buf[:n], []byte("POST")):
			listModels(conn)
			continue
		case w.answer == nil:
			w.arrived <- conn
			return
		}
		for !bytes.HasSuffix(buf[:n], lastBytes) {
			if n, err = conn.Read(buf); err != nil {
				return
			}
		}
		conn.Write(w.answer)
	}
}

func listModels(conn net.Conn) {
	body := `{"object":"list","data":[{"id":"m"}]}`
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func (w *wire) ask(body string) []byte {
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", hotKey, len(body), body)
}

// passes sends bytes at one end and reads as many as come at the other.
func passes(t testing.TB, from net.Conn, p []byte, to net.Conn, buf []byte) {
	if _, err := from.Write(p); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, buf); err != nil {
		t.Fatal(err)
	}
}

// begin has a stream begin, and gives the backend's end of it, one event as the backend writes it, and memory
// for as much as the client gets of it.
func (w *wire) begin(t testing.TB) (backend net.Conn, event, buf []byte) {
	w.client.Write(w.ask(`{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}`))
	backend = <-w.arrived
	data := `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795443648,"model":"m","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}` + "\n\n"
	event = fmt.Appendf(nil, "%x\r\n%s\r\n", len(data), data)
	fmt.Fprintf(backend, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%s", event)
	head := make([]byte, 4<<10)
	n, err := w.client.Read(head)
	if err != nil || !bytes.HasSuffix(head[:n], event) || !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
		t.Fatalf("%v; the stream begins with %q", err, head[:n])
	}
	return backend, event, make([]byte, len(event))
}

// racing: the race detector is on, with which sync.Pool forgets now and then.
var racing bool

// An event is relayed, counted and timed without a single allocation.
func TestAnEventAllocatesNothing(t *testing.T) {
	if racing {
		t.Skip("with the race detector pools forget")
	}
	w := hot(t, nil)
	backend, event, buf := w.begin(t)
	relay := func() { passes(t, backend, event, w.client, buf) }
	for range 100 {
		relay()
	}
	if n := testing.AllocsPerRun(2000, relay); n != 0 {
		t.Errorf("%v allocations an event; want 0", n)
	}
	if !bytes.Equal(buf, event) {
		t.Errorf("%q was relayed as %q", event, buf)
	}
}

// BenchmarkEvent is the way of one event through a stream, with both ends' part of it.
func BenchmarkEvent(b *testing.B) {
	w := hot(b, nil)
	backend, event, buf := w.begin(b)
	b.ReportAllocs()
	for b.Loop() {
		passes(b, backend, event, w.client, buf)
	}
}

// BenchmarkSmall is a small request and its answer, BenchmarkLong one with 200 KB, with
// both ends' part of it.
func BenchmarkSmall(b *testing.B) { benchmarkRequest(b, "Say hello.") }
func BenchmarkLong(b *testing.B) {
	benchmarkRequest(b, strings.Repeat("It stands before servers, and takes what they are sent.\\n", 3500))
}

func benchmarkRequest(b *testing.B, prompt string) {
	body := `{"id":"chatcmpl-1","object":"chat.completion","created":1795443648,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello!","tool_calls":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"total_tokens":23,"completion_tokens":3}}`
	w := hot(b, fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	ask, out := w.ask(`{"model":"m","messages":[{"role":"user","content":"`+prompt+`"}]}`), make([]byte, 4<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.client.Write(ask); err != nil {
			b.Fatal(err)
		}
		if n, err := w.client.Read(out); err != nil || !bytes.HasSuffix(out[:n], []byte("}}")) {
			b.Fatal(err, string(out[:n]))
		}
	}
}
