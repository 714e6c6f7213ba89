// Command vllm-verdict judges a load test.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/commandline"
	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/verdict"
)

type flags struct {
	Samples    string              `arg:"" optional:"" help:"what k6 run --out json=FILE wrote (last run in Prometheus)"`
	Summary    string              `placeholder:"FILE" help:"what k6's --summary-export=FILE wrote (summary.json beside)"`
	Prometheus string              `default:"http://localhost:9090" placeholder:"URL" help:"what else was measured; empty: none (${default})"`
	Since      time.Duration       `default:"3h" placeholder:"TIME" help:"how far back to look for the last run (${default})"`
	Out        string              `type:"path" placeholder:"FOLDER" help:"write verdict.html and verdict.json there"`
	Version    commandline.Version `help:"print the version and exit"`
}

const (
	name = "vllm-verdict"
	// crossed is k6's exit code for a threshold that did not hold.
	crossed = 99
)

var program = commandline.Program{
	Name:    name,
	Version: daemon.FullVersion(),
	About: `vllm-verdict judges a load test: what k6 saw beside what gateway and GPUs did
meanwhile, what the guide expects, and what it means. It sends no load. Exit
code 0: every gate was seen, and held; 99: not so; 1: it could not be judged.`,
	Examples: []string{
		"vllm-verdict results/baseline/samples.json.gz --out results/baseline",
		"vllm-verdict --prometheus= samples.json.gz  # what k6 saw, alone",
		"vllm-verdict --since 30m                    # the last run that pods sent",
	},
	Docs: "loadtests/README.md",
}

// askTimeout is for all questions together, and the wait for the last scrape.
var askTimeout = time.Minute // a test's is shorter

func main() {
	var f flags
	typed := program.Parse(&f)
	prometheus, err := f.check()
	if err != nil {
		typed.Exit(commandline.Usage, err)
	}
	ctx, forget := daemon.Signalled(context.Background())
	defer forget()
	v, err := judge(ctx, f, prometheus)
	if err == nil {
		err = show(os.Stdout, f.Out, v)
	}
	if err != nil {
		typed.Exit(commandline.Failed, err)
	}
	if !v.Passed {
		os.Exit(crossed)
	}
}

// check returns the Prometheus to ask; nil: none.
func (f flags) check() (*verdict.Prometheus, error) {
	switch {
	case f.Samples == "" && f.Prometheus == "":
		return nil, errors.New("neither samples nor a Prometheus: name a file of k6 run --out json=FILE, or set --prometheus")
	case f.Samples == "" && f.Summary != "":
		return nil, errors.New("--summary is of samples: name the file of k6 run --out json=FILE as well")
	case f.Since <= 0:
		return nil, fmt.Errorf("--since %s: it must be above 0, such as 3h", f.Since)
	case f.Prometheus == "":
		return nil, nil
	}
	p, err := verdict.NewPrometheus(f.Prometheus)
	if err != nil {
		return nil, fmt.Errorf("--prometheus %q: %w", f.Prometheus, err)
	}
	return p, nil
}

func judge(ctx context.Context, f flags, prometheus *verdict.Prometheus) (v *verdict.Verdict, err error) {
	if f.Samples != "" {
		v, err = read(f.Samples, f.Summary)
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if f.Samples == "" {
		v, err = prometheus.LastRun(asking, f.Since)
	}
	if err == nil && prometheus != nil {
		prometheus.Fill(asking, v)
	}
	if ctx.Err() != nil {
		return nil, errors.New("interrupted")
	}
	if err != nil {
		return nil, err
	}
	v.Judge()
	return v, nil
}

// read is a run as k6 wrote it down.
func read(samples, summary string) (*verdict.Verdict, error) {
	var s *verdict.Samples
	err := from(samples, func(r io.Reader) (err error) {
		s, err = verdict.ReadK6(r)
		return err
	})
	if err == nil && summary != "" {
		err = from(summary, s.ReadSummary)
	}
	if err != nil {
		return nil, err
	}
	if found := beside(samples); summary == "" && found != "" {
		_ = from(found, s.ReadSummary) // what is none may lie there, too
	}
	return s.Verdict(), nil
}

// beside is the summary that k6 seems to have left with the samples: it writes that last,
// moments after them. Nothing in it tells which run it is of.
func beside(samples string) string {
	path := filepath.Join(filepath.Dir(samples), "summary.json")
	of, err := os.Stat(samples)
	summary, missing := os.Stat(path)
	if err != nil || missing != nil || !summary.Mode().IsRegular() {
		return ""
	}
	if later := summary.ModTime().Sub(of.ModTime()); later < 0 || later > time.Minute {
		return ""
	}
	return path
}

// reason says in words why a file or folder cannot be used.
func reason(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such file or folder")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("this process may not use it")
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return errors.New("there is a file where a folder should be")
	}
	return err
}

func from(path string, read func(io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, reason(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a folder: name a file in it", path)
	}
	if err := read(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
