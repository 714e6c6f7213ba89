package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vllm-gateway/vllm-gateway/internal/image"
)

// The image's files are enough: the program runs with nothing else under its
// root, and finds no driver.
func TestGlibcImageRuns(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	if err := run(dir, runtime.GOARCH, []string{"gpu-exporter"}, io.Discard); err != nil {
		if strings.Contains(err.Error(), "its image needs glibc") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	files := layer(t, filepath.Join(dir, "gpu-exporter.tar"))
	for _, name := range []string{"etc/ld.so.cache", "etc/ld.so.conf"} {
		if _, ok := files[name]; !ok {
			t.Errorf("no %s, which NVIDIA's container toolkit looks for", name)
		}
	}
	for name, data := range files {
		path := filepath.Join(root, name)
		if strings.HasSuffix(name, "/") {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	in := func(args ...string) (string, error) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Env = "/", driverEnv
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Chroot:      root,
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := in("/usr/local/bin/gpu-exporter", "--version")
	// Only if namespaces are refused, or used up: no loader is another error.
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("a program cannot be run below another root here: %v", err)
	}
	if err != nil || !strings.HasPrefix(out, "gpu-exporter ") {
		t.Errorf("--version: %v, %s", err, out)
	}
	if out, err = in("/usr/local/bin/gpu-exporter", "check"); err == nil || !strings.Contains(out, "no GPU can be read") {
		t.Errorf("check: %v, %s, want that no GPU can be read", err, out)
	}
	// What the driver is linked with is found by the loader by itself.
	loader, _ := filepath.Glob(filepath.Join(root, "lib*", "ld-linux-*"))
	if len(loader) != 1 {
		t.Fatalf("loaders: %q", loader)
	}
	for _, name := range []string{"libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1"} {
		files, _ := filepath.Glob(filepath.Join(root, "usr/lib*", name))
		more, _ := filepath.Glob(filepath.Join(root, "usr/lib*/*", name))
		if files = append(files, more...); len(files) != 1 {
			t.Errorf("%s: %q", name, files)
			continue
		}
		out, err := in(strings.TrimPrefix(loader[0], root), "--list", strings.TrimPrefix(files[0], root))
		if err != nil || strings.Contains(out, "not found") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// What libraries are linked with comes along.
func TestLibrariesOfLibraries(t *testing.T) {
	if _, _, err := library("/", "libstdc++.so.6", machine(t)); err != nil {
		t.Skip(err)
	}
	was := driverNeeds
	t.Cleanup(func() { driverNeeds = was })
	driverNeeds = []string{"libstdc++.so.6"}
	binary := filepath.Join(t.TempDir(), "gpu-exporter")
	if err := programs[1].build(binary, runtime.GOARCH, "devel"); err != nil {
		t.Fatal(err)
	}
	files, err := glibc("/", binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6"} {
		if !slices.ContainsFunc(files, func(f image.File) bool { return filepath.Base(f.Path) == name }) {
			t.Errorf("no %s", name)
		}
	}
}

func machine(t *testing.T) elf.Machine {
	t.Helper()
	self, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	return self.Machine
}

func TestNoGlibc(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the made-up machine is an amd64")
	}
	dir := t.TempDir()
	p := programs[1]
	binary := filepath.Join(dir, p.name)
	if err := p.build(binary, "amd64", "devel"); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	write := func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := glibc(root, binary); err == nil || !strings.Contains(err.Error(), "this one has no /lib64/ld-linux-x86-64.so.2") {
		t.Errorf("%v, want: it has no loader", err)
	}
	write("lib64/ld-linux-x86-64.so.2", nil)
	if _, err := glibc(root, binary); err == nil || !strings.Contains(err.Error(), "in none of /lib/x86_64-linux-gnu") {
		t.Errorf("%v, want: it has no libraries", err)
	}
	// /lib may hold libraries for another processor, and scripts under their names.
	ours, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	others := bytes.Clone(ours)
	others[18] = byte(elf.EM_AARCH64)
	write("lib/x86_64-linux-gnu/libc.so.6", others)
	write("lib64/libc.so.6", []byte("/* GNU ld script */"))
	write("usr/lib/libc.so.6", ours)
	if err := os.Symlink("lib", filepath.Join(root, "usr/lib64")); err != nil {
		t.Fatal(err)
	}
	file, _, err := library(root, "libc.so.6", elf.EM_X86_64)
	if err != nil || file.Path != "/usr/lib/libc.so.6" || file.From != filepath.Join(root, "usr/lib/libc.so.6") {
		t.Errorf("%+v, %v; want the one in /usr/lib", file, err)
	}

	static := filepath.Join(dir, "static")
	if err := programs[0].build(static, "amd64", "devel"); err != nil {
		t.Fatal(err)
	}
	if _, err := glibc(root, static); err == nil || !strings.Contains(err.Error(), "it is static") {
		t.Errorf("%v, want: it is static", err)
	}
}
