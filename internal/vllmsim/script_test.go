package vllmsim

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func FuzzTokenizer(f *testing.F) {
	for _, text := range []string{"", "Hello, world!", "  two spaces\n\ttab", "naïve 日本語 🙂", "\xff\xfe", "a very-long-compoundwordindeed"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ids := encode(text)
		if got := decode(ids); got != text {
			t.Errorf("decode(encode(%q)) = %q", text, got)
		}
		for _, id := range ids {
			if id == bos || id == eos || id < 0 || id >= 1<<53 {
				t.Errorf("encode(%q) has id %d", text, id)
			}
		}
	})
}

func TestUnpackSurvivesAnyID(t *testing.T) {
	for _, id := range []int{-1, 256, 258, 257 * 257, 1 << 62} {
		unpack(id)
	}
}

func TestTokenizeCountsAsUsageDoes(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		const prompt, messages = "Once upon a time, extraordinarily long ago", `[{"role":"user","content":"hi there"}]`
		for _, test := range []struct{ tokenize, path, body string }{
			{`{"prompt":"` + prompt + `"}`, "/v1/completions", `{"prompt":"` + prompt + `"}`},
			{`{"messages":` + messages + `}`, "/v1/chat/completions", `{"messages":` + messages + `}`},
		} {
			_, text := b.call("POST", "/tokenize", test.tokenize)
			var counted struct {
				Count  int
				Tokens []int
			}
			if err := json.Unmarshal([]byte(text), &counted); err != nil {
				t.Fatal(err)
			}
			_, answer := b.call("POST", test.path, test.body)
			if want := fmt.Sprintf(`"prompt_tokens":%d,`, counted.Count); !strings.Contains(answer, want) || counted.Count != len(counted.Tokens) {
				t.Errorf("%s: count %d of %d tokens; the answer's usage differs: %s", test.path, counted.Count, len(counted.Tokens), answer)
			}
			ids, _ := json.Marshal(counted.Tokens)
			if _, back := b.call("POST", "/detokenize", `{"tokens":`+string(ids)+`}`); test.path == "/v1/completions" && !strings.Contains(back, prompt) {
				t.Errorf("tokenized and back: %s", back)
			}
		}
	})
}

func TestSameSeedSameBytes(t *testing.T) {
	run := func(cfg Config, body string) (text string) {
		inBubble(t, cfg, func(t *testing.T, b *bubble) {
			for range 3 {
				_, answer := b.call("POST", "/v1/chat/completions", body)
				text += answer
			}
		})
		return text
	}
	const free = `{"messages":[{"role":"user","content":"hi"}],"stream":true}`
	one, two, other := run(Config{}, free), run(Config{}, free), run(Config{Seed: 1}, free)
	if one != two {
		t.Error("two servers with the same seed differ")
	}
	if one == other {
		t.Error("two servers with different seeds agree")
	}
	for _, body := range []string{`{"messages":[{"role":"user","content":"hi"}],"temperature":0}`, `{"messages":[{"role":"user","content":"hi"}],"seed":7}`} {
		inBubble(t, Config{}, func(t *testing.T, b *bubble) {
			_, one := b.call("POST", "/v1/chat/completions", body, "X-Request-Id", "x")
			_, two := b.call("POST", "/v1/chat/completions", body, "X-Request-Id", "x")
			if one != two {
				t.Errorf("%s: %s\nthen %s", body, one, two)
			}
		})
	}
}

func TestLengths(t *testing.T) {
	for _, test := range []struct {
		name     string
		speech   speech
		min, max int
		finish   string
	}{
		{"free", speech{maxTokens: 1000}, 5, 200, "stop"},
		{"capped", speech{maxTokens: 3}, 3, 3, "length"},
		{"ignore_eos", speech{maxTokens: 300, ignoreEOS: true}, 300, 300, "length"},
		{"min_tokens", speech{maxTokens: 1000, minTokens: 400}, 401, 401, "stop"},
		{"one token", speech{maxTokens: 1}, 1, 1, "length"},
	} {
		for seed := range uint64(100) {
			test.speech.seed = seed
			s := write(test.speech, 32)
			if n := len(s.tokens); n < test.min || n > test.max || s.finish != test.finish {
				t.Fatalf("%s, seed %d: %d tokens, %s; want %d to %d, %s", test.name, seed, n, s.finish, test.min, test.max, test.finish)
			}
		}
	}
}

