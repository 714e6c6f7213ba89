package gpu

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

const driverLine = "driver 570.86.15"

// newFakeSMI is a source that runs the fake nvidia-smi on the machine.
func newFakeSMI(t testing.TB, m *machine) *smi {
	s := newSMI(&children{})
	s.path, s.env = filepath.Join(fakeSMI(t), "nvidia-smi"), m.env()
	return s
}

func collect(t testing.TB, s *smi) *Collection {
	t.Helper()
	c, err := s.Collect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func collectError(t testing.TB, s *smi) *Error {
	t.Helper()
	c, err := s.Collect(context.Background())
	if err == nil {
		t.Fatalf("no error, but %d GPUs", len(c.GPUs))
	}
	return err.(*Error)
}

// same compares GPUs, in any order, since that of the driver is another test's.
func same(t testing.TB, got, want []GPU) {
	t.Helper()
	byBus := func(a, b GPU) int { return strings.Compare(a.BusID, b.BusID) }
	got, want = slices.SortedFunc(slices.Values(got), byBus), slices.SortedFunc(slices.Values(want), byBus)
	if len(got) != len(want) {
		t.Errorf("%d GPUs; want %d", len(got), len(want))
		return
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
}

// without is a GPU that does not tell these.
func without(g GPU, what ...Quantity) GPU {
	g.Values = maps.Clone(g.Values)
	for _, q := range what {
		delete(g.Values, q)
		if q == throttled {
			g.Throttle = nil
		}
	}
	return g
}

// lost is a GPU that failed.
func lost(g GPU, why string) GPU {
	return GPU{Index: g.Index, UUID: g.UUID, Name: g.Name, BusID: g.BusID, Failure: why}
}

func runs(m *machine) int { return len(m.runs()) }

func TestSMI(t *testing.T) {
	m := newMachine(t)
	m.write(driverLine, "gpu index=3 uuid=GPU-5f0d bus=0000000A:c1:00.0 util=87 memutil=41 total=25769803776 reserved=408944640 used=21474836480"+
		" temp=64 power=312340 limit=350000 energy=123456789 sm=1980 mem=9751 reasons=68 corrected=3 uncorrected=1 mig=1 recovery=4 name=NVIDIA GeForce RTX 3090")
	s := newFakeSMI(t, m)
	s.env = append(s.env, "LC_ALL=de_DE.UTF-8")
	got := collect(t, s)
	if got.Source != "nvidia-smi" || got.Driver != "570.86.15" || got.Library != s.path {
		t.Errorf("%+v", got)
	}
	same(t, got.GPUs, []GPU{{
		Index: 3, UUID: "GPU-5f0d", Name: "NVIDIA GeForce RTX 3090", BusID: "0000000A:c1:00.0",
		Values: map[Quantity]int64{ // with MIG there is no utilization of the whole
			MemoryTotal: 25769803776, MemoryReserved: 390 << 20, MemoryUsed: 21474836480, Temperature: 64, Power: 312340, PowerLimit: 350000,
			SMClock: 1980e6, MemoryClock: 9751e6, ECCCorrected: 3, ECCUncorrected: 1, MIG: 1, RecoveryAction: 4,
		},
		Throttle: map[string]bool{
			"gpu_idle": false, "applications_clocks_setting": false, "sw_power_cap": true, "hw_slowdown": false, "sync_boost": false,
			"sw_thermal_slowdown": false, "hw_thermal_slowdown": true, "hw_power_brake_slowdown": false, "display_clock_setting": false,
			"board_limit": false, "reliability": false,
		},
	}})
	m.write(driverLine, gpuLine(0, "mig=0", "util=87", "memutil=41", "recovery=0"))
	g := collect(t, s).GPUs[0]
	for q, want := range map[Quantity]int64{MIG: 0, Utilization: 87, MemoryUtilization: 41, RecoveryAction: 0} {
		if v, ok := g.Values[q]; !ok || v != want {
			t.Errorf("%s = %d, %v; want %d", q, v, ok, want)
		}
	}
	if len(m.runs()) != 2 || !strings.Contains(m.runs()[0], "LC_ALL=C ") {
		t.Errorf("%q; want 2 runs, with LC_ALL=C", m.runs())
	}
}

func TestSMIIsFound(t *testing.T) {
	m := newMachine(t)
	m.write(gpuLine(0))
	s := newFakeSMI(t, m)
	path := s.path
	s.path = ""
	saved := places
	t.Cleanup(func() { places = saved })

	places = []string{t.TempDir()}
	t.Setenv("PATH", t.TempDir())
	if err := collectError(t, s); err.Reason != NoDriver || !strings.Contains(err.Text, places[0]) || err.Cure == "" {
		t.Errorf("%+v", err)
	}
	places = append(places, filepath.Dir(path))
	if c := collect(t, s); c.Library != path {
		t.Errorf("in the usual places: %q", c.Library)
	}
	places = nil
	t.Setenv("PATH", filepath.Dir(path))
	if c := collect(t, s); c.Library != path {
		t.Errorf("in PATH: %q", c.Library)
	}
}

// Case 2: one that is lost hides none of the others.
func TestSMILostGPU(t *testing.T) {
	eight := append(gpus(8), driverLine)
	const why, oldWhy = "Unknown Error", "GPU is lost. Reboot the system to recover this GPU"
	for _, test := range []struct {
		name  string
		place int
		lines []string
		why   string
		runs  int // of nvidia-smi, if all are known
		first int // if none is
	}{
		{"new", 3, []string{"lost 3"}, why, 1, 2},
		{"new, the last", 7, []string{"lost 7"}, why, 1, 2},
		{"new, exit 255", 3, []string{"lost 3", "smi exit 255"}, why, 1, 2},
		{"new, exit 0", 3, []string{"lost 3", "smi exit 0"}, why, 1, 2},
		{"old", 3, []string{"lost 3", "smi stop-at-lost"}, oldWhy, 5, 7},
		{"old, the first", 0, []string{"lost 0", "smi stop-at-lost"}, oldWhy, 8, 10},
		{"old, the last", 7, []string{"lost 7", "smi stop-at-lost"}, oldWhy, 1, 3},
		{"old, exit 0", 3, []string{"lost 3", "smi stop-at-lost", "smi exit 0"}, oldWhy, 5, 7},
		{"as a row", 3, lostRow(3, "[GPU is lost]"), "GPU is lost", 1, 1},
		{"as a row of errors", 3, lostRow(3, "[Unknown Error]"), "unknown error", 1, 1},
		{"as a row without identity", 3, append(lostRow(3, "[GPU is lost]"), "smi cell 3 uuid [GPU is lost]", "smi cell 3 name [GPU is lost]"), "GPU is lost", 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			s := newFakeSMI(t, m)
			m.write(eight...)
			healthy := collect(t, s).GPUs
			want := slices.Clone(healthy)
			want[test.place] = lost(healthy[test.place], test.why)
			m.write(append(test.lines, eight...)...)
			for range 2 { // it stays known
				before := runs(m)
				got := collect(t, s).GPUs
				same(t, got, want)
				if !slices.IsSortedFunc(got, func(a, b GPU) int { return a.Index - b.Index }) {
					t.Errorf("not in the driver's order: %+v", got)
				}
				if n := runs(m) - before; n != test.runs {
					t.Errorf("%d runs; want %d", n, test.runs)
				}
			}
			m.write(eight...)
			same(t, collect(t, s).GPUs, healthy)
		})
		t.Run(test.name+", from the beginning", func(t *testing.T) {
			m := newMachine(t)
			m.write(eight...)
			want := collect(t, newFakeSMI(t, m)).GPUs
			s := newFakeSMI(t, m)
			m.write(gpuLine(0)) // before its boot had come to the others
			collect(t, s)
			m.write(driverLine)
			collect(t, s)
			m.write(append(test.lines, eight...)...)
			for _, wantRuns := range []int{test.first, test.runs} {
				before := runs(m)
				got := collect(t, s).GPUs
				if n := runs(m) - before; n != wantRuns {
					t.Errorf("%d runs; want %d", n, wantRuns)
				}
				i := slices.IndexFunc(got, func(g GPU) bool { return g.Failure != "" })
				if i != test.place || got[i].Failure != test.why || got[i].BusID != want[i].BusID || got[i].Index != i || got[i].Values != nil {
					t.Fatalf("%d: %+v", i, got)
				}
				same(t, slices.Delete(got, i, i+1), slices.Delete(slices.Clone(want), i, i+1))
			}
		})
	}
}

func lostRow(place int, text string) (lines []string) {
	for _, c := range columns {
		lines = append(lines, fmt.Sprintf("smi cell %d %s %s", place, c.field, text))
	}
	return lines
}

func TestSMIMessages(t *testing.T) {
	for line, want := range map[string]GPU{
		"Unable to determine the device handle for GPU3: 0000:0b:00.0: Unknown Error": {Index: 3, BusID: "00000000:0B:00.0", Failure: "Unknown Error"},
		"Unable to determine the device handle for GPU0000:65:00.0: Unknown Error":    {Index: -1, BusID: "00000000:65:00.0", Failure: "Unknown Error"},
		"Unable to determine the device handle for GPU 0001A000:04:00.0:":             {Index: -1, BusID: "0001A000:04:00.0", Failure: "GPU is lost"},
	} {
		var a answer
		a.messages(line + "\r\n" + strings.ToUpper(line))
		if !reflect.DeepEqual(a.lost, []GPU{want}) {
			t.Errorf("%s: %+v", line, a.lost)
		}
	}
}

// Two are lost, and an older nvidia-smi tells of one at a time.
func TestSMITwoLost(t *testing.T) {
	m := newMachine(t)
	m.write(append(gpus(5), "lost 1", "lost 3", "smi stop-at-lost")...)
	s := newFakeSMI(t, m)
	for range 2 {
		failed := []int{}
		got := collect(t, s).GPUs
		for i, g := range got {
			if g.Failure != "" {
				failed = append(failed, i)
			}
		}
		if len(got) != 5 || !slices.Equal(failed, []int{1, 3}) {
			t.Errorf("%d GPUs, failed: %v", len(got), failed)
		}
	}
}

// One by one ends before the collection's time does, and what was read counts.
func TestSMINoTimeToAsk(t *testing.T) {
	m := newMachine(t)
	m.write(gpus(3)...)
	s := newFakeSMI(t, m)
	all := collect(t, s).GPUs
	ctx, cancel := context.WithTimeout(context.Background(), margin/2)
	defer cancel()
	got := s.complete(ctx, &answer{code: 15, gpus: all[:1], rows: 1})
	const why = "no time was left to ask for it"
	same(t, got, []GPU{all[0], lost(all[1], why), lost(all[2], why)})
	if runs(m) != 1 {
		t.Errorf("%d runs", runs(m))
	}
}

// One by one can hang as well, and costs no more than those asked for.
func TestSMIHangsWhenAskedForOne(t *testing.T) {
	s := program(t, okRow, `case "$*" in *--id*) exec sleep 60;; esac; exit 15`)
	s.timeout = time.Second
	s.sure, s.known = true, []GPU{
		{Index: 0, BusID: "00000000:01:00.0", UUID: "GPU-5f0d"}, {Index: 1, BusID: "00000000:02:00.0", UUID: "GPU-2", Name: "two"}, {Index: 2, BusID: "00000000:03:00.0"},
	}
	got := collect(t, s).GPUs
	if len(got) != 3 || got[0].Values[Utilization] != 87 {
		t.Fatalf("%+v", got)
	}
	same(t, got[1:], []GPU{lost(s.known[1], s.path+" did not come to an end in time"), lost(s.known[2], "no time was left to ask for it")})
}

// One that tells of the lost GPU whatever it is asked is not asked 256 times.
func TestSMIRepeatsItself(t *testing.T) {
	for gpu, first := range map[string]int{"GPU3: ": 2, "GPU ": 3} {
		s := program(t, "", `echo >>"$0.runs"; echo "Unable to determine the device handle for `+gpu+`0000:04:00.0: Unknown Error" >&2
			case "$*" in *--id*) ;; *) echo '`+okRow+`';; esac; exit 15`)
		for more := range 2 {
			if got := collect(t, s).GPUs; len(got) != 2 || got[0].Failure != "" || got[1].Failure != "Unknown Error" {
				t.Errorf("%+v", got)
			}
			if runs, _ := os.ReadFile(s.path + ".runs"); len(runs) != first+more {
				t.Errorf("%s: %d runs; want %d", gpu, len(runs), first+more)
			}
		}
	}
}

// So is one that does not know --id.
func TestSMIIgnoresID(t *testing.T) {
	s := program(t, okRow, `echo >>"$0.runs"; exit 14`)
	for n := range 2 {
		if got := collect(t, s).GPUs; len(got) != 1 || got[0].Index != 0 || got[0].Failure != "" {
			t.Errorf("%+v", got)
		}
		if runs, _ := os.ReadFile(s.path + ".runs"); len(runs) != 2+n {
			t.Errorf("%d runs; want %d", len(runs), 2+n)
		}
	}
}

// An answer that is about no GPU does not lead on to the next 255.
func TestSMISearchGivesUp(t *testing.T) {
	s := program(t, "", `echo >>"$0.runs"; case "$*" in *--id*) echo something new; exit 3;; *) echo '`+okRow+`';; esac; exit 14`)
	for n := range 2 {
		if got := collect(t, s).GPUs; len(got) != 1 || got[0].Failure != "" {
			t.Errorf("%+v", got)
		}
		if runs, _ := os.ReadFile(s.path + ".runs"); len(runs) != 2*(n+1) {
			t.Errorf("%d runs; want %d", len(runs), 2*(n+1))
		}
	}
}

// Case 3: what is not told is not there, and all else is.
func TestSMINoValue(t *testing.T) {
	m := newMachine(t)
	s := newFakeSMI(t, m)
	m.write(gpus(len(columns))...)
	healthy := collect(t, s).GPUs
	for _, text := range []string{
		"", "-", "[N/A]", "N/A", "n/a", "[Not Supported]", "[Unknown Error]", "[GPU is lost]", "GPU IS LOST", "[Insufficient Permissions]",
		"[Function Not Found]", "[Requested functionality has been deprecated]", "Requested functionality has been deprecated", "ERR!", "[something new]",
	} {
		lines, want := gpus(len(columns)), []GPU{}
		for i, c := range columns {
			lines = append(lines, fmt.Sprintf("smi cell %d %s %s", i, c.field, text))
			want = append(want, without(healthy[i], c.what))
		}
		m.write(lines...)
		t.Run(text, func(t *testing.T) { same(t, collect(t, s).GPUs, want) })

		m.write(driverLine, gpuLine(0), "smi cell 0 driver_version "+text, "smi cell 0 uuid "+text, "smi cell 0 name "+text)
		c := collect(t, s)
		if g := c.GPUs[0]; c.Driver != "" || g.UUID != "" || g.Name != "" || g.BusID != healthy[0].BusID || g.Failure != "" {
			t.Errorf("%q as identity: %q %+v", text, c.Driver, g)
		}
	}
}

// Case 4: what is no number is not taken for one, and is counted.
func TestSMIGarbled(t *testing.T) {
	m := newMachine(t)
	s := newFakeSMI(t, m)
	m.write(gpus(len(columns))...)
	healthy := collect(t, s).GPUs
	for _, text := range []string{
		"1e309", "NaN", "inf", "39 W", "0x1p3", "-1", "+1", "1_0", "12.", ".5", "1.2.3", "18446744073709551616", "9223372036854775808", "0xffffffffffffffff", "0x", "0x-1", "٣",
	} {
		lines, want := gpus(len(columns)), []GPU{}
		for i, c := range columns {
			lines = append(lines, fmt.Sprintf("smi cell %d %s %s", i, c.field, text))
			g := without(healthy[i], c.what)
			if c.what != RecoveryAction { // a word that is not known yet
				g.Garbled = []Quantity{c.what}
			}
			want = append(want, g)
		}
		m.write(lines...)
		t.Run(text, func(t *testing.T) { same(t, collect(t, s).GPUs, want) })
	}
}

func TestSMINumbers(t *testing.T) {
	for _, test := range []struct {
		what Quantity
		cell string
		want int64 // -1: garbled
	}{
		{Power, "312.34", 312340}, {Power, "0.07", 70}, {Power, "39", 39000}, {Power, "39.123999", 39123}, {Power, "39.12x", -1}, {Power, "39.1234x", -1},
		{Power, "9223372036854775.807", math.MaxInt64}, {Power, "9223372036854775.808", -1},
		{MemoryUsed, "8796093022207", 8796093022207 << 20}, {MemoryUsed, "8796093022208", -1},
		{SMClock, "9223372036854", 9223372036854e6}, {SMClock, "9223372036855", -1},
		{ECCCorrected, "9223372036854775807", math.MaxInt64}, {Utilization, "87.5", -1},
		{MIG, "enabled", 1}, {MIG, "DISABLED", 0}, {MIG, "1", -1},
		{RecoveryAction, "GPU Reset", 1}, {RecoveryAction, "Node Reboot", 2}, {RecoveryAction, "DRAIN P2P", 3},
	} {
		i := slices.IndexFunc(columns, func(c column) bool { return c.what == test.what })
		got, ok := columns[i].read(test.cell)
		if ok != (test.want >= 0) || ok && got != test.want {
			t.Errorf("%s %q: %d, %v; want %d", test.what, test.cell, got, ok, test.want)
		}
	}
}

// Cases 5 and 11: a row that is shifted gives no values, and the others do.
func TestSMIShiftedRow(t *testing.T) {
	const why = "its row cannot be understood"
	for name, lines := range map[string][]string{
		"decimal comma":   {"smi cell 1 power.draw 39,32"},
		"decimal commas":  {"smi cell 1 power.draw 39,32", "smi cell 1 enforced.power.limit 350,00"},
		"no bus id":       {"smi cell 1 pci.bus_id [N/A]"},
		"no index":        {"smi cell 1 index [N/A]"},
		"index and comma": {"smi cell 1 index 1,5"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			s := newFakeSMI(t, m)
			m.write(gpus(3)...)
			healthy := collect(t, s).GPUs
			m.write(append(lines, gpus(3)...)...)
			want := slices.Clone(healthy)
			want[1] = lost(healthy[1], why)
			if name == "no bus id" { // whose row is it? Nobody's; so the missing one is asked for.
				want[1].Failure = "nvidia-smi gave no row that can be understood, and 1 that cannot"
			}
			for range 2 {
				same(t, collect(t, s).GPUs, want)
			}
			m.write(append(lines[:1], gpuLine(0, "-bus"), gpuLine(1))...)
			if err := collectError(t, newFakeSMI(t, m)); err.Reason != Malformed {
				t.Errorf("no row is left: %+v", err)
			}
		})
	}
	m := newMachine(t)
	m.write(append(gpus(3), "smi drop-column")...)
	if err := collectError(t, newFakeSMI(t, m)); err.Reason != Malformed {
		t.Errorf("a column too few: %+v", err)
	}
	// Behind the name it is part of it: that cannot be told from a comma.
	m.write(append(gpus(1), "smi add-column")...)
	if g := collect(t, newFakeSMI(t, m)).GPUs[0]; !strings.HasSuffix(g.Name, ", 0") || g.Values[Utilization] == 0 {
		t.Errorf("%+v", g)
	}
}

