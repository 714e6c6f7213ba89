package openai

import (
	"bytes"
	"testing"
)

var chunk = []byte(`data: {"id":"chatcmpl-XCVYEISBQXLQ53PMY2GJEBKUKC","object":"chat.completion.chunk","created":1795443648,"model":"TinyLlama/TinyLlama-1.1B-Chat-v1.0","choices":[{"index":0,"delta":{"content":" second"},"logprobs":null,"finish_reason":null,"token_ids":null}]}` + "\n\n")

// Every event of every stream is looked at: it costs no garbage.
func TestReadDoesNotAllocate(t *testing.T) {
	s := Stream{Dialect: Chat, Asked: true}
	if n := testing.AllocsPerRun(1000, func() { s.Read(Piece{chunk, true, true}) }); n != 0 {
		t.Errorf("%v allocations an event; want 0", n)
	}
	var e Events
	if n := testing.AllocsPerRun(1000, func() {
		e.Add(chunk)
		e.Next()
		e.Keep()
	}); n != 0 {
		t.Errorf("%v allocations to cut an event; want 0", n)
	}
}

func BenchmarkRead(b *testing.B) {
	s := Stream{Dialect: Chat, Asked: true}
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		s.Read(Piece{chunk, true, true})
	}
}

func BenchmarkPeek(b *testing.B) {
	body := []byte(`{"model":"m","messages":[{"role":"user","content":"` + string(bytes.Repeat([]byte("word and \\\"word\\\" "), 12<<10)) + `"}],"stream":true}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if r := Peek(body); !r.Stream {
			b.Fatal("not seen")
		}
	}
}

func BenchmarkBody(b *testing.B) {
	body := []byte(`{"data":[{"embedding":[` + string(bytes.Repeat([]byte("-0.0123456789,"), 4<<10)) + `0]}],"usage":{"prompt_tokens":3,"total_tokens":3}}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var w Body
		w.Write(body)
		if w.Usage.Prompt != 3 {
			b.Fatal("not seen")
		}
	}
}

// Events that come in crowds, cut anywhere, need no memory for each crowd either.
func TestCrowdsDoNotAllocate(t *testing.T) {
	stream := bytes.Repeat(chunk, 10)
	var e Events
	at, events := 0, 0
	if n := testing.AllocsPerRun(1000, func() {
		e.Add(stream[at : at+1000])
		for e.Next().Bytes != nil {
			events++
		}
		e.Keep()
		at = (at + 1000) % len(chunk)
	}); n != 0 {
		t.Errorf("%v allocations a crowd; want 0", n)
	}
	if want := 1001 * 1000 / len(chunk); events != want {
		t.Errorf("%d events; want %d", events, want)
	}
}
