package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// source is what one --backend names: a server, or a DNS name that stands for
// servers which come and go.
type source struct {
	kind   kind
	scheme string // to connect with: http or https
	name   string // a host, an address, or a DNS name
	port   string // "" of kind srv: its records have it
}

// kind is who knows the backends of a source.
type kind string

const (
	static kind = ""     // the flag: exactly one
	hosts  kind = "dns+" // A and AAAA records: a backend for each address
	srv    kind = "srv+" // SRV records: a backend for each target and port
)

// endpoint is a backend as a source gives it.
type endpoint struct {
	// name is the label of metrics: host:port as it was written, address:port of
	// hosts, target:port of srv.
	name string
	// url is where to connect: scheme and host:port.
	url *url.URL
	// host is what the server is called: the name in its certificate. For a host
	// with a port see hostHeader.
	host string
	// weight is the backend's share beside those of the same source: 1 where
	// nothing says else.
	weight int
}

// hostHeader is what a request to the endpoint says in its Host header.
func (e endpoint) hostHeader() string { return net.JoinHostPort(e.host, e.url.Port()) }

// errNoRecords: the name does not exist, or has no records of the kind asked for.
// A DNS server that fails gives other errors.
var errNoRecords = errors.New("no such DNS name, or no records of it")

// maxEndpoints bounds the backends of one source: each is probed and has its
// series of metrics.
const maxEndpoints = 1024

// forms are the ways to write a backend.
const forms = "http://host:port, or https; dns+http://name:port for each address of a DNS name; srv+http://_port._tcp.name for its SRV records"

// parseSource takes the forms and nothing more: a path that was named would be
// asked for by nobody.
func parseSource(s string) (source, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return source{}, errors.New("not a URL; write " + forms)
	}
	src := source{scheme: u.Scheme}
	for _, k := range []kind{hosts, srv} {
		if rest, ok := strings.CutPrefix(u.Scheme, string(k)); ok {
			src.kind, src.scheme = k, rest
		}
	}
	if src.scheme != "http" && src.scheme != "https" {
		return source{}, fmt.Errorf("scheme %q; write %s", u.Scheme, forms)
	}
	if u.Hostname() == "" {
		return source{}, errors.New("no host; write " + forms)
	}
	if src.kind == srv && u.Port() != "" {
		return source{}, fmt.Errorf("port %s; the SRV records have it: write %s://%s", u.Port(), u.Scheme, u.Hostname())
	}
	if src.name, src.port, err = server(u, src.scheme); err != nil {
		return source{}, err
	}
	switch src.kind {
	case static:
		return src, nil
	case srv:
		src.port = ""
	}
	if _, err := netip.ParseAddr(src.name); err == nil {
		return source{}, fmt.Errorf("an address is no DNS name; write %s://%s", src.scheme, net.JoinHostPort(src.name, cmp.Or(src.port, "port")))
	}
	if !isName(src.name) {
		return source{}, fmt.Errorf("%q is no DNS name: those are of letters, digits, hyphens and dots", src.name)
	}
	return src, nil
}

// ParseBackend takes scheme://host:port of one server and nothing more, so that
// what the gateway sends is exactly the paths of its list. The host of the URL
// that it returns always has a port.
func ParseBackend(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "":
		return nil, errors.New("not a URL; write http://host:port")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("scheme %q; write http://host:port or https://host:port", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("no host; write http://host:port")
	}
	host, port, err := server(u, u.Scheme)
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(host, port)}, nil
}

// server gives host and port of a URL that has nothing more; the port of the
// scheme where it names none.
func server(u *url.URL, scheme string) (host, port string, err error) {
	switch {
	case u.User != nil:
		return "", "", errors.New("a user name or password in the URL would end up in logs; leave it out")
	case strings.ContainsFunc(u.Hostname(), func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return "", "", fmt.Errorf("host %q; write it in ASCII (names in other letters as xn--…)", u.Hostname())
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return "", "", fmt.Errorf("only the server is named, not a path; write %s://%s", u.Scheme, u.Host)
	}
	if u.Port() == "" {
		if scheme == "https" {
			return u.Hostname(), "443", nil
		}
		return u.Hostname(), "80", nil
	}
	n, err := strconv.Atoi(u.Port())
	if err != nil || n < 1 || n > 65535 {
		return "", "", fmt.Errorf("port %s; write one from 1 to 65535", u.Port())
	}
	return u.Hostname(), strconv.Itoa(n), nil
}

// isName reports whether DNS can be asked for a name. The underscore is of SRV
// names.
func isName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if len(s) > 253 || strings.Trim(s, "0123456789.") == "" { // half an address
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			switch c := label[i]; {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
			case c == '-' && i > 0 && i < len(label)-1:
			default:
				return false
			}
		}
	}
	return true
}

