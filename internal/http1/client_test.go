package http1

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// backend gives each of its connections to serve.
func backend(t *testing.T, serve func(c *net.TCPConn, in *bufio.Reader)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c.(*net.TCPConn), bufio.NewReader(c))
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func newClient(t *testing.T) *Client {
	c := &Client{IdleTimeout: time.Minute, MaxIdle: 10}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func ask(t *testing.T, c *Client, url string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// A server that hangs up while a piece of its answer is being looked at takes nothing
// from what it has sent.
func TestReadBehindEach(t *testing.T) {
	goOn := make(chan bool)
	url := backend(t, func(c *net.TCPConn, in *bufio.Reader) {
		http.ReadRequest(in)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
		<-goOn
		io.WriteString(c, "def")
		<-goOn
		io.WriteString(c, "ghi")
		c.CloseWrite()
		<-goOn
	})
	resp := ask(t, newClient(t), url)
	defer resp.Body.Close()
	b := resp.Body.(*Body)
	if err := b.Each(func(p []byte) bool {
		goOn <- true
		if string(p) == "abc" {
			return true
		}
		if q := b.link.quick; q != nil {
			for until := time.Now().Add(10 * time.Second); !q.hangup.hasHung() && time.Now().Before(until); {
				time.Sleep(time.Millisecond)
			}
		}
		return false
	}); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(b); string(rest) != "ghi" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	close(goOn)
}

// The end of a stream is seen, however it comes.
func TestEndsOverTCP(t *testing.T) {
	url := backend(t, func(c *net.TCPConn, in *bufio.Reader) {
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			head := "HTTP/1.1 200 OK\r\n\r\n"
			switch r.URL.Path {
			case "/fin":
				io.WriteString(c, head+"abc")
				return
			case "/rst":
				io.WriteString(c, head+"abc")
				c.SetLinger(0)
				return
			case "/half":
				io.WriteString(c, head+"abc")
				c.CloseWrite()
				in.ReadByte()
				return
			case "/finchunk":
				io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
				return
			case "/slow":
				io.WriteString(c, head)
				for range 10 {
					time.Sleep(time.Millisecond)
					io.WriteString(c, strings.Repeat("x", 1000))
				}
				return
			case "/keep":
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
			}
		}
	})
	c := newClient(t)
	for range 20 {
		for path, want := range map[string]string{"/fin": "abc", "/rst": "abc", "/half": "abc", "/finchunk": "abc", "/slow": strings.Repeat("x", 10000), "/keep": "abc"} {
			start := time.Now()
			resp := ask(t, c, url+path)
			var got []byte
			err := resp.Body.(*Body).Each(func(p []byte) bool { got = append(got, p...); return true })
			resp.Body.Close()
			if path == "/rst" && err != io.EOF { // may take what was not read
				continue
			}
			if path == "/finchunk" && err == io.ErrUnexpectedEOF {
				err = io.EOF
			}
			if string(got) != want || err != io.EOF || time.Since(start) > 10*time.Second {
				t.Fatalf("%s: %q %v", path, got, err)
			}
		}
	}
}
