//go:build linux && !plain

package http1

import (
	"sync"
	"sync/atomic"
	"syscall"
)

// hangup says when the peer of a connection has hung up.
//
// While a request runs nobody reads from its client, so nobody would see it leave.
// net/http has a goroutine read a byte ahead, and wakes it twice for each small
// request. Here one goroutine asks the kernel for all of them (EPOLLRDHUP,
// edge-triggered), and sleeps while nobody leaves. What it wins: quick_linux.go.
type hangup struct {
	id   atomic.Uint64 // 0: nobody watches
	mu   sync.Mutex
	hung bool
	f    func()
}

// watch has the kernel tell of a connection, if that is to be had.
func (h *hangup) watch(q *quick) bool {
	if h.id.Load() != 0 {
		return true
	}
	w := watcher()
	if w == nil {
		return false
	}
	id := w.next.Add(1)
	w.mu.Lock()
	w.all[id] = h
	w.mu.Unlock()
	failed := true
	q.raw.Control(func(fd uintptr) {
		event := syscall.EpollEvent{Events: syscall.EPOLLRDHUP | edgeTriggered, Fd: int32(id), Pad: int32(id >> 32)}
		failed = syscall.EpollCtl(w.epoll, syscall.EPOLL_CTL_ADD, int(fd), &event) != nil
	})
	if failed {
		w.forget(id)
		return false
	}
	h.id.Store(id)
	return true
}

// edgeTriggered is EPOLLET; syscall's is a negative number.
const edgeTriggered = 1 << 31

// on has f called once the peer hangs up, or has.
func (h *hangup) on(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hung {
		f()
		return
	}
	h.f = f
}

// hasHung reports whether the peer has hung up.
func (h *hangup) hasHung() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hung
}

// off: f is not called any more, and does not run.
func (h *hangup) off() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.f = nil
}

func (h *hangup) tell() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hung = true
	if h.f != nil {
		h.f()
		h.f = nil
	}
}

// forget is for a connection that is about to be closed, which the kernel sees by
// itself, or to be somebody else's.
func (h *hangup) forget() {
	if id := h.id.Load(); id != 0 {
		watcher().forget(id)
	}
}

// watching is one epoll for all connections. It is never closed.
type watching struct {
	epoll int
	next  atomic.Uint64
	mu    sync.Mutex
	all   map[uint64]*hangup
}

// watcher is nil where the kernel gives no epoll.
var watcher = sync.OnceValue(func() *watching {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	w := &watching{epoll: epoll, all: map[uint64]*hangup{}}
	go w.run()
	return w
})

// startWatching makes the watcher, if nobody has yet.
func startWatching() { watcher() }

func (w *watching) run() {
	var events [64]syscall.EpollEvent
	for {
		n, _ := syscall.EpollWait(w.epoll, events[:], -1) // EINTR, at most
		for _, e := range events[:max(n, 0)] {
			w.mu.Lock()
			h := w.all[uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32]
			w.mu.Unlock()
			if h != nil {
				h.tell()
			}
		}
	}
}

func (w *watching) forget(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, id)
}
