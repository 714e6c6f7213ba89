// Package secret holds what must not be seen: texts that cannot be printed, and
// the hashes under which keys are kept.
package secret

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// Text is a secret. However it is printed, logged or marshalled, alone or inside of
// something else, it shows that it is one and nothing more. The zero Text is none.
type Text struct {
	// A pointer: fmt does not ask the methods of an unexported field, and prints what
	// it finds; of this it finds an address.
	text *string
}

// New makes a secret of a text; of "" it makes none.
func New(text string) Text {
	if text == "" {
		return Text{}
	}
	return Text{&text}
}

// Reveal gives the text, for the one place that needs it.
func (t Text) Reveal() string {
	if t.text == nil {
		return ""
	}
	return *t.text
}

// IsZero reports whether there is no secret.
func (t Text) IsZero() bool { return t.text == nil }

// Equal compares in a time that does not tell where two differ.
func (t Text) Equal(other Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Reveal()), []byte(other.Reveal())) == 1
}

const shown = "[secret]"

func (t Text) String() string { return shown }

// Format is what all verbs of fmt print.
func (t Text) Format(w fmt.State, _ rune) { io.WriteString(w, shown) }

// LogValue is what slog prints.
func (t Text) LogValue() slog.Value { return slog.StringValue(shown) }

// MarshalText is what JSON, YAML and others print.
func (t Text) MarshalText() ([]byte, error) { return []byte(shown), nil }

// Hash is the SHA-256 of a key. Keys have 128 bits of chance and more, so that a
// plain hash, which costs a microsecond, cannot be turned back; passwords that
// people think of can.
type Hash [sha256.Size]byte

const hashPrefix = "sha256:"

// HashOf gives the hash of a key.
func HashOf(key string) Hash { return sha256.Sum256([]byte(key)) }

// ParseHash reads what String prints. The error does not repeat the text, which may
// be a key that somebody has put in the hash's place.
func ParseHash(text string) (h Hash, err error) {
	digits, ok := strings.CutPrefix(text, hashPrefix)
	if raw, err := hex.DecodeString(digits); !ok || err != nil || copy(h[:], raw) != len(h) || len(raw) != len(h) {
		return Hash{}, errors.New("not a hash: write sha256: and 64 hexadecimal digits, as hash-key prints it")
	}
	return h, nil
}

func (h Hash) String() string { return hashPrefix + hex.EncodeToString(h[:]) }

// Is compares in a time that does not tell where two differ.
func (h Hash) Is(other Hash) bool { return subtle.ConstantTimeCompare(h[:], other[:]) == 1 }

// MinKey is how many characters a key has at least. What is shorter can be guessed, and
// its hash turned back.
const MinKey = 16

// NewKey makes a key: some 130 bits of chance.
func NewKey() Text { return New("vg-" + rand.Text()) }
