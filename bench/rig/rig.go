// Package rig starts what is to be measured, has clients ask it, and reads from the
// kernel what that has cost.
package rig

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options say what is to be measured.
type Options struct {
	Rounds int
	// Only and Targets are the names of workloads and targets; empty: all.
	Only, Targets []string
	// Gateways are binaries of the gateway, as PATH or NAME=PATH.
	Gateways []string
	// ReverseProxy is the binary of bench/reverseproxy.
	ReverseProxy string
	// Base is the target that ratios are to.
	Base string
	// Window is how long a workload is measured for; 0: five seconds.
	Window time.Duration
	// Short makes everything as short as it can be: only errors mean something then.
	Short bool
	// Profiles is a folder for CPU profiles of gateways; "": none are taken.
	Profiles string
	// Keys is how many the gateway knows, and clients use in turn; 0: 1,000.
	Keys int
	// Curves measures the gateway alone, as one thing after the other grows.
	Curves bool
	// Write is a file in Markdown that gets the tables too; "": none.
	Write string
	// Out gets the tables, Progress a line for each run.
	Out, Progress io.Writer

	counted *counted
}

// counted is how many events and answers were compared, in all runs; and which runs had
// less events than were due, by workload and target.
type counted struct {
	events, answers int64
	late            map[string]int
}

func (o Options) window() time.Duration {
	switch {
	case o.Window > 0:
		return o.Window
	case o.Short:
		return 300 * time.Millisecond
	}
	return 5 * time.Second
}

// rig is one sitting.
type rig struct {
	Options
	site    site
	targets []target
	works   []workload
	results results
	// thrown are the runs that failed, and why.
	thrown []error
	// end ends what was started, and takes away what it has left.
	end func()

	mu  sync.Mutex
	now *running // what is being measured; nil: nothing
}

// results are by workload and target, one for each round; nil: thrown out.
type results map[string]map[string][]figures

// values of one figure, one for each round.
func (r results) values(workload, target, figure string) []float64 {
	var all []float64
	for _, f := range r[workload][target] {
		v, ok := f[figure]
		if !ok {
			v = math.NaN()
		}
		all = append(all, v)
	}
	return all
}

// Run measures, and prints tables. The error says which runs were thrown out, or why
// there was nothing to measure.
func Run(o Options) error {
	switch {
	case o.Rounds < 1:
		return fmt.Errorf("%d rounds: there must be one at least", o.Rounds)
	case o.Window < 0:
		return fmt.Errorf("a window of %v: it must be some time", o.Window)
	}
	o.counted = &counted{late: map[string]int{}}
	if o.Write != "" { // better told now than in half an hour
		if err := (report{mark: o.mark()}).write(o.Write, false); err != nil {
			return err
		}
	}
	goFirst()
	r, err := prepare(o)
	if err != nil {
		return err
	}
	defer r.end()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		r.mu.Lock() // for good: nothing more is to start
		if r.now != nil {
			r.now.close()
		}
		r.end()
		os.Exit(130)
	}()
	var report report
	if o.Curves {
		report = r.curves()
	} else {
		for round := range o.Rounds {
			r.round(round)
		}
		report = r.compared()
	}
	report.print(o.Out)
	errs := r.thrown
	if o.Write != "" {
		errs = append(errs, report.write(o.Write, true))
	}
	return errors.Join(errs...)
}

