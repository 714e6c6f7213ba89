package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// recorder is a backend that keeps the bytes that it gets, and believes nothing
// of them: whoever reads HTTP leniently cannot tell whether it was canonical.
type recorder struct {
	l net.Listener

	model string

	mu       sync.Mutex
	got      []arrived
	problems []string
}

// arrived is a canonical request.
type arrived struct {
	raw                 string
	method, path, query string
	header              []field
	body                []byte
}

// record keeps what comes. With a model it lists that one, so that others are
// refused before they get here; without, it tells nobody what it has.
func record(l net.Listener, model string) *recorder {
	r := &recorder{l: l, model: model}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(conn)
		}
	}()
	return r
}

func (r *recorder) url() string { return "http://" + r.l.Addr().String() }

// take gives what has arrived since the last call, and what was wrong with it.
func (r *recorder) take() (got []arrived, problems []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	got, problems = r.got, r.problems
	r.got, r.problems = nil, nil
	return got, problems
}

func (r *recorder) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 128<<10)
	for {
		raw, err := r.exchange(conn, in)
		if err == io.EOF && len(raw) == 0 {
			return
		}
		if err != nil {
			r.mu.Lock()
			r.problems = append(r.problems, fmt.Sprintf("%v in %q", err, clip(raw)))
			r.mu.Unlock()
			return
		}
	}
}

func clip(b []byte) []byte { return b[:min(len(b), 1000)] }

func (r *recorder) exchange(conn net.Conn, in *bufio.Reader) (raw []byte, err error) {
	for !bytes.HasSuffix(raw, []byte("\r\n\r\n")) {
		part, err := in.ReadSlice('\n')
		raw = append(raw, part...)
		if err != nil {
			return raw, err
		}
	}
	a, length, err := canonical(raw)
	if err != nil {
		return raw, err
	}
	a.body = make([]byte, length)
	if _, err := io.ReadFull(in, a.body); err != nil {
		return raw, fmt.Errorf("the body is shorter than it says: %w", err)
	}
	if n := in.Buffered(); n > 0 {
		rest, _ := in.Peek(n)
		return raw, fmt.Errorf("%q stands behind it", clip(rest))
	}
	if r.probe(a) {
		if a.path == "/v1/models" && r.model == "" {
			_, err = io.WriteString(conn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
			return raw, err
		}
		body := `{"object":"list","data":[{"id":"` + r.model + `"}]}`
		_, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return raw, err
	}
	if err := a.allowed(); err != nil {
		return raw, err
	}
	a.raw = string(raw)
	r.mu.Lock()
	r.got = append(r.got, a)
	r.mu.Unlock()
	_, err = fmt.Fprintf(conn, "HTTP/1.1 %d Recorded\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok", relayedStatus)
	return raw, err
}

// probe: the gateway's own questions bear no id.
func (r *recorder) probe(a arrived) bool {
	return a.method == "GET" && (a.path == "/health" || a.path == "/v1/models") && a.query == "" && len(a.body) == 0 &&
		len(a.header) == 2 && a.header[1].value == "vllm-gateway"
}

var requestLine = regexp.MustCompile(`^([A-Z]+) (/[!$&'()*+,./0-9:;=@A-Z_a-z~-]*)(?:\?([!$%&'()*+,./0-9:;<=>?@A-Z\[\\\]^_` + "`" + `a-z{|}~"-]*))? HTTP/1\.1$`)

// canonical reads a head of which no two readers can think differently.
func canonical(raw []byte) (a arrived, length int, err error) {
	lines := strings.Split(strings.TrimSuffix(string(raw), "\r\n\r\n"), "\r\n")
	m := requestLine.FindStringSubmatch(lines[0])
	if m == nil {
		return a, 0, fmt.Errorf("the request line is %q", lines[0])
	}
	a.method, a.path, a.query = m[1], m[2], m[3]
	seen := map[string]int{}
	for _, l := range lines[1:] {
		name, value, ok := strings.Cut(l, ": ")
		if !ok || !isToken(name) || strings.Contains(name, "_") {
			return a, 0, fmt.Errorf("no header: %q", l)
		}
		if value != strings.Trim(value, " \t") || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return a, 0, fmt.Errorf("no header value: %q", l)
		}
		seen[strings.ToLower(name)]++
		a.header = append(a.header, field{name, value})
		if strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.Atoi(value); err != nil || strconv.Itoa(length) != value {
				return a, 0, fmt.Errorf("the length is %q", value)
			}
		}
	}
	for _, name := range []string{"keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "expect", "x-data-parallel-rank"} {
		if seen[name] > 0 {
			return a, 0, fmt.Errorf("%s has come", name)
		}
	}
	upgrade := a.path == "/v1/realtime" && slices.Contains(lines, "Connection: Upgrade") && slices.Contains(lines, "Upgrade: websocket") && seen["connection"] == 1 && seen["upgrade"] == 1
	if !upgrade && seen["connection"]+seen["upgrade"] > 0 {
		return a, 0, fmt.Errorf("Connection or Upgrade has come")
	}
	if seen["host"] != 1 || seen["content-length"] > 1 || a.method == "POST" && seen["content-length"] == 0 {
		return a, 0, fmt.Errorf("%d hosts, %d lengths", seen["host"], seen["content-length"])
	}
	return a, length, nil
}

// allowed: what a client may have made the gateway ask for.
func (a arrived) allowed() error {
	method, relayed := methodOf(a.path)
	if !relayed || a.method != method && a.method != "OPTIONS" {
		return fmt.Errorf("%s %s is not to be relayed", a.method, a.path)
	}
	ids := 0
	for _, f := range a.header {
		if f.name == "X-Request-Id" {
			ids++
		}
	}
	if ids != 1 {
		return fmt.Errorf("it has %d ids", ids)
	}
	return nil
}
