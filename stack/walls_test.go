package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The rooms of this module: which of ours each may import, and whether it may
// import Prometheus. The root module's house_test.go holds the others.
func TestWalls(t *testing.T) {
	const module, prometheus = "github.com/vllm-gateway/vllm-gateway/", "github.com/prometheus/"
	all := []string{"alerts", "dashboards", "internal/commandline", "internal/daemon", "internal/gateway", "internal/gpu", "internal/vllmsim", "stack/monitor", "stack/page"}
	for room, may := range map[string]struct {
		ours       []string
		prometheus bool
	}{
		".":         {all, true},
		"./monitor": {nil, true},
		"./page":    {nil, false},
	} {
		out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, room).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, imported := range strings.Fields(string(out)) {
			if ours, ok := strings.CutPrefix(imported, module); ok && !slices.Contains(may.ours, ours) {
				t.Errorf("%s imports %s", room, ours)
			}
			if strings.HasPrefix(imported, prometheus) && !may.prometheus {
				t.Errorf("%s imports %s", room, imported)
			}
		}
	}
}
