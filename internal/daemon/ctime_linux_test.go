package daemon

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Who sets a file's time back (cp -p, rsync) cannot set back when it was changed.
func TestLookSeesWhatWasSetBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "a")
	before := lookAt(path)
	for deadline := time.Now().Add(20 * time.Second); lookAt(path).equal(before); { // the clock of files has steps
		if time.Now().After(deadline) {
			t.Fatal("a change was not seen")
		}
		write(t, path, "b")
		os.Chtimes(path, before.info.ModTime(), before.info.ModTime())
	}
	if !lookAt(path).info.ModTime().Equal(before.info.ModTime()) {
		t.Error("the time is another; nothing was tried")
	}
}
