package load

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/bench/wire"
)

// backend answers each connection's requests with what answer makes of them, which
// reads a request and writes what it likes.
func backend(t *testing.T, answer func(c net.Conn, ask wire.Ask, body []byte)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := make([]byte, 64<<10) // a request of a test comes at once
				for {
					n, err := c.Read(in)
					if err != nil {
						return
					}
					_, body, _ := bytes.Cut(in[:n], []byte("\r\n\r\n"))
					ask, err := wire.Read(body)
					if err != nil {
						t.Error(err)
						return
					}
					answer(c, ask, body)
				}
			}()
		}
	}()
	return l.Addr().String()
}

func whole(ask wire.Ask) []byte {
	s := wire.Of(ask)
	out := []byte(head)
	for i := range s.Events() {
		event := s.Append(nil, i, wire.Now())
		out = append(append(appendHex(out, len(event)), event...), "\r\n"...)
	}
	return append(out, "0\r\n\r\n"...)
}

func appendHex(b []byte, n int) []byte {
	const digits = "0123456789abcdef"
	return append(b, digits[n>>8&15], digits[n>>4&15], digits[n&15], '\r', '\n')
}

func plan(addr string) Plan {
	return Plan{Addrs: []string{addr}, Clients: 3, Ask: wire.Ask{Model: wire.Model, Stream: true, Tokens: 5}, Keys: []string{"a", "b"}, Once: true}
}

// until waits for what must come.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: ", what)
		}
	}
}

func TestLoadCountsWhatIsRight(t *testing.T) {
	l := Start(plan(backend(t, func(c net.Conn, ask wire.Ask, _ []byte) { c.Write(whole(ask)) })))
	l.Record(true)
	until(t, "all have their answer", func() bool { _, n := l.Counts(); return n == 3 })
	times, err := l.Stop(time.Minute)
	events, answers := l.Counts()
	if err != nil || events != 3*8 || answers != 3 || l.Begun() != 3 {
		t.Errorf("%d events, %d answers, %d begun, %v; want 24, 3, 3", events, answers, l.Begun(), err)
	}
	if len(times.First) > 3 || len(times.Event) > 15 { // those of before Record are not taken
		t.Errorf("%d first tokens, %d tokens", len(times.First), len(times.Event))
	}
}

func TestLoadTellsWhatIsWrong(t *testing.T) {
	var asked atomic.Int64
	for name, tt := range map[string]struct {
		answer func(c net.Conn, ask wire.Ask, body []byte)
		want   string
	}{
		"a byte is changed": {func(c net.Conn, ask wire.Ask, _ []byte) {
			out := whole(ask)
			out[len(out)/2] ^= 1 // within a token
			c.Write(out)
		}, " differs at byte "},
		"a cut": {func(c net.Conn, ask wire.Ask, _ []byte) {
			c.Write(whole(ask)[:900])
			c.Close()
		}, "the stream was cut within event 3 of 8: the connection was closed"},
		"a refusal": {func(c net.Conn, _ wire.Ask, _ []byte) {
			io.WriteString(c, "HTTP/1.1 429 Too Many Requests\r\n\r\n")
		}, "429 Too Many Requests"},
		"silence": {func(net.Conn, wire.Ask, []byte) { asked.Add(1) }, "no end 1ms after"},
	} {
		l := Start(plan(backend(t, tt.answer)))
		within := time.Minute
		if name == "silence" {
			within = time.Millisecond
			until(t, "all have asked", func() bool { return asked.Load() == 3 })
		} else {
			until(t, name, l.Failed)
		}
		if _, err := l.Stop(within); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", name, err, tt.want)
		}
	}
}
