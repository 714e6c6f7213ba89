package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A disk without room is found out before Prometheus touches its log. The test
// runs itself again where it may mount one: in namespaces of its own.
func TestRoom(t *testing.T) {
	if os.Getenv("OWN_NAMESPACES") == "" {
		again := exec.Command(os.Args[0], "-test.run=^TestRoom$", "-test.v")
		again.Env = append(os.Environ(), "OWN_NAMESPACES=1")
		again.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := again.CombinedOutput()
		if len(out) == 0 || strings.Contains(string(out), "--- SKIP") {
			t.Skipf("a disk cannot be mounted here: %v %s", err, out)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip(err)
	}
	defer syscall.Unmount(dir, 0)
	if err := claim(filepath.Join(dir, "data"), true); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("%v, want: the disk is full", err)
	}
}
