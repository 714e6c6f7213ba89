package openai

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// fill reads once from r, into memory that is overwritten after the next Keep.
func (e *Events) fill(r io.Reader) error {
	e.Keep()
	clear(shared[:])
	n, err := r.Read(shared[:])
	e.Add(shared[:n])
	return err
}

var shared [4 << 10]byte

// cut gives the pieces of a stream, "…" behind those that are no whole event.
func cut(r io.Reader) (pieces []string, rest string) {
	var e Events
	for {
		err := e.fill(r)
		for {
			piece := e.Next()
			if piece.Bytes == nil {
				break
			}
			mark := ""
			if !piece.First || !piece.Last {
				mark = "…"
			}
			pieces = append(pieces, string(piece.Bytes)+mark)
		}
		if err != nil {
			return pieces, string(e.Rest().Bytes)
		}
	}
}

func TestEvents(t *testing.T) {
	for name, tt := range map[string]struct {
		stream string
		want   []string
		rest   string
	}{
		"two":             {"data: a\n\ndata: b\n\n", []string{"data: a\n\n", "data: b\n\n"}, ""},
		"CRLF":            {"data: a\r\n\r\ndata: b\r\n\r\n", []string{"data: a\r\n\r\n", "data: b\r\n\r\n"}, ""},
		"mixed":           {"data: a\n\r\ndata: b\r\n\n", []string{"data: a\n\r\n", "data: b\r\n\n"}, ""},
		"comment":         {": hi\n\ndata: a\n\n", []string{": hi\n\n", "data: a\n\n"}, ""},
		"several lines":   {"event: x\ndata: a\ndata: b\n\n", []string{"event: x\ndata: a\ndata: b\n\n"}, ""},
		"no last line":    {"data: a\n\ndata: [DONE]\n", []string{"data: a\n\n"}, "data: [DONE]\n"},
		"half":            {"data: a\n\ndata: {\"cho", []string{"data: a\n\n"}, "data: {\"cho"},
		"empty lines":     {"\n\n\n\ndata: a\n\n", []string{"\n\n", "\n\n", "data: a\n\n"}, ""},
		"nothing":         {"", nil, ""},
		"no event at all": {"hello", nil, "hello"},
	} {
		for how, r := range map[string]io.Reader{
			"at once":       strings.NewReader(tt.stream),
			"byte by byte":  iotest.OneByteReader(strings.NewReader(tt.stream)),
			"data with EOF": iotest.DataErrReader(strings.NewReader(tt.stream)),
		} {
			got, rest := cut(r)
			if strings.Join(got, "|") != strings.Join(tt.want, "|") || rest != tt.rest {
				t.Errorf("%s, %s: %q rest %q; want %q rest %q", name, how, got, rest, tt.want, tt.rest)
			}
		}
	}
}

// An event of any length passes in bounded memory, byte for byte, and its end is
// found even if it straddles two reads.
func TestLongEvent(t *testing.T) {
	long := "data: " + strings.Repeat("x", 3*MaxEvent)
	for _, end := range []string{"\n\n", "\r\n\r\n", "\n\r\n"} {
		stream := long + end + "data: next\n\n"
		var e Events
		var out bytes.Buffer
		r := iotest.HalfReader(strings.NewReader(stream))
		var last string
		for err := error(nil); err == nil; {
			err = e.fill(r)
			for p := e.Next(); p.Bytes != nil; p = e.Next() {
				if p.First != (out.Len() == 0 || out.Len() == len(long+end)) || p.Last != (out.Len()+len(p.Bytes) == len(long+end) || out.Len()+len(p.Bytes) == len(stream)) {
					t.Errorf("end %q: piece of %d bytes at %d, %v %v", end, len(p.Bytes), out.Len(), p.First, p.Last)
				}
				out.Write(p.Bytes)
				last = string(p.Bytes)
			}
		}
		if out.String() != stream || last != "data: next\n\n" {
			t.Errorf("end %q: %d bytes in, %d bytes out, last %q", end, len(stream), out.Len(), last)
		}
		if held := cap(e.unread); held > 2*MaxEvent {
			t.Errorf("end %q: %d bytes are held", end, held)
		}
	}
}

func TestData(t *testing.T) {
	for event, want := range map[string]string{
		"data: a\n\n":                 "a",
		"data:a\r\n\r\n":              "a",
		"data:  a\n\n":                " a",
		"event: x\nid: 1\ndata: a\n":  "a",
		"data: a\ndata: b\n\n":        "a\nb",
		": comment\n\n":               "",
		"data\n\n":                    "",
		"database: x\n\n":             "",
		"data: a\ndata:b\ndata:\n\n":  "a\nb\n",
		"data: {\"x\":\"data: y\"}\n": `{"x":"data: y"}`,
	} {
		if got := string(data([]byte(event))); got != want {
			t.Errorf("data(%q) = %q; want %q", event, got, want)
		}
	}
}

// However a stream is cut into reads, its pieces are the same stream, its events
// are the same events, and no dialect trips over them.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n"), 3)
	f.Add([]byte("event: error\r\ndata: {\"type\":\"error\",\"error\":{\"code\":503}}\r\n\r\n: c\n\n"), 1)
	f.Add([]byte("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":-2}}\n\n"), 7)
	f.Add([]byte("data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":5}}}\n\nrest"), 2)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		whole, rest := cut(bytes.NewReader(stream))
		if got := strings.Join(whole, "") + rest; len(stream) <= MaxEvent && got != string(stream) {
			t.Fatalf("pieces make %q, the stream is %q", got, stream)
		}
		if size > 0 {
			small, smallRest := cut(&readsOf{bytes.NewReader(stream), size})
			if strings.Join(small, "|") != strings.Join(whole, "|") || smallRest != rest {
				t.Fatalf("reads of %d: %q, %q; at once: %q, %q", size, small, smallRest, whole, rest)
			}
		}
		for d := Other; d <= Messages; d++ {
			s := Stream{Dialect: d, Asked: true}
			for _, event := range whole {
				before := strings.Clone(event)
				fact := s.Read(Piece{[]byte(event), true, true})
				if event != before {
					t.Fatalf("Read changed the event")
				}
				if fact.Extra && fact.Token && d != Other {
					t.Fatalf("dialect %d: %q is left out, and bears a token", d, event)
				}
				if fact.Failure != nil && (fact.Failure.Status < 400 || fact.Failure.Status > 599) {
					t.Fatalf("dialect %d: %q has status %d", d, event, fact.Failure.Status)
				}
			}
			if s.Usage.Prompt < 0 || s.Usage.Completion < 0 {
				t.Fatalf("negative usage %+v", s.Usage)
			}
		}
	})
}

type readsOf struct {
	r    io.Reader
	size int
}

func (r *readsOf) Read(b []byte) (int, error) { return r.r.Read(b[:min(len(b), r.size)]) }
