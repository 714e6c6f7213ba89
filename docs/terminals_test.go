package docs

import (
	"context"
	"strings"
	"testing"
	"time"
)

// typed has a block run; what it waits for in vain it does not wait for long.
func typed(t *testing.T, terminals *Terminals, b Block) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return terminals.Run(ctx, b)
}

func TestTerminals(t *testing.T) {
	terminals := &Terminals{Dir: t.TempDir()}
	for script, want := range map[string]string{
		"echo said; false":  "exit status 1; it printed\nsaid\n",
		"false | cat":       "exit status 1",
		"echo said 2 of it": `it does not print "all 2", but`,
		"echo $unset":       "unset",
	} {
		if _, err := typed(t, terminals, Block{Script: script, Prints: "all 2"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", script, err, want)
		}
	}
	if said, err := typed(t, terminals, Block{Script: "echo all 3", Prints: "all 2"}); err != nil || said != "all 3\n" {
		t.Errorf("%q, %v", said, err)
	}
	if _, err := typed(t, terminals, Block{Terminal: "a", Script: "echo up", Prints: "never"}); err == nil || !strings.Contains(err.Error(), "it should go on, and has ended") {
		t.Error(err)
	}
}

// What goes on makes way for the next command in its terminal, by Ctrl-C.
func TestTerminalsMakeWay(t *testing.T) {
	dir := t.TempDir()
	terminals := &Terminals{Dir: dir}
	first := Block{Terminal: "a", Script: "trap 'echo bye >bye; exit 130' INT\necho up\nwhile :; do sleep 0.05; done", Prints: "up"}
	second := Block{Terminal: "a", Script: "cat bye\nexec sleep 1000", Prints: "bye"}
	for _, b := range []Block{first, second} {
		if _, err := typed(t, terminals, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := terminals.Close(); err != nil { // ended by the signal itself
		t.Error(err)
	}

	fails := Block{Terminal: "a", Script: "trap 'exit 3' INT\necho up\nwhile :; do sleep 0.05; done", Prints: "up"}
	if _, err := typed(t, terminals, fails); err != nil {
		t.Fatal(err)
	}
	if err := terminals.Close(); err == nil || !strings.Contains(err.Error(), "it ends by Ctrl-C with exit status 3") {
		t.Error(err)
	}
}
