//go:build linux

package gpu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestNVML(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write(driverLine,
		"gpu index=0 uuid=GPU-5f0d bus=00000000:01:00.0 util=87 memutil=41 total=25769803776 reserved=408944640 used=21474836480"+
			" temp=64 power=312340 limit=350000 energy=9007199254740993 sm=1980 mem=9751 reasons=68 corrected=3 uncorrected=5 mig=0 recovery=4 name=NVIDIA GeForce RTX 3090",
		"gpu index=1 uuid=GPU-60aa bus=0000000A:C1:00.0 util=0 memutil=0 total=151397597184 reserved=0 used=0"+
			" temp=31 power=0 limit=700000 energy=0 sm=345 mem=3201 reasons=1 corrected=0 uncorrected=0 mig=1 recovery=0 name=NVIDIA H200")
	dir := fakeNVML(t)
	c := mustCollect(t, newNVMLFrom(t, m, dir))
	if c.Source != "nvml" || c.Driver != "570.86.15" || c.Library != filepath.Join(dir, libraryName) || c.Faults != nil {
		t.Errorf("%+v", c)
	}
	inOrder(t, c.GPUs, []GPU{
		{
			Index: 0, UUID: "GPU-5f0d", Name: "NVIDIA GeForce RTX 3090", BusID: "00000000:01:00.0",
			Values: map[Quantity]int64{
				Utilization: 87, MemoryUtilization: 41, MemoryTotal: 25769803776, MemoryReserved: 408944640, MemoryUsed: 21474836480,
				Temperature: 64, Power: 312340, PowerLimit: 350000, Energy: 9007199254740993, SMClock: 1980e6, MemoryClock: 9751e6,
				ECCCorrected: 3, ECCUncorrected: 5, MIG: 0, RecoveryAction: 4,
			},
			Throttle: map[string]bool{
				"gpu_idle": false, "applications_clocks_setting": false, "sw_power_cap": true, "hw_slowdown": false, "sync_boost": false,
				"sw_thermal_slowdown": false, "hw_thermal_slowdown": true, "hw_power_brake_slowdown": false, "display_clock_setting": false,
				"board_limit": false, "reliability": false,
			},
		},
		{
			Index: 1, UUID: "GPU-60aa", Name: "NVIDIA H200", BusID: "0000000A:C1:00.0",
			Values: map[Quantity]int64{ // with MIG there is no utilization of the whole; a 0 that was read is a 0
				MemoryTotal: 151397597184, MemoryReserved: 0, MemoryUsed: 0, Temperature: 31, Power: 0, PowerLimit: 700000, Energy: 0,
				SMClock: 345e6, MemoryClock: 3201e6, ECCCorrected: 0, ECCUncorrected: 0, MIG: 1, RecoveryAction: 0,
			},
			Throttle: map[string]bool{
				"gpu_idle": true, "applications_clocks_setting": false, "sw_power_cap": false, "hw_slowdown": false, "sync_boost": false,
				"sw_thermal_slowdown": false, "hw_thermal_slowdown": false, "hw_power_brake_slowdown": false, "display_clock_setting": false,
				"board_limit": false, "reliability": false,
			},
		},
	})
}

