package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Clients that begin an upload over HTTP/2 and take it back, thousands of times
// on one connection: this once ended the process, through a deadline set on a
// writer whose handler had returned.
func TestUploadsTakenBack(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer backend.Close()
	p := start(t, backend.URL, "--log-level", "info")
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go io.Copy(io.Discard, conn)
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	var batch bytes.Buffer
	batch.WriteString(http2.ClientPreface)
	frames := http2.NewFramer(&batch, nil)
	frames.WriteSettings()
	for id := uint32(1); id < 40_000; id += 2 {
		head.Reset()
		for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "g"}, {":path", "/v1/chat/completions"}, {"content-length", "100"}} {
			encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndHeaders: true})
		frames.WriteData(id, false, []byte("{"))
		frames.WriteRSTStream(id, http2.ErrCodeCancel)
		if id%40 != 39 {
			continue
		}
		if _, err := conn.Write(batch.Bytes()); err != nil {
			break // the server may have had enough of this connection; it must not have died of it
		}
		batch.Reset()
	}
	resp, err := http.Get("http://" + p.addr + "/metrics")
	if err != nil {
		t.Fatalf("%v; its log ends with\n%s", err, tail(p.stderr.String()))
	}
	resp.Body.Close()
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// To a client of HTTP/1.0 the end of the connection is the end of the body: a cut
// one must end in a reset.
func TestCutBodyOverHTTP10(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" {
			return
		}
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"a":1`)
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer backend.Close()
	p := start(t, backend.URL)
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST /v1/chat/completions HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
	got, err := io.ReadAll(conn)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the answer ended with %v; want a reset\n%s", err, got)
	}
}

// Whatever a client puts on the wire, the backend gets what no two readers can
// understand differently, or nothing: see judge.
func TestHostileRequests(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := record(l, "")
	p := start(t, r.url())
	classes := []string{}
	count, seen := map[string]int{}, map[string]bool{}
	relayed, wrong := 0, 0
	honest := func() {
		t.Helper()
		if o := exchange(t, p.addr, r, []byte(posted(`{"model":"m"}`))); !slices.Equal(o.statuses, []int{relayedStatus}) {
			t.Fatalf("an honest request is answered %v", o.statuses)
		}
	}
	for _, h := range corpus() {
		if seen[h.raw] {
			continue
		}
		seen[h.raw] = true
		if count[h.class] == 0 {
			classes = append(classes, h.class)
			honest()
		}
		count[h.class]++
		o := exchange(t, p.addr, r, []byte(h.raw))
		relayed += len(o.got)
		err := judge([]byte(h.raw), o, true)
		if err == nil && h.reach >= 0 && len(o.got) != h.reach {
			err = fmt.Errorf("%d requests reached the backend; want %d (answers: %v)", len(o.got), h.reach, o.statuses)
		}
		if err != nil {
			t.Errorf("%s: %q: %v", h.class, clip([]byte(h.raw)), err)
			if wrong++; wrong == 5 {
				t.Fatal("and so on")
			}
		}
	}
	honest()
	for _, word := range []string{"panic", "level=ERROR", "outcome=internal"} {
		if strings.Contains(p.stderr.String(), word) {
			t.Errorf("%s is in the log:\n%s", word, tail(p.stderr.String()))
		}
	}
	for _, class := range classes {
		t.Logf("%4d %s", count[class], class)
	}
	t.Logf("%4d inputs, of which %d requests reached the backend", len(seen), relayed)
	if len(seen) < 500 {
		t.Errorf("%d inputs are left of the corpus", len(seen))
	}
}
