package main

import (
	"os"
	"path/filepath"
	"testing"
)

// What is in the archive is linked there, the rest in the repository; nothing else
// of a page is changed.
func TestLeadOut(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	const text = "[a](stack.md#gpus) [b](../README.md) [c](../cmd/x/main.go#L3) [d](https://example.com/x.md) [e](#here) [f](../alerts) [g](../systemd/README.md) ![h](p.png)\n"
	const want = "[a](stack.md#gpus) [b](../README.md) [c](https://github.com/vllm-gateway/vllm-gateway/blob/c0ffee/cmd/x/main.go#L3) [d](https://example.com/x.md) [e](#here) [f](../alerts) [g](https://github.com/vllm-gateway/vllm-gateway/blob/c0ffee/systemd/README.md) ![h](p.png)\n"
	if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	files := []file{
		{path: "docs/metrics.md", from: page}, {path: "docs/stack.md", data: []byte("[x](gone.md)")}, {path: "README.md", data: []byte("x")},
		{path: "alerts/alerts.yml", from: "nowhere"}, {path: "docs/p.png", from: "nowhere"},
	}
	if err := leadOut(files, "c0ffee"); err != nil {
		t.Fatal(err)
	}
	if got := string(files[0].data); got != want || files[0].from != "" {
		t.Errorf("it is\n%s, want\n%s", got, want)
	}
	if got := string(files[1].data); got != "[x](https://github.com/vllm-gateway/vllm-gateway/blob/c0ffee/docs/gone.md)" {
		t.Errorf("data: %s", got)
	}
	if err := leadOut([]file{{path: "x.md", from: "nowhere"}}, "c0ffee"); err == nil {
		t.Error("a page that cannot be read is no error")
	}
}

// Each link of the pages as they are leads to something.
func TestPagesLeadOut(t *testing.T) {
	files, err := fromRepository(platforms[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := leadOut(files, "c0ffee"); err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, f := range files {
		there[f.path] = true
	}
	pages := 0
	for _, f := range files {
		if f.data == nil {
			continue
		}
		pages++
		for _, m := range link.FindAllSubmatch(f.data, -1) {
			if to := filepath.Join(filepath.Dir(f.path), string(m[1])); !there[to] {
				if info, err := os.Stat(to); err != nil || !info.IsDir() {
					t.Errorf("%s: %s is not in the archive", f.path, m[1])
				}
			}
		}
	}
	if pages < 15 {
		t.Errorf("only %d pages", pages)
	}
}
