// Package mock is a vLLM server that costs next to nothing: it answers what package
// wire says, as fast as it is told to, and keeps count of nothing. It is there to be
// measured against; internal/vllmsim is the one that behaves like vLLM.
package mock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/vllm-gateway/vllm-gateway/bench/wire"
)

// Server is a number of backends in one process.
type Server struct {
	// Models is how many each backend lists: wire.Model, and others behind it. 0 is 1.
	Models int
}

// Serve answers on a listener until it is closed.
func (s *Server) Serve(l net.Listener) error {
	models := s.models()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go (&conn{Conn: wire.Cheap(c), models: models}).serve()
	}
}

func (s *Server) models() []byte {
	var b strings.Builder
	b.WriteString(`{"object":"list","data":[`)
	for i := range max(s.Models, 1) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":%q,"object":"model","owned_by":"vllm"}`, wire.ModelName(i))
	}
	b.WriteString(`]}`)
	return plain("200 OK", b.String())
}

func plain(status, body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %s\r\nServer: uvicorn\r\nContent-Length: %d\r\nContent-Type: application/json\r\n\r\n%s", status, len(body), body)
}

var (
	healthy  = plain("200 OK", "")
	notFound = plain("404 Not Found", `{"detail":"Not Found"}`)
)

// conn is one connection: a request, its answer, and the next.
type conn struct {
	net.Conn
	models []byte
	in     []byte // the request, and what has come behind it
	out    []byte
}

const maxRequest = 64 << 20 // bytes

func (c *conn) serve() {
	defer c.Close()
	c.in = make([]byte, 0, 2048)
	for {
		head, body, err := c.request()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.Write(plain("400 Bad Request", strconv.Quote(err.Error())))
			}
			return
		}
		if c.answer(head, body) != nil {
			return
		}
		n := copy(c.in, c.in[len(head)+len(body):])
		c.in = c.in[:n]
	}
}

// request reads one to its end.
func (c *conn) request() (head, body []byte, err error) {
	looked := 0
	end := -1
	for {
		if i := bytes.Index(c.in[looked:], []byte("\r\n\r\n")); i >= 0 {
			end = looked + i + 4
			break
		}
		looked = max(0, len(c.in)-3)
		if err := c.more(len(c.in) + 1); err != nil {
			return nil, nil, err
		}
	}
	length, err := bodyLength(c.in[:end])
	if err != nil {
		return nil, nil, err
	}
	for len(c.in) < end+length {
		if err := c.more(end + length); err != nil {
			return nil, nil, errors.New("the body ended early")
		}
	}
	return c.in[:end], c.in[end : end+length], nil
}

// more reads on, with room for so many bytes at least.
func (c *conn) more(room int) error {
	if room > maxRequest {
		return errors.New("the request is too large")
	}
	if cap(c.in) < room {
		c.in = append(make([]byte, 0, max(room, 2*cap(c.in))), c.in...)
	}
	n, err := c.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

func bodyLength(head []byte) (int, error) {
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 31)
			return int(n), err
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return 0, errors.New("the mock takes no chunked bodies")
		}
	}
	return 0, nil
}

func (c *conn) answer(head, body []byte) error {
	method, rest, _ := bytes.Cut(head, []byte(" "))
	path, _, _ := bytes.Cut(rest, []byte(" "))
	out := notFound
	switch string(method) + " " + string(path) {
	case "GET /health":
		out = healthy
	case "GET /v1/models":
		out = c.models
	case "POST /v1/chat/completions":
		ask, err := wire.Read(body)
		switch {
		case err != nil:
			out = plain("400 Bad Request", strconv.Quote(err.Error()))
		case ask.Stream:
			return c.stream(ask)
		default:
			return c.json(ask, body)
		}
	}
	_, err := c.Write(out)
	return err
}

const jsonHead = "HTTP/1.1 200 OK\r\nServer: uvicorn\r\nContent-Type: application/json\r\nContent-Length: "

func (c *conn) json(ask wire.Ask, body []byte) error {
	c.out = append(c.out[:0], jsonHead...)
	at := len(c.out)
	c.out = append(c.out, "0000\r\n\r\n"...)
	from := len(c.out)
	c.out = wire.AppendJSON(c.out, ask, body)
	copy(c.out[at:], fmt.Sprintf("%04d", len(c.out)-from))
	_, err := c.Write(c.out)
	return err
}

const streamHead = "HTTP/1.1 200 OK\r\nServer: uvicorn\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"

// stream writes event by event, as vLLM does: each a chunk and a write of its own. Only
// what follows the last token is one write. The first token does not wait; the others
// keep to a timetable, so one that is late makes no other late.
func (c *conn) stream(ask wire.Ask) error {
	s := wire.Of(ask)
	began := time.Now()
	c.out = c.chunk(append(c.out[:0], streamHead...), s, 0)
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	for i := 1; i <= ask.Tokens; i++ {
		if wait := time.Duration(i-1)*ask.Gap - time.Since(began); wait > 0 {
			time.Sleep(wait)
		}
		c.out = c.chunk(c.out[:0], s, i)
		if _, err := c.Write(c.out); err != nil {
			return err
		}
	}
	c.out = c.out[:0]
	for i := ask.Tokens + 1; i < s.Events(); i++ {
		c.out = c.chunk(c.out, s, i)
	}
	c.out = append(c.out, "0\r\n\r\n"...)
	_, err := c.Write(c.out)
	return err
}

func (c *conn) chunk(b []byte, s *wire.Stream, i int) []byte {
	b = strconv.AppendInt(b, int64(s.Size(i)), 16)
	b = append(b, "\r\n"...)
	b = s.Append(b, i, wire.Now())
	return append(b, "\r\n"...)
}
