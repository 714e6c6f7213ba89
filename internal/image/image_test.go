package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// example is an image with one of everything.
func example(t *testing.T) Image {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "busybox")
	if err := os.WriteFile(binary, bytes.Repeat([]byte("busybox "), 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	return Image{
		Name: "ghcr.io/vllm-gateway/example:0.1.0", Architecture: "arm64",
		Files: []File{
			{Path: "/usr/bin/wget", Link: "../../bin/busybox"},
			{Path: "/bin/busybox", From: binary},
			{Path: "/etc/config", Data: []byte("a: 1\n"), Mode: 0o640},
			{Path: "/etc/empty", Data: []byte{}, Mode: 0o644},
			{Path: "/data", Folder: true, Owner: 65532},
			{Path: "/tmp", Folder: true, Mode: 0o777 | fs.ModeSticky},
		},
		Entrypoint: []string{"/bin/busybox", "httpd"}, Cmd: []string{"-f"},
		User: "65532:65532", Env: []string{"PATH=/bin"}, Ports: []int{8000}, Volumes: []string{"/data"},
		WorkingDir: "/data", Labels: map[string]string{"org.opencontainers.image.title": "example"},
	}
}

func TestWrite(t *testing.T) {
	var out bytes.Buffer
	if err := Write(&out, example(t)); err != nil {
		t.Fatal(err)
	}
	parts := untar(t, out.Bytes())
	var m []manifest
	decode(t, parts["manifest.json"].data, &m)
	if len(m) != 1 || len(m[0].Layers) != 1 || !reflect.DeepEqual(m[0].RepoTags, []string{"ghcr.io/vllm-gateway/example:0.1.0"}) {
		t.Fatalf("manifest %+v, want one image of that name and one layer", m)
	}
	if len(parts) != 3 {
		t.Errorf("%d parts, want manifest, config and layer", len(parts))
	}
	raw, layer := parts[m[0].Config].data, parts[m[0].Layers[0]].data

	// As Docker reads it.
	var c struct {
		Created          time.Time
		Architecture, OS string
		Config           struct {
			User                  string
			ExposedPorts, Volumes map[string]struct{}
			Env, Entrypoint, Cmd  []string
			WorkingDir            string
			Labels                map[string]string
		}
		RootFS struct {
			Type    string
			DiffIDs []string `json:"diff_ids"`
		}
		History []struct{ Created time.Time }
	}
	decode(t, raw, &c)
	if want := []string{"sha256:" + hexSum(layer)}; c.RootFS.Type != "layers" || !reflect.DeepEqual(c.RootFS.DiffIDs, want) {
		t.Errorf("rootfs %+v, want the layer's sum %v", c.RootFS, want)
	}
	if c.Architecture != "arm64" || c.OS != "linux" || !c.Created.Equal(time.Unix(0, 0)) || len(c.History) != 1 {
		t.Errorf("config %s", raw)
	}
	got, _ := json.Marshal(c.Config)
	want := `{"User":"65532:65532","ExposedPorts":{"8000/tcp":{}},"Volumes":{"/data":{}},"Env":["PATH=/bin"],"Entrypoint":["/bin/busybox","httpd"],"Cmd":["-f"],"WorkingDir":"/data","Labels":{"org.opencontainers.image.title":"example"}}`
	if string(got) != want {
		t.Errorf("config\n got %s\nwant %s", got, want)
	}

	files := untar(t, layer)
	for _, want := range []struct {
		name, link string
		kind       byte
		mode       int64
		owner      int
		data       string
	}{
		{name: "bin/", kind: tar.TypeDir, mode: 0o755},
		{name: "bin/busybox", kind: tar.TypeReg, mode: 0o755, data: strings.Repeat("busybox ", 10_000)},
		{name: "data/", kind: tar.TypeDir, mode: 0o755, owner: 65532},
		{name: "etc/", kind: tar.TypeDir, mode: 0o755},
		{name: "etc/config", kind: tar.TypeReg, mode: 0o640, data: "a: 1\n"},
		{name: "etc/empty", kind: tar.TypeReg, mode: 0o644},
		{name: "tmp/", kind: tar.TypeDir, mode: 0o1777},
		{name: "usr/", kind: tar.TypeDir, mode: 0o755},
		{name: "usr/bin/", kind: tar.TypeDir, mode: 0o755},
		{name: "usr/bin/wget", link: "../../bin/busybox", kind: tar.TypeSymlink, mode: 0o777},
	} {
		got, ok := files[want.name]
		if !ok {
			t.Errorf("%s is not in the layer", want.name)
			continue
		}
		delete(files, want.name)
		if got.Typeflag != want.kind || got.Mode != want.mode || got.Linkname != want.link || string(got.data) != want.data {
			t.Errorf("%s: kind %c, mode %o, link %q, %d bytes", want.name, got.Typeflag, got.Mode, got.Linkname, len(got.data))
		}
		if got.Uid != want.owner || got.Gid != want.owner || got.Uname+got.Gname != "" || !got.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s: owner %d:%d %q, time %v", want.name, got.Uid, got.Gid, got.Uname+got.Gname, got.ModTime)
		}
	}
	for name := range files {
		t.Errorf("%s is in the layer", name)
	}
}

