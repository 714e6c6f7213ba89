package secret

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestTextShowsNothing(t *testing.T) {
	const hidden = "vg-OPENSESAME"
	s := New(hidden)
	inside := struct {
		Exported   Text
		unexported Text
		pointer    *Text
		list       []Text
		byName     map[string]Text
		Any        any
	}{s, s, &s, []Text{s}, map[string]Text{"a": s}, s}

	var out bytes.Buffer
	for _, v := range []any{s, &s, inside, &inside, inside.list, inside.byName} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%10s", "%p"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		fmt.Fprintln(&out, fmt.Errorf("it broke: %w: %v", fmt.Errorf("%+v", v), v))
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("logged", "v", v, slog.Group("g", "v", v))
		}
		j, _ := json.Marshal(v)
		x, _ := xml.Marshal(v)
		out.Write(j)
		out.Write(x)
	}
	for _, form := range []string{hidden, "OPENSESAME", fmt.Sprintf("%x", hidden), fmt.Sprintf("%X", hidden), fmt.Sprint([]byte(hidden))} {
		if strings.Contains(out.String(), form) {
			t.Errorf("it shows as %q", form)
		}
	}
	if !strings.Contains(out.String(), shown) {
		t.Error("nothing says that there is a secret")
	}
	if s.Reveal() != hidden || s.IsZero() || !New("").IsZero() || New("").Reveal() != "" || !s.Equal(New(hidden)) || s.Equal(New(hidden+"x")) || s.Equal(Text{}) {
		t.Error("it is not the text that was put in")
	}
}

func TestHash(t *testing.T) {
	h := HashOf("abc") // FIPS 180-2, appendix B.1
	const want = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if h.String() != want {
		t.Fatalf("the hash of abc is %v", h)
	}
	again, err := ParseHash(want)
	if err != nil || !h.Is(again) || h.Is(HashOf("abd")) {
		t.Errorf("read again as %v, %v", again, err)
	}
	for _, bad := range []string{"", "sha256:", want[7:], want[:len(want)-1], want[:len(want)-2], want + "0", want + "00", "md5:" + want[7:], strings.Replace(want, "ba", "bg", 1), "vg-THEKEYITSELF"} {
		_, err := ParseHash(bad)
		if err == nil {
			t.Errorf("%q was taken", bad)
		} else if strings.Contains(err.Error(), "THEKEY") {
			t.Errorf("the error repeats the text: %v", err)
		}
	}
}

func TestNewKey(t *testing.T) {
	a, b := NewKey(), NewKey()
	if a.Equal(b) || len(a.Reveal()) < 29 {
		t.Error("keys are not made by chance")
	}
}
