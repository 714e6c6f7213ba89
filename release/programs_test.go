package main

import (
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	// As it is run: in the repository's folder.
	if err := os.Chdir(".."); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// No program is left out, and all are built as the Makefile builds them.
func TestPrograms(t *testing.T) {
	commands, err := filepath.Glob("cmd/*")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, c := range commands {
		want = append(want, filepath.Base(c))
	}
	for _, p := range programs {
		got = append(got, p.name)
	}
	want = append(want, "vllm-stack")
	slices.Sort(want)
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("released are %q, and there are %q", got, want)
	}
	if darwin := (platform{"darwin", "arm64"}).programs(); slices.Contains(darwin, "gpu-exporter") || len(darwin) != len(programs)-1 {
		t.Errorf("on darwin there are %q, want all but gpu-exporter", darwin)
	}
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, stamp := range []string{"-s -w -X github.com/vllm-gateway/vllm-gateway/internal/daemon.version=", "git describe --tags --always --dirty"} {
		if !strings.Contains(string(makefile), stamp) {
			t.Errorf("the Makefile no longer has %q, and this does", stamp)
		}
	}
}

func TestMistakes(t *testing.T) {
	for want, try := range map[string]struct{ version, platform string }{
		`no release for "linux/arm": use linux/amd64, linux/arm64, darwin/arm64, darwin/amd64`: {"v1", "linux/arm"},
		`version "v1/2": use letters`: {"v1/2", "linux/amd64"},
	} {
		if err := run(t.TempDir(), try.version, []string{try.platform}, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want: %s", err, want)
		}
	}
	for _, epoch := range []string{"yesterday", "-1"} {
		t.Setenv("SOURCE_DATE_EPOCH", epoch)
		if _, err := commitTime(); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH is") {
			t.Errorf("%s: %v", epoch, err)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	if at, err := commitTime(); err != nil || at.Format("2006-01-02T15:04:05Z07:00") != "2023-11-14T22:13:20Z" {
		t.Errorf("%v, %v", at, err)
	}
}

func TestLicenceNames(t *testing.T) {
	for name, want := range map[string]bool{
		"LICENSE": true, "LICENSE.txt": true, "LICENCE": true, "COPYING": true, "NOTICE": true, "NOTICE.txt": true, "LICENSE.md": true,
		"LICENSE.libyaml": true, "LICENSE-APACHE": true, "COPYRIGHT.txt": true, "PATENTS": true, "license": true, "LICENSE-APACHE-2.0.txt": true,
		"license.go": false, "license_test.go": false, "licenses": false, "README.md": false, "notices.json": false, "LICENSE.yaml": false,
	} {
		if got := licenceName.MatchString(name) && !code.MatchString(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// A module's own, and those of what it has from others, beside the packages that
// are linked.
func TestLicencesOfAModule(t *testing.T) {
	root := t.TempDir()
	for _, path := range []string{"LICENSE", "a/LICENSE", "a/b/LICENSE.txt", "a/b/c/x.go", "other/LICENSE"} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := licences{}
	if err := l.addPackage("example.com/m@v1.0.0", root, filepath.Join(root, "a/b/c")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"LICENSE", "a/LICENSE", "a/b/LICENSE.txt"} {
		if got := l["example.com/m@v1.0.0/"+want]; got != filepath.Join(root, want) {
			t.Errorf("%s: %q", want, got)
		}
	}
	if len(l) != 3 {
		t.Errorf("%v, want three", l)
	}
	if err := os.Remove(filepath.Join(root, "LICENSE")); err != nil {
		t.Fatal(err)
	}
	if err := l.addPackage("example.com/m@v1.0.0", root, filepath.Join(root, "a/b")); !errors.Is(err, errNoLicence) {
		t.Errorf("%v, want: no licence", err)
	}
}

// What replaces a module is what is linked; a folder is ours.
func TestLinked(t *testing.T) {
	got := linked(&debug.BuildInfo{Deps: []*debug.Module{
		{Path: "example.com/a", Version: "v1.0.0"},
		{Path: ours, Version: "v0.0.0", Replace: &debug.Module{Path: "../"}},
		{Path: "example.com/b", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v1.0.1"}},
	}})
	if len(got) != 2 || got[0].Path != "example.com/a" || got[1].Path != "example.com/fork" || got[1].Version != "v1.0.1" {
		t.Errorf("%+v", got)
	}
}

// Of this test itself, which links Go's library alone.
func TestSBOM(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	data, err := sbom("program", "v1.2.3", self)
	if err != nil {
		t.Fatal(err)
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	if c := doc.Metadata.Component; c.Name != "program" || c.Version != "v1.2.3" || !strings.HasPrefix(c.Purl, "pkg:golang/"+ours+"@v1.2.3#") {
		t.Errorf("%+v", c)
	}
	version := strings.Fields(strings.TrimPrefix(info.GoVersion, "go"))[0]
	if len(doc.Components) != 1 || doc.Components[0].Purl != "pkg:golang/stdlib@"+version {
		t.Errorf("%+v, want Go's library %s", doc.Components, version)
	}
	if _, err := sbom("program", "v1", "Makefile"); err == nil {
		t.Error("the Makefile is a program")
	}
}
