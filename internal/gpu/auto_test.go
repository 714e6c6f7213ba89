//go:build linux

package gpu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newFakeAuto asks the library in dir, and the nvidia-smi that is in PATH; alone
// in it are folders, so that a real one is not found.
func newFakeAuto(t *testing.T, m *machine, dir string, path ...string) *auto {
	t.Helper()
	saved := places
	t.Cleanup(func() { places = saved })
	places = nil
	t.Setenv("PATH", strings.Join(append(path, t.TempDir()), ":"))
	s := newNVMLFrom(t, m, dir)
	other := newSMI(s.kids)
	other.env = m.env()
	return &auto{nvml: s, smi: other}
}

// sources are those of so many collections, one after the other; instead is why
// one of them is nvidia-smi.
func sources(t *testing.T, s Source, n int, instead string) string {
	t.Helper()
	var list []string
	for range n {
		c := mustCollect(t, s)
		if len(c.GPUs) != 2 {
			t.Errorf("%s gives %d GPUs", c.Source, len(c.GPUs))
		}
		if because := c.Source != "nvml"; because != (c.Instead != "") || because && !strings.Contains(c.Instead, instead) {
			t.Errorf("%s because of %q, not %q", c.Source, c.Instead, instead)
		}
		list = append(list, c.Source)
	}
	return strings.Join(list, " ")
}

const (
	once    = "nvidia-smi nvidia-smi nvidia-smi" // one that asked NVML in vain, and 2 that did not
	twice   = once + " nvidia-smi nvidia-smi nvidia-smi nvidia-smi nvidia-smi"
	andBack = " nvml nvml"
)

func TestAuto(t *testing.T) {
	t.Run("NVML", func(t *testing.T) {
		m := newMachine(t)
		m.write(gpus(2)...)
		a := newFakeAuto(t, m, fakeNVML(t), fakeSMI(t))
		if got := sources(t, a, 2, ""); got != "nvml nvml" || runs(m) != 0 {
			t.Errorf("%s; %q", got, m.runs())
		}
	})
	t.Run("library missing", func(t *testing.T) {
		m := newMachine(t)
		m.write(gpus(2)...)
		dir, library, smiDir := emptyFolder(t), fakeNVML(t), fakeSMI(t)
		a := newFakeAuto(t, m, dir, smiDir)
		if got := sources(t, a, 4, libraryName+" is not on this machine"); got != once+" nvidia-smi" { // the fourth has asked it again
			t.Errorf("%s", got)
		}
		if err := os.Symlink(filepath.Join(library, libraryName), filepath.Join(dir, libraryName)); err != nil {
			t.Fatal(err)
		}
		if got := sources(t, a, 6, libraryName+" is not on this machine"); once+" nvidia-smi "+got != twice+andBack || runs(m) != 8 {
			t.Errorf("%s; %q", got, m.runs())
		}
	})
	t.Run("function missing", func(t *testing.T) {
		m := newMachine(t)
		m.write(gpus(2)...)
		a := newFakeAuto(t, m, fakeNVML(t, "nvmlDeviceGetUUID"), fakeSMI(t))
		if got := sources(t, a, 3, "has no function nvmlDeviceGetUUID"); got != once || runs(m) != 3 {
			t.Errorf("%s; %q", got, m.runs())
		}
	})
	t.Run("driver's errors", func(t *testing.T) {
		m := newMachine(t)
		a := newFakeAuto(t, m, fakeNVML(t), fakeSMI(t))
		for _, lines := range [][]string{{"fail nvmlInit_v2 9"}, {"fail nvmlInit_v2 999"}, {"fail nvmlDeviceGetCount_v2 18"}} {
			m.write(append(lines, gpus(2)...)...)
			mustFail(t, a, Driver)
		}
		a.nvml.(*nvmlSource).init = short
		m.write(append(gpus(2), "hang nvmlInit_v2")...)
		mustFail(t, a, Timeout)
		if runs(m) != 0 {
			t.Errorf("%q", m.runs())
		}
		a.nvml.(*nvmlSource).init = initTimeout
		m.write(gpus(2)...)
		if got := sources(t, a, 1, ""); got != "nvml" {
			t.Error(got)
		}
	})
	t.Run("crash", func(t *testing.T) {
		m := newMachine(t)
		m.write(gpus(2)...)
		a := newFakeAuto(t, m, fakeNVML(t), fakeSMI(t))
		mustCollect(t, a)
		began := time.Now()
		m.write(append(gpus(2), "xid 1 79", "crash nvmlDeviceGetPowerUsage")...)
		c := mustCollect(t, a)
		sameFaults(t, c.Faults, began, Fault{UUID: c.GPUs[1].UUID, XID: 79})
		if c.Source != "nvidia-smi" || runs(m) != 1 || !strings.Contains(c.Instead, "SIGSEGV") {
			t.Errorf("%s because of %q; %q", c.Source, c.Instead, m.runs())
		}
		m.write(gpus(2)...)
		if got := sources(t, a, 4, "SIGSEGV"); "nvidia-smi "+got != once+andBack || runs(m) != 3 {
			t.Errorf("%s; %q", got, m.runs())
		}
		m.write(append(gpus(2), "crash nvmlDeviceGetPowerUsage")...)
		mustCollect(t, a)
		m.write(gpus(2)...)
		if got := sources(t, a, 4, "SIGSEGV"); "nvidia-smi "+got != once+andBack { // the former failure is forgotten
			t.Error(got)
		}
	})
	t.Run("both missing", func(t *testing.T) {
		m := newMachine(t)
		m.write(gpus(2)...)
		dir := emptyFolder(t)
		library, smiDir := fakeNVML(t), fakeSMI(t)
		a := newFakeAuto(t, m, dir)
		for range 2 { // which nothing keeps from asking both
			_, err := mustFail(t, a, NoDriver)
			if !strings.Contains(err.Text, libraryName) || !strings.Contains(err.Text, "nvidia-smi is neither in PATH") || err.Cure == "" {
				t.Errorf("%+v", err)
			}
		}
		t.Setenv("PATH", smiDir)
		if got := sources(t, a, 1, libraryName); got != "nvidia-smi" {
			t.Error(got)
		}
		// It is gone again, so NVML is not left alone any more.
		t.Setenv("PATH", t.TempDir())
		mustFail(t, a, NoDriver)
		t.Setenv("PATH", smiDir)
		if err := os.Symlink(filepath.Join(library, libraryName), filepath.Join(dir, libraryName)); err != nil {
			t.Fatal(err)
		}
		if got := sources(t, a, 1, ""); got != "nvml" {
			t.Error(got)
		}
	})
	t.Run("nvidia-smi goes", func(t *testing.T) {
		m := newMachine(t)
		m.write(append(gpus(2), "crash nvmlInit_v2")...)
		a := newFakeAuto(t, m, fakeNVML(t), fakeSMI(t))
		mustCollect(t, a)
		t.Setenv("PATH", t.TempDir())
		m.write(gpus(2)...)
		if got := sources(t, a, 1, ""); got != "nvml" { // although it was to be left alone
			t.Error(got)
		}
	})
	t.Run("one of two errors", func(t *testing.T) {
		m := newMachine(t)
		m.write(append(gpus(2), "crash nvmlInit_v2")...)
		a := newFakeAuto(t, m, fakeNVML(t))
		mustFail(t, a, Crash) // which is more than that there is no nvidia-smi
		a = newFakeAuto(t, m, emptyFolder(t), fakeSMI(t))
		m.remove()
		mustFail(t, a, Driver) // which nvidia-smi has from the driver
	})
}
