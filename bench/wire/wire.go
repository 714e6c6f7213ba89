// Package wire is what the mock and the load generator agree on: what is asked for,
// and every byte of the answer to it. Answers are made of a number that the client
// draws for each request, so an answer that went to the wrong client, an old one, or
// one with a byte changed, is none that the client expects.
package wire

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"
)

// Model is the one that is asked for where nothing else is said. With it a token has as
// many bytes as one of vLLM's, give or take one.
const Model = "meta-llama/Llama-3.1-8B"

// ModelName is what the i-th model is called.
func ModelName(i int) string {
	if i == 0 {
		return Model
	}
	return fmt.Sprintf("bench/model-%05d", i)
}

// Ask is what a request asks the mock for.
type Ask struct {
	Model  string
	Stream bool
	Seed   uint64
	// Tokens is how many token-bearing events a stream has.
	Tokens int
	// Gap is the time between two of them, to the microsecond; 0: none.
	Gap time.Duration
	// Usage: the stream says at its end how many tokens it was.
	Usage bool
}

// Append appends the request's body. The prompt goes into a JSON string as it is. What
// the mock reads stands before it.
func (a Ask) Append(b []byte, prompt string) []byte {
	b = append(b, `{"model":"`...)
	b = append(b, a.Model...)
	b = append(b, `","stream":`...)
	b = strconv.AppendBool(b, a.Stream)
	b = append(b, `,"seed":`...)
	b = strconv.AppendUint(b, a.Seed, 10)
	b = append(b, `,"max_tokens":`...)
	b = strconv.AppendInt(b, int64(a.Tokens), 10)
	b = append(b, `,"gap_us":`...)
	b = strconv.AppendInt(b, a.Gap.Microseconds(), 10)
	b = append(b, `,"temperature":0.7,"messages":[{"role":"user","content":"`...)
	b = append(b, prompt...)
	return append(b, `"}]}`...)
}

// readWithin is how much of a body is looked at: all of it that is not prompt, with
// what a gateway may have put before it.
const readWithin = 512

// Read finds what a body of [Ask.Append] asks for, where somebody has put something
// before it as well.
func Read(body []byte) (Ask, error) {
	head := body[:min(len(body), readWithin)]
	value := func(name string) []byte {
		_, after, _ := bytes.Cut(head, []byte(`"`+name+`":`))
		return after[:max(0, bytes.IndexAny(after, ",}"))]
	}
	var a Ask
	a.Model = string(bytes.Trim(value("model"), `"`))
	a.Stream = string(value("stream")) == "true"
	a.Usage = string(value("include_usage")) == "true"
	var wrong error
	number := func(name string) uint64 {
		n, err := strconv.ParseUint(string(value(name)), 10, 63)
		if err != nil && wrong == nil {
			wrong = fmt.Errorf("the body has no number %q among its first %d bytes: %.80q", name, readWithin, head)
		}
		return n
	}
	a.Seed = number("seed")
	a.Tokens = int(number("max_tokens"))
	a.Gap = time.Duration(number("gap_us")) * time.Microsecond
	return a, wrong
}

const (
	created  = "1764496800"
	timeSize = 19 // digits of a positive int64
)

// Stream makes the events of one stream: that of the role, the tokens, that of the end,
// usage where it is asked for, and the end mark.
type Stream struct {
	ask  Ask
	head []byte // of each event, to its choices
}

// Of gives the stream that answers an ask.
func Of(a Ask) *Stream {
	s := &Stream{ask: a}
	b := make([]byte, 0, 192)
	b = append(b, `data: {"id":"chatcmpl-`...)
	b = appendID(b, a.Seed)
	b = append(b, `","object":"chat.completion.chunk","created":`+created+`,"model":"`...)
	b = append(b, a.Model...)
	s.head = append(b, `","choices":[`...)
	return s
}

const (
	roleTail   = `{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}` + "\n\n"
	tokenMid   = `{"index":0,"delta":{"content":" `
	tokenTail  = `"},"logprobs":null,"finish_reason":null}]}` + "\n\n"
	finishTail = `{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"length","stop_reason":null}]}` + "\n\n"
	mark       = "data: [DONE]\n\n"
	mixSize    = 8
)

// Events is how many there are.
func (s *Stream) Events() int {
	if s.ask.Usage {
		return s.ask.Tokens + 4
	}
	return s.ask.Tokens + 3
}

