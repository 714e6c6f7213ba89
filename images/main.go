// Images builds our programs for Linux and writes a container image of each as
// a tarball. It needs Go, and no Docker.
//
//	go run ./images [-o bin/images] [-arch arm64] [NAME…]
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/image"
)

func main() {
	folder := flag.String("o", "bin/images", "the `folder` that the tarballs are written to")
	arch := flag.String("arch", runtime.GOARCH, "the `processor` that the images are for, as Go calls it")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "go run ./images [flags] [NAME…] writes images of %s, or of those named.\n", strings.Join(names(), ", "))
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*folder, *arch, flag.Args(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// run writes what it can: where there is no glibc, two of the four.
func run(folder, arch string, wanted []string, out io.Writer) error {
	for _, name := range wanted {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("there is no %q: use %s", name, strings.Join(names(), ", "))
		}
	}
	if _, err := os.Stat("stack/go.mod"); err != nil {
		return errors.New("run it in the repository's folder: go run ./images")
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	var failed []error
	var example string
	for _, p := range programs {
		if len(wanted) > 0 && !slices.Contains(wanted, p.name) {
			continue
		}
		path := filepath.Join(folder, p.name+".tar")
		size, err := p.make(path, arch)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", p.name, err))
			continue
		}
		if example == "" || p.name == "gpu-exporter" { // every cluster wants that one
			example = path
		}
		fmt.Fprintf(out, "%-42s %-28s %5.1f MB\n", p.ref(), path, float64(size)/1e6)
	}
	if example != "" {
		fmt.Fprintf(out, "\nLoad what is to run there into your cluster, on each node if there are more:\n  minikube image load %[1]s\n  sudo k3s ctr images import %[1]s\n  kind load image-archive %[1]s\n  docker load -i %[1]s   (Docker Desktop's cluster)\n", example)
	}
	return errors.Join(failed...)
}

// make builds the program and writes its image, of which nothing is left if it
// fails.
func (p program) make(path, arch string) (int64, error) {
	// Asked before anything is built, which takes minutes the first time.
	if p.glibc {
		if err := canCopyGlibc(runtime.GOOS, runtime.GOARCH, arch); err != nil {
			return 0, p.instead(err)
		}
	}
	temp, err := os.MkdirTemp("", "image")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(temp)
	binary, version := filepath.Join(temp, p.name), gitVersion()
	if err := p.build(binary, arch, version); err != nil {
		return 0, err
	}
	i := p.image(arch, version)
	i.Files = append(i.Files, image.File{Path: p.path(), From: binary})
	if p.glibc {
		files, err := glibc("/", binary)
		if err != nil {
			return 0, p.instead(err)
		}
		i.Files = append(i.Files, files...)
	}
	if p.certificates {
		if file := certificates(); file != "" {
			i.Files = append(i.Files, image.File{Path: certificatesPath, From: file, Mode: 0o644})
		} else {
			fmt.Fprintf(os.Stderr, "images: %s: this machine has no CA certificates, so https:// backends will be refused; install ca-certificates, or use docker build -f %s .\n", p.name, p.dockerfile())
		}
	}
	return write(path, i)
}

func (p program) instead(err error) error {
	return fmt.Errorf("%w; use docker build -f %s . instead", err, p.dockerfile())
}

func (p program) build(binary, arch, version string) error {
	build := p.goBuild(binary, arch, version)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	return nil
}

// goBuild is what the Makefile does, for Linux.
func (p program) goBuild(binary, arch, version string) *exec.Cmd {
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X github.com/vllm-gateway/vllm-gateway/internal/daemon.version="+version, "-o", binary, p.pkg)
	build.Dir = p.module
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOWORK=off")
	return build
}

func gitVersion() string {
	out, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		return "devel"
	}
	return strings.TrimSpace(string(out))
}

// write has the tarball under its name only once it is whole.
func write(path string, i image.Image) (int64, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".image-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := image.Write(f, i); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return 0, err
	}
	return info.Size(), os.Rename(f.Name(), path)
}
