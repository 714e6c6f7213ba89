package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// configMap is a folder as Kubernetes mounts a ConfigMap: its files are links into
// ..data, which is a link to a folder with a version of them.
type configMap struct {
	t        *testing.T
	dir      string
	versions int
}

func newConfigMap(t *testing.T, text string) *configMap {
	m := &configMap{t: t, dir: t.TempDir()}
	m.swap(text)
	if err := os.Symlink(filepath.Join("..data", "gateway.yaml"), m.path()); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *configMap) path() string { return filepath.Join(m.dir, "gateway.yaml") }

// swap puts another version in the place of the one before, at one stroke.
func (m *configMap) swap(text string) {
	m.t.Helper()
	m.versions++
	version := "..version" + strings.Repeat("+", m.versions)
	if err := os.Mkdir(filepath.Join(m.dir, version), 0o755); err != nil {
		m.t.Fatal(err)
	}
	write(m.t, filepath.Join(m.dir, version, "gateway.yaml"), text)
	os.Symlink(version, filepath.Join(m.dir, "..data_tmp"))
	if err := os.Rename(filepath.Join(m.dir, "..data_tmp"), filepath.Join(m.dir, "..data")); err != nil {
		m.t.Fatal(err)
	}
}

// The configuration is loaded again when it changes, and at once on SIGHUP; one with a
// mistake changes nothing.
func TestReload(t *testing.T) {
	backend, finish := slowStream(t)
	close(finish)
	m := newConfigMap(t, "models:\n  m: {aliases: [a]}\n")
	metrics := freeAddr(t)
	p := start(t, backend, "--config", m.path(), "--metrics-listen", metrics)

	m.swap("models:\n  m: {aliases: [b]}\n")
	p.await("configuration reloaded") // by itself

	m.swap("models:\n  m: {alias: [c]}\nlisten: \":1\"\ntimeouts: {drain: soon}\n")
	p.cmd.Process.Signal(syscall.SIGHUP)
	p.await(`gateway.yaml:4: timeouts.drain: \"soon\" is not a time`)
	log := p.stderr.String()
	if !strings.Contains(log, `gateway.yaml:2: models.m: there is no key \"alias\"; did you mean aliases?`) || strings.Count(log, "configuration not reloaded; the one before holds") != 2 {
		t.Errorf("the mistakes are logged as\n%s", log)
	}
	if n := strings.Count(log, "configuration reloaded"); n != 1 {
		t.Errorf("loaded %d times", n)
	}

	m.swap("models:\n  m: {aliases: [c]}\ntimeouts: {drain: 7s}\n")
	p.cmd.Process.Signal(syscall.SIGHUP)
	p.await(`timeouts.drain: a change from \"30s\" to \"7s\" takes a restart`)

	m.swap("models:\n  m: {aliases: [c]}\n")
	p.cmd.Process.Signal(syscall.SIGHUP)
	until(t, "it is loaded once more", func() bool {
		return strings.Count(p.stderr.String(), "configuration reloaded") == 2
	})

	// Metrics have a port of their own; on the main one there are none.
	for url, want := range map[string]int{"http://" + metrics + "/metrics": 200, "http://" + metrics + "/health": 404, "http://" + metrics + "/v1/models": 404, "http://" + p.addr + "/metrics": 404, "http://" + p.addr + "/health": 200} {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || want == 200 && strings.HasSuffix(url, "metrics") && !bytes.Contains(body, []byte("gateway_build_info")) {
			t.Errorf("%s: %d %.99q", url, resp.StatusCode, body)
		}
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.exit(); err != nil {
		t.Errorf("exit: %v; want 0\n%s", err, p.stderr.String())
	}
}

// output runs the program to its end.
func output(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), code
}

