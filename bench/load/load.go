// Package load asks, as many clients at once, and compares each byte of what comes
// back. It measures how long things take, and leaves it to others what they cost.
package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllm-gateway/vllm-gateway/bench/wire"
)

// Plan is what clients do.
type Plan struct {
	// Addrs are the host:ports to connect to, in turn.
	Addrs []string
	// Clients each have a connection, and one request at a time.
	Clients int
	// Ask is what they ask for; the seed is drawn for each.
	Ask wire.Ask
	// Models is how many models are asked for in turn; 0 and 1: that of Ask.
	Models int
	// Prompt is put into a JSON string as it is.
	Prompt string
	// Keys are shown in turn; none: no Authorization.
	Keys []string
	// Phases makes the first stream of each client shorter than the others, each by
	// another part of it, so that streams do not all end at once.
	Phases bool
	// Once: one request each, then the connection stays open and quiet.
	Once bool
	// Ramp is the time over which the clients begin.
	Ramp time.Duration
	// TLS makes connections TLS; nil: in the clear.
	TLS *tls.Config
	// Shared is the number of HTTP/2 connections that all clients share; 0: HTTP/1.1.
	Shared int
}

// Load is a plan that is being carried out.
type Load struct {
	plan      Plan
	events    atomic.Int64
	answers   atomic.Int64
	begun     atomic.Int64
	stop      chan struct{}
	recording atomic.Bool
	cancel    context.CancelFunc
	ctx       context.Context
	clients   sync.WaitGroup
	shared    []*http.Transport

	mu     sync.Mutex
	times  Times
	errors map[string]int
}

// Times are what was measured between [Load.Record] and the next, unsorted, in
// nanoseconds.
type Times struct {
	First  []int64 // from a request to its first token
	Event  []int64 // from when a token was sent to when it was there
	Answer []int64 // from a request to the end of an answer that is no stream
}

// Start begins.
func Start(p Plan) *Load {
	l := &Load{plan: p, stop: make(chan struct{}), errors: map[string]int{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	for range p.Shared {
		l.shared = append(l.shared, transport(p.TLS))
	}
	for i := range p.Clients {
		c := &client{load: l, number: i}
		l.clients.Go(func() {
			wait := time.NewTimer(p.Ramp * time.Duration(i) / time.Duration(p.Clients))
			defer wait.Stop()
			select {
			case <-wait.C:
			case <-l.stop:
				return
			}
			err := c.run()
			l.collect(c, err)
		})
	}
	return l
}

func (l *Load) collect(c *client, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times.First = append(l.times.First, c.times.First...)
	l.times.Event = append(l.times.Event, c.times.Event...)
	l.times.Answer = append(l.times.Answer, c.times.Answer...)
	if err != nil && l.ctx.Err() == nil {
		l.errors[err.Error()]++
	}
}

// Counts are the events and answers that were there by now, and compared.
func (l *Load) Counts() (events, answers int64) { return l.events.Load(), l.answers.Load() }

// Begun is how many clients have had their first token, or their first answer.
func (l *Load) Begun() int { return int(l.begun.Load()) }

// Record begins to take times, or ends it.
func (l *Load) Record(on bool) { l.recording.Store(on) }

// Failed reports whether a client has met with an error.
func (l *Load) Failed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.errors) > 0
}

// Stop lets each client finish what it has asked for, within a time, and gives what
// was measured. The error has what went wrong, how often, most often first.
func (l *Load) Stop(within time.Duration) (Times, error) {
	close(l.stop)
	ended := make(chan struct{})
	go func() { l.clients.Wait(); close(ended) }()
	var late error
	select {
	case <-ended:
	case <-time.After(within):
		late = fmt.Errorf("some answers had no end %v after the last request", within)
	}
	l.cancel()
	<-ended
	for _, t := range l.shared {
		t.CloseIdleConnections()
	}
	return l.times, errors.Join(l.failures(), late)
}

func (l *Load) failures() error {
	const most = 3 // kinds
	type kind struct {
		text string
		n    int
	}
	var kinds []kind
	n := 0
	for text, times := range l.errors {
		kinds = append(kinds, kind{text, times})
		n += times
	}
	if n == 0 {
		return nil
	}
	slices.SortFunc(kinds, func(a, b kind) int { return b.n - a.n })
	var lines []string
	for _, k := range kinds[:min(most, len(kinds))] {
		lines = append(lines, fmt.Sprintf("%d× %s", k.n, k.text))
	}
	return fmt.Errorf("%d of %d clients failed: %s", n, l.plan.Clients, strings.Join(lines, "; "))
}

// client is one of them.
type client struct {
	load   *Load
	number int
	times  Times
	out    []byte
	told   bool // that it has begun

	asked int64 // when the request was sent
	ask   wire.Ask
}

