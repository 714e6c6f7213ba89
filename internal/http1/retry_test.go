package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// post makes a request whose body can be sent again; closed counts the bodies that are
// not needed any more.
func post(t *testing.T, url string, data []byte, closed *atomic.Int32) *http.Request {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "POST", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.GetBody = func() (io.ReadCloser, error) { return NewBytes(data, func() { closed.Add(1) }), nil }
	r.Body, _ = r.GetBody()
	r.ContentLength = int64(len(data))
	return r
}

const okay = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// A request goes out again where its kept connection broke before an answer, and then
// once; else never.
func TestSentAgain(t *testing.T) {
	for name, want := range map[string]struct {
		breaks string // what is said before the connection breaks
		fresh  bool   // so does the second one
		sent   int32
		ok     bool
	}{
		"broken":                 {"", false, 2, true},
		"broken for all":         {"", true, 2, false},
		"an answer's first byte": {"H", false, 1, false},
		"an interim answer":      {"HTTP/1.1 100 Continue\r\n\r\n", false, 1, false},
		"half an answer":         {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", false, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			var sent, closed, conns atomic.Int32
			url := backend(t, func(c *net.TCPConn, in *bufio.Reader) {
				n := conns.Add(1)
				for i := 0; ; i++ {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					io.Copy(io.Discard, r.Body)
					if r.URL.Path == "/first" {
						io.WriteString(c, okay)
						continue
					}
					sent.Add(1)
					if n <= 3 || want.fresh {
						io.WriteString(c, want.breaks)
						return
					}
					io.WriteString(c, okay)
				}
			})
			c := newClient(t)
			var bodies []io.ReadCloser
			for range 3 { // kept ones
				resp := ask(t, c, url+"/first")
				bodies = append(bodies, resp.Body)
			}
			for _, b := range bodies {
				io.Copy(io.Discard, b)
			}
			resp, err := c.RoundTrip(post(t, url+"/", []byte("{}"), &closed))
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if (err == nil) != want.ok || sent.Load() != want.sent || closed.Load() != want.sent {
				t.Errorf("%v; sent %d times, %d bodies closed", err, sent.Load(), closed.Load())
			}
		})
	}
}

// A server that answers and reads no more holds nobody up, nor the request's bytes.
func TestNeverRead(t *testing.T) {
	over := make(chan bool)
	defer close(over)
	var closed atomic.Int32
	url := backend(t, func(c *net.TCPConn, in *bufio.Reader) {
		io.WriteString(c, okay)
		<-over
	})
	c := newClient(t)
	resp, err := c.RoundTrip(post(t, url, bytes.Repeat([]byte("x"), 32<<20), &closed))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); string(got) != "ok" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	resp.Body.Close()
	for until := time.Now().Add(10 * time.Second); closed.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the body is still held")
		}
	}
	if c.idle.n != 0 {
		t.Error("its connection is kept")
	}
}

// What a server says without being asked is no answer to the next request.
func TestStrayBytes(t *testing.T) {
	for name, answer := range map[string]string{
		"longer than its length": okay + "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
		"a 204 with a body":      "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
		"behind chunks":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
	} {
		for _, each := range []bool{true, false} {
			for _, apart := range []bool{true, false} {
				url := backend(t, func(c *net.TCPConn, in *bufio.Reader) {
					for {
						if _, err := http.ReadRequest(in); err != nil {
							return
						}
						if head, rest, ok := strings.Cut(answer, "HTTP/1.1 200 OK\r\nContent-Length: 3"); ok && apart {
							io.WriteString(c, head)
							time.Sleep(5 * time.Millisecond)
							io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3"+rest)
							continue
						}
						io.WriteString(c, answer)
					}
				})
				c := newClient(t)
				for range 3 {
					resp := ask(t, c, url)
					var got []byte
					var err error
					if each {
						err = resp.Body.(*Body).Each(func(p []byte) bool { got = append(got, p...); return true })
					} else {
						got, err = io.ReadAll(resp.Body)
					}
					if string(got) == "bad" || err != nil && err != io.EOF {
						t.Errorf("%s: %q, %v", name, got, err)
					}
					time.Sleep(20 * time.Millisecond)
				}
			}
		}
	}
}

// Over TLS it is the same.
func TestClientOverTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "ok")
	}))
	s.StartTLS()
	defer s.Close()
	c := newClient(t)
	c.TLS = s.Client().Transport.(*http.Transport).TLSClientConfig
	var closed atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				resp, err := c.RoundTrip(post(t, s.URL, []byte("{}"), &closed))
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := io.ReadAll(resp.Body); string(got) != "ok" || err != nil {
					t.Errorf("%q, %v", got, err)
				}
			}
		})
	}
	all.Wait()
}

// Many at once, some given up at any time: nobody gets another's answer, and nothing
// is left.
func TestGivenUp(t *testing.T) {
	url := backend(t, func(c *net.TCPConn, in *bufio.Reader) {
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			io.Copy(io.Discard, r.Body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for range 3 {
				fmt.Fprintf(c, "%x\r\n%s\r\n", len(r.URL.Path), r.URL.Path)
			}
			io.WriteString(c, "0\r\n\r\n")
			if strings.HasSuffix(r.URL.Path, "7") {
				return
			}
		}
	})
	c := newClient(t)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for j := range 100 {
				path := fmt.Sprintf("/%d-%d", i, j)
				ctx, cancel := context.WithCancel(t.Context())
				r, _ := http.NewRequestWithContext(ctx, "GET", url+path, nil)
				if j%3 == 0 {
					go func() { time.Sleep(time.Duration(j) * 10 * time.Microsecond); cancel() }()
				}
				resp, err := c.RoundTrip(r)
				if err == nil {
					var got []byte
					err = resp.Body.(*Body).Each(func(p []byte) bool { got = append(got, p...); return true })
					if err == io.EOF {
						err = nil
						if string(got) != strings.Repeat(path, 3) {
							t.Errorf("%s: %q", path, got)
						}
					}
					resp.Body.Close()
				}
				if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%s: %v", path, err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	c.CloseIdleConnections()
}