func TestCheckConfig(t *testing.T) {
	path := exampleFile(t)
	if out, errOut, code := output(t, "", "check-config", path); code != 0 || out != path+": ok: 2 backends, 2 keys, shared limits, TLS\n" || errOut != "" {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	write(t, bad, "lisen: x\nrouting: {policy: best}\n")
	want := bad + ":1: there is no key \"lisen\"; did you mean listen?\n" + bad + ":2: routing.policy: routing \"best\": choose one of least-in-flight, power-of-two, prefix, round-robin, session\n"
	if out, errOut, code := output(t, "", "check-config", bad); code != 2 || out != "" || errOut != want {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
	// What it refers to is read.
	dir := filepath.Dir(path)
	os.Remove(filepath.Join(dir, "vllm-key"))
	os.Truncate(filepath.Join(dir, "redis-password"), 0)
	_, errOut, code := output(t, "", "check-config", path)
	if code != 2 || !strings.Contains(errOut, "backends[0].api_key_file: vllm-key: there is no such file\n") || !strings.Contains(errOut, "shared_limits.password_file: redis-password: it is empty\n") {
		t.Errorf("exit %d, %q", code, errOut)
	}
	for _, missing := range []string{filepath.Join(dir, "nowhere.yaml"), dir} {
		if _, errOut, code := output(t, "", "check-config", missing); code != 2 || !strings.HasPrefix(errOut, missing+": ") {
			t.Errorf("exit %d, %q", code, errOut)
		}
	}
	if _, errOut, code := output(t, "", "--config", bad); code != 2 || errOut != "vllm-gateway: "+strings.ReplaceAll(want, "\n"+bad, "\nvllm-gateway: "+bad) {
		t.Errorf("to serve: exit %d, %q", code, errOut)
	}
}

func TestHashKey(t *testing.T) {
	out, errOut, code := output(t, "", "hash-key")
	lines := strings.Split(out, "\n")
	if code != 0 || len(lines) != 3 {
		t.Fatalf("exit %d, %q", code, out)
	}
	key, isKey := strings.CutPrefix(lines[0], "key:  vg-")
	hash, isHash := strings.CutPrefix(lines[1], "hash: ")
	if !isKey || !isHash || hash != secret.HashOf("vg-"+key).String() || !strings.Contains(errOut, hash) || strings.Contains(errOut, key) {
		t.Errorf("%q, %q", out, errOut)
	}
	if out, errOut, code := output(t, "vg-"+key+"\n", "hash-key"); code != 0 || out != hash+"\n" || errOut != "" {
		t.Errorf("of a key on stdin: exit %d, %q, %q", code, out, errOut)
	}
	for name, tt := range map[string]struct {
		stdin string
		args  []string
		want  string
	}{
		"an argument": {"", []string{"hash-key", "vg-SECRET"}, "hash-key takes no key as an argument: all who list the processes of this machine would see it"},
		"a short key": {"SECRET\n", []string{"hash-key"}, "the key on stdin has less than 16 characters"},
		"two lines":   {"SECRETSECRETSECRET\nSECRET\n", []string{"hash-key"}, "a line break"},
		"nothing":     {"\n", []string{"hash-key"}, "stdin is empty"},
		"a hash":      {hash, []string{"hash-key"}, "is a hash already"},
		"a novel":     {strings.Repeat("SECRET", 1<<12), []string{"hash-key"}, "longer than 16384 bytes"},
	} {
		out, errOut, code := output(t, tt.stdin, tt.args...)
		if code != 2 || out != "" || !strings.Contains(errOut, tt.want) || strings.Contains(errOut, "SECRET") {
			t.Errorf("%s: exit %d, %q, %q", name, code, out, errOut)
		}
	}
}

// Keys in the environment are not in what is printed of a mistake in it.
func TestKeysAreNotPrinted(t *testing.T) {
	t.Setenv("VLLM_GATEWAY_API_KEY", "SECRET-of-more-than-sixteen,SECRET")
	_, errOut, code := output(t, "", "--max-body", "x")
	_, errOut2, code2 := output(t, "")
	if code != 2 || code2 != 2 || strings.Contains(errOut+errOut2, "SECRET") || !strings.Contains(errOut2, "VLLM_GATEWAY_API_KEY: key 2 has less than 16 characters") {
		t.Errorf("exit %d and %d, %s%s", code, code2, errOut, errOut2)
	}
	if out, _, code := output(t, "", "--help"); code != 0 || strings.Contains(out, "SECRET") {
		t.Errorf("exit %d, %s", code, out)
	}
}
