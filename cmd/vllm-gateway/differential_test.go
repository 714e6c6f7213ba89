package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// same holds what a backend got against what the client said.
func same(a arrived, s spoken) error {
	body := s.body
	if s.path == "/v1/chat/completions" || s.path == "/v1/completions" {
		form := slices.ContainsFunc(s.values("Content-Type"), func(v string) bool { return strings.HasPrefix(v, "multipart/form-data") })
		if !form { // the one edit of a body
			body, _ = openai.Peek(body).AskForUsage(body)
		}
	}
	switch {
	case a.method != s.method || a.path != s.path || a.query != s.query:
		return fmt.Errorf("%s %s?%s was said, %s %s?%s came", s.method, s.path, s.query, a.method, a.path, a.query)
	case !bytes.Equal(a.body, body):
		return fmt.Errorf("the body is %q, of %q", clip(a.body), clip(body))
	}
	named := s.list("Connection")
	for _, f := range a.header {
		switch name := strings.ToLower(f.name); name {
		case "host", "content-length", "x-request-id", "connection", "upgrade":
		default:
			if slices.Contains(named, name) {
				return fmt.Errorf("%s came, which Connection names", f.name)
			}
			if !slices.Contains(s.values(f.name), f.value) {
				return fmt.Errorf("%s: %q came, which nobody said", f.name, f.value)
			}
		}
	}
	return nil
}

// outcome is what one connection's bytes led to.
type outcome struct {
	statuses []int // of the answers, without 1xx
	http2    bool  // the answers are no HTTP/1
	closed   bool  // by the gateway, while the client had its side open
	got      []arrived
	problems []string
}

// judge holds an outcome against what a strict reader makes of the bytes. exact:
// what is sound must have been relayed too; else only the reverse.
func judge(raw []byte, o outcome, exact bool) error {
	requests, how := read(raw)
	if len(o.problems) > 0 {
		return fmt.Errorf("what the backend got is not canonical: %s", strings.Join(o.problems, "; "))
	}
	next := 0
	for _, a := range o.got {
		var err error = fmt.Errorf("nobody said it")
		for ; next < len(requests) && err != nil; next++ {
			if requests[next].status() == relayedStatus {
				err = same(a, requests[next])
			}
		}
		if err != nil {
			return fmt.Errorf("a request reached the backend that must not: %v\n%s", err, a.raw)
		}
	}
	relayed := 0
	for _, status := range o.statuses {
		switch {
		case status == relayedStatus:
			relayed++
		case status == 501 && bytes.Contains(bytes.ToLower(raw), []byte("transfer-encoding")):
		case status == 505 && !bytes.HasSuffix(raw, []byte("HTTP/1.1")):
		case status >= 500:
			return fmt.Errorf("answered %v", o.statuses)
		}
	}
	if relayed != len(o.got) {
		return fmt.Errorf("answered %v, and %d requests reached the backend", o.statuses, len(o.got))
	}
	if len(requests) > 0 && requests[len(requests)-1].last && how == whole && len(o.statuses) > len(requests) {
		return fmt.Errorf("answered %v, though the request ends the connection", o.statuses)
	}
	if !exact {
		return nil
	}
	may := false
	var want []int
	for _, s := range requests {
		may = may || s.may
		want = append(want, s.status())
	}
	if may {
		return nil
	}
	rest := o.statuses
	if len(rest) < len(want) || !slices.Equal(rest[:len(want)], want) {
		return fmt.Errorf("answered %v; want %v", o.statuses, want)
	}
	rest = rest[len(want):]
	switch {
	case o.http2:
	case how == whole && len(rest) > 0, how == broken && len(rest) != 1, how == cut && len(rest) > 1:
		return fmt.Errorf("answered %v; want %v and no more than a refusal", o.statuses, want)
	case how == broken && !o.closed, how == whole && len(requests) > 0 && requests[len(requests)-1].last && !o.closed:
		return fmt.Errorf("answered %v, and the connection is left open", o.statuses)
	}
	return nil
}

// exchange says raw on a connection to the gateway and hears it out.
func exchange(t *testing.T, addr string, r *recorder, raw []byte) (o outcome) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second)) // a hang is a failure, not a wait
	requests, how := read(raw)
	stays, may := how == whole, false
	answers := len(requests)
	for _, s := range requests {
		stays = stays && !s.last
		may = may || s.may || len(s.values("Expect")) > 0 && !s.last
	}
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		conn.Write(raw) // an error is the gateway's refusal
	}()
	in := bufio.NewReader(conn)
	if bytes.HasPrefix(raw, []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")) {
		in.Peek(1) // it speaks HTTP/2 from here on
		o.http2 = true
		o.got, o.problems = r.take()
		return o
	}
	method, _, _ := strings.Cut(string(raw), " ")
	const honest = "GET /health HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n"
	for asked, hushed := false, false; ; {
		if len(o.statuses) == answers && (how == cut || how == alien || may) && !hushed {
			// Not before: to the gateway it is a client that leaves.
			hushed = true
			<-wrote
			conn.(*net.TCPConn).CloseWrite()
		}
		if stays && !may && len(o.statuses) == answers && !asked {
			asked = true
			<-wrote
			io.WriteString(conn, honest)
			method = "GET"
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			// A server that closes before it has read all resets the connection.
			reset := errors.Is(err, syscall.ECONNRESET) && (how == alien || len(o.statuses) > 0)
			if err != io.ErrUnexpectedEOF && err != io.EOF && !reset {
				t.Errorf("%q: no answer: %v", clip(raw), err)
			}
			break
		}
		if io.Copy(io.Discard, resp.Body); method == "HEAD" && resp.StatusCode == 400 {
			io.Copy(io.Discard, in) // net/http's own refusal has a body, whatever was asked
		}
		switch {
		case resp.StatusCode < 200:
		case asked && len(o.statuses) == answers:
			if resp.StatusCode != 200 || !resp.Close {
				t.Errorf("%q: an honest request behind it is answered %d", clip(raw), resp.StatusCode)
			}
			stays = false
		default:
			o.statuses = append(o.statuses, resp.StatusCode)
		}
	}
	o.closed = how == whole && !may || how == broken && !may
	o.got, o.problems = r.take()
	return o
}
