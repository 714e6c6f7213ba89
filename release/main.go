// Release builds our programs for each platform and packs them, with what a user
// without the repository needs, into archives. The same commit gives the same
// bytes, whoever builds it and where, if the Go is the same.
//
//	go run ./release [-o dist] [-version v1.2.3] [OS/ARCH…]
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	folder := flag.String("o", "dist", "the `folder` that the archives are written to; older ones in it are removed")
	version := flag.String("version", "", "the `version` that the programs say and the archives are named by (what git describe says)")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "go run ./release [flags] [OS/ARCH…] builds for all of %s, or for those named.\n", strings.Join(platformNames(), ", "))
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*folder, *version, flag.Args(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// run writes the archives, then their sums, and tells of each.
func run(folder, version string, wanted []string, out io.Writer) error {
	for _, name := range wanted {
		if !slices.Contains(platformNames(), name) {
			return fmt.Errorf("there is no release for %q: use %s", name, strings.Join(platformNames(), ", "))
		}
	}
	if _, err := os.Stat("stack/go.mod"); err != nil {
		return errors.New("run it in the repository's folder: go run ./release")
	}
	r := release{folder: folder, version: version}
	var err error
	if r.version == "" {
		if r.version, err = git("describe", "--tags", "--always", "--dirty"); err != nil {
			return err
		}
	}
	if strings.ContainsAny(r.version, "/\\ \t\n'\"") { // it is part of a file's name, and of what the linker is told
		return fmt.Errorf("version %q: use letters, digits, dots and dashes, such as v1.2.3", r.version)
	}
	if r.time, err = commitTime(); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := r.forget(); err != nil {
		return err
	}
	var made []string
	for _, p := range platforms {
		if len(wanted) > 0 && !slices.Contains(wanted, p.String()) {
			continue
		}
		path, err := r.archive(p)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		made = append(made, path)
		fmt.Fprintf(out, "%-52s %5.1f MB  %s\n", path, float64(info.Size())/1e6, strings.Join(p.programs(), " "))
	}
	sums := filepath.Join(folder, sumsName)
	if err := writeSums(sums, made); err != nil {
		return err
	}
	fmt.Fprintf(out, "%-52s             sha256sum -c --ignore-missing %[2]s\n", sums, sumsName)
	return nil
}

// release is what is the same for all archives of one run.
type release struct {
	folder, version string
	time            time.Time // of the commit: all files have it
}

// name is the archive's, and that of the one folder in it.
func (r release) name(p platform) string {
	return fmt.Sprintf("vllm-gateway-%s-%s-%s", r.version, p.os, p.arch)
}

// forget removes what an earlier run has left, whose sums would be wrong.
func (r release) forget() error {
	old, err := filepath.Glob(filepath.Join(r.folder, "vllm-gateway-*.tar.gz"))
	if err != nil {
		return err
	}
	for _, path := range append(old, filepath.Join(r.folder, sumsName)) {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// archive builds for one platform, and has the archive under its name only once
// it is whole.
func (r release) archive(p platform) (string, error) {
	temp, err := os.MkdirTemp(r.folder, ".release-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	files, err := fromRepository(p)
	if err != nil {
		return "", err
	}
	commit, err := git("rev-parse", "HEAD")
	if err != nil {
		return "", err
	}
	if err := leadOut(files, commit); err != nil {
		return "", err
	}
	licences := licences{}
	if err := licences.addGo(); err != nil {
		return "", err
	}
	for _, program := range programs {
		if !program.on(p) {
			continue
		}
		binary := filepath.Join(temp, program.name)
		if err := program.build(p, binary, r.version); err != nil {
			return "", fmt.Errorf("%s: %w", program.name, err)
		}
		bom, err := sbom(program.name, r.version, binary)
		if err != nil {
			return "", fmt.Errorf("%s: %w", program.name, err)
		}
		if err := licences.add(program, p); err != nil {
			return "", fmt.Errorf("%s: %w", program.name, err)
		}
		files = append(files, file{path: "bin/" + program.name, from: binary, mode: 0o755},
			file{path: "sbom/" + program.name + ".cdx.json", data: bom, mode: 0o644})
	}
	for path, from := range licences {
		files = append(files, file{path: "licenses/" + path, from: from, mode: 0o644})
	}
	path := filepath.Join(r.folder, r.name(p)+".tar.gz")
	whole := filepath.Join(temp, "archive")
	if err := writeArchive(whole, r.name(p), files, r.time); err != nil {
		return "", err
	}
	return path, os.Rename(whole, path)
}

// commitTime is the commit's, or SOURCE_DATE_EPOCH, in seconds since 1970.
func commitTime() (time.Time, error) {
	text, from := os.Getenv("SOURCE_DATE_EPOCH"), "SOURCE_DATE_EPOCH"
	if text == "" {
		from = "git's time of the commit"
		var err error
		if text, err = git("log", "-1", "--format=%ct"); err != nil {
			return time.Time{}, err
		}
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fmt.Errorf("%s is %q: use seconds since 1970", from, text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// git is what git answers: of which commit this is, and which files are its.
func git(args ...string) (string, error) {
	var complaint strings.Builder
	cmd := exec.Command("git", args...)
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s; a release is made in a clone of the repository", args[0], err, strings.TrimSpace(complaint.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
