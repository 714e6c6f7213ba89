package rig

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/vllm-gateway/vllm-gateway/bench/load"
	"github.com/vllm-gateway/vllm-gateway/bench/wire"
)

// curve is what the gateway costs as one thing grows.
type curve struct {
	what    string // that grows
	at      string // what is said beside it
	points  []int
	columns []column
	// backends, keys and models are how many there are at a point; nil: as ever.
	backends, keys, models func(point int) int
	runs                   func(point int, o Options) []workload
}

// column is one figure of a curve.
type column struct{ label, workload, figure string }

var (
	perEvent   = column{"CPU per event, µs", "events", "cpu"}
	perRequest = column{"CPU per small request, µs", "requests", "cpu"}
	idleMemory = column{"idle memory, MB", "idle", "idle"}
	startTime  = column{"start, ms", "idle", "start"}
)

func same(n int) int { return n }

// allCurves are all of them.
func (r *rig) allCurves() []curve {
	most := r.site.Connections // 10,000, if the machine lets us
	plain := func(int, Options) []workload { return []workload{idleWork(), eventWork(1), requestWork(1)} }
	return []curve{
		{what: "backends", points: []int{1, 2, 4, 8, 16, 32, 64}, columns: []column{perEvent, perRequest}, backends: same, runs: func(int, Options) []workload {
			return []workload{eventWork(1), requestWork(1)}
		}},
		{what: "open streams", at: ", with 5,000 events a second in all", points: []int{1, 10, 100, 1000, most}, columns: []column{perEvent, {"memory per stream, KB", "events", "kb"}}, runs: func(n int, _ Options) []workload {
			return []workload{{name: "events", unit: "event", plan: load.Plan{Clients: n}, run: runSteady}}
		}},
		{what: "keys", points: []int{10, 100, 1000, 10_000, 100_000}, columns: []column{perEvent, perRequest, idleMemory, startTime}, keys: same, runs: plain},
		{what: "models", points: []int{1, 10, 100, 1000, 10_000}, columns: []column{perEvent, perRequest, idleMemory, startTime}, models: same, runs: func(n int, _ Options) []workload {
			return []workload{idleWork(), eventWork(n), requestWork(n)}
		}},
	}
}

func idleWork() workload { return workload{name: "idle", run: runIdle} }

func eventWork(models int) workload {
	ask := wire.Ask{Model: wire.Model, Stream: true, Tokens: 32, Gap: 20 * time.Millisecond}
	return workload{name: "events", unit: "event", run: runLoad, plan: load.Plan{Clients: 100, Ask: ask, Prompt: smallPrompt, Phases: true, Models: models, Ramp: 100 * time.Millisecond}}
}

func requestWork(models int) workload {
	return workload{name: "requests", unit: "request", run: runLoad, plan: load.Plan{Clients: 64, Ask: wire.Ask{Model: wire.Model, Tokens: 32}, Prompt: smallPrompt, Models: models}}
}

// steadyRate is how many events a second all open streams have together, however many
// they are.
const steadyRate = 5000

// runSteady measures streams that all are there before it begins, and after it.
func runSteady(w workload, o Options, r *running) (figures, error) {
	const settle = 700 * time.Millisecond
	n := w.plan.Clients
	time.Sleep(settle)
	idle, err := r.memory()
	if err != nil {
		return nil, err
	}
	gap := time.Second * time.Duration(n) / steadyRate
	ramp := max(time.Duration(n)*300*time.Microsecond, min(gap, time.Second))
	life := ramp + 2*settle + o.window() + gap
	l := load.Start(r.plan(load.Plan{Clients: n, Prompt: smallPrompt, Once: true, Ramp: ramp, Ask: wire.Ask{Model: wire.Model, Stream: true, Tokens: int(life/gap) + 2, Gap: gap}}))
	if err := begun(l, n); err != nil {
		return nil, stopped(l, err)
	}
	time.Sleep(settle)
	pss, err := r.memory()
	var f figures
	if err == nil {
		f, err = measure(l, r, w.unit, o.window())
	}
	_, loadErr := l.Stop(endWithin)
	o.compared(l)
	if loadErr != nil {
		return nil, loadErr
	}
	if err == nil && n >= 100 { // of fewer it is the garbage collector that one sees
		f["kb"] = float64(pss-idle) / 1e3 / float64(n)
	}
	return f, err
}

// curves measures them all.
func (r *rig) curves() report {
	all := r.allCurves()
	for round := range r.Rounds {
		for _, c := range all {
			for _, i := range rand.Perm(len(c.points)) {
				for _, j := range rand.Perm(len(r.targets)) {
					r.point(round, c, c.points[i], r.targets[j])
				}
			}
		}
	}
	p := report{mark: r.mark(), lines: r.about(), thrown: r.thrown}
	for _, t := range r.targets {
		for _, c := range all {
			p.tables = append(p.tables, r.curveTable(c, t))
		}
	}
	return p
}

// pointName is under what the figures of a point are kept, and told.
func (c curve) pointName(n int, t target) string { return fmt.Sprintf("%s, %d %s", t.name, n, c.what) }

func (r *rig) point(round int, c curve, n int, t target) {
	of := func(count func(int) int, ever int) int {
		if count == nil {
			return ever
		}
		return count(n)
	}
	s := r.site
	if c.keys != nil {
		s.Keys = keys(c.keys(n))
	}
	for _, w := range c.runs(n, r.Options) {
		r.keep(round, w, c.pointName(n, t), func() (figures, error) {
			end, addrs, err := startMock(of(c.backends, 2), of(c.models, 1))
			if err != nil {
				return nil, err
			}
			defer end()
			s.Backends = addrs
			return r.measure(w, t, s)
		})
	}
}

func (r *rig) curveTable(c curve, t target) table {
	what := c.what + c.at
	if t.name != "gateway" {
		what += " (" + t.name + ")"
	}
	head := []string{what}
	for _, column := range c.columns {
		head = append(head, column.label)
	}
	lines := table{head}
	for _, n := range c.points {
		line := []string{thousands(int64(n))}
		for _, column := range c.columns {
			line = append(line, spreadOf(r.results.values(column.workload, c.pointName(n, t), column.figure)).cell("%s (%s–%s)", number))
		}
		lines = append(lines, line)
	}
	return lines
}
