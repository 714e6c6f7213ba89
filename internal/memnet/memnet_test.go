package memnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

func connect(t *testing.T) (client, server net.Conn, n *Net) {
	t.Helper()
	n = new(Net)
	l, err := n.Listen("a:1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	client, err = n.Dial(context.Background(), "tcp", "a:1")
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server, n
}

// The contract of net.Conn, as the Go project itself tests it.
func TestConnContract(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		c1, c2, _ = connect(t)
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

func TestClosedPeerIsEOFAfterWhatIsInFlight(t *testing.T) {
	client, server, _ := connect(t)
	server.Write([]byte("last words"))
	server.Close()
	got, err := io.ReadAll(client)
	if string(got) != "last words" || err != nil {
		t.Errorf("ReadAll = %q, %v; want the bytes in flight, then EOF", got, err)
	}
	if _, err := client.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write to a closed peer: %v; want EPIPE", err)
	}
}

func TestDialWithoutListenerIsRefused(t *testing.T) {
	_, err := new(Net).Dial(t.Context(), "tcp", "nobody:1")
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial = %v; want ECONNREFUSED", err)
	}
}

func TestKillResets(t *testing.T) {
	client, server, n := connect(t)
	server.Write([]byte("lost"))
	n.Kill("a:1")
	if _, err := client.Read(make([]byte, 9)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after Kill: %v; want ECONNRESET", err)
	}
	if _, err := n.Dial(t.Context(), "tcp", "a:1"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial after Kill: %v; want ECONNREFUSED", err)
	}
}

func TestWritesBlockBeyondTheWindow(t *testing.T) {
	client, server, _ := connect(t)
	client.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	n, err := client.Write(make([]byte, 2*window))
	if n != window || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write = %d, %v; want %d, deadline exceeded", n, err, window)
	}
	_ = server
}

// The reason for this package: virtual time through real HTTP.
func TestVirtualTimeThroughHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n Net
		l, _ := n.Listen("a:1")
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Hour)
			io.Copy(w, r.Body)
		})}
		go srv.Serve(l)
		tr := &http.Transport{DialContext: n.Dial}
		start := time.Now()
		resp, err := (&http.Client{Transport: tr}).Post("http://a:1/", "text/plain", bytes.NewReader([]byte("hello")))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if took := time.Since(start); string(body) != "hello" || took != time.Hour {
			t.Errorf("got %q after %v; want hello after exactly 1h", body, took)
		}
		tr.CloseIdleConnections()
		srv.Close()
	})
}
