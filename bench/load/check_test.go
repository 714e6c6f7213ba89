package load

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vllm-gateway/vllm-gateway/bench/wire"
)

var (
	streamAsk = wire.Ask{Model: wire.Model, Stream: true, Seed: 11, Tokens: 3}
	jsonAsk   = wire.Ask{Model: wire.Model, Seed: 12}
)

const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

// streamed is a right answer, with chunks of so many bytes.
func streamed(size int) (all []byte, bodyAt int) {
	s := wire.Of(streamAsk)
	var text []byte
	for i := range s.Events() {
		text = s.Append(text, i, 1000+int64(i))
	}
	all = []byte(head)
	for len(text) > 0 {
		n := min(size, len(text))
		all = fmt.Appendf(all, "%x\r\n%s\r\n", n, text[:n])
		text = text[n:]
	}
	return append(all, "0\r\n\r\n"...), len(head)
}

func streamChecker() *answer {
	return &answer{body: &streamBody{stream: wire.Of(streamAsk)}}
}

func sized() (all []byte, bodyAt int) {
	body := wire.AppendJSON(nil, jsonAsk, nil)
	all = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
	return append(all, body...), len(all)
}

func jsonChecker() *answer {
	return &answer{body: &jsonBody{want: wire.AppendJSON(nil, jsonAsk, nil)}}
}

// judge feeds an answer in parts of a size; the connection is closed behind it.
func judge(a *answer, all []byte, part int) error {
	for len(all) > 0 {
		n := min(part, len(all))
		if err := a.take(all[:n], wire.Now()); err != nil {
			return err
		}
		all = all[n:]
	}
	if a.state != done {
		return a.broken(errors.New("closed"))
	}
	return nil
}

func TestRightAnswersPass(t *testing.T) {
	for _, chunk := range []int{1, 7, 250, 255, 1 << 20} {
		all, _ := streamed(chunk)
		for _, part := range []int{1, 3, 100, len(all)} {
			if err := judge(streamChecker(), all, part); err != nil {
				t.Errorf("in chunks of %d, read by %d: %v", chunk, part, err)
			}
		}
	}
	all, _ := sized()
	for _, part := range []int{1, 3, len(all)} {
		if err := judge(jsonChecker(), all, part); err != nil {
			t.Errorf("read by %d: %v", part, err)
		}
	}
}

// Each byte is changed, left out, and said twice; and there each answer is cut.
func TestEveryWrongByteIsSeen(t *testing.T) {
	for name, tt := range map[string]struct {
		answer  func() ([]byte, int)
		checker func() *answer
	}{
		"stream": {func() ([]byte, int) { return streamed(250) }, streamChecker},
		"JSON":   {sized, jsonChecker},
	} {
		all, from := tt.answer()
		for i := from; i < len(all); i++ {
			changed := bytes.Clone(all)
			changed[i] ^= 1
			missing := append(bytes.Clone(all[:i]), all[i+1:]...)
			twice := append(bytes.Clone(all[:i+1]), all[i:]...)
			other := append(append(bytes.Clone(all[:i]), 'x'), all[i:]...)
			for what, bad := range map[string][]byte{"changed": changed, "missing": missing, "twice": twice, "more": other, "cut": all[:i]} {
				parts := []int{len(all)}
				if i%16 == 0 {
					parts = append(parts, 1)
				}
				for _, part := range parts {
					if what == "twice" && name == "stream" && leadingZero(all, i) {
						continue // a size of 0fa is one of fa
					}
					if judge(tt.checker(), bad, part) == nil {
						t.Fatalf("%s, byte %d %q, %s: it passes", name, i, all[i], what)
					}
				}
			}
		}
	}
}

// leadingZero: saying the byte twice makes no other number of a chunk's size.
func leadingZero(all []byte, i int) bool { return all[i] == '0' && all[i-1] == '\n' }

func TestWrongAnswersAreTold(t *testing.T) {
	right, from := streamed(250)
	another, _ := sized()
	for name, tt := range map[string]struct{ answer, want string }{
		"a refusal":           {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy", "503"},
		"somebody else's":     {string(another), "differs at byte 0"},
		"cut in an event":     {string(right[:from+700]), "cut within event 2"},
		"cut at once":         {"", "no answer"},
		"cut in the head":     {"HTTP/1.1 200", "cut before the body"},
		"without its end":     {string(right[:len(right)-2]), "end of the framing"},
		"no framing":          {"HTTP/1.1 200 OK\r\n\r\n", "without a body"},
		"two kinds of it":     {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", "framing"},
		"no size of a chunk":  {head + "zz\r\n", "no size"},
		"an empty size":       {head + "\r\n", "empty size"},
		"a head without end":  {strings.Repeat("x", maxHead+1), "without end"},
		"its connection ends": {strings.Replace(string(right), "\r\n", "\r\nConnection: close\r\n", 1), "told to keep it"},
	} {
		if err := judge(streamChecker(), []byte(tt.answer), 1<<20); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", name, err, tt.want)
		}
	}
}

// What is well framed may still be too much, or too little.
func TestWellFramedAndWrong(t *testing.T) {
	events, _ := streamed(1 << 20)
	end := []byte("0\r\n\r\n")
	events = bytes.TrimSuffix(events, end)
	if err := judge(streamChecker(), append(append(bytes.Clone(events), "1\r\n\n\r\n"...), end...), 1<<20); err == nil || !strings.Contains(err.Error(), "follows the end mark") {
		t.Errorf("more than the stream: %v", err)
	}
	body := wire.AppendJSON(nil, jsonAsk, nil)
	for what, body := range map[string][]byte{"cut": body[:len(body)-1], "more": append(bytes.Clone(body), ' ')} {
		if judge(jsonChecker(), fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body), 1<<20) == nil {
			t.Errorf("JSON, %s: it passes", what)
		}
	}
}

// A token cannot come before it was sent, nor one be sent before the last.
func TestTimesThatCannotBe(t *testing.T) {
	s := wire.Of(streamAsk)
	for name, times := range map[string][2]int64{"from the future": {1, 1 << 62}, "backwards": {2000, 1000}} {
		b := &streamBody{stream: s}
		text := s.Append(s.Append(s.Append(nil, 0, 0), 1, times[0]), 2, times[1])
		if err := b.take(text, 5000); err == nil || !strings.Contains(err.Error(), "was sent at") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// However an answer is cut into reads, it is judged alike.
func FuzzAnswer(f *testing.F) {
	right, _ := streamed(250)
	f.Add(right)
	f.Add([]byte(head + "5\r\nabcde\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
	f.Fuzz(func(t *testing.T, all []byte) {
		once := judge(streamChecker(), all, max(1, len(all)))
		bytewise := judge(streamChecker(), all, 1)
		if (once == nil) != (bytewise == nil) {
			t.Errorf("at once: %v; byte by byte: %v", once, bytewise)
		}
		if once == nil && !bytes.Contains(all, []byte("[DONE]")) {
			t.Errorf("it passes: %q", all)
		}
	})
}
