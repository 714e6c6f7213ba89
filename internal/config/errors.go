package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	// Line begins with 1.
	Line int
	// Key is the path of what is wrong, such as keys[1].limits.concurrency; "" is
	// the whole file.
	Key string
	// Text says what is wrong and what to do. It has nothing of what stands below
	// keys: somebody may have written a key there.
	Text string
}

// Errors are all problems of a file, by line.
type Errors struct {
	// File is how the file was named.
	File     string
	Problems []Problem
}

// maxShown bounds what is printed of a file in which all is wrong, and maxKept what is
// looked for.
const (
	maxShown = 50
	maxKept  = 500
)

// Lines gives what Error prints, line by line: file:line: key: text.
func (e *Errors) Lines() []string {
	var lines []string
	for i, p := range e.Problems {
		if i == maxShown {
			more := fmt.Sprintf("%d", len(e.Problems)-i)
			if len(e.Problems) >= maxKept {
				more = "many"
			}
			return append(lines, e.File+": and "+more+" more")
		}
		line := fmt.Sprintf("%s:%d: ", e.File, p.Line)
		if p.Key != "" {
			line += oneLine(p.Key) + ": "
		}
		lines = append(lines, line+p.Text)
	}
	return lines
}

func (e *Errors) Error() string { return strings.Join(e.Lines(), "\n") }

func (e *Errors) sort() {
	slices.SortStableFunc(e.Problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
}

// NewErrors makes an error of problems; of none it makes nil.
func NewErrors(file string, problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	e := &Errors{File: file, Problems: problems}
	e.sort()
	return e
}

// oneLine is a path as it is printed: the name of a model may be anything.
func oneLine(key string) string {
	const longest = 150
	if len(key) > longest {
		key = key[:longest] + "…"
	}
	quoted := strconv.Quote(key)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// quote shows a value, if it is short enough for a line.
func quote(s string) string {
	const longest = 60
	if len(s) > longest {
		cut := longest
		for cut > 0 && s[cut]&0xc0 == 0x80 { // within a character
			cut--
		}
		return fmt.Sprintf("%q…", s[:cut])
	}
	return fmt.Sprintf("%q", s)
}

// unmarked takes out what parts words.
var unmarked = strings.NewReplacer("-", "", "_", "", " ", "")

// nearest gives which of the names somebody may have meant; "" where none is close.
func nearest(name string, names []string) string {
	plain := func(s string) string { return unmarked.Replace(strings.ToLower(s)) }
	if len(name) > 40 {
		return ""
	}
	best, least := "", 1+len(name)/3
	for _, n := range names {
		d := distance(plain(name), plain(n))
		if p := plain(name); len(p) >= 3 && strings.HasPrefix(plain(n), p) {
			d = min(d, 1) // the beginning of it
		}
		if d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is how many letters must be added, taken out, changed or swapped with
// their neighbours to make b of a.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
