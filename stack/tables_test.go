//go:build routing || tuning

package main

import (
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
)

var updateTables = flag.Bool("update", false, "write the measured tables into the docs")

// document holds a measured table against the one between two marks of a document, or
// writes it there. Target is what of the Makefile does so; numbers may differ by the
// share.
func document(t *testing.T, doc, begin, end, target string, share float64, measured string) {
	t.Helper()
	fmt.Print(measured)
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no %q … %q", doc, begin, end)
	}
	if *updateTables {
		if err := os.WriteFile(doc, []byte(before+begin+measured+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	said, now := strings.Split(table, "\n"), strings.Split(measured, "\n")
	if len(said) != len(now) {
		t.Fatalf("%s has %d rows after %q, want %d; make %s ARGS=-update writes them", doc, len(said)-1, begin, len(now)-1, target)
	}
	for i := range said {
		if !alike(said[i], now[i], share) {
			t.Errorf("%s says\n%s\nmeasured\n%s\nmake %s ARGS=-update writes it", doc, said[i], now[i], target)
		}
	}
}

// alike compares rows: words must be the same, numbers so but for a share, or 2.
func alike(a, b string, share float64) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		var m, n float64
		_, err := fmt.Sscan(x[i], &m)
		_, err2 := fmt.Sscan(y[i], &n)
		if err != nil || err2 != nil {
			if x[i] != y[i] {
				return false
			}
		} else if math.Abs(m-n) > max(2, share*max(m, n)) {
			return false
		}
	}
	return true
}