func prepare(o Options) (*rig, error) {
	if o.Keys == 0 {
		o.Keys = 1000
	}
	r := &rig{Options: o, results: results{}, works: workloads(o)}
	all, err := r.choose()
	if err != nil {
		return nil, err
	}
	r.targets = all
	if r.works, err = pick("workload", r.works, o.Only, func(w workload) string { return w.name }); err != nil {
		return nil, err
	}
	files, err := raiseFiles()
	if err != nil {
		return nil, err
	}
	const most = 10_000 // streams that are open at a time, each with two connections
	connections := min(files/2-100, most)
	if steps := openSteps(o); !o.Curves && connections < steps[len(steps)-1] && slices.ContainsFunc(r.works, func(w workload) bool { return w.name == "W4" }) {
		return nil, fmt.Errorf("a process may have %d files open, which is too few for W4: raise the limit (ulimit -Hn) to %d, or choose other workloads with -only", files, 2*steps[len(steps)-1]+200)
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	os.Chmod(dir, 0o755) // nginx's workers are somebody else
	r.site = site{Dir: dir, Keys: keys(o.Keys), Files: files, Connections: connections, Profiled: o.Profiles != ""}
	r.site.clientKey = r.site.Keys[0].Text
	if err := certify(&r.site); err != nil {
		return nil, err
	}
	end, addrs, err := startMock(2, 1)
	if err != nil {
		return nil, err
	}
	r.site.Backends = addrs
	r.end = func() { end(); os.RemoveAll(dir) }
	if o.Profiles != "" {
		err = os.MkdirAll(o.Profiles, 0o755)
	}
	return r, err
}

// choice is a target that may be chosen; whether it is there is asked only then.
type choice struct {
	name string
	make func() (target, error)
}

// choose gives the targets that are wanted.
func (o Options) choose() ([]target, error) {
	choices := []choice{
		{"direct", func() (target, error) { return direct(), nil }},
		{"nginx", nginx},
		{"haproxy", haproxy},
		{"ReverseProxy", func() (target, error) { return reverseProxy(o.ReverseProxy), built(o.ReverseProxy) }},
	}
	if o.Curves { // are of gateways alone
		choices = nil
	}
	name := func(c choice) string { return c.name }
	for _, g := range o.Gateways {
		called, path, ok := strings.Cut(g, "=")
		if !ok {
			called, path = "gateway", g
		}
		path, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(choices, func(c choice) bool { return c.name == called }) {
			return nil, fmt.Errorf("two targets are called %q; give one a name of its own, as in -gateway old=%s", called, path)
		}
		choices = append(choices, choice{called, func() (target, error) { return gateway(called, path), built(path) }})
	}
	wanted, err := pick("target", choices, o.Targets, name)
	if err != nil {
		return nil, err
	}
	if !o.Curves {
		if _, err := pick("target", choices, []string{o.Base}, name); err != nil {
			return nil, err
		}
	}
	var all []target
	for _, c := range wanted {
		t, err := c.make()
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

func built(path string) error {
	if _, err := exec.LookPath(path); err != nil {
		return fmt.Errorf("no program is at %s: make bench-build, or say where it is (bench -help)", path)
	}
	return nil
}

// pick gives those that are named, or all.
func pick[T any](what string, all []T, names []string, name func(T) string) ([]T, error) {
	if len(names) == 0 {
		return all, nil
	}
	var picked []T
	var there []string
	for _, one := range all {
		there = append(there, name(one))
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name(one)) }) {
			picked = append(picked, one)
		}
	}
	for _, n := range names {
		if !slices.ContainsFunc(there, func(t string) bool { return strings.EqualFold(n, t) }) {
			return nil, fmt.Errorf("there is no %s %q; there are %s", what, n, strings.Join(there, ", "))
		}
	}
	return picked, nil
}

// round measures each workload with each target, started afresh, in an order of chance.
func (r *rig) round(round int) {
	for _, w := range r.works {
		for _, i := range rand.Perm(len(r.targets)) {
			t := r.targets[i]
			if w.needs != nil && !w.needs(t) {
				continue
			}
			r.keep(round, w, t.name, func() (figures, error) { return r.measure(w, t, r.site) })
		}
	}
}

// keep has something measured, and puts the figures with the others of that name.
func (r *rig) keep(round int, w workload, name string, measure func() (figures, error)) {
	f, err := measure()
	if err != nil {
		err = fmt.Errorf("round %d: %s, %s: %w", round+1, w.name, name, err)
		r.thrown = append(r.thrown, err)
		fmt.Fprintln(r.Progress, "THROWN OUT:", err)
		f = nil
	} else {
		fmt.Fprintf(r.Progress, "round %d: %-8s %-12s %s\n", round+1, w.name, name, f)
	}
	if r.results[w.name] == nil {
		r.results[w.name] = map[string][]figures{}
	}
	r.results[w.name][name] = append(r.results[w.name][name], f)
}

func (r *rig) measure(w workload, t target, s site) (figures, error) {
	s.TLS = w.tls
	running, err := r.start(t, s)
	if err != nil {
		return nil, err
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		running.close()
		r.now = nil
	}()
	if err := running.await(); err != nil {
		return nil, err
	}
	f, err := w.run(w, r.Options, running)
	if err != nil {
		return nil, err
	}
	if running.tree == nil {
		return f, nil
	}
	select {
	case <-running.ended:
		return nil, fmt.Errorf("it has ended: %v\n%s", running.err, running.lastWords())
	default:
	}
	// Peers log nothing, unless they do what they were not to do, such as to write a
	// body into a file.
	if words := running.lastWords(); !t.gateway && words != "" {
		fmt.Fprintf(r.Progress, "%s, %s says:\n%s\n", w.name, t.name, strings.TrimSpace(words))
	}
	return f, nil
}

// start starts a target where a signal finds it.
func (r *rig) start(t target, s site) (*running, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	running, err := t.start(s)
	r.now = running
	return running, err
}

func (f figures) String() string {
	var names []string
	for name, v := range f {
		if !math.IsNaN(v) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, " %s %s", name, number(f[name]))
	}
	return strings.TrimSpace(b.String())
}

// startMock starts backends in a process of their own, which is this program again.
func startMock(backends, models int) (end func(), addrs []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(self, "mock", "-backends", strconv.Itoa(backends), "-models", strconv.Itoa(models))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, nil, fmt.Errorf("the mock does not begin: %w", err)
	}
	return func() { in.Close(); cmd.Wait() }, strings.Fields(line), nil
}
