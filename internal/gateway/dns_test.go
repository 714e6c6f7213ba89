package gateway

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

// dnsServer is a DNS server whose records a test sets. It speaks DNS over a
// stream: that is what Go's resolver does where a connection carries no packets.
type dnsServer struct {
	mu      sync.Mutex
	addrs   map[string][]netip.Addr // by name, lower-case with its last dot
	srvs    map[string][]net.SRV
	failing bool
	refused dnsmessage.Type // questions of this type fail
	late    dnsmessage.Type // questions of this type take a second
}

// At its first lookup Go reads /etc/resolv.conf and /etc/nsswitch.conf, and keeps
// a channel for each: one made in a bubble could not be used in the next.
func init() {
	nobody := func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }
	newResolver(nobody).LookupIPAddr(context.Background(), "nobody.test.")
}

// startDNS starts a server without records, and gives a resolver that asks it,
// whatever /etc/resolv.conf says. Names of tests have several dots or end with
// one, so that search domains of this machine come to nothing.
func startDNS(t *testing.T, n *memnet.Net) (*dnsServer, *net.Resolver) {
	t.Helper()
	l, err := n.Listen("dns:53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &dnsServer{addrs: map[string][]netip.Addr{}, srvs: map[string][]net.SRV{}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s, newResolver(func(ctx context.Context, network, _ string) (net.Conn, error) {
		return n.Dial(ctx, network, "dns:53")
	})
}

// set gives a name its addresses; none: the name exists and has no address.
func (s *dnsServer) set(name string, addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []netip.Addr{}
	for _, a := range addrs {
		list = append(list, netip.MustParseAddr(a))
	}
	s.addrs[absolute(name)] = list
}

// setSRV gives a name its SRV records.
func (s *dnsServer) setSRV(name string, records ...net.SRV) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srvs[absolute(name)] = records
}

// fail makes the server answer that it has failed, or answer again.
func (s *dnsServer) fail(failing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = failing
}

// refuse makes questions of one type fail, and those of another late; 0 is none.
func (s *dnsServer) refuse(refused, late dnsmessage.Type) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused, s.late = refused, late
}

func absolute(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) + "." }

// serve answers the questions of one connection until it is closed.
func (s *dnsServer) serve(c net.Conn) {
	defer c.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		answer, err := s.answer(question)
		if err != nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

func (s *dnsServer) answer(message []byte) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(message)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	late := s.late != 0 && s.late == q.Type
	s.mu.Unlock()
	if late {
		time.Sleep(time.Second)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.ToLower(q.Name.String())
	addrs, hasAddrs := s.addrs[name]
	records, hasRecords := s.srvs[name]
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: head.ID, Response: true, RecursionDesired: true, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	add := func(body dnsmessage.ResourceBody) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: body})
	}
	switch {
	case s.failing || s.refused != 0 && s.refused == q.Type:
		m.RCode = dnsmessage.RCodeServerFailure
		return m.Pack()
	case !hasAddrs && !hasRecords:
		m.RCode = dnsmessage.RCodeNameError
		return m.Pack()
	}
	for _, a := range addrs {
		if a.Is4() && q.Type == dnsmessage.TypeA {
			add(&dnsmessage.AResource{A: a.As4()})
		}
		if a.Is6() && q.Type == dnsmessage.TypeAAAA {
			add(&dnsmessage.AAAAResource{AAAA: a.As16()})
		}
	}
	for _, rec := range records {
		if q.Type == dnsmessage.TypeSRV {
			target, err := dnsmessage.NewName(rec.Target)
			if err != nil {
				return nil, err
			}
			add(&dnsmessage.SRVResource{Priority: rec.Priority, Weight: rec.Weight, Port: rec.Port, Target: target})
		}
	}
	return m.Pack()
}
