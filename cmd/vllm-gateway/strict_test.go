package main

import (
	"bytes"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// spoken is one request as a strict reader finds it in a client's bytes.
type spoken struct {
	method, target, path, query string
	header                      []field
	body                        []byte
	http10                      bool
	chunked                     bool
	// last: nothing behind it on this connection may be taken for a request.
	last bool
	// may: it may be relayed or refused; either is sound.
	may bool
}

type field struct{ name, value string }

func (s spoken) values(name string) (all []string) {
	for _, f := range s.header {
		if strings.EqualFold(f.name, name) {
			all = append(all, f.value)
		}
	}
	return all
}

// list gives the members of a comma-separated header.
func (s spoken) list(name string) (all []string) {
	for _, v := range s.values(name) {
		for member := range strings.SplitSeq(v, ",") {
			all = append(all, strings.ToLower(strings.Trim(member, " \t")))
		}
	}
	return all
}

// How a client's bytes end, for a strict reader.
type ending int

const (
	whole  ending = iota // with a request, or nothing
	broken               // in what is no request
	cut                  // within a request
	alien                // with a beginning of HTTP/2: no request of HTTP/1 follows
)

// most is what a head may measure; beyond limit it may be refused.
const (
	limit = 64 << 10
	most  = limit + 4096
)

// read is RFC 9112, read strictly and without net/http: what a client's bytes on
// one connection mean. Where the RFC leaves a choice to the server (a bare LF
// ends a line, a folded line is one line), it takes what servers take. Bytes
// behind a request whose framing leaves doubts mean nothing.
func read(raw []byte) (requests []spoken, how ending) {
	for after := ""; ; {
		if after == "POST" { // old browsers send a line end behind a body
			for range 4 {
				if len(raw) > 0 && (raw[0] == '\r' || raw[0] == '\n') {
					raw = raw[1:]
				}
			}
		}
		if len(raw) == 0 {
			return requests, whole
		}
		s, rest, how := readOne(raw)
		if how != whole {
			return requests, how
		}
		requests = append(requests, s)
		if s.last {
			return requests, whole
		}
		raw, after = rest, s.method
	}
}

// line cuts a line off; soundness of what is in it is the caller's matter.
func line(raw []byte) (text string, rest []byte, ok bool) {
	at := bytes.IndexByte(raw, '\n')
	if at < 0 {
		return "", raw, false
	}
	return strings.TrimSuffix(string(raw[:at]), "\r"), raw[at+1:], true
}

func readOne(raw []byte) (s spoken, rest []byte, how ending) {
	text, rest, ok := line(raw)
	switch {
	case !ok && len(raw) > most:
		return s, raw, broken
	case !ok:
		return s, raw, cut
	case text == "PRI * HTTP/2.0":
		return s, raw, alien
	}
	parts := strings.Split(text, " ")
	if len(parts) != 3 || !isToken(parts[0]) || parts[1] == "" || !regexp.MustCompile(`^HTTP/1\.[0-9]$`).MatchString(parts[2]) {
		return s, raw, broken
	}
	s.method, s.target, s.http10 = parts[0], parts[1], parts[2] == "HTTP/1.0"
	for {
		if text, rest, ok = line(rest); len(raw)-len(rest) > most || !ok && len(raw) > most {
			return s, raw, broken
		} else if !ok {
			return s, raw, cut
		}
		if text == "" {
			break
		}
		if text[0] == ' ' || text[0] == '\t' {
			if len(s.header) == 0 {
				return s, raw, broken
			}
			f := &s.header[len(s.header)-1]
			f.value = strings.TrimLeft(f.value+" "+strings.Trim(text, " \t"), " \t")
			continue
		}
		name, value, ok := strings.Cut(text, ":")
		if !ok || !isToken(name) {
			return s, raw, broken
		}
		s.header = append(s.header, field{name, strings.Trim(value, " \t")})
	}
	s.may = len(raw)-len(rest) > limit
	for i, f := range s.header {
		s.header[i].value = strings.TrimRight(f.value, " \t")
		if strings.ContainsFunc(f.value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return s, raw, broken
		}
	}
	if hosts := s.values("Host"); len(hosts) > 1 || len(hosts) == 0 && !s.http10 && s.method != "CONNECT" {
		return s, raw, broken
	} else if len(hosts) == 1 && !regexp.MustCompile(`^[a-zA-Z0-9.:-]*$`).MatchString(hosts[0]) {
		s.may = true
	}
	for _, e := range s.values("Expect") {
		if !strings.EqualFold(e, "100-continue") {
			if s.may = strings.Contains(strings.ToLower(e), "100-continue"); !s.may {
				return s, raw, broken
			}
		}
	}
	if !s.aim() {
		return s, raw, broken
	}
	s.last = s.http10 || slices.Contains(s.list("Connection"), "close")
	if codings := s.values("Transfer-Encoding"); len(codings) > 0 {
		s.last = true
		if !s.http10 { // 1.0 knows no Transfer-Encoding
			s.chunked = true
			if len(codings) > 1 || !strings.EqualFold(codings[0], "chunked") {
				return s, raw, broken
			}
			extra := 0
			s.body, rest, extra, how = dechunk(rest)
			s.may = s.may || extra > 3500
			return s, rest, how
		}
	}
	length := 0
	for i, v := range s.values("Content-Length") {
		n, err := strconv.ParseUint(v, 10, 62)
		if err != nil || strings.Trim(v, "0123456789") != "" || i > 0 && v != s.values("Content-Length")[0] {
			return s, raw, broken
		}
		length = int(n)
	}
	if length > len(rest) {
		return s, raw, cut
	}
	s.body = rest[:length]
	return s, rest[length:], whole
}

// aim takes the target apart. false: it is no target.
func (s *spoken) aim() bool {
	if strings.ContainsFunc(s.target, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return false
	}
	t := s.target
	if _, after, ok := strings.Cut(t, "://"); ok && t[0] != '/' {
		at := strings.IndexAny(after, "/?")
		if at < 0 {
			at = len(after)
		}
		scheme := regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]*$`).MatchString(t[:len(t)-len(after)-3])
		s.may = s.may || !scheme || !regexp.MustCompile(`^[a-z0-9.-]+(:[0-9]+)?$`).MatchString(after[:at])
		t = after[at:]
	} else if t[0] != '/' {
		s.may = true // "*", an authority, or nothing known
		if scheme, path, ok := strings.Cut(t, ":"); ok && isToken(scheme) && strings.HasPrefix(path, "/") {
			t = path
		}
	}
	s.may = s.may || s.method == "CONNECT" && s.target[0] != '/'
	s.path, s.query, _ = strings.Cut(t, "?")
	if _, err := url.PathUnescape(s.path); err != nil {
		if s.method == "CONNECT" || s.may {
			return true
		}
		return false
	}
	return true
}

// dechunk also gives how much stood in extensions: servers have limits for that.
func dechunk(raw []byte) (body, rest []byte, extra int, how ending) {
	for {
		text, after, ok := line(raw)
		if !ok {
			return nil, raw, extra, cut
		}
		if !bytes.HasPrefix(raw[len(text):], []byte("\r\n")) || strings.Contains(text, "\r") {
			return nil, raw, extra, broken
		}
		size, extension, extended := strings.Cut(text, ";")
		extra += len(extension)
		if !extended {
			size = strings.TrimRight(size, " \t")
		}
		if size == "" || len(size) > 16 || strings.Trim(size, "0123456789abcdefABCDEF") != "" {
			return nil, raw, extra, broken
		}
		n, _ := strconv.ParseUint(size, 16, 64)
		raw = after
		if n == 0 {
			break
		}
		if uint64(len(raw)) < n {
			return nil, raw, extra, cut
		}
		body = append(body, raw[:n]...)
		switch raw = raw[n:]; {
		case len(raw) < 2:
			if len(raw) == 1 && raw[0] != '\r' {
				return nil, raw, extra, broken
			}
			return nil, raw, extra, cut
		case string(raw[:2]) != "\r\n":
			return nil, raw, extra, broken
		}
		raw = raw[2:]
	}
	for first := true; ; first = false { // trailers: nobody passes them on, whatever their names
		text, after, ok := line(raw)
		if !ok {
			return nil, raw, extra, cut
		}
		raw = after
		if text == "" {
			return body, raw, extra, whole
		}
		name, value, found := strings.Cut(text, ":")
		folded := !first && (text[0] == ' ' || text[0] == '\t')
		if !folded && (!found || !isToken(strings.ReplaceAll(name, " ", "-")) || name[0] == ' ') || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return nil, raw, extra, broken
		}
	}
}

func isToken(s string) bool {
	return s != "" && strings.Trim(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// paths are those that docs/configuration.md promises to relay, with their methods.
var paths = map[string]string{}

func init() {
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		panic(err)
	}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*) \\| relayed").FindAllStringSubmatch(string(doc), -1) {
		method := ""
		for _, cell := range regexp.MustCompile("`([A-Z]* ?)(/[^`]*)`").FindAllStringSubmatch(row[1], -1) {
			if cell[1] != "" {
				method = strings.TrimSpace(cell[1])
			}
			paths[cell[2]] = method
		}
	}
}

var oneResponse = regexp.MustCompile(`^/v1/responses/[a-zA-Z0-9_-]{1,128}(/cancel)?$`)

// methodOf gives the one method of a relayed path, besides OPTIONS.
func methodOf(path string) (method string, relayed bool) {
	if m := oneResponse.FindStringSubmatch(path); m != nil {
		if m[1] != "" {
			return "POST", true
		}
		return "GET", true
	}
	method, relayed = paths[path]
	return method, relayed
}

// relayedStatus is what the recorder answers: the gateway never answers so by
// itself.
const relayedStatus = 299

// status is how a sound request must be answered.
func (s spoken) status() int {
	if s.path == "/health" || s.path == "/metrics" {
		if s.method != "GET" && s.method != "HEAD" {
			return 405
		}
		return 200
	}
	method, relayed := methodOf(s.path)
	switch {
	case !relayed:
		return 404
	case s.method != method && s.method != "OPTIONS":
		return 405
	case !soundQuery(s.query):
		return 400
	}
	if upgrade := s.values("Upgrade"); s.path == "/v1/realtime" && s.method == "GET" && (len(upgrade) == 0 || !strings.EqualFold(upgrade[0], "websocket")) {
		return 426
	}
	return relayedStatus
}

// soundQuery: RFC 3986's characters, and whole escapes.
func soundQuery(q string) bool {
	if strings.ContainsFunc(q, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }) {
		return false
	}
	_, err := url.ParseQuery(q)
	return err == nil
}