// Case 6.
func TestSMICounts(t *testing.T) {
	m := newMachine(t)
	s := newFakeSMI(t, m)
	for _, n := range []int{1, 2, 16, 64, 0} {
		m.write(gpus(n)...)
		if c := collect(t, s); len(c.GPUs) != n {
			t.Errorf("%d GPUs; want %d", len(c.GPUs), n)
		}
		if n == 0 && len(s.known) != 0 {
			t.Errorf("ghosts: %+v", s.known)
		}
	}
	m.write("smi exit 0")
	if c := collect(t, s); len(c.GPUs) != 0 {
		t.Errorf("exit 0: %+v", c)
	}

	m.write(gpuLine(0, "name=NVIDIA L4"), gpuLine(1, "name=NVIDIA L4", "uuid="), gpuLine(2, "uuid="), gpuLine(3, "bus=00000000:01:00.0"), gpuLine(4, "bus=0000:02:00.0"))
	var buses, names []string
	for _, g := range collect(t, s).GPUs {
		buses, names = append(buses, g.BusID), append(names, g.Name)
	}
	if want := []string{"00000000:01:00.0", "00000000:02:00.0", "00000000:03:00.0"}; !slices.Equal(buses, want) || names[0] != names[1] {
		t.Errorf("%q %q; want %q", buses, names, want)
	}
}

