package gpu

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
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
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

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
			release := r.holdUntilStuck(pids)
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

// holdUntilStuck makes a child unkillable, and waits until it is stuck. Now and
// then the kernel lets a dying process slip past its tracer, when two signals
// meet; then it is truly gone, and the next one is held.
func (r *rig) holdUntilStuck(pids func() int) (release func()) {
	r.t.Helper()
	for range 10 {
		pid, release := holdChild(r.t, pids)
		for gone := false; !gone; <-time.After(5 * time.Millisecond) {
			gone = syscall.Kill(pid, 0) != nil // looked at before the exporter is asked
			if single(r.t, r.scrape(), "gpu_exporter_stuck_children") == 1 {
				return release
			}
		}
		release()
	}
	r.t.Fatal("ten children were held, and none is stuck")
	return nil
}

// holdChild makes a child unkillable until it is released.
func holdChild(t testing.TB, next func() int) (pid int, release func()) {
	for range 100 {
		pid = next()
		cmd := exec.Command(holder(t), fmt.Sprint(pid))
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
				return pid, release
			}
			break // the child was gone before it could be held: the next one
		}
	}
	t.Fatal("no child could be held")
	return 0, nil
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
		age := began.UnixMilli() - int64(math.Round(last*1e3)) // both are cut to milliseconds
		if served && age > (keptIntervals*MinInterval).Milliseconds() {
			t.Fatalf("readings of %d ms ago are served", age)
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

// collectOnce is one round of Run, whose readings stay.
func (r *rig) collectOnce() {
	r.interval = time.Hour
	c, err := r.source.Collect(context.Background())
	r.look()
	r.take(c, err)
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
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 2500 {
				r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
			}
		})
	}
	all.Wait()
	if got := openFiles(t); !slices.Equal(got, files) {
		t.Errorf("open files %v; before %v", got, files)
	}
	// The last of the four has told that it ends, and may be about to.
	until(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
	r.source.Close()
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{{Source: "dcgm", Interval: time.Second}, {}, {Interval: time.Millisecond}, {Interval: -1}, {Interval: time.Hour}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
