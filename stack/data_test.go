package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A folder is for one kind of data, for good, and for as long as it can be
// written.
func TestClaim(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for _, c := range []struct {
		simulated bool
		want      string
	}{{true, ""}, {true, ""}, {false, "holds simulated data"}, {true, ""}} {
		if err := claim(dir, c.simulated); err == nil != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("simulated %v: %v, want %q", c.simulated, err, c.want)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 || left[0].Name() != kindFile {
		t.Errorf("left there: %v", left)
	}
	file := filepath.Join(dir, kindFile)
	for _, bad := range []string{file, filepath.Join(file, "below")} {
		if err := claim(bad, true); err == nil || err.Error() != "not a folder" {
			t.Errorf("%s: %v, want not a folder", bad, err)
		}
	}
	if err := claim("/proc/sys/nothing", true); err == nil {
		t.Error("a folder where none can be: claimed")
	}
}
