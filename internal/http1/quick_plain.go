//go:build !linux || plain

package http1

import "net"

// quick is for Linux alone; see quick_linux.go.
type quick struct {
	net.Conn
	hangup hangup
}

func quicken(c net.Conn) net.Conn { return c }
func asQuick(net.Conn) *quick     { return nil }

func (q *quick) plain() net.Conn                       { return q.Conn }
func (q *quick) readNew() (*[]byte, int, error)        { panic("http1: no quick connections here") }
func (q *quick) each(take func([]byte) bool) error     { panic("http1: no quick connections here") }
func (q *quick) writeBothNow(a, b []byte) (int, error) { panic("http1: no quick connections here") }
func (q *quick) silent() bool                          { panic("http1: no quick connections here") }

type hangup struct{}

func (h *hangup) watch(*quick) bool { return false }
func (h *hangup) on(func())         {}
func (h *hangup) off()              {}
func (h *hangup) hasHung() bool     { return false }
func (h *hangup) forget()           {}

func startWatching() {}
