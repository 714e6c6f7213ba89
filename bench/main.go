// Command bench measures the gateway beside nginx, haproxy and a plain ReverseProxy:
// docs/performance.md.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/vllm-gateway/vllm-gateway/bench/mock"
	"github.com/vllm-gateway/vllm-gateway/bench/rig"
)

func main() {
	var err error
	if len(os.Args) > 1 && os.Args[1] == "mock" {
		err = mock.Main(os.Args[2:])
	} else {
		err = measure()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	beside := func(name string) string { return filepath.Join(filepath.Dir(self), name) }
	o := rig.Options{Out: os.Stdout, Progress: os.Stderr}
	flag.IntVar(&o.Rounds, "rounds", 5, "how often all of it is measured")
	flag.Func("only", "workloads, such as W1b,W3 (all)", list(&o.Only))
	flag.Func("targets", "such as nginx,gateway (all)", list(&o.Targets))
	flag.Func("gateway", "`NAME=PATH`: a further binary of the gateway, such as an older one; PATH alone: in place of the one beside this program", list(&o.Gateways))
	flag.StringVar(&o.ReverseProxy, "reverseproxy", beside("reverseproxy"), "binary of bench/reverseproxy")
	flag.StringVar(&o.Base, "base", "nginx", "the target that ratios are to")
	flag.DurationVar(&o.Window, "window", 5*time.Second, "how long a workload is measured for")
	flag.BoolVar(&o.Short, "short", false, "as short as it can be: whether every byte is right, and no more")
	flag.StringVar(&o.Profiles, "profile", "", "a folder for CPU profiles of the gateway, one for each workload")
	flag.IntVar(&o.Keys, "keys", 1000, "how many the gateway knows")
	flag.BoolVar(&o.Curves, "curves", false, "what the gateway alone costs as backends, streams, keys and models grow in number")
	flag.StringVar(&o.Write, "write", "", "a `FILE` in Markdown whose part between the marks is to have these tables: docs/performance.md")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("what is %q? There are only flags: bench -help", flag.Arg(0))
	}
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if o.Short && !given["window"] {
		o.Window = 0
	}
	if o.Short && !given["rounds"] {
		o.Rounds = 1
	}
	if !slices.ContainsFunc(o.Gateways, func(g string) bool { return !strings.Contains(g, "=") }) {
		o.Gateways = append([]string{beside("vllm-gateway")}, o.Gateways...)
	}
	if o.Curves && !given["rounds"] {
		o.Rounds = 1
	}
	if o.Curves && !given["window"] {
		o.Window = 2 * time.Second
	}
	debug.SetGCPercent(400) // the clients share the machine with what is measured
	return rig.Run(o)
}

func list(to *[]string) func(string) error {
	return func(value string) error {
		*to = append(*to, strings.Split(value, ",")...)
		return nil
	}
}
