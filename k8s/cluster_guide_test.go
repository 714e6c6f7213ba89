//go:build cluster

package k8s

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/docs"
)

// The guide's commands for a cluster, each typed once, by the step that it belongs to.
// What goes on runs to the end of the whole test.
var (
	terminals = &docs.Terminals{Dir: ".."}
	typed     = map[docs.Block]bool{}
)

// elsewhere puts the guide's port-forwards on other ports of this machine, which is the
// node: its own have them already.
var elsewhere = strings.NewReplacer(
	" 9090:9090", " 19090:9090", "127.0.0.1:9090 ", "127.0.0.1:19090 ",
	" 3000:3000", " 13000:3000", "127.0.0.1:3000 ", "127.0.0.1:13000 ")

// underHeading are the commands for a cluster under one heading of the guide.
func underHeading(t *testing.T, heading string) []docs.Block {
	t.Helper()
	blocks, err := docs.Blocks()
	if err != nil {
		t.Fatal(err)
	}
	var found []docs.Block
	for _, b := range blocks {
		if b.Place == docs.Cluster && b.Heading == heading {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		t.Fatalf("the guide has no commands for a cluster under %q", heading)
	}
	return found
}

// enter runs one block as the guide has it.
func enter(t *testing.T, b docs.Block) string {
	t.Helper()
	typed[b] = true
	b.Script, b.Prints = elsewhere.Replace(b.Script), elsewhere.Replace(b.Prints)
	limit := 3 * time.Minute
	if b.Terminal != "" {
		limit = 20 * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	printed, err := terminals.Run(ctx, b)
	if err != nil {
		t.Fatalf("%v\n%s", err, state())
	}
	return printed
}

// guideSays types all that stands under a heading.
func guideSays(t *testing.T, heading string) {
	t.Helper()
	for _, b := range underHeading(t, heading) {
		t.Logf("%v\n%s", b, enter(t, b))
	}
}

// wholeGuide: nothing of it has been left out.
func wholeGuide(t *testing.T) {
	blocks, err := docs.Blocks()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, b := range blocks {
		if b.Place != docs.Cluster {
			continue
		}
		if n++; !typed[b] {
			if *local {
				t.Errorf("%v: no step has typed it", b)
			} else {
				t.Logf("%v: not typed, the node is not this machine", b)
			}
		}
	}
	t.Logf("%d of the guide's %d blocks for a cluster typed", len(typed), n)
}
