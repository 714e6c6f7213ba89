package gpu

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

var update = flag.Bool("update", false, "write the golden files anew")

// rig is an exporter that runs, before a fake machine.
type rig struct {
	*Exporter
	t   testing.TB
	m   *machine
	log *buffer
}

type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newRig makes an exporter whose source finds the fakes.
func newRig(t testing.TB, source string) *rig {
	m := newMachine(t)
	r := &rig{t: t, m: m, log: &buffer{}}
	var err error
	r.Exporter, err = New(Config{Source: source, Interval: MinInterval, Version: "test", Log: slog.New(slog.NewTextHandler(r.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	r.sysfs = t.TempDir() // whatever is in this machine
	pointAtFakes(t, r.source, m)
	return r
}

func pointAtFakes(t testing.TB, s Source, m *machine) {
	switch s := s.(type) {
	case *nvmlSource:
		s.env = append(m.env(), "LD_LIBRARY_PATH="+fakeNVML(t))
	case *smi:
		s.path, s.env = filepath.Join(fakeSMI(t), "nvidia-smi"), m.env()
	case *auto:
		pointAtFakes(t, s.nvml, m)
		pointAtFakes(t, s.smi, m)
	}
}

// run runs it until the test ends.
func (r *rig) run() *rig {
	ctx, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	r.t.Cleanup(func() {
		end()
		running.Wait()
	})
	return r
}

func (r *rig) scrape() string {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		r.t.Fatalf("/metrics: %d, %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// until scrapes until a line is there.
func (r *rig) until(line string) string {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		text := r.scrape()
		if strings.Contains(text, "\n"+line+"\n") {
			return text
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("waited 20 s for %s; log:\n%s\nmetrics:\n%s", line, r.log, own(text))
		}
		<-time.After(5 * time.Millisecond)
	}
}

// parse reads what was scraped as Prometheus does.
func parse(t testing.TB, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return families
}

// of is a GPU's series in a scrape, by name and further label.
func of(t testing.TB, text, uuid string) map[string]float64 {
	t.Helper()
	series := map[string]float64{}
	for name, family := range parse(t, text) {
		for _, m := range family.Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["uuid"] != uuid {
				continue
			}
			key := name
			if more := labels["reason"] + labels["xid"]; more != "" {
				key += " " + more
			}
			series[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return series
}

// gauges of no GPU in particular; NaN is never exported, so absent is -1.
func single(t testing.TB, text, name string) float64 {
	t.Helper()
	f := parse(t, text)[name]
	if f == nil {
		return -1
	}
	return f.Metric[0].GetGauge().GetValue() + f.Metric[0].GetCounter().GetValue()
}

// own drops what is of the Go runtime and the process.
func own(text string) string {
	return regexp.MustCompile(`(?m)^(# (HELP|TYPE) )?(go|process)_.*\n`).ReplaceAllString(text, "")
}

const (
	firstGPU = "GPU-00000000-0000-0000-0000-000000000001"
	lostGPU  = "GPU-00000000-0000-0000-0000-000000000004"
)

// A child that waits for the driver and cannot be killed: readings go when they
// are three intervals old, it is told, no second child is started, and all is
// well again when the first one has gone.
func TestStuckChild(t *testing.T) {
	for _, source := range []string{"nvml", "nvidia-smi"} {
		t.Run(source, func(t *testing.T) {
			r := newRig(t, source)
			var hang string
			switch s := r.source.(type) {
			case *nvmlSource:
				s.answer, hang = 300*time.Millisecond, "hang nvmlDeviceGetPowerUsage"
			case *smi:
				s.timeout, hang = time.Second, "smi hang" // long enough to be held
			}
			r.m.write(gpus(2)...)
			r.run()
			r.until("gpu_exporter_up 1")
			pids := r.watch()
			r.m.write(append(gpus(2), hang)...)
			release := holdChild(t, pids)

			r.until("gpu_exporter_stuck_children 1")
			r.until("gpu_exporter_up 0")
			for range 20 {
				began := time.Now()
				text := r.scrape()
				if took := time.Since(began); took > time.Second { // it would be minutes
					t.Errorf("a scrape took %v", took)
				}
				if len(of(t, text, firstGPU)) != 0 || single(t, text, "nvidia_gpu_devices") != -1 {
					t.Errorf("old readings:\n%s", own(text))
				}
			}
			if n := len(childrenOf(t)); n != 1 {
				t.Errorf("%d children; want the stuck one alone", n)
			}
			r.m.write(gpus(2)...)
			release()
			r.until("gpu_exporter_up 1")
			text := r.until("gpu_exporter_stuck_children 0")
			if len(of(t, text, firstGPU)) == 0 {
				t.Error("no readings")
			}
		})
	}
}

// watch gives the pid of the child that lives now, or the next one.
func (r *rig) watch() func() int {
	return func() int {
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
			if pids := childrenOf(r.t); len(pids) > 0 {
				return pids[0]
			}
		}
		r.t.Fatal("no child in 20 s")
		return 0
	}
}

// childrenOf are the pids of this process's children, but for the holder's.
func childrenOf(t testing.TB) []int {
	t.Helper()
	var pids []int
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, path := range tasks {
		content, _ := os.ReadFile(path)
		for pid := range strings.FieldsSeq(string(content)) {
			var n int
			fmt.Sscan(pid, &n)
			args, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if err == nil && !bytes.Contains(args, []byte("holder")) && n > 0 {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// holdChild makes a child unkillable until it is released.
func holdChild(t *testing.T, pid func() int) (release func()) {
	for range 100 {
		cmd := exec.Command(holder(t), fmt.Sprint(pid()))
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out := &buffer{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			cmd.Wait()
			close(ended)
		}()
		release = sync.OnceFunc(func() {
			in.Close()
			<-ended
		})
		t.Cleanup(release)
		for {
			select {
			case <-ended:
				if cmd.ProcessState.ExitCode() == 3 {
					t.Skip(out)
				}
			default:
				if !strings.Contains(out.String(), "held") {
					runtime.Gosched()
					continue
				}
				return release
			}
			break // the child was gone before it could be held: the next one
		}
	}
	t.Fatal("no child could be held")
	return nil
}

// At no moment is anything served that is older than three intervals, whatever
// goes wrong: what is scraped says itself when it was read.
func TestNeverOld(t *testing.T) {
	t.Parallel()
	r := newRig(t, "nvml")
	r.source.(*nvmlSource).answer = 700 * time.Millisecond
	r.m.write(gpus(2)...)
	r.run()
	r.until("gpu_exporter_up 1")
	r.m.write(append(gpus(2), "hang nvmlDeviceGetTemperature")...)
	for served := true; served; {
		began := time.Now()
		text := r.scrape()
		last := single(t, text, "gpu_exporter_last_success_timestamp_seconds")
		served = len(of(t, text, firstGPU)) > 0
		if up := single(t, text, "gpu_exporter_up") == 1; up != served {
			t.Fatalf("up %v, readings served %v", up, served)
		}
		age := float64(began.UnixMilli())/1e3 - last
		if served && age > (keptIntervals*MinInterval).Seconds() {
			t.Fatalf("readings of %.3f s ago are served", age)
		}
	}
}

// The border is exact, and moves with collections that take longer than an
// interval.
func TestAge(t *testing.T) {
	for _, took := range []time.Duration{0, time.Second, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			e := quietExporter(t)
			r := &rig{Exporter: e, t: t}
			began := time.Now()
			<-time.After(took + time.Second) // the driver had to start, which counts for nothing
			e.take(&Collection{GPUs: []GPU{{UUID: "a"}}, Began: began, Took: took}, nil)
			kept := 3 * max(DefaultInterval, took)
			<-time.After(time.Until(began.Add(kept)))
			if text := r.scrape(); len(of(t, text, "a")) == 0 || single(t, text, "gpu_exporter_up") != 1 {
				t.Errorf("took %v: gone after %v", took, time.Since(began))
			}
			<-time.After(1)
			if text := r.scrape(); len(of(t, text, "a")) != 0 || single(t, text, "gpu_exporter_up") != 0 || single(t, text, "nvidia_gpu_devices") != -1 {
				t.Errorf("took %v: there after %v", took, time.Since(began))
			}
		})
	}
}

func quietExporter(t *testing.T) *Exporter {
	t.Helper()
	e, err := New(Config{Interval: DefaultInterval, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// While a machine sleeps, the clock that counts time stands still.
func TestAgeAfterSleep(t *testing.T) {
	e := quietExporter(t)
	e.take(&Collection{Began: time.Now()}, nil)
	if e.fresh() == nil {
		t.Error("too old at once")
	}
	e.last.wall = e.last.wall.Add(-time.Hour)
	if e.fresh() != nil {
		t.Error("an hour by the wall clock, and still shown")
	}
}

// One lost GPU of eight: the others are served, it is told, and it comes back.
func TestOneLostOfEight(t *testing.T) {
	for _, source := range []string{"nvml", "nvidia-smi"} {
		for _, mode := range []string{"", "smi stop-at-lost"} {
			if source == "nvml" && mode != "" {
				continue
			}
			t.Run(source+mode, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, source)
				r.m.write(gpus(8)...)
				r.run()
				whole := of(t, r.until("nvidia_gpu_devices 8"), firstGPU)
				r.m.write(append(gpus(8), "lost 3", mode)...)
				id := `{gpu="3",name="NVIDIA H200",uuid="` + lostGPU + `"}`
				text := r.until("nvidia_gpu_up" + id + " 0")
				if got := of(t, text, lostGPU); len(got) != 1 {
					t.Errorf("of the lost one there is %v", got)
				}
				for i := range 8 {
					got := of(t, text, fmt.Sprintf("GPU-00000000-0000-0000-0000-%012X", i+1))
					if i != 3 && (len(got) != len(whole) || got["nvidia_gpu_up"] != 1) {
						t.Errorf("GPU %d: %d series; want %d", i, len(got), len(whole))
					}
				}
				if single(t, text, "gpu_exporter_up") != 1 || single(t, text, "nvidia_gpu_devices") != 8 {
					t.Errorf("with 7 of 8:\n%s", own(text))
				}
				r.m.write(gpus(8)...)
				text = r.until("nvidia_gpu_up" + id + " 1")
				if got := of(t, text, lostGPU); len(got) != len(whole) {
					t.Errorf("back: %d series; want %d", len(got), len(whole))
				}
				if n := strings.Count(r.log.String(), "a GPU cannot be read"); n != 1 {
					t.Errorf("told %d times:\n%s", n, r.log)
				}
			})
		}
	}
}

// What cannot be is not shown, and counted.
func TestAbsurd(t *testing.T) {
	for _, source := range []string{"nvml", "nvidia-smi"} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, source)
			r.m.write(gpus(1)...)
			r.run()
			r.until("gpu_exporter_up 1")
			for _, tt := range []struct {
				line  string
				gone  []string
				count string
			}{
				{"util=4294967295", []string{"nvidia_gpu_duty_cycle", "nvidia_gpu_utilization_ratio"}, "utilization"},
				{"util=101", []string{"nvidia_gpu_duty_cycle"}, "utilization"},
				{"util=-1", []string{"nvidia_gpu_duty_cycle"}, "utilization"},
				{"memutil=250", []string{"nvidia_gpu_memory_utilization_ratio"}, "memory_utilization"},
				{"temp=0", []string{"nvidia_gpu_temperature", "nvidia_gpu_temperature_celsius"}, "temperature"},
				{"temp=255", []string{"nvidia_gpu_temperature"}, "temperature"},
				{fmt.Sprint("used=", 200<<40), []string{"nvidia_gpu_memory_used_bytes", "nvidia_gpu_memory_total_bytes"}, "memory_used"},
				{"used=9223372036854775808", []string{"nvidia_gpu_memory_used_bytes"}, "memory_used"},
				{"total=9223372036854775794", []string{"nvidia_gpu_memory_total_bytes"}, "memory_total"},
				{"total=0", []string{"nvidia_gpu_memory_total_bytes"}, "memory_total"},
				{"power=4294967295", []string{"nvidia_gpu_power_usage_milliwatts", "nvidia_gpu_power_usage_watts"}, "power"},
				{"limit=0", []string{"nvidia_gpu_power_limit_watts"}, "power_limit"},
				{"sm=4294967295", []string{"nvidia_gpu_sm_clock_hertz"}, "sm_clock"},
				{"mem=4294967295", []string{"nvidia_gpu_memory_clock_hertz"}, "memory_clock"},
				{"corrected=18446744073709551615", []string{"nvidia_gpu_ecc_corrected_errors_total"}, "ecc_corrected"},
				{"uncorrected=9223372036854775808", []string{"nvidia_gpu_ecc_uncorrected_errors_total"}, "ecc_uncorrected"},
			} {
				before := r.counter(droppedValues, tt.count)
				r.m.write(gpuLine(0, tt.line))
				text := r.untilDropped(tt.count, before)
				got := of(t, text, firstGPU)
				for _, name := range tt.gone {
					if v, ok := got[name]; ok {
						t.Errorf("%s: %s: %s is %v", source, tt.line, name, v)
					}
				}
				if len(got) < 20 {
					t.Errorf("%s: %s: only %d series are left", source, tt.line, len(got))
				}
				r.m.write(gpus(1)...)
			}
		})
	}
}

const droppedValues = "gpu_exporter_dropped_values_total"

func (r *rig) counter(name, label string) float64 {
	r.t.Helper()
	for _, m := range parse(r.t, r.scrape())[name].Metric {
		if m.Label[0].GetValue() == label {
			return m.GetCounter().GetValue()
		}
	}
	r.t.Fatalf("no %s of %s", name, label)
	return 0
}

// untilDropped is a scrape in which one more value was dropped, and the others
// are there.
func (r *rig) untilDropped(quantity string, before float64) string {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		dropped := r.counter(droppedValues, quantity) > before
		if text := r.scrape(); dropped && single(r.t, text, "gpu_exporter_up") == 1 {
			return text
		}
	}
	r.t.Fatalf("%s was not counted:\n%s", quantity, own(r.scrape()))
	return ""
}

// Both sources serve the same of the same machine, but for what nvidia-smi does
// not tell.
func TestParity(t *testing.T) {
	names := func(t *testing.T, text string) string {
		text = own(text)
		for _, line := range []string{`.*gpu_exporter_.*`, `.*energy_joules_total.*`} {
			text = regexp.MustCompile("(?m)^"+line+"\n").ReplaceAllString(text, "")
		}
		return text
	}
	for name, lines := range map[string][]string{
		"none":      {"driver 570.86.15"},
		"one":       {gpuLine(0)},
		"pair":      {gpuLine(0, "name=NVIDIA GeForce RTX 3090"), gpuLine(1, "name=NVIDIA GeForce RTX 3090", "power=99990", "reasons=511")},
		"sixteen":   gpus(16),
		"sixtyfour": gpus(64),
		"no ECC":    {gpuLine(0, "-corrected", "-uncorrected", "-mig", "-recovery")},
		"MIG":       {gpuLine(0, "mig=1"), gpuLine(1)},
		"unified":   {gpuLine(0, "-total", "-used", "-reserved", "name=NVIDIA GB10")},
		"bare":      {gpuLine(0, "-util", "-memutil", "-total", "-used", "-reserved", "-power", "-limit", "-energy", "-sm", "-mem", "-reasons", "-corrected", "-uncorrected", "-mig", "-recovery")},
		"lost":      append(gpus(8), "lost 3"),
		"same uuid": {gpuLine(0), gpuLine(1, "uuid="+firstGPU)},
		"no uuid":   {gpuLine(0, "uuid="), gpuLine(1, "uuid=")},
		"odd name":  {gpuLine(0, `name=NVIDIA "X", 2`+"\xff\x01")},
		"recovery":  {gpuLine(0, "recovery=4"), gpuLine(1, "recovery=2")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			texts := map[string]string{}
			for _, source := range []string{"nvml", "nvidia-smi"} {
				r := newRig(t, source)
				if name == "lost" {
					r.m.write(gpus(8)...) // so that they know it
					r.collectOnce()
				}
				r.m.write(lines...)
				r.collectOnce()
				texts[source] = names(t, r.scrape())
				r.source.Close()
			}
			if texts["nvml"] != texts["nvidia-smi"] {
				for _, source := range []string{"nvml", "nvidia-smi"} {
					for line := range strings.Lines(texts[source]) {
						if !strings.Contains(texts["nvml"], line) || !strings.Contains(texts["nvidia-smi"], line) {
							t.Errorf("by %s alone: %s", source, line)
						}
					}
				}
			}
		})
	}
}

// collectOnce is one round of Run, whose readings stay.
func (r *rig) collectOnce() {
	r.interval = time.Hour
	c, err := r.source.Collect(context.Background())
	r.look()
	r.take(c, err)
}

// What is served, to the byte. go test ./internal/gpu -run Golden -update writes
// it anew; then read the diff.
func TestGolden(t *testing.T) {
	for name, tt := range map[string]struct {
		source string
		lines  []string
	}{
		"pair":      {"nvml", []string{"driver 550.163.01", gpuLine(0, "name=NVIDIA GeForce RTX 3090", "-corrected", "-uncorrected", "-mig", "-recovery"), gpuLine(1, "name=NVIDIA GeForce RTX 3090", "-corrected", "-uncorrected", "-mig", "-recovery", "reasons=36")}},
		"smi":       {"nvidia-smi", gpus(1)},
		"mig":       {"nvml", []string{gpuLine(0, "mig=1")}},
		"lost":      {"nvml", append(gpus(2), "fail nvmlDeviceGetUtilizationRates 15 1")},
		"unified":   {"nvidia-smi", []string{gpuLine(0, "-total", "-used", "-reserved", "name=NVIDIA GB10")}},
		"no-gpu":    {"nvml", []string{"driver 570.86.15"}},
		"no-driver": {"nvml", nil},
		"xid":       {"nvml", append(gpus(2), "xid 1 79", "xid 1 79", "xid 0 13")},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tt.source)
			if name == "xid" {
				r.m.write(gpus(2)...)
				r.collectOnce()
			}
			if tt.lines != nil {
				r.m.write(tt.lines...)
			}
			r.collectOnce()
			r.source.Close()
			got := own(r.scrape())
			got = regexp.MustCompile(`(?m)^(\w+_(timestamp|duration)_seconds(\{.*\})?) .*$`).ReplaceAllString(got, "$1 …")
			got = regexp.MustCompile(`goversion="[^"]*"`).ReplaceAllString(got, `goversion="…"`)
			path := filepath.Join("testdata", "golden", name+".txt")
			if *update {
				os.MkdirAll(filepath.Dir(path), 0o755)
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil || got != string(want) {
				t.Errorf("%v; -update and git diff show it; got\n%s", err, got)
			}
		})
	}
}

// Names, types, help, label sets: as the guide has them, as Prometheus likes
// them, and as docs/metrics.md tells them.
func TestContract(t *testing.T) {
	r := newRig(t, "nvml")
	r.m.write(gpus(2)...)
	r.collectOnce()
	r.m.write(append(gpus(2), "xid 1 79")...)
	r.collectOnce()
	r.m.remove()
	os.MkdirAll(r.sysfs+"/bus/pci/devices/0000:01:00.0", 0o755)
	os.WriteFile(r.sysfs+"/bus/pci/devices/0000:01:00.0/vendor", []byte("0x10de\n"), 0o644)
	os.WriteFile(r.sysfs+"/bus/pci/devices/0000:01:00.0/class", []byte("0x030200\n"), 0o644)
	r.look()
	text := r.scrape()
	r.source.Close()

	families := parse(t, text)
	for name, want := range map[string]float64{
		"nvidia_gpu_duty_cycle": 87, "nvidia_gpu_memory_used_bytes": 20480 << 20, "nvidia_gpu_memory_total_bytes": 143771 << 20,
		"nvidia_gpu_temperature": of(t, text, firstGPU)["nvidia_gpu_temperature_celsius"], "nvidia_gpu_power_usage_milliwatts": 1000 * of(t, text, firstGPU)["nvidia_gpu_power_usage_watts"],
	} {
		if got := of(t, text, firstGPU)[name]; got != want {
			t.Errorf("%s %v; want %v", name, got, want)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}

	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented, served []string
	for _, row := range regexp.MustCompile("(?m)^\\| `((?:nvidia_gpu|gpu_exporter)_\\w+)` \\| (\\w+) \\| ([^|]+) \\| .{10,} \\|$").FindAllStringSubmatch(string(doc), -1) {
		documented = append(documented, row[1]+" "+row[2]+" "+strings.TrimSpace(row[3]))
	}
	for name, family := range families {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		var names []string
		for _, l := range family.Metric[0].Label {
			names = append(names, l.GetName())
		}
		if strings.HasPrefix(name, "nvidia_") && len(names) > 0 { // identity first, as people read it
			names = append([]string{"gpu", "uuid", "name"}, slices.DeleteFunc(names, func(n string) bool { return slices.Contains([]string{"gpu", "uuid", "name"}, n) })...)
		}
		labels := strings.Join(names, ", ")
		if labels == "" {
			labels = "–"
		}
		served = append(served, name+" "+strings.ToLower(family.GetType().String())+" "+labels)
	}
	slices.Sort(documented)
	slices.Sort(served)
	if !slices.Equal(documented, served) {
		t.Errorf("docs/metrics.md:\n%s\nserved:\n%s", strings.Join(documented, "\n"), strings.Join(served, "\n"))
	}
}

// A GPU without a uuid, or with that of another, is known by its place.
func TestIdentity(t *testing.T) {
	e := quietExporter(t)
	e.take(&Collection{Began: time.Now(), GPUs: []GPU{
		{Index: 0, UUID: "a", BusID: "1"}, {Index: 1, UUID: "a", BusID: "2"}, {Index: 2, BusID: "3"}, {Index: 3}, {Index: -1, Failure: "lost", BusID: "4"},
	}}, nil)
	text := (&rig{Exporter: e, t: t}).scrape()
	for _, want := range []string{`gpu="0",name="",uuid="a"} 1`, `gpu="1",name="",uuid="2"} 1`, `gpu="2",name="",uuid="3"} 1`, `gpu="3",name="",uuid=""} 1`, `gpu="",name="",uuid="4"} 0`} {
		if !strings.Contains(text, "nvidia_gpu_up{"+want+"\n") {
			t.Errorf("no %s in\n%s", want, own(text))
		}
	}
}

// After failures the interval is the asked one again.
func TestPauseAfterRecovery(t *testing.T) {
	e := quietExporter(t)
	for range 5 {
		e.take(nil, fail(Driver, "", "not loaded"))
	}
	long := e.pause()
	e.take(&Collection{Began: time.Now()}, nil)
	if long != longestPause || e.pause() != DefaultInterval {
		t.Errorf("%v, then %v", long, e.pause())
	}
}

// XID errors keep the labels of a GPU that is gone, and are seen of one that is
// lost.
func TestXIDsOfAGPUThatIsGone(t *testing.T) {
	e := quietExporter(t)
	r := &rig{Exporter: e, t: t}
	at := time.UnixMilli(1700000000123)
	g := GPU{Index: 3, UUID: "a", Name: "n"}
	e.take(&Collection{Began: time.Now(), GPUs: []GPU{g}}, nil)
	for _, gpus := range [][]GPU{{g}, {{Index: 3, UUID: "a", Name: "n", Failure: "lost"}}, {}} {
		e.take(&Collection{Began: time.Now(), GPUs: gpus, Faults: []Fault{{"a", 79, at}}}, nil)
	}
	e.take(&Collection{Faults: []Fault{{"a", 79, at}}}, fail(Timeout, "", "no answer"))
	text := r.scrape()
	for _, want := range []string{
		`nvidia_gpu_xid_errors_total{gpu="3",name="n",uuid="a",xid="79"} 4`,
		`nvidia_gpu_xid_last_timestamp_seconds{gpu="3",name="n",uuid="a",xid="79"} 1.700000000123e+09`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no %s in\n%s", want, own(text))
		}
	}
}

// No series twice, in no order of labels, whatever GPUs call themselves.
func TestNoSeriesTwice(t *testing.T) {
	for name, gpus := range map[string][]GPU{
		"same uuid":            {{Index: 0, UUID: "a", BusID: "1"}, {Index: 1, UUID: "a", BusID: "2"}},
		"same uuid, no bus":    {{Index: 0, UUID: "a"}, {Index: 1, UUID: "a"}},
		"all the same":         {{UUID: "a", BusID: "1"}, {UUID: "a", BusID: "1"}, {UUID: "a", BusID: "1"}},
		"nothing told":         {{Index: -1}, {Index: -1}, {Index: 0}, {Index: 1}},
		"bus id as uuid":       {{Index: 0, UUID: "1", BusID: "1"}, {Index: 1, BusID: "1"}, {Index: 1, BusID: "1"}},
		"lost and not told":    {{Index: 0, UUID: "a"}, {Index: 1, Failure: "lost"}, {Index: 2, Failure: "lost"}},
		"the same index twice": {{Index: 0, UUID: "a"}, {Index: 0, UUID: "b"}},
	} {
		e := quietExporter(t)
		e.take(&Collection{GPUs: slices.Clone(gpus), Began: time.Now()}, nil)
		list, err := e.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			seen := map[string]bool{}
			for _, m := range f.Metric {
				key := fmt.Sprint(m.Label)
				if seen[key] {
					t.Errorf("%s: %s%v twice", name, f.GetName(), m.Label)
				}
				seen[key] = true
			}
		}
	}
}

