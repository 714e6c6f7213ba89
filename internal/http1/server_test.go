package http1

import (
	"bytes"
	"context"
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

// What handlers say, and what is sent: byte for byte, in how many writes.
func TestAnswers(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", outSize/8)
	for name, tt := range map[string]struct {
		ask    string
		h      http.HandlerFunc
		want   string
		writes int
	}{
		"nothing": {get, func(http.ResponseWriter, *http.Request) {}, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 1},
		"small":   {get, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a"); io.WriteString(w, "b") }, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", 1},
		"declared": {get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			w.WriteHeader(201)
			io.WriteString(w, "ab")
			w.(http.Flusher).Flush()
		}, "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nab", 1},
		"a header set too late": {get, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			w.Header().Set("A", "b")
		}, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 1},
		"no length that is one": {get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "-1")
			w.Header().Set("Transfer-Encoding", "gzip")
			io.WriteString(w, "a")
		}, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", 1},
		"events": {get, func(w http.ResponseWriter, _ *http.Request) {
			for _, e := range []string{"a", strings.Repeat("b", 20), "c"} {
				io.WriteString(w, e)
				w.(http.Flusher).Flush()
				w.(http.Flusher).Flush()
			}
		}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n14\r\nbbbbbbbbbbbbbbbbbbbb\r\n1\r\nc\r\n0\r\n\r\n", 4},
		"the head first": {get, func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			io.WriteString(w, "a")
		}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 2},
		"hints": {get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "x")
			w.WriteHeader(103)
			w.Header().Del("Link")
			io.WriteString(w, "a")
		}, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", 2},
		"a long one": {get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(2*outSize))
			io.WriteString(w, long)
		}, "HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(2*outSize) + "\r\n\r\n" + long, 2},
		"HEAD": {strings.Replace(get, "GET", "HEAD", 1), func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ab") }, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 1},
		"HEAD of a stream": {strings.Replace(get, "GET", "HEAD", 1), func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "ab")
			w.(http.Flusher).Flush()
			io.WriteString(w, "ab")
		}, "HTTP/1.1 200 OK\r\n\r\n", 1},
		"HEAD of nothing": {strings.Replace(get, "GET", "HEAD", 1), func(http.ResponseWriter, *http.Request) {}, "HTTP/1.1 200 OK\r\n\r\n", 1},
		"204": {get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			w.WriteHeader(204)
			if _, err := io.WriteString(w, "ab"); err != http.ErrBodyNotAllowed {
				t.Errorf("Write gave %v", err)
			}
		}, "HTTP/1.1 204 No Content\r\n\r\n", 1},
		"304": {get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "a/b")
			w.WriteHeader(304)
		}, "HTTP/1.1 304 Not Modified\r\n\r\n", 1},
		"a status without a name": {get, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(599) }, "HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", 1},
		"injection": {get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["A: b\r\nC"] = []string{"d"}
			w.Header()[""] = []string{"d"}
			w.Header()["E"] = []string{" f\r\nG: h\x00\ti "}
		}, "HTTP/1.1 200 OK\r\nE: f  G: h \ti\r\nContent-Length: 0\r\n\r\n", 1},
		"closed by the handler": {get + get, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "Close") }, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 1},
		"closed by the client":  {"GET / HTTP/1.1\r\nHost: g\r\nConnection: a, CLOSE\r\n\r\n" + get, func(http.ResponseWriter, *http.Request) {}, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 1},
		"too little": {get + get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "3")
			io.WriteString(w, "ab")
		}, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", 1},
		"too much": {get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1")
			io.WriteString(w, "a")
			if _, err := io.WriteString(w, "b"); err != http.ErrContentLength {
				t.Errorf("Write gave %v", err)
			}
		}, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", 1},
		"1.0": {"GET / HTTP/1.0\r\n\r\n" + get, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a") }, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", 1},
		"1.0, a stream": {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + get, func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "a")
			w.(http.Flusher).Flush()
			io.WriteString(w, "b")
		}, "HTTP/1.0 200 OK\r\n\r\nab", 2},
		"1.0, kept":    {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + get, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a") }, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", 2},
		"1.0, and 100": {"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 1},
		"an answer before 100": {"POST / HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}" + get, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "2")
			w.(http.Flusher).Flush()
			io.Copy(w, r.Body)
		}, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", 2},
		"too many line ends": {"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n\r\n\r\n\n" + get, func(w http.ResponseWriter, r *http.Request) {}, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 15\r\nConnection: close\r\n\r\n400 Bad Request", 2},
		"a second head":      {get, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); w.WriteHeader(500) }, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 1},
		"100 and nobody":     {"GET / HTTP/1.0\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(100) }, "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			serve(t, tt.h, func(r *rig) {
				if got := r.said(tt.ask); got != tt.want {
					t.Errorf("sent %.300q; want %.300q", got, tt.want)
				}
				if r.writes != tt.writes {
					t.Errorf("%d writes; want %d", r.writes, tt.writes)
				}
			})
		})
	}
}

