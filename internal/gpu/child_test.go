//go:build linux

package gpu

import (
	"os/exec"
	"testing"
	"time"
)

// What a child leaves behind is ended before another may start, also if it does
// not want to go.
func TestChildLeavesNobody(t *testing.T) {
	t.Parallel()
	kids := &children{}
	k, err := kids.start(exec.Command("sh", "-c", "trap '' TERM; sleep 86399 & exit 0"))
	if err != nil {
		t.Fatal(err)
	}
	if !k.goneWithin(20*time.Second) || !k.killed || kids.stuck() != 0 {
		t.Errorf("killed %v, %d stuck", k.killed, kids.stuck())
	}
}