// String is the source as one may write it; the same for two that are the same.
func (s source) String() string {
	host := strings.ToLower(s.name)
	if s.port != "" {
		host = net.JoinHostPort(host, s.port)
	}
	return (&url.URL{Scheme: string(s.kind) + s.scheme, Host: host}).String()
}

// newResolver gives the resolver that lookup is meant for; dial nil is the
// system's. An answer without the addresses of one family, because the server
// failed at that question, would take half of the backends away: strict errors
// make it an error. Go's own resolver keeps to that on every system.
func newResolver(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *net.Resolver {
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: dial}
}

// lookup gives the backends of a source as they are now, in the order of their
// names, each once, at least one. The error of a name without any is
// errNoRecords; it may be a moment's (a DNS server that has just started), so
// that what was known before is better than nothing either way.
//
// Names are looked up as any program does, with the search domains of
// /etc/resolv.conf: in Kubernetes that makes vllm and vllm.namespace names.
func (s source) lookup(ctx context.Context, r *net.Resolver) (list []endpoint, err error) {
	switch s.kind {
	case static:
		return []endpoint{s.endpoint(s.name, s.port, s.name, 1)}, nil
	case hosts:
		list, err = s.lookupHosts(ctx, r)
	case srv:
		list, err = s.lookupSRV(ctx, r)
	}
	switch {
	case notFound(err), err == nil && len(list) == 0:
		return nil, fmt.Errorf("look up %s: %w", s, errNoRecords)
	case err != nil:
		return nil, fmt.Errorf("look up %s: %w", s, err)
	}
	slices.SortFunc(list, func(a, b endpoint) int {
		return cmp.Or(cmp.Compare(a.name, b.name), b.weight-a.weight)
	})
	list = slices.CompactFunc(list, func(a, b endpoint) bool { return a.name == b.name })
	if len(list) > maxEndpoints {
		return nil, fmt.Errorf("look up %s: it names %d backends; at most %d are taken", s, len(list), maxEndpoints)
	}
	return list, nil
}

func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

func (s source) lookupHosts(ctx context.Context, r *net.Resolver) ([]endpoint, error) {
	found, err := r.LookupIPAddr(ctx, s.name)
	if notFound(err) {
		// Where one family has no records and the question for the other failed,
		// Go 1.26 gives the error that comes last. Asked one by one, each gives
		// its own.
		for _, family := range []string{"ip4", "ip6"} {
			if _, one := r.LookupIP(ctx, family, s.name); one != nil && !notFound(one) {
				err = one
			}
		}
	}
	if err != nil {
		return nil, err
	}
	var list []endpoint
	for _, f := range found {
		a, err := address(f)
		if err != nil {
			return nil, err
		}
		list = append(list, s.endpoint(a.String(), s.port, strings.TrimSuffix(s.name, "."), 1))
	}
	return list, nil
}

// address gives an address that a server can have. 0.0.0.0 is what some DNS
// servers say of a name that they block, and to connect to it is to connect to
// this machine; a zone (of /etc/hosts) has no place in a label or a URL.
func address(found net.IPAddr) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(found.IP)
	a = a.Unmap()
	if !ok || a.IsUnspecified() || a.IsMulticast() || found.Zone != "" {
		return netip.Addr{}, fmt.Errorf("%s is no address of a server", found.String())
	}
	return a, nil
}

// lookupSRV takes the records of the lowest priority number only: the others are
// for when those are gone, and nobody here would know that they are.
func (s source) lookupSRV(ctx context.Context, r *net.Resolver) ([]endpoint, error) {
	_, records, err := r.LookupSRV(ctx, "", "", s.name)
	if err != nil {
		return nil, err
	}
	var list []endpoint
	for _, rec := range records { // by priority
		if rec.Priority != records[0].Priority {
			break
		}
		// Some DNS servers answer in the letters of the question, which resolvers
		// mix at random: a label must not change with them.
		target := strings.ToLower(strings.TrimSuffix(rec.Target, "."))
		if target == "" {
			continue // RFC 2782: the service is not to be had here
		}
		if rec.Port == 0 {
			return nil, fmt.Errorf("the record of %s has port 0", target)
		}
		// A weight of 0 is a very small share, not none (RFC 2782).
		list = append(list, s.endpoint(target, strconv.Itoa(int(rec.Port)), target, max(1, int(rec.Weight))))
	}
	return list, nil
}

// endpoint: at is where to connect.
func (s source) endpoint(at, port, host string, weight int) endpoint {
	name := net.JoinHostPort(at, port)
	return endpoint{name: name, url: &url.URL{Scheme: s.scheme, Host: name}, host: host, weight: weight}
}