// Whoever writes it, and in what order the files are named.
func TestSameBytes(t *testing.T) {
	var first, second bytes.Buffer
	a, b := example(t), example(t)
	if err := os.Chtimes(b.Files[1].From, time.Time{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	b.Files[0], b.Files[5] = b.Files[5], b.Files[0]
	if err := Write(&first, a); err != nil {
		t.Fatal(err)
	}
	if err := Write(&second, b); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same image, written twice, differs")
	}
}

func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	file := func(f File) func(*Image) { return func(i *Image) { i.Files = []File{f} } }
	for _, test := range []struct {
		name string
		edit func(*Image)
		want string
	}{
		{"no name", func(i *Image) { i.Name = "" }, "it has no name"},
		{"no tag", func(i *Image) { i.Name = "localhost:5000/a" }, "no tag: write localhost:5000/a:0.1.0"},
		{"empty tag", func(i *Image) { i.Name = "a:" }, "no tag: write a:0.1.0"},
		{"latest", func(i *Image) { i.Name = "a:latest" }, "the tag latest does not tell"},
		{"odd tag", func(i *Image) { i.Name = "a:-1" }, `tag "-1"`},
		{"digest", func(i *Image) { i.Name = "a@sha256:00" }, "digest"},
		{"capitals", func(i *Image) { i.Name = "ghcr.io/A/b:1" }, "lower case"},
		{"space", func(i *Image) { i.Name = "a b:1" }, "lower case"},
		{"no entrypoint", func(i *Image) { i.Entrypoint = nil }, "no entrypoint"},
		{"user by name", func(i *Image) { i.User = "nobody" }, `user "nobody"`},
		{"odd variable", func(i *Image) { i.Env = []string{"PATH"} }, `variable "PATH"`},
		{"port", func(i *Image) { i.Ports = []int{0} }, "port 0"},
		{"volume", func(i *Image) { i.Volumes = []string{"data"} }, `folder "data"`},
		{"working folder", func(i *Image) { i.WorkingDir = "data" }, `folder "data"`},
		{"relative path", file(File{Path: "bin/a", Data: []byte("a")}), "from the image's root"},
		{"path upwards", file(File{Path: "/../a", Data: []byte("a")}), "from the image's root"},
		{"root", file(File{Path: "/", Folder: true}), "from the image's root"},
		{"whiteout", file(File{Path: "/bin/.wh.a", Data: []byte("a")}), "a file is gone"},
		{"nothing in it", file(File{Path: "/a"}), "set one of From, Data, Link and Folder"},
		{"two things in it", file(File{Path: "/a", Link: "b", Data: []byte("a")}), "set one of From, Data, Link and Folder"},
		{"owner", file(File{Path: "/a", Folder: true, Owner: -1}), "owner -1"},
		{"missing", file(File{Path: "/a", From: filepath.Join(dir, "none")}), "no such file"},
		{"a folder for a file", file(File{Path: "/a", From: dir}), "is not a file"},
		{"twice", func(i *Image) { i.Files = append(i.Files, i.Files[0]) }, `"/usr/bin/wget": it is there twice`},
		{"below a link", func(i *Image) { i.Files = append(i.Files, File{Path: "/usr/bin/wget/a/b", Folder: true}) }, "/usr/bin/wget above it is no folder"},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := example(t)
			test.edit(&i)
			var out bytes.Buffer
			err := Write(&out, i)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want: … %s …", err, test.want)
			}
			if out.Len() > 0 {
				t.Errorf("%d bytes were written", out.Len())
			}
		})
	}
}

// A file that somebody writes to meanwhile must not become an image whose sum
// is wrong.
func TestFilesThatChange(t *testing.T) {
	for name, change := range map[string]string{"longer": strings.Repeat("x", 100_000), "shorter": "x", "other": strings.Repeat("b", 80_000)} {
		t.Run(name, func(t *testing.T) {
			i := example(t)
			w := &firstWrite{do: func() { os.WriteFile(i.Files[1].From, []byte(change), 0o600) }}
			if err := Write(w, i); err == nil || !strings.Contains(err.Error(), "changed while they were read") {
				t.Errorf("%v, want: its files changed", err)
			}
		})
	}
}

// firstWrite does something once the first byte is written: between the two
// readings.
type firstWrite struct{ do func() }

func (f *firstWrite) Write(p []byte) (int, error) {
	if f.do != nil {
		f.do()
		f.do = nil
	}
	return len(p), nil
}

type entry struct {
	*tar.Header
	data []byte
}

func untar(t *testing.T, data []byte) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := all[h.Name]; ok {
			t.Errorf("%s is there twice", h.Name)
		}
		all[h.Name] = entry{h, content}
	}
}

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}
