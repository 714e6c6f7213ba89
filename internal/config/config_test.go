package config

import (
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

const example = "../../docs/gateway.yaml"

// The example has every key there is, and each of them can be read.
func TestExampleIsComplete(t *testing.T) {
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse("gateway.yaml", data); err != nil {
		t.Error(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	gather(has, "", doc.Content[0])
	for _, k := range Keys() {
		if !has[k] {
			t.Errorf("docs/gateway.yaml has no %s", k)
		}
	}
	if len(Keys()) < 38 {
		t.Errorf("there are only %d keys", len(Keys()))
	}
}

// gather notes the paths of all values, as Keys spells them.
func gather(has map[string]bool, at string, n *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			name := n.Content[i].Value
			if at == "models." {
				name = "*"
			}
			has[at+name] = true
			gather(has, at+name+".", n.Content[i+1])
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			gather(has, strings.TrimSuffix(at, ".")+"[].", item)
		}
	}
}

func TestParse(t *testing.T) {
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Parse("gateway.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	line := func(text string) int {
		return 1 + strings.Count(string(data)[:strings.Index(string(data), text)], "\n")
	}
	if f.Listen != (At[string]{":8443", line("listen:")}) || f.TLS.Value.Key.Value != "tls.key" || f.TLS.Value.Key.Line != line("  key: tls.key") {
		t.Errorf("listen %+v, tls %+v", f.Listen, f.TLS)
	}
	if b := f.Backends.Value; len(b) != 2 || b[0].Weight.Value != 2 || b[0].APIKeyFile.Value != "vllm-key" || b[1].URL != (At[string]{"dns+http://vllm:8000", line("  - url: dns")}) || b[1].Weight.Set() {
		t.Errorf("backends %+v", b)
	}
	if m := f.Models.Value; len(m) != 1 || m[0].Name.Value != "Qwen/Qwen3-32B" || m[0].Aliases.Value[1].Value != "default" || m[0].Fallback.Value != "Qwen/Qwen3-8B" {
		t.Errorf("models %+v", m)
	}
	if a := f.Admission.Value; a.MaxInFlight.Value != 64 || a.MaxWaiting.Value != 500 || a.MaxWait.Value != 2*time.Minute || a.BodyMemory.Value != 512<<20 || a.MaxBody.Value != 64<<20 || a.CommentEvery.Value != 15*time.Second {
		t.Errorf("admission %+v", a)
	}
	if s := f.Timeouts.Value; s.FirstByte.Value != 15*time.Minute || s.StreamIdle.Value != 2*time.Minute || s.DrainDelay.Value != 10*time.Second || s.Drain.Value != time.Minute {
		t.Errorf("timeouts %+v", s)
	}
	if s := f.SharedLimits.Value; s.Redis.Value != "redis://redis:6379/0" || s.PasswordFile.Value != "redis-password" || s.Timeout.Value != 100*time.Millisecond || s.Fail.Value != "open" {
		t.Errorf("shared limits %+v", s)
	}
	k := f.Keys.Value
	if len(k) != 2 || k[0].Name.Value != "alice" || k[0].Priority.Value != "high" || len(k[0].Hashes.Value) != 1 || len(k[1].Hashes.Value) != 2 || k[0].Models.Value[0].Value != "Qwen/Qwen3-32B" {
		t.Fatalf("keys %+v", k)
	}
	if own := k[0].Limits.Value; own.TokensPerMinute.Value != 0 || !own.TokensPerMinute.Set() || own.Concurrency.Value != 4 || k[1].Limits.Set() {
		t.Errorf("limits %+v, %+v", own, k[1].Limits)
	}
}

// What YAML takes for something else than was written.
func TestValuesAreReadAsWritten(t *testing.T) {
	f, err := Parse("f", []byte("models:\n  no: {aliases: [yes, 010, 1e3, 2024-01-01, 0x1F, 'null', .inf, \"a: b\"]}\nrouting:\n  session_header: on\nadmission: {max_wait: 0, body_memory: 0}\n"))
	if err != nil {
		t.Fatal(err)
	}
	m := f.Models.Value[0]
	var aliases []string
	for _, a := range m.Aliases.Value {
		aliases = append(aliases, a.Value)
	}
	if m.Name.Value != "no" || !slices.Equal(aliases, []string{"yes", "010", "1e3", "2024-01-01", "0x1F", "null", ".inf", "a: b"}) || f.Routing.Value.SessionHeader.Value != "on" {
		t.Errorf("%+v, %q", m, aliases)
	}
	if a := f.Admission.Value; !a.MaxWait.Set() || a.MaxWait.Value != 0 || !a.BodyMemory.Set() {
		t.Errorf("%+v", a)
	}
}

// An editor of another system leaves a mark at the beginning, and other ends of lines.
func TestOtherEditors(t *testing.T) {
	f, err := Parse("f", []byte("\ufefflisten: \":1\"\r\nmetrics_listen: \":2\"\r\n"))
	if err != nil || f.Listen != (At[string]{":1", 1}) || f.MetricsListen != (At[string]{":2", 2}) {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	_, err := Parse("f", []byte("keys:\n"+strings.Repeat("  - {}\n", 1000)))
	e, ok := errors.AsType[*Errors](err)
	if !ok || len(e.Problems) != maxKept {
		t.Fatalf("%v", err)
	}
	if lines := e.Lines(); len(lines) != maxShown+1 || lines[maxShown] != "f: and many more" {
		t.Errorf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
}

func TestAFewMoreErrors(t *testing.T) {
	_, err := Parse("f", []byte("keys:\n"+strings.Repeat("  - {}\n", 30)))
	if lines := strings.Split(err.Error(), "\n"); lines[len(lines)-1] != "f: and 10 more" {
		t.Errorf("%v", err)
	}
}

// No text makes the reader panic, hang or be silent, and each error has a line of the
// file and is one line itself.
func FuzzConfig(f *testing.F) {
	if data, err := os.ReadFile(example); err == nil {
		f.Add(data)
	}
	for _, m := range mistakes {
		f.Add([]byte(m.file))
	}
	for _, s := range []string{"", "a: &a [*a]", "? {a: b}\n: c", "keys: [{hash: [&x y, *x]}]", "\xff\xfe", "%YAML 1.1\n---\nlisten: a\n...\n---\n", "models: {\"a\\nb\": {aliases: {}}}", "keys:\n- name: a\n- name: \"b\n- c\"\n"} {
		f.Add([]byte(s))
	}
	form := regexp.MustCompile(`^f:[1-9][0-9]*: .`)
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("f", data)
		if err == nil {
			if file == nil {
				t.Fatal("neither a file nor an error")
			}
			return
		}
		e, ok := errors.AsType[*Errors](err)
		if !ok || len(e.Problems) == 0 {
			t.Fatalf("%T, %v", err, err)
		}
		last := 1
		for i, line := range e.Lines() {
			if i == maxShown {
				break
			}
			p := e.Problems[i]
			if !form.MatchString(line) || strings.Contains(line, "\n") || p.Line < last || p.Line > lineOf(data, len(data))+1 {
				t.Errorf("%q of %+v", line, p)
			}
			last = p.Line
		}
	})
}

// What is read piece by piece is what is read as a whole: values, lines and errors.
func FuzzCut(f *testing.F) {
	key := "- {name: a, hash: " + hash + "}\n"
	for _, s := range []string{"keys:\n" + key + key, "keys: # all\n\n  # one\n  " + key + "  # two\n\n  " + key + "\n# end\nlisten: \":1\"\n", "keys:\r\n  - name: a\r\n    hash: x\r\n  -\r\n    name: b\r\n",
		"listen: \"\nkeys:\n- a\n\"", "{listen: a,\nkeys:\n- a\n}", "keys:\n  - name: \"b\n  - c\"\n  - d", "keys:\n  - &a x\n  - *a\n", "keys:\n    - a\n  - b\n", "keys:\n  - a\n  b: c\n", "keys:\n- a\nkeys:\n- b\n",
		"keys:\n  - a\n---\nkeys:\n", "keys:\n  - - a\n    - b\n  -\n  - c: |\n     - d\n   - e\n", "keys:\n  - |\n  - b", "keys:\n  - {a: b\n  - c}\n", "keys:\n  - a: 'x\n  - b'\n"} {
		f.Add([]byte(s))
	}
	for _, m := range mistakes {
		f.Add([]byte(m.file))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, why := unreadable(data); why != "" {
			return
		}
		got, gotProblems, ok := parseCut(data, 1)
		if !ok {
			return
		}
		want, wantProblems := parseWhole(data)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("cut %+v\nwhole %+v", got, want)
		}
		if !reflect.DeepEqual(NewErrors("f", gotProblems), NewErrors("f", wantProblems)) {
			t.Errorf("cut %v\nwhole %v", gotProblems, wantProblems)
		}
	})
}

// The list of a large file is read piece by piece, and no item is lost or moved.
func TestCut(t *testing.T) {
	var file strings.Builder
	file.WriteString("listen: \":1\"\nkeys: # who may\n")
	for i := range 5000 {
		writeKey(&file, i)
	}
	file.WriteString("limits: {concurrency: many}\n")
	data := []byte(file.String())
	if len(data) < cutFrom {
		t.Fatalf("only %d bytes", len(data))
	}
	got, problems, ok := parseCut(data, cutSize)
	want, wantProblems := parseWhole(data)
	if !ok || len(got.Keys.Value) != 5000 || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(problems, wantProblems) || problems[0].Line != 20003 {
		t.Errorf("cut: %v, %d keys, %v; whole: %v", ok, len(got.Keys.Value), problems, wantProblems)
	}
}

func BenchmarkParse100000Keys(b *testing.B) {
	var file strings.Builder
	file.WriteString("keys:\n")
	for i := range 100_000 {
		writeKey(&file, i)
	}
	data := []byte(file.String())
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if f, err := Parse("f", data); err != nil || len(f.Keys.Value) != 100_000 {
			b.Fatal(err)
		}
	}
}
