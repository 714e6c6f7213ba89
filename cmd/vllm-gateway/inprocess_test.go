package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

// inProcess is the gateway behind the program's own server, in this process, with
// a recorder as its backend: for inputs by the hundred thousand.
type inProcess struct {
	conns    chan net.Conn
	closed   chan struct{}
	once     sync.Once
	recorder *recorder
	log      lockedBuffer
}

func startInProcess(t testing.TB, model string) *inProcess {
	t.Helper()
	p := &inProcess{conns: make(chan net.Conn), closed: make(chan struct{})}
	var network memnet.Net
	l, err := network.Listen("vllm:8000")
	if err != nil {
		t.Fatal(err)
	}
	p.recorder = record(l, model)
	log := slog.New(slog.NewTextHandler(&p.log, &slog.HandlerOptions{Level: slog.LevelError}))
	g, err := gateway.New(gateway.Config{
		Backends: []string{p.recorder.url()}, FirstByteTimeout: time.Minute, StreamIdleTimeout: time.Minute, MaxBody: 1 << 20, Log: log, Dial: network.Dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		daemon.Server{Name: name, Handler: g, Drain: g.Drain, Log: log}.Serve(ctx, p)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		l.Close()
		if p.log.String() != "" {
			t.Errorf("its log:\n%s", p.log.String())
		}
	})
	return p
}

// inProcess is the server's listener, too.
func (p *inProcess) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *inProcess) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *inProcess) Addr() net.Addr { return nowhere{} }

type nowhere struct{}

func (nowhere) Network() string { return "tcp" }
func (nowhere) String() string  { return "127.0.0.1:1" }

// open gives raw to the server, piece bytes at a time, and waits until it has
// closed the connection.
func (p *inProcess) open(raw []byte, piece int) *script {
	c := &script{in: raw, piece: piece, over: make(chan struct{})}
	c.changed.L = &c.mu
	p.conns <- c
	<-c.over
	return c
}

// say tells what came of it.
func (p *inProcess) say(raw []byte, piece int) outcome {
	c := p.open(raw, piece)
	c.mu.Lock()
	defer c.mu.Unlock()
	o := outcome{closed: !c.heard}
	requests, _ := read(raw)
	in := bufio.NewReader(bytes.NewReader(c.out.Bytes()))
	for {
		method := "GET"
		if n := len(o.statuses); n < len(requests) {
			method = requests[n].method
		} else if strings.HasPrefix(string(raw), "HEAD ") {
			method = "HEAD"
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			break
		}
		if resp.StatusCode >= 200 {
			o.statuses = append(o.statuses, resp.StatusCode)
		}
		if io.Copy(io.Discard, resp.Body); method == "HEAD" && resp.StatusCode == 400 {
			break // net/http's own refusal has a body, whatever was asked
		}
	}
	o.got, o.problems = p.recorder.take()
	return o
}

// script is a connection whose client has said all that it has to say, and leaves
// when the server wants more. It stays as long as a request is being answered:
// that is when the server reads into a single byte, to see whether the client is there.
type script struct {
	mu      sync.Mutex
	changed sync.Cond
	in      []byte
	piece   int
	late    bool // the read deadline has passed
	heard   bool // the server has come to the end, and wanted more
	ended   bool // the server has said that it is done
	closed  bool
	out     bytes.Buffer
	over    chan struct{} // the server has no more to say
	once    sync.Once
}

func (c *script) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case c.late:
			return 0, os.ErrDeadlineExceeded
		case len(c.in) > 0:
			n := copy(b[:min(len(b), c.piece)], c.in)
			c.in = c.in[n:]
			return n, nil
		case cap(b) > 1:
			c.heard = c.heard || !c.ended // else it only drops what is left
			return 0, io.EOF
		}
		c.changed.Wait()
	}
}

func (c *script) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	return c.out.Write(b)
}

// CloseWrite comes ahead of Close where the server waits, for the client's sake.
func (c *script) CloseWrite() error {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.once.Do(func() { close(c.over) })
	return nil
}

func (c *script) Close() error {
	c.mu.Lock()
	c.closed = true
	c.changed.Broadcast()
	c.mu.Unlock()
	return c.CloseWrite()
}

func (c *script) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = !t.IsZero() && !t.After(time.Now()) // nobody waits for one that is to come
	c.changed.Broadcast()
	return nil
}

func (c *script) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *script) SetWriteDeadline(time.Time) error { return nil }
func (c *script) LocalAddr() net.Addr              { return nowhere{} }
func (c *script) RemoteAddr() net.Addr             { return nowhere{} }

// Where reads happen to end makes no difference.
func TestHostileRequestsInPieces(t *testing.T) {
	p := startInProcess(t, "")
	for i, h := range corpus() {
		if len(h.raw) > 1000 || strings.Contains(h.raw, "PRI * HTTP/2.0") {
			continue
		}
		piece := []int{1, 2, 7}[i%3]
		o := p.say([]byte(h.raw), piece)
		if err := judge([]byte(h.raw), o, true); err != nil {
			t.Errorf("%s: %q in pieces of %d: %v", h.class, h.raw, piece, err)
		}
	}
}

// Whatever the bytes, what reaches the backend is canonical and was said: see
// judge.
func FuzzRequest(f *testing.F) {
	for i, h := range corpus() {
		if i%4 == 0 && len(h.raw) <= 300 { // all of them go another way in TestHostileRequestsInPieces
			f.Add([]byte(h.raw), byte(0))
		}
	}
	p := startInProcess(f, "")
	f.Fuzz(func(t *testing.T, raw []byte, piece byte) {
		if len(raw) > 4<<10 || bytes.Contains(raw, []byte("PRI * HTTP/2.0")) {
			return
		}
		size := int(piece)
		if size == 0 {
			size = 4 << 10
		}
		if err := judge(raw, p.say(raw, size), false); err != nil {
			t.Error(err)
		}
		if log := p.log.String(); log != "" {
			t.Error(log)
		}
	})
}
