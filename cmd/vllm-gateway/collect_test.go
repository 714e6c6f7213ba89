package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// While little is in use garbage is collected less often; while much is, as ever.
func TestCollectLess(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Skip("GOGC is set")
	}
	defer debug.SetGCPercent(100)
	collectLess()
	becomes := func(want uint64, when string) {
		t.Helper()
		now := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
			runtime.GC()
			if metrics.Read(now); now[0].Value.Uint64() == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d; want %d", when, now[0].Value.Uint64(), want)
			}
		}
	}
	becomes(400, "at first")
	much := make([]byte, 64<<20)
	becomes(100, "with 64 MiB in use")
	runtime.KeepAlive(much)
	much = make([]byte, 20<<20)
	becomes(200, "with 20 MiB in use")
	runtime.KeepAlive(much)
	becomes(400, "with little in use")
}
