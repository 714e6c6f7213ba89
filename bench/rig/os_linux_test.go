package rig

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// The kernel's two accounts of what this process has used are one.
func TestCPUOf(t *testing.T) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for used() < 20*time.Millisecond {
	}
	const rounding = 2 * time.Microsecond // of utime and of stime
	before := used()
	got, err := cpuOf(os.Getpid())
	after := used()
	if err != nil || got < before || got > after+rounding {
		t.Errorf("%v, %v; want what is between %v and %v", got, err, before, after)
	}
	if _, err := cpuOf(1 << 23); err == nil {
		t.Error("a process that is not there has used CPU time")
	}
}