// Indices move, cards go: nothing is left of what was.
func TestNoGhosts(t *testing.T) {
	for _, source := range []string{"nvml", "nvidia-smi"} {
		r := newRig(t, source)
		r.m.write(gpus(3)...)
		r.collectOnce()
		if n := len(parse(t, r.scrape())["nvidia_gpu_up"].Metric); n != 3 {
			t.Errorf("%s: %d GPUs", source, n)
		}
		moved := gpuLine(1)
		r.m.write(strings.Replace(moved, "index=1", "index=0", 1))
		r.collectOnce()
		text := r.scrape()
		want := `nvidia_gpu_up{gpu="0",name="NVIDIA H200",uuid="GPU-00000000-0000-0000-0000-000000000002"} 1`
		if n := len(parse(t, text)["nvidia_gpu_up"].Metric); n != 1 || !strings.Contains(text, want) || single(t, text, "nvidia_gpu_devices") != 1 {
			t.Errorf("%s: after two have gone:\n%s", source, own(text))
		}
		r.source.Close()
	}
}

// A driver that comes late is found, one that goes is told, and neither fills
// the log.
func TestDriverComesAndGoes(t *testing.T) {
	t.Parallel()
	r := newRig(t, "auto").run()
	for r.counter("gpu_exporter_collection_failures_total", "driver") < 3 {
		<-time.After(time.Millisecond)
	}
	r.m.write(gpus(2)...)
	r.until("gpu_exporter_up 1")
	r.m.remove()
	r.until("gpu_exporter_up 0")
	r.m.write(gpus(2)...)
	r.until("gpu_exporter_up 1")
	if n := len(r.m.runs()); n > 0 {
		t.Errorf("nvidia-smi was asked %d times about a driver that NVML had asked", n)
	}
	if n := strings.Count(r.log.String(), "\n"); n > 3 {
		t.Errorf("%d lines:\n%s", n, r.log)
	}
}