// Case 7.
func TestSMIMIGToggled(t *testing.T) {
	m := newMachine(t)
	s := newFakeSMI(t, m)
	for _, mig := range []int64{0, 1, 0} {
		m.write(gpuLine(0, fmt.Sprintf("mig=%d", mig), "util=5"))
		v := collect(t, s).GPUs[0].Values
		_, utilized := v[Utilization]
		if v[MIG] != mig || utilized != (mig == 0) || v[Temperature] == 0 || v[Power] == 0 || v[MemoryUsed] == 0 {
			t.Errorf("MIG %d: %v", mig, v)
		}
	}
}

// Case 8: a driver that comes, goes, and comes back.
func TestSMIDriverComesAndGoes(t *testing.T) {
	m := newMachine(t)
	s := newFakeSMI(t, m)
	for range 2 {
		for range 3 {
			if err := collectError(t, s); err.Reason != Driver || !strings.Contains(err.Text, "couldn't communicate") || err.Cure == "" {
				t.Errorf("%+v", err)
			}
		}
		m.write(driverLine, gpuLine(0))
		if c := collect(t, s); len(c.GPUs) != 1 {
			t.Errorf("%+v", c)
		}
		m.remove()
	}
}

// program is an nvidia-smi that says one thing.
func program(t *testing.T, stdout, end string) *smi {
	path := filepath.Join(t.TempDir(), "nvidia-smi")
	writeProgram(t, path, "#!/bin/sh\ncat <<'EOF'\n"+stdout+"\nEOF\n"+end+"\n")
	s := newSMI(&children{})
	s.path = path
	return s
}