// next gives the body of the client's next request, and what must come back.
func (c *client) next(turn int) ([]byte, body) {
	p := &c.load.plan
	c.ask = p.Ask
	c.ask.Seed = uint64(c.number)<<32 | uint64(turn)<<8 | uint64(wire.Now())&0xff
	if p.Models > 1 {
		c.ask.Model = wire.ModelName(inTurn(c.number, turn, p.Models))
	}
	if turn == 0 && p.Phases {
		c.ask.Tokens = max(1, p.Ask.Tokens*(c.number+1)/p.Clients)
	}
	c.out = c.ask.Append(c.out[:0], p.Prompt)
	if c.ask.Stream {
		return c.out, &streamBody{stream: wire.Of(c.ask), seen: c.seen}
	}
	return c.out, &jsonBody{want: wire.AppendJSON(nil, c.ask, c.out)}
}

// seen: an event is there.
func (c *client) seen(event int, sent, now int64) {
	c.load.events.Add(1)
	if sent == 0 {
		return
	}
	recording := c.load.recording.Load()
	if event == 1 {
		c.begin()
		if recording {
			c.times.First = append(c.times.First, now-c.asked)
		}
	}
	if recording {
		c.times.Event = append(c.times.Event, now-sent)
	}
}

func (c *client) begin() {
	if !c.told {
		c.told = true
		c.load.begun.Add(1)
	}
}

// ended: an answer is there to its end.
func (c *client) ended() {
	c.load.answers.Add(1)
	c.begin()
	if !c.ask.Stream && c.load.recording.Load() {
		c.times.Answer = append(c.times.Answer, wire.Now()-c.asked)
	}
}

// last reports whether the client is to ask for nothing more, and to go.
func (c *client) last() bool {
	if c.load.plan.Once {
		<-c.load.stop
	}
	select {
	case <-c.load.stop:
		return true
	default:
		return false
	}
}

func (c *client) run() error {
	if c.load.plan.Shared > 0 {
		return c.runShared()
	}
	p := &c.load.plan
	addr := p.Addrs[c.number%len(p.Addrs)]
	tcp, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(c.load.ctx, func() { tcp.Close() })()
	defer tcp.Close()
	conn := wire.Cheap(tcp)
	if p.TLS != nil {
		secure := tls.Client(conn, p.TLS)
		if err := secure.Handshake(); err != nil {
			return err
		}
		if err := checkTLS(secure.ConnectionState(), "http/1.1"); err != nil {
			return err
		}
		conn = secure
	}
	head := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Type: application/json\r\n", addr)
	var request []byte
	in := make([]byte, 4096)
	for turn := 0; ; turn++ {
		sent, body := c.next(turn)
		request = append(request[:0], head...)
		if key := c.key(turn); key != "" {
			request = append(append(append(request, "Authorization: Bearer "...), key...), "\r\n"...)
		}
		request = fmt.Appendf(request, "Content-Length: %d\r\n\r\n", len(sent))
		request = append(request, sent...)
		c.asked = wire.Now()
		if _, err := conn.Write(request); err != nil {
			return fmt.Errorf("send: %w", plain(err))
		}
		a := answer{body: body}
		for a.state != done {
			n, err := conn.Read(in)
			if err := a.take(in[:n], wire.Now()); err != nil {
				return err
			}
			if err != nil && a.state != done {
				return a.broken(err)
			}
		}
		c.ended()
		if c.last() {
			return nil
		}
	}
}

// broken says what a connection that has ended has cut.
func (a *answer) broken(err error) error {
	if errors.Is(err, io.EOF) {
		err = errors.New("the connection was closed")
	}
	switch {
	case a.begun:
		if cut := a.body.end(); cut != nil {
			return fmt.Errorf("%w: %w", cut, plain(err))
		}
		return fmt.Errorf("all is there but the end of the framing: %w", plain(err))
	case a.state == inHead && len(a.line) == 0:
		return fmt.Errorf("no answer: %w", plain(err))
	}
	return fmt.Errorf("cut before the body: %w", plain(err))
}

// plain leaves out addresses: equal errors are counted together.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func (c *client) key(turn int) string {
	keys := c.load.plan.Keys
	if len(keys) == 0 {
		return ""
	}
	return keys[inTurn(c.number, turn, len(keys))]
}

// inTurn lays clients and their requests over n things, evenly.
func inTurn(client, turn, n int) int { return (client*31 + turn*7) % n }

// checkTLS holds all targets to the same.
func checkTLS(s tls.ConnectionState, protocol string) error {
	if s.Version != tls.VersionTLS13 || s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 || s.NegotiatedProtocol != protocol {
		return fmt.Errorf("%s, %s, %q; want TLS 1.3, TLS_AES_128_GCM_SHA256, %q", tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), s.NegotiatedProtocol, protocol)
	}
	return nil
}
