package openai

import (
	"bytes"
	"reflect"
	"testing"
)

// What is said of an event because the one before was alike is what reading it says.
func FuzzAlike(f *testing.F) {
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"yz\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"\"}}]}\n\ndata: [DONE]\n\n"))
	f.Add([]byte("data: {\"choices\":[{\"text\":\"x\",\"finish_reason\":null}]}\n\ndata: {\"choices\":[{\"text\":\"x\\\"\",\"finish_reason\":\"stop\"}]}\n\n"))
	f.Add([]byte("data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"a\"}}\n\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"b\ndata: c\"}}\n\n"))
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":1}}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"b\"}}],\"usage\":{\"prompt_tokens\":1}}\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		events, _ := cut(bytes.NewReader(stream))
		for d := Other; d <= Messages; d++ {
			quick, slow := Stream{Dialect: d, Asked: true}, Stream{Dialect: d, Asked: true}
			for _, event := range events {
				got := quick.Read(Piece{[]byte(event), true, true})
				want := slow.Read(Piece{[]byte(event), true, true})
				slow.alike = alike{}
				if !reflect.DeepEqual(got, want) || quick.Usage != slow.Usage || quick.ID != slow.ID || quick.forced != slow.forced {
					t.Fatalf("dialect %d: %q is read as %+v, %+v; by itself as %+v, %+v", d, event, got, quick, want, slow)
				}
			}
		}
	})
}

// The events of vLLM are recognised, and others are not.
func TestAlike(t *testing.T) {
	s := Stream{Dialect: Chat}
	s.Read(Piece{chunk, true, true})
	for event, want := range map[string]bool{
		string(chunk): true,
		string(bytes.Replace(chunk, []byte(" second"), []byte(" third, and more"), 1)):     true,
		string(bytes.Replace(chunk, []byte(" second"), nil, 1)):                            false,
		string(bytes.Replace(chunk, []byte(" second"), []byte(`\n`), 1)):                   false,
		string(bytes.Replace(chunk, []byte(" second"), []byte(`a","b":"c`), 1)):            false,
		string(bytes.Replace(chunk, []byte(`on":null`), []byte(`on":"stop"`), 1)):          false,
		string(bytes.Replace(chunk, []byte(`"index":0`), []byte(`"index":1`), 1)):          false,
		string(bytes.Replace(chunk, []byte(`content":"`), []byte(`refusal":"`), 1)):        false,
		string(bytes.TrimSuffix(chunk, []byte("\n"))):                                      false,
		string(bytes.Replace(chunk, []byte(" second"), []byte("a\n\ndata: {\"b\":\""), 1)): false,
	} {
		if got := s.alike.matches([]byte(event)); got != want {
			t.Errorf("%q is alike: %v; want %v", event, got, want)
		}
	}
}
