//go:build linux

// Holder makes a process unkillable for a while, as a driver in trouble does:
//
//	holder PID
//
// It traces the process and prints "held". The process runs on as before; but
// once it dies, of SIGKILL or otherwise, it stops in its exit and nobody can
// reap it, until holder's stdin is closed, holder dies, or a minute has passed.
// Exit code 3: tracing is not permitted here.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// From Linux's ptrace.h, where package syscall lacks them.
const (
	seize     = 0x4206
	listen    = 0x4208
	optExit   = 0x40
	eventExit = 6
	eventStop = 128
)

func main() {
	runtime.LockOSThread() // a tracer is a thread
	if len(os.Args) != 2 {
		fail(2, "usage: holder PID")
	}
	pid, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fail(2, "holder: %v", err)
	}
	// The first thread is enough: until it is gone, the process is not, while
	// the others may end as they like (and somebody may wait for that).
	switch err := ptrace(seize, pid, optExit); err {
	case 0:
	case syscall.EPERM, syscall.ENOSYS:
		fail(3, "holder: tracing is not permitted here: %v", err)
	default:
		fail(1, "holder: %d: %v", pid, err)
	}
	// Whom a tracer holds, its death lets go.
	time.AfterFunc(time.Minute, func() { os.Exit(0) })
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("held")
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, syscall.WALL, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			fail(1, "holder: nothing left to hold: %v", err)
		}
		if status.Stopped() {
			goOn(pid, status.StopSignal(), int(status)>>16)
		}
	}
}

// goOn lets a stopped process run as if nobody traced it, unless it is dying.
func goOn(pid int, signal syscall.Signal, event int) {
	switch {
	case event == eventExit:
	case event == eventStop && signal != syscall.SIGTRAP: // stopped by SIGSTOP or its like
		ptrace(listen, pid, 0)
	case event != 0:
		ptrace(syscall.PTRACE_CONT, pid, 0)
	default:
		ptrace(syscall.PTRACE_CONT, pid, uintptr(signal))
	}
}

func ptrace(request, pid int, data uintptr) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, uintptr(request), uintptr(pid), 0, data, 0, 0)
	return errno
}

func fail(code int, format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(code)
}
