package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/vllm-gateway/vllm-gateway/internal/commandline"
	"github.com/vllm-gateway/vllm-gateway/internal/config"
	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// parse reads a command line as main does.
func parse(t *testing.T, args ...string) (flags, *commandline.Line, map[string]bool) {
	t.Helper()
	var line commandLine
	typed, err := program.Read(&line, args)
	if err != nil {
		t.Fatal(err)
	}
	return line.flags, typed, typed.Given()
}

// exampleFile is docs/gateway.yaml in a folder of its own, with the files that it names.
func exampleFile(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	example, err := os.ReadFile("../../docs/gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "gateway.yaml")
	write(t, path, string(example))
	write(t, filepath.Join(dir, "vllm-key"), "the-key-of-a-vllm\n")
	write(t, filepath.Join(dir, "redis-password"), "redis-secret\n")
	cert, key, _ := certificate(t)
	os.Rename(cert, filepath.Join(dir, "tls.crt"))
	os.Rename(key, filepath.Join(dir, "tls.key"))
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// flagOnly are the flags that no file can set, and why.
var flagOnly = map[string]string{
	"help":             "",
	"version":          "",
	"config":           "it names the file",
	"log-level":        "the log begins before the file is read",
	"log-format":       "the log begins before the file is read",
	"pprof":            "what shows prompts is not turned on by a file that changes",
	"backend-key-file": "the file says it for each backend",
}

// other are values that are neither the default nor the example's.
var other = map[string]string{
	"listen": ":1", "metrics-listen": ":2", "tls-cert": "settings_test.go", "tls-key": "main.go", "backend": "http://other:1", "weight": "http://10.0.0.1:8000=7", "alias": "x=y", "fallback": "v=w",
	"routing": "session", "session-header": "X-Other", "prefix-bytes": "11", "max-in-flight": "12", "max-waiting": "13", "max-wait": "14s", "comment-every": "16s", "body-memory": "16GiB",
	"max-body": "17MiB", "first-byte-timeout": "18s", "stream-idle-timeout": "19s", "drain-delay": "20s", "drain-timeout": "21s", "api-key": "a-key-of-sixteen-letters",
}

// Each flag wins over the file, and the file over the default; or it is one that no
// file can set. A new flag fails here until it is one or the other.
func TestFlagsWinOverTheFile(t *testing.T) {
	file := exampleFile(t)
	valueOf := func(s *settings, k *kong.Flag, line *flags) string {
		if k.Name == "api-key" {
			var names []string
			for _, c := range s.gateway.Callers {
				names = append(names, c.Name)
			}
			return fmt.Sprint(names)
		}
		fields := reflect.ValueOf(line).Elem()
		for i := range fields.NumField() {
			if fields.Field(i).Addr().Pointer() == k.Target.Addr().Pointer() {
				return fmt.Sprint(reflect.ValueOf(s.flags).Field(i))
			}
		}
		t.Fatalf("--%s is no field of flags", k.Name)
		return ""
	}
	settled := func(env string, args ...string) func(name string) string {
		t.Helper()
		if env != "" {
			name, value, _ := strings.Cut(env, "=")
			os.Setenv(name, value)
			defer os.Unsetenv(name)
		}
		var line commandLine
		typed, err := program.Read(&line, args)
		if err != nil {
			t.Fatal(err)
		}
		s, err := settle(line.flags, typed.Given(), &daemon.Files{})
		if err != nil {
			t.Fatal(err)
		}
		return func(name string) string {
			for _, f := range typed.Model.Flags {
				if f.Name == name {
					return valueOf(s, f, &line.flags)
				}
			}
			return ""
		}
	}
	_, typed, _ := parse(t)
	defaults, fromTheFile := settled(""), settled("", "--config", file)
	seen := 0
	for _, f := range typed.Model.Flags {
		inFile := slices.ContainsFunc(fromFile, func(k fileKey) bool { return k.flag == f.Name })
		if _, only := flagOnly[f.Name]; only == inFile {
			t.Errorf("--%s: in fromFile %v, in flagOnly %v; it must be in one of them", f.Name, inFile, only)
		}
		if !inFile {
			continue
		}
		seen++
		byFlag := settled("", "--config", file, "--"+f.Name, other[f.Name])
		byEnv := settled(f.Envs[0]+"="+other[f.Name], "--config", file)
		d, c, g, e := defaults(f.Name), fromTheFile(f.Name), byFlag(f.Name), byEnv(f.Name)
		if d == c || c == g || g != e || d == g {
			t.Errorf("--%s: the default is %s, the file says %s, the flag makes it %s, the environment %s", f.Name, d, c, g, e)
		}
	}
	if seen != len(fromFile) {
		t.Errorf("%d of %d rows of fromFile are flags", seen, len(fromFile))
	}
}

func TestSettle(t *testing.T) {
	path := exampleFile(t)
	f, _, given := parse(t, "--config", path, "--backend-key-file", filepath.Join(filepath.Dir(path), "redis-password"))
	s, err := settle(f, given, &daemon.Files{})
	if err != nil {
		t.Fatal(err)
	}
	c := s.config(slog.New(slog.DiscardHandler))
	if c.Weights["http://10.0.0.1:8000"] != 2 || c.Aliases["default"] != "Qwen/Qwen3-32B" || c.Fallbacks["Qwen/Qwen3-32B"] != "Qwen/Qwen3-8B" || !c.NoMetrics || !c.FailOpen || c.SharedLimits.Password.Reveal() != "redis-secret" {
		t.Errorf("%+v", c)
	}
	if c.BackendKeys["http://10.0.0.1:8000"].Reveal() != "the-key-of-a-vllm" || c.BackendKeys["dns+http://vllm:8000"].Reveal() != "redis-secret" {
		t.Error("backends have other keys")
	}
	if s.TLSCert != filepath.Join(filepath.Dir(path), "tls.crt") || s.checkTLS(&daemon.Files{}) != nil {
		t.Errorf("the certificate is %s", s.TLSCert)
	}
	alice, bob := c.Callers[0], c.Callers[1]
	if alice.Limits.Requests != 60 || alice.Limits.Tokens != 0 || alice.Limits.DayTokens != 1000000 || alice.Concurrency != 4 || alice.Priority != "high" || alice.Models[0] != "Qwen/Qwen3-32B" {
		t.Errorf("alice %+v", alice)
	}
	if bob.Limits.Requests != 600 || bob.Limits.Tokens != 100000 || bob.Limits.DayTokens != 5000000 || bob.Concurrency != 20 || len(bob.Keys) != 2 {
		t.Errorf("bob %+v", bob)
	}
	if text := fmt.Sprintf("%+v %+v", s, c); strings.Contains(text, "redis-secret") || strings.Contains(text, "the-key-of") {
		t.Error("secrets can be printed")
	}
}

// Keys by flag take the place of the file's, with its limits for all.
func TestKeysByFlag(t *testing.T) {
	hash := secret.HashOf("another-key-of-somebody")
	f, _, given := parse(t, "--config", exampleFile(t), "--api-key", "a-key-of-sixteen-letters", "--api-key", hash.String())
	s, err := settle(f, given, &daemon.Files{})
	if err != nil {
		t.Fatal(err)
	}
	c := s.gateway.Callers
	if len(c) != 2 || c[0].Name != "key-1" || c[0].Keys[0] != secret.HashOf("a-key-of-sixteen-letters") || c[1].Keys[0] != hash || c[1].Limits.Requests != 600 || c[1].Concurrency != 20 {
		t.Errorf("%+v", c)
	}
	var log strings.Builder
	s.warn(slog.New(slog.NewTextHandler(&log, nil)))
	if !strings.Contains(log.String(), "the keys of the file are not used") || !strings.Contains(log.String(), "keys=2") {
		t.Errorf("logged %q", log.String())
	}
	if text := fmt.Sprintf("%+v", s); strings.Contains(text, "sixteen") {
		t.Error("the key can be printed")
	}
}

// Backends that a flag or a variable takes the place of are told of: whoever puts a
// file beside an old VLLM_GATEWAY_BACKEND would wonder where its servers are.
func TestBackendsByFlag(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--backend", "http://10.0.0.9:8000"}, "backends="},
		{nil, ""},
	} {
		f, _, given := parse(t, append(tt.args, "--config", exampleFile(t))...)
		s, err := settle(f, given, &daemon.Files{})
		if err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		s.warn(slog.New(slog.NewTextHandler(&log, nil)))
		if told := strings.Contains(log.String(), "the backends of the file are not used"); told != (tt.want != "") || !strings.Contains(log.String(), tt.want) {
			t.Errorf("%q: logged %q", tt.args, log.String())
		}
	}
}

const (
	anyHash  = "sha256:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"
	nextHash = "sha256:81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9"
)

// What flags and file do not say together, with every word of what is said about it.
func TestContradictions(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		args       []string
		want       string
	}{
		{"a backend twice", "backends:\n  - url: http://a:80\n  - url: http://A", nil, `f.yaml:3: backends[1].url: backend "http://A": named twice (see line 2)`},
		{"no backend that can be", "backends:\n  - url: a:80/v1", nil, `f.yaml:2: backends[0].url: backend "a:80/v1": not a URL; write http://host:port, or https; dns+http://name:port for each address of a DNS name; srv+http://_port._tcp.name for its SRV records`},
		{"a password", "backends:\n  - url: http://u:SECRET@b", nil, `f.yaml:2: backends[0].url: backend "…@b": a user name or password in the URL would end up in logs; leave it out`},
		{"too heavy", "backends:\n  - {url: http://a, weight: 5000}", nil, `f.yaml:2: backends[0].weight: weight of "http://a": 5000; write a number from 1 to 1000`},
		{"no such key file", "backends:\n  - url: http://a\n    api_key_file: nowhere", nil, `f.yaml:3: backends[0].api_key_file: nowhere: there is no such file`},
		{"an alias of an alias", "models:\n  a: {aliases: [b]}\n  b: {aliases: [c]}", nil, `f.yaml:3: models.b.aliases[0]: alias "c" of "b": an alias stands for a model, not for another alias (see line 2)`},
		{"its own alias", "models:\n  a: {aliases: [a]}", nil, `f.yaml:2: models.a.aliases[0]: alias "a" of "a": that is its own name; leave it out`},
		{"its own fallback", "models:\n  a: {fallback: a}", nil, `f.yaml:2: models.a.fallback: fallback of "a" to "a": name two models, by their own names`},
		{"no such policy", "routing: {policy: best}", nil, `f.yaml:1: routing.policy: routing "best": choose one of least-in-flight, power-of-two, prefix, round-robin, session`},
		{"no header", "routing: {session_header: a b}", nil, `f.yaml:1: routing.session_header: session header "a b": not the name of a header`},
		{"little memory", "admission: {body_memory: 1MiB}", nil, `f.yaml:1: admission.body_memory: memory for bodies 1048576 bytes: the largest body alone may have 33554432; give it more`},
		{"a large body", "admission:\n  max_body: 2GiB", nil, `f.yaml:2: admission.max_body: memory for bodies 1073741824 bytes: the largest body alone may have 2147483648; give it more`},
		{"no time", "timeouts: {first_byte: 0s}", nil, `f.yaml:1: timeouts.first_byte: first-byte timeout 0s: must be more than 0`},
		{"no address", "listen: 9000", nil, `f.yaml:1: listen: "9000" is no address to listen on; write host:port, or :port for all interfaces`},
		{"one address for two", "listen: \":9000\"\nmetrics_listen: 0.0.0.0:9000", nil, `f.yaml:2: metrics_listen: 0.0.0.0:9000 is the address of everything else; give metrics a port of their own (see line 1)`},
		{"one address for two, by flag", "metrics_listen: \":9000\"", []string{"--listen", ":9000"}, `f.yaml:1: metrics_listen: :9000 is the address of everything else; give metrics a port of their own`},
		{"limits for nobody", "limits: {concurrency: 3}", nil, `f.yaml:1: limits: limits are for keys, and there are none; add keys, or leave the limits out`},
		{"limits shared by nobody", "shared_limits: {redis: redis://r, fail: open}", nil, `f.yaml:1: shared_limits: limits are shared, and nobody has a key by which they would be counted; add keys`},
		{"Redis with a password", "keys: [{name: a, hash: " + anyHash + "}]\nshared_limits:\n  redis: redis://:SECRET@r\n  fail: open", nil, `f.yaml:3: shared_limits.redis: the URL of Redis has a password in it, where logs and process lists show it: put it into a file, and name this as the password file`},
		{"no Redis", "keys: [{name: a, hash: " + anyHash + "}]\nshared_limits: {redis: r, fail: open}", nil, `f.yaml:2: shared_limits.redis: the URL of Redis does not begin with redis://: write redis://host:port, or rediss:// for TLS`},
		{"no port", "listen: \":99999\"\nmetrics_listen: “:9100”", nil, "f.yaml:1: listen: \":99999\" is no address to listen on; write host:port, or :port for all interfaces\nf.yaml:2: metrics_listen: \"“:9100”\" is no address to listen on; write host:port, or :port for all interfaces"},
		{"names that others have", "keys:\n  - {name: anonymous, hash: " + anyHash + "}\n  - {name: other, hash: " + nextHash + "}", nil, "f.yaml:2: keys[0].name: caller \"anonymous\": logs and metrics call so who has no key, or no series of its own; choose another name\nf.yaml:3: keys[1].name: caller \"other\": logs and metrics call so who has no key, or no series of its own; choose another name"},
		{"the hash of nothing", "keys:\n  - {name: a, hash: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}", nil, `f.yaml:2: keys[0].hash: caller "a": this is the hash of nothing, so that whoever has no key would be this caller; make one with vllm-gateway hash-key`},
		{"two of one name", "keys:\n  - {name: a, hash: " + anyHash + "}\n  - {name: a, hash: " + nextHash + "}", nil, `f.yaml:3: keys[1].name: caller "a": two have this name (see line 2)`},
		{"two with one key", "keys:\n  - {name: a, hash: " + anyHash + "}\n  - {name: b, hash: [" + nextHash + ", " + anyHash + "]}", nil, `f.yaml:3: keys[1].hash: caller "b": the same key stands twice; a key says who its caller is (see line 2)`},
		{"no name", "keys:\n  - {name: Alice Liddell, hash: " + anyHash + "}", nil, `f.yaml:2: keys[0].name: caller "Alice Liddell": a name is 1 to 64 letters, digits and any of -_.@:/`},
		{"letters that look like letters", "keys:\n  - {name: \u212aarl, hash: " + anyHash + "}", nil, "f.yaml:2: keys[0].name: caller \"\u212aarl\": a name is 1 to 64 letters, digits and any of -_.@:/"},
		{"a weight of nobody", "backends: [{url: http://a}]", []string{"--weight", "http://b=2"}, `--weight: weight of "http://b": there is no such backend`},
		{"what the flag says, not the file", "backends: [{url: http://a, weight: 3}]\nmodels: {m: {aliases: [x], fallback: n}}", []string{"--weight", "http://a=5000", "--alias", "x=x", "--fallback", "m=m"},
			"--weight: weight of \"http://a\": 5000; write a number from 1 to 1000\n--alias: alias \"x\" of \"x\": that is its own name; leave it out\n--fallback: fallback of \"m\" to \"m\": name two models, by their own names"},
		{"a short key", "", []string{"--api-key", "SECRET"}, `--api-key: key 1 has less than 16 characters; what is so short can be guessed, and its hash turned back: take a key that was drawn at random, such as vllm-gateway hash-key makes`},
		{"no key", "keys: [{name: a, hash: " + anyHash + "}]", []string{"--api-key="}, `--api-key: there is no key in it, and without any everybody might use the gateway; give one, or leave out the flag and VLLM_GATEWAY_API_KEY`},
		{"no file", "", []string{"--config="}, `--config: no file is named, and without one everybody might use the gateway; name one, or leave out the flag and VLLM_GATEWAY_CONFIG`},
		{"half a hash", "", []string{"--api-key", "sha256:SECRET"}, `--api-key: key 1 begins like a hash and is none: sha256: and 64 hexadecimal digits, as vllm-gateway hash-key prints it`},
		{"a key with a space", "", []string{"--api-key", "SECRET key with spaces"}, `--api-key: key 1 has a space, a line break or a letter that is not ASCII in it; a header cannot have it`},
		{"file and flags", "routing: {policy: best}\nlisten: x", []string{"--backend-key-file", "nowhere"}, "f.yaml:1: routing.policy: routing \"best\": choose one of least-in-flight, power-of-two, prefix, round-robin, session\nf.yaml:2: listen: \"x\" is no address to listen on; write host:port, or :port for all interfaces\n--backend-key-file: nowhere: there is no such file"},
		{"the file by itself, and more", "routing: {policy: best, polcy: x}\nkeys:\n  - {name: a, hash: SECRET}\nlimits: {concurrency: x}", nil, `f.yaml:1: routing: there is no key "polcy"; did you mean policy?
f.yaml:1: routing.policy: routing "best": choose one of least-in-flight, power-of-two, prefix, round-robin, session
f.yaml:3: keys[0].hash: this is no hash (sha256: and 64 hexadecimal digits); keys do not stand in the file, only their hashes: vllm-gateway hash-key makes one of a key that it reads
f.yaml:4: limits.concurrency: "x" is not a whole number; write one such as 20`},
	} {
		t.Chdir(t.TempDir())
		args := tt.args
		if tt.file != "" {
			write(t, "f.yaml", tt.file)
			args = append([]string{"--config", "f.yaml"}, args...)
		}
		f, _, given := parse(t, args...)
		_, err := settle(f, given, &daemon.Files{})
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s:\n got %v\nwant %s", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: the error has a secret in it", tt.name)
		}
	}
}

