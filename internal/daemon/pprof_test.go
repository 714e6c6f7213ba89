package daemon

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestCheckPprof(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:6060", "127.1.2.3:0", "[::1]:6060", "[::ffff:127.0.0.1]:6060"} {
		if err := CheckPprof("--pprof", addr); err != nil {
			t.Error(err)
		}
	}
	for _, addr := range []string{":6060", "0.0.0.0:6060", "[::]:6060", "10.0.0.1:6060", "localhost:6060", "127.0.0.1", "6060", "x", "127.0.0.1:x", "127.0.0.1:99999", "128.0.0.1:1", "127.0.0.1.example:1"} {
		if err := CheckPprof("--pprof", addr); err == nil || !strings.Contains(err.Error(), "--pprof "+addr+": must be a loopback address such as 127.0.0.1:6060") {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

func TestServePprof(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := ServePprof(t.Context(), "--pprof", addr, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "the port is taken") || !strings.Contains(err.Error(), "--pprof") {
		t.Errorf("a port that is taken: %v", err)
	}
	l.Close()
	if err := ServePprof(t.Context(), "--pprof", "0.0.0.0:0", slog.New(slog.DiscardHandler)); err == nil {
		t.Error("everybody's address was taken")
	}
	if err := ServePprof(t.Context(), "--pprof", addr, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		path, host, site string
		status           int
		begins           string
	}{
		"heap":           {"/debug/pprof/heap", addr, "", 200, "\x1f\x8b"},
		"by its name":    {"/debug/pprof/goroutine?debug=1", "localhost:7000", "none", 200, "goroutine profile:"},
		"index":          {"/debug/pprof/", addr, "same-origin", 200, "<html>"},
		"a rebound name": {"/debug/pprof/heap", "evil.example:6060", "", 403, ""},
		"another site":   {"/debug/pprof/profile?seconds=60", addr, "cross-site", 403, ""},
		"another path":   {"/metrics", addr, "", 404, ""},
	} {
		req, _ := http.NewRequest("GET", "http://"+addr+tt.path, nil)
		req.Host = tt.host
		if tt.site != "" {
			req.Header.Set("Sec-Fetch-Site", tt.site)
		}
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.status || !bytes.HasPrefix(body, []byte(tt.begins)) {
			t.Errorf("%s: %d %.20q", name, resp.StatusCode, body)
		}
	}
}
