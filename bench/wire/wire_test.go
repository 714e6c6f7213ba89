package wire

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestAskIsReadAsItWasWritten(t *testing.T) {
	for _, a := range []Ask{
		{Model: Model, Stream: true, Seed: 7<<32 | 3, Tokens: 128, Gap: 20 * time.Millisecond},
		{Model: "m", Seed: 1, Tokens: 1},
	} {
		body := a.Append(nil, strings.Repeat("word ", 1000))
		if !json.Valid(body) {
			t.Errorf("no JSON: %.300s", body)
		}
		if got, err := Read(body); got != a || err != nil {
			t.Errorf("read %+v, %v; want %+v", got, err, a)
		}
		// As the gateway asks for usage.
		a.Usage = true
		body = append([]byte(`{"stream_options":{"include_usage":true},`), body[1:]...)
		if got, err := Read(body); got != a || err != nil {
			t.Errorf("read %+v, %v; want %+v", got, err, a)
		}
	}
	for _, bad := range []string{"", "{}", `{"model":"m","stream":true}`, `{"seed":-1,"max_tokens":1,"gap_us":0}`} {
		if a, err := Read([]byte(bad)); err == nil {
			t.Errorf("%s: read %+v; want an error", bad, a)
		}
	}
}

func TestEventsHaveTheirSize(t *testing.T) {
	for _, usage := range []bool{false, true} {
		s := Of(Ask{Model: Model, Stream: true, Seed: 5, Tokens: 3, Usage: usage})
		for i := range s.Events() {
			at := Now()
			event := s.Append(nil, i, at)
			if len(event) != s.Size(i) {
				t.Errorf("event %d has %d bytes; Size says %d", i, len(event), s.Size(i))
			}
			data, ok := bytes.CutPrefix(bytes.TrimSuffix(event, []byte("\n\n")), []byte("data: "))
			if !ok || !json.Valid(data) && i < s.Events()-1 {
				t.Errorf("event %d is no JSON: %s", i, event)
			}
			if s.IsToken(i) && s.SentAt(event) != at {
				t.Errorf("event %d was sent at %d; read %d", i, at, s.SentAt(event))
			}
		}
		if last := s.Append(nil, s.Events()-1, 0); string(last) != "data: [DONE]\n\n" {
			t.Errorf("the last event is %s", last)
		}
	}
	if size := Of(Ask{Model: Model, Tokens: 1}).Size(1); size != 259 { // docs/performance.md says so
		t.Errorf("a token has %d bytes", size)
	}
}

func TestAnswersDiffer(t *testing.T) {
	a, b := Ask{Model: Model, Seed: 1, Tokens: 2}, Ask{Model: Model, Seed: 2, Tokens: 2}
	for i := range 4 {
		if x, y := Of(a).Append(nil, i, 9), Of(b).Append(nil, i, 9); bytes.Equal(x, y) {
			t.Errorf("event %d is that of another request: %s", i, x)
		}
	}
	x := AppendJSON(nil, a, []byte("body"))
	if !json.Valid(x) || bytes.Equal(x, AppendJSON(nil, b, []byte("body"))) || bytes.Equal(x, AppendJSON(nil, a, []byte("bodY"))) {
		t.Errorf("it is of any request: %s", x)
	}
}

// What is written is what is read, to the end; and a close
// wakes who waits.
func TestCheapConn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c = Cheap(c)
		c.Write(sent)
		c.Close()
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c = Cheap(c)
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("read %d bytes of %d, %v", len(got), len(sent), err)
	}
	quiet, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	quiet = Cheap(quiet)
	go quiet.Close()
	if n, err := quiet.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes of a connection that was closed", n)
	}
}
