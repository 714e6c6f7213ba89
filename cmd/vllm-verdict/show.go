package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/vllm-gateway/vllm-gateway/internal/verdict"
)

// show prints the verdict, and leaves it in a folder if one is named.
func show(w io.Writer, folder string, v *verdict.Verdict) error {
	if err := verdict.WriteText(w, v); err != nil || folder == "" {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("--out: %s: %w; name a folder that can be written to", folder, reason(err))
	}
	fmt.Fprintln(w)
	for _, f := range []struct {
		name  string
		write func(io.Writer, *verdict.Verdict) error
	}{{"verdict.html", verdict.WriteHTML}, {"verdict.json", verdict.WriteJSON}} {
		path := filepath.Join(folder, f.name)
		if err := replace(path, func(w io.Writer) error { return f.write(w, v) }); err != nil {
			return fmt.Errorf("--out: %s: %w; name a folder that can be written to", folder, reason(err))
		}
		fmt.Fprintln(w, path)
	}
	return nil
}

// replace writes a file beside the one that is there, and then puts it in its place:
// what is read is the old one or the new one, whole.
func replace(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".*-"+filepath.Base(path))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // of no effect once it is in its place
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644) // as if it had been created there
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
