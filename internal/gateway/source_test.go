package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

func TestParseSource(t *testing.T) {
	for s, want := range map[string]string{ // want "": refused
		"http://vllm:8000":               "http://vllm:8000",
		"https://vllm":                   "https://vllm:443",
		"http://vllm/":                   "http://vllm:80",
		"HTTP://VLLM:08000":              "http://vllm:8000",
		"http://10.0.0.1:8000":           "http://10.0.0.1:8000",
		"http://[fd00::1]:8000":          "http://[fd00::1]:8000",
		"http://[fd00::1]":               "http://[fd00::1]:80",
		"dns+http://vllm:8000":           "dns+http://vllm:8000",
		"dns+http://vllm.ns":             "dns+http://vllm.ns:80",
		"dns+https://vllm.ns":            "dns+https://vllm.ns:443",
		"dns+http://vllm.ns.svc.:8000":   "dns+http://vllm.ns.svc.:8000",
		"srv+http://_api._tcp.vllm.ns":   "srv+http://_api._tcp.vllm.ns",
		"srv+https://_api._tcp.vllm.ns/": "srv+https://_api._tcp.vllm.ns",
		"srv+http://vllm.consul":         "srv+http://vllm.consul",
	} {
		src, err := parseSource(s)
		if err != nil || src.String() != want {
			t.Errorf("parseSource(%q) = %q, %v; want %q", s, src, err, want)
		}
	}
	for s, hint := range map[string]string{
		"":                                 "http://host:port",
		"vllm:8000":                        "http://host:port",
		"http://":                          "http://host:port",
		"http://:8000":                     "no host",
		"dns+http://:8000":                 "no host",
		"srv+http://:8000":                 "no host",
		"ftp://vllm:8000":                  "srv+http://_port._tcp.name",
		"dns://vllm:8000":                  "dns+http://name:port",
		"dns+ftp://vllm:8000":              `"dns+ftp"`,
		"dns+dns+http://vllm:8000":         `"dns+dns+http"`,
		"http://vllm:8000/v1":              "write http://vllm:8000",
		"dns+http://vllm:8000/v1":          "write dns+http://vllm:8000",
		"http://vllm:8000?x=1":             "not a path",
		"http://vllm:8000#x":               "not a path",
		"http://me:secret@vllm:8000":       "leave it out",
		"srv+http://me@vllm":               "leave it out",
		"http://vllm:0":                    "from 1 to 65535",
		"http://vllm:65536":                "from 1 to 65535",
		"dns+http://vllm:99999999999999":   "from 1 to 65535",
		"http://vllm:x":                    "not a URL",
		"srv+http://_api._tcp.vllm:8000":   "the SRV records have it: write srv+http://_api._tcp.vllm",
		"dns+http://10.0.0.1:8000":         "write http://10.0.0.1:8000",
		"dns+https://[fd00::1]":            "write https://[fd00::1]:443",
		"srv+http://10.0.0.1":              "write http://10.0.0.1:port",
		"dns+http://10.0.1:8000":           "no DNS name",
		"dns+http://a..b:8000":             "no DNS name",
		"dns+http://-a:8000":               "no DNS name",
		"dns+http://a,b:8000":              "no DNS name",
		"dns+http://é:8000":                "in ASCII",
		"dns+http://" + long(64) + ":8000": "no DNS name",
		"srv+http://" + strings.Repeat(long(49)+".", 6): "no DNS name",
	} {
		src, err := parseSource(s)
		if err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("parseSource(%q) = %q, %v; want an error with %q", s, src, err, hint)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("parseSource(%q) gives the password away: %v", s, err)
		}
	}
}

func long(n int) string { return strings.Repeat("a", n) }

// ParseBackend takes the one form alone.
func TestParseBackend(t *testing.T) {
	if u, err := ParseBackend("https://vllm/"); err != nil || u.String() != "https://vllm:443" {
		t.Errorf("ParseBackend = %v, %v", u, err)
	}
	for s, hint := range map[string]string{
		"dns+http://vllm:8000": `scheme "dns+http"; write http://host:port or https://host:port`,
		"http://:8000":         "no host",
		"http://vllm:0":        "from 1 to 65535",
		"vllm":                 "not a URL",
	} {
		if u, err := ParseBackend(s); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("ParseBackend(%q) = %v, %v; want an error with %q", s, u, err, hint)
		}
	}
}

