package rig

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/vllm-gateway/vllm-gateway/bench/load"
	"github.com/vllm-gateway/vllm-gateway/bench/wire"
)

// workload is one kind of load.
type workload struct {
	name  string
	title string // what it is
	unit  string // what CPU time is divided by: event, request
	plan  load.Plan
	tls   bool
	run   func(w workload, o Options, r *running) (figures, error)
	needs func(target) bool // nil: all targets
}

// figures are what one run gave, by name: those of rows.
type figures map[string]float64

var smallPrompt = strings.Repeat("What does a gateway do? ", 8)

func workloads(o Options) []workload {
	stream := func(tokens int, gap time.Duration) wire.Ask {
		return wire.Ask{Model: wire.Model, Stream: true, Tokens: tokens, Gap: gap}
	}
	tokens, half := 128, 1
	if o.Short {
		tokens, half = 16, 2
	}
	gap := 20 * time.Millisecond
	long := strings.Repeat("It stands before servers, and takes what they are sent.\\n", 3600)[:200_000-2] + `\n`
	w1a := load.Plan{Clients: 100, Ask: stream(tokens, gap), Prompt: smallPrompt, Phases: true, Ramp: 200 * time.Millisecond}
	w1b := w1a
	w1b.Clients, w1b.Ramp = 500/half, 400*time.Millisecond
	h2 := w1b
	h2.Shared = 10
	json := load.Plan{Clients: 64, Ask: wire.Ask{Model: wire.Model, Tokens: 32}, Prompt: smallPrompt}
	onTLS := func(t target) bool { return t.name != "direct" }
	process := onTLS
	return []workload{
		{name: "idle", title: "nothing to do", run: runIdle, needs: process},
		{name: "W1a", title: "100 streams of 128 tokens, 20 ms apart", unit: "event", plan: w1a, run: runLoad},
		{name: "W1b", title: "500 such streams", unit: "event", plan: w1b, run: runLoad},
		{name: "W2", title: "64 streams of 256 tokens without gaps", unit: "event", plan: load.Plan{Clients: 64, Ask: stream(256, 0), Prompt: smallPrompt}, run: runLoad},
		{name: "W3", title: "64 clients with small requests, JSON answers", unit: "request", plan: json, run: runLoad},
		{name: "W4", title: "streams that are open, and nearly idle", run: runOpen, plan: load.Plan{Ask: stream(0, 2*time.Second), Prompt: smallPrompt, Once: true}, needs: process},
		{name: "W5", title: "32 clients with prompts of 200 KB, JSON answers", unit: "request", plan: load.Plan{Clients: 32, Ask: json.Ask, Prompt: long}, run: runLoad},
		{name: "W1b-tls", title: "W1b over TLS 1.3, HTTP/1.1", unit: "event", plan: w1b, tls: true, run: runLoad, needs: onTLS},
		{name: "W1b-h2", title: "W1b over TLS 1.3, HTTP/2, 10 connections", unit: "event", plan: h2, tls: true, run: runLoad, needs: onTLS},
		{name: "W3-tls", title: "W3 over TLS 1.3, kept connections", unit: "request", plan: json, tls: true, run: runLoad, needs: onTLS},
	}
}

// compared counts what was compared, whatever came of the run.
func (o Options) compared(l *load.Load) {
	events, answers := l.Counts()
	o.counted.events += events
	o.counted.answers += answers
}

const (
	beginWithin = 30 * time.Second // all clients have had something
	endWithin   = 30 * time.Second // all have had everything
	warm        = 500 * time.Millisecond
)

// runLoad measures what a unit costs, and how long things take, while all clients are
// at it.
func runLoad(w workload, o Options, r *running) (figures, error) {
	l := load.Start(r.plan(w.plan))
	if err := begun(l, w.plan.Clients); err != nil {
		return nil, stopped(l, err)
	}
	time.Sleep(min(warm, o.window()/3))
	profiled := o.profile(w, r)
	f, err := measure(l, r, w.unit, o.window())
	times, loadErr := l.Stop(endWithin)
	o.compared(l)
	if err := <-profiled; err != nil {
		return nil, err
	}
	if loadErr != nil {
		return nil, loadErr
	}
	if err != nil {
		return nil, err
	}
	if gap := w.plan.Ask.Gap; gap > 0 && f["rate"] < .95*float64(w.plan.Clients)/gap.Seconds() {
		o.counted.late[w.name+" "+r.name]++
	}
	for name, values := range map[string][]int64{"first": times.First, "event": times.Event, "answer": times.Answer} {
		f[name+"50"], f[name+"99"] = percentile(values, .5)/1e3, percentile(values, .99)/1e3
	}
	if r.tree != nil && w.name == "W1b" && !o.Short {
		time.Sleep(time.Second)
		pss, err := r.memory()
		if err != nil {
			return nil, err
		}
		f["after"] = float64(pss) / 1e6
	}
	return f, nil
}

