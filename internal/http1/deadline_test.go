package http1

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

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
