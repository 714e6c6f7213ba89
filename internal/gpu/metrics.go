package gpu

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// plausible is what a quantity can be at all. What is beyond was not measured:
// drivers have been seen to answer 4294967295 % and 2^63-1 bytes, and 0 °C where
// a sensor is asleep.
var plausible = map[Quantity]struct{ least, most int64 }{
	Utilization:       {0, 100},
	MemoryUtilization: {0, 100},
	MemoryUsed:        {0, 1 << 50},
	MemoryTotal:       {1, 1 << 50},
	MemoryReserved:    {0, 1 << 50},
	Temperature:       {1, 150},
	Power:             {0, 20e6},
	PowerLimit:        {1, 20e6},
	Energy:            {0, 1 << 53},
	SMClock:           {0, 20e9},
	MemoryClock:       {0, 50e9},
	ECCCorrected:      {0, 1 << 53},
	ECCUncorrected:    {0, 1 << 53},
	MIG:               {0, 1},
	RecoveryAction:    {0, 100},
}

// gpuMetrics are one for each series that shows a quantity, in the order of
// docs/metrics.md. The first five are the guide's, in its units.
var gpuMetrics = []struct {
	quantity Quantity
	name     string
	kind     dto.MetricType
	divisor  float64
	help     string
}{
	{Utilization, "duty_cycle", gauge, 1, "Percent of the last sample period (1/6 to 1 s) in which any kernel ran, 0 to 100."},
	{MemoryUsed, "memory_used_bytes", gauge, 1, "Memory in use, without what driver and firmware reserve."},
	{MemoryTotal, "memory_total_bytes", gauge, 1, "Memory of the GPU."},
	{Temperature, "temperature", gauge, 1, "Temperature of the chip in degrees Celsius."},
	{Power, "power_usage_milliwatts", gauge, 1, "Power draw in milliwatts."},

	{Utilization, "utilization_ratio", gauge, 100, "Same reading as duty_cycle, 0 to 1."},
	{Temperature, "temperature_celsius", gauge, 1, "Same reading as temperature."},
	{Power, "power_usage_watts", gauge, 1e3, "Same reading as power_usage_milliwatts."},

	{MemoryUtilization, "memory_utilization_ratio", gauge, 100, "Share of the last sample period in which memory was read or written, 0 to 1."},
	{MemoryReserved, "memory_reserved_bytes", gauge, 1, "Memory that driver and firmware reserve."},
	{PowerLimit, "power_limit_watts", gauge, 1e3, "Power limit, as enforced."},
	{Energy, "energy_joules_total", counter, 1e3, "Energy used since the driver was loaded."},
	{SMClock, "sm_clock_hertz", gauge, 1, "Clock of the streaming multiprocessors."},
	{MemoryClock, "memory_clock_hertz", gauge, 1, "Clock of the memory."},
	{ECCCorrected, "ecc_corrected_errors_total", counter, 1, "Memory errors that ECC has corrected in the card's life."},
	{ECCUncorrected, "ecc_uncorrected_errors_total", counter, 1, "Memory errors that ECC could not correct in the card's life."},
	{MIG, "mig_enabled", gauge, 1, "1 if the GPU is partitioned (MIG): there is no duty cycle then. Else 0."},
	{RecoveryAction, "recovery_action", gauge, 1, "What the driver wants done: 0 nothing, 1 reset the GPU, 2 reboot, 3 drain P2P, 4 drain and reset, 5 recover the IMEX domain, 6 reset the bus, 7 reboot the system."},
}

// families are metrics as Prometheus reads them. They are made by hand, and the
// part that is of GPUs once a collection: client_golang's way, with checks for
// each of 600 series at each scrape, takes 10,000 allocations, this one 500.
type families struct {
	list []*dto.MetricFamily
	at   map[string]*dto.MetricFamily
}

// add adds a series, with labels in the order of their names.
func (f *families) add(name, help string, kind dto.MetricType, v float64, labels []*dto.LabelPair) {
	family := f.at[name]
	if family == nil {
		family = &dto.MetricFamily{Name: &name, Help: &help, Type: &kind}
		if f.at == nil {
			f.at = map[string]*dto.MetricFamily{}
		}
		f.at[name] = family
		f.list = append(f.list, family)
	}
	m := &dto.Metric{Label: labels}
	if kind == counter {
		m.Counter = &dto.Counter{Value: &v}
	} else {
		m.Gauge = &dto.Gauge{Value: &v}
	}
	family.Metric = append(family.Metric, m)
}

const (
	counter = dto.MetricType_COUNTER
	gauge   = dto.MetricType_GAUGE
)

// label makes labels of names and values in turn; the names are in order.
func label(pairs ...string) []*dto.LabelPair {
	var labels []*dto.LabelPair
	for i := 0; i < len(pairs); i += 2 {
		labels = append(labels, &dto.LabelPair{Name: &pairs[i], Value: &pairs[i+1]})
	}
	return labels
}

// with is labels and one more, in order.
func with(labels []*dto.LabelPair, name, value string) []*dto.LabelPair {
	i, _ := slices.BinarySearchFunc(labels, name, func(l *dto.LabelPair, name string) int { return strings.Compare(l.GetName(), name) })
	return slices.Insert(slices.Clone(labels), i, &dto.LabelPair{Name: &name, Value: &value})
}

