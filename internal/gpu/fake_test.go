package gpu

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Two fakes stand for a machine with NVIDIA GPUs: the management library and
// nvidia-smi, both in testdata. Both read the same description of a machine,
// anew at every run and at every round of the library's calls, from the file
// that $FAKE_GPUS names:
//
//	driver 570.86.15
//	gpu index=0 uuid=GPU-5f0d bus=00000000:01:00.0 util=87 … name=NVIDIA H200
//	lost 3                               the fourth gpu line has fallen off the bus
//	xid 1 79                             an event 79 of the second one
//	fail nvmlDeviceGetTemperature 3      it returns 3; a third word: for that place alone
//	hang nvmlDeviceGetPowerUsage         it never returns; a second word: …
//	crash nvmlDeviceGetPowerUsage        it crashes; a second word: …
//	slow nvmlInit_v2 300                 its first call takes 300 ms
//	noise TEXT                           nvmlInit_v2 prints TEXT on stdout and stderr
//	smi …                                for nvidia-smi alone: see obey in its main.go
//
// A key left out of a gpu line is not supported there: NVML says 3, nvidia-smi
// "[N/A]". Units are NVML's: bytes, milliwatts, millijoules, °C, MHz.
type machine struct {
	t    testing.TB
	path string
}

// newMachine is a machine without driver until the first write.
func newMachine(t testing.TB) *machine {
	return &machine{t, filepath.Join(t.TempDir(), "gpus")}
}

