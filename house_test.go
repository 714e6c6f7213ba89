// Package house holds the walls of docs/design.md: which room may import which.
package house

import (
	"debug/elf"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/vllm-gateway/vllm-gateway/"

// rooms is the table of docs/design.md: what each room may reach, however
// indirectly, of ours and of others'. "…" stands for what a library itself needs.
var rooms = map[string]struct {
	ours   []string
	others []string
}{
	"alerts":               {},
	"dashboards":           {},
	"docs":                 {},
	"internal/openai":      {},
	"internal/memnet":      {},
	"internal/http1":       {others: []string{"golang.org/x/net/http/httpguts"}},
	"internal/image":       {},
	"images":               {ours: []string{"internal/image"}},
	"release":              {},
	"internal/commandline": {others: []string{"github.com/alecthomas/kong"}},
	"internal/daemon":      {ours: []string{"internal/http1"}},
	"internal/secret":      {},
	"internal/limits":      {ours: []string{"internal/secret"}, others: []string{"github.com/redis/go-redis"}},
	"internal/config":      {ours: []string{"internal/daemon", "internal/secret"}, others: []string{"go.yaml.in/yaml/v3"}},
	"internal/gateway":     {ours: []string{"internal/http1", "internal/openai", "internal/limits", "internal/secret"}, others: []string{"github.com/prometheus/client_golang", "go.opentelemetry.io/otel/trace", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes", "go.opentelemetry.io/otel/propagation"}}, // OpenTelemetry's API; its SDK is for internal/tracing alone
	"internal/tracing":     {others: []string{"go.opentelemetry.io/otel"}},
	"internal/gpu":         {others: []string{"github.com/prometheus/client_golang", "github.com/prometheus/client_model", "github.com/ebitengine/purego"}},
	"internal/verdict":     {},
	"internal/vllmsim":     {ours: []string{"internal/openai"}, others: []string{"github.com/prometheus/client_golang"}},
	"cmd/vllm-gateway":     {ours: []string{"internal/commandline", "internal/config", "internal/daemon", "internal/gateway", "internal/limits", "internal/secret", "internal/tracing"}},
	"cmd/gpu-exporter":     {ours: []string{"internal/commandline", "internal/daemon", "internal/gpu"}},
	"cmd/vllm-verdict":     {ours: []string{"internal/commandline", "internal/daemon", "internal/verdict"}},
	"bench":                {ours: []string{"bench/mock", "bench/rig"}},
	"bench/wire":           {},
	"bench/mock":           {ours: []string{"bench/wire"}},
	"bench/load":           {ours: []string{"bench/wire"}},
	"bench/rig":            {ours: []string{"bench/load", "bench/wire"}},
	"bench/reverseproxy":   {},
	"cmd/vllm-sim":         {ours: []string{"internal/commandline", "internal/daemon", "internal/vllmsim"}},
}

// noRooms are the tests that stand alone: this one, and those that run the
// binaries.
var noRooms = []string{"", "loadtests", "reliability", "systemd", "vllm"}

func TestWalls(t *testing.T) {
	for _, pkg := range list(t, "{{.ImportPath}}", "./...") {
		name := strings.TrimPrefix(pkg+"/", module)
		name = strings.TrimSuffix(name, "/")
		if _, ok := rooms[name]; !ok && !slices.Contains(noRooms, name) {
			t.Errorf("%s: a room without a row in this table", name)
		}
	}
	for name, may := range rooms {
		for _, imported := range list(t, `{{join .Imports "\n"}}`, "./"+name) {
			if ours, ok := strings.CutPrefix(imported, module); ok {
				if !slices.Contains(may.ours, ours) {
					t.Errorf("%s imports %s", name, ours)
				}
				continue
			}
			if strings.Contains(strings.Split(imported, "/")[0], ".") && !slices.ContainsFunc(may.others, func(lib string) bool { return strings.HasPrefix(imported, lib) }) {
				t.Errorf("%s imports %s", name, imported)
			}
		}
	}
}

// docs/design.md has a line for each library that a go.mod names, with its licence.
func TestLibrariesAreListed(t *testing.T) {
	doc, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, listed, ok := strings.Cut(string(doc), "## Libraries")
	mods, _ := filepath.Glob("*/go.mod")
	if !ok || len(mods) < 3 {
		t.Fatalf("no list of libraries, or no modules but %v", mods)
	}
	for _, mod := range append(mods, "go.mod") {
		text, err := os.ReadFile(mod)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range regexp.MustCompile(`(?m)^(?:\t|require )([^\s(]+) v\S+$`).FindAllStringSubmatch(string(text), -1) {
			if name := line[1]; !strings.HasPrefix(name+"/", module) && !isListed(listed, name) {
				t.Errorf("%s needs %s, of which docs/design.md says nothing", mod, name)
			}
		}
	}
}

// isListed reports whether a list has a module, or the family that it is of: a part of
// its path, down to what is somebody's alone.
func isListed(list, name string) bool {
	shortest := 2 // go.opentelemetry.io/otel
	if strings.HasPrefix(name, "github.com/") {
		shortest = 3
	}
	for ; strings.Count(name, "/") >= shortest-1; name = path.Dir(name) {
		if regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`).MatchString(list) {
			return true
		}
	}
	return false
}

// What must never be linked into the gateway, by whatever way.
func TestGatewayBinaryStaysSmall(t *testing.T) {
	for _, dep := range list(t, "{{.ImportPath}}", "-deps", "./cmd/vllm-gateway") {
		for _, banned := range []string{"github.com/prometheus/prometheus", "github.com/ebitengine/purego", "go.k6.io", module + "internal/gpu", module + "internal/vllmsim", module + "internal/memnet", "testing"} {
			if dep == banned || strings.HasPrefix(dep, banned+"/") {
				t.Errorf("the gateway's binary holds %s", dep)
			}
		}
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "./cmd/...")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("CGO_ENABLED=0: %v\n%s", err, out)
	}
	binary, err := elf.Open(dir + "/vllm-gateway")
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	if libraries, err := binary.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("the gateway's binary is not static: it needs %v, %v", libraries, err)
	}
}

func list(t *testing.T, format string, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-f", format}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}
