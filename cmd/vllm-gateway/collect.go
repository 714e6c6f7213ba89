package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// collectLess has Go's garbage collected less often while little is in use. By default
// that is when as much has been allocated as is in use; of a gateway that is a few MB,
// so at ten thousand requests a second it is collected forty times a second, and looks
// through all that it has each time. With five times what is in use the small request
// and events without gaps cost a sixth less (GOGC=400: docs/performance.md). But with a
// gigabyte of prompts in use that would be four more; so it holds for small heaps alone,
// and costs 64 MB at most.
//
// GOGC in the environment is somebody's own choice.
func collectLess() {
	if os.Getenv("GOGC") != "" {
		return
	}
	percent := 100
	adjust := func() {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		if next := gcPercent(live[0].Value.Uint64()); next != percent { // to set it stops the world
			percent = next
			debug.SetGCPercent(next)
		}
	}
	adjust()
	afterEachCollection(adjust)
}

// gcPercent is how much may be allocated before garbage is collected again, of what is
// in use.
func gcPercent(live uint64) int {
	switch {
	case live < 16<<20:
		return 400
	case live < 32<<20:
		return 200
	}
	return 100
}

// afterEachCollection calls f soon after garbage has been collected: what nobody refers
// to is found then, and nobody refers to the mark.
func afterEachCollection(f func()) {
	type mark struct{ _ *mark } // with a pointer, or it may be lumped together with others
	var again func(*mark)
	again = func(m *mark) {
		f()
		runtime.SetFinalizer(m, again)
	}
	runtime.SetFinalizer(&mark{}, again)
}