// writeProgram lets nobody fork meanwhile: a child that has the file open for
// writing, be it for a moment, makes it "busy" for whoever runs it (go.dev/issue/22315).
func writeProgram(t *testing.T, path, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// Case 8, and all other ends without a row.
func TestSMIFailures(t *testing.T) {
	for _, test := range []struct {
		out, end string
		reason   Reason
		text     string
		cure     bool
	}{
		{"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure …", "exit 9", Driver, "couldn't communicate", true},
		{"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "exit 1", Driver, "couldn't communicate", true},
		{"", "exit 9", Driver, "couldn't communicate", true},
		{"NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.", "exit 12", NoDriver, "libnvidia-ml.so", true},
		{"Failed to initialize NVML: NVML Shared Library couldn't be found", "exit 1", NoDriver, "couldn't be found", true},
		{"Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.161", "exit 18", Driver, "mismatch", true},
		{"Failed to initialize NVML: Insufficient Permissions", "exit 4", Driver, "Insufficient", true},
		{"Failed to initialize NVML: Unknown Error", "exit 255", Driver, "Unknown Error", true},
		{"", "echo to stderr >&2; exit 3", Driver, "to stderr", false},
		{strings.Repeat("ä\x01", 4000), "exit 3", Driver, "nvidia-smi: ä ä", false},
		{"No devices were found", "exit 255", Driver, "No devices", false},
		{"", "exit 3", Malformed, "exit code 3", false},
		{"", "exit 6", Malformed, "exit code 6", false},
		{"", "exit 0", Malformed, "exit code 0", false},
		{"Hello", "exit 0", Malformed, "Hello", false},
		{"Hello", "kill -9 $$", Crash, "killed", false},
		{"1, 2, 3\n2, 3, 4", "exit 0", Malformed, "2 that cannot", false},
	} {
		t.Run(test.end+" "+test.out[:min(20, len(test.out))], func(t *testing.T) {
			err := collectError(t, program(t, test.out, test.end))
			if err.Reason != test.reason || !strings.Contains(err.Text, test.text) || (err.Cure != "") != test.cure {
				t.Errorf("%+v", err)
			}
			if len(err.Text) > 250 || strings.ContainsFunc(err.Text, unicode.IsControl) || !utf8.ValidString(err.Text) {
				t.Errorf("%d bytes: %q", len(err.Text), err.Text)
			}
		})
	}
}

// Case 11, as far as it is nvidia-smi's.
func TestSMINoise(t *testing.T) {
	m := newMachine(t)
	s := newFakeSMI(t, m)
	m.write(gpus(2)...)
	healthy := collect(t, s).GPUs
	for _, lines := range [][]string{
		{"smi grandchild"}, {"smi crlf"}, {"smi nonewline"}, {"smi crlf", "smi nonewline"},
		{"smi before WARNING: infoROM is corrupted at gpu 0000:01:00.0", `smi before "\n\r\n  \n"`, "smi before ,", "smi after done, 1, 2, 3", "smi stderr warning, too"},
		{"smi exit 14", "smi before WARNING: infoROM is corrupted at gpu 0000:01:00.0"},
	} {
		m.write(append(lines, gpus(2)...)...)
		t.Run(strings.Join(lines, " "), func(t *testing.T) { same(t, collect(t, s).GPUs, healthy) })
	}
	m.write(append(gpus(2), "smi flood 10485760")...)
	if err := collectError(t, s); err.Reason != Malformed {
		t.Errorf("flood: %+v", err)
	}
	m.write(append(gpus(2), "smi hang")...)
	s.timeout = 50 * time.Millisecond
	if err := collectError(t, s); err.Reason != Timeout {
		t.Errorf("hang: %+v", err)
	}
	m.write(gpus(2)...)
	s.timeout = smiTimeout
	same(t, collect(t, s).GPUs, healthy)
}

// Case 11: names are for labels.
func TestSMINames(t *testing.T) {
	m := newMachine(t)
	s := newFakeSMI(t, m)
	for name, want := range map[string]string{
		`NVIDIA "H200", 141GB, SXM`:      `NVIDIA "H200", 141GB, SXM`,
		"\xffNVIDIA\xfe\xfd H200":        "\uFFFDNVIDIA\uFFFD H200",
		"NVIDIA\x00\t H200\u0085\x1b[0m": "NVIDIA H200 [0m",
		strings.Repeat("ö", 64) + "x":    strings.Repeat("ö", 64),
		"x" + strings.Repeat("ö", 64):    "x" + strings.Repeat("ö", 63),
	} {
		m.write(gpuLine(0, "name="+name), gpuLine(1))
		if c := collect(t, s); len(c.GPUs) != 2 || c.GPUs[0].Name != want {
			t.Errorf("%q: %+v", name, c.GPUs)
		}
	}
	m.write(gpuLine(0), gpuLine(1), `smi cell 0 name "NVIDIA\nH200"`)
	if c := collect(t, s); len(c.GPUs) != 2 || c.GPUs[0].Name != "NVIDIA" {
		t.Errorf("a newline: %+v", c.GPUs)
	}
}

// A row of which the end was not kept is no row; its GPU is asked for.
func TestSMICutOutput(t *testing.T) {
	m := newMachine(t)
	m.write(gpus(2)...)
	s := newFakeSMI(t, m)
	healthy := collect(t, s).GPUs
	a, err := s.run(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	filler := strings.Repeat("x", outputLimit-len(strings.TrimSpace(a.text))+2) // so that the last name loses its end
	m.write(append(gpus(2), "smi before "+filler)...)
	before := runs(m)
	same(t, collect(t, s).GPUs, healthy)
	if n := runs(m) - before; n != 2 {
		t.Errorf("%d runs; want one for all, and one for the GPU of the last row", n)
	}
	for _, end := range []string{"kill -9 $$", "exit 0"} {
		row := strings.Split(a.text, "\n")[0]
		c, err := program(t, row, "printf '%s' '"+row+"'; "+end).Collect(context.Background())
		if err != nil || len(c.GPUs) != 1 {
			t.Errorf("%s: %+v, %v", end, c, err)
		}
		s := program(t, "Hello", "printf '%s' '"+row+"'; "+end)
		if _, err := s.Collect(context.Background()); (err != nil) != (end != "exit 0") {
			t.Errorf("%s in the middle of a row: %v", end, err)
		}
	}
}

// Case 12: a field that an old driver lacks costs one run, once.
func TestSMIUnknownField(t *testing.T) {
	m := newMachine(t)
	m.write(driverLine, gpuLine(0))
	healthy := collect(t, newFakeSMI(t, m)).GPUs[0]
	for _, test := range []struct {
		reject  []string
		missing []Quantity
		runs    int
	}{
		{[]string{"memory.reserved"}, []Quantity{MemoryReserved}, 2},
		{[]string{"power.draw"}, []Quantity{Power}, 2},
		{[]string{newReasons}, nil, 2},
		{[]string{newReasons, oldReasons}, []Quantity{throttled}, 3},
		{[]string{"utilization.memory", "memory.reserved", "enforced.power.limit", "clocks.sm", "clocks.mem", "ecc.errors.corrected.aggregate.total",
			"ecc.errors.uncorrected.aggregate.total", "mig.mode.current", "gpu_recovery_action", newReasons, oldReasons},
			[]Quantity{MemoryUtilization, MemoryReserved, PowerLimit, SMClock, MemoryClock, ECCCorrected, ECCUncorrected, MIG, RecoveryAction, throttled}, 12},
	} {
		lines := []string{driverLine, gpuLine(0)}
		for _, field := range test.reject {
			lines = append(lines, "smi reject "+field)
		}
		m.write(lines...)
		s := newFakeSMI(t, m)
		for _, want := range []int{test.runs, 1} {
			before := runs(m)
			same(t, collect(t, s).GPUs, []GPU{without(healthy, test.missing...)})
			if n := runs(m) - before; n != want {
				t.Errorf("%q: %d runs; want %d", test.reject, n, want)
			}
		}

		// A new driver may know them: after it has been away, or by its version.
		m.remove()
		collectError(t, s)
		m.write(driverLine, gpuLine(0))
		same(t, collect(t, s).GPUs, []GPU{healthy})
		m.write(lines...)
		collect(t, s)
		m.write("driver 580.65.06", gpuLine(0))
		collect(t, s)
		same(t, collect(t, s).GPUs, []GPU{healthy})
	}

	// Without index or uuid nothing can be read.
	m.write(gpuLine(0), "smi reject uuid")
	s := newFakeSMI(t, m)
	before := runs(m)
	if err := collectError(t, s); err.Reason != Driver || !strings.Contains(err.Text, `"uuid"`) {
		t.Errorf("%+v", err)
	}
	if n := runs(m) - before; n != 2 {
		t.Errorf("%d runs", n)
	}
	// A refusal that names nothing leaves the core.
	s = program(t, "The question is wrong.", `case "$*" in *clocks*) exit 2;; esac; echo '0, 87, 1, 2, 64, 39.32, 570, 00000000:01:00.0, GPU-1, L4'`)
	if g := collect(t, s).GPUs[0]; len(g.Values) != 5 || g.Values[Power] != 39320 {
		t.Errorf("%+v", g)
	}
}

// Case 13: who is gone is gone, and the order may change.
func TestSMIRemovedGPU(t *testing.T) {
	m := newMachine(t)
	s := newFakeSMI(t, m)
	m.write(gpus(4)...)
	healthy := collect(t, s).GPUs
	m.write(gpuLine(0, "index=2"), gpuLine(2, "index=1"), gpuLine(3, "index=0"))
	got := collect(t, s).GPUs
	for i, want := range []GPU{healthy[0], healthy[2], healthy[3]} {
		want.Index = 2 - i
		same(t, got[i:i+1], []GPU{want})
	}
	// One is lost, another was taken out at that moment: it is asked for, and forgotten.
	m.write(gpus(4)...)
	collect(t, s)
	m.write(gpuLine(0), gpuLine(1), gpuLine(3), "lost 1", "smi stop-at-lost")
	for _, want := range []int{3, 2} {
		before := runs(m)
		same(t, collect(t, s).GPUs, []GPU{healthy[0], lost(healthy[1], "GPU is lost. Reboot the system to recover this GPU"), healthy[3]})
		if n := runs(m) - before; n != want {
			t.Errorf("%d runs; want %d", n, want)
		}
	}
}

// Case 17: memory that is the host's has no figures of its own.
func TestSMIUnifiedMemory(t *testing.T) {
	m := newMachine(t)
	m.write(gpuLine(0))
	s := newFakeSMI(t, m)
	healthy := collect(t, s).GPUs[0]
	m.write(gpuLine(0, "-used", "-total", "-reserved"))
	same(t, collect(t, s).GPUs, []GPU{without(healthy, MemoryUsed, MemoryTotal, MemoryReserved)})
}

// okRow is nvidia-smi's own, with all columns.
const okRow = "0, 87, 41, 20480, 24576, 390, 64, 312.34, 350.00, 1980, 9751, 3, 0, Disabled, None, 0x0000000000000004, 570.86.15, 00000000:01:00.0, GPU-5f0d, NVIDIA H200"

func FuzzRows(f *testing.F) {
	row := okRow
	for _, seed := range []string{
		row, row + "\r\n" + strings.Replace(row, ":01:", ":02:", 1) + "\n", strings.Replace(row, "312.34", "312,34", 1), row + ", \xff\x00 141GB",
		"Unable to determine the device handle for GPU3: 0000:04:00.0: Unknown Error\n" + row, strings.Repeat("[N/A], ", 19) + "[N/A]",
		strings.Replace(row, "64", "1e309", 1), "warning, no row\n\n" + row,
		"Unable to determine the device handle for GPU00000:00:00.0",        // no bus id has five digits
		strings.Replace(row, "0x0000000000000004", "0x00000000000007ff", 1), // every reason that has a name
		strings.Replace(row, "NVIDIA H200", "Unable\tto determine the device handle for GPU 0000:04:00.0", 1),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var a answer
		rows(&a, text, columns)
		if n := len(a.gpus) + len(a.lost); n > strings.Count(text, "\n")+1 || n > a.rows+a.refused+len(a.lost) {
			t.Fatalf("%d GPUs", n)
		}
		again := ""
		var good []GPU
		for _, g := range slices.Concat(a.gpus, a.lost) {
			for _, s := range []string{g.UUID, g.Name, g.Failure, a.driver} {
				if len(s) > 128 || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) || strings.TrimSpace(s) != s {
					t.Errorf("%q", s)
				}
			}
			if !busID.MatchString(g.BusID) || g.Failure != "" && (g.Values != nil || g.Throttle != nil || g.Garbled != nil) {
				t.Errorf("%+v", g)
			}
			for q, v := range g.Values {
				if v < 0 {
					t.Errorf("%s = %d", q, v)
				}
			}
			if row := line(g, a.driver); g.Failure == "" && !handle.MatchString(row) { // a name may be a message once it is clean
				g.Garbled = nil
				good, again = append(good, g), again+row
			}
		}
		var b answer
		rows(&b, again, columns)
		if !reflect.DeepEqual(b.gpus, good) || len(b.lost) > 0 || b.refused > 0 || len(good) > 0 && b.driver != a.driver {
			t.Errorf("%+v\nis, when read again:\n%+v, refused: %d", good, b.gpus, b.refused)
		}
	})
}

// line is a GPU's row.
func line(g GPU, driver string) string {
	cells := []string{fmt.Sprint(g.Index)}
	for _, c := range columns {
		v, ok := g.Values[c.what]
		cell := fmt.Sprint(v)
		switch c.what {
		case MemoryUsed, MemoryTotal, MemoryReserved:
			cell = fmt.Sprint(v >> 20)
		case Power, PowerLimit:
			cell = fmt.Sprintf("%d.%03d", v/1000, v%1000)
		case SMClock, MemoryClock:
			cell = fmt.Sprint(v / 1e6)
		case MIG:
			cell = []string{"Disabled", "Enabled"}[v]
		case RecoveryAction:
			cell = []string{"None", "Reset", "Reboot", "Drain P2P", "Drain and Reset"}[v]
		case throttled:
			mask := 0
			for bit := range 63 { // as many as are read: throttle knows which have names
				if overlap(throttle(1<<bit), g.Throttle) {
					mask |= 1 << bit
				}
			}
			cell, ok = fmt.Sprintf("0x%x", mask), g.Throttle != nil
		}
		if !ok {
			cell = "[N/A]"
		}
		cells = append(cells, cell)
	}
	return strings.Join(append(cells, driver, g.BusID, g.UUID, g.Name), ", ") + "\n"
}

func overlap(a, b map[string]bool) bool {
	for reason := range a {
		if a[reason] && b[reason] {
			return true
		}
	}
	return false
}

// A script that runs the real program, as some systems have it, leaves nobody
// behind: neither one that hangs nor one that it has not waited for.
func TestSMIScriptLeavesNobody(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		reason Reason
	}{
		"the program hangs":    {"sleep 86399 & echo $! >>$0.pids; wait", Timeout},
		"it does not go":       {"trap '' TERM; sleep 86399 & echo $! >>$0.pids; exit 15", Timeout},
		"it is not waited for": {"sleep 86399 & echo $! >>$0.pids; exit 15", Malformed},
		"it exits well":        {"sleep 86399 & echo $! >>$0.pids; exit 0", Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := program(t, "", tt.script)
			s.timeout = 500 * time.Millisecond
			for range 2 {
				if err := collectError(t, s); err.Reason != tt.reason {
					t.Errorf("%+v", err)
				}
			}
			if n := s.kids.stuck(); n != 0 {
				t.Errorf("%d are stuck", n)
			}
			pids, _ := os.ReadFile(s.path + ".pids")
			if n := len(strings.Fields(string(pids))); n != 2 {
				t.Fatalf("%d were started", n)
			}
			for pid := range strings.FieldsSeq(string(pids)) {
				stat, err := os.ReadFile("/proc/" + pid + "/stat")
				if err == nil && !strings.Contains(string(stat), ") Z ") {
					t.Errorf("left: %s", stat)
				}
			}
		})
	}
}