// write replaces the description as a whole.
func (m *machine) write(lines ...string) {
	m.t.Helper()
	if err := os.WriteFile(m.path+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(m.path+".new", m.path); err != nil {
		m.t.Fatal(err)
	}
}

// remove unloads the driver.
func (m *machine) remove() {
	m.t.Helper()
	if err := os.Remove(m.path); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) env() []string { return []string{"FAKE_GPUS=" + m.path} }

// runs are nvidia-smi's runs so far, a line each: pid=… LC_ALL=… arguments.
func (m *machine) runs() []string {
	content, _ := os.ReadFile(m.path + ".runs")
	return strings.FieldsFunc(string(content), func(r rune) bool { return r == '\n' })
}

// gpuLine describes a healthy GPU. "util=5" sets a value, "-util" leaves it out.
func gpuLine(index int, overrides ...string) string {
	keys := []string{"index", "uuid", "bus", "util", "memutil", "total", "reserved", "used", "temp", "power", "limit",
		"energy", "sm", "mem", "reasons", "corrected", "uncorrected", "mig", "recovery", "name"}
	values := map[string]string{
		"index": strconv.Itoa(index),
		"uuid":  fmt.Sprintf("GPU-00000000-0000-0000-0000-%012X", index+1),
		"bus":   fmt.Sprintf("00000000:%02X:00.0", index+1),
		"total": strconv.Itoa(143771 << 20), "reserved": strconv.Itoa(608 << 20), "used": strconv.Itoa((20480 + index*1024) << 20),
		"util": strconv.Itoa((87 + index*3) % 101), "memutil": strconv.Itoa((41 + index*2) % 101),
		"temp": strconv.Itoa(40 + index%40), "power": strconv.Itoa(312340 + index*1010), "limit": "700000",
		"energy": strconv.Itoa(123456789 + index*1000), "sm": strconv.Itoa(1980 - index%64*15), "mem": "3201",
		"reasons": "4", "corrected": strconv.Itoa(index), "uncorrected": "0", "mig": "0", "recovery": "0", "name": "NVIDIA H200",
	}
	for _, override := range overrides {
		key, value, set := strings.Cut(strings.TrimPrefix(override, "-"), "=")
		if !slices.Contains(keys, key) {
			panic("gpuLine: no such key: " + override)
		}
		if values[key] = value; !set {
			delete(values, key)
		}
	}
	line := "gpu"
	for _, key := range keys {
		if value, ok := values[key]; ok {
			line += " " + key + "=" + value
		}
	}
	return line
}

func gpus(n int) []string {
	var lines []string
	for i := range n {
		lines = append(lines, gpuLine(i))
	}
	return lines
}

// What the tests have built: paths below dir, by command.
var fakes struct {
	sync.Mutex
	dir   string
	built map[string]string
}

// build runs a compiler once per test binary. Each file has a folder to itself.
func build(t testing.TB, name, source string, compiler ...string) string {
	t.Helper()
	fakes.Lock()
	defer fakes.Unlock()
	if fakes.dir == "" {
		dir, err := os.MkdirTemp("", "fake-gpus-")
		if err != nil {
			t.Fatal(err)
		}
		fakes.dir, fakes.built = dir, map[string]string{}
	}
	key := strings.Join(append(compiler, name), " ")
	if path, ok := fakes.built[key]; ok {
		return path
	}
	dir, err := os.MkdirTemp(fakes.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	sources, _ := filepath.Glob("testdata/*/*.*")
	for _, s := range sources {
		os.Stat(s) // so that go test knows that its result depends on it
	}
	path := filepath.Join(dir, name)
	cmd := exec.Command(compiler[0], append(compiler[1:], "-o", path, source)...)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	fakes.built[key] = path
	return path
}

// cleanupFakes removes what was built: for TestMain, after the tests.
func cleanupFakes() {
	fakes.Lock()
	defer fakes.Unlock()
	os.RemoveAll(fakes.dir)
	fakes.dir = ""
}

const librarySource = "testdata/nvml/nvml.c"

// fakeNVML is the folder of a libnvidia-ml.so.1 without some of its functions.
func fakeNVML(t testing.TB, without ...string) string {
	t.Helper()
	args := []string{compiler(t), "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"}
	for _, function := range without {
		if !slices.Contains(libraryFunctions(t), function) {
			t.Fatalf("%s: no such function in %s", function, librarySource)
		}
		args = append(args, "-DWITHOUT_"+function)
	}
	return filepath.Dir(build(t, "libnvidia-ml.so.1", librarySource, args...))
}

func compiler(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"gcc", "cc"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("no C compiler")
	}
	t.Skip("no C compiler")
	return ""
}

func libraryFunctions(t testing.TB) []string {
	t.Helper()
	source, err := os.ReadFile(librarySource)
	if err != nil {
		t.Fatal(err)
	}
	var functions []string
	for _, match := range regexp.MustCompile(`(?m)^[A-Z]+\((nvml\w+)`).FindAllSubmatch(source, -1) {
		functions = append(functions, string(match[1]))
	}
	return functions
}

// fakeSMI is the folder of nvidia-smi.
func fakeSMI(t testing.TB) string {
	t.Helper()
	return filepath.Dir(build(t, "nvidia-smi", "./testdata/nvidia-smi", "go", "build"))
}

// holder is the program that makes a process unkillable for a while.
func holder(t testing.TB) string {
	t.Helper()
	return build(t, "holder", "./testdata/holder", "go", "build")
}

func TestFakes(t *testing.T) {
	all := libraryFunctions(t)
	if got := exported(t, fakeNVML(t)); len(all) != 26 || !slices.Equal(got, slices.Sorted(slices.Values(all))) {
		t.Errorf("the library has %q, want %q", got, all)
	}
	if got := exported(t, fakeNVML(t, all...)); len(got) != 0 {
		t.Errorf("without all of its functions the library has %q", got)
	}

	m := newMachine(t)
	m.write(append(gpus(2), "smi cell 1 temperature.gpu [N/A]")...)
	cmd := exec.Command(filepath.Join(fakeSMI(t), "nvidia-smi"), "--query-gpu=index,uuid,name,power.draw,temperature.gpu", "--format=csv,noheader,nounits")
	cmd.Env = append(cmd.Environ(), m.env()...)
	out, err := cmd.Output()
	want := "0, GPU-00000000-0000-0000-0000-000000000001, NVIDIA H200, 312.34, 40\n" +
		"1, GPU-00000000-0000-0000-0000-000000000002, NVIDIA H200, 313.35, [N/A]\n"
	if err != nil || string(out) != want || len(m.runs()) != 1 {
		t.Errorf("nvidia-smi: %v, %d runs noted, and\n%swant\n%s", err, len(m.runs()), out, want)
	}

	if err := exec.Command(holder(t), "0").Run(); err == nil {
		t.Error("holder holds process 0")
	}
}

// exported are the names of the library's functions that a program can find.
func exported(t *testing.T, dir string) []string {
	t.Helper()
	library, err := elf.Open(filepath.Join(dir, "libnvidia-ml.so.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer library.Close()
	symbols, err := library.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, symbol := range symbols {
		if strings.HasPrefix(symbol.Name, "nvml") && symbol.Section != elf.SHN_UNDEF {
			names = append(names, symbol.Name)
		}
	}
	slices.Sort(names)
	return names
}
