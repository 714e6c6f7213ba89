package clients

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPython runs the tests of the SDK for Python, each file against servers of
// its own.
func TestPython(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	python := venv(t, ctx)
	files, err := filepath.Glob("*_test.py")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			r := start(t)
			cmd := exec.CommandContext(ctx, python, "-B", "-m", "unittest", "-v", strings.TrimSuffix(file, ".py"))
			cmd.Env = r.environment()
			out, err := cmd.CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Errorf("%v: %v", cmd, err)
			}
		})
	}
}

// venv makes .venv, unless it is there and complete, and gives its Python.
func venv(t *testing.T, ctx context.Context) string {
	t.Helper()
	const list = "requirements.txt"
	wanted, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	python := filepath.Join(".venv", "bin", "python")
	installed := filepath.Join(".venv", list) // written last
	if have, err := os.ReadFile(installed); err == nil && bytes.Equal(have, wanted) {
		return python
	}
	do := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, name, args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	do(systemPython(t, ctx), "-m", "venv", "--clear", ".venv")
	do(python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-deps", "--requirement", list)
	do(python, "-m", "pip", "check", "--disable-pip-version-check") // that the list is complete
	if err := os.WriteFile(installed, wanted, 0o644); err != nil {
		t.Fatal(err)
	}
	return python
}

// systemPython is the first Python that is new enough and can make a venv:
// Debian's own cannot without python3-venv.
func systemPython(t *testing.T, ctx context.Context) string {
	t.Helper()
	const able = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
	for _, name := range []string{"python3", "python3.14", "python3.13", "python3.12", "python3.11"} {
		if exec.CommandContext(ctx, name, "-c", able).Run() == nil {
			return name
		}
	}
	t.Fatal("needs Python 3.11 or newer with venv: apt-get install python3 python3-venv")
	return ""
}