// Nothing there at all, for an hour: one line, and fewer and fewer attempts.
func TestNothingForAnHour(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for interval, want := range map[time.Duration]int{
		2 * time.Second:  1 + 1 + 1 + 1 + (3600-14)/16, // after 2, 4, 8 and then each 16 s
		10 * time.Second: 1 + 1 + (3600-10)/16,         // after 10, then each 16 s
		time.Minute:      60,
	} {
		synctest.Test(t, func(t *testing.T) {
			log := &buffer{}
			e, err := New(Config{Source: "nvidia-smi", Interval: interval, Log: slog.New(slog.NewTextHandler(log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			e.sysfs = t.TempDir()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour-1)
			defer cancel()
			e.Run(ctx)
			if n := e.failures[NoDriver]; n != want {
				t.Errorf("each %v: %d attempts; want %d", interval, n, want)
			}
			if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "nvidia-smi") {
				t.Errorf("%d lines:\n%s", n, log)
			}
		})
	}
}

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

// However many ask, one process is run for each interval.
func TestScrapesDoNotFork(t *testing.T) {
	t.Parallel()
	r := newRig(t, "nvidia-smi")
	r.m.write(append(gpus(2), "smi delay 200ms")...)
	r.run()
	r.until("gpu_exporter_up 1")
	before, began := len(r.m.runs()), time.Now()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 50 {
				w := httptest.NewRecorder()
				r.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
			}
		})
	}
	all.Wait()
	if n, most := len(r.m.runs())-before, int(time.Since(began)/(200*time.Millisecond))+1; n > most {
		t.Errorf("%d runs of 200 ms in %v, of 1000 scrapes", n, time.Since(began))
	}
}

