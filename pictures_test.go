package house

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var stamp = flag.Bool("stamp", false, "write into the pictures of docs/ that they are of what is there now")

// The pictures that `make screenshots` takes, and what decides how each looks.
var pictures = map[string]func(*testing.T) string{
	"docs/dashboard.png":      dashboardLook,
	"docs/dashboard-dark.png": dashboardLook,
	"docs/verdict.png":        reportLook,
	"docs/verdict-time.png":   reportLook,
}

// A picture says of what it was taken, and is out of date when that has changed.
func TestPicturesAreCurrent(t *testing.T) {
	all, err := filepath.Glob("docs/*.png")
	if err != nil {
		t.Fatal(err)
	}
	if want := slices.Sorted(maps.Keys(pictures)); !slices.Equal(all, want) {
		t.Errorf("in docs/ are the pictures %v; make screenshots takes %v", all, want)
	}
	for name, look := range pictures {
		picture, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		rest, of := stamped(t, name, picture)
		switch now := look(t); {
		case *stamp:
			if err := os.WriteFile(name, stampOn(rest, now), 0o644); err != nil {
				t.Error(err)
			}
		case of != now:
			t.Errorf(`%s was taken of another page: make screenshots
takes it anew, which needs Chromium (on Debian: apt-get install chromium) and eight minutes.
If what you have changed cannot be seen on it, say so: go test -run Pictures . -stamp`, name)
		}
	}
}

// dashboardLook changes with the page, and with the dashboard's panels above its first
// row, but for what they say when asked.
func dashboardLook(t *testing.T) string {
	h := sha256.New()
	if err := filepath.WalkDir("stack/page/assets", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LICENSE" {
			return err
		}
		text, err := os.ReadFile(path)
		h.Write(text)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("dashboards/vllm-gateway.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Title, Refresh, Time, Templating, Annotations any
		Panels                                        []map[string]any
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	row := slices.IndexFunc(board.Panels, func(p map[string]any) bool { return p["type"] == "row" })
	if row < 0 {
		t.Fatal("dashboards/vllm-gateway.json has no row")
	}
	board.Panels = board.Panels[:row]
	for _, p := range board.Panels {
		delete(p, "description")
	}
	text, err = json.Marshal(board) // keys in order
	if err != nil {
		t.Fatal(err)
	}
	h.Write(text)
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// reportLook changes with the report that internal/verdict's own test compares to the byte.
func reportLook(t *testing.T) string {
	text, err := os.ReadFile("internal/verdict/testdata/report-baseline.html")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

const stampKey = "Taken of\x00"

// stamped takes a PNG's text chunk of what it was taken of out of it: empty if it has none.
func stamped(t *testing.T, name string, picture []byte) (rest []byte, of string) {
	const head = "\x89PNG\r\n\x1a\n"
	chunks, ok := bytes.CutPrefix(picture, []byte(head))
	if !ok {
		t.Fatalf("%s is no PNG", name)
	}
	rest = []byte(head)
	for len(chunks) >= 12 { // length, kind, content, sum
		n := 12 + int(binary.BigEndian.Uint32(chunks))
		if n > len(chunks) {
			break
		}
		if text, ok := strings.CutPrefix(string(chunks[4:n-4]), "tEXt"+stampKey); ok {
			of = text
		} else {
			rest = append(rest, chunks[:n]...)
		}
		chunks = chunks[n:]
	}
	if len(chunks) > 0 {
		t.Fatalf("%s is cut short", name)
	}
	return rest, of
}

// stampOn writes such a chunk before a PNG's last one, which is always the same.
func stampOn(picture []byte, of string) []byte {
	content := []byte("tEXt" + stampKey + of)
	chunk := binary.BigEndian.AppendUint32(nil, uint32(len(content)-4))
	chunk = binary.BigEndian.AppendUint32(append(chunk, content...), crc32.ChecksumIEEE(content))
	return slices.Insert(picture, len(picture)-12, chunk...)
}
