//go:build linux

package gpu

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// newFakeNVML is a source whose worker loads the fake library, without some of
// its functions.
func newFakeNVML(t testing.TB, m *machine, without ...string) *nvmlSource {
	t.Helper()
	return newNVMLFrom(t, m, fakeNVML(t, without...))
}

// newNVMLFrom is a source whose worker looks for the library in a folder first.
func newNVMLFrom(t testing.TB, m *machine, dir string) *nvmlSource {
	s := newNVML(&children{})
	s.env = append(m.env(), "LD_LIBRARY_PATH="+dir)
	t.Cleanup(s.Close)
	return s
}

// emptyFolder has no library; a test that needs that nobody has one is skipped
// where somebody has.
func emptyFolder(t testing.TB) string {
	t.Helper()
	for _, path := range inFolders(libraryPlaces, libraryName) {
		if _, err := os.Stat(path); err == nil {
			t.Skipf("%s is on this machine", path)
		}
	}
	return t.TempDir()
}

func mustCollect(t testing.TB, s Source) *Collection {
	t.Helper()
	c, err := s.Collect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustFail(t testing.TB, s Source, want Reason) (*Collection, *Error) {
	t.Helper()
	c, err := s.Collect(context.Background())
	return c, failedFor(t, err, want)
}

func failedFor(t testing.TB, err error, want Reason) *Error {
	t.Helper()
	e, ok := err.(*Error)
	if !ok || e.Reason != want {
		t.Fatalf("%T %+v; want an *Error with %s", err, err, want)
	}
	return e
}

// inOrder compares GPUs and their order.
func inOrder(t testing.TB, got, want []GPU) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d GPUs; want %d", len(got), len(want))
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
}

// described are the GPUs of a description, as NVML has to tell them.
func described(t testing.TB, lines ...string) []GPU {
	t.Helper()
	var list []GPU
	for _, line := range lines {
		rest, ok := strings.CutPrefix(line, "gpu ")
		if !ok {
			continue
		}
		rest, name, _ := strings.Cut(rest, " name=")
		g := GPU{Index: len(list), Name: name, Values: map[Quantity]int64{}}
		for _, field := range strings.Fields(rest) {
			key, value, _ := strings.Cut(field, "=")
			number, err := strconv.ParseInt(value, 10, 64)
			switch key {
			case "index": // nvidia-smi's; NVML counts by itself
				continue
			case "uuid":
				g.UUID = value
				continue
			case "bus":
				g.BusID = value
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			switch key {
			case "reasons":
				g.Throttle = throttle(uint64(number))
			case "sm", "mem":
				number *= 1e6
				fallthrough
			default:
				g.Values[quantityOf[key]] = number
			}
		}
		if g.Values[MIG] == 1 {
			g = without(g, Utilization, MemoryUtilization)
		}
		list = append(list, g)
	}
	return list
}

var quantityOf = map[string]Quantity{
	"util": Utilization, "memutil": MemoryUtilization, "total": MemoryTotal, "reserved": MemoryReserved, "used": MemoryUsed, "temp": Temperature,
	"power": Power, "limit": PowerLimit, "energy": Energy, "sm": SMClock, "mem": MemoryClock, "corrected": ECCCorrected,
	"uncorrected": ECCUncorrected, "mig": MIG, "recovery": RecoveryAction,
}

// given is what each function gives that is called for a GPU and may fail.
var given = map[string][]Quantity{
	"nvmlDeviceGetUtilizationRates":          {Utilization, MemoryUtilization},
	"nvmlDeviceGetMemoryInfo_v2":             {MemoryTotal, MemoryUsed, MemoryReserved},
	"nvmlDeviceGetTemperature":               {Temperature},
	"nvmlDeviceGetPowerUsage":                {Power},
	"nvmlDeviceGetEnforcedPowerLimit":        {PowerLimit},
	"nvmlDeviceGetTotalEnergyConsumption":    {Energy},
	"nvmlDeviceGetClockInfo":                 {SMClock, MemoryClock},
	"nvmlDeviceGetCurrentClocksEventReasons": {throttled},
	"nvmlDeviceGetTotalEccErrors":            {ECCCorrected, ECCUncorrected},
	"nvmlDeviceGetMigMode":                   {MIG},
	"nvmlDeviceGetFieldValues":               {RecoveryAction},
}

// workers are the processes that ask this machine's driver.
func workers(t testing.TB, m *machine) []int {
	t.Helper()
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, path := range environs {
		if environ, _ := os.ReadFile(path); strings.Contains(string(environ), m.env()[0]+"\x00") {
			pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// noneLeft is a source without any worker.
func noneLeft(t testing.TB, s *nvmlSource, m *machine) {
	t.Helper()
	if k := living(s.kids); k != nil || s.kids.stuck() != 0 || s.worker != nil {
		t.Errorf("a child is left: %+v, stuck %d, worker %v", k, s.kids.stuck(), s.worker)
	}
	if pids := workers(t, m); len(pids) != 0 {
		t.Errorf("processes are left: %v", pids)
	}
}

func living(kids *children) *child {
	kids.mu.Lock()
	defer kids.mu.Unlock()
	return kids.now
}

// until waits for what others do.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for %s in vain", what)
		}
	}
}