// labels are those of every series of the GPU.
func (g GPU) labels() []*dto.LabelPair {
	index := ""
	if g.Index >= 0 {
		index = strconv.Itoa(g.Index)
	}
	return label("gpu", index, "name", g.Name, "uuid", g.UUID)
}

// series are those of a collection.
func (c *Collection) series(vendor string) []*dto.MetricFamily {
	var f families
	prefix := vendor + "_gpu_"
	f.add(prefix+"devices", "GPUs that the driver lists, those included that cannot be read.", gauge, float64(len(c.GPUs)), nil)
	for _, g := range c.GPUs {
		id := g.labels()
		f.add(prefix+"up", "1 if the GPU could be read, 0 if it is listed and could not.", gauge, oneIf(g.Failure == ""), id)
		if g.Failure != "" {
			continue
		}
		f.add(prefix+"info", "Always 1; the labels tell more of the GPU.", gauge, 1,
			with(with(id, "pci_bus_id", g.BusID), "driver_version", c.Driver))
		for _, m := range gpuMetrics {
			if v, ok := g.Values[m.quantity]; ok {
				f.add(prefix+m.name, m.help, m.kind, float64(v)/m.divisor, id)
			}
		}
		for _, reason := range slices.Sorted(maps.Keys(g.Throttle)) {
			active := g.Throttle[reason]
			f.add(prefix+"throttle_active", "1 while the reason slows the clocks down, else 0.", gauge, oneIf(active), with(id, "reason", reason))
		}
	}
	return f.list
}

// health is how the exporter itself does, and what it has counted.
func (e *Exporter) health(up bool) []*dto.MetricFamily {
	var f families
	own := func(name, help string, kind dto.MetricType, v float64, labels ...string) {
		f.add("gpu_exporter_"+name, help, kind, v, label(labels...))
	}
	own("up", "1 while there are readings that are not too old, else 0.", gauge, oneIf(up))
	if s := e.last; s != nil {
		own("last_success_timestamp_seconds", "When the last collection that succeeded began.", gauge, seconds(s.Began))
		own("collection_duration_seconds", "How long the last collection that succeeded took.", gauge, s.Took.Seconds())
		if up {
			own("source_info", "Always 1; the labels tell where the readings come from.", gauge, 1, "driver_version", s.Driver, "source", s.Source)
		}
	}
	own("stuck_children", "Processes that wait for the driver and cannot be killed; 1 at most.", gauge, float64(e.kids.stuck()))
	for _, reason := range slices.Sorted(maps.Keys(e.failures)) {
		own("collection_failures_total", "Collections that failed.", counter, float64(e.failures[reason]), "reason", string(reason))
	}
	for _, quantity := range slices.Sorted(maps.Keys(e.dropped)) {
		own("dropped_values_total", "Values that were dropped because they cannot be.", counter, float64(e.dropped[quantity]), "quantity", string(quantity))
	}
	if e.devices >= 0 {
		f.add(e.vendor+"_gpu_pci_devices", "GPUs of the vendor on the PCI bus, whether or not there is a driver for them.", gauge, float64(e.devices), nil)
	}
	inOrder := func(a, b xid) int { return cmp.Or(strings.Compare(a.uuid, b.uuid), cmp.Compare(a.code, b.code)) }
	for _, x := range slices.SortedFunc(maps.Keys(e.xids), inOrder) {
		t := e.xids[x]
		id := with(t.gpu.labels(), "xid", strconv.FormatUint(x.code, 10))
		f.add(e.vendor+"_gpu_xid_errors_total", "XID errors that the driver has reported since the exporter's start.", counter, float64(t.count), id)
		f.add(e.vendor+"_gpu_xid_last_timestamp_seconds", "When the driver last reported the XID error.", gauge, seconds(t.last), id)
	}
	return f.list
}

// Gather is prometheus.Gatherer's. It shows what was read last, unless that is
// too old, and waits for nothing.
func (e *Exporter) Gather() ([]*dto.MetricFamily, error) {
	e.mu.Lock()
	s := e.fresh()
	list := append(e.health(s != nil), e.process...)
	e.mu.Unlock()
	if s != nil {
		list = append(list, s.series()...)
	}
	slices.SortFunc(list, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return list, nil
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// garbled stands for what is no number.
const garbled = math.MinInt64

// weigh drops what cannot be, and returns it.
func (g *GPU) weigh() map[Quantity]int64 {
	out := map[Quantity]int64{}
	drop := func(q Quantity) {
		if v, ok := g.Values[q]; ok {
			out[q] = v
			delete(g.Values, q)
		}
	}
	for q, v := range g.Values {
		if p, ok := plausible[q]; !ok || v < p.least || v > p.most {
			drop(q)
		}
	}
	if total, ok := g.Values[MemoryTotal]; ok && max(g.Values[MemoryUsed], g.Values[MemoryReserved]) > total {
		// Which of them is wrong cannot be told.
		for _, q := range []Quantity{MemoryUsed, MemoryReserved, MemoryTotal} {
			drop(q)
		}
	}
	for _, q := range g.Garbled {
		out[q] = garbled
	}
	return out
}