// measure takes the CPU time of a window, in microseconds for each unit.
func measure(l *load.Load, r *running, unit string, window time.Duration) (figures, error) {
	count := func() int64 {
		events, answers := l.Counts()
		if unit == "event" {
			return events
		}
		return answers
	}
	cpu := func() (time.Duration, error) {
		if r.tree == nil {
			return 0, nil
		}
		return r.cpu()
	}
	l.Record(true)
	used, err := cpu()
	if err != nil {
		return nil, err
	}
	before, began := count(), time.Now()
	for time.Since(began) < window && !l.Failed() {
		time.Sleep(min(50*time.Millisecond, window))
	}
	usedNow, err := cpu()
	if err != nil {
		return nil, err
	}
	n, took := count()-before, time.Since(began)
	l.Record(false)
	if n == 0 {
		return nil, fmt.Errorf("no %s within %v", unit, took)
	}
	f := figures{"rate": float64(n) / took.Seconds(), "cpu": float64((usedNow - used).Nanoseconds()) / 1e3 / float64(n)}
	if r.tree == nil {
		f["cpu"] = math.NaN()
	}
	return f, nil
}

// begun waits until all clients have had something.
func begun(l *load.Load, clients int) error {
	deadline := time.Now().Add(beginWithin)
	for l.Begun() < clients {
		if l.Failed() {
			return nil // Stop knows more
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("only %d of %d clients have had an answer within %v", l.Begun(), clients, beginWithin)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// stopped ends what will not begin.
func stopped(l *load.Load, why error) error {
	if _, err := l.Stop(time.Second); err != nil {
		return fmt.Errorf("%w; %w", why, err)
	}
	return why
}

// runIdle measures the start, and memory while there is nothing to do.
func runIdle(_ workload, o Options, r *running) (figures, error) {
	if !o.Short {
		time.Sleep(time.Second)
	}
	pss, err := r.memory()
	return figures{"start": float64(r.took.Microseconds()) / 1e3, "idle": float64(pss) / 1e6}, err
}

// openSteps are how many streams W4 has open, one after the other.
func openSteps(o Options) []int {
	if o.Short {
		return []int{100, 400}
	}
	return []int{100, 1000, 5000}
}

// runOpen opens streams step by step, and measures what each step has added to the
// memory of before the first.
func runOpen(w workload, o Options, r *running) (figures, error) {
	settle := 700 * time.Millisecond // garbage that was made as they were opened
	if o.Short {
		settle = 100 * time.Millisecond
	}
	time.Sleep(settle)
	idle, err := r.memory()
	if err != nil {
		return nil, err
	}
	f := figures{}
	var loads []*load.Load
	open := 0
	steps := openSteps(o)
	for i, step := range steps {
		p := r.plan(w.plan)
		p.Clients = step - open
		p.Ramp = time.Duration(p.Clients) * 300 * time.Microsecond
		p.Ask.Tokens = 2 + 2*(len(steps)-i) // it must outlive the other steps
		if o.Short {
			p.Ask.Gap /= 10
		}
		l := load.Start(p)
		loads = append(loads, l)
		if err = begun(l, p.Clients); err != nil || l.Failed() {
			break
		}
		open = step
		time.Sleep(settle)
		var pss int64
		if pss, err = r.memory(); err != nil {
			break
		}
		f[fmt.Sprint("kb", step)] = float64(pss-idle) / 1e3 / float64(open)
	}
	for _, l := range loads {
		if _, loadErr := l.Stop(endWithin); loadErr != nil && err == nil {
			err = loadErr
		}
		o.compared(l)
	}
	return f, err
}

// profile fetches a CPU profile of a gateway, where that is wanted, over the window.
func (o Options) profile(w workload, r *running) <-chan error {
	done := make(chan error, 1)
	if o.Profiles == "" || r.site.Pprof == "" {
		done <- nil
		return done
	}
	go func() {
		done <- func() error {
			resp, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", r.site.Pprof, max(1, int(o.window().Seconds()))))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			out, err := os.Create(fmt.Sprintf("%s/%s-%s.pprof", o.Profiles, w.name, r.name))
			if err != nil {
				return err
			}
			_, err = io.Copy(out, resp.Body)
			if err2 := out.Close(); err == nil {
				err = err2
			}
			return err
		}()
	}()
	return done
}
