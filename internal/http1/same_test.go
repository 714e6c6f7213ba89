package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// script is a connection whose client has said all that it has to say.
type script struct {
	mu    sync.Mutex
	in    []byte
	piece int
	out   bytes.Buffer
}

func (c *script) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.piece)], c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *script) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *script) Close() error                     { return nil }
func (c *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *script) SetDeadline(time.Time) error      { return nil }
func (c *script) SetReadDeadline(time.Time) error  { return nil }
func (c *script) SetWriteDeadline(time.Time) error { return nil }

// serveScript gives what the server says to some bytes.
func (s *Server) serveScript(raw []byte, piece int) []byte {
	said := &script{in: raw, piece: piece}
	c := &serverConn{server: s, conn: newConn(said), remote: "script"}
	s.remember(c)
	c.serve()
	return said.out.Bytes()
}

// seen is a request that was read whole.
type seen struct {
	head   string
	header http.Header
	body   string
}

func see(r *http.Request) (s seen, err error) {
	body, err := io.ReadAll(r.Body)
	for _, values := range r.Header {
		for i := range values {
			values[i] = strings.Trim(values[i], " \t")
		}
	}
	if r.Header.Get("Pragma") == "no-cache" { // whence net/http makes up the other
		delete(r.Header, "Cache-Control")
	}
	return seen{fmt.Sprint(r.Method, r.RequestURI, r.URL, r.Proto, strings.Trim(r.Host, " \t"), r.ContentLength, r.TransferEncoding, r.Close), r.Header, string(body)}, err
}

// FuzzConnection: whatever the bytes, and however they arrive, handlers see of them
// what net/http would have read, in this order, or the first of it; and each gets one
// answer.
func FuzzConnection(f *testing.F) {
	for _, raw := range requests {
		f.Add([]byte(raw+raw), byte(0))
	}
	f.Add([]byte("POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}\r\n\r\nPOST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n\nGET / HTTP/1.1\r\nHost: g\r\n\r\nGET"), byte(0))
	f.Fuzz(func(t *testing.T, raw []byte, piece byte) {
		var got []seen
		var logged lockedBuffer
		expecting := 0
		s := &Server{MaxHeaderBytes: 64 << 10, ErrorLog: log.New(&logged, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header["Expect"] != nil && r.ProtoMinor > 0 && r.ContentLength != 0 {
				expecting++
			}
			if r.URL.RawQuery == "unread" {
				return
			}
			if s, err := see(r); err == nil {
				got = append(got, s)
			}
		})}
		size := int(piece)
		if size == 0 {
			size = 4 << 10
		}
		out := s.serveScript(bytes.Clone(raw), size)
		if len(s.conns) > 0 || logged.String() != "" {
			t.Errorf("%d connections are left; logged %s", len(s.conns), logged.String())
		}
		in, post := bufio.NewReader(bytes.NewReader(raw)), false
		for _, ours := range got {
			var theirs seen
			for { // those that nobody has looked at
				if post {
					ahead, _ := in.Peek(4)
					in.Discard(len(ahead) - len(bytes.TrimLeft(ahead, "\r\n")))
				}
				r, err := http.ReadRequest(in)
				if err != nil {
					t.Fatalf("%q was seen; net/http: %v", ours, err)
				}
				post = r.Method == "POST"
				if theirs, err = see(r); r.URL.RawQuery != "unread" {
					if err != nil {
						t.Fatalf("%q was seen; net/http: %v", ours, err)
					}
					break
				}
			}
			if ours.head != theirs.head || ours.body != theirs.body || !maps.EqualFunc(ours.header, theirs.header, slices.Equal) {
				t.Fatalf("%q was seen; net/http: %q", ours, theirs)
			}
		}
		answers := bytes.Count(out, []byte("HTTP/1."))
		if bad := bytes.Count(out, []byte("Content-Type: text/plain; charset=utf-8\r\n")); bad > 1 || answers < len(got) {
			t.Errorf("%d requests were seen; answered %q", len(got), out)
		}
	})
}

// Answers are those that net/http gives, whatever the request and the handler, but
// for a type that nobody has set.
func TestAnswersAsNetHTTP(t *testing.T) {
	handlers := map[string]http.HandlerFunc{
		"nothing": func(http.ResponseWriter, *http.Request) {},
		"small":   func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "small") },
		"flushed": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "a")
			w.(http.Flusher).Flush()
			io.WriteString(w, "b")
		},
		"declared": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "small")
		},
		"large": func(w http.ResponseWriter, r *http.Request) { w.Write(bytes.Repeat([]byte("x"), 50_000)) },
		"204":   func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) },
		"304":   func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Etag", "x"); w.WriteHeader(304) },
		"error": func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) },
		"close": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			io.WriteString(w, "x")
		},
		"read": func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) },
		"several": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["A"] = []string{"1", "2"}
			w.Header().Set("Date", "x")
		},
		"empty, flushed": func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() },
	}
	for name, h := range handlers {
		t.Run(name, func(t *testing.T) {
			served := func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/plain")
				h(w, r)
			}
			ours := overTCP(t, &Server{Handler: http.HandlerFunc(served)})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Server{Handler: http.HandlerFunc(served)}
			go s.Serve(l)
			defer s.Close()
			for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS"} {
				if method == "HEAD" && name == "large" { // we know the length, and say it
					continue
				}
				for _, rest := range []string{
					" / HTTP/1.1\r\nHost: g\r\n\r\n", " / HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n", " / HTTP/1.0\r\n\r\n", " / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", " / HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}",
					" / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", " / HTTP/1.0\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n{}",
				} {
					raw := method + rest + "GET /last HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n"
					if got, want := answered(t, ours, raw, method), answered(t, l.Addr().String(), raw, method); got != want {
						t.Errorf("%q:\n%s\nnet/http:\n%s", raw, got, want)
					}
				}
			}
		})
	}
}

// answered tells the answers to some bytes.
func answered(t *testing.T, addr, raw, method string) (all string) {
	c := dialTCP(t, addr)
	defer c.Close()
	io.WriteString(c, raw)
	in := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return all + fmt.Sprint(err)
		}
		body, err := io.ReadAll(resp.Body)
		if resp.Header.Get("Date") == "" {
			all += "no date; "
		}
		if resp.Header.Get("Date") != "x" {
			delete(resp.Header, "Date")
		}
		if resp.ProtoMinor == 0 && resp.Close { // it goes without saying; net/http says it where the handler did
			delete(resp.Header, "Connection")
		}
		all += fmt.Sprintln(resp.Proto, resp.Status, resp.ContentLength, resp.TransferEncoding, resp.Close, resp.Header, len(body), err)
		method = "GET"
	}
}
