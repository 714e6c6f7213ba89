package main

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// file is one of an archive: a copy of another, or data.
type file struct {
	path string // in the archive's folder
	from string
	data []byte
	mode int64
}

// writeArchive packs the files into one folder. Nothing of this machine shows in
// it: no owners, no order of its own, one time for all.
func writeArchive(path, folder string, files []file, at time.Time) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	packed, err := gzip.NewWriterLevel(out, gzip.BestCompression)
	if err != nil {
		return err
	}
	files = slices.SortedFunc(slices.Values(files), func(a, b file) int { return strings.Compare(a.path, b.path) })
	tarball := tar.NewWriter(packed)
	for i, f := range files {
		if i > 0 && f.path == files[i-1].path {
			return fmt.Errorf("%s is there twice", f.path)
		}
		if err := f.write(tarball, folder, at); err != nil {
			return fmt.Errorf("%s: %w", f.path, err)
		}
	}
	return errors.Join(tarball.Close(), packed.Close(), out.Close())
}

func (f file) write(tarball *tar.Writer, folder string, at time.Time) error {
	data := f.data
	if f.from != "" {
		var err error
		if data, err = os.ReadFile(f.from); err != nil {
			return err
		}
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: folder + "/" + f.path, Mode: f.mode, Size: int64(len(data)), ModTime: at, Format: tar.FormatPAX}
	if err := tarball.WriteHeader(h); err != nil {
		return err
	}
	_, err := tarball.Write(data)
	return err
}

const sumsName = "SHA256SUMS"

// writeSums writes what sha256sum -c reads.
func writeSums(path string, files []string) error {
	var all strings.Builder
	for _, file := range slices.SortedFunc(slices.Values(files), func(a, b string) int { return cmp.Compare(filepath.Base(a), filepath.Base(b)) }) {
		sum, err := sumOf(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(&all, "%s  %s\n", sum, filepath.Base(file))
	}
	return os.WriteFile(path, []byte(all.String()), 0o644)
}

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}
