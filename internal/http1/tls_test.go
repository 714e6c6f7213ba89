package http1

import (
	"bufio"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// certificate is one that httptest has.
func certificate(t *testing.T) tls.Certificate {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return s.TLS.Certificates[0]
}

// overTCP runs a server on a port.
func overTCP(t testing.TB, s *Server) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { s.Serve(l); close(ended) }()
	t.Cleanup(func() { s.Close(); <-ended })
	return l.Addr().String()
}

func TestTLS(t *testing.T) {
	var logged lockedBuffer
	left := make(chan struct{})
	s := &Server{ReadHeaderTimeout: 10 * time.Second, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate(t)}}, ErrorLog: log.New(&logged, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			switch r.URL.Path {
			case "/leave":
				<-r.Context().Done()
				close(left)
			case "/hijack":
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				secure, ok := conn.(*tls.Conn)
				if !ok {
					t.Errorf("it is a %T", conn)
				} else if _, ok := secure.NetConn().(interface{ SetLinger(int) error }); !ok {
					t.Errorf("below it is a %T", secure.NetConn())
				}
				io.WriteString(conn, "hijacked")
			default:
				io.WriteString(w, strings.Repeat("a", 100_000))
			}
			if r.TLS == nil || r.TLS.NegotiatedProtocol != "http/1.1" {
				t.Errorf("%+v", r.TLS)
			}
		}),
		HTTP2: func(c net.Conn) {
			defer c.Close()
			if c, ok := c.(*tls.Conn); !ok || c.ConnectionState().NegotiatedProtocol != "h2" {
				t.Errorf("it is a %T", c)
			}
			io.WriteString(c, "two")
		}}
	addr := overTCP(t, s)
	dial := func(protocols ...string) *tls.Conn {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	c := dial("http/1.1")
	in := bufio.NewReader(c)
	for range 3 {
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}")
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); n != 100_000 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	io.WriteString(c, "GET /leave HTTP/1.1\r\nHost: g\r\n\r\n")
	c.Close()
	<-left
	c = dial("http/1.1")
	io.WriteString(c, "GET /hijack HTTP/1.1\r\nHost: g\r\n\r\n")
	if all, _ := io.ReadAll(c); string(all) != "hijacked" {
		t.Errorf("%q", all)
	}
	if all, _ := io.ReadAll(dial("h2", "http/1.1")); string(all) != "two" {
		t.Errorf("%q", all)
	}
	plain, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(plain, get)
	if all, _ := io.ReadAll(plain); !strings.HasSuffix(string(all), "Client sent an HTTP request to an HTTPS server.\n") {
		t.Errorf("%q", all)
	}
	if !strings.Contains(logged.String(), "http: TLS handshake error from 127.0.0.1:") || strings.Contains(logged.String(), "panic") {
		t.Errorf("logged %s", logged.String())
	}
}

// Who says nothing to a server that speaks TLS has as long as for a head.
func TestHandshakeInTime(t *testing.T) {
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	serve(t, func(http.ResponseWriter, *http.Request) {}, func(r *rig) {
		s := &Server{Handler: r.Handler, ReadHeaderTimeout: 10 * time.Second, TLSConfig: config, ErrorLog: r.ErrorLog}
		l, _ := r.network.Listen("server:2")
		ended := make(chan struct{})
		go func() { s.Serve(l); close(ended) }()
		c, err := r.network.Dial(r.t.Context(), "tcp", "server:2")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		io.WriteString(c, "\x16\x03\x01")
		if io.ReadAll(c); time.Since(began) != 10*time.Second {
			t.Errorf("closed after %v", time.Since(began))
		}
		s.Close()
		<-ended
	})
}
