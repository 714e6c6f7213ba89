package main

import (
	"os"
	"path"
	"regexp"
	"strings"
)

// link is a link of a page to another file: its text's end, the file, and where in it.
var link = regexp.MustCompile(`\]\(([^)\s#:]+)(#[^)\s]*)?\)`)

// leadOut has links of the pages lead to the repository, at this commit, where the
// archive has not what they name: the repository's own matters, and sources.
func leadOut(files []file, commit string) error {
	there := map[string]bool{}
	for _, f := range files {
		for p := f.path; p != "."; p = path.Dir(p) { // folders too
			there[p] = true
		}
	}
	for i, f := range files {
		if !strings.HasSuffix(f.path, ".md") {
			continue
		}
		text := f.data
		if f.from != "" {
			var err error
			if text, err = os.ReadFile(f.from); err != nil {
				return err
			}
		}
		files[i].from = ""
		files[i].data = link.ReplaceAllFunc(text, func(whole []byte) []byte {
			m := link.FindSubmatch(whole)
			to := path.Join(path.Dir(f.path), string(m[1]))
			if there[to] {
				return whole
			}
			return []byte("](https://" + ours + "/blob/" + commit + "/" + to + string(m[2]) + ")")
		})
	}
	return nil
}
