//go:build release

package main

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const version = "v1.2.3-test"

// The archives for Linux, as somebody gets them.
func TestRelease(t *testing.T) {
	folder := t.TempDir()
	var out bytes.Buffer
	if err := run(folder, version, []string{"linux/amd64", "linux/arm64"}, &out); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + out.String())
	check := exec.Command("sha256sum", "-c", "--strict", sumsName)
	check.Dir = folder
	if said, err := check.CombinedOutput(); err != nil || strings.Count(string(said), ": OK") != 2 {
		t.Errorf("%v\n%s", err, said)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 3 {
		t.Errorf("%v, %v: want two archives and their sums", left, err)
	}
	for _, p := range platforms[:2] {
		t.Run(p.String(), func(t *testing.T) { checkArchive(t, folder, p) })
	}

	// In another folder, and another zone.
	t.Setenv("TZ", "Asia/Tokyo")
	again := filepath.Join(t.TempDir(), "elsewhere")
	if err := run(again, version, []string{"linux/amd64"}, &out); err != nil {
		t.Fatal(err)
	}
	name := release{version: version}.name(platforms[0]) + ".tar.gz"
	first, err := sumOf(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	if second, err := sumOf(filepath.Join(again, name)); err != nil || first != second {
		t.Errorf("built twice, %s has the sums %s and %s, %v", name, first, second, err)
	}
}

func checkArchive(t *testing.T, folder string, p platform) {
	top := release{version: version}.name(p)
	archive := unpack(t, filepath.Join(folder, top+".tar.gz"))
	for _, name := range archive.names {
		if !strings.HasPrefix(name, top+"/") {
			t.Errorf("%s is beside the folder", name)
		}
	}
	for _, name := range []string{
		"LICENSE", "docs/glossary.md", "docs/gateway.yaml", "dashboards/vllm-gateway.json", "alerts/alerts.yml", "alerts/recording.yml",
		"loadtests/baseline.js", "loadtests/streams.js", "loadtests/run", "systemd/vllm-gateway.service",
		"licenses/go/LICENSE", "licenses/uPlot/LICENSE",
	} {
		want, err := os.ReadFile(name)
		if err == nil && !bytes.Equal(archive.data[top+"/"+name], want) || archive.data[top+"/"+name] == nil {
			t.Errorf("%s is not there, or another one", name)
		}
	}
	for _, page := range []string{"README.md", "docs/monitoring.md", "systemd/README.md"} { // links in them may lead elsewhere
		if len(archive.data[top+"/"+page]) == 0 {
			t.Errorf("%s is not there", page)
		}
	}
	for _, strange := range archive.names {
		if strings.Contains(strange, "node_modules") || strings.HasSuffix(strange, ".go") || strings.Contains(strange, "testdata") {
			t.Errorf("%s is there", strange)
		}
	}
	unpacked := filepath.Join(t.TempDir(), "bin")
	if err := os.Mkdir(unpacked, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range programs {
		t.Run(program.name, func(t *testing.T) {
			data := archive.data[top+"/bin/"+program.name]
			if data == nil {
				t.Fatal("it is not there")
			}
			path := filepath.Join(unpacked, program.name)
			if err := os.WriteFile(path, data, os.FileMode(archive.headers[top+"/bin/"+program.name].Mode)); err != nil {
				t.Fatal(err)
			}
			checkLinks(t, path, program, p)
			checkModules(t, path, archive.data[top+"/sbom/"+program.name+".cdx.json"], func(module string) bool {
				return slices.ContainsFunc(archive.names, func(name string) bool {
					return strings.HasPrefix(name, top+"/licenses/"+module+"/") && !strings.Contains(strings.TrimPrefix(name, top+"/licenses/"+module+"/"), "/")
				})
			})
			here, err := os.Getwd()
			if err != nil {
				t.Fatal(err)
			}
			cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, place := range []string{here, strings.TrimSpace(string(cache))} {
				if bytes.Contains(data, []byte(place+"/")) {
					t.Errorf("it has %s in it: where it was built", place)
				}
			}
			if runtime.GOOS != "linux" || runtime.GOARCH != p.arch {
				return
			}
			said, err := exec.Command(path, "--version").CombinedOutput()
			if want := regexp.MustCompile("^" + program.name + " " + regexp.QuoteMeta(version) + `( \(.*\))?\n$`); err != nil || !want.Match(said) {
				t.Errorf("--version: %v, %q, want %s", err, said, want)
			}
		})
	}
}

// checkLinks holds which programs are static, and which need glibc's loader.
func checkLinks(t *testing.T, path string, program program, p platform) {
	binary, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[p.arch]; binary.Machine != want {
		t.Errorf("it is for %v, want %v", binary.Machine, want)
	}
	libraries, err := binary.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	loader := ""
	for _, part := range binary.Progs {
		if part.Type == elf.PT_INTERP {
			name := make([]byte, part.Filesz)
			if _, err := part.ReadAt(name, 0); err != nil {
				t.Fatal(err)
			}
			loader = strings.TrimRight(string(name), "\x00")
		}
	}
	if !program.glibc {
		if len(libraries) > 0 || loader != "" {
			t.Errorf("it is not static: it needs %q and %q", loader, libraries)
		}
		return
	}
	want := map[string]string{"amd64": "/lib64/ld-linux-x86-64.so.2", "arm64": "/lib/ld-linux-aarch64.so.1"}[p.arch]
	if loader != want || !slices.Contains(libraries, "libc.so.6") {
		t.Errorf("its loader is %q, and it needs %q; want %s and libc.so.6", loader, libraries, want)
	}
}

// checkModules holds the SBOM and the licences against what Go has written into the
// program.
func checkModules(t *testing.T, path string, bom []byte, licensed func(module string) bool) {
	var doc struct {
		Format, Spec string
		BomFormat    string `json:"bomFormat"`
		SpecVersion  string `json:"specVersion"`
		Metadata     struct {
			Component struct{ Name, Version string }
		}
		Components []struct {
			Name, Version, Purl string
			Ref                 string `json:"bom-ref"`
		}
		Dependencies []struct {
			Ref       string
			DependsOn []string `json:"dependsOn"`
		}
	}
	if err := json.Unmarshal(bom, &doc); err != nil {
		t.Fatalf("SBOM: %v", err)
	}
	if doc.BomFormat != "CycloneDX" || doc.SpecVersion != "1.6" || doc.Metadata.Component.Name != filepath.Base(path) || doc.Metadata.Component.Version != version {
		t.Errorf("SBOM: %q %q of %+v", doc.BomFormat, doc.SpecVersion, doc.Metadata.Component)
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"stdlib@" + strings.TrimPrefix(strings.Fields(info.GoVersion)[0], "go")}
	for _, dep := range info.Deps {
		if dep.Path == ours {
			continue
		}
		if dep.Replace != nil {
			t.Errorf("%s is replaced: say here by what", dep.Path)
		}
		module := dep.Path + "@" + dep.Version
		want = append(want, module)
		if !licensed(module) {
			t.Errorf("no licence of %s", module)
		}
	}
	var got, refs []string
	for _, c := range doc.Components {
		got, refs = append(got, c.Name+"@"+c.Version), append(refs, c.Ref)
		if !strings.HasPrefix(c.Purl, "pkg:golang/"+c.Name+"@v") && c.Name != "stdlib" {
			t.Errorf("SBOM: %q is %q", c.Name, c.Purl)
		}
	}
	slices.Sort(want)
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("SBOM names %q\nthe program %q", got, want)
	}
	if len(doc.Dependencies) != 1 || !slices.Equal(doc.Dependencies[0].DependsOn, refs) || fmt.Sprint(doc.Dependencies[0].Ref) != filepath.Base(path) {
		t.Errorf("SBOM: dependencies are %+v", doc.Dependencies)
	}
}
