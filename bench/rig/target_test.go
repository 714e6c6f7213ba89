package rig

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/vllm-gateway/vllm-gateway/internal/config"
)

func testSite(tls bool) site {
	return site{Dir: "/dir", Listen: "127.0.0.1:9000", TLS: tls, Cert: "/dir/cert.pem", Key: "/dir/key.pem", Both: "/dir/both.pem", Backends: []string{"127.0.0.1:1", "127.0.0.1:2"}, Keys: keys(2), Files: 20000, Connections: 9900}
}

// Each has what it needs to be told, in the clear and with TLS.
func TestConfigurations(t *testing.T) {
	for _, file := range []string{"nginx.conf", "haproxy.cfg", "gateway.yaml"} {
		for _, tls := range []bool{false, true} {
			text, err := target{config: file}.configure(testSite(tls))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"127.0.0.1:9000", "127.0.0.1:1", "127.0.0.1:2"} {
				if !bytes.Contains(text, []byte(want)) {
					t.Errorf("%s has no %s:\n%s", file, want, text)
				}
			}
			if got := bytes.Contains(text, []byte(".pem")); got != tls {
				t.Errorf("%s, TLS %v: a certificate is in it: %v", file, tls, got)
			}
		}
	}
}

// The gateway takes its file as it stands: callers, backends, and limits for all.
func TestGatewayTakesItsFile(t *testing.T) {
	text, err := target{config: "gateway.yaml"}.configure(testSite(true))
	if err != nil {
		t.Fatal(err)
	}
	f, err := config.Parse("gateway.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(f.Keys.Value) != 2 || len(f.Backends.Value) != 2 || !f.Limits.Value.TokensPerDay.Set() || !f.Limits.Value.Concurrency.Set() {
		t.Errorf("read %+v", f)
	}
}

func TestTargetsThatAreWanted(t *testing.T) {
	o := Options{Base: "nginx", Gateways: []string{"target_test.go", "old=nowhere"}, ReverseProxy: "nowhere"}
	for name, tt := range map[string]struct {
		change func(*Options)
		names  []string
		want   string // of the error
	}{
		"direct alone":        {func(o *Options) { o.Targets = []string{"direct"} }, []string{"direct"}, ""},
		"one that is no file": {func(o *Options) { o.Targets = []string{"direct", "old"} }, nil, "nowhere: make bench-build"},
		"no such target":      {func(o *Options) { o.Targets = []string{"caddy"} }, nil, `no target "caddy"`},
		"no such base":        {func(o *Options) { o.Base = "caddy" }, nil, `no target "caddy"`},
		"two of a name":       {func(o *Options) { o.Gateways = []string{"a", "gateway=b"} }, nil, `two targets are called "gateway"`},
		"a curve of nginx":    {func(o *Options) { o.Curves, o.Targets = true, []string{"nginx"} }, nil, `no target "nginx"; there are gateway, old`},
	} {
		o := o
		tt.change(&o)
		var names []string
		all, err := o.choose()
		for _, one := range all {
			names = append(names, one.name)
		}
		if !slices.Equal(names, tt.names) || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want %v, %q", name, names, err, tt.names, tt.want)
		}
	}
}
