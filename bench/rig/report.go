package rig

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report is what there is to say in the end.
type report struct {
	mark   string // of its place in a file
	lines  []string
	tables []table
	thrown []error
}

// mark is which part of a file the report is for.
func (o Options) mark() string {
	if o.Curves {
		return "make bench ARGS=-curves"
	}
	return "make bench"
}

// compared is the report of rounds.
func (r *rig) compared() report {
	ratio, absolute := r.tables()
	p := report{mark: r.mark(), lines: r.about(), thrown: r.thrown}
	for _, t := range []table{ratio, absolute} {
		if len(t) > 1 {
			p.tables = append(p.tables, t)
		}
	}
	return p
}

// about says when, where, and of what.
func (r *rig) about() []string {
	var versions []string
	for _, t := range r.targets {
		if t.version != nil {
			versions = append(versions, t.name+": "+t.version())
		}
	}
	lines := []string{
		fmt.Sprintf("%s, %s of %v each, on %d CPUs (%s), Linux %s; load average at the end %s.", time.Now().UTC().Format("2006-01-02"), rounds(r.Rounds), r.window(), runtime.NumCPU(), processor(), kernel(), loadAverage()),
		strings.Join(versions, "; ") + ".",
		fmt.Sprintf("%s answers, with %s events, were compared byte by byte; %d runs were thrown out.", thousands(r.counted.answers), thousands(r.counted.events), len(r.thrown)),
	}
	if s := spreadOf(r.results.values("W1b", "direct", "event50")); s.n > 0 {
		of := func(figure string) string {
			return number(spreadOf(r.results.values("W1b", "direct", figure)).median)
		}
		lines = append(lines, fmt.Sprintf("Direct, W1b: event latency p50 %s µs, p99 %s µs; TTFT p50 %s µs, p99 %s µs.", of("event50"), of("event99"), of("first50"), of("first99")))
	}
	if late := r.counted.late; len(late) > 0 {
		var which []string
		for name, n := range late {
			which = append(which, fmt.Sprintf("%s %d×", name, n))
		}
		slices.Sort(which)
		lines = append(lines, "Runs with less events than were due, since the machine was too busy, or the target too slow; their figures say little: "+strings.Join(which, ", ")+".")
	}
	return lines
}

func thousands(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func rounds(n int) string {
	if n == 1 {
		return "one round"
	}
	return fmt.Sprintf("%d rounds", n)
}

func processor() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	_, after, _ := strings.Cut(string(data), "model name")
	line, _, _ := strings.Cut(after, "\n")
	_, name, ok := strings.Cut(line, ":")
	if !ok {
		return runtime.GOARCH
	}
	return strings.TrimSpace(name)
}

func kernel() string {
	data, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	release, _, _ := strings.Cut(strings.TrimSpace(string(data)), "-")
	return release
}

func loadAverage() string {
	data, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(data), " ")
	return first
}

func says(name string, args ...string) func() string {
	return func() string {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return "?"
		}
		line, _, _ := strings.Cut(string(out), "\n")
		line, _, _ = strings.Cut(line, " - http") // haproxy's
		line = strings.TrimPrefix(line, "nginx version: ")
		return strings.TrimSpace(line)
	}
}

func (p report) print(out io.Writer) {
	for _, t := range p.tables {
		fmt.Fprintln(out)
		t.aligned(out)
	}
	fmt.Fprintln(out)
	for _, line := range p.lines {
		fmt.Fprintln(out, line)
	}
}

func (p report) markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n", strings.Join(p.lines, " "))
	for _, err := range p.thrown {
		fmt.Fprintf(&b, "\nThrown out: %v\n", err)
	}
	for _, t := range p.tables {
		fmt.Fprintln(&b)
		t.markdown(&b)
	}
	return b.Bytes()
}

// write puts the report between its marks in a file; or, if it is not really to do so,
// says what would be in the way.
func (p report) write(path string, really bool) error {
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	file, err = between(file, p.mark, p.markdown())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if !really {
		return nil
	}
	return os.WriteFile(path, file, 0o644)
}

// between puts a text in the place of what is between two marks.
func between(file []byte, mark string, text []byte) ([]byte, error) {
	open, end := "<!-- table: "+mark+" -->\n", "<!-- end of table -->\n"
	before, rest, ok := strings.Cut(string(file), open)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return nil, fmt.Errorf("there is no %q with %q behind it", strings.TrimSpace(open), strings.TrimSpace(end))
	}
	return []byte(before + open + "\n" + string(text) + "\n" + end + after), nil
}
