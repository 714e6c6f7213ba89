package http1

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// Shutdown ends what is idle at once, what has said nothing after a while, and tells
// the rest with their answers.
func TestShutdown(t *testing.T) {
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		time.Sleep(3 * time.Second)
	}, func(r *rig) {
		idle, busy, silent, half := r.dial(), r.dial(), r.dial(), r.dial()
		io.WriteString(idle, get)
		time.Sleep(4 * time.Second)
		silent.Close()
		silent = r.dial()
		io.WriteString(busy, get+get)
		io.WriteString(half, "GET / HTTP/1.1\r\n")
		synctest.Wait()
		began := time.Now()
		ended := make(chan error)
		go func() { ended <- r.Shutdown(context.Background()) }()
		until := func(name string, c net.Conn, want time.Duration, text string) {
			all, _ := io.ReadAll(c)
			if took := time.Since(began); took != want || dates.ReplaceAllString(string(all), "") != text {
				t.Errorf("%s: %q after %v; want %q after %v", name, all, took, text, want)
			}
		}
		until("idle", idle, 0, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		if _, err := r.network.Dial(r.t.Context(), "tcp", "server:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the port: %v", err)
		}
		io.WriteString(half, "Host: g\r\n\r\n")
		closed := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
		until("busy", busy, 3*time.Second, closed)
		until("half a head", half, 3*time.Second, closed)
		until("silent", silent, 5*time.Second, "")
		if err := <-ended; err != nil || time.Since(began) != 5*time.Second {
			t.Errorf("Shutdown gave %v after %v", err, time.Since(began))
		}
	})
}

func TestShutdownInTime(t *testing.T) {
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		time.Sleep(time.Second)
	}, func(r *rig) {
		c := r.dial()
		io.WriteString(c, get)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
		defer cancel()
		if err := r.Shutdown(ctx); err != context.DeadlineExceeded {
			t.Errorf("Shutdown gave %v", err)
		}
		r.Close() // ends the context
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
		began := time.Now()
		if err := r.Shutdown(r.t.Context()); err != nil || time.Since(began) != time.Second {
			t.Errorf("Shutdown gave %v after %v", err, time.Since(began))
		}
		l, _ := r.network.Listen("server:2")
		if err := r.Serve(l); err != http.ErrServerClosed {
			t.Errorf("Serve gave %v", err)
		}
	})
}

// failing is a listener without descriptors, for a while.
type failing struct {
	net.Listener
	errors []error
	asked  []time.Time
}

func (l *failing) Accept() (net.Conn, error) {
	l.asked = append(l.asked, time.Now())
	if len(l.errors) == 0 {
		return l.Listener.Accept()
	}
	err := l.errors[0]
	l.errors = l.errors[1:]
	return nil, err
}

func TestAcceptGoesOn(t *testing.T) {
	serve(t, func(http.ResponseWriter, *http.Request) {}, func(r *rig) {
		full := &net.OpError{Op: "accept", Err: syscall.EMFILE}
		l := &failing{errors: []error{full, full, full, full, full, full, full, full, full, full, errors.New("for good")}}
		l.Listener, _ = r.network.Listen("server:2")
		if err := r.Serve(l); err == nil || err.Error() != "for good" {
			t.Errorf("Serve gave %v", err)
		}
		if took := l.asked[10].Sub(l.asked[0]); took != 2275*time.Millisecond+1*time.Second || l.asked[10].Sub(l.asked[9]) != time.Second {
			t.Errorf("asked ten times within %v", took)
		}
		if n := strings.Count(r.log.String(), "too many open files; retrying in "); n != 10 {
			t.Errorf("logged %s", r.log.String())
		}
	})
}

// Connections that begin in HTTP/2 are given away, with all that they have said; what
// only begins so is not.
func TestPreface(t *testing.T) {
	serve(t, func(http.ResponseWriter, *http.Request) {}, func(r *rig) {
		r.HTTP2 = func(c net.Conn) {
			go func() {
				defer c.Close()
				time.Sleep(time.Hour) // it has no deadline
				io.CopyN(c, c, int64(len(preface+"ahead and after")))
			}()
		}
		for _, piece := range []int{1, 3, 1000} {
			c := r.dial()
			for s := preface + "ahead"; s != ""; s = s[min(piece, len(s)):] {
				io.WriteString(c, s[:min(piece, len(s))])
				synctest.Wait()
			}
			io.WriteString(c, " and after")
			if all, err := io.ReadAll(c); string(all) != preface+"ahead and after" || err != nil {
				t.Errorf("%q, %v", all, err)
			}
		}
		for _, raw := range []string{preface[:len(preface)-1] + "x", "PRI * HTTP/2.0\r\n\r\nGET", get + preface, "PRI * HTTP/2.0\r\nA: b\r\n\r\n"} {
			got := r.said(raw)
			if raw[0] == 'G' {
				got = strings.TrimPrefix(got, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
			if !strings.HasPrefix(got, "HTTP/1.1 505 ") {
				t.Errorf("%q: %q", raw, got)
			}
		}
		began := time.Now()
		if got := r.said(preface[:20]); got != "" || time.Since(began) != 10*time.Second {
			t.Errorf("half of it: %q after %v", got, time.Since(began))
		}
	})
}

// A connection with nothing but a line end behind its last request is idle.
func TestLineEndsAreNoRequest(t *testing.T) {
	serve(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(15 * time.Second) // longer than a head may take
		io.WriteString(w, "a")
	}, func(r *rig) {
		c := r.dial()
		defer c.Close()
		in := bufio.NewReader(c)
		for range 2 {
			io.WriteString(c, "POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}\r\n")
			if _, err := http.ReadResponse(in, nil); err != nil {
				t.Fatal(err)
			}
			if b, err := in.ReadByte(); b != 'a' || err != nil {
				t.Fatalf("%q, %v", b, err)
			}
			time.Sleep(time.Second)
		}
		start := time.Now()
		if err := r.Shutdown(context.Background()); err != nil || time.Since(start) > 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}
