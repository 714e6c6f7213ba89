package http1

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestRequestLines(t *testing.T) {
	for _, tt := range []struct {
		line, method, target string
		minor                int
	}{
		{"GET / HTTP/1.1", "GET", "/", 1},
		{"GET / HTTP/1.0", "GET", "/", 0},
		{"GET / HTTP/1.9", "GET", "/", 9},
		{"!#$%&'*+-.^_`|~ * HTTP/1.1", "!#$%&'*+-.^_`|~", "*", 1},
		{"POST /\xff?a=b HTTP/1.1", "POST", "/\xff?a=b", 1},
	} {
		if method, target, minor, err := parseRequestLine(tt.line); method != tt.method || target != tt.target || minor != tt.minor || err != nil {
			t.Errorf("%q: %q, %q, %d, %v", tt.line, method, target, minor, err)
		}
	}
	for line, want := range map[string]error{
		"GET / HTTP/2.0": errVersion, "GET / HTTP/0.9": errVersion, "GET / HTTP/9.9": errVersion, "PRI * HTTP/2.0": errVersion,
	} {
		if _, _, _, err := parseRequestLine(line); err != want {
			t.Errorf("%q: %v; want %v", line, err, want)
		}
	}
	for _, line := range []string{
		"", " ", "GET", "GET /", "GET  / HTTP/1.1", "GET /  HTTP/1.1", " GET / HTTP/1.1", "GET / HTTP/1.1 ", "GET / HTTP/1.1\r", "GET\t/ HTTP/1.1", "GET / HTTP/1", "GET / HTTP/1.", "GET / HTTP/1.11", "GET / HTTP/11.1", "GET / http/1.1",
		"GET / HTTP/1.x", "GET / HTTP/x.1", "GET / HTTP/1,1", "G\x00T / HTTP/1.1", "G(T / HTTP/1.1", "GET /\x00 HTTP/1.1", "GET /\x7f HTTP/1.1", "GET /\r HTTP/1.1", "GET /\t HTTP/1.1", "GET / / HTTP/1.1",
	} {
		if _, _, _, err := parseRequestLine(line); err != errRequestLine {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestStatusLines(t *testing.T) {
	for line, want := range map[string]int{"HTTP/1.1 200 OK": 200, "HTTP/1.0 404": 404, "HTTP/1.1 599 ": 599, "HTTP/1.1 100 Go\ton": 100, "HTTP/1.1 200 \xff": 200} {
		if status, _, err := parseStatusLine([]byte(line)); status != want || err != nil {
			t.Errorf("%q: %d, %v", line, status, err)
		}
	}
	for _, line := range []string{"", "HTTP/1.1", "HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 200OK", "HTTP/1.1  200 OK", "HTTP/2.0 200 OK", "HTTP/1.1 099 OK", "HTTP/1.1 +20 OK", "HTTP/1.1 2x0 OK", "ICY 200 OK", "HTTP/1.1\t200 OK", "HTTP/1.1 200 O\rK", "HTTP/1.1 200 O\x00K", "HTTP/1.1 200\tOK"} {
		if status, _, err := parseStatusLine([]byte(line)); err != errStatusLine {
			t.Errorf("%q: %d, %v", line, status, err)
		}
	}
}

func TestHeaders(t *testing.T) {
	for text, want := range map[string]http.Header{
		"":                              {},
		"\r\n":                          {},
		"A: b\r\n\r\n":                  {"A": {"b"}},
		"A: b\nC:d\n":                   {"A": {"b"}, "C": {"d"}},
		"a-b:\t c \t\r\n":               {"A-B": {"c"}},
		"A:\r\nA: \r\na: x\r\n":         {"A": {"", "", "x"}},
		"X_y: 1\r\nwww-auTH: 2":         {"X_y": {"1"}, "Www-Auth": {"2"}},
		"A: b \r\n \t c\r\n\td\r\nE: f": {"A": {"b c d"}, "E": {"f"}},
		"A:\r\n b\r\n \r\n":             {"A": {"b"}},
		"A: b: \xff;\"\\\r\n":           {"A": {"b: \xff;\"\\"}},
	} {
		if h, err := parseHeader([]byte(text)); err != nil || !maps.EqualFunc(h, want, slices.Equal) {
			t.Errorf("%q: %v, %v", text, h, err)
		}
	}
	for _, text := range []string{
		" A: b\r\n", "\tA: b\r\n", "A : b\r\n", "A\r\n", "A\r\n : b\r\n", ": b\r\n", "A b: c\r\n", "A: b\r\n\r\nC: d\r\n", "A: b\x00\r\n", "A: b\rc\r\n", "A: b\r\r\n", "A: \x7f\r\n", "A: \x0b\r\n", "\x00: b\r\n", "A\r: b\r\n", "(A): b\r\n", "Ä: b\r\n", "A: b\r\n\x00\r\n",
		"A: b\r\n c\x00\r\n", "A:\n \r \n", "A:\n \r \nB: c\n",
	} {
		if h, err := parseHeader([]byte(text)); err == nil {
			t.Errorf("%q was taken: %v", text, h)
		}
	}
}

// In eight bytes at a time, too.
func TestSoundValues(t *testing.T) {
	for n := range 20 {
		for at := range n {
			for c := range 256 {
				text := []byte(strings.Repeat("\xffx\t ", 5)[:n])
				text[at] = byte(c)
				if want := c >= ' ' && c != 0x7f || c == '\t'; soundValue(string(text)) != want {
					t.Fatalf("%q: %v", text, !want)
				}
			}
		}
	}
}

// A value that is appended to must not run into its neighbour: they share memory.
func TestHeaderValuesAreApart(t *testing.T) {
	h, err := parseHeader([]byte("A: 1\r\nB: 2\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	h.Add("A", "x")
	if h.Get("B") != "2" {
		t.Errorf("%v", h)
	}
}

// Folding a head as often as can be costs no more than reading it.
func TestManyFolds(t *testing.T) {
	h, err := parseHeader([]byte("A: b\r\n" + strings.Repeat(" c\r\n", 16<<10)))
	if err != nil || len(h.Get("A")) != 1+2*16<<10 {
		t.Errorf("%d bytes, %v", len(h.Get("A")), err)
	}
}

// Wherever reads end, the head's end is found.
func TestHeadScan(t *testing.T) {
	for _, head := range []string{"GET / HTTP/1.1\r\nA: b\r\n\r\n", "GET / HTTP/1.1\nA: b\n\n", "GET / HTTP/1.1\r\nA: b\n\r\n", "\r\n", "\n", "A\r\n \r\n\r\n", "\rA\r\n\r\n"} {
		text := []byte(head + "rest\r\n\r\n")
		for step := 1; step <= len(text); step++ {
			var s headScan
			n, ok := 0, false
			for end := step; !ok && end < len(text)+step; end += step {
				n, ok = s.end(text[:min(end, len(text))])
			}
			if !ok || n != len(head) {
				t.Errorf("%q in steps of %d: %d, %v; want %d", head, step, n, ok, len(head))
			}
		}
	}
}

func TestCommonRequestIsCheap(t *testing.T) {
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway:9000\r\nContent-Type: application/json\r\nAuthorization: Bearer sk-0123456789\r\nUser-Agent: OpenAI/Python 1.0\r\nAccept: */*\r\nContent-Length: 17\r\n\r\n"
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := readRequest(context.Background(), head, 7); err != nil {
			t.Fatal(err)
		}
	}); n > 6 {
		t.Errorf("%.0f allocations", n)
	}
}

// requests are what FuzzRequest begins with, and what TestRequestsAsNetHTTP reads.
var requests = []string{
	"GET / HTTP/1.1\r\nHost: g\r\n\r\n",
	"POST /a?b=c HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\n",
	"POST /%41//b HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
	"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: Chunked\r\nTrailer: A\r\nContent-Length: 7\r\n\r\n2;a=b\r\n{}\r\n0\r\nA: b\r\n\r\nx",
	"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: g\r\n\r\n",
	"CONNECT g:80 HTTP/1.1\r\nHost: h\r\n\r\n",
	"CONNECT /a HTTP/1.1\r\n\r\n",
	"GET http://u:p@h:1/a?b HTTP/1.1\r\nHost: other\r\n\r\n",
	"GET //g/a HTTP/1.1\r\nHost: g\r\nConnection: a, Close\r\n\r\n",
	"GET /a;b=c,d:e@f$g+h&i=j~ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
	"GET /. HTTP/1.2\nHost: g\nA: b\n c\nPragma: no-cache\nExpect: 100-continue\n\n",
	"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 02\r\nContent-Length: 02\r\n\r\n{}",
	"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: gzip\r\nContent-Length: +2\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\nTrailer: content-length\r\n\r\n",
	"GET /\x80 HTTP/1.1\r\nhost:\r\nX_y: \xff\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: g\r\n \r\n\r\n",
}

// asNetHTTP reads a request in both ways. What we take net/http must take too, and
// read likewise: then there is nothing for a smuggler between us and what is like
// net/http.
func asNetHTTP(raw []byte) error {
	var scan headScan
	n, ok := scan.end(raw)
	if !ok {
		return nil
	}
	ours, f, err := readRequest(context.Background(), string(raw[:n]), scan.lines)
	if err != nil {
		return nil
	}
	in := bufio.NewReader(bytes.NewReader(raw))
	theirs, err := http.ReadRequest(in)
	if err != nil {
		return fmt.Errorf("net/http does not take it: %v", err)
	}
	theirs.Host = strings.Trim(theirs.Host, " \t") // a folded line's end is left to it
	for name, values := range theirs.Header {
		for i := range values {
			values[i] = strings.Trim(values[i], " \t")
		}
		if name == "Cache-Control" && ours.Header.Get("Pragma") == "no-cache" && ours.Header["Cache-Control"] == nil {
			delete(theirs.Header, name) // net/http makes it up
		}
	}
	switch {
	case ours.Method != theirs.Method || ours.RequestURI != theirs.RequestURI || !reflect.DeepEqual(ours.URL, theirs.URL):
		return fmt.Errorf("%s %s %#v; net/http: %s %s %#v", ours.Method, ours.RequestURI, ours.URL, theirs.Method, theirs.RequestURI, theirs.URL)
	case ours.Proto != theirs.Proto || ours.ProtoMinor != theirs.ProtoMinor || ours.ProtoMajor != theirs.ProtoMajor || ours.Close != theirs.Close || ours.Host != theirs.Host:
		return fmt.Errorf("%s %d %v %q; net/http: %s %d %v %q", ours.Proto, ours.ProtoMinor, ours.Close, ours.Host, theirs.Proto, theirs.ProtoMinor, theirs.Close, theirs.Host)
	case !maps.EqualFunc(ours.Header, theirs.Header, slices.Equal):
		return fmt.Errorf("%q; net/http: %q", ours.Header, theirs.Header)
	case ours.ContentLength != theirs.ContentLength || !slices.Equal(ours.TransferEncoding, theirs.TransferEncoding):
		return fmt.Errorf("%d %q; net/http: %d %q", ours.ContentLength, ours.TransferEncoding, theirs.ContentLength, theirs.TransferEncoding)
	}
	body, rest := raw[n:], []byte(nil)
	if f.length < 0 {
		if body, rest, err = dechunk(body, 1<<20); err != nil {
			return nil
		}
	} else if int64(len(body)) < f.length {
		return nil
	} else {
		body, rest = body[:f.length], body[f.length:]
	}
	other, err := io.ReadAll(theirs.Body)
	if err != nil || !bytes.Equal(body, other) {
		return fmt.Errorf("the body is %q; net/http: %q, %v", body, other, err)
	}
	if left, _ := io.ReadAll(in); !bytes.Equal(left, rest) {
		return fmt.Errorf("what follows is %q; net/http: %q", rest, left)
	}
	return nil
}

func TestRequestsAsNetHTTP(t *testing.T) {
	for _, raw := range requests {
		if err := asNetHTTP([]byte(raw)); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, raw := range requests {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := asNetHTTP(raw); err != nil {
			t.Error(err)
		}
	})
}

// A response's head is read as net/http reads it, or not.
func FuzzResponseHead(f *testing.F) {
	for _, raw := range []string{"HTTP/1.1 200 OK\r\nContent-Type: a\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.0 404\r\nA: b\r\n c\r\nA: d\r\n\r\n", "HTTP/1.1 100 \nA:\n\n"} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var scan headScan
		n, ok := scan.end(raw)
		if !ok || scan.lines == 0 {
			return
		}
		line := bytes.TrimSuffix(raw[:scan.first-1], []byte("\r"))
		status, minor, err := parseStatusLine(line)
		if err != nil {
			return
		}
		h, err := parseHeader(raw[scan.first:n])
		if err != nil || len(h["Transfer-Encoding"])+len(h["Content-Length"])+len(h["Trailer"]) > 0 {
			return // the body is the client's matter
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), nil)
		if err != nil {
			t.Fatalf("net/http does not take it: %v", err)
		}
		for name, values := range resp.Header {
			for i := range values {
				values[i] = strings.Trim(values[i], " \t")
			}
			if name == "Cache-Control" && h.Get("Pragma") == "no-cache" && h["Cache-Control"] == nil {
				delete(resp.Header, name)
			}
		}
		if hasToken(h["Connection"], "close") && resp.Header["Connection"] == nil {
			delete(h, "Connection") // net/http takes it out
		}
		if resp.StatusCode != status || resp.ProtoMinor != minor || !maps.EqualFunc(h, resp.Header, slices.Equal) {
			t.Errorf("%d %d %q; net/http: %d %d %q", status, minor, h, resp.StatusCode, resp.ProtoMinor, resp.Header)
		}
	})
}
