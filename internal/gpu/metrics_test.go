package gpu

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

var update = flag.Bool("update", false, "write the golden files anew")

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
