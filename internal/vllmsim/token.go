package vllmsim

import (
	"unicode"
	"unicode/utf8"
)

// The toy tokenizer: a token is a piece of up to six bytes of a word, with the
// space before it, or one other character. That gives English about as many
// tokens as a real vocabulary does. An id is the piece itself, written as a
// number in base 257 with digits from 1, so ids need no table, turn back into
// exactly their text, and stay below 2^53, where JSON numbers are exact.
const (
	pieceBytes = 6
	base       = 257

	bos = 0    // no piece is 0
	eos = base // its last digit is 0, which no piece has
)

// encode gives the ids of a text; decode is its inverse.
func encode(text string) []int {
	ids := make([]int, 0, len(text)/4+1)
	for len(text) > 0 {
		n := pieceLen(text)
		ids = append(ids, pack(text[:n]))
		text = text[n:]
	}
	return ids
}

func decode(ids []int) string {
	var text []byte
	for _, id := range ids {
		text = append(text, unpack(id)...)
	}
	return string(text)
}

// pieceLen is how many bytes of text its first token takes.
func pieceLen(text string) int {
	n := 0
	if text[0] == ' ' {
		n = 1
	}
	start := n
	for n < len(text) {
		r, size := utf8.DecodeRuneInString(text[n:])
		if !wordRune(r) || n+size > pieceBytes {
			break
		}
		n += size
	}
	if n > start {
		return n
	}
	_, size := utf8.DecodeRuneInString(text)
	return size
}

func wordRune(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r))
}

func pack(piece string) int {
	id := 0
	for i := range len(piece) {
		id = id*base + int(piece[i]) + 1
	}
	return id
}

// unpack gives the text of an id; ids that encode never gives have none, but
// for the two special ones.
func unpack(id int) string {
	switch id {
	case bos:
		return "<s>"
	case eos:
		return "</s>"
	}
	var piece [pieceBytes]byte
	at := len(piece)
	for ; id > 0; id /= base {
		digit := id % base
		if digit == 0 || at == 0 {
			return ""
		}
		at--
		piece[at] = byte(digit - 1)
	}
	return string(piece[at:])
}