// Case 2: one that is lost hides none of the others.
func TestNVMLLostGPU(t *testing.T) {
	t.Parallel()
	const place = 3
	var all []string
	for _, function := range libraryFunctions(t) {
		if strings.HasPrefix(function, "nvmlDevice") && function != "nvmlDeviceGetCount_v2" && function != "nvmlDeviceGetHandleByIndex_v2" {
			all = append(all, fmt.Sprintf("fail %s 999 %d", function, place))
		}
	}
	for _, test := range []struct {
		name  string
		lines []string
		why   string
	}{
		{"lost", []string{"lost 3"}, "GPU is lost"},
		{"lost in the midst of it", []string{"fail nvmlDeviceGetEnforcedPowerLimit 15 3"}, "GPU is lost"},
		{"lost at the last call", []string{"fail nvmlDeviceGetFieldValues 15 3"}, "GPU is lost"},
		{"lost beside other errors", []string{"fail nvmlDeviceGetUtilizationRates 999 3", "fail nvmlDeviceGetPowerUsage 15 3"}, "GPU is lost"},
		{"to be reset", []string{"fail nvmlDeviceGetTemperature 16 3"}, "GPU requires a reset"},
		{"unknown error", all, "unknown error"},
		{"no handle: lost", []string{"fail nvmlDeviceGetHandleByIndex_v2 15 3"}, "GPU is lost"},
		{"no handle: unknown error", []string{"fail nvmlDeviceGetHandleByIndex_v2 999 3"}, "unknown error"},
		{"no handle: no permission", []string{"fail nvmlDeviceGetHandleByIndex_v2 4 3"}, "no permission"},
		{"no handle: another", []string{"fail nvmlDeviceGetHandleByIndex_v2 21 3"}, "Unknown Error (NVML error 21)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			s := newFakeNVML(t, m)
			healthy := append(gpus(8), driverLine)
			want := described(t, healthy...)
			m.write(healthy...)
			inOrder(t, mustCollect(t, s).GPUs, want)

			m.write(append(test.lines, healthy...)...)
			broken := slices.Clone(want)
			broken[place] = lost(want[place], test.why)
			for range 2 {
				inOrder(t, mustCollect(t, s).GPUs, broken)
			}
			s.Close() // another worker has never known who it was
			inOrder(t, mustCollect(t, s).GPUs, broken)

			m.write(healthy...)
			inOrder(t, mustCollect(t, s).GPUs, want)
		})
	}
}

// Where it was never seen otherwise, nobody can tell which one is lost.
func TestNVMLLostFromTheBeginning(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write(append(gpus(8), "lost 3")...)
	want := described(t, gpus(8)...)
	want[3] = GPU{Index: 3, Failure: "GPU is lost"}
	inOrder(t, mustCollect(t, newFakeNVML(t, m)).GPUs, want)
}

// Case 3: what one call lacks is lacking alone.
func TestNVMLNoValue(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := newFakeNVML(t, m)
	want := described(t, gpus(2)...)
	for _, function := range slices.Sorted(maps.Keys(given)) {
		for _, code := range []int{2, 3, 4, 13, 21, 999} {
			t.Run(fmt.Sprint(function, " ", code), func(t *testing.T) {
				m.write(append(gpus(2), fmt.Sprintf("fail %s %d 1", function, code))...)
				inOrder(t, mustCollect(t, s).GPUs, []GPU{want[0], without(want[1], given[function]...)})
				m.write(append(gpus(2), fmt.Sprintf("fail %s %d", function, code))...)
				inOrder(t, mustCollect(t, s).GPUs, []GPU{without(want[0], given[function]...), without(want[1], given[function]...)})
			})
		}
	}
	for key, lacking := range map[string][]Quantity{ // with code 3 in part
		"sm": {SMClock}, "mem": {MemoryClock}, "corrected": {ECCCorrected}, "uncorrected": {ECCUncorrected}, "recovery": {RecoveryAction},
		"total": {MemoryTotal, MemoryUsed, MemoryReserved}, // as where memory is shared with the machine
	} {
		t.Run("no "+key, func(t *testing.T) {
			m.write(gpuLine(0, "-"+key))
			inOrder(t, mustCollect(t, s).GPUs, []GPU{without(want[0], lacking...)})
		})
	}
}

// What tells of the driver, of who a GPU is and of its events can fail as well.
func TestNVMLNoIdentity(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		function string
		change   func(*Collection)
	}{
		{"nvmlSystemGetDriverVersion", func(c *Collection) { c.Driver = "" }},
		{"nvmlDeviceGetUUID", func(c *Collection) { c.GPUs[0].UUID, c.Faults[0].UUID = "", "" }},
		{"nvmlDeviceGetName", func(c *Collection) { c.GPUs[0].Name = "" }},
		{"nvmlDeviceGetPciInfo_v3", func(c *Collection) { c.GPUs[0].BusID = "" }},
		{"nvmlEventSetCreate", func(c *Collection) { c.Faults = nil }},
		{"nvmlDeviceRegisterEvents", func(c *Collection) { c.Faults = nil }},
		{"nvmlEventSetWait_v2", func(c *Collection) { c.Faults = nil }},
	} {
		for _, code := range []int{2, 3, 4, 13, 21, 999} {
			t.Run(fmt.Sprint(test.function, " ", code), func(t *testing.T) {
				t.Parallel()
				dir, m := fakeNVML(t), newMachine(t)
				s := newNVMLFrom(t, m, dir)
				lines := []string{driverLine, gpuLine(0), fmt.Sprintf("fail %s %d", test.function, code)}
				m.write(lines...)
				mustCollect(t, s)
				m.write(append(lines, "xid 0 79")...)
				got := mustCollect(t, s)
				got.Began, got.Took = time.Time{}, 0
				for i := range got.Faults {
					got.Faults[i].Time = time.Time{} // another test's
				}
				want := &Collection{
					Source: "nvml", Driver: "570.86.15", Library: filepath.Join(dir, libraryName), GPUs: described(t, lines...),
					Faults: []Fault{{UUID: "GPU-00000000-0000-0000-0000-000000000001", XID: 79}},
				}
				if test.change(want); !reflect.DeepEqual(got, want) {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
			})
		}
	}
}

