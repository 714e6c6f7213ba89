package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/commandline"
)

// binary is the real program, built once.
var binary string

func TestMain(m *testing.M) {
	runtime.KeepAlive(main) // else go test takes its result from before, when only what main calls has changed
	dir, err := os.MkdirTemp("", "vllm-gateway")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "vllm-gateway")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// process is a running gateway.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	addr   string
	stderr lockedBuffer
	ended  chan error
}

// start runs the gateway on a free port before the given backend and waits
// until it finds it usable.
func start(t *testing.T, backend string, args ...string) *process {
	t.Helper()
	p := &process{t: t, addr: freeAddr(t), ended: make(chan error, 1)}
	p.cmd = exec.Command(binary, append([]string{"--listen", p.addr, "--backend", backend}, args...)...)
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { p.cmd.Process.Kill() })
	p.await("backend is up")
	p.await("vllm-gateway is up")
	return p
}

func freeAddr(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// await waits for a word in the log.
func (p *process) await(word string) {
	p.t.Helper()
	until(p.t, "the log says "+word, func() bool { return strings.Contains(p.stderr.String(), word) })
}

// until polls a condition that another process makes true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s, and not yet: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (p *process) exit() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(20 * time.Second):
		p.t.Fatalf("still running after 20 s; its log:\n%s", p.stderr.String())
		return nil
	}
}

func TestCommandLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, tt := range map[string]struct {
		args []string
		env  string
		code int
		want []string
	}{
		"version":          {[]string{"--version"}, "", 0, []string{"vllm-gateway "}},
		"help":             {[]string{"--help"}, "", 0, []string{"--backend", ":9000", "VLLM_GATEWAY_", "http://127.0.0.1:8000"}},
		"mistyped flag":    {[]string{"--bakend", "x"}, "", 2, []string{"unknown flag --bakend", `"--backend"`}},
		"negative delay":   {[]string{"--drain-delay=-1s"}, "", 2, []string{"--drain-delay", "negative"}},
		"bad duration":     {[]string{"--drain-timeout", "soon"}, "", 2, []string{"--drain-timeout", "soon"}},
		"bad size":         {[]string{"--max-body", "3x"}, "", 2, []string{"--max-body", "32MiB"}},
		"bad size in env":  {nil, "VLLM_GATEWAY_MAX_BODY=lots", 2, []string{"vllm-gateway: VLLM_GATEWAY_MAX_BODY: size \"lots\": write"}},
		"no value":         {[]string{"--listen", "--backend", "http://a"}, "", 2, []string{"vllm-gateway: --listen: its value is missing; write --listen=ADDR\n"}},
		"cap by env":       {nil, "VLLM_GATEWAY_MAX_IN_FLIGHT=-1", 2, []string{"vllm-gateway: VLLM_GATEWAY_MAX_IN_FLIGHT: requests in flight: must not be negative\n"}},
		"address by env":   {nil, "VLLM_GATEWAY_LISTEN=9000", 2, []string{"vllm-gateway: VLLM_GATEWAY_LISTEN: \"9000\" is no address to listen on; write host:port"}},
		"half of TLS env":  {nil, "VLLM_GATEWAY_TLS_KEY=main.go", 2, []string{"vllm-gateway: --tls-cert and VLLM_GATEWAY_TLS_KEY go together: give both or none\n"}},
		"unset TLS":        {nil, "VLLM_GATEWAY_TLS_KEY=", 2, []string{"vllm-gateway: VLLM_GATEWAY_TLS_KEY: it is empty; name a file, or leave it out\n"}},
		"port by env":      {nil, "VLLM_GATEWAY_LISTEN=" + taken.Addr().String(), 1, []string{"the port is taken; stop what has it, or choose another with VLLM_GATEWAY_LISTEN\n"}},
		"no such machine":  {[]string{"--listen", "203.0.113.1:9000"}, "", 1, []string{"cannot listen on 203.0.113.1:9000: this machine has no such address; choose another with --listen"}},
		"no file to check": {[]string{"check-config"}, "", 2, []string{"vllm-gateway: there is something missing: vllm-gateway check-config FILE\n"}},
		"bad log level":    {[]string{"--log-level", "loud"}, "", 2, []string{"--log-level", "debug", "loud"}},
		"key alone":        {[]string{"--tls-key", "main.go"}, "", 2, []string{"--tls-cert and --tls-key"}},
		"no such file":     {[]string{"--tls-key", "nowhere.pem", "--tls-cert", "main.go"}, "", 2, []string{"--tls-key", "nowhere.pem"}},
		"all bad backends": {[]string{"--backend", "localhost:8000", "--backend", "http://a/v1", "--backend", "http://u:p@b", "--backend", "ftp://c"}, "", 2,
			[]string{`"localhost:8000"`, "http://host:port", `"http://a/v1"`, "not a path", "password", `"ftp"`}},
		"impossible port":    {[]string{"--backend", "http://a:99999"}, "", 2, []string{"99999", "65535"}},
		"no address":         {[]string{"--listen", ""}, "", 2, []string{"no address to listen on", "--listen"}},
		"backend twice":      {[]string{"--backend", "http://a:80", "--backend", "http://a"}, "", 2, []string{"named twice"}},
		"port taken":         {[]string{"--listen", taken.Addr().String()}, "", 1, []string{"vllm-gateway: cannot listen on " + taken.Addr().String() + ": the port is taken; stop what has it, or choose another with --listen\n"}},
		"no such host":       {nil, "VLLM_GATEWAY_LISTEN=256.0.0.1:1", 1, []string{"cannot listen on 256.0.0.1:1"}},
		"open profiles":      {[]string{"--pprof", "0.0.0.0:6060"}, "", 2, []string{"--pprof 0.0.0.0:6060", "must be a loopback address such as 127.0.0.1:6060"}},
		"profiles by env":    {nil, "VLLM_GATEWAY_PPROF=:6060", 2, []string{"VLLM_GATEWAY_PPROF :6060", "127.0.0.1:6060"}},
		"profiles' port":     {[]string{"--listen", "127.0.0.1:0", "--pprof", taken.Addr().String()}, "", 1, []string{"cannot listen on " + taken.Addr().String(), "--pprof"}},
		"metrics' port":      {[]string{"--listen", "127.0.0.1:0", "--metrics-listen", taken.Addr().String()}, "", 1, []string{"cannot listen on " + taken.Addr().String(), "choose another with --metrics-listen"}},
		"metrics on all":     {[]string{"--metrics-listen", ":9000"}, "", 2, []string{"--metrics-listen: :9000 is the address of everything else"}},
		"no such file of it": {nil, "VLLM_GATEWAY_CONFIG=nowhere.yaml", 2, []string{"vllm-gateway: VLLM_GATEWAY_CONFIG: nowhere.yaml: there is no such file\n"}},
		"an empty key":       {[]string{"--api-key="}, "", 2, []string{"--api-key: "}},
		"no such policy":     {[]string{"--routing", "best"}, "", 2, []string{"--routing", "least-in-flight", "prefix", `"best"`}},
		"weight of nobody":   {[]string{"--weight", "http://b:1=3"}, "", 2, []string{`weight of "http://b:1"`, "no such backend"}},
		"weight of 0":        {[]string{"--backend", "http://a:1", "--weight", "http://a:1=0"}, "", 2, []string{`weight of "http://a:1": 0`, "from 1 to 1000"}},
		"weight of a word":   {[]string{"--weight", "http://a:1=much"}, "", 2, []string{"--weight", "much"}},
		"alias of an alias":  {[]string{"--alias", "a=b", "--alias", "b=c"}, "", 2, []string{`alias "a" of "b"`, "not for another alias"}},
		"fallback to itself": {[]string{"--fallback", "a=a"}, "", 2, []string{`fallback of "a"`, "two models"}},
		"bad header":         {[]string{"--session-header", "X Y"}, "", 2, []string{`session header "X Y"`}},
		"negative cap":       {[]string{"--max-in-flight=-1"}, "", 2, []string{"requests in flight", "negative"}},
		"little memory":      {[]string{"--body-memory", "1MiB"}, "", 2, []string{"memory for bodies 1048576", "33554432"}},
		"srv with a port":    {[]string{"--backend", "srv+http://_http._tcp.vllm:8000"}, "", 2, []string{"the SRV records have it"}},
		"dns of an address":  {[]string{"--backend", "dns+http://10.0.0.1:8000"}, "", 2, []string{"an address is no DNS name"}},
		"zero timeout":       {[]string{"--first-byte-timeout", "0s"}, "", 2, []string{"first-byte timeout 0s"}},
	} {
		cmd := exec.Command(binary, tt.args...)
		if tt.env != "" {
			cmd.Env = append(os.Environ(), tt.env)
		}
		out, err := cmd.CombinedOutput()
		code := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		if code != tt.code {
			t.Errorf("%s: exit %d; want %d\n%s", name, code, tt.code, out)
		}
		for _, want := range tt.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: no %q in\n%s", name, want, out)
			}
		}
		if code == 2 && !strings.HasPrefix(string(out), "vllm-gateway: ") {
			t.Errorf("%s: the first line is not of the mistake:\n%s", name, out)
		}
	}
}

