package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
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

// With Docker and without, the same runs.
func TestDockerfiles(t *testing.T) {
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			lines := dockerfile(t, p.dockerfile())
			last := lines[lastIndex(lines, "FROM"):]
			i := p.image("amd64", "devel") // devel is what VERSION is if nobody says
			labels := map[string]string{}
			for _, pair := range words(last, "LABEL") {
				key, value, _ := strings.Cut(pair, "=")
				labels[key] = strings.ReplaceAll(value, "$VERSION", words(last, "ARG")[0][len("VERSION="):])
			}
			var entrypoint []string
			if err := json.Unmarshal([]byte(strings.Join(words(last, "ENTRYPOINT"), " ")), &entrypoint); err != nil {
				t.Fatal(err)
			}
			ports := []string{}
			for _, port := range i.Ports {
				ports = append(ports, fmt.Sprint(port))
			}
			for what, pair := range map[string][2]any{
				"ENTRYPOINT": {entrypoint, i.Entrypoint},
				"USER":       {words(last, "USER"), []string{i.User}},
				"ENV":        {words(last, "ENV"), i.Env},
				"EXPOSE":     {words(last, "EXPOSE"), ports},
				"VOLUME":     {words(last, "VOLUME"), i.Volumes},
				"WORKDIR":    {words(last, "WORKDIR"), []string(nil)},
				"CMD":        {words(last, "CMD"), i.Cmd},
				"LABEL":      {labels, i.Labels},
			} {
				if !reflect.DeepEqual(pair[0], pair[1]) {
					t.Errorf("%s\nin the Dockerfile %q\nin the tarball   %q", what, pair[0], pair[1])
				}
			}
			if static := last[0] == "FROM scratch"; static == p.glibc {
				t.Errorf("%s, and glibc: %v", last[0], p.glibc)
			}
			text := strings.Join(last, "\n")
			if !strings.Contains(text, "/out/"+p.name+" "+filepath.Dir(p.path())+"/") {
				t.Errorf("the program is not copied to %s", p.path())
			}
			// Without its name Go calls a program as its folder.
			if all := strings.Join(lines, "\n"); !strings.Contains(all, "-o /out/"+p.name+" "+p.pkg) || strings.Contains(all, "RUN cd stack ") != (p.module == "stack") {
				t.Errorf("it does not build %s in %s", p.pkg, p.module)
			}
			if strings.Contains(text, certificatesPath) != p.certificates {
				t.Errorf("certificates: want %v", p.certificates)
			}
			if p.data != "" && !strings.Contains(text, fmt.Sprintf("--chown=%d:%[1]d /out/data %s\n", user, p.data)) {
				t.Errorf("%s is not the user's", p.data)
			}
			build, err := os.ReadFile("Makefile")
			if err != nil {
				t.Fatal(err)
			}
			stamp := regexp.MustCompile(`-X \S+version=`)
			if got, want := stamp.FindString(strings.Join(lines, "\n")), stamp.FindString(string(build)); got != want || got == "" {
				t.Errorf("the version is stamped by %q, and in the Makefile by %q", got, want)
			}
		})
	}
}