// Case 6: machines of all sizes, and GPUs that have no name of their own.
func TestNVMLCounts(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := newFakeNVML(t, m)
	for _, lines := range [][]string{
		{}, gpus(1), gpus(2), gpus(16), gpus(64), gpus(256), gpus(1), {},
	} {
		m.write(lines...)
		inOrder(t, mustCollect(t, s).GPUs, described(t, lines...))
	}
}

func TestNVMLIdentity(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string][]string{
		"no uuid":         {gpuLine(0, "-uuid"), gpuLine(1)},
		"empty uuid":      {gpuLine(0, "uuid="), gpuLine(1)},
		"the same uuid":   {gpuLine(0, "uuid=GPU-5f0d"), gpuLine(1, "uuid=GPU-5f0d")},
		"no bus id":       {gpuLine(0, "-bus"), gpuLine(1)},
		"no name":         {gpuLine(0, "-name"), gpuLine(1)},
		"commas, quotes":  {gpuLine(0, `name=NVIDIA "RTX", 'Ada' \ <b>`), gpuLine(1)},
		"nothing but one": {"gpu temp=30"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.write(lines...)
			inOrder(t, mustCollect(t, newFakeNVML(t, m)).GPUs, described(t, lines...))
		})
	}
	t.Run("bytes", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		m.write(gpuLine(0, "name=\tH\xff200\x1b "), gpuLine(1, "name="+strings.Repeat("x", 95)), gpuLine(2, "name="+strings.Repeat("x", 96)))
		c := mustCollect(t, newFakeNVML(t, m))
		for i, want := range []string{"H\uFFFD200", strings.Repeat("x", 95), ""} { // NVML gives 95 bytes, or nothing
			if got := c.GPUs[i].Name; got != want {
				t.Errorf("%q; want %q", got, want)
			}
		}
	})
}

// Case 4: absurd numbers are not to look plausible; who drops them is another's test.
func TestNVMLAbsurdNumbers(t *testing.T) {
	t.Parallel()
	for override, want := range map[string]int64{
		"util=-1": 1<<32 - 1, "power=-1": 1<<32 - 1, "temp=-1": 1<<32 - 1, "recovery=-1": 1<<32 - 1, "sm=-1": (1<<32 - 1) * 1e6,
		"energy=-1": -1, "energy=9223372036854775808": -1, "total=-1": -1, "used=9223372036854775807": -1, "corrected=-1": -1, "uncorrected=-1": -1,
	} {
		t.Run(override, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.write(gpuLine(0, override))
			key, _, _ := strings.Cut(override, "=")
			g := mustCollect(t, newFakeNVML(t, m)).GPUs[0]
			if got, ok := g.Values[quantityOf[key]]; !ok || got != want {
				t.Errorf("%d, %v; want %d", got, ok, want)
			}
			if dropped := g.weigh(); len(dropped) != 1 {
				t.Errorf("it is shown: %v", dropped)
			}
		})
	}
}

func TestNVMLMIGToggled(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := newFakeNVML(t, m)
	var first *worker
	for _, mig := range []string{"mig=0", "mig=1", "mig=0"} {
		lines := []string{gpuLine(0, mig), gpuLine(1)}
		m.write(lines...)
		inOrder(t, mustCollect(t, s).GPUs, described(t, lines...))
		if first == nil {
			first = s.worker
		}
		if s.worker != first {
			t.Error("another worker")
		}
	}
}

