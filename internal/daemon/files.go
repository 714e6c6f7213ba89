package daemon

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// Files are files as they were when they were read, so that it can be told when they
// are different. The zero Files has none.
type Files struct {
	read map[string]reading
}

// reading is what is remembered of a file.
type reading struct {
	look look
	sum  [sha256.Size]byte // of what was in it
	// young: it was read so soon after it had been written that what is written to it
	// next need not alter its look.
	young bool
}

// coarse is more than the steps in which file systems tell the time.
const coarse = 2 * time.Second

// look is how a file looks from outside. A file that cannot be looked at looks
// different from every one that can.
type look struct {
	info    fs.FileInfo
	changed time.Time // its ctime, where the system has one: cp -p sets all else
	err     string
}

// lookAt follows links: in Kubernetes a file is a link into a folder that is a link,
// and what changes is the latter.
func lookAt(path string) look {
	info, err := os.Stat(path)
	if err != nil {
		return look{err: err.Error()}
	}
	return look{info: info, changed: ctime(info)}
}

func (l look) equal(other look) bool {
	if l.info == nil || other.info == nil {
		return l.info == nil && other.info == nil && l.err == other.err
	}
	return os.SameFile(l.info, other.info) && l.info.Size() == other.info.Size() && l.info.ModTime().Equal(other.info.ModTime()) && l.changed.Equal(other.changed)
}

func (l look) young() bool {
	if l.info == nil {
		return false
	}
	written := l.info.ModTime()
	if l.changed.After(written) {
		written = l.changed
	}
	age := time.Since(written)
	return 0 <= age && age < coarse
}

// errMoving: the file was being written as it was read.
var errMoving = errors.New("it is being written just now; try again")

// Read gives what is in a file of at most limit bytes, and remembers how the file
// looked. The error says what is the matter with it, without its name.
func (f *Files) Read(path string, limit int64) ([]byte, error) {
	before := lookAt(path)
	data, err := readRegular(path, limit)
	if err == nil && !lookAt(path).equal(before) {
		err = errMoving
	}
	if f.read == nil {
		f.read = map[string]reading{}
	}
	if _, again := f.read[path]; !again { // the first look counts: what is another by the second has changed
		f.read[path] = reading{before, sha256.Sum256(data), before.young()}
	}
	return data, err
}

func readRegular(path string, limit int64) ([]byte, error) {
	// Without O_NONBLOCK a named pipe that nobody writes to would be waited for.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("there is no such file")
	case errors.Is(err, fs.ErrPermission):
		return nil, errors.New("this process may not read it")
	case err != nil:
		return nil, reason(err)
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, reason(err)
	case info.IsDir():
		return nil, errors.New("it is a folder; name a file in it")
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no regular file, and so cannot be read again when it changes")
	case info.Size() > limit:
		return nil, tooLarge(limit)
	}
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	switch {
	case err != nil:
		return nil, reason(err)
	case int64(len(data)) > limit:
		return nil, tooLarge(limit)
	}
	return data, nil
}

// reason is an error without the name of the file.
func reason(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

func tooLarge(limit int64) error {
	if limit < 1<<20 {
		return fmt.Errorf("it is too large: at most %d KiB are taken", limit>>10)
	}
	return fmt.Errorf("it is too large: at most %d MiB are taken", limit>>20)
}

// settled reports whether all files look as they did when they were read.
func (f *Files) settled() bool {
	for path, r := range f.read {
		if !lookAt(path).equal(r.look) {
			return false
		}
	}
	return true
}

// now is how the files look.
func (f *Files) now() map[string]look {
	looks := map[string]look{}
	for path := range f.read {
		looks[path] = lookAt(path)
	}
	return looks
}

// same reports whether the same files held the same, be they new or not.
func (f *Files) same(other *Files) bool {
	if len(f.read) != len(other.read) {
		return false
	}
	for path, r := range f.read {
		if o, ok := other.read[path]; !ok || r.sum != o.sum || (r.look.info == nil) != (o.look.info == nil) || r.look.err != o.look.err {
			return false
		}
	}
	return true
}

// pollEvery is how often files are looked at. It needs no library, and sees changes
// on every file system, of every kind, which inotify does not.
const pollEvery = time.Second

// Follow looks at the files every second until ctx ends. When one has changed, and
// then all have looked the same for a second (so that nothing half-written is
// taken), it calls load. So it does at once for each signal from ask.
//
// load reads all files anew by the Files that it is given, and returns what is to be
// done about it, if only to say what is wrong. That is done unless a file has changed
// meanwhile; then load is called again when they have settled. Nor is it done where
// nobody asked and the files hold what they held before.
//
// From then on the files that load has read are the ones that are looked at.
func (f *Files) Follow(ctx context.Context, ask <-chan os.Signal, load func(*Files) (apply func())) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	current := f
	var waiting map[string]look // what is to be seen a second time
	asked := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ask:
			asked = true
		case <-tick.C:
			if !asked && current.settled() && !current.anyYoung() {
				waiting = nil
				continue
			}
			if now := current.now(); !equalLooks(now, waiting) {
				waiting = now
				continue
			}
		}
		next := &Files{}
		apply := load(next)
		if !next.settled() {
			waiting = nil
			continue
		}
		if asked || !next.same(current) {
			apply()
		}
		current, waiting, asked = next, nil, false
	}
}

func (f *Files) anyYoung() bool {
	for _, r := range f.read {
		if r.young {
			return true
		}
	}
	return false
}

func equalLooks(a, b map[string]look) bool {
	if b == nil || len(a) != len(b) {
		return false
	}
	for path, l := range a {
		if o, ok := b[path]; !ok || !l.equal(o) {
			return false
		}
	}
	return true
}
