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
	// initTimeout is how long it may take to be ready: without persistence mode
	// the driver starts each GPU, which takes a second or two.
	initTimeout = time.Minute
	// renewAfter is after how many collections with a failed GPU the library is
	// opened anew, since one that is back is not seen before; then twice as many,
	// and so on, up to renewAtMost: it may take long to open.
	renewAfter  = 15
	renewAtMost = 64 * renewAfter
	// answerLimit is the longest line of a worker; 256 GPUs need 180 kB.
	answerLimit = 256 << 10
)

// nvmlSource asks NVML in a worker: a child, since calls into the driver can
// hang for ever, and the library can crash.
type nvmlSource struct {
	kids    *children
	worker  *worker // nil: none runs
	known   []GPU   // in the collection before
	failing int     // collections in a row with a failed GPU, since the worker began
	patient int     // how many of them there may be

	answer, init time.Duration // timeouts
	env          []string      // of the worker, beside this process's
}

func newNVML(kids *children) *nvmlSource {
	return &nvmlSource{kids: kids, patient: renewAfter, answer: answerTimeout, init: initTimeout}
}

// worker is the parent's side of a worker.
type worker struct {
	child   *child
	ask     *os.File
	answers *os.File
	lines   *bufio.Reader
	said    *said // on stdout and stderr, since its last answer
}

// message is a line from the worker: one of the four.
type message struct {
	Ready      bool        `json:",omitempty"`
	Fault      *Fault      `json:",omitempty"`
	Collection *Collection `json:",omitempty"`
	Error      *Error      `json:",omitempty"`
}

// Collect asks the worker. With an error the collection is nil, or holds faults
// alone.
func (s *nvmlSource) Collect(ctx context.Context) (*Collection, error) {
	if s.failing >= s.patient {
		s.Close() // not before: until now it kept the driver's events
		s.failing, s.patient = 0, min(2*s.patient, renewAtMost)
	}
	if s.worker == nil {
		if err := s.open(ctx); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	faults, c, err := s.worker.collect(ctx, s.answer)
	if err != nil {
		s.Close()
		return &Collection{Source: "nvml", Faults: faults}, err
	}
	c.Began, c.Faults = began, faults
	if slices.ContainsFunc(c.GPUs, func(g GPU) bool { return g.Failure != "" }) {
		s.failing++
	} else {
		s.failing, s.patient = 0, renewAfter
	}
	s.recognise(c.GPUs)
	return c, nil
}

// recognise gives GPUs of which there is nothing but an index the identity of
// those that had it in the collection before.
func (s *nvmlSource) recognise(gpus []GPU) {
	for i := range gpus {
		g := &gpus[i]
		if g.Failure == "" || g.UUID != "" || g.BusID != "" {
			continue
		}
		for _, k := range s.known {
			elsewhere := slices.ContainsFunc(gpus, func(g GPU) bool { return g.UUID == k.UUID })
			if k.Index == g.Index && !elsewhere {
				g.UUID, g.Name, g.BusID = k.UUID, k.Name, k.BusID
			}
		}
	}
	s.known = slices.Clone(gpus) // whoever gets them may change them
}

// open starts a worker and waits until it is ready.
func (s *nvmlSource) open(ctx context.Context) error {
	w, err := s.start()
	if err != nil {
		return err
	}
	if _, err := w.next(ctx, s.init); err != nil {
		w.close()
		return err
	}
	s.worker = w
	return nil
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
	w := &worker{ask: ask, answers: answers, lines: bufio.NewReaderSize(answers, answerLimit), said: &said{}}
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
	w.ask.Write([]byte{'\n'}) // an error is that of a worker which says no more
	for {
		m, err := w.next(ctx, timeout)
		switch {
		case err != nil:
			return faults, nil, err
		case m.Fault != nil:
			faults = append(faults, *m.Fault)
		case m.Collection != nil:
			w.said.empty()
			return faults, m.Collection, nil
		}
	}
}

// next is what the worker says next; that it has failed is an error.
func (w *worker) next(ctx context.Context, timeout time.Duration) (m message, err error) {
	w.answers.SetReadDeadline(time.Now().Add(timeout))
	stop := context.AfterFunc(ctx, func() { w.answers.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := w.lines.ReadSlice('\n')
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return m, fail(Timeout, "see dmesg for Xid and NVRM lines", "NVML did not answer within %v", timeout)
	case errors.Is(err, bufio.ErrBufferFull):
		return m, fail(Malformed, "", "an answer of the NVML worker has no end")
	case err != nil:
		return m, w.crashed()
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fail(Malformed, "", "an answer of the NVML worker cannot be read: %v", err)
	}
	if m.Error != nil {
		return m, m.Error
	}
	return m, nil
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