func TestNVMLLibraryMissing(t *testing.T) {
	t.Parallel()
	dir, m := emptyFolder(t), newMachine(t)
	m.write(gpus(1)...)
	s := newNVMLFrom(t, m, dir)
	_, err := mustFail(t, s, NoDriver)
	if !strings.Contains(err.Text, "libnvidia-ml.so.1 is not on this machine") || !strings.Contains(err.Cure, "install the NVIDIA driver") {
		t.Errorf("%+v", err)
	}
	noneLeft(t, s, m)

	if err := os.WriteFile(filepath.Join(dir, libraryName), []byte("no library\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = mustFail(t, s, NoDriver)
	if !strings.Contains(err.Text, "libnvidia-ml.so.1 cannot be loaded: ") || !strings.Contains(err.Text, dir) || !strings.Contains(err.Cure, "whole") {
		t.Errorf("%+v", err)
	}
	noneLeft(t, s, m)

	// It is installed while the exporter runs.
	if err := errors.Join(os.Remove(filepath.Join(dir, libraryName)), os.Symlink(filepath.Join(fakeNVML(t), libraryName), filepath.Join(dir, libraryName))); err != nil {
		t.Fatal(err)
	}
	inOrder(t, mustCollect(t, s).GPUs, described(t, gpus(1)...))
}

// Case 8: the driver's answers that are final for all GPUs.
func TestNVMLDriverErrors(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]struct{ text, cure string }{
		9:   {"the NVIDIA driver is not loaded", "modprobe nvidia"},
		18:  {libraryName + " are of different versions", "reboot"},
		4:   {"no permission to ask the NVIDIA driver", "/dev/nvidiactl"},
		17:  {": Unknown Error (NVML error 17)", "in a container, start a new one"},
		999: {": unknown error", "in a container, start a new one"},
		12:  {": Unknown Error (NVML error 12)", "dmesg"},
	} {
		for _, test := range []struct {
			function string
			while    bool // it already runs
		}{
			{"nvmlInit_v2", false}, {"nvmlDeviceGetCount_v2", false}, {"nvmlDeviceGetCount_v2", true}, {"nvmlDeviceGetHandleByIndex_v2", true}, {"nvmlDeviceGetTemperature", true},
		} {
			ofOne := strings.HasPrefix(test.function, "nvmlDeviceGet") && test.function != "nvmlDeviceGetCount_v2"
			if ofOne && code != 9 && code != 12 && code != 18 {
				continue // of one GPU alone
			}
			t.Run(fmt.Sprint(test.function, " ", code, " ", test.while), func(t *testing.T) {
				t.Parallel()
				m := newMachine(t)
				s := newFakeNVML(t, m)
				if test.while {
					m.write(gpus(2)...)
					mustCollect(t, s)
				}
				m.write(append(gpus(2), fmt.Sprintf("fail %s %d", test.function, code))...)
				_, err := mustFail(t, s, Driver)
				if !strings.Contains(err.Text, want.text) || !strings.Contains(err.Cure, want.cure) {
					t.Errorf("%+v", err)
				}
				if strings.HasPrefix(want.text, ":") && !strings.HasPrefix(err.Text, test.function) {
					t.Errorf("%q does not name %s", err.Text, test.function)
				}
				noneLeft(t, s, m)
				m.write(gpus(2)...)
				inOrder(t, mustCollect(t, s).GPUs, described(t, gpus(2)...))
			})
		}
	}
}

func TestNVMLDriverComesAndGoes(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := newFakeNVML(t, m)
	for range 2 {
		for range 3 {
			if _, err := mustFail(t, s, Driver); err.Text != "the NVIDIA driver is not loaded" {
				t.Errorf("%+v", err)
			}
		}
		m.write(gpus(2)...)
		inOrder(t, mustCollect(t, s).GPUs, described(t, gpus(2)...))
		m.remove()
		mustFail(t, s, Driver)
		noneLeft(t, s, m)
	}
}

// Case 9: any function can be missing from an old driver.
func TestNVMLFunctionMissing(t *testing.T) {
	t.Parallel()
	for _, function := range libraryFunctions(t) {
		t.Run(function, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			s := newFakeNVML(t, m, function)
			lines := append(gpus(2), driverLine)
			m.write(lines...)
			if slices.Contains(needed, function) {
				_, err := mustFail(t, s, NoDriver)
				if !strings.HasSuffix(err.Text, "has no function "+function) || err.Cure != "update the driver" {
					t.Errorf("%+v", err)
				}
				noneLeft(t, s, m)
				return
			}
			mustCollect(t, s)
			m.write(append(lines, "xid 1 79")...)
			got := mustCollect(t, s)

			want := described(t, lines...)
			driver, faults := "570.86.15", 1
			lacking := given[function]
			switch function {
			case "nvmlSystemGetDriverVersion":
				driver = ""
			case "nvmlDeviceGetPciInfo_v3":
				want[0].BusID, want[1].BusID = "", ""
			case "nvmlDeviceGetMemoryInfo_v2": // the total is in the first version too
				lacking = []Quantity{MemoryUsed, MemoryReserved}
			case "nvmlDeviceGetCurrentClocksEventReasons": // under its old name it is there
				lacking = nil
			case "nvmlEventSetCreate", "nvmlDeviceRegisterEvents", "nvmlEventSetWait_v2":
				faults = 0
			}
			inOrder(t, got.GPUs, []GPU{without(want[0], lacking...), without(want[1], lacking...)})
			if got.Driver != driver || len(got.Faults) != faults {
				t.Errorf("driver %q, faults %v", got.Driver, got.Faults)
			}
		})
	}
	t.Run("all that may", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		m.write(gpus(1)...)
		all := slices.DeleteFunc(libraryFunctions(t), func(function string) bool { return slices.Contains(needed, function) })
		g := described(t, gpus(1)...)[0]
		inOrder(t, mustCollect(t, newFakeNVML(t, m, all...)).GPUs, []GPU{{UUID: g.UUID, Name: g.Name, Values: map[Quantity]int64{}}})
	})
	t.Run("of two names the new one", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		m.write(append(gpus(1), "crash nvmlDeviceGetCurrentClocksThrottleReasons", "crash nvmlDeviceGetMemoryInfo")...)
		inOrder(t, mustCollect(t, newFakeNVML(t, m)).GPUs, described(t, gpus(1)...))
	})
}

