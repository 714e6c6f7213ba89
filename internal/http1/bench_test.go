//go:build unix

package http1

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// both runs a benchmark with our server and with net/http's.
func both(b *testing.B, h http.HandlerFunc, run func(b *testing.B, addr string)) {
	b.Run("http1", func(b *testing.B) {
		run(b, overTCP(b, &Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}))
	})
	b.Run("net", func(b *testing.B) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
		go s.Serve(l)
		b.Cleanup(func() { s.Close() })
		run(b, l.Addr().String())
	})
}

// processor reports what all of this process takes of the processor, the client too.
func processor(b *testing.B) (stop func()) {
	used := func() time.Duration {
		var u syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

// asks sends a request again and again, and reads its answer, of which it knows how
// it ends.
func asks(b *testing.B, addr, request, end string) {
	c := quicken(dialTCP(b, addr)) // cheap, so that it is the server that is measured
	buf := make([]byte, 64<<10)
	b.ReportAllocs()
	defer processor(b)()
	for b.Loop() {
		if _, err := io.WriteString(c, request); err != nil {
			b.Fatal(err)
		}
		for n := 0; !bytes.HasSuffix(buf[:n], []byte(end)); {
			m, err := c.Read(buf[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += m
		}
	}
}

const clientHeaders = "Host: gateway:9000\r\nAccept: application/json\r\nUser-Agent: OpenAI/Python 2.0.0\r\nAuthorization: Bearer sk-0123456789abcdef0123456789abcdef\r\nAccept-Encoding: identity\r\n"

// as the gateway does: two deadlines for each request.
func deadlines(w http.ResponseWriter) {
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(time.Minute))
	rc.SetWriteDeadline(time.Time{})
}

func BenchmarkGet(b *testing.B) {
	both(b, func(w http.ResponseWriter, r *http.Request) {
		deadlines(w)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"ok":true}`)
	}, func(b *testing.B, addr string) {
		asks(b, addr, "GET /v1/models HTTP/1.1\r\n"+clientHeaders+"\r\n", `{"ok":true}`)
	})
}

func BenchmarkPost(b *testing.B) {
	body := `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("Hello! ", 30) + `"}]}`
	both(b, func(w http.ResponseWriter, r *http.Request) {
		deadlines(w)
		io.Copy(io.Discard, r.Body)
		http.NewResponseController(w).SetReadDeadline(time.Time{})
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "11")
		io.WriteString(w, `{"ok":true}`)
	}, func(b *testing.B, addr string) {
		asks(b, addr, "POST /v1/chat/completions HTTP/1.1\r\n"+clientHeaders+"Content-Type: application/json\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body, `{"ok":true}`)
	})
}

// BenchmarkEvent is an event that goes out when the client has got the one before, as
// they do that are some milliseconds apart.
func BenchmarkEvent(b *testing.B) {
	event := []byte("data: " + strings.Repeat("x", 240) + "\n\n")
	next := make(chan bool)
	both(b, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		for <-next {
			w.Write(event)
			rc.Flush()
		}
	}, func(b *testing.B, addr string) {
		c := quicken(dialTCP(b, addr))
		io.WriteString(c, get)
		buf := make([]byte, 4096)
		b.ReportAllocs()
		defer processor(b)()
		for b.Loop() {
			next <- true
			for n := 0; !bytes.HasSuffix(buf[:n], []byte("x\n\n\r\n")); {
				m, err := c.Read(buf[n:])
				if err != nil {
					b.Fatal(err)
				}
				n += m
			}
		}
		next <- false
	})
}

func BenchmarkReadRequest(b *testing.B) {
	head := []byte("POST /v1/chat/completions HTTP/1.1\r\n" + clientHeaders + "Content-Type: application/json\r\nContent-Length: 123\r\nX-Stainless-Lang: python\r\nx-stainless-retry-count: 0\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		var scan headScan
		n, _ := scan.end(head)
		if _, _, err := readRequest(b.Context(), string(head[:n]), scan.lines); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendHead(b *testing.B) {
	h := http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {"chatcmpl-0123456789"}, "Server-Timing": {"ttft;dur=12.34"}, "Content-Length": {"123"}, "Cache-Control": {"no-store"}}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		appendHead(buf, 1, 200, h)
	}
}
