package vllmsim

import "unicode/utf8"

type chatLogprobs struct {
	Content []chatLogprob `json:"content"`
}

type chatLogprob struct {
	Token       string       `json:"token"`
	Logprob     float64      `json:"logprob"`
	Bytes       []int        `json:"bytes"`
	TopLogprobs []topLogprob `json:"top_logprobs"`
}

type topLogprob struct {
	Token   string  `json:"token"`
	Logprob float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

type completionLogprobs struct {
	TextOffset    []int                `json:"text_offset"`
	TokenLogprobs []*float64           `json:"token_logprobs"`
	Tokens        []string             `json:"tokens"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs"`
}

// logprob makes up a probability for the rank-th best token, above those of the
// ranks after it.
func logprob(id, rank int) float64 {
	return -float64(mix(uint64(id), 7)%1000)/1000 - 1.25*float64(rank)
}

// rival is another token that could have come; rank 0 is the token itself.
func rival(id, rank int) string {
	if rank == 0 {
		return unpack(id)
	}
	return " " + words[(mix(uint64(id), 11)+uint64(rank))%uint64(len(words))]
}

// bytesOf prints as a list of numbers, where []byte would print as base64.
func bytesOf(s string) []int {
	list := make([]int, len(s))
	for i := range len(s) {
		list[i] = int(s[i])
	}
	return list
}

func newChatLogprobs(tokens []token, top int) *chatLogprobs {
	l := &chatLogprobs{Content: []chatLogprob{}}
	for _, t := range tokens {
		text := unpack(t.id)
		entry := chatLogprob{Token: text, Logprob: logprob(t.id, 0), Bytes: bytesOf(text), TopLogprobs: []topLogprob{}}
		for rank := range top {
			other := rival(t.id, rank)
			entry.TopLogprobs = append(entry.TopLogprobs, topLogprob{other, logprob(t.id, rank), bytesOf(other)})
		}
		l.Content = append(l.Content, entry)
	}
	return l
}

// newCompletionLogprobs counts offsets in characters from the start of the
// answer.
func newCompletionLogprobs(tokens []token, top, offset int) *completionLogprobs {
	l := &completionLogprobs{TextOffset: []int{}, TokenLogprobs: []*float64{}, Tokens: []string{}, TopLogprobs: []map[string]float64{}}
	for _, t := range tokens {
		l.TextOffset = append(l.TextOffset, offset)
		l.Tokens = append(l.Tokens, unpack(t.id))
		l.TokenLogprobs = append(l.TokenLogprobs, new(logprob(t.id, 0)))
		best := map[string]float64{unpack(t.id): logprob(t.id, 0)}
		for rank := 1; rank < top; rank++ {
			best[rival(t.id, rank)] = logprob(t.id, rank)
		}
		l.TopLogprobs = append(l.TopLogprobs, best)
		offset += utf8.RuneCountInString(t.text)
	}
	return l
}

// forget the first token's: nothing comes before a prompt that would make its
// first token likely.
func (l *completionLogprobs) forget() {
	if len(l.Tokens) > 0 {
		l.TokenLogprobs[0], l.TopLogprobs[0] = nil, nil
	}
}
