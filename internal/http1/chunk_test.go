package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http/httputil"
	"strings"
	"testing"
)

var errCut = errors.New("the body is cut")

// dechunk reads a body that arrives in pieces of some bytes.
func dechunk(raw []byte, piece int) (body, rest []byte, err error) {
	var d dechunker
	for !d.done() {
		if len(raw) == 0 {
			return body, nil, errCut
		}
		p := raw[:min(piece, len(raw))]
		data, used, err := d.next(p)
		if err != nil {
			return body, raw, err
		}
		if used == 0 {
			return body, raw, errors.New("nothing was used")
		}
		body, raw = append(body, data...), raw[used:]
	}
	return body, raw, nil
}

func TestChunks(t *testing.T) {
	for raw, want := range map[string]string{
		"0\r\n\r\n":                                        "",
		"2\r\n{}\r\n0\r\n\r\n":                             "{}",
		"02 \t\r\n{}\r\n00\r\n\r\n":                        "{}",
		"0000000000000002\r\n{}\r\n0\r\n\r\n":              "{}",
		"2;a=\"\xff;\x00\"\r\n{}\r\n1;\r\nx\r\n0;\r\n\r\n": "{}x",
		"aA\r\n" + strings.Repeat("x", 170) + "\r\n0\r\nA: b\r\nC:\r\n\r\n":                              strings.Repeat("x", 170),
		strings.Repeat("1\r\nx\r\n", 20_000) + "0\r\n\r\n":                                               strings.Repeat("x", 20_000),
		"2;" + strings.Repeat("x", 3900) + "\r\n{}\r\n0\r\nA: " + strings.Repeat("b", 3900) + "\r\n\r\n": "{}",
	} {
		for _, piece := range []int{1, 2, 3, 7, 1 << 20} {
			body, rest, err := dechunk([]byte(raw+"next"), piece)
			if string(body) != want || string(rest) != "next" || err != nil {
				t.Errorf("%.60q in pieces of %d: %.60q, %.60q, %v", raw, piece, body, rest, err)
			}
		}
	}
	bad := []string{
		"\r\n", "\n", "g\r\n", "ffffffffffffffff\r\n{}", "4000000000000001\r\n{}", "2\n{}\r\n0\r\n\r\n", "2\r{}\r\n0\r\n\r\n",
		"2\r\n{}\n0\r\n\r\n", "2\r\n{}x", "2\r\n{}0\r\n\r\n", "2\r\n{}\rx", "1\r\n{}\r\n", "0\r\n\n", "0\r\nA\r\n", "0\r\n A: b\r\n", "0\r\nA : b\r\n", "0\r\n: b\r\n", "0\r\nA: \x00\r\n", "0\r\nA: b\n\r\n", "0\r\nA: b\r\n c\r\n", "0\r\n\rx",
		"2;" + strings.Repeat("x", 4096), "0\r\nA: " + strings.Repeat("b", 4096), strings.Repeat("1;"+strings.Repeat("x", 2000)+"\r\nx\r\n", 40) + "0\r\n\r\n",
	}
	for _, size := range []string{" 2", "-2", "+2", "0x2", "2 ;a", "2 a", "2\r", "2;a\n", "2;a\rb", "2;\r", "00000000000000002", ";2", "2,2", "2\x00", "\x002", "2h", "２"} {
		bad = append(bad, size+"\r\n{}\r\n0\r\n\r\n")
	}
	for _, raw := range bad {
		for _, piece := range []int{1, 2, 1 << 20} {
			if body, _, err := dechunk([]byte(raw+"\r\n\r\n"), piece); err == nil || err == errCut {
				t.Errorf("%.60q in pieces of %d was taken: %.60q, %v", raw, piece, body, err)
			}
		}
	}
}

// An error is for good.
func TestBrokenChunksStayBroken(t *testing.T) {
	var d dechunker
	if _, _, err := d.next([]byte("x")); err == nil {
		t.Fatal("taken")
	}
	if data, used, err := d.next([]byte("2\r\n{}\r\n")); err == nil || used != 0 || data != nil || d.done() {
		t.Errorf("%q, %d, %v", data, used, err)
	}
}

func TestDechunkingAllocatesNothing(t *testing.T) {
	raw := []byte("fa\r\n" + strings.Repeat("x", 250) + "\r\n")
	var d dechunker
	if n := testing.AllocsPerRun(100, func() {
		if data, used, err := d.next(raw); len(data) != 250 || used != len(raw) || err != nil {
			t.Fatal(len(data), used, err)
		}
	}); n != 0 {
		t.Errorf("%.0f allocations", n)
	}
}

// What is taken is what net/http's reader takes, and however it arrives it is the same.
func FuzzChunks(f *testing.F) {
	for _, raw := range []string{"0\r\n\r\n", "2\r\n{}\r\n0\r\nA: b\r\n\r\nnext", "2;a=b\r\n{}\r\n1 \r\nx\r\n0\r\n\r\n", "3;\xff\r\n\r\n0\r\n0\r\n\r\n", "10\r\n0123456789abcdef\r\n0\r\n\r\n", "ffffffffffffffff\r\nx"} {
		f.Add([]byte(raw), byte(1))
	}
	f.Fuzz(func(t *testing.T, raw []byte, piece byte) {
		body, rest, err := dechunk(raw, 1<<20)
		inPieces, restOfPieces, errOfPieces := dechunk(raw, int(piece)+1)
		if !bytes.Equal(inPieces, body) || err != errOfPieces || err == nil && !bytes.Equal(rest, restOfPieces) {
			t.Errorf("at once %q, %q, %v; in pieces of %d %q, %q, %v", body, rest, err, int(piece)+1, inPieces, restOfPieces, errOfPieces)
		}
		in := bufio.NewReaderSize(bytes.NewReader(raw), max(len(raw), 4096))
		other, otherErr := io.ReadAll(httputil.NewChunkedReader(in))
		if err == nil && (otherErr != nil || !bytes.Equal(body, other)) {
			t.Errorf("%q; net/http: %q, %v", body, other, otherErr)
		}
		if otherErr == nil && err != nil && err != errCut && !bytes.Equal(body, other[:min(len(body), len(other))]) {
			t.Errorf("%q before %v; net/http: %q", body, err, other)
		}
	})
}
