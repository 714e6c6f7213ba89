package daemon

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFilesRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "12345")
	var f Files
	if data, err := f.Read(path, 5); string(data) != "12345" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		path  string
		limit int64
		want  string
	}{
		"too large": {path, 4, "too large"},
		"a folder":  {dir, 99, "it is a folder"},
		"missing":   {path + "x", 99, "there is no such file"},
		"a pipe":    {pipe, 99, "no regular file"},
		"a device":  {"/dev/zero", 99, "no regular file"},
	} {
		if _, err := f.Read(tt.path, tt.limit); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A file that two things name, and that changes between, is not taken half and half.
func TestFilesReadTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "a")
	var f Files
	f.Read(path, 99)
	write(t, path, "bb")
	if f.Read(path, 99); f.settled() {
		t.Error("the change was not seen")
	}
}

// A file that was read as soon as it was written may change without another look: its
// time may be the same. So it is looked into once more.
func TestYoung(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "a")
	var f Files
	f.Read(path, 99)
	if !f.anyYoung() {
		t.Error("a file that was just written is not young")
	}
	l := lookAt("files_test.go")
	synctest.Test(t, func(t *testing.T) { // whose clock is before the file's
		if l.young() {
			t.Error("a file of the future is young, for as long as the clocks differ")
		}
	})
}

// Then it is looked into by Follow, once, and nothing is done if it holds the same.
func TestFollowYoung(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "a")
	written := lookAt(path).info.ModTime()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(written.Add(50 * time.Millisecond)))
		var loads, applied atomic.Int32
		load := func(files *Files) func() {
			loads.Add(1)
			files.Read(path, 99)
			return func() { applied.Add(1) }
		}
		first := &Files{}
		first.Read(path, 99)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { first.Follow(ctx, nil, load); close(done) }()
		time.Sleep(20 * pollEvery)
		synctest.Wait()
		if loads.Load() != 1 || applied.Load() != 0 {
			t.Errorf("loaded %d times, applied %d", loads.Load(), applied.Load())
		}
		cancel()
		<-done
	})
}

// followed is a Follow in virtual time of one file, and what it has applied.
type followed struct {
	path string
	ask  chan os.Signal
	mu   sync.Mutex
	got  []string
	read int
}

func follow(t *testing.T, path string, test func(f *followed)) {
	synctest.Test(t, func(t *testing.T) {
		f := &followed{path: path, ask: make(chan os.Signal, 1)}
		load := func(files *Files) func() {
			f.mu.Lock()
			f.read++
			f.mu.Unlock()
			data, err := files.Read(f.path, 99)
			text := string(data)
			if err != nil {
				text = err.Error()
			}
			return func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.got = append(f.got, text)
			}
		}
		first := &Files{}
		load(first)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { first.Follow(ctx, f.ask, load); close(done) }()
		test(f)
		cancel()
		<-done
	})
}

// after waits for some looks.
func (f *followed) after(t *testing.T, looks int, want ...string) {
	t.Helper()
	time.Sleep(time.Duration(looks)*pollEvery + pollEvery/2 - time.Duration(time.Now().UnixNano())%pollEvery)
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if strings.Join(f.got, ",") != strings.Join(want, ",") {
		t.Errorf("after %d looks: %q; want %q", looks, f.got, want)
	}
}

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "a")
	follow(t, path, func(f *followed) {
		f.after(t, 3)
		write(t, path, "b")
		f.after(t, 1) // it may still be written
		f.after(t, 1, "b")
		f.after(t, 3, "b")

		write(t, path, "half")
		f.after(t, 1, "b")
		write(t, path, "half and half")
		f.after(t, 1, "b")
		f.after(t, 1, "b", "half and half")

		f.mu.Lock()
		read := f.read
		f.mu.Unlock()
		now := time.Now()
		os.Chtimes(path, now, now) // touched
		f.after(t, 3, "b", "half and half")
		f.mu.Lock()
		if f.read == read {
			t.Error("a file that was touched was not looked into")
		}
		f.mu.Unlock()

		os.Remove(path)
		f.after(t, 1, "b", "half and half")
		write(t, path, "half and half") // it was away for a moment
		f.after(t, 3, "b", "half and half")

		os.Remove(path)
		f.after(t, 5, "b", "half and half", "there is no such file") // once
		write(t, path, "c")
		f.after(t, 3, "b", "half and half", "there is no such file", "c")

		f.ask <- syscall.SIGHUP
		synctest.Wait()
		f.after(t, 0, "b", "half and half", "there is no such file", "c", "c")
	})
}

// The way in which Kubernetes changes the files of a ConfigMap.
func TestFollowConfigMap(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{"1", "2"} {
		os.Mkdir(filepath.Join(dir, v), 0o755)
		write(t, filepath.Join(dir, v, "f"), v)
	}
	swap := func(to string) {
		os.Symlink(to, filepath.Join(dir, "..data_tmp"))
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	swap("1")
	os.Symlink(filepath.Join("..data", "f"), filepath.Join(dir, "f"))
	follow(t, filepath.Join(dir, "f"), func(f *followed) {
		f.after(t, 2)
		swap("2")
		f.after(t, 2, "2")
		swap("1")
		f.after(t, 2, "2", "1")
	})
}

// What was written while it was read is not taken, but read again.
func TestFollowWhileItIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	other := filepath.Join(t.TempDir(), "g")
	write(t, path, "a")
	write(t, other, "a")
	synctest.Test(t, func(t *testing.T) {
		var got []string
		disturb := 0
		load := func(files *Files) func() {
			a, _ := files.Read(path, 99)
			if disturb > 0 { // the second file is of another version than the first
				disturb--
				write(t, path, strings.Repeat("b", 5-disturb))
			}
			b, _ := files.Read(other, 99)
			return func() { got = append(got, string(a)+string(b)) }
		}
		first := &Files{}
		load(first)
		disturb = 2
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		ask := make(chan os.Signal, 1)
		go func() { first.Follow(ctx, ask, load); close(done) }()
		ask <- syscall.SIGHUP
		time.Sleep(10 * pollEvery)
		synctest.Wait()
		if len(got) != 1 || got[0] != "bbbbba" {
			t.Errorf("%q", got)
		}
		cancel()
		<-done
	})
}