const short = 150 * time.Millisecond

// Case 10: what never returns costs its collection, and no more.
func TestNVMLHangs(t *testing.T) {
	t.Parallel()
	for _, function := range []string{"nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetPowerUsage", "nvmlEventSetWait_v2"} {
		for _, while := range []bool{false, true} { // it already runs
			if while && function == "nvmlInit_v2" {
				continue
			}
			t.Run(fmt.Sprint(function, " ", while), func(t *testing.T) {
				t.Parallel()
				m := newMachine(t)
				s := newFakeNVML(t, m)
				var k *child
				if while {
					m.write(gpus(2)...)
					mustCollect(t, s)
					k, s.answer = s.worker.child, short
				} else {
					s.init, s.answer = short, short
				}
				m.write(append(gpus(2), "hang "+function)...)
				began := time.Now()
				c, err := mustFail(t, s, Timeout)
				if took := time.Since(began); took < short || took > short+termGrace+killGrace {
					t.Errorf("it took %v", took)
				}
				if err.Text != "NVML did not answer within 150ms" || err.Cure == "" || c != nil && len(c.GPUs) != 0 {
					t.Errorf("%+v, %+v", c, err)
				}
				noneLeft(t, s, m)
				if k != nil && (k.killed || !reaped(k)) { // which the worker, unlike the kernel, never needs
					t.Errorf("killed %v, gone %v", k.killed, reaped(k))
				}
				s.init, s.answer = initTimeout, answerTimeout
				m.write(gpus(2)...)
				inOrder(t, mustCollect(t, s).GPUs, described(t, gpus(2)...))
			})
		}
	}
}

// reaped reports whether a child is no process any more, nor a zombie.
func reaped(k *child) bool { return syscall.Kill(k.cmd.Process.Pid, 0) == syscall.ESRCH }

// A hanging worker ends by itself when nobody can ask it any more, as when this
// process dies.
func TestNVMLWorkerIsLeftAlone(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := newFakeNVML(t, m)
	m.write(gpus(1)...)
	mustCollect(t, s)
	m.write("hang nvmlDeviceGetCount_v2")
	if _, _, err := s.worker.collect(context.Background(), short); failedFor(t, err, Timeout) == nil {
		t.Fatal(err)
	}
	s.worker.ask.Close()
	if !s.worker.child.goneWithin(20*time.Second) || s.worker.child.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("%v", s.worker.child.cmd.ProcessState)
	}
}

