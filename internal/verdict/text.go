package verdict

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// WriteText writes the verdict for a terminal, 100 columns wide at most where names
// allow it.
func WriteText(w io.Writer, v *Verdict) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s  %s · %s · %s\n", v.passed(), v.title(), lasted(v.End.Sub(v.Start)), v.Start.UTC().Format("2006-01-02 15:04 MST"))
	if v.Smoke {
		b.WriteString("A shortened run (TIME_SCALE): it says that everything works, and nothing about capacity.\n")
	}
	for i := range v.Stages {
		if s := &v.Stages[i]; s.Guideline != nil {
			guidelineText(&b, s)
		}
	}
	stagesText(&b, v)
	sidesText(&b, v)
	gatesText(&b, v)
	if len(v.Findings) > 0 {
		b.WriteString("\nWhat it says\n")
	}
	for _, f := range v.Findings {
		b.WriteString(wrapped("  "+marks[f.Severity]+" ", f.Says))
		if f.Try != "" {
			b.WriteString(wrapped("    Try: ", f.Try))
		}
	}
	if len(v.Missing) > 0 {
		b.WriteString("\nNot measured\n")
	}
	for _, says := range v.Missing {
		b.WriteString(wrapped("  - ", says))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var marks = map[string]string{"bad": "✗", "warn": "!", "good": "✓", "info": "·"}

func (v *Verdict) passed() string {
	switch {
	case v.Passed:
		return "PASSED"
	case v.failed() > 0:
		return "FAILED"
	case v.Unseen:
		return "NOT ALL GATES SEEN"
	}
	return "NO GATES" // of a script that has none
}

// failed is how many gates did not hold.
func (v *Verdict) failed() (n int) {
	for _, g := range v.Gates {
		if !g.Held {
			n++
		}
	}
	return n
}

func (v *Verdict) title() string {
	if v.Script == "" {
		return "load test"
	}
	return v.Script
}

func guidelineText(b *strings.Builder, s *Stage) {
	fmt.Fprintf(b, "\n%s: %s\n", s.title(), s.State)
	table(b, "\tthe guide expects\tk6\tgateway\t\t", func(row func(...string)) {
		for _, r := range s.Guideline {
			gateway := shown(r.Gateway, r.Unit)
			if r.Quantity == "GPU util" && r.Gateway != nil {
				gateway += " (GPU exporter)"
			}
			row("  "+r.Quantity, r.Expected, shown(r.K6, r.Unit), gateway, r.Fits)
		}
	})
}

func shown(v *float64, unit string) string {
	if v == nil {
		return "–"
	}
	return inUnit(*v, unit)
}

// stagesText has a line for each stage; where the guide has rows, for what these lack.
func stagesText(b *strings.Builder, v *Verdict) {
	if len(v.Stages) == 0 {
		return
	}
	b.WriteString("\n")
	table(b, "  stage\tsent\tfailed\tRPS\tTTFT p50\tp95\tp99\ttok/s\tqueue\tGPU\t\t", func(row func(...string)) {
		for i := range v.Stages {
			s := &v.Stages[i]
			cells := []string{"  " + s.Name, "–", "–", "–", "–", "–", "–", "–", "–", "–", s.State}
			if c := s.Client; c != nil {
				cells[1], cells[2] = count(float64(c.Requests)), count(float64(c.Failed))
			} else if all, failed, ok := s.Server.requests(); ok {
				cells[1], cells[2] = count(all), count(failed)
			}
			if rps, ok := s.rps(); ok {
				cells[3] = number(rps)
			}
			if t := s.ttft(); t != nil {
				cells[4], cells[5], cells[6] = millis(t.P50), millis(t.P95), millis(t.P99)
			}
			if mean, ok := s.speed(); ok {
				cells[7] = number(mean)
			}
			if s.Client != nil || s.Server != nil && s.Server.Queue != nil {
				cells[8] = number(s.inFlight())
			}
			if s.Server != nil && s.Server.GPU != nil {
				cells[9] = percentOf(s.Server.GPU.Mean)
			}
			row(cells...)
		}
	})
}

// ttft is k6's, which saw every request, else the gateway's; nil: neither measured it.
func (s *Stage) ttft() *Spread {
	if s.Client != nil && s.Client.TTFT.N > 0 {
		return &s.Client.TTFT
	}
	if s.Server != nil && s.Server.TTFT != nil && s.Server.TTFT.N > 0 {
		return s.Server.TTFT
	}
	return nil
}

func sidesText(b *strings.Builder, v *Verdict) {
	if len(v.Sides) == 0 {
		return
	}
	b.WriteString("\n")
	table(b, "  side\tsent\tfailed\tRPS\tTTFT p50\tp95\ttok/s\tprefix cache\t", func(row func(...string)) {
		for _, s := range v.Sides {
			hits := "–"
			if s.Hits != nil {
				hits = shareText(*s.Hits) + " hit"
			}
			if c := s.Client; c == nil {
				row("  "+s.Name, "–", "–", "–", "–", "–", "–", hits)
			} else {
				row("  "+s.Name, count(float64(c.Requests)), count(float64(c.Failed)), number(c.RPS), millis(c.TTFT.P50), millis(c.TTFT.P95), number(c.Speed.Mean), hits)
			}
		}
	})
}

func gatesText(b *strings.Builder, v *Verdict) {
	if len(v.Gates) == 0 {
		return
	}
	others := ""
	if v.Unseen {
		others = ", and others were not seen"
	}
	fmt.Fprintf(b, "\nGates: %d of %d held%s\n", len(v.Gates)-v.failed(), len(v.Gates), others)
	table(b, "", func(row func(...string)) {
		for _, g := range v.Gates {
			if !g.Held {
				row("  ✗ "+g.Metric, g.Condition, g.is())
			}
		}
	})
}

func (g Gate) is() string {
	if g.Value == nil {
		return g.Measured()
	}
	return "is " + g.Measured()
}

// table writes rows under a head, their columns in line.
func table(b *strings.Builder, head string, rows func(row func(cells ...string))) {
	var lines strings.Builder
	t := tabwriter.NewWriter(&lines, 0, 0, 2, ' ', 0)
	if head != "" {
		fmt.Fprintln(t, head)
	}
	rows(func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")+"\t") })
	t.Flush() // into memory
	for line := range strings.Lines(lines.String()) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
}

// wrapped is a text in lines of 100, its first one after the mark and the others
// below that.
func wrapped(mark, text string) string {
	var b strings.Builder
	indent := strings.Repeat(" ", utf8.RuneCountInString(mark))
	line := mark
	for i, word := range strings.Fields(text) {
		if i > 0 && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > 100 {
			b.WriteString(line + "\n")
			line = indent + word
			continue
		}
		if i > 0 {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
	return b.String()
}