// The date is that of the second.
func TestDate(t *testing.T) {
	serve(t, func(http.ResponseWriter, *http.Request) {}, func(r *rig) {
		c := r.dial()
		defer c.Close()
		buf := make([]byte, 1000)
		for range 3 {
			io.WriteString(c, get)
			n, _ := c.Read(buf)
			if want := "\r\nDate: " + time.Now().UTC().Format(http.TimeFormat) + "\r\n"; !strings.Contains(string(buf[:n]), want) {
				t.Errorf("%q; want %q", buf[:n], want)
			}
			time.Sleep(1500 * time.Millisecond)
		}
	})
}

// The deadline of an idle connection is not set for each request, but it is kept to.
func TestIdleDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &serverConn{server: &Server{IdleTimeout: time.Minute}, conn: newConn(&script{})}
		c.deadline(time.Now().Add(10 * time.Second))
		var before time.Time
		changes := 0
		for i := range 100 {
			c.idleDeadline()
			if left := time.Until(c.set); left > time.Minute || left < 59*time.Second {
				t.Fatalf("%v are left", left)
			}
			if c.set != before {
				changes++
			}
			before = c.set
			time.Sleep(time.Duration(i%10) * 100 * time.Millisecond)
		}
		if changes > 40 {
			t.Errorf("it was set %d times in 45 s", changes)
		}
	})
}

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

// A head may be longer than what is gathered of an answer.
func TestLongHead(t *testing.T) {
	value := strings.Repeat("x", 3*outSize)
	serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("A", value)
		io.WriteString(w, value)
	}, func(r *rig) {
		if got, want := r.said("GET / HTTP/1.0\r\n\r\n"), "HTTP/1.0 200 OK\r\nA: "+value+"\r\n\r\n"+value; got != want {
			t.Errorf("%d bytes; want %d: %.200q", len(got), len(want), got)
		}
	})
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

// What is cut is not to be taken for the whole: no end is sent.
func TestPanics(t *testing.T) {
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/stream":
			io.WriteString(w, "a")
			w.(http.Flusher).Flush()
			io.WriteString(w, "not flushed")
		case "/unsent":
			io.WriteString(w, "a")
		case "/bug":
			panic("a bug")
		}
		panic(http.ErrAbortHandler)
	}, func(r *rig) {
		for path, want := range map[string]string{"/": "", "/unsent": "", "/stream": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"} {
			if got := r.said("GET " + path + " HTTP/1.1\r\nHost: g\r\n\r\n"); got != want {
				t.Errorf("%s: %q; want %q", path, got, want)
			}
		}
		if r.log.String() != "" {
			t.Errorf("logged %s", r.log.String())
		}
		if got := r.said("GET /bug HTTP/1.1\r\nHost: g\r\n\r\n"); got != "" || !strings.HasPrefix(r.log.String(), "http: panic serving mem-client:0: a bug\n") || !strings.Contains(r.log.String(), "TestPanics") {
			t.Errorf("%q; logged %s", got, r.log.String())
		}
	})
}

