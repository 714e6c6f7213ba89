package http1

import (
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// rig is a server in virtual time.
type rig struct {
	*Server
	t       *testing.T
	network memnet.Net
	log     lockedBuffer
	// parts counts the server's writes.
	mu     sync.Mutex
	writes int
}

// serve runs a test in a bubble with a server, all of whose timeouts are set.
func serve(t *testing.T, h http.HandlerFunc, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t}
		r.Server = &Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10, ErrorLog: log.New(&r.log, "", 0)}
		l, err := r.network.Listen("server:1")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() { ended <- r.Serve(countingListener{l, r}) }()
		synctest.Wait()
		test(r)
		r.Close()
		if err := <-ended; err != http.ErrServerClosed {
			t.Errorf("Serve gave %v", err)
		}
	})
}

type countingListener struct {
	net.Listener
	r *rig
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c, l.r}, nil
}

type countingConn struct {
	net.Conn
	r *rig
}

func (c countingConn) Write(p []byte) (int, error) {
	c.r.mu.Lock()
	c.r.writes++
	c.r.mu.Unlock()
	return c.Conn.Write(p)
}

func (r *rig) dial() net.Conn {
	r.t.Helper()
	c, err := r.network.Dial(r.t.Context(), "tcp", "server:1")
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

var dates = regexp.MustCompile(`Date: [^\r]*\r\n`)

// said gives what the server says to some bytes until it closes the connection, of
// which it has two minutes.
func (r *rig) said(raw string) string {
	r.t.Helper()
	c := r.dial()
	defer c.Close()
	go io.WriteString(c, raw) // an error is the server's refusal
	all, err := io.ReadAll(c)
	if err != nil {
		r.t.Errorf("%.100q: %v", raw, err)
	}
	return dates.ReplaceAllString(string(all), "")
}

const get = "GET / HTTP/1.1\r\nHost: g\r\n\r\n"

// A request that comes just as a Shutdown closes its connection is not taken.
func TestClosedWhileIdle(t *testing.T) {
	s := &Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request was taken") })}
	said := &script{in: []byte(get), piece: 100}
	c := &serverConn{server: s}
	c.conn = newConn(shutWhileRead{said, c})
	c.state.Store(connBusy) // with the request before
	if c.serveOne() || said.out.Len() > 0 {
		t.Errorf("%q", said.out.Bytes())
	}
}

type shutWhileRead struct {
	*script
	c *serverConn
}

func (s shutWhileRead) Read(p []byte) (int, error) {
	if !s.c.state.CompareAndSwap(connIdle, connClosed) {
		return 0, io.EOF
	}
	return s.script.Read(p)
}

// Handlers get what net/http would give them.
func TestRequests(t *testing.T) {
	var got *http.Request
	var body string
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		all, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		body = string(all)
		if n, err := r.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("behind the end: %d, %v", n, err)
		}
	}, func(r *rig) {
		for raw, want := range map[string]string{
			"POST /a HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}":                                             "{}",
			"POST /a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\nA: b\r\n\r\n": "{}",
			"POST /a HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}":                     "{}",
			"POST /a HTTP/1.0\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}":                                             "{}",
			"POST /a HTTP/1.1\r\nHost: g\r\nContent-Length: 60000\r\n\r\n" + strings.Repeat("x", 60000):              strings.Repeat("x", 60000),
			"GET /a HTTP/1.1\r\nHost: g\r\n\r\n":                                                                     "",
		} {
			r.said(raw)
			if body != want || got.RemoteAddr != "mem-client:0" || got.Host != "g" || got.URL.Path != "/a" || got.Header["Host"] != nil || got.TLS != nil {
				t.Errorf("%.100q: body %.100q, %+v", raw, body, got)
			}
		}
	})
}

// What is answered by the server itself; then the connection ends.
func TestRefusals(t *testing.T) {
	reached := 0
	serve(t, func(http.ResponseWriter, *http.Request) { reached++ }, func(r *rig) {
		for raw, want := range map[string]string{
			"x\r\n":                               "400 Bad Request",
			"GET /\r\n":                           "400 Bad Request",
			"\r\n" + get:                          "400 Bad Request",
			"\x16\x03\x01\x02\x00\n":              "400 Bad Request",
			"GET / HTTP/1.1\r\n\r\n":              "400 Bad Request: missing required Host header",
			"GET / HTTP/1.1\r\nHost: a b\r\n\r\n": "400 Bad Request: malformed Host header",
			"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n":                  "400 Bad Request",
			"GET % HTTP/1.1\r\nHost: a\r\n\r\n":                             "400 Bad Request",
			"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n":                    "400 Bad Request",
			"GET / HTTP/2.0\r\n":                                            "505 HTTP Version Not Supported: unsupported protocol version",
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":                              "505 HTTP Version Not Supported: unsupported protocol version",
			"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n": "501 Not Implemented: unsupported transfer encoding",
			"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n": "501 Not Implemented: unsupported transfer encoding",
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n{}":                                     "400 Bad Request",
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}":                 "400 Bad Request",
			"POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 2\r\n\r\n{}":                         "417 Expectation Failed",
			"GET /" + strings.Repeat("a", 64<<10):                                                            "431 Request Header Fields Too Large",
			"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", 11<<10) + "\r\n":                    "431 Request Header Fields Too Large",
		} {
			status, _, _ := strings.Cut(want, ":")
			if got := r.said(raw); !strings.HasPrefix(got, "HTTP/1.1 "+status+"\r\n") || !strings.HasSuffix(got, "\r\nConnection: close\r\n\r\n"+want) {
				t.Errorf("%.100q: %q; want %q", raw, got, want)
			}
		}
		if got := r.said("HEAD / HTTP/1.1\r\n\r\n"); !strings.HasSuffix(got, "\r\n\r\n") {
			t.Errorf("HEAD: %q", got)
		}
		if reached > 0 || r.log.String() != "" {
			t.Errorf("%d requests reached the handler; the log: %s", reached, r.log.String())
		}
	})
}