// What a running gateway does not take.
func TestBars(t *testing.T) {
	t.Chdir(t.TempDir())
	load := func(file string) *settings {
		t.Helper()
		write(t, "f.yaml", file)
		f, _, given := parse(t, "--config", "f.yaml")
		s, err := settle(f, given, &daemon.Files{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := load("listen: \":1\"\ntimeouts: {drain: 5s}\nkeys: [{name: a, hash: " + anyHash + "}]")
	const until = " takes a restart; until then nothing of the new file is taken"
	for file, want := range map[string]string{
		"listen: \":1\"\ntimeouts: {drain: 5s}\nkeys: [{name: b, hash: " + nextHash + "}]\nadmission: {max_wait: 3s}": "",
		"listen: \":2\"\ntimeouts:\n  drain: 6s":                   "f.yaml:1: listen: a change from \":1\" to \":2\"" + until + "\nf.yaml:3: timeouts.drain: a change from \"5s\" to \"6s\"" + until + "\nf.yaml: there are no keys any more, so that everybody might use the gateway; if that is meant, restart it",
		"listen: \":1\"\nkeys: [{name: a, hash: " + anyHash + "}]": "f.yaml: timeouts.drain: a change from \"5s\" to \"30s\"" + until,
	} {
		next := load(file)
		got := ""
		if err := next.explain(errors.Join(before.bars(next)...)); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", file, got, want)
		}
	}
}

// docs/configuration.md has each flag with its default, and each key of the file with
// its flag; and none that there is not.
func TestConfigurationIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	section := func(title string) string {
		_, rest, ok := strings.Cut(string(text), "\n## "+title+"\n")
		if !ok {
			t.Fatalf("no section %q", title)
		}
		body, _, _ := strings.Cut(rest, "\n## ")
		return body
	}
	quoted := regexp.MustCompile("`([^`]*)`")
	cells := func(row string) (cells [][]string) {
		for cell := range strings.SplitSeq(row, "|") {
			var found []string
			for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
				found = append(found, m[1])
			}
			cells = append(cells, found)
		}
		return cells
	}
	rows := func(section, begins string) (rows [][][]string) {
		for line := range strings.Lines(section) {
			if strings.HasPrefix(line, begins) {
				rows = append(rows, cells(strings.TrimPrefix(line, "|")))
			}
		}
		return rows
	}

	documented := map[string]string{}
	for _, row := range rows(section("Flags of vllm-gateway"), "| `--") {
		for i, name := range row[0] {
			value := ""
			if i < len(row[1]) {
				value = row[1][i]
			}
			documented[strings.TrimPrefix(name, "--")] = value
		}
	}
	_, typed, _ := parse(t)
	for _, f := range typed.Model.Flags {
		value, ok := documented[f.Name]
		if !ok && f.Name != "help" {
			t.Errorf("--%s is not documented", f.Name)
		}
		if value != f.Default {
			t.Errorf("--%s: the default is %q; documented is %q", f.Name, f.Default, value)
		}
		delete(documented, f.Name)
	}
	for name := range documented {
		t.Errorf("--%s is documented and does not exist", name)
	}

	var keys []string
	flagOf := map[string]string{}
	for _, row := range rows(section("The file"), "| `") {
		keys = append(keys, row[0][0])
		if len(row[1]) > 0 {
			flagOf[row[0][0]] = row[1][0]
		}
	}
	for _, k := range config.Keys() {
		if !slices.Contains(keys, k) {
			t.Errorf("%s is not documented", k)
		}
	}
	for _, k := range keys {
		if !slices.Contains(config.Keys(), k) {
			t.Errorf("%s is documented and does not exist", k)
		}
	}
	for _, k := range fromFile {
		if flagOf[k.key] != "--"+k.flag {
			t.Errorf("%s is --%s; documented is %q", k.key, k.flag, flagOf[k.key])
		}
	}
	if len(flagOf) < len(fromFile) {
		t.Errorf("%d keys have a flag; documented are %d", len(fromFile), len(flagOf))
	}
}
