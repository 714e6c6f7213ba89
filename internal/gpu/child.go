package gpu

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"sync"
	"time"
)

const (
	// termGrace is how long a child may take to go when asked: SIGKILL in the
	// middle of a driver call has frozen GPUs (NVIDIA/dcgm-exporter#84).
	termGrace = 2 * time.Second
	// killGrace is how long it may take to go when killed. A process that waits
	// in the kernel for a driver does not go at all.
	killGrace = time.Second
	// pipeGrace is how long a child's own children may keep its output open.
	pipeGrace = 200 * time.Millisecond
	// outputLimit is what is kept of a child's output; 64 GPUs need a fifth.
	outputLimit = 64 << 10
)

// children lets one child live at a time. So whatever a driver does to those
// that ask it, at most one of them is ever stuck.
type children struct {
	mu  sync.Mutex // never held while anything is waited for
	now *child
}

type child struct {
	cmd    *exec.Cmd
	ended  chan struct{} // closed when nobody is left of its group
	killed bool          // it was sent SIGKILL; guarded by children.mu
	owner  *children
}

// start starts a child in a process group of its own, which dies with this
// process. It is refused while another one lives.
func (c *children) start(cmd *exec.Cmd) (*child, error) {
	k := &child{cmd: cmd, ended: make(chan struct{}), owner: c}
	if !c.admit(k) {
		return nil, fail(Stuck, "its driver call never returns: see dmesg for Xid and NVRM lines; the GPU or the machine may need a reset",
			"a process that waits for the driver cannot be killed, and no other is started before it is gone")
	}
	ownGroup(cmd)
	cmd.WaitDelay = pipeGrace
	if err := cmd.Start(); err != nil {
		c.leave()
		return nil, err
	}
	go k.reap()
	return k, nil
}

// reap makes room for the next child when this one has ended, and all that it
// has started: nvidia-smi may be a script that runs another.
func (k *child) reap() {
	k.cmd.Wait()
	for began := time.Now(); groupLives(k.cmd); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) < termGrace {
			terminateGroup(k.cmd)
		} else {
			k.kill()
		}
	}
	k.owner.leave()
	close(k.ended)
}

func (k *child) kill() {
	k.owner.mu.Lock()
	k.killed = true
	k.owner.mu.Unlock()
	killGroup(k.cmd)
}

func (c *children) admit(k *child) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now != nil {
		return false
	}
	c.now = k
	return true
}

func (c *children) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = nil
}

// stuck is how many children were killed and are still there.
func (c *children) stuck() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now != nil && c.now.killed {
		return 1
	}
	return 0
}

// end asks the child to go, then makes it. It takes some seconds at most, and
// the child may still be there.
func (k *child) end() {
	terminateGroup(k.cmd)
	if !k.goneWithin(termGrace) {
		k.kill()
		k.goneWithin(killGrace)
	}
}

func (k *child) goneWithin(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-k.ended:
		return true
	case <-t.C:
		return false
	}
}

// run runs a command to its end, or ends it when ctx does. The exit code is -1
// for one that was killed by a signal. An error is always an *Error.
func (c *children) run(ctx context.Context, cmd *exec.Cmd) (stdout, stderr []byte, code int, err error) {
	var out, errOut head
	cmd.Stdout, cmd.Stderr = &out, &errOut
	k, err := c.start(cmd)
	if err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			return nil, nil, 0, e
		}
		return nil, nil, 0, fail(NoDriver, "see that it may be run, and, if it is a script, that its interpreter is there", "%s cannot be started: %v", cmd.Path, err)
	}
	select {
	case <-k.ended:
		return out.buf.Bytes(), errOut.buf.Bytes(), cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		k.end()
		return nil, nil, 0, fail(Timeout, "if it is only slow, keep the driver loaded (nvidia-smi -pm 1); else see dmesg for Xid and NVRM lines", "%s did not come to an end in time", cmd.Path)
	}
}

// head keeps the beginning of what is written to it. Its writer is never told
// that the rest is lost, so that it can end as it would have.
type head struct{ buf bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	h.buf.Write(p[:min(len(p), outputLimit-h.buf.Len())])
	return len(p), nil
}

// said keeps the beginning of what is written to it since it was last emptied;
// safe for use by several.
type said struct {
	mu   sync.Mutex
	head head
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head.Write(p)
}

func (s *said) empty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head.buf.Reset()
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head.buf.String()
}
