package rig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tree is a process and all that it has started.
type tree struct {
	cmd *exec.Cmd
	// born is when it was started.
	born  time.Time
	ended chan struct{}
	err   error // of its end
}

// launch starts a process, with what it says in a file.
func launch(log string, name string, args ...string) (*tree, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	t := &tree{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	t.cmd.Stdout, t.cmd.Stderr = out, out
	t.cmd.SysProcAttr = dieWithUs()
	t.born = time.Now()
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { t.err = t.cmd.Wait(); close(t.ended) }()
	return t, nil
}

// stop ends all of it at once: there is nothing to finish, and a drain takes seconds.
func (t *tree) stop() {
	pids, err := t.pids() // the root first, so that nobody starts the others again
	if err != nil {
		return
	}
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	<-t.ended
}

// pids are those of the tree, its root first.
func (t *tree) pids() ([]int, error) {
	select {
	case <-t.ended:
		return nil, fmt.Errorf("it has ended: %v", t.err)
	default:
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if pid, parent, err := parseStat(data); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	return descend(t.cmd.Process.Pid, children), nil
}

func descend(root int, children map[int][]int) []int {
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// parseStat reads who is whose child from /proc/PID/stat. A process's name stands in
// brackets and may have brackets and spaces in it.
func parseStat(data []byte) (pid, parent int, err error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return 0, 0, fmt.Errorf("no stat of a process: %.80q", data)
	}
	fields := strings.Fields(string(data[end+1:]))
	if len(fields) < 2 {
		return 0, 0, fmt.Errorf("a stat of a process ends early: %.80q", data)
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(data[:open])))
	if err != nil {
		return 0, 0, err
	}
	parent, err = strconv.Atoi(fields[1])
	return pid, parent, err
}

// cpu is the CPU time that the tree has used so far, user's and system's.
func (t *tree) cpu() (time.Duration, error) {
	pids, err := t.pids()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range pids {
		used, err := cpuOf(pid)
		if err != nil {
			return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
		}
		sum += used
	}
	return sum, nil
}

// memory is the tree's proportional set size in bytes: what processes share counts
// once.
func (t *tree) memory() (int64, error) {
	pids, err := t.pids()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		pss, err := parsePSS(data)
		if err != nil {
			return 0, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		sum += pss
	}
	return sum, nil
}

func parsePSS(rollup []byte) (int64, error) {
	for line := range bytes.SplitSeq(rollup, []byte("\n")) {
		rest, ok := bytes.CutPrefix(line, []byte("Pss:"))
		if !ok {
			continue
		}
		number, ok := bytes.CutSuffix(bytes.TrimSpace(rest), []byte(" kB"))
		if !ok {
			return 0, fmt.Errorf("no size: %q", line)
		}
		kilobytes, err := strconv.ParseInt(string(number), 10, 64)
		return kilobytes << 10, err
	}
	return 0, errors.New("there is no line Pss")
}