// What is built tomorrow is what was built today, or a mended release of it.
func TestBasesArePinned(t *testing.T) {
	goMod, err := os.ReadFile("stack/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	release := regexp.MustCompile(`\ngo (1\.\d+)`).FindSubmatch(goMod)[1]
	files, err := filepath.Glob("images/*.Dockerfile")
	if err != nil || len(files) != len(programs) {
		t.Fatalf("%q, %v; want one for each program", files, err)
	}
	for _, file := range files {
		for _, line := range dockerfile(t, file) {
			words := strings.Fields(line)
			if words[0] != "FROM" || words[1] == "scratch" {
				continue
			}
			name, tag, _ := strings.Cut(words[1], ":")
			if tag == "" || strings.Contains(tag, "latest") {
				t.Errorf("%s: %s: name a release", file, line)
			}
			if name == "golang" && !strings.HasPrefix(tag, string(release)+"-") {
				t.Errorf("%s: %s, and stack/go.mod wants Go %s", file, line, release)
			}
		}
	}
}

// The static ones, which can be made on every machine.
func TestStaticImages(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	if err := run(dir, runtime.GOARCH, []string{"vllm-sim", "vllm-gateway"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vllm-sim", "vllm-gateway"} {
		path := filepath.Join(dir, name+".tar")
		if !strings.Contains(out.String(), registry+name+":"+tag) || !strings.Contains(out.String(), path) {
			t.Errorf("it does not tell of %s: %s", name, out.String())
		}
		files := layer(t, path)
		binary, err := elf.NewFile(bytes.NewReader(files["usr/local/bin/"+name]))
		if err != nil {
			t.Fatal(err)
		}
		if libraries, err := binary.ImportedLibraries(); err != nil || len(libraries) > 0 {
			t.Errorf("%s is not static: it needs %v, %v", name, libraries, err)
		}
		if pem := files[certificatesPath[1:]]; name == "vllm-gateway" && certificates() != "" && !bytes.Contains(pem, []byte("BEGIN CERTIFICATE")) {
			t.Errorf("%s has no certificates", name)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("%v, %v in the folder, want the two tarballs", left, err)
	}
}

// For another processor. It is not built: all of Go's library would be, too.
func TestArchitecture(t *testing.T) {
	for _, p := range programs {
		if env := p.goBuild("x", "arm64", "devel").Env; !slices.Contains(env, "GOARCH=arm64") || !slices.Contains(env, "GOOS=linux") || !slices.Contains(env, "CGO_ENABLED=0") {
			t.Errorf("%s: GOARCH, GOOS or CGO_ENABLED is not set", p.name)
		}
		if i := p.image("arm64", "devel"); i.Architecture != "arm64" {
			t.Errorf("%s: the image says %s", p.name, i.Architecture)
		}
	}
}

func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	if err := run(dir, runtime.GOARCH, []string{"vllm-gatway"}, io.Discard); err == nil || !strings.Contains(err.Error(), `no "vllm-gatway": use vllm-gateway, `) {
		t.Errorf("%v, want: there is no such program", err)
	}
	other := map[string]string{"amd64": "arm64"}[runtime.GOARCH]
	if other == "" {
		other = "amd64"
	}
	err := run(dir, other, []string{"gpu-exporter", "vllm-stack"}, io.Discard)
	for _, want := range []string{"docker build -f images/gpu-exporter.Dockerfile . instead", "docker build -f images/vllm-stack.Dockerfile . instead"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want: %s", err, want)
		}
	}
	for _, test := range []struct{ system, machine, wanted, want string }{
		{"linux", "amd64", "amd64", ""},
		{"linux", "arm64", "arm64", ""},
		{"linux", "amd64", "arm64", "glibc for arm64"},
		{"darwin", "arm64", "arm64", "this one runs darwin"},
		{"linux", "riscv64", "riscv64", "on riscv64 is not known"},
	} {
		err := canCopyGlibc(test.system, test.machine, test.wanted)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// dockerfile is a Dockerfile's instructions, a line each.
func dockerfile(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.SplitSeq(strings.ReplaceAll(string(data), "\\\n", " "), "\n") {
		if line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines
}

func lastIndex(lines []string, instruction string) int {
	for i := range slices.Backward(lines) {
		if strings.HasPrefix(lines[i], instruction+" ") {
			return i
		}
	}
	return 0
}

// words are the arguments of all instructions of a kind.
func words(lines []string, instruction string) []string {
	word := regexp.MustCompile(`(?:[^\s"=]+=)?"[^"]*"|[^\s"]\S*`)
	var all []string
	for _, line := range lines {
		if rest, ok := strings.CutPrefix(line, instruction+" "); ok {
			if rest[0] == '[' {
				return []string{rest}
			}
			for _, w := range word.FindAllString(rest, -1) {
				all = append(all, strings.ReplaceAll(w, `"`, ""))
			}
		}
	}
	return all
}

// layer is what is in the files of an image's layer.
func layer(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := map[string][]byte{}
	for outer := tar.NewReader(f); ; {
		h, err := outer.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(h.Name, ".tar") {
			continue
		}
		for inner := tar.NewReader(outer); ; {
			h, err := inner.Next()
			if err == io.EOF {
				return files
			}
			if err != nil {
				t.Fatal(err)
			}
			if files[h.Name], err = io.ReadAll(inner); err != nil {
				t.Fatal(err)
			}
		}
	}
}