func TestMeanLength(t *testing.T) {
	total := 0
	for seed := range uint64(2000) {
		total += len(write(speech{seed: mix(0, seed), maxTokens: 2000}, 32).tokens) - 1
	}
	if got := float64(total) / 2000; got < 31 || got > 33 {
		t.Errorf("mean length = %.1f; want 32", got)
	}
}

func TestStopStrings(t *testing.T) {
	whole := textOf(write(speech{seed: 1, maxTokens: 100}, 32).tokens, content)
	stop := whole[10:15] // across tokens
	for _, include := range []bool{false, true} {
		s := write(speech{seed: 1, maxTokens: 100, stop: []string{stop}, includeStop: include}, 32)
		got, want := textOf(s.tokens, content), whole[:strings.Index(whole, stop)]
		if include {
			want += stop
		}
		if got != want || s.stopped != stop || s.finish != "stop" {
			t.Errorf("stop %q: said %q, %s at %q; want %q, stop", stop, got, s.finish, s.stopped, want)
		}
	}
}

// Chunks are not tokens: now and then two tokens come in one.
func TestSomeChunksHoldSeveralTokens(t *testing.T) {
	inBubble(t, plain, func(t *testing.T, b *bubble) {
		const tokens = 400
		list := b.stream("/v1/completions", ask(1, 5, tokens))
		chunks := len(list) - 1 // the last is [DONE]
		if chunks < tokens*8/10 || chunks > tokens*98/100 {
			t.Errorf("%d tokens in %d chunks; want a few per cent fewer chunks", tokens, chunks)
		}
	})
}

func TestStructuredAnswersAreValid(t *testing.T) {
	const schema = `{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"array","items":{"type":"integer"}},
		"b":{"enum":["x","y"]},"c":{"type":["null","string"]},"d":{"anyOf":[{"type":"boolean"}]},"e":{"type":"number"},"f":{"const":5}}}`
	for seed := range uint64(50) {
		text := sample(json.RawMessage(schema), seed)
		var got map[string]any
		if err := json.Unmarshal([]byte(text), &got); err != nil || len(got) != 7 || !strings.HasPrefix(text, `{"z": "`) {
			t.Fatalf("seed %d: %s: %v; want the seven properties in order", seed, text, err)
		}
	}
	for _, odd := range []string{``, `null`, `5`, `{"type":"array"}`, `{"anyOf":[{}]}`} {
		if text := sample(json.RawMessage(odd), 1); !json.Valid([]byte(text)) {
			t.Errorf("schema %s gives %s", odd, text)
		}
	}
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		_, answer := b.call("POST", "/v1/chat/completions",
			`{"messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_object"}}`)
		var got struct {
			Choices []struct{ Message struct{ Content string } }
		}
		if err := json.Unmarshal([]byte(answer), &got); err != nil || !json.Valid([]byte(got.Choices[0].Message.Content)) {
			t.Errorf("answer %s; want JSON as its content", answer)
		}
	})
}

func TestAutoToolsAreCalledWhenTheyFit(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		for content, want := range map[string]string{
			"What is the weather?": `"finish_reason":"tool_calls"`,
			"Hello!":               `"finish_reason":"stop"`,
		} {
			_, answer := b.call("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"`+content+`"}],
				"tools":[{"type":"function","function":{"name":"get_weather"}}]}`)
			if !strings.Contains(answer, want) {
				t.Errorf("%s: %s; want %s", content, answer, want)
			}
		}
	})
}
