package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Terminals are where a reader types: one for what ends, and one for each thing that
// goes on. The zero value needs Dir.
type Terminals struct {
	Dir string   // where the guide's reader is: the repository's folder
	Env []string // what is in the environment; nil: what this process has

	running map[string]*running
}

type running struct {
	block Block
	cmd   *exec.Cmd
	said  said
	ended chan struct{}
	err   error // once ended
}

// said is what a program has printed so far.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// Run types a block, and gives what it printed. A block that goes on has begun when
// what the guide says it prints is there; the error says what did not come until ctx was
// over.
func (t *Terminals) Run(ctx context.Context, b Block) (printed string, err error) {
	if b.Terminal != "" {
		return t.begin(ctx, b)
	}
	cmd := t.command(ctx, b)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%v: %w; it printed\n%s", b, err, out)
	}
	if line := b.Missing(string(out)); line != "" {
		return string(out), fmt.Errorf("%v: it does not print %q, but\n%s", b, line, out)
	}
	return string(out), nil
}

func (t *Terminals) begin(ctx context.Context, b Block) (string, error) {
	if err := t.interrupt(b.Terminal); err != nil {
		return "", err
	}
	r := &running{block: b, cmd: t.command(context.Background(), b), ended: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = &r.said, &r.said
	if err := r.cmd.Start(); err != nil {
		return "", fmt.Errorf("%v: %w", b, err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.ended)
	}()
	if t.running == nil {
		t.running = map[string]*running{}
	}
	t.running[b.Terminal] = r
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-r.ended:
			return r.said.String(), fmt.Errorf("%v: it should go on, and has ended: %v; it printed\n%s", b, r.err, r.said.String())
		case <-ctx.Done():
			return r.said.String(), fmt.Errorf("%v: it does not print %q, but\n%s", b, b.Missing(r.said.String()), r.said.String())
		case <-tick.C:
			if b.Missing(r.said.String()) == "" {
				return r.said.String(), nil
			}
		}
	}
}

// command runs a script as a shell would that stops at the first failure, in a process
// group of its own, as a terminal has them.
func (t *Terminals) command(ctx context.Context, b Block) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", b.Script)
	cmd.Dir, cmd.Env = t.Dir, t.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// patience is how long a program may take to end after Ctrl-C: it may drain for 30 s.
const patience = 45 * time.Second

// interrupt presses Ctrl-C in a terminal, and waits until the prompt is back. What ran
// there must have gone on until now, and end as a program does that was told to.
func (t *Terminals) interrupt(terminal string) error {
	r := t.running[terminal]
	if r == nil {
		return nil
	}
	delete(t.running, terminal)
	select {
	case <-r.ended:
		return fmt.Errorf("%v: it should have gone on, and has ended: %v; it printed\n%s", r.block, r.err, r.said.String())
	default:
	}
	syscall.Kill(-r.cmd.Process.Pid, syscall.SIGINT)
	select {
	case <-r.ended:
	case <-time.After(patience):
		syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
		return fmt.Errorf("%v: it goes on %v after Ctrl-C; it printed\n%s", r.block, patience, r.said.String())
	}
	var exit *exec.ExitError
	if errors.As(r.err, &exit) && exit.ExitCode() != 130 && exit.Sys().(syscall.WaitStatus).Signal() != os.Interrupt {
		return fmt.Errorf("%v: it ends by Ctrl-C with %v; it printed\n%s", r.block, r.err, r.said.String())
	}
	return nil
}

// Close ends all that goes on, by Ctrl-C. The error has everything that went wrong.
func (t *Terminals) Close() error {
	var errs []error
	for terminal := range t.running {
		errs = append(errs, t.interrupt(terminal))
	}
	return errors.Join(errs...)
}
