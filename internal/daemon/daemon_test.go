package daemon

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "5": 5, "1KiB": 1 << 10, "32MiB": 32 << 20, "2GiB": 2 << 30} {
		var got Bytes
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "1MB", "1.5MiB", "MiB", " 1", "1 MiB", "99999999999GiB", "9223372036854775808"} {
		var got Bytes
		if err := got.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "like 32MiB") {
			t.Errorf("%q: %d, %v; want an error that says how to write it", text, got, err)
		}
	}
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log, err := LogFlags{LogLevel: "warn", LogFormat: "json"}.Logger(&out)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.Warn("loud", "model", "a\nb")
	if got := out.String(); strings.Contains(got, "quiet") || !strings.Contains(got, `"model":"a\nb"`) || strings.Count(got, "\n") != 1 {
		t.Errorf("logged %q", got)
	}
	for _, bad := range []LogFlags{{"loud", "text"}, {"info", "xml"}} {
		if _, err := bad.Logger(&out); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// A server that is asked to stop drains, returns without an error, and frees its
// port.
func TestRunDrains(t *testing.T) {
	logged, log := io.Pipe()
	lines := bufio.NewScanner(logged)
	drained := false
	s := Server{
		Name: "test", Listen: "127.0.0.1:0", Handler: http.NotFoundHandler(), Log: slog.New(slog.NewTextHandler(log, nil)),
		Drain: func(context.Context) { drained = true }, About: []any{"fronts", "nothing"},
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()

	lines.Scan()
	first := lines.Text()
	_, addr, ok := strings.Cut(first, "listen=")
	addr, _, _ = strings.Cut(addr, " ")
	if !ok || !strings.Contains(first, "test is up") || !strings.Contains(first, "fronts=nothing") {
		t.Errorf("the first line is %q", first)
	}
	go io.Copy(io.Discard, logged)
	if resp, err := http.Get("http://" + addr); err != nil || resp.StatusCode != 404 {
		t.Errorf("%v, %+v", err, resp)
	}
	cancel()
	if err := <-ended; err != nil || !drained {
		t.Errorf("Run = %v, drained %v", err, drained)
	}
	if l, err := net.Listen("tcp", addr); err != nil {
		t.Errorf("the port is still taken: %v", err)
	} else {
		l.Close()
	}
}
