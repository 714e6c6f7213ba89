package http1

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func dialTCP(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c.(*net.TCPConn)
}

// An event that is written and flushed costs no memory, and is one write.
func TestEventsAllocateNothing(t *testing.T) {
	event := []byte("data: " + strings.Repeat("x", 240) + "\n\n")
	measured := make(chan float64)
	addr := overTCP(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		measured <- testing.AllocsPerRun(1000, func() {
			w.Write(event)
			rc.Flush()
		})
	})})
	c := dialTCP(t, addr)
	io.WriteString(c, get)
	go io.Copy(io.Discard, c)
	if n := <-measured; n != 0 {
		t.Errorf("%v allocations for each event", n)
	}
}

// While a request runs there is one goroutine for it.
func TestOneGoroutine(t *testing.T) {
	const streams = 100
	var begun sync.WaitGroup
	begun.Add(streams)
	over := make(chan struct{})
	addr := overTCP(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.(http.Flusher).Flush()
		begun.Done()
		<-over
	})})
	before := runtime.NumGoroutine()
	for range streams {
		io.WriteString(dialTCP(t, addr), "POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}")
	}
	begun.Wait()
	extra := 1 // looks for those that hang up, or is on its way to
	if asQuick(quicken(dialTCP(t, addr))) == nil {
		extra = streams // each of them
	}
	if n := runtime.NumGoroutine() - before; n > streams+extra+1 { // the last connection's too
		t.Errorf("%d goroutines for %d streams", n, streams)
	}
	close(over)
}

// Close ends what runs.
func TestCloseOverTCP(t *testing.T) {
	begun, ended := make(chan bool), make(chan bool)
	s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		<-r.Context().Done()
		ended <- true
	})}
	io.WriteString(dialTCP(t, overTCP(t, s)), get)
	<-begun
	s.Close()
	<-ended
}

// Clients leave in all the ways that TCP has; the request ends each time, and nobody
// else's.
func TestLeavingOverTCP(t *testing.T) {
	begun, ended := make(chan string), make(chan string)
	addr := overTCP(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.(http.Flusher).Flush()
		begun <- r.URL.Path
		<-r.Context().Done()
		ended <- r.URL.Path
	})})
	stay := dialTCP(t, addr)
	io.WriteString(stay, "GET /stay HTTP/1.1\r\nHost: g\r\n\r\n")
	<-begun
	for name, leave := range map[string]func(*net.TCPConn){
		"close": func(c *net.TCPConn) { c.Close() },
		"reset": func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
		"half":  func(c *net.TCPConn) { c.CloseWrite() },
	} {
		for range 20 {
			c := dialTCP(t, addr)
			io.WriteString(c, "POST /"+name+" HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}")
			<-begun
			leave(c)
			select {
			case got := <-ended:
				if got != "/"+name {
					t.Fatalf("%s ended", got)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%s: nothing ended", name)
			}
		}
	}
	stay.Close()
	<-ended
}

// A client that sends more than anybody reads gets its answer nevertheless: the
// connection is not reset under it.
func TestAnswerBeforeTheBody(t *testing.T) {
	addr := overTCP(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	})})
	for range 20 {
		c := dialTCP(t, addr)
		io.WriteString(c, fmt.Sprintf("POST / HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n", 100<<20))
		if _, err := c.Write(make([]byte, 2<<20)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close {
			t.Fatalf("%v, %v", resp, err)
		}
		if text, err := io.ReadAll(resp.Body); string(text) != "too large\n" || err != nil {
			t.Fatalf("%q, %v", text, err)
		}
	}
}

// Real clients, many at once, of bodies and streams of all sizes.
func TestManyClients(t *testing.T) {
	addr := overTCP(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 1000)
		for {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n])
			if r.Header.Get("Flush") != "" {
				w.(http.Flusher).Flush()
			}
			if err != nil {
				return
			}
		}
	})})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 60 {
				size := (i*7919 + j*j*997) % 100_000
				text := strings.Repeat("0123456789", size/10+1)[:size]
				var body io.Reader = strings.NewReader(text)
				if j%3 == 0 {
					body = io.MultiReader(body) // of unknown length: in chunks
				}
				// The answer begins before the request has been read: only what is small, or
				// flushed never, may do that.
				if size > 5000 {
					body = strings.NewReader(text)
				}
				req, _ := http.NewRequest("POST", "http://"+addr+"/", body)
				if j%2 == 0 && size < 900 {
					req.Header.Set("Flush", "1")
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if size < 5000 && (string(got) != text || err != nil) {
					t.Errorf("%d bytes came back of %d: %v", len(got), size, err)
				}
			}
		})
	}
	all.Wait()
}