// 10,000 scrapes leave neither a goroutine nor an open file.
func TestScrapesLeaveNothing(t *testing.T) {
	r := newRig(t, "nvml")
	r.m.write(gpus(1)...)
	r.collectOnce()
	r.scrape()
	count := func() (goroutines, files int) {
		list, _ := os.ReadDir("/proc/self/fd")
		return runtime.NumGoroutine(), len(list)
	}
	goroutines, files := count()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 2500 {
				r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
			}
		})
	}
	all.Wait()
	if g, f := count(); g > goroutines || f > files {
		t.Errorf("%d goroutines and %d files; before %d and %d", g, f, goroutines, files)
	}
	r.source.Close()
}

// A client that does not read what it asked for is cut off.
func TestClientDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := quietExporter(t)
		var gpus []GPU
		for i := range 20000 { // more than any window
			gpus = append(gpus, GPU{Index: i, UUID: fmt.Sprint(i)})
		}
		e.take(&Collection{Began: time.Now(), GPUs: gpus}, nil)
		var network memnet.Net
		l, err := network.Listen("exporter:9835")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: e}
		go server.Serve(l)
		defer server.Close()
		conn, err := network.Dial(t.Context(), "tcp", "exporter:9835")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "GET /metrics HTTP/1.1\r\nHost: exporter\r\n\r\n")
		<-time.After(writeTimeout + time.Second)
		if read, err := io.Copy(io.Discard, conn); read == 0 || read > 1<<20 {
			t.Errorf("after %v there were %d bytes more, %v", writeTimeout, read, err)
		}
	})
}

func TestPaths(t *testing.T) {
	r := newRig(t, "nvml")
	for path, want := range map[string]int{"/metrics": 200, "/health": 200, "/": 200, "/x": 404, "/metrics/": 404} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest("POST", "/metrics", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
	// An OpenMetrics scraper gets the same names and types.
	req := httptest.NewRequest("GET", "/metrics", nil)
	req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
	w = httptest.NewRecorder()
	r.ServeHTTP(w, req)
	if !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Error(w.Header())
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{{Source: "dcgm", Interval: time.Second}, {}, {Interval: time.Millisecond}, {Interval: -1}, {Interval: time.Hour}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
