package gpu

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// ownGroup gives a child a process group of its own, so that it can be ended with
// its children, and ends it with this process, however that ends.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func terminateGroup(cmd *exec.Cmd) { syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }

func killGroup(cmd *exec.Cmd) { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// groupLives reports whether anybody is left of the group of a child that has
// been reaped itself. In a container this process may be the one to reap orphans;
// elsewhere another does, sooner or later, and what waits for that is dead.
func groupLives(cmd *exec.Cmd) bool {
	group := cmd.Process.Pid
	syscall.Wait4(-group, nil, syscall.WNOHANG, nil)
	if syscall.Kill(-group, 0) != nil {
		return false
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, _ := os.ReadFile(path) // pid (name) state parent group …
		var state string
		var parent, its int
		after := stat[bytes.LastIndexByte(stat, ')')+1:]
		if fmt.Sscan(string(after), &state, &parent, &its); its == group && state != "Z" && state != "X" {
			return true
		}
	}
	return len(stats) == 0
}
