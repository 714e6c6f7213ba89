// Package image writes a container image as one tarball, without Docker: the
// form of `docker save`, which `docker load`, `podman load`, `ctr images import`,
// `minikube image load` and `kind load image-archive` take. The image is one
// layer of the files it is given. The same input gives the same bytes, whoever
// writes it and when.
//
// It reads no images and fetches none.
package image

import (
	"archive/tar"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"
)

// Image is what is written.
type Image struct {
	// Name is what it is loaded under, with its tag: ghcr.io/owner/name:0.1.0.
	Name string
	// Architecture is Go's word for the processor; empty is this machine's.
	Architecture string
	Files        []File

	// Entrypoint is the program and its first arguments; it must be given.
	Entrypoint []string
	// Cmd are the arguments that whoever runs it may replace.
	Cmd []string
	// User is UID or UID:GID; empty is root. A number, since Kubernetes cannot
	// tell of a name that it is not root's.
	User string
	// Env are variables, KEY=VALUE.
	Env []string
	// Ports are those that it listens on, over TCP. They are only told.
	Ports []int
	// Volumes are folders whose content outlives the container.
	Volumes []string
	// WorkingDir is where the program starts; empty is the root.
	WorkingDir string
	Labels     map[string]string
}

// File is a file, a link or a folder in an image. Exactly one of From, Data,
// Link and Folder says what it is. The folders above it need not be named; they
// are root's, with mode 0755.
type File struct {
	Path   string // in the image, from its root: /bin/wget
	From   string // the file of this machine that it is a copy of
	Data   []byte // what is in it; empty, but not nil, is an empty file
	Link   string // what a symbolic link points to
	Folder bool
	// Mode are its permissions; 0 is 0755.
	Mode fs.FileMode
	// Owner is its user and its group.
	Owner int
}

// Write writes the image. Files are read twice, first for their sum and then for
// the tarball, so that none is ever held in memory.
func Write(w io.Writer, i Image) error {
	if err := write(w, i); err != nil {
		return fmt.Errorf("image %q: %w", i.Name, err)
	}
	return nil
}

func write(w io.Writer, i Image) error {
	files, err := i.check()
	if err != nil {
		return err
	}
	layer, size, err := writeLayer(io.Discard, files)
	if err != nil {
		return err
	}
	config := i.config(layer)
	configName, layerName := hexSum(config)+".json", layer+".tar"
	manifest := encode([]manifest{{Config: configName, RepoTags: []string{i.Name}, Layers: []string{layerName}}})

	out := tar.NewWriter(w)
	if err := put(out, "manifest.json", manifest); err != nil {
		return err
	}
	if err := put(out, configName, config); err != nil {
		return err
	}
	if err := out.WriteHeader(header(layerName, 0o644, size)); err != nil {
		return err
	}
	again, _, err := writeLayer(out, files)
	if errors.Is(err, tar.ErrWriteTooLong) || err == nil && again != layer {
		return errors.New("its files changed while they were read: try again")
	}
	if err != nil {
		return err
	}
	return out.Close()
}

// writeLayer writes the files as a tar, and gives its sum and size.
func writeLayer(w io.Writer, files []File) (string, int64, error) {
	sum, size := sha256.New(), counter(0)
	layer := tar.NewWriter(io.MultiWriter(w, sum, &size))
	for _, f := range files {
		if err := f.write(layer); err != nil {
			return "", 0, fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	if err := layer.Close(); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(sum.Sum(nil)), int64(size), nil
}

func (f File) write(layer *tar.Writer) error {
	h := header(strings.TrimPrefix(f.Path, "/"), tarMode(f.Mode), int64(len(f.Data)))
	h.Uid, h.Gid = f.Owner, f.Owner
	switch {
	case f.Folder:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case f.Link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
	case f.From != "":
		from, err := os.Open(f.From)
		if err != nil {
			return err
		}
		defer from.Close()
		info, err := from.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a file", f.From)
		}
		h.Size = info.Size()
		if err := layer.WriteHeader(h); err != nil {
			return err
		}
		_, err = io.Copy(layer, from)
		return err
	}
	if err := layer.WriteHeader(h); err != nil {
		return err
	}
	_, err := layer.Write(f.Data)
	return err
}

// header is that of an entry which nothing of this machine shows in.
func header(name string, mode, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size, ModTime: time.Unix(0, 0)}
}

func put(out *tar.Writer, name string, data []byte) error {
	if err := out.WriteHeader(header(name, 0o644, int64(len(data)))); err != nil {
		return err
	}
	_, err := out.Write(data)
	return err
}

// tarMode is a mode with tar's own bits for what is more than permissions.
func tarMode(mode fs.FileMode) int64 {
	bits := int64(mode.Perm())
	if mode&fs.ModeSetuid != 0 {
		bits |= 0o4000
	}
	if mode&fs.ModeSetgid != 0 {
		bits |= 0o2000
	}
	if mode&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	return bits
}

// manifest and config are the two JSON files of the form. Their names are those
// of the Docker image specification, v1.2.
type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

type config struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       run       `json:"config"`
	RootFS       rootFS    `json:"rootfs"`
	History      []step    `json:"history"`
}

type run struct {
	User         string              `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Env          []string            `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	Cmd          []string            `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
	WorkingDir   string              `json:",omitempty"`
	Labels       map[string]string   `json:",omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type step struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

func (i Image) config(layer string) []byte {
	ports, volumes := map[string]struct{}{}, map[string]struct{}{}
	for _, port := range i.Ports {
		ports[fmt.Sprintf("%d/tcp", port)] = struct{}{}
	}
	for _, volume := range i.Volumes {
		volumes[volume] = struct{}{}
	}
	epoch := time.Unix(0, 0).UTC()
	return encode(config{
		Created: epoch, Architecture: cmp.Or(i.Architecture, runtime.GOARCH), OS: "linux",
		Config: run{User: i.User, ExposedPorts: ports, Env: i.Env, Entrypoint: i.Entrypoint, Cmd: i.Cmd, Volumes: volumes, WorkingDir: i.WorkingDir, Labels: i.Labels},
		RootFS: rootFS{Type: "layers", DiffIDs: []string{"sha256:" + layer}},
		// Some tools count a step for each layer.
		History: []step{{Created: epoch, CreatedBy: "files"}},
	})
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and maps of them
	}
	return data
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
