package rig

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// row is one line of the tables.
type row struct {
	label            string
	workload, figure string
	unit             string
	added            bool // over direct
	// goal is what the ratio to nginx is to be, and bound what the figure itself is to
	// be, of the gateway.
	goal, bound string
}

var rows = []row{
	{"CPU per event, 100 streams, 20 ms apart (W1a)", "W1a", "cpu", "µs", false, "", ""},
	{"CPU per event, 500 streams, 20 ms apart (W1b)", "W1b", "cpu", "µs", false, "≤ 1.00", ""},
	{"CPU per event, 64 streams without gaps (W2)", "W2", "cpu", "µs", false, "≤ 1.00", ""},
	{"CPU per small request (W3)", "W3", "cpu", "µs", false, "≤ 1.50", ""},
	{"CPU per request of 200 KB (W5)", "W5", "cpu", "µs", false, "≤ 1.00", ""},
	{"memory per open stream, 100 open (W4)", "W4", "kb100", "KB", false, "", ""},
	{"memory per open stream, 1,000 open (W4)", "W4", "kb1000", "KB", false, "", ""},
	{"memory per open stream, 5,000 open (W4)", "W4", "kb5000", "KB", false, "≤ 1.70", "≤ 30"},
	{"event latency over direct, p50 (W1b)", "W1b", "event50", "µs", true, "≤ 1.10", ""},
	{"event latency over direct, p99 (W1b)", "W1b", "event99", "µs", true, "≤ 1.10", ""},
	{"TTFT over direct, p50 (W1b)", "W1b", "first50", "µs", true, "≤ 1.50", "< 500"},
	{"TTFT over direct, p99 (W1b)", "W1b", "first99", "µs", true, "", ""},
	{"idle memory", "idle", "idle", "MB", false, "", "≤ 10"},
	{"memory 1 s after 500 streams (W1b)", "W1b", "after", "MB", false, "", ""},
	{"start to first answer", "idle", "start", "ms", false, "", "≤ 20"},
	{"CPU per event, TLS, HTTP/1.1 (W1b)", "W1b-tls", "cpu", "µs", false, "", ""},
	{"CPU per event, TLS, HTTP/2 (W1b)", "W1b-h2", "cpu", "µs", false, "", ""},
	{"CPU per small request, TLS (W3)", "W3-tls", "cpu", "µs", false, "", ""},
}

// values of a row for one target, a round each.
func (r *rig) values(w row, target string) []float64 {
	v := r.results.values(w.workload, target, w.figure)
	if w.added {
		v = less(v, r.results.values(w.workload, "direct", w.figure))
	}
	return v
}

// table is lines of cells; the first is its head.
type table [][]string

// tables are the ratios, and the figures themselves.
func (r *rig) tables() (ratio, absolute table) {
	var names []string
	for _, t := range r.targets {
		if t.command != nil {
			names = append(names, t.name)
		}
	}
	base := r.Base
	goal := func(w row) string {
		if base != "nginx" {
			return "" // it is of ratios to nginx
		}
		return w.goal
	}
	ratioHead, absoluteHead := []string{"ratio to " + base + " in the same round: **median** (least–most)"}, []string{"median (least–most)"}
	for _, name := range names {
		if name != base {
			ratioHead = append(ratioHead, name)
		}
		absoluteHead = append(absoluteHead, name)
	}
	ratioHead, absoluteHead = append(ratioHead, "goal"), append(absoluteHead, "goal")
	ratio, absolute = append(ratio, ratioHead), append(absolute, absoluteHead)
	for _, w := range rows {
		ratioLine, absoluteLine := []string{w.label}, []string{w.label + ", " + w.unit}
		there, compared := false, false
		for _, name := range names {
			values := r.values(w, name)
			s := spreadOf(values)
			there = there || s.n > 0
			absoluteLine = append(absoluteLine, s.cell("%s (%s–%s)", number))
			if name != base {
				s := spreadOf(ratios(values, r.values(w, base)))
				compared = compared || s.n > 0
				ratioLine = append(ratioLine, s.cell("**%s** (%s–%s)", func(v float64) string { return fmt.Sprintf("%.2f", v) }))
			}
		}
		if compared {
			ratio = append(ratio, append(ratioLine, goal(w)))
		}
		if there {
			absolute = append(absolute, append(absoluteLine, w.bound))
		}
	}
	return ratio, absolute
}

func (s spread) cell(format string, number func(float64) string) string {
	switch s.n {
	case 0:
		return "–"
	case 1:
		format, _, _ = strings.Cut(format, " ")
		return fmt.Sprintf(format, number(s.median))
	}
	return fmt.Sprintf(format, number(s.median), number(s.least), number(s.most))
}

// number prints three digits, and no more noise than that.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// aligned prints it for a terminal.
func (t table) aligned(out io.Writer) {
	width := map[int]int{}
	for _, line := range t {
		for i, cell := range line {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range t {
		var b strings.Builder
		for i, cell := range line {
			b.WriteString(cell + strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
		}
		fmt.Fprintln(out, strings.TrimRight(b.String(), " "))
	}
}

// markdown prints it for Markdown.
func (t table) markdown(out io.Writer) {
	for i, line := range t {
		fmt.Fprintf(out, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			fmt.Fprintf(out, "|%s\n", strings.Repeat("---|", len(line)))
		}
	}
}