func TestNVMLCrashes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		function string
		while    bool // it already runs
		noise    string
	}{
		{"nvmlInit_v2", false, ""},
		{"nvmlDeviceGetPowerUsage", false, ""},
		{"nvmlDeviceGetPowerUsage", true, ""},
		{"nvmlDeviceGetPowerUsage", true, "NVRM: a word"},
		{"nvmlDeviceGetPowerUsage", true, strings.Repeat("NVRM: many words. ", 400)},
	} {
		t.Run(fmt.Sprint(test.function, " ", test.while, " ", len(test.noise)), func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			s := newFakeNVML(t, m)
			lines := append(gpus(2), "noise "+test.noise)
			if test.while {
				m.write(lines...)
				mustCollect(t, s)
			}
			m.write(append(lines, "crash "+test.function)...)
			_, err := mustFail(t, s, Crash)
			if !strings.Contains(err.Text, "SIGSEGV") || err.Cure == "" {
				t.Errorf("%+v", err)
			}
			if len(err.Text) > 400 || strings.Contains(err.Text, "\n") || strings.Contains(err.Text, "goroutine") || strings.Contains(err.Text, ".go:") {
				t.Errorf("%d bytes: %q", len(err.Text), err.Text)
			}
			noneLeft(t, s, m)
			m.write(gpus(2)...)
			inOrder(t, mustCollect(t, s).GPUs, described(t, gpus(2)...))
		})
	}
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		s := newFakeNVML(t, m)
		m.write(gpus(2)...)
		mustCollect(t, s)
		s.worker.said.Write([]byte(strings.Repeat("NVRM:\tmany words.\n", 400)))
		if err := s.worker.child.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_, err := mustFail(t, s, Crash)
		if !strings.Contains(err.Text, "signal: killed: NVRM: many words.") || len(err.Text) > 400 {
			t.Errorf("%d bytes: %q", len(err.Text), err.Text)
		}
		inOrder(t, mustCollect(t, s).GPUs, described(t, gpus(2)...))
	})
}

// sameFaults compares faults, which have happened since a moment.
func sameFaults(t testing.TB, got []Fault, since time.Time, want ...Fault) {
	t.Helper()
	for i := range got {
		if at := got[i].Time; at.Before(since) || at.After(time.Now()) {
			t.Errorf("it happened at %v, not after %v", at, since)
		}
		got[i].Time = time.Time{}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v; want %v", got, want)
	}
}

func TestNVMLFaults(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := newFakeNVML(t, m)
	lines := append(gpus(3), "xid 0 13") // before anybody listened
	m.write(lines...)
	uuid := func(place int) string { return described(t, gpus(3)...)[place].UUID }
	if c := mustCollect(t, s); len(c.Faults) != 0 {
		t.Errorf("%v", c.Faults)
	}
	for _, step := range []struct {
		lines []string
		want  []Fault
	}{
		{nil, nil},
		{[]string{"xid 1 79"}, []Fault{{UUID: uuid(1), XID: 79}}},
		{nil, nil}, // not twice
		{[]string{"xid 2 31", "xid 0 48", "xid 2 31", "xid 0 18446744073709551615"},
			[]Fault{{UUID: uuid(2), XID: 31}, {UUID: uuid(0), XID: 48}, {UUID: uuid(2), XID: 31}, {UUID: uuid(0), XID: 1<<64 - 1}}},
		{[]string{"lost 2", "xid 2 79"}, []Fault{{UUID: uuid(2), XID: 79}}},
		{[]string{"xid 2 119"}, []Fault{{UUID: uuid(2), XID: 119}}}, // after it was lost
	} {
		lines = append(lines, step.lines...)
		began := time.Now()
		m.write(lines...)
		sameFaults(t, mustCollect(t, s).Faults, began, step.want...)
	}
}