// Where all are lost, nvidia-smi says of each that it is, and then that there is
// none.
func TestSMIAllLost(t *testing.T) {
	for _, code := range []string{"exit 0", "exit 6", "exit 15"} {
		s := program(t, "Unable to determine the device handle for GPU0: 0000:01:00.0: Unknown Error\nNo devices were found", code)
		same(t, collect(t, s).GPUs, []GPU{{Index: 0, BusID: "00000000:01:00.0", Failure: "Unknown Error"}})
	}
}

// Asked for a lost one alone, it says both as well: the GPU is not forgotten.
func TestSMIAskedForALostOne(t *testing.T) {
	m := newMachine(t)
	m.write(gpus(2)...)
	s := newFakeSMI(t, m)
	want := collect(t, s).GPUs
	s.path = program(t, "", `
case "$*" in
*--id=*) echo 'Unable to determine the device handle for GPU1: 0000:02:00.0: Unknown Error'; echo 'No devices were found'; exit 6;;
esac
`+s.path+` "$@" | head -1; exit 255`).path
	want[1] = lost(want[1], "Unknown Error")
	same(t, collect(t, s).GPUs, want)
}

// What is told beside a wish for a reset is not measured.
func TestSMIRequiresReset(t *testing.T) {
	m := newMachine(t)
	s := newFakeSMI(t, m)
	lines := append(gpus(2), "smi cell 1 utilization.gpu [GPU requires reset]", "smi cell 1 power.draw [GPU requires reset]", "smi cell 1 memory.used 0")
	m.write(lines...)
	got := collect(t, s).GPUs
	if got[0].Failure != "" || got[1].Failure != "GPU requires a reset" || len(got[1].Values) != 0 {
		t.Errorf("%+v", got)
	}
	m.write(append(gpus(2), "smi cell 1 utilization.gpu [N/A]", "smi cell 1 memory.used [Unknown Error]", "smi cell 1 memory.total [Unknown Error]",
		"smi cell 1 temperature.gpu [Unknown Error]", "smi cell 1 power.draw [N/A]")...)
	if got := collect(t, s).GPUs; got[0].Failure != "" || got[1].Failure != "unknown error" {
		t.Errorf("%+v", got)
	}
}

// A run that goes wrong takes no field away for good.
func TestSMIOneBadRun(t *testing.T) {
	s := program(t, "", "exit 2") // a shell's, too
	collectError(t, s)
	if !slices.EqualFunc(s.columns, columns, func(a, b column) bool { return a.field == b.field }) {
		t.Errorf("%d of %d fields are left", len(s.columns), len(columns))
	}
}