// IsToken reports whether event i is a token.
func (s *Stream) IsToken(i int) bool { return i >= 1 && i <= s.ask.Tokens }

// Append appends event i, as sent at a time of [Now]. Only tokens say when that was.
func (s *Stream) Append(b []byte, i int, at int64) []byte {
	switch {
	case i == s.Events()-1:
		return append(b, mark...)
	case i == 0:
		return append(append(b, s.head...), roleTail...)
	case s.IsToken(i):
		b = append(append(b, s.head...), tokenMid...)
		b = appendHex(b, mix(s.ask.Seed, uint64(i), uint64(at)), mixSize)
		b = append(b, ' ')
		b = appendTime(b, at)
		return append(b, tokenTail...)
	case i == s.ask.Tokens+1:
		return append(append(b, s.head...), finishTail...)
	default:
		b = append(b, s.head...)
		b = append(b, `],"usage":{"prompt_tokens":40,"total_tokens":`...)
		b = strconv.AppendInt(b, int64(40+s.ask.Tokens), 10)
		b = append(b, `,"completion_tokens":`...)
		b = strconv.AppendInt(b, int64(s.ask.Tokens), 10)
		return append(b, "}}\n\n"...)
	}
}

// Size is the length of event i in bytes.
func (s *Stream) Size(i int) int {
	switch {
	case i == s.Events()-1:
		return len(mark)
	case i == 0:
		return len(s.head) + len(roleTail)
	case s.IsToken(i):
		return len(s.head) + len(tokenMid) + mixSize + 1 + timeSize + len(tokenTail)
	case i == s.ask.Tokens+1:
		return len(s.head) + len(finishTail)
	default:
		return len(s.Append(nil, i, 0))
	}
}

// SentAt reads when a token was sent. It is 0 where no time stands; the bytes around
// it are for the caller to compare, and change with it.
func (s *Stream) SentAt(event []byte) int64 {
	from := len(s.head) + len(tokenMid) + mixSize + 1
	if len(event) < from+timeSize {
		return 0
	}
	var at int64
	for _, c := range event[from : from+timeSize] {
		if c < '0' || c > '9' {
			return 0
		}
		at = at*10 + int64(c-'0')
	}
	return max(at, 0)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendJSON appends the answer to an ask that wants no stream. It has a sum of the
// request's body, so a request that was changed on its way is seen as well.
func AppendJSON(b []byte, a Ask, body []byte) []byte {
	b = append(b, `{"id":"chatcmpl-`...)
	b = appendID(b, a.Seed)
	b = append(b, `","object":"chat.completion","created":`+created+`,"model":"`...)
	b = append(b, a.Model...)
	b = append(b, `","choices":[{"index":0,"message":{"role":"assistant","content":"`...)
	for i := range uint64(16) {
		b = append(appendHex(b, mix(a.Seed, i, 0), mixSize), ' ')
	}
	b = append(b, `","refusal":null,"annotations":null,"audio":null,"function_call":null,"tool_calls":[],"reasoning":null},"logprobs":null,"finish_reason":"stop","stop_reason":null}],"service_tier":null,"system_fingerprint":"sum-`...)
	b = appendHex(b, uint64(crc32.Checksum(body, castagnoli)), 8)
	b = append(b, `","usage":{"prompt_tokens":40,"total_tokens":72,"completion_tokens":32,"prompt_tokens_details":null},"prompt_logprobs":null,"kv_transfer_params":null}`...)
	return b
}

func appendID(b []byte, seed uint64) []byte {
	return appendHex(appendHex(b, mix(seed, 1, 2), 16), mix(seed, 3, 4), 16)
}

// mix gives 64 bits in which each bit of what goes in has its part (splitmix64's end).
func mix(a, b, c uint64) uint64 {
	x := a ^ b*0x9e3779b97f4a7c15 ^ c*0xd1b54a32d192ed03 + 0x8cb92ba72f3d8dd7
	for range 2 {
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
	}
	return x
}

func appendHex(b []byte, x uint64, digits int) []byte {
	for i := digits - 1; i >= 0; i-- {
		b = append(b, "0123456789abcdef"[x>>(4*i)&15])
	}
	return b
}

func appendTime(b []byte, at int64) []byte {
	b = append(b, "0000000000000000000"...)
	for i := len(b) - 1; at > 0; i-- {
		b[i] = byte('0' + at%10)
		at /= 10
	}
	return b
}