// An event is most likely there when something goes wrong.
func TestNVMLFaultsOfAFailure(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]Reason{
		"hang nvmlDeviceGetPowerUsage":  Timeout,
		"hang nvmlDeviceGetCount_v2":    Timeout,
		"crash nvmlDeviceGetPowerUsage": Crash,
		"fail nvmlDeviceGetCount_v2 9":  Driver,
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			s := newFakeNVML(t, m)
			m.write(gpus(2)...)
			mustCollect(t, s)
			began := time.Now()
			m.write(append(gpus(2), "xid 1 79", "xid 0 48", line)...)
			if want == Timeout {
				s.answer = 2 * short
			}
			c, _ := mustFail(t, s, want)
			known := described(t, gpus(2)...)
			sameFaults(t, c.Faults, began, Fault{UUID: known[1].UUID, XID: 79}, Fault{UUID: known[0].UUID, XID: 48})
			m.write(append(gpus(2), "xid 1 79", "xid 0 48")...)
			if c := mustCollect(t, s); len(c.Faults) != 0 {
				t.Errorf("a second time: %v", c.Faults)
			}
		})
	}
}

// Drivers write what they like.
func TestNVMLNoise(t *testing.T) {
	t.Parallel()
	for _, noise := range []string{`{"Error":{"Reason":"crash"}}`, strings.Repeat("NVRM ", 20_000)} {
		m := newMachine(t)
		s := newFakeNVML(t, m)
		m.write(append(gpus(2), "noise "+noise)...)
		for range 2 {
			inOrder(t, mustCollect(t, s).GPUs, described(t, gpus(2)...))
		}
	}
}

// Case 1: a process that waits in the kernel cannot be killed. There is never a
// second one.
func TestNVMLUnkillable(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := newFakeNVML(t, m)
	var k *child
	var letGo func()
	for attempts := 1; ; attempts++ {
		m.write(gpus(2)...)
		s.answer = answerTimeout
		mustCollect(t, s)
		k = s.worker.child
		_, letGo = holdChild(t, func() int { return k.cmd.Process.Pid })
		m.write(append(gpus(2), "hang nvmlDeviceGetPowerUsage")...)
		s.answer = short
		if _, err := mustFail(t, s, Timeout); err.Cure == "" {
			t.Errorf("%+v", err)
		}
		if !reaped(k) {
			break
		}
		if letGo(); attempts == 10 { // as in holdUntilStuck
			t.Fatal("ten workers were held, and all are gone")
		}
	}
	began := time.Now()
	for i := range 20 {
		if got := workers(t, m); !slices.Equal(got, []int{k.cmd.Process.Pid}) || living(s.kids) != k || s.kids.stuck() != 1 {
			t.Fatalf("collection %d: processes %v, %d stuck; want %d alone", i, got, s.kids.stuck(), k.cmd.Process.Pid)
		}
		if _, err := mustFail(t, s, Stuck); err.Cure == "" {
			t.Errorf("%+v", err)
		}
	}
	// It is waited for once.
	if took := time.Since(began); took > 20*killGrace/2 { // each would take as long as killing one
		t.Errorf("20 collections of a stuck worker took %v", took)
	}

	letGo()
	until(t, "the worker's end", func() bool { return s.kids.stuck() == 0 })
	if !reaped(k) {
		t.Error("it is still there")
	}
	m.write(gpus(2)...)
	s.answer = answerTimeout
	inOrder(t, mustCollect(t, s).GPUs, described(t, gpus(2)...))
}

func TestNVMLContextEnds(t *testing.T) {
	t.Parallel()
	for _, while := range []bool{false, true} { // it already runs
		t.Run(fmt.Sprint(while), func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			s := newFakeNVML(t, m)
			if while {
				m.write(gpus(2)...)
				mustCollect(t, s)
			}
			s.answer = initTimeout
			m.write(append(gpus(2), "hang nvmlDeviceGetCount_v2")...)
			ctx, cancel := context.WithTimeout(context.Background(), short)
			defer cancel()
			for range 2 { // the second time it has ended before
				began := time.Now()
				_, err := s.Collect(ctx)
				failedFor(t, err, Timeout)
				if took := time.Since(began); took > short+termGrace+killGrace {
					t.Errorf("it took %v", took)
				}
				noneLeft(t, s, m)
			}
		})
	}
}

