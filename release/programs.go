package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// platform is what a program runs on, in Go's words.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "/" + p.arch }

var platforms = []platform{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "arm64"}, {"darwin", "amd64"}}

func platformNames() []string {
	var all []string
	for _, p := range platforms {
		all = append(all, p.String())
	}
	return all
}

// program is one of ours.
type program struct {
	name        string
	module, pkg string // what is built
	linuxOnly   bool   // it is of no use elsewhere
	glibc       bool   // on Linux: the driver's library needs it, and so does whoever loads that
}

var programs = []program{
	{name: "vllm-gateway", module: ".", pkg: "./cmd/vllm-gateway"},
	{name: "gpu-exporter", module: ".", pkg: "./cmd/gpu-exporter", linuxOnly: true, glibc: true},
	{name: "vllm-sim", module: ".", pkg: "./cmd/vllm-sim"},
	{name: "vllm-verdict", module: ".", pkg: "./cmd/vllm-verdict"},
	// Without NVIDIA's driver it shows simulated GPUs, or a GPU exporter's of
	// another machine.
	{name: "vllm-stack", module: "stack", pkg: ".", glibc: true},
}

func (p program) on(where platform) bool { return !p.linuxOnly || where.os == "linux" }

func (p platform) programs() []string {
	var all []string
	for _, program := range programs {
		if program.on(p) {
			all = append(all, program.name)
		}
	}
	return all
}

// goCommand runs the go tool in the program's module, for a platform. Of git only
// the version shows in a program: whether Go can read the repository depends on the
// machine, and so would the bytes. (An empty GOFLAGS would be what go env -w has set.)
func (p program) goCommand(where platform, args ...string) *exec.Cmd {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Stderr = p.module, os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+where.os, "GOARCH="+where.arch, "GOWORK=off", "GOFLAGS=-buildvcs=false",
		"GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GODEBUG=", "GOFIPS140=off")
	return cmd
}

// build is what the Makefile does.
func (p program) build(where platform, binary, version string) error {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	cmd := p.goCommand(where, "build", "-trimpath", "-ldflags", "-s -w -X github.com/vllm-gateway/vllm-gateway/internal/daemon.version="+version, "-o", binary, p.pkg)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	return nil
}

// shipped are the files of the repository that go along, as git's patterns: what the
// docs speak of and the programs do not hold, and whatever loadtests/run needs.
func shipped(p platform) []string {
	all := []string{
		"LICENSE", "README.md", "CHANGELOG.md",
		"docs/*.md", "docs/*.png", "docs/gateway.yaml",
		"dashboards/vllm-gateway.json", "alerts/*.yml",
		"loadtests/*.js", "loadtests/run", "loadtests/README.md", "loadtests/k8s/*.yaml",
	}
	if p.os == "linux" {
		all = append(all, "systemd/*.service", "systemd/README.md")
	}
	return all
}

// fromRepository are these files. git is asked, so that what only lies there does
// not get into a release, and a file's mode is not this machine's.
func fromRepository(p platform) ([]file, error) {
	var files []file
	for _, pattern := range shipped(p) {
		out, err := git("ls-files", "-z", "--stage", "--", ":(glob)"+pattern)
		if err != nil {
			return nil, err
		}
		if out == "" {
			return nil, fmt.Errorf("git knows no %s, which belongs into each release", pattern)
		}
		for line := range strings.SplitSeq(strings.TrimRight(out, "\x00"), "\x00") {
			about, path, _ := strings.Cut(line, "\t")
			mode, err := strconv.ParseInt(strings.Fields(about)[0], 8, 64) // 100644 or 100755
			if err != nil {
				return nil, fmt.Errorf("git ls-files: %q: %w", line, err)
			}
			files = append(files, file{path: path, from: path, mode: mode & 0o777})
		}
	}
	return files, nil
}
