package mock

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/bench/load"
	"github.com/vllm-gateway/vllm-gateway/bench/wire"
)

func serve(t *testing.T, models int) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go (&Server{Models: models}).Serve(l)
	return l.Addr().String()
}

// The load generator finds nothing wrong with what the mock says, request after request
// on one connection.
func TestLoadIsContent(t *testing.T) {
	for name, p := range map[string]load.Plan{
		"streams": {Ask: wire.Ask{Model: wire.Model, Stream: true, Tokens: 20, Gap: time.Millisecond}, Phases: true},
		"no gaps": {Ask: wire.Ask{Model: wire.Model, Stream: true, Tokens: 300}},
		"JSON":    {Ask: wire.Ask{Model: wire.Model}, Models: 3, Keys: []string{"k"}},
		"long":    {Ask: wire.Ask{Model: wire.Model}, Prompt: strings.Repeat("long ", 40_000)},
	} {
		p.Addrs, p.Clients = []string{serve(t, 3)}, 4
		l := load.Start(p)
		for deadline := time.Now().Add(20 * time.Second); !l.Failed() && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if _, answers := l.Counts(); answers > 20 && l.Begun() == 4 {
				break
			}
		}
		_, err := l.Stop(20 * time.Second)
		if _, answers := l.Counts(); err != nil || answers <= 20 {
			t.Errorf("%s: %d answers, %v", name, answers, err)
		}
	}
}

// net/http understands it too, and the gateway's probes are answered.
func TestOtherPaths(t *testing.T) {
	url := "http://" + serve(t, 2)
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/health":    {200, ""},
		"/v1/models": {200, `{"object":"list","data":[{"id":"` + wire.Model + `","object":"model","owned_by":"vllm"},{"id":"bench/model-00001","object":"model","owned_by":"vllm"}]}`},
		"/version":   {404, `{"detail":"Not Found"}`},
	} {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want.status || string(body) != want.body || err != nil {
			t.Errorf("%s: %d %s, %v", path, resp.StatusCode, body, err)
		}
	}
	resp, err := http.Post(url+"/v1/chat/completions", "application/json", strings.NewReader(`{"stream_options":{"include_usage":true},`+string(wire.Ask{Model: "m", Stream: true, Seed: 1, Tokens: 2}.Append(nil, "")[1:])))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if events := strings.Split(string(body), "\n\n"); err != nil || len(events) != 7 || !strings.Contains(events[4], `"completion_tokens":2}`) {
		t.Errorf("a stream with usage: %v\n%s", err, body)
	}
}

func TestBadRequests(t *testing.T) {
	addr := serve(t, 1)
	for name, request := range map[string]string{
		"no seed":     "POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
		"chunks":      "POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"a length":    "POST /v1/chat/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n",
		"ends early":  "POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 20\r\n\r\n{}",
		"a long head": "GET /" + strings.Repeat("x", 8<<10) + " HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, request)
		c.(*net.TCPConn).CloseWrite()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var why string
		if err := json.NewDecoder(resp.Body).Decode(&why); resp.StatusCode != 400 || err != nil || why == "" {
			t.Errorf("%s: %d %q, %v", name, resp.StatusCode, why, err)
		}
		c.Close()
	}
}