// A GPU that is back may be seen by a library only that has been opened since.
func TestNVMLRenews(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := newFakeNVML(t, m)
	var workers []*worker // one after the other
	collect := func(n int) {
		for range n {
			mustCollect(t, s)
			if len(workers) == 0 || workers[len(workers)-1] != s.worker {
				workers = append(workers, s.worker)
			}
		}
	}
	for _, step := range []struct {
		lines       []string
		collections int
		workers     int // until then
	}{
		{nil, 2*renewAfter + 1, 1},
		{[]string{"lost 1"}, renewAfter - 1, 1},
		{nil, 1, 1}, // counted anew from here
		{[]string{"lost 1"}, renewAfter, 1},
		{[]string{"lost 1"}, 1, 2},
		{[]string{"lost 1"}, 2*renewAfter - 1, 2}, // twice as long
		{[]string{"lost 1"}, 1, 3},
		{nil, 4*renewAfter + 1, 3},
		{[]string{"lost 1"}, renewAfter, 3}, // not any more
		{[]string{"lost 1"}, 1, 4},
	} {
		m.write(append(step.lines, gpus(2)...)...)
		if collect(step.collections); len(workers) != step.workers {
			t.Errorf("%+v: %d workers", step, len(workers))
		}
	}
	for _, w := range workers[:len(workers)-1] {
		if !reaped(w.child) || w.child.killed {
			t.Errorf("a former worker: gone %v, killed %v", reaped(w.child), w.child.killed)
		}
	}
}

// Case 16, and not parallel: it counts what this process has.
func TestNVMLLeavesNothing(t *testing.T) {
	m := newMachine(t)
	s := newFakeNVML(t, m)
	m.write(gpus(2)...)
	s.Close() // of nothing
	round := func() {
		t.Helper()
		mustCollect(t, s)
		k := s.worker.child
		other := newNVML(s.kids) // refused, while one lives
		other.env = s.env
		mustFail(t, other, Stuck)
		s.Close()
		s.Close()
		if !reaped(k) || k.killed {
			t.Fatalf("gone %v, killed %v", reaped(k), k.killed)
		}
		noneLeft(t, s, m)
	}
	round()

	files, goroutines, processes := openFiles(t), runtime.NumGoroutine(), childrenOf(t)
	for range 100 {
		round()
	}
	if got := openFiles(t); !slices.Equal(got, files) {
		t.Errorf("open files %v; before %v", got, files)
	}
	if got := childrenOf(t); !slices.Equal(got, processes) {
		t.Errorf("processes %v; before %v", got, processes)
	}
	// The last goroutine has told that it ends, and may be about to.
	until(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// openFiles are this process's, by what they are.
func openFiles(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, entry := range entries {
		if file, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil { // not that of ReadDir
			files = append(files, entry.Name()+" "+file)
		}
	}
	return files
}

func TestNVMLWorkerByHand(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(self(), workerName)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "of no use by hand") {
		t.Errorf("%v: %s", err, out)
	}
}

// The start of a driver, which may take long, is no part of a reading: neither
// that of the library nor that of a GPU, which is when it is first asked for.
func TestNVMLStartsSlowly(t *testing.T) {
	t.Parallel()
	const start = 400 * time.Millisecond
	for _, function := range []string{"nvmlInit_v2", "nvmlDeviceGetHandleByIndex_v2"} {
		m := newMachine(t)
		s := newFakeNVML(t, m)
		s.answer = start / 2
		m.write(append(gpus(2), fmt.Sprint("slow ", function, " ", start.Milliseconds()))...)
		began := time.Now()
		c := mustCollect(t, s)
		if c.Began.Sub(began) < start || c.Took >= start {
			t.Errorf("%s: the reading began after %v and took %v", function, c.Began.Sub(began), c.Took)
		}
	}
}

// One that is lost and tells nothing is not taken for another that has moved to
// another index.
func TestNVMLIndexMoves(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := newFakeNVML(t, m)
	m.write(gpus(2)...)
	want := described(t, gpus(2)...)
	inOrder(t, mustCollect(t, s).GPUs, want)
	m.write(gpuLine(2), gpuLine(0), "fail nvmlDeviceGetHandleByIndex_v2 15 0")
	want[0].Index = 1
	inOrder(t, mustCollect(t, s).GPUs, []GPU{{Index: 0, Failure: "GPU is lost"}, want[0]})
}

// A worker that never ends its line does not fill the memory.
func TestNVMLEndlessAnswer(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		for err := error(nil); err == nil; _, err = w.Write(make([]byte, 4096)) {
		}
	}()
	defer w.Close()
	one := &worker{answers: r, lines: bufio.NewReaderSize(r, answerLimit), said: &said{}}
	if _, err := one.next(t.Context(), time.Minute); explain(err).Reason != Malformed {
		t.Errorf("%v", err)
	}
}