// An answer that has not the length it declared, since a write was refused, is the
// connection's last: what follows would be taken for its rest.
func TestBodyOfTheWrongLength(t *testing.T) {
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "4")
		io.WriteString(w, "ab")
		io.WriteString(w, "cde") // is refused
	}, func(r *rig) {
		if got := r.said(get + get); got != "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab" {
			t.Errorf("%q", got)
		}
	})
}

// Requests that come at once are answered one after the other.
func TestPipeline(t *testing.T) {
	running := 0
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		running++
		time.Sleep(time.Second)
		io.WriteString(w, r.URL.Path)
		if running != 1 {
			t.Errorf("%d run at once", running)
		}
		running--
	}, func(r *rig) {
		got := r.said("GET /1 HTTP/1.1\r\nHost: g\r\n\r\nPOST /2 HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n\r\nabc\r\n\r\nPOST /3 HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n\nGET /4 HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\nGET /5")
		want := ""
		for _, path := range []string{"/1", "/2", "/3"} {
			want += "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + path
		}
		if want += "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n/4"; got != want {
			t.Errorf("%q; want %q", got, want)
		}
	})
}

// A body that nobody reads is dropped if it is small; else the connection ends.
func TestUnreadBodies(t *testing.T) {
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/closed" {
			r.Body.Close()
			if _, err := r.Body.Read(make([]byte, 1)); err != http.ErrBodyReadAfterClose {
				t.Errorf("Read after Close: %v", err)
			}
		}
	}, func(r *rig) {
		post := func(path string, n int) string {
			return "POST " + path + " HTTP/1.1\r\nHost: g\r\nContent-Length: " + strconv.Itoa(n) + "\r\n\r\n" + strings.Repeat("x", n)
		}
		ok, closed := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
		for raw, want := range map[string]string{
			post("/", 100) + get:       ok + ok,
			post("/closed", 100) + get: ok + ok,
			post("/", maxDrop) + get:   ok + ok,
			post("/", maxDrop+1) + get: closed,
			"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n42000\r\n" + strings.Repeat("x", 0x42000) + "\r\n0\r\n\r\n" + get: closed,
			"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + get:                                       ok + ok,
			"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}x" + get:                                                   closed,
			"POST / HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n" + get:                                            closed,
		} {
			if got := r.said(raw); got != want {
				t.Errorf("%.100q: %q; want %q", raw, got, want)
			}
		}
	})
}

// An answer does not wait for ever for a body that nobody reads.
func TestUnreadBodyInTime(t *testing.T) {
	serve(t, func(http.ResponseWriter, *http.Request) {}, func(r *rig) {
		for _, raw := range []string{"Content-Length: 5\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n5\r\n{"} {
			began := time.Now()
			if got := r.said("POST / HTTP/1.1\r\nHost: g\r\n" + raw); got != "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" || time.Since(began) != 10*time.Second {
				t.Errorf("%q: %q after %v", raw, got, time.Since(began))
			}
		}
	})
}

// What was dropped of a body, since the answer began, is missed.
func TestBodyBehindTheAnswer(t *testing.T) {
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if r.URL.Path == "/duplex" {
			rc.EnableFullDuplex()
		}
		io.CopyN(w, r.Body, 1)
		rc.Flush()
		if _, err := io.Copy(w, r.Body); r.Method == "POST" && (err == http.ErrBodyReadAfterClose) != (r.URL.Path == "/") {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
	}, func(r *rig) {
		for path, want := range map[string]string{"/": "1\r\n{\r\n0\r\n\r\n", "/duplex": "1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"} {
			got := r.said("POST " + path + " HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}" + get)
			if want = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + want; !strings.HasPrefix(got, want) || strings.Count(got, "HTTP/1.1 200") != 2 {
				t.Errorf("%s: %q; want %q", path, got, want)
			}
		}
	})
}

// Who still reads the body when the handler has returned finds the connection closed.
func TestBodyReadBesideTheHandler(t *testing.T) {
	var beside sync.WaitGroup
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		beside.Go(func() {
			if all, err := io.ReadAll(r.Body); err == nil {
				t.Errorf("%q was read", all)
			}
		})
		synctest.Wait()
	}, func(r *rig) {
		if got := r.said("POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 200\r\n\r\n{}" + get); got != "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" {
			t.Errorf("%q", got)
		}
		beside.Wait()
	})
}

// A client that waits to be asked for its body is, once somebody reads.
func TestContinue(t *testing.T) {
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		body, err := io.ReadAll(r.Body)
		if string(body) != "{}" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
	}, func(r *rig) {
		c := r.dial()
		defer c.Close()
		for range 2 {
			began := time.Now()
			io.WriteString(c, "POST / HTTP/1.1\r\nHost: g\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
			buf := make([]byte, 1000)
			n, _ := c.Read(buf)
			if string(buf[:n]) != "HTTP/1.1 100 Continue\r\n\r\n" || time.Since(began) != time.Second {
				t.Errorf("%q after %v", buf[:n], time.Since(began))
			}
			io.WriteString(c, "{}")
			if n, _ = c.Read(buf); !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200") {
				t.Errorf("%q", buf[:n])
			}
		}
	})
}
