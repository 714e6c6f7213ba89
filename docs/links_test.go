package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	link   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	code   = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	markup = regexp.MustCompile("[^a-z0-9 _-]")
)

// Every link of every page leads to a file that there is, and to a heading in it.
func TestLinks(t *testing.T) {
	pages := pages(t)
	if len(pages) < 10 {
		t.Fatalf("only %q", pages)
	}
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join("..", page))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(string(text), ""), -1) {
			to := m[1]
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(to, "#")
			path := filepath.Join("..", page)
			if file != "" {
				path = filepath.Join("..", filepath.Dir(page), file)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: there is no %s", page, to)
				continue
			}
			if anchor != "" && !anchors(t, path)[anchor] {
				t.Errorf("%s: %s has no heading #%s", page, filepath.Base(path), anchor)
			}
		}
	}
}

// pages are all of ours, in the order of their paths. git is not asked: whoever has the
// sources without it may test them, too.
func pages(t *testing.T) (all []string) {
	t.Helper()
	others := []string{"node_modules", "bin", "results", "data", "dist"} // as in .gitignore
	err := fs.WalkDir(os.DirFS(".."), ".", func(path string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(name, ".") || slices.Contains(others, name)):
			return fs.SkipDir
		case strings.HasSuffix(name, ".md"):
			all = append(all, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// anchors are those that GitHub gives a page's headings.
func anchors(t *testing.T, path string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	fenced := regexp.MustCompile("(?ms)^ *```.*?^ *```").ReplaceAllString(string(text), "")
	for _, line := range strings.Split(fenced, "\n") {
		if m := heading.FindStringSubmatch(line); m != nil {
			name := strings.ReplaceAll(markup.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
			found[name] = true
		}
	}
	return found
}