// When a handler has returned its writer is of no use, and does no harm.
func TestLateWrites(t *testing.T) {
	writers := make(chan http.ResponseWriter, 1)
	var body io.Reader
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case before := <-writers:
			if _, err := before.Write([]byte("late")); err != net.ErrClosed {
				t.Errorf("Write gave %v", err)
			}
			rc := http.NewResponseController(before)
			if err := rc.Flush(); err != net.ErrClosed {
				t.Errorf("Flush gave %v", err)
			}
			if _, _, err := rc.Hijack(); err != net.ErrClosed {
				t.Errorf("Hijack gave %v", err)
			}
			before.WriteHeader(500)
			if _, err := body.Read(make([]byte, 1)); err != http.ErrBodyReadAfterClose {
				t.Errorf("Read gave %v", err)
			}
		default:
		}
		writers <- w
		body = r.Body
		io.WriteString(w, "a")
	}, func(r *rig) {
		if got, want := r.said("POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}"+get), strings.Repeat("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", 2); got != want {
			t.Errorf("%q; want %q", got, want)
		}
	})
}

func TestTimeouts(t *testing.T) {
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err == nil {
			return
		}
		io.WriteString(w, "late")
	}, func(r *rig) {
		r.ReadTimeout = time.Minute
		for name, tt := range map[string]struct {
			said  []string // a second apart
			after time.Duration
			got   string
		}{
			"nothing":             {nil, 10 * time.Second, ""},
			"a part of a head":    {[]string{"GET / HTTP/1.1\r\n"}, 10 * time.Second, ""},
			"a head in parts":     {[]string{"GET", " / HTTP/1.1\r\n", "Host: g\r\n"}, 10 * time.Second, ""},
			"idle":                {[]string{get}, 2 * time.Minute, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
			"idle, and line ends": {[]string{"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n", "\r\n"}, 2 * time.Minute, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
			"a part of the next":  {[]string{get, "GET / HT"}, 11 * time.Second, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
			"a part of a body":    {[]string{"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\n", "{"}, time.Minute, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate"},
			"a part of a chunk":   {[]string{"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\n{"}, time.Minute, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate"},
		} {
			c := r.dial()
			began := time.Now()
			go func() {
				for _, s := range tt.said {
					io.WriteString(c, s)
					time.Sleep(time.Second)
				}
			}()
			got, _ := io.ReadAll(c)
			if took := time.Since(began); took != tt.after || dates.ReplaceAllString(string(got), "") != tt.got {
				t.Errorf("%s: %q after %v; want %q after %v", name, got, took, tt.got, tt.after)
			}
			c.Close()
			time.Sleep(time.Minute)
		}
	})
}

// A handler's deadlines are its own, whenever it sets them.
func TestDeadlines(t *testing.T) {
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		began := time.Now()
		switch r.URL.Path {
		case "/read":
			rc.SetReadDeadline(time.Now().Add(time.Hour))
			time.AfterFunc(time.Second, func() { rc.SetReadDeadline(time.Now().Add(time.Second)) })
			if _, err := io.ReadAll(r.Body); err == nil || time.Since(began) != 2*time.Second {
				t.Errorf("reading ended after %v: %v", time.Since(began), err)
			}
		case "/write":
			time.AfterFunc(time.Second, func() { rc.SetWriteDeadline(time.Now()) })
			if _, err := w.Write(make([]byte, 10<<20)); err == nil || time.Since(began) != time.Second {
				t.Errorf("writing ended after %v: %v", time.Since(began), err)
			}
			if r.Context().Err() == nil {
				t.Error("the context has not ended")
			}
		case "/leave": // for the next request
			rc.SetReadDeadline(time.Now().Add(-time.Second))
			rc.SetWriteDeadline(time.Now().Add(time.Second))
		case "/after":
			if _, err := io.ReadAll(r.Body); err != nil {
				t.Error(err)
			}
		}
	}, func(r *rig) {
		post := func(path string) string { return "POST " + path + " HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n" }
		r.said(post("/read") + "{")
		c := r.dial()
		io.WriteString(c, post("/write")+"{}")
		time.Sleep(time.Minute)
		c.Close()
		c = r.dial()
		defer c.Close()
		io.WriteString(c, post("/leave")+"{}")
		time.Sleep(time.Minute)
		io.WriteString(c, post("/after"))
		time.Sleep(time.Minute)
		io.WriteString(c, "{}")
		time.Sleep(time.Second)
		buf := make([]byte, 1000)
		if n, _ := c.Read(buf); strings.Count(string(buf[:n]), "HTTP/1.1 200 OK") != 2 {
			t.Errorf("%q", buf[:n])
		}
	})
}

// A client that takes nothing is not waited for without end; one that takes little is.
func TestStalls(t *testing.T) {
	const size = 4 << 20
	type outcome struct {
		err  error
		took time.Duration
	}
	var wrote chan outcome
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		w.Header().Set("Content-Length", strconv.Itoa(size)) // so that it goes out as it is
		rc.Flush()
		switch r.URL.Path {
		case "/own": // for a while
			rc.SetWriteDeadline(time.Now().Add(time.Hour))
			rc.SetWriteDeadline(time.Time{})
		case "/sooner":
			rc.SetWriteDeadline(time.Now().Add(time.Second))
		case "/later":
			rc.SetWriteDeadline(time.Now().Add(time.Hour))
		}
		began := time.Now()
		_, err := w.Write(make([]byte, size))
		wrote <- outcome{err, time.Since(began)}
	}, func(r *rig) {
		wrote = make(chan outcome, 1)
		r.StallTimeout = time.Minute
		for path, least := range map[string]time.Duration{"/": time.Minute, "/own": time.Minute, "/sooner": time.Second / 2, "/later": time.Hour / 2} {
			c := r.dial()
			io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: g\r\n\r\n")
			if o := <-wrote; o.err == nil || o.took < least || o.took > 2*least {
				t.Errorf("%s: %+v", path, o)
			}
			c.Close()
		}
		c := r.dial()
		defer c.Close()
		io.WriteString(c, get)
		for all, buf := 0, make([]byte, 100<<10); all < size; {
			time.Sleep(30 * time.Second)
			n, err := c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			all += n
		}
		if o := <-wrote; o.err != nil || o.took < 10*time.Minute {
			t.Errorf("%+v", o)
		}
	})
}