// What is accepted can be connected to, and its written form says the same.
func FuzzSource(f *testing.F) {
	for _, s := range []string{
		"http://vllm:8000", "https://[fd00::1]:8000/", "dns+http://vllm.ns.svc:8000", "srv+https://_api._tcp.vllm.ns.",
		"http://[fe80::1%25eth0]:80", "http://me@vllm:8000/x?y#z", "http://%41:1", "dns+http://10.0.0.1", "http://<a>:080", "http://[::%25\x84]", "http://ü:1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		src, err := parseSource(s)
		backend, backendErr := ParseBackend(s)
		if (err == nil && src.kind == static) != (backendErr == nil) {
			t.Fatalf("parseSource(%q): %q, %v; ParseBackend: %v, %v", s, src, err, backend, backendErr)
		}
		if err != nil {
			return
		}
		if again, err := parseSource(src.String()); err != nil || again.String() != src.String() {
			t.Fatalf("%q is written %q, which is read as %q, %v", s, src, again, err)
		}
		if src.kind != static {
			u, err := url.Parse("http://" + src.name)
			if err != nil || !bare(u) || u.Host != src.name || (src.kind == srv) != (src.port == "") {
				t.Fatalf("%q has the name %q and the port %q", s, src.name, src.port)
			}
			return
		}
		list, err := src.lookup(t.Context(), nil)
		if err != nil || len(list) != 1 {
			t.Fatalf("%q: %v, %v", s, list, err)
		}
		e := list[0]
		u, err := url.Parse(e.url.String())
		if err != nil || !bare(u) || u.Scheme != "http" && u.Scheme != "https" || u.Host != e.name || u.Host != e.hostHeader() || u.Port() == "" || u.String() != backend.String() {
			t.Fatalf("%q: %+v with the URL %q, which is read as %v, %v; ParseBackend: %v", s, e, e.url, u, err, backend)
		}
	})
}

// bare: a URL that names a server and nothing more.
func bare(u *url.URL) bool {
	return u.Hostname() != "" && u.Path == "" && u.RawQuery == "" && u.Fragment == "" && u.User == nil && u.Opaque == ""
}

// withDNS runs a test before a DNS server of its own.
func withDNS(t *testing.T, test func(*testing.T, *dnsServer, *net.Resolver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, r := startDNS(t, new(memnet.Net))
		test(t, s, r)
	})
}

// lines writes endpoints out: name, URL, Host header, weight.
func lines(list []endpoint) string {
	var b strings.Builder
	for _, e := range list {
		fmt.Fprintln(&b, e.name, e.url, e.hostHeader(), e.weight)
	}
	return b.String()
}

func mustParse(t *testing.T, s string) source {
	t.Helper()
	src, err := parseSource(s)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func TestLookup(t *testing.T) {
	withDNS(t, func(t *testing.T, s *dnsServer, r *net.Resolver) {
		s.set("pods.vllm.test", "10.0.0.12", "10.0.0.2", "fd00::2", "10.0.0.2", "::ffff:10.0.0.2")
		s.set("one.vllm.test.", "10.0.0.3")
		s.setSRV("_api._tcp.vllm.test",
			net.SRV{Target: "b.vllm.test.", Port: 8001, Priority: 1, Weight: 30},
			net.SRV{Target: "a.vllm.test.", Port: 8000, Priority: 1},
			net.SRV{Target: "B.vllm.TEST.", Port: 8001, Priority: 1, Weight: 60},
			net.SRV{Target: "a.vllm.test.", Port: 8001, Priority: 1, Weight: 10},
			net.SRV{Target: "spare.vllm.test.", Port: 8000, Priority: 2, Weight: 1})
		for from, want := range map[string]string{
			"http://vllm:8000":                "vllm:8000 http://vllm:8000 vllm:8000 1\n",
			"https://[fd00::1]":               "[fd00::1]:443 https://[fd00::1]:443 [fd00::1]:443 1\n",
			"dns+http://pods.vllm.test.:8000": "10.0.0.12:8000 http://10.0.0.12:8000 pods.vllm.test:8000 1\n10.0.0.2:8000 http://10.0.0.2:8000 pods.vllm.test:8000 1\n[fd00::2]:8000 http://[fd00::2]:8000 pods.vllm.test:8000 1\n",
			"dns+https://one.vllm.test":       "10.0.0.3:443 https://10.0.0.3:443 one.vllm.test:443 1\n",
			"srv+http://_api._tcp.vllm.test":  "a.vllm.test:8000 http://a.vllm.test:8000 a.vllm.test:8000 1\na.vllm.test:8001 http://a.vllm.test:8001 a.vllm.test:8001 10\nb.vllm.test:8001 http://b.vllm.test:8001 b.vllm.test:8001 60\n",
		} {
			list, err := mustParse(t, from).lookup(t.Context(), r)
			if err != nil || lines(list) != want {
				t.Errorf("%s: %v\n%swant\n%s", from, err, lines(list), want)
			}
		}
		list, _ := mustParse(t, "https://[fd00::1]").lookup(t.Context(), r)
		if len(list) != 1 || list[0].host != "fd00::1" {
			t.Errorf("%+v; a certificate has no brackets", list)
		}
	})
}

// A name without records and a server that fails are told apart: the first may
// be a mistake in the name.
func TestLookupFails(t *testing.T) {
	withDNS(t, func(t *testing.T, s *dnsServer, r *net.Resolver) {
		s.set("empty.vllm.test")
		s.set("blocked.vllm.test", "0.0.0.0")
		s.set("all.vllm.test", "10.0.0.1", "ff02::1")
		s.setSRV("closed.vllm.test", net.SRV{Target: ".", Port: 1})
		s.setSRV("portless.vllm.test", net.SRV{Target: "a.vllm.test."})
		s.setSRV("number.vllm.test", net.SRV{Target: "10.0.0.1.", Port: 8000})
		for from, want := range map[string]string{ // want "": no records
			"dns+http://nobody.vllm.test:8000":  "",
			"dns+http://empty.vllm.test:8000":   "",
			"dns+http://closed.vllm.test:8000":  "",
			"srv+http://nobody.vllm.test":       "",
			"srv+http://empty.vllm.test":        "",
			"srv+http://closed.vllm.test":       "",
			"dns+http://blocked.vllm.test:8000": "0.0.0.0 is no address of a server",
			"dns+http://all.vllm.test:8000":     "ff02::1 is no address of a server",
			"srv+http://portless.vllm.test":     "port 0",
			"srv+http://number.vllm.test":       "invalid names",
		} {
			list, err := mustParse(t, from).lookup(t.Context(), r)
			if err == nil || list != nil || errors.Is(err, errNoRecords) != (want == "") || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %s%v; want an error with %q", from, lines(list), err, want)
			}
			if err != nil && !strings.Contains(err.Error(), from) {
				t.Errorf("the error does not name %s: %v", from, err)
			}
		}
		s.set("pods.vllm.test", "10.0.0.1", "fd00::1")
		s.set("old.vllm.test", "10.0.0.1")
		s.setSRV("_api._tcp.vllm.test", net.SRV{Target: "a.vllm.test.", Port: 8000})
		failing := func(why, from string) {
			t.Helper()
			if list, err := mustParse(t, from).lookup(t.Context(), r); err == nil || errors.Is(err, errNoRecords) {
				t.Errorf("%s, %s: %s%v; want an error of the server", from, why, lines(list), err)
			}
		}
		s.fail(true)
		failing("the server fails", "dns+http://pods.vllm.test:8000")
		failing("the server fails", "dns+http://nobody.vllm.test:8000")
		failing("the server fails", "srv+http://_api._tcp.vllm.test")
		s.fail(false)
		s.refuse(dnsmessage.TypeAAAA, 0)
		failing("half of the answer", "dns+http://pods.vllm.test:8000")
		s.refuse(dnsmessage.TypeA, 0)
		failing("half of the answer", "dns+http://pods.vllm.test:8000")
		// Go's error is that of the question which was answered last.
		failing("half of the answer", "dns+http://old.vllm.test:8000")
		s.refuse(dnsmessage.TypeA, dnsmessage.TypeAAAA)
		failing("half of the answer, first", "dns+http://old.vllm.test:8000")
		s.refuse(dnsmessage.TypeA, dnsmessage.TypeA)
		failing("half of the answer, last", "dns+http://old.vllm.test:8000")
		s.refuse(0, 0)
		if list, err := mustParse(t, "dns+http://pods.vllm.test:8000").lookup(t.Context(), r); len(list) != 2 {
			t.Errorf("after all that: %s%v", lines(list), err)
		}
	})
}

