package gpu

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The log has what changes, once, and does not fill when states alternate.
func TestJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &buffer{}
		j := journal{log: slog.New(slog.NewTextHandler(log, nil))}
		lines := func() []string {
			defer log.buf.Reset()
			var messages []string
			for _, m := range regexp.MustCompile(`msg="([^"]*)`).FindAllStringSubmatch(log.String(), -1) {
				messages = append(messages, m[1])
			}
			return messages
		}
		c := func(gpus ...GPU) *Collection { return &Collection{Source: "nvml", GPUs: gpus} }
		a, b, broken := GPU{UUID: "a"}, GPU{UUID: "b"}, GPU{UUID: "b", Failure: "GPU is lost"}
		for i, tt := range []struct {
			c    *Collection
			err  error
			want []string
		}{
			{c(a, b), nil, []string{"GPUs are read"}},
			{c(a, b), nil, nil},
			{c(a, broken), nil, []string{"a GPU cannot be read"}},
			{c(a, broken), nil, nil},
			{c(a, b), nil, []string{"a GPU is read again"}},
			{c(a), nil, []string{"a GPU is gone"}},
			{c(a, b), nil, []string{"a GPU has come"}},
			{c(), fail(Crash, "", "one address"), []string{"GPUs cannot be read; it tries again and again"}},
			{c(), fail(Crash, "", "another address"), nil},
			{c(), fail(Driver, "", "not loaded"), []string{"GPUs cannot be read; it tries again and again"}},
			{c(), fail(Driver, "", "of another version"), []string{"GPUs cannot be read; it tries again and again"}},
			{c(a, b), nil, []string{"GPUs are read"}},
			{c(GPU{Index: 1, Failure: "x"}, GPU{Index: 2, Failure: "y"}), nil, []string{"a GPU cannot be read", "a GPU cannot be read", "a GPU is gone", "a GPU is gone"}},
			{c(GPU{Index: 1, Failure: "x"}, GPU{Index: 2, Failure: "y"}), nil, nil},
			{c(a, b), nil, []string{"a GPU has come", "a GPU has come", "a GPU is gone", "a GPU is gone"}},
			{&Collection{Faults: []Fault{{"a", 79, time.Now()}, {"a", 79, time.Now()}, {"a", 13, time.Now()}}}, fail(Timeout, "", "no answer"),
				[]string{"the driver reports an XID error", "the driver reports an XID error", "GPUs cannot be read; it tries again and again"}},
		} {
			<-time.After(quiet)
			j.tell(tt.c, tt.err, -1)
			if got := lines(); !slices.Equal(got, tt.want) {
				t.Errorf("%d: %q; want %q", i, got, tt.want)
			}
		}
		// What is not heard within the minute is said when the minute is over.
		<-time.After(quiet)
		j.tell(c(a, b), nil, -1)
		<-time.After(time.Second)
		j.tell(c(a, broken), fail(Timeout, "", "no answer"), -1)
		<-time.After(time.Second)
		lines()
		for range 60 {
			j.tell(c(a, b), nil, -1)
			<-time.After(time.Second)
		}
		if got := lines(); !slices.Equal(got, []string{"GPUs are read"}) {
			t.Errorf("%q", got)
		}
		<-time.After(quiet)
		for range 1800 { // an hour
			j.tell(c(a, broken), nil, -1)
			<-time.After(time.Second)
			j.tell(c(a, b), nil, -1)
			<-time.After(time.Second)
		}
		if n := len(lines()); n < 60 || n > 130 {
			t.Errorf("%d lines in an hour of a GPU that comes and goes", n)
		}
	})
}

// A GPU that tells nonsense all the time is told of once, until it is well.
func TestAbsurdIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, log := quietExporter(t), &buffer{}
		e.journal.log = slog.New(slog.NewTextHandler(log, nil))
		tell := func(hot, cold int64) {
			e.take(&Collection{Began: time.Now(), GPUs: []GPU{
				{UUID: "a", Values: map[Quantity]int64{Temperature: hot}}, {UUID: "b", Values: map[Quantity]int64{Temperature: cold}, Garbled: []Quantity{Power}},
			}}, nil)
			<-time.After(time.Minute)
		}
		lines := func() int { return strings.Count(log.String(), "a GPU tells what cannot be") }
		for range 60 {
			tell(255, 20)
		}
		if n := lines(); n != 2 || !strings.Contains(log.String(), "quantity=temperature value=255") || !strings.Contains(log.String(), "uuid=b quantity=power\n") {
			t.Errorf("%d lines of two absurdities:\n%s", n, log)
		}
		tell(20, 20)
		tell(255, 20)
		if n := lines(); n != 3 {
			t.Errorf("%d lines after it was well and fell ill again:\n%s", n, log)
		}
	})
}

// Where there is no NVIDIA GPU at all, that is no warning.
func TestNoGPUInMachine(t *testing.T) {
	for _, tt := range []struct {
		vendor, class string
		devices       float64
		level         string
	}{
		{"0x10de", "0x030000", 1, "WARN"}, {"0x10de", "0x030200", 1, "WARN"},
		{"0x10de", "0x040300", 0, "INFO"}, {"0x1002", "0x030000", 0, "INFO"}, {"", "", -1, "WARN"},
	} {
		t.Run(tt.vendor+tt.class, func(t *testing.T) {
			r := newRig(t, "nvidia-smi")
			r.source.(*smi).path = filepath.Join(t.TempDir(), "nvidia-smi") // there is none
			if tt.vendor != "" {
				dir := r.sysfs + "/bus/pci/devices/0000:01:00.0"
				os.MkdirAll(dir, 0o755)
				os.WriteFile(dir+"/vendor", []byte(tt.vendor+"\n"), 0o644)
				os.WriteFile(dir+"/class", []byte(tt.class+"\n"), 0o644)
			}
			r.collectOnce()
			if got := single(t, r.scrape(), "nvidia_gpu_pci_devices"); got != tt.devices || !strings.Contains(r.log.String(), "level="+tt.level) {
				t.Errorf("%+v: %v devices; log:\n%s", tt, got, r.log)
			}
		})
	}
}
