package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whoever packs the same files has the same bytes, and nothing of him is in them.
func TestArchiveIsTheSame(t *testing.T) {
	dir, at := t.TempDir(), time.Unix(1_700_000_000, 0)
	from := filepath.Join(dir, "from")
	if err := os.WriteFile(from, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := []file{
		{path: "bin/b", from: from, mode: 0o755},
		{path: "LICENSE", data: []byte("a licence"), mode: 0o644},
		{path: "bin/a", data: []byte{}, mode: 0o755},
	}
	first, second := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	if err := writeArchive(first, "name-v1", files, at); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(files)
	if err := os.Chtimes(from, time.Now(), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := writeArchive(second, "name-v1", files, at.In(time.FixedZone("elsewhere", 3600))); err != nil {
		t.Fatal(err)
	}
	a, b := unpack(t, first), unpack(t, second)
	if !bytes.Equal(a.raw, b.raw) {
		t.Error("packed twice it is not the same")
	}
	if want := []string{"name-v1/LICENSE", "name-v1/bin/a", "name-v1/bin/b"}; !slices.Equal(a.names, want) {
		t.Errorf("%q, want %q", a.names, want)
	}
	for name, h := range a.headers {
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || !h.ModTime.Equal(at) {
			t.Errorf("%s is of %d:%d %q:%q, %v", name, h.Uid, h.Gid, h.Uname, h.Gname, h.ModTime)
		}
	}
	if mode := a.headers["name-v1/bin/b"].Mode; mode != 0o755 {
		t.Errorf("a program has mode %o", mode)
	}
	if got := string(a.data["name-v1/bin/b"]); got != "a program" {
		t.Errorf("%q", got)
	}
}

func TestArchiveRefuses(t *testing.T) {
	dir := t.TempDir()
	for want, files := range map[string][]file{
		"LICENSE is there twice": {{path: "LICENSE"}, {path: "bin/a"}, {path: "LICENSE"}},
		"docs/gone.md: open ":    {{path: "docs/gone.md", from: filepath.Join(dir, "gone")}},
	} {
		err := writeArchive(filepath.Join(dir, want[:4]), "name", files, time.Unix(0, 0))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want: %s", err, want)
		}
	}
}

func TestSums(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b", "a"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sums := filepath.Join(dir, sumsName)
	if err := writeSums(sums, []string{filepath.Join(dir, "b"), filepath.Join(dir, "a")}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(sums)
	const want = "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7  a\n" +
		"0263829989b6fd954f72baaf2fc64bc2e2f01d692d4de72986ea808f6e99813f  b\n" // by sha256sum
	if err != nil || string(got) != want {
		t.Errorf("%q, %v\nwant %q", got, err, want)
	}
}

// unpacked is an archive as it was read back.
type unpacked struct {
	raw     []byte
	names   []string
	headers map[string]*tar.Header
	data    map[string][]byte
}

func unpack(t *testing.T, path string) unpacked {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	u := unpacked{raw: raw, headers: map[string]*tar.Header{}, data: map[string][]byte{}}
	if packed.Name != "" || !packed.ModTime.IsZero() {
		t.Errorf("%s: gzip says %q, %v", path, packed.Name, packed.ModTime)
	}
	for tarball := tar.NewReader(packed); ; {
		h, err := tarball.Next()
		if err == io.EOF {
			return u
		}
		if err != nil {
			t.Fatal(err)
		}
		u.names = append(u.names, h.Name)
		u.headers[h.Name] = h
		if u.data[h.Name], err = io.ReadAll(tarball); err != nil {
			t.Fatal(err)
		}
	}
}