// A lookup ends with its context, whatever the server does.
func TestLookupEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Net
		l, err := n.Listen("dns:53") // nobody accepts
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		r := newResolver(func(ctx context.Context, network, _ string) (net.Conn, error) {
			return n.Dial(ctx, network, "dns:53")
		})
		for _, from := range []string{"dns+http://pods.vllm.test:8000", "srv+http://_api._tcp.vllm.test"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			_, err := mustParse(t, from).lookup(ctx, r)
			if took := time.Since(start); err == nil || errors.Is(err, errNoRecords) || took != time.Second {
				t.Errorf("%s: %v after %v; want an error after 1s", from, err, took)
			}
			cancel()
		}
	})
}

func TestLookupIsBounded(t *testing.T) {
	withDNS(t, func(t *testing.T, s *dnsServer, r *net.Resolver) {
		var addrs []string
		for i := range maxEndpoints + 1 {
			addrs = append(addrs, fmt.Sprintf("10.0.%d.%d", i/256, i%256))
		}
		src := mustParse(t, "dns+http://pods.vllm.test:8000")
		s.set("pods.vllm.test", addrs[1:]...)
		list, err := src.lookup(t.Context(), r)
		if err != nil || len(list) != maxEndpoints || !slices.IsSortedFunc(list, func(a, b endpoint) int { return strings.Compare(a.name, b.name) }) {
			t.Errorf("%d backends, %v; want %d in order", len(list), err, maxEndpoints)
		}
		s.set("pods.vllm.test", addrs...)
		if list, err := src.lookup(t.Context(), r); err == nil || !strings.Contains(err.Error(), "1025 backends; at most 1024") {
			t.Errorf("%d backends, %v; want an error with both numbers", len(list), err)
		}
	})
}

// DNS gives no zones; /etc/hosts may.
func TestZonesAreRefused(t *testing.T) {
	if a, err := address(net.IPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}); err == nil || !strings.Contains(err.Error(), "fe80::1%eth0") {
		t.Errorf("%v, %v; want an error that names it", a, err)
	}
}
