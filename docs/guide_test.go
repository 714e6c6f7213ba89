//go:build guide

package docs

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ports are the guide's: it names them, so here they must be free.
var ports = []string{"3000", "8000", "8001", "8002", "9000", "9001", "9090", "9835"}

// TestGuide does what the guide says, from top to bottom, in a copy of the repository:
// every command that needs neither a cluster nor a machine that is not everywhere.
func TestGuide(t *testing.T) {
	blocks, err := Blocks()
	if err != nil {
		t.Fatal(err)
	}
	follow(t, begin(t), blocks)
}

// TestReadme does what the README says, which has the servers that are named there.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := parse("README.md", string(text))
	if err != nil {
		t.Fatal(err)
	}
	// A suite within a suite says nothing: CI begins with it.
	blocks = slices.DeleteFunc(blocks, func(b Block) bool { return b.Script == "make test\n" })
	terminals := begin(t)
	for _, port := range []string{"8001", "8002"} {
		_, err := terminals.Run(t.Context(), Block{File: "a server", Terminal: port, Script: "make commands\nbin/vllm-sim --listen 127.0.0.1:" + port, Prints: "… is up…"})
		if err != nil {
			t.Fatal(err)
		}
	}
	follow(t, terminals, blocks)
}

// begin is where a reader begins, with nothing running.
func begin(t *testing.T) *Terminals {
	t.Helper()
	for _, port := range ports {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			t.Fatalf("the guide's port %s must be free: %v; on Linux: unshare -rn bash -c 'ip link set lo up; make test-guide'", port, err)
		}
		l.Close()
	}
	terminals := &Terminals{Dir: repository(t)}
	terminals.Env = append(os.Environ(),
		"PATH="+filepath.Join(terminals.Dir, "bin")+":"+os.Getenv("PATH"), // what the guide exports lasts as long as a terminal
		"TIME_SCALE=0.02",
		"XDG_CACHE_HOME="+t.TempDir(), // for what vllm-stack keeps,
		"GOCACHE="+gocache(t),         // and not for what Go does
	)
	t.Cleanup(func() {
		if err := terminals.Close(); err != nil {
			t.Error(err)
		}
	})
	return terminals
}

// follow types what is said, and tells how much of it that was.
func follow(t *testing.T, terminals *Terminals, blocks []Block) {
	t.Helper()
	// Ctrl-C is for this test, which then ends what goes on: that has process groups of
	// its own, and would stay behind and keep the ports.
	interrupted, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	count := map[Place]int{}
	for _, b := range blocks {
		count[b.Place]++
		switch b.Place {
		case Elsewhere:
			t.Logf("not run, needs %s: %v: %s", b.Needs, b, strings.Split(b.Script, "\n")[0])
		case Here:
			began := time.Now()
			ctx, cancel := context.WithTimeout(interrupted, 5*time.Minute)
			printed, err := terminals.Run(ctx, b)
			cancel()
			if interrupted.Err() != nil {
				t.Fatal("interrupted")
			}
			if err != nil && crossed(b, printed) {
				t.Logf("%v: a gate was crossed, which says nothing on a machine for tests", b)
				err = nil
				b.Prints = strings.ReplaceAll(b.Prints, "✓", "…") // a check may have failed with it
				if line := b.Missing(printed); line != "" {
					err = fmt.Errorf("%v: it does not print %q, but\n%s", b, line, printed)
				}
			}
			if err != nil {
				t.Fatal(err) // what follows builds on it
			}
			t.Logf("run in %.1f s: %v: %s", time.Since(began).Seconds(), b, strings.Split(b.Script, "\n")[0])
		}
	}
	t.Logf("%d blocks of commands run here, %d are for a cluster, %d need something else", count[Here], count[Cluster], count[Elsewhere])
}

// crossed reports whether a load test has run to its end, and only its objective does
// not hold: how fast this machine is just now is not the guide's fault. What it prints
// is compared all the same; and it must be the last command of its block, since bash
// types none after it.
func crossed(b Block, printed string) bool {
	lines := strings.Split(strings.TrimSpace(b.Script), "\n")
	last := lines[len(lines)-1]
	if strings.Contains(last, "k6 run ") {
		return strings.Count(b.Script, "k6 run ") == 1 && strings.Contains(printed, "thresholds on metrics")
	}
	return (strings.Contains(last, "make baseline") || strings.Contains(last, "make loadtest")) &&
		strings.Contains(printed, "thresholds on metrics") && strings.Contains(printed, "Error 99")
}

// repository is a copy of what is under version control or would be, with the programs
// that are built already: the guide's make has the less to do.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	script := fmt.Sprintf("git ls-files -co --exclude-standard -z | xargs -0 cp -P --parents -t %q 2>&1; if [ -x bin/k6 ]; then mkdir -p %[1]q/bin && cp -p bin/k6 %[1]q/bin/; fi", dir)
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

func gocache(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
