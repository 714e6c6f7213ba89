// Package loadtests holds the k6 scripts and the proofs that they see what they
// claim to see. The proofs that need k6 itself run with -tags k6.
package loadtests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// k6 fetches an import by URL, and builds an unknown extension, over the
// network; neither works where there is none.
func TestScriptsRunOffline(t *testing.T) {
	scripts, err := filepath.Glob("*.js")
	if err != nil || len(scripts) < 2 {
		t.Fatalf("found the scripts %v, %v", scripts, err)
	}
	from := regexp.MustCompile(`(?m)^(?:import|export)\b[^;]*?from\s+['"]([^'"]+)['"]|^import\s+['"]([^'"]+)['"]`)
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range from.FindAllStringSubmatch(string(text), -1) {
			name := m[1] + m[2]
			if sibling, ok := strings.CutPrefix(name, "./"); ok {
				if _, err := os.Stat(sibling); err != nil || strings.Contains(sibling, "/") {
					t.Errorf("%s imports %q, which is not a file beside it", script, name)
				}
				continue
			}
			if name != "k6" && !strings.HasPrefix(name, "k6/") || strings.HasPrefix(name, "k6/x/") {
				t.Errorf("%s imports %q, which stock k6 would look for on the network", script, name)
			}
		}
	}
}

// A lock file that names a registry host sends everyone else to that host.
func TestLockFileNamesNoHost(t *testing.T) {
	text, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "://") {
		t.Error("package-lock.json contains URLs; npm writes none while .npmrc says omit-lockfile-registry-resolved=true")
	}
}
