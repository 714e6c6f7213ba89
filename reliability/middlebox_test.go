//go:build reliability

package reliability

import (
	"net"
	"sync"
	"testing"
	"time"
)

// middlebox is a TCP proxy before one backend. It does what networks do.
type middlebox struct {
	addr, target string

	mu       sync.Mutex
	listener net.Listener // nil while connections are refused
	pairs    map[*pair]bool
	delay    time.Duration // of each piece that passes
	hole     chan struct{} // nothing passes until it is closed; nil: all passes
}

// pair is a connection through it.
type pair struct {
	near, far *net.TCPConn
	once      sync.Once
	closed    chan struct{}
}

func between(t *testing.T, target string) *middlebox {
	t.Helper()
	m := &middlebox{addr: freeAddr(t), target: target, pairs: map[*pair]bool{}}
	m.accept(t)
	t.Cleanup(func() {
		m.refuse()
		m.hold(false)
		m.breakAll(false)
	})
	return m
}

func (m *middlebox) url() string { return "http://" + m.addr }

// accept takes connections, again if it has refused them.
func (m *middlebox) accept(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", m.addr)
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.listener = l
	m.mu.Unlock()
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go m.join(near.(*net.TCPConn))
		}
	}()
}

// refuse takes no more connections; those that are there go on.
func (m *middlebox) refuse() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listener != nil {
		m.listener.Close()
		m.listener = nil
	}
}

// lag makes every piece take so long.
func (m *middlebox) lag(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delay = d
}

// hold lets nothing pass, or all that was held and what follows.
func (m *middlebox) hold(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case on && m.hole == nil:
		m.hole = make(chan struct{})
	case !on && m.hole != nil:
		close(m.hole)
		m.hole = nil
	}
}

// breakAll ends every connection, by RST or by FIN.
func (m *middlebox) breakAll(rst bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range m.pairs {
		if rst {
			p.near.SetLinger(0)
			p.far.SetLinger(0)
		}
		p.close()
	}
}

func (p *pair) close() {
	p.once.Do(func() {
		close(p.closed)
		p.near.Close()
		p.far.Close()
	})
}

func (m *middlebox) join(near *net.TCPConn) {
	far, err := net.Dial("tcp", m.target)
	if err != nil {
		reset(near)
		return
	}
	p := &pair{near: near, far: far.(*net.TCPConn), closed: make(chan struct{})}
	m.mu.Lock()
	m.pairs[p] = true
	m.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { m.pump(p, p.near, p.far) })
	both.Go(func() { m.pump(p, p.far, p.near) })
	both.Wait()
	p.close()
	m.mu.Lock()
	delete(m.pairs, p)
	m.mu.Unlock()
}

// pump passes on what one side says, its end too.
func (m *middlebox) pump(p *pair, from, to *net.TCPConn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		m.mu.Lock()
		delay, hole := m.delay, m.hole
		m.mu.Unlock()
		if hole != nil {
			select {
			case <-hole:
			case <-p.closed:
			}
		}
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-p.closed:
			}
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				p.close()
				return
			}
		}
		if err != nil {
			to.CloseWrite()
			return
		}
	}
}