// A client that leaves ends the context of its request, once it has sent all of it.
func TestLeaving(t *testing.T) {
	ended := make(chan time.Time, 1)
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/stay" {
			time.Sleep(time.Second)
			if r.Context().Err() != nil {
				t.Error("the context has ended")
			}
			return
		}
		<-r.Context().Done()
		ended <- time.Now()
	}, func(r *rig) {
		for _, raw := range []string{get, "POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}", "POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"} {
			c := r.dial()
			io.WriteString(c, "GET /stay HTTP/1.1\r\nHost: g\r\n\r\n")
			time.Sleep(time.Minute)
			io.WriteString(c, "GET /stay HTTP/1.1\r\nHost: g\r\n\r\n"+raw) // what is said ahead is not lost
			time.Sleep(time.Minute)
			c.Close()
			if at := <-ended; time.Since(at) != 0 {
				t.Errorf("%q: it ended %v ago", raw, time.Since(at))
			}
		}
	})
}

func TestHijack(t *testing.T) {
	var hijacked sync.WaitGroup
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		hijacked.Add(1)
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Second))
		conn, both, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := conn.(countingConn); !ok {
			t.Errorf("it is a %T", conn)
		}
		if _, err := io.WriteString(w, "a"); err != http.ErrHijacked {
			t.Errorf("Write gave %v", err)
		}
		if _, _, err := http.NewResponseController(w).Hijack(); err != http.ErrHijacked {
			t.Errorf("Hijack gave %v", err)
		}
		if n := both.Reader.Buffered(); n != len("ahead") {
			t.Errorf("%d bytes are ahead", n)
		}
		go func() {
			defer hijacked.Done()
			defer conn.Close()
			time.Sleep(time.Hour) // no deadline holds
			io.CopyN(both, both, int64(len("ahead and after")))
			both.Flush()
		}()
		if r.URL.Path == "/panic" {
			panic(http.ErrAbortHandler)
		}
	}, func(r *rig) {
		for _, path := range []string{"/", "/panic"} {
			c := r.dial()
			io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: g\r\n\r\nahead")
			time.Sleep(time.Second)
			if err := r.Shutdown(context.Background()); path == "/panic" && err != nil {
				t.Error(err)
			}
			io.WriteString(c, " and after")
			if all, err := io.ReadAll(c); string(all) != "ahead and after" || err != nil {
				t.Errorf("%q, %v", all, err)
			}
			hijacked.Wait()
			r.closing.Store(false)
			if path == "/" {
				l, _ := r.network.Listen("server:1")
				go r.Serve(countingListener{l, r})
				synctest.Wait()
			}
		}
	})
}
