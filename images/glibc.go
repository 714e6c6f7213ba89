package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/image"
)

// driverNeeds are what NVIDIA's libnvidia-ml.so.1 and nvidia-smi are linked
// with. They are mounted where the container runs, so they cannot be asked. The
// last is what glibc itself loads when a thread is cancelled.
var driverNeeds = []string{"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libgcc_s.so.1"}

// libraryFolders are those that loaders search by themselves: Debian's, then
// those of the others.
func libraryFolders(machine elf.Machine) []string {
	triple := map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu"}[machine]
	return []string{"/lib/" + triple, "/usr/lib/" + triple, "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
}

// canCopyGlibc reports why this machine's glibc is no use.
func canCopyGlibc(system, machine, wanted string) error {
	switch {
	case system != "linux":
		return fmt.Errorf("its image needs glibc, which is copied from this machine, and this one runs %s", system)
	case machine != wanted:
		return fmt.Errorf("its image needs glibc for %s, which is copied from this machine, and this one is %s", wanted, machine)
	case machine != "amd64" && machine != "arm64":
		return fmt.Errorf("where glibc is on %s is not known", machine)
	}
	return nil
}

// glibc is what a program needs beside itself to load the driver's library: the
// dynamic loader, and all libraries that the program and the driver are linked
// with. They are copied from the machine whose root is given, and keep their
// folders, in which the same loader searches for them.
func glibc(root, binary string) ([]image.File, error) {
	program, err := elf.Open(binary)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	loader, err := interpreter(program)
	if err != nil {
		return nil, err
	}
	if strings.Contains(loader, "ld-musl") {
		return nil, errors.New("its image needs glibc, which is copied from this machine, and this one has musl")
	}
	from, err := follow(root, loader)
	if err != nil {
		return nil, fmt.Errorf("its image needs glibc, which is copied from this machine, and this one has no %s", loader)
	}
	files := []image.File{{Path: loader, From: from}}

	first, err := program.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	todo, seen := append(first, driverNeeds...), []string{path.Base(loader)} // libraries need the loader too: it is there
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if slices.Contains(seen, name) {
			continue
		}
		seen = append(seen, name)
		file, needs, err := library(root, name, program.Machine)
		if err != nil {
			return nil, err
		}
		files, todo = append(files, file), append(todo, needs...)
	}
	return append(files, toolkitFiles(root)...), nil
}

// toolkitFiles are what NVIDIA's container toolkit looks at in an image. It
// mounts the driver's libraries in Debian's folder only if it finds Debian's
// version, and renews the loader's cache only if there is one. An empty one does:
// a loader passes over it.
func toolkitFiles(root string) []image.File {
	files := []image.File{
		{Path: "/etc/ld.so.cache", Data: []byte{}, Mode: 0o644},
		{Path: "/etc/ld.so.conf.d", Folder: true},
		{Path: "/etc/ld.so.conf", Data: []byte("include /etc/ld.so.conf.d/*.conf\n"), Mode: 0o644},
	}
	if version, err := os.ReadFile(filepath.Join(root, "etc/debian_version")); err == nil {
		files = append(files, image.File{Path: "/etc/debian_version", Data: version, Mode: 0o644})
	}
	return files
}

func interpreter(f *elf.File) (string, error) {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			name := make([]byte, p.Filesz)
			if _, err := p.ReadAt(name, 0); err != nil {
				return "", err
			}
			return strings.TrimRight(string(name), "\x00"), nil
		}
	}
	return "", errors.New("it is static, and cannot load the driver's library")
}

// library finds a library for that processor, and what it is linked with.
func library(root, name string, machine elf.Machine) (image.File, []string, error) {
	for _, folder := range libraryFolders(machine) {
		from, err := follow(root, path.Join(folder, name))
		if err != nil {
			continue
		}
		f, err := elf.Open(from)
		if err != nil {
			continue // a linker's script, under a library's name
		}
		needs, err := f.ImportedLibraries()
		f.Close()
		if err != nil || f.Machine != machine {
			continue
		}
		// /lib is /usr/lib on most; in the image each folder is itself.
		if folder, err = follow(root, folder); err != nil {
			continue
		}
		inside, err := filepath.Rel(root, folder)
		if err != nil {
			return image.File{}, nil, err
		}
		return image.File{Path: path.Join("/", inside, name), From: from, Mode: 0o644}, needs, nil
	}
	return image.File{}, nil, fmt.Errorf("its image needs %s of glibc, which is copied from this machine, and this one has it in none of %s", name, strings.Join(libraryFolders(machine), " "))
}

// follow follows all links.
func follow(root, name string) (string, error) {
	return filepath.EvalSymlinks(filepath.Join(root, name))
}
