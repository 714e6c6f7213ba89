package docs

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	text := strings.ReplaceAll(`# One

Words.

~~~bash terminal=stack
make up
~~~

~~~text
up
~~~

## Two

1. In a list

   ~~~bash cluster
   kubectl get pods

   kubectl get svc
   ~~~

Words between.

~~~text
no output of that one
~~~

~~~bash needs=GPU
nvidia-smi
~~~

~~~yaml
a: 1
~~~
`, "~~~", "```")
	got, err := parse("a.md", text)
	if err != nil {
		t.Fatal(err)
	}
	want := []Block{
		{File: "a.md", Line: 6, Heading: "One", Place: Here, Terminal: "stack", Script: "make up\n", Prints: "up\n"},
		{File: "a.md", Line: 18, Heading: "Two", Place: Cluster, Script: "kubectl get pods\n\nkubectl get svc\n"},
		{File: "a.md", Line: 30, Heading: "Two", Place: Elsewhere, Needs: "GPU", Script: "nvidia-smi\n"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%#v\nwant\n%#v", got, want)
	}
	for text, want := range map[string]string{
		"```bash hardware\nx\n```\n": "a.md:1: bash hardware: the words are cluster,",
		"```bash needs=luck\n```\n":  "a.md:1: bash needs=luck:",
		"\n```\nx\n```\n":            "a.md:2: this block has no language",
		"```bash\nx\n":               "a.md:1: this block has no end",
	} {
		if _, err := parse("a.md", text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s…", text, err, want)
		}
	}
}

func TestMissing(t *testing.T) {
	for _, tt := range []struct{ prints, printed, missing string }{
		{"NAME   PORT(S)          AGE\nx-xxx  9090:30090/TCP   2m", "NAME  PORT(S)  AGE\np-7f9x 9090:30090/TCP 1m12s\n", ""},
		{"9090:30090/TCP", "9090:30091/TCP", "9090:30090/TCP"},
		{"'p(95)<2000' p(95)=1.2s", "  'p(95)<2000' p(95)=890.5ms\n", ""},
		{"'p(95)<2000' p(95)=1.2s", "'p(95)<3000' p(95)=890ms", "'p(95)<2000' p(95)=1.2s"},
		{"10.x.x.x", "10.96.0.1", ""},
		{"b\na", "a\nb\n", "a"},
		{"…\n\na … c", "more\na b c\n", ""},
		{"a … c", "a b d", "a … c"},
		{"a", "ab", "a"},
		{"1 of 3", "many of 3", "1 of 3"},
	} {
		if got := (Block{Prints: tt.prints}).Missing(tt.printed); got != tt.missing {
			t.Errorf("prints %q, printed %q: missing %q, want %q", tt.prints, tt.printed, got, tt.missing)
		}
	}
}

// The guide has commands for each place, and says what those print that go on: by that
// the test knows that they have begun.
func TestGuideCanBeRun(t *testing.T) {
	blocks, err := Blocks()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := parse("README.md", string(text))
	if err != nil {
		t.Fatal(err)
	}
	blocks = append(blocks, readme...)
	count := map[Place]int{}
	for _, b := range blocks {
		count[b.Place]++
		if b.Terminal != "" && b.Prints == "" {
			t.Errorf("%v goes on, and the guide does not say what it prints when it has begun", b)
		}
		if strings.Contains(b.Script, "NAMESPACE") || strings.Contains(b.Script, "…\n") && b.Place != Elsewhere && !strings.Contains(b.Script, "<<END") {
			t.Errorf("%v cannot be typed as it stands", b)
		}
	}
	for _, place := range []Place{Here, Cluster, Elsewhere} {
		if count[place] < 5 {
			t.Errorf("%d blocks for %s: are they still marked as docs.go says?", count[place], place)
		}
	}
}
