package http1

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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
			if err := rc.SetReadDeadline(time.Now()); err != net.ErrClosed {
				t.Errorf("SetReadDeadline gave %v", err)
			}
			if err := rc.SetWriteDeadline(time.Now()); err != net.ErrClosed {
				t.Errorf("SetWriteDeadline gave %v", err)
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
