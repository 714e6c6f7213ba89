package rig

import (
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// cpuOf reads the kernel's CPU clock of a process: what /proc/PID/stat has as utime and
// stime, in nanoseconds where that has hundredths of a second.
func cpuOf(pid int) (time.Duration, error) {
	const schedulersClock = 2
	clock := ^uintptr(pid)<<3 | schedulersClock
	var t syscall.Timespec
	if _, _, err := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&t)), 0); err != 0 {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}

// dieWithUs has a process end when the rig does.
func dieWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }

// raiseFiles lets this process, and those that it starts, open as many files as they
// may, and gives how many that is.
func raiseFiles() (int, error) {
	const enough = 1 << 16
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	more := syscall.Rlimit{Cur: enough, Max: max(enough, l.Max)}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more) == nil {
		return enough, nil
	}
	l.Cur = min(enough, l.Max)
	return int(l.Cur), syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

// goFirst has this process, and those that it starts, run before all others, where it may:
// what else the machine does is noise. To each other they are what they were.
func goFirst() {
	const nice = -15
	threads, _ := os.ReadDir("/proc/self/task") // each has a priority of its own, and hands it on
	for _, t := range threads {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			syscall.Setpriority(syscall.PRIO_PROCESS, tid, nice)
		}
	}
}