func TestHelp(t *testing.T) {
	if err := commandline.Check(program, &commandLine{}, 50, "../.."); err != nil {
		t.Error(err)
	}
}

// Profiles have a port of their own, where they are asked for; on the main one there
// are none.
func TestPprof(t *testing.T) {
	backend, finish := slowStream(t)
	close(finish)
	profiles := freeAddr(t)
	p := start(t, backend, "--pprof", profiles)
	p.await("profiles are served")
	for url, want := range map[string]int{
		"http://" + profiles + "/debug/pprof/heap":       200,
		"http://" + profiles + "/debug/pprof/":           200,
		"http://" + profiles + "/v1/models":              404,
		"http://" + profiles + "/metrics":                404,
		"http://" + p.addr + "/debug/pprof/":             404,
		"http://" + p.addr + "/debug/pprof/heap":         404,
		"http://" + p.addr + "/debug/pprof/heap?debug=1": 404,
	} {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || err != nil {
			t.Errorf("%s: %d, %v; want %d", url, resp.StatusCode, err, want)
		}
		if strings.HasSuffix(url, "heap") && want == 200 && !bytes.HasPrefix(body, []byte("\x1f\x8b")) {
			t.Errorf("%s is no profile: %.20q", url, body)
		}
	}
}

// slowStream has a token at once and its end when told.
func slowStream(t *testing.T) (url string, finish chan struct{}) {
	finish = make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.Method != "POST" {
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, token("a"))
		http.NewResponseController(w).Flush()
		select {
		case <-finish:
			io.WriteString(w, "data: [DONE]\n\n")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(s.CloseClientConnections)
	return s.URL, finish
}

func token(text string) string {
	return `data: {"choices":[{"index":0,"delta":{"content":"` + text + `"}}]}` + "\n\n"
}

const ask = `{"model":"m","stream":true}`

func post(t *testing.T, client *http.Client, url string) *http.Response {
	t.Helper()
	resp, err := client.Post(url+"/v1/chat/completions", "application/json", strings.NewReader(ask))
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// closed waits until nobody can connect any more.
func (p *process) closed() {
	p.t.Helper()
	until(p.t, "the port is closed", func() bool {
		c, err := net.Dial("tcp", p.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

// On SIGTERM the port closes, a live stream runs to its end, and the exit is 0.
func TestTermDrains(t *testing.T) {
	backend, finish := slowStream(t)
	p := start(t, backend)
	resp := post(t, http.DefaultClient, "http://"+p.addr)
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.closed()
	close(finish)
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != token("a")+"data: [DONE]\n\n" {
		t.Errorf("the stream ended with %q, %v", body, err)
	}
	if err := p.exit(); err != nil {
		t.Errorf("exit: %v; want 0\n%s", err, p.stderr.String())
	}
}

// A client that sends its next request as soon as its stream has ended does so on a
// connection that it believes in. It gets one more answer, though the port is closed,
// and is told to let go of the connection.
func TestDrainAnswersOnceMore(t *testing.T) {
	backend, finish := slowStream(t)
	p := start(t, backend)
	client := &http.Client{Transport: &http.Transport{}}
	resp := post(t, client, "http://"+p.addr)
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.closed()
	close(finish)
	if body, err := io.ReadAll(resp.Body); err != nil || resp.Close {
		t.Errorf("the stream ended with %q, %v; its connection: %v", body, err, resp.Close)
	}
	resp = post(t, client, "http://"+p.addr)
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(body), "data: [DONE]\n\n") || !resp.Close {
		t.Errorf("the second stream: %q, %v; its connection ends: %v", body, err, resp.Close)
	}
	if err := p.exit(); err != nil {
		t.Errorf("exit: %v; want 0\n%s", err, p.stderr.String())
	}
}

// With a delay the port is open after SIGTERM, so that nobody who has not heard of it
// yet loses a request.
func TestDrainDelay(t *testing.T) {
	backend, finish := slowStream(t)
	close(finish)
	p := start(t, backend, "--drain-delay", "1s")
	var users sync.WaitGroup
	var answers atomic.Int64
	stop := make(chan struct{})
	for range 16 {
		users.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := client.Post("http://"+p.addr+"/v1/chat/completions", "application/json", strings.NewReader(ask))
				if err != nil {
					t.Error("no answer: ", err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || !strings.HasSuffix(string(body), "[DONE]\n\n") {
					t.Errorf("%s %q, %v", resp.Status, body, err)
					return
				}
				answers.Add(1)
			}
		})
	}
	until(t, "they are at it", func() bool { return answers.Load() > 200 })
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.await("is draining")
	before := answers.Load()
	until(t, "each has had answers since", func() bool { return answers.Load() > before+100 || t.Failed() })
	if resp, err := http.Get("http://" + p.addr + "/health"); err != nil || resp.StatusCode != 503 {
		t.Errorf("/health: %+v, %v; want 503", resp, err)
	}
	close(stop)
	users.Wait()
	if err := p.exit(); err != nil {
		t.Errorf("exit: %v; want 0\n%s", err, p.stderr.String())
	}
}

// As long as streams run on, whoever scrapes can read of them.
func TestDrainIsSeen(t *testing.T) {
	backend, finish := slowStream(t)
	const delay = 100 * time.Millisecond
	p := start(t, backend, "--drain-delay", delay.String())
	resp := post(t, http.DefaultClient, "http://"+p.addr)
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.await("is draining")
	for draining := time.Now(); time.Since(draining) < 3*delay; {
		metrics, err := http.Get("http://" + p.addr + "/metrics")
		if err != nil {
			t.Fatal("while a stream runs: ", err)
		}
		if body, _ := io.ReadAll(metrics.Body); !strings.Contains(string(body), "gateway_queue_depth 1\n") {
			t.Fatal("the stream is not counted")
		}
		metrics.Body.Close()
	}
	close(finish)
	if body, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("the stream ended with %q, %v", body, err)
	}
	if err := p.exit(); err != nil {
		t.Errorf("exit: %v; want 0\n%s", err, p.stderr.String())
	}
}

// A second signal ends the process at once.
func TestSecondSignalKills(t *testing.T) {
	backend, _ := slowStream(t)
	p := start(t, backend)
	resp := post(t, http.DefaultClient, "http://"+p.addr)
	defer resp.Body.Close()
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.await("is draining")
	p.cmd.Process.Signal(syscall.SIGTERM)
	var exit *exec.ExitError
	if err := p.exit(); !errors.As(err, &exit) || exit.ExitCode() == 0 {
		t.Errorf("exit: %v; want that of a signal", err)
	}
}

// At the drain's limit the client is told, and the exit is still 0.
func TestDrainLimit(t *testing.T) {
	backend, _ := slowStream(t)
	p := start(t, backend, "--drain-timeout", "100ms")
	resp := post(t, http.DefaultClient, "http://"+p.addr)
	p.cmd.Process.Signal(syscall.SIGTERM)
	body, err := io.ReadAll(resp.Body)
	if err == nil || !strings.Contains(string(body), `"code":503`) || strings.Contains(string(body), "[DONE]") {
		t.Errorf("the stream ended with %q, %v", body, err)
	}
	if err := p.exit(); err != nil {
		t.Errorf("exit: %v; want 0", err)
	}
}

// TLS with HTTP/2, and HTTP/2 in the clear.
func TestProtocols(t *testing.T) {
	backend, finish := slowStream(t)
	close(finish)
	cert, key, pool := certificate(t)
	secure := start(t, backend, "--tls-cert", cert, "--tls-key", key)
	clear := start(t, backend)
	var h2c, h2, h1 http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	h2.SetHTTP2(true)
	h1.SetHTTP1(true)
	for name, tt := range map[string]struct {
		url   string
		tr    *http.Transport
		major int
	}{
		"TLS, HTTP/2":           {"https://" + secure.addr, &http.Transport{Protocols: &h2, TLSClientConfig: &tls.Config{RootCAs: pool}}, 2},
		"TLS, HTTP/1.1":         {"https://" + secure.addr, &http.Transport{Protocols: &h1, TLSClientConfig: &tls.Config{RootCAs: pool}}, 1},
		"HTTP/2 in the clear":   {"http://" + clear.addr, &http.Transport{Protocols: &h2c}, 2},
		"HTTP/1.1 in the clear": {"http://" + clear.addr, &http.Transport{Protocols: &h1}, 1},
	} {
		resp := post(t, &http.Client{Transport: tt.tr}, tt.url)
		body, err := io.ReadAll(resp.Body)
		if resp.ProtoMajor != tt.major || err != nil || string(body) != token("a")+"data: [DONE]\n\n" || resp.Header.Get("Server-Timing") == "" {
			t.Errorf("%s: HTTP/%d, %q, %v, %v", name, resp.ProtoMajor, body, err, resp.Header)
		}
		tt.tr.CloseIdleConnections()
	}
}

func certificate(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	os.WriteFile(certFile, certPEM, 0o600)
	os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600)
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, pool
}

// A client that is killed in mid stream, over real TCP, ends the work on the
// backend.
func TestClientKilled(t *testing.T) {
	gone := make(chan time.Time, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" {
			return
		}
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, token("a"))
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		gone <- time.Now()
	}))
	defer backend.Close()
	p := start(t, backend.URL)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+p.addr+"/v1/chat/completions", strings.NewReader(ask))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Read(make([]byte, 10))
	left := time.Now()
	cancel()
	select {
	case at := <-gone:
		t.Logf("the backend knew %v after the client had left", at.Sub(left))
	case <-time.After(20 * time.Second):
		t.Fatal("the backend still works for a client that left 20 s ago")
	}
	p.await("outcome=cancelled")
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// An id that a client has its answer for is free again, even on another
// connection and within microseconds.
func TestRequestIDIsFreeAtOnce(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
	}))
	defer backend.Close()
	p := start(t, backend.URL)
	clients := []*http.Client{{Transport: &http.Transport{}}, {Transport: &http.Transport{}}}
	for i := range 3000 {
		req, _ := http.NewRequest("POST", "http://"+p.addr+"/v1/embeddings", strings.NewReader("{}"))
		req.Header.Set("X-Request-Id", "same")
		resp, err := clients[i%2].Do(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if id := resp.Header.Get("X-Request-Id"); id != "same" {
			t.Fatalf("request %d came back as %q", i, id)
		}
	}
}
