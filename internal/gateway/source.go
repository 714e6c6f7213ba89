package gateway

import (
	"context"
	"net"
	"net/url"
)

type source struct {
	url *url.URL
}

type endpoint struct {
	name   string
	url    *url.URL
	host   string
	weight int
}

func parseSource(s string) (source, error) {
	u, err := ParseBackend(s)
	return source{url: u}, err
}

func (s source) String() string { return s.url.String() }
func (s source) fixed() ([]endpoint, bool) {
	return []endpoint{{s.url.Host, s.url, s.url.Host, 1}}, true
}
func (s source) tlsName() string { return "" }
func (s source) lookup(ctx context.Context, r *net.Resolver) ([]endpoint, error) {
	return nil, nil
}
