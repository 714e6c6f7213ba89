package gpu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"time"
)

const (
	// answerTimeout is how long the worker may take for all GPUs. It is
	// milliseconds; a driver that starts contexts on many GPUs may hold it up.
	answerTimeout = 5 * time.Second
	// initTimeout is the same for its first answer: without persistence mode the
	// driver starts each GPU, which takes a second or two.
	initTimeout = time.Minute
	// renewAfter is after how many collections with a failed GPU the library is
	// opened anew: one that was lost and is back is not seen before.
	renewAfter = 15
)

// nvmlSource asks NVML in a worker: a child, since calls into the driver can
// hang for ever, and the library can crash.
type nvmlSource struct {
	kids    *children
	worker  *worker // nil: none runs
	failing int     // collections in a row with a failed GPU

	answer, init time.Duration // timeouts
	env          []string      // of the worker, beside this process's
}

func newNVML(kids *children) *nvmlSource {
	return &nvmlSource{kids: kids, answer: answerTimeout, init: initTimeout}
}

// worker is the parent's side of a worker.
type worker struct {
	child   *child
	ask     *os.File
	answers *os.File
	lines   *bufio.Reader
	said    *said // on stdout and stderr, since its last answer
}

// message is a line from the worker: one of the three.
type message struct {
	Fault      *Fault      `json:",omitempty"`
	Collection *Collection `json:",omitempty"`
	Error      *Error      `json:",omitempty"`
}

// Collect asks the worker. With an error the collection is nil, or holds faults
// alone.
func (s *nvmlSource) Collect(ctx context.Context) (*Collection, error) {
	if s.failing > 0 && s.failing%renewAfter == 0 {
		s.Close() // not before: until now it kept the driver's events
	}
	timeout := s.answer
	if s.worker == nil {
		w, err := s.start()
		if err != nil {
			return nil, err
		}
		s.worker, timeout = w, s.init
	}
	faults, c, err := s.worker.collect(ctx, timeout)
	if err != nil {
		s.Close()
		return &Collection{Source: "nvml", Faults: faults}, err
	}
	c.Faults = faults
	s.failing++
	if !slices.ContainsFunc(c.GPUs, func(g GPU) bool { return g.Failure != "" }) {
		s.failing = 0
	}
	return c, nil
}

func (s *nvmlSource) Close() {
	if s.worker != nil {
		s.worker.close()
		s.worker = nil
	}
}

func (s *nvmlSource) start() (*worker, error) {
	askRead, ask, err := os.Pipe()
	if err != nil {
		return nil, fail(Crash, "", "no pipe to the NVML worker: %v", err)
	}
	answers, answersWrite, err := os.Pipe()
	if err != nil {
		askRead.Close()
		ask.Close()
		return nil, fail(Crash, "", "no pipe to the NVML worker: %v", err)
	}
	defer askRead.Close()
	defer answersWrite.Close()
	w := &worker{ask: ask, answers: answers, lines: bufio.NewReader(answers), said: &said{}}
	cmd := exec.Command(self(), workerName)
	cmd.Args[0] = os.Args[0] // for those who look at the list of processes
	// One thread and a small heap suffice.
	cmd.Env = append(append(os.Environ(), "GOMAXPROCS=1", "GOGC=25"), s.env...)
	cmd.Stdout, cmd.Stderr = w.said, w.said
	cmd.ExtraFiles = []*os.File{askRead, answersWrite}
	if w.child, err = s.kids.start(cmd); err != nil {
		ask.Close()
		answers.Close()
		if e := (*Error)(nil); errors.As(err, &e) {
			return nil, e
		}
		return nil, fail(Crash, "", "the NVML worker cannot be started: %v", err)
	}
	return w, nil
}

func (w *worker) close() {
	w.ask.Close() // the worker ends by itself, unless it hangs
	w.child.end()
	w.answers.Close()
}

// collect asks once. Faults count, whatever comes after them.
func (w *worker) collect(ctx context.Context, timeout time.Duration) (faults []Fault, c *Collection, err error) {
	w.answers.SetReadDeadline(time.Now().Add(timeout))
	stop := context.AfterFunc(ctx, func() { w.answers.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := w.ask.Write([]byte{'\n'}); err != nil {
		return nil, nil, w.crashed()
	}
	for {
		line, err := w.lines.ReadBytes('\n')
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return faults, nil, fail(Timeout, "see dmesg for Xid and NVRM lines", "NVML did not answer within %v", timeout)
		case err != nil:
			return faults, nil, w.crashed()
		}
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			return faults, nil, fail(Malformed, "", "the NVML worker's answer cannot be read: %v", err)
		}
		switch {
		case m.Fault != nil:
			faults = append(faults, *m.Fault)
		case m.Error != nil:
			return faults, nil, m.Error
		case m.Collection != nil:
			w.said.empty()
			return faults, m.Collection, nil
		}
	}
}

// runtimeCrash is the line of a Go program's last words that says why.
var runtimeCrash = regexp.MustCompile(`(?m)^(SIG[A-Z]+|fatal error|panic): .*`)

// crashed is what became of a worker that no longer answers.
func (w *worker) crashed() *Error {
	how := "and is still there"
	if w.child.goneWithin(killGrace) {
		how = w.child.cmd.ProcessState.String()
	}
	text := w.said.String()
	if crash := runtimeCrash.FindString(text); crash != "" {
		text = crash
	}
	if text = clean(text, 300); text != "" {
		how += ": " + text
	}
	return fail(Crash, "the driver's library is most likely at fault; see dmesg", "the NVML worker has died (%s)", how)
}
