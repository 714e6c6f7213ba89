package openai

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEstimate(t *testing.T) {
	const half = math.MaxInt64 / 2
	picture := "data:image/png;base64," + strings.Repeat("iVBORw0KGgo", 1000)
	base64 := strings.Repeat("QUJD", 1000)
	for name, tt := range map[string]struct {
		d    Dialect
		body string
		want Estimate // Answers 0 stands for 1
	}{
		"chat":                {Chat, `{"model":"m","messages":[{"role":"user","content":"12345678"}]}`, Estimate{Text: 12}},
		"parts":               {Chat, `{"messages":[{"role":"user","content":[{"type":"text","text":"12345678"}]}]}`, Estimate{Text: 16}},
		"spaced":              {Chat, "{ \"messages\" : [ { \"role\" :\n\"user\" , \"content\" :\t\"12345678\" } ] }", Estimate{Text: 12}},
		"nothing":             {Chat, `{}`, Estimate{}},
		"nulls":               {Chat, `{"messages":null,"max_tokens":null,"n":null,"tools":null}`, Estimate{}},
		"the last one holds":  {Chat, `{"messages":["123"],"max_tokens":7,"messages":["1"],"max_tokens":9}`, Estimate{Text: 1, MaxTokens: 9}},
		"what is not read":    {Chat, `{"user":"a","metadata":{"prompt":"b"},"stop":["c"],"model":"d"}`, Estimate{}},
		"max":                 {Chat, `{"max_tokens":7}`, Estimate{MaxTokens: 7}},
		"the newer one first": {Chat, `{"max_tokens":7,"max_completion_tokens":5}`, Estimate{MaxTokens: 5}},
		"the newer one null":  {Chat, `{"max_tokens":7,"max_completion_tokens":null}`, Estimate{MaxTokens: 7}},
		"not its own name":    {Completions, `{"max_tokens":7,"max_completion_tokens":5,"max_output_tokens":3}`, Estimate{MaxTokens: 7}},
		"a path without":      {Other, `{"input":"1234","max_tokens":7,"n":3}`, Estimate{Text: 4}},
		"n":                   {Chat, `{"max_tokens":7,"n":3}`, Estimate{MaxTokens: 7, Answers: 3}},
		"best of":             {Completions, `{"max_tokens":7,"n":3,"best_of":5}`, Estimate{MaxTokens: 7, Answers: 5}},
		"n above best of":     {Completions, `{"max_tokens":7,"n":3,"best_of":2}`, Estimate{MaxTokens: 7, Answers: 3}},
		"batch":               {Chat, `{"messages":[[{"content":"1"}],[{"content":"2"}]],"n":2}`, Estimate{Text: 2, Answers: 4}},
		"a string":            {Chat, `{"max_tokens":" 12 ","n":"2"}`, Estimate{MaxTokens: 12, Answers: 2}},
		"a float":             {Chat, `{"max_tokens":12.0,"n":2.5}`, Estimate{MaxTokens: 12, Answers: 2}},
		"negative":            {Chat, `{"max_tokens":-12,"n":-3}`, Estimate{}},
		"huge":                {Chat, `{"max_tokens":9000000000000000000,"n":9223372036854775807}`, Estimate{MaxTokens: half, Answers: half}},
		"beyond int64":        {Chat, `{"max_tokens":99999999999999999999}`, Estimate{MaxTokens: half}},
		"beyond float64":      {Chat, `{"max_tokens":1e999}`, Estimate{MaxTokens: half}},
		"negative beyond":     {Chat, `{"max_tokens":-1e999}`, Estimate{}},
		"long":                {Chat, `{"max_tokens":` + strings.Repeat("9", 5000) + `}`, Estimate{MaxTokens: half}},
		"no number":           {Chat, `{"max_tokens":"many","n":[2]}`, Estimate{}},
		"not a number":        {Chat, `{"max_tokens":NaN,"n":"nan"}`, Estimate{}},
		"half a string":       {Chat, `{"max_tokens":"","n":true}`, Estimate{}},
		"responses":           {Responses, `{"instructions":"1234","input":"5678","max_output_tokens":5,"max_tokens":9}`, Estimate{Text: 8, MaxTokens: 5}},
		"messages":            {Messages, `{"system":"1234","messages":[{"content":"5678"}],"max_tokens":5}`, Estimate{Text: 8, MaxTokens: 5}},
		"tools":               {Chat, `{"tools":[{"type":"function","max":5}]}`, Estimate{Text: 15, Known: 1}},
		"completions":         {Completions, `{"prompt":"1234","max_tokens":5}`, Estimate{Text: 4, MaxTokens: 5}},
		"prompts":             {Completions, `{"prompt":["1234","5"],"max_tokens":5,"n":2}`, Estimate{Text: 5, MaxTokens: 5, Answers: 4}},
		"token ids":           {Completions, `{"prompt":[1, 22,333]}`, Estimate{Known: 3}},
		"lists of token ids":  {Completions, `{"prompt":[[1,22],[333],[]]}`, Estimate{Known: 3, Answers: 3}},
		"no prompts":          {Completions, `{"prompt":[]}`, Estimate{}},
		"embeddings":          {Other, `{"input":[[1,2],[3]]}`, Estimate{Known: 3}},
		"Cohere":              {Other, `{"texts":["12","34"],"images":["` + picture + `"]}`, Estimate{Text: 4, Known: mediaTokens}},
		"rerank":              {Other, `{"query":"123","documents":["1234","5"]}`, Estimate{Text: 3*2 + 5}},
		"score":               {Other, `{"text_1":"123","text_2":"1234"}`, Estimate{Text: 7}},
		"score pairs":         {Other, `{"text_1":["123","4"],"text_2":["1234","5"]}`, Estimate{Text: 4 + 5}},
		"generative scoring":  {Other, `{"query":[1,2,3],"items":[[4],[5,6]]}`, Estimate{Known: 3 + 3}},
		"a query alone":       {Other, `{"query":"123"}`, Estimate{Text: 3}},
		"documents of a chat": {Chat, `{"messages":["12"],"documents":[{"text":"345"}]}`, Estimate{Text: 5}},
		"a picture":           {Chat, `{"messages":[{"content":[{"type":"image_url","image_url":{"url":"` + picture + `"}},{"text":"1234"}]}]}`, Estimate{Text: 9 + 4, Known: mediaTokens}},
		"a picture's URL":     {Responses, `{"input":[{"content":[{"image_url":"https://example.org/a.png"},{"text":"1"}]}]}`, Estimate{Text: 1, Known: mediaTokens}},
		"a picture of Claude": {Messages, `{"messages":[{"content":[{"source":{"type":"base64","data":"` + base64 + `"}}]}]}`, Estimate{Text: 6, Known: mediaTokens}},
		"a sound":             {Chat, `{"messages":[{"content":[{"input_audio":{"data":"` + base64 + `","format":"wav"}}]}]}`, Estimate{Known: mediaTokens}},
		"a data URL anywhere": {Chat, `{"messages":[{"content":"` + picture + `"}]}`, Estimate{Known: mediaTokens}},
		"text about data":     {Chat, `{"messages":[{"data":"all that there is to say about it; and it is not little, and has words","content":"data: is what SSE begins with"}]}`, Estimate{Text: 70 + 29}},
		"not a data URL":      {Chat, `{"messages":["data:a b;base64,c"]}`, Estimate{Text: 17}},
		"escapes":             {Chat, `{"messages":["\n\"\\\/\u0041\u00e4\u4e2d\ud83d\ude00x"]}`, Estimate{Text: int64(len("\n\"\\/Aä中😀x"))}},
		"no object":           {Chat, `["12345678"]`, Estimate{Text: 12}},
		"cut":                 {Chat, `{"max_tokens":5,"messages":["1234`, Estimate{Text: 33}},
		"empty":               {Chat, ``, Estimate{}},
	} {
		tt.want.Answers = max(tt.want.Answers, 1)
		if got := Peek([]byte(tt.body)).Estimate(tt.d); got != tt.want {
			t.Errorf("%s: %+v; want %+v", name, got, tt.want)
		}
	}
	form := "--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x--\r\n"
	if got := PeekForm([]byte(form), "multipart/form-data; boundary=x").Estimate(Other); got != (Estimate{Answers: 1}) {
		t.Errorf("a form: %+v", got)
	}
}

func TestEstimateInTokens(t *testing.T) {
	const half = math.MaxInt64 / 2
	for _, tt := range []struct {
		e                  Estimate
		bytesPerToken      float64
		prompt, completion int64
	}{
		{Estimate{Text: 9, Known: 2, MaxTokens: 7, Answers: 3}, 4, 5, 21},
		{Estimate{Text: 9, Known: 2, Answers: 3}, 3, 5, 0},
		{Estimate{Text: 9, Answers: 1}, 0, 3, 0},
		{Estimate{Text: 9, Answers: 1}, -1, 3, 0},
		{Estimate{Text: 9, Answers: 1}, math.NaN(), 3, 0},
		{Estimate{Text: 9, Answers: 1}, math.Inf(1), 3, 0},
		{Estimate{Text: 9, Known: half, MaxTokens: half, Answers: half}, 1e-300, half, half},
		{Estimate{Text: half, Known: half, MaxTokens: half / 2, Answers: 2}, 1, half, half - 1},
	} {
		if p, c := tt.e.Prompt(tt.bytesPerToken), tt.e.Completion(); p != tt.prompt || c != tt.completion {
			t.Errorf("%+v at %v: %d and %d; want %d and %d", tt.e, tt.bytesPerToken, p, c, tt.prompt, tt.completion)
		}
	}
}

// A body may be nested as deep as it is long; and each byte is looked at a few times.
func TestEstimateOfDepth(t *testing.T) {
	const deep = 1 << 20
	body := `{"messages":` + strings.Repeat(`[`, deep) + `"1234"` + strings.Repeat(`]`, deep) + `}`
	if got := Peek([]byte(body)).Estimate(Chat); got.Text != 4 {
		t.Errorf("%+v", got)
	}
}

func FuzzEstimate(f *testing.F) {
	f.Add([]byte(`{"messages":[{"role":"user","content":"a\u4e2d"}],"max_tokens":5,"n":2,"tools":[{"a":1}]}`), 4.0)
	f.Add([]byte(`{"prompt":[[1,2],[3]],"best_of":"7","max_tokens":-1e99}`), 0.0)
	f.Add([]byte(`{"query":"a","documents":["b",{"image_url":{"url":"data:image/png;base64,x"}}]}`), -1.0)
	f.Fuzz(func(t *testing.T, body []byte, bytesPerToken float64) {
		r := Peek(body)
		for d := Other; d <= Messages; d++ {
			e := r.Estimate(d)
			p, c := e.Prompt(bytesPerToken), e.Completion()
			if e.Text < 0 || e.Known < 0 || e.MaxTokens < 0 || e.Answers < 1 || p < 0 || c < 0 || p+c < 0 {
				t.Errorf("%v: %+v, %d, %d", d, e, p, c)
			}
		}
		// Of one well-formed string the length is exact.
		var text struct{ Prompt string }
		if json.Unmarshal(body, &text) == nil && utf8.Valid(body) {
			one, _ := json.Marshal(map[string]string{"prompt": text.Prompt})
			if e := Peek(one).Estimate(Completions); e.Known == 0 && e.Text != int64(len(text.Prompt)) {
				t.Errorf("%q has %d bytes; %+v", text.Prompt, len(text.Prompt), e)
			}
		}
	})
}

func BenchmarkEstimate(b *testing.B) {
	for name, text := range map[string]string{
		"plain":   strings.Repeat("word and word and ", 5700),
		"escaped": strings.Repeat(`word and \"word\"\n`, 5700),
		"unicode": strings.Repeat(`\u4e2d\u6587\u5b57`, 5700),
	} {
		r := Peek([]byte(`{"model":"m","messages":[{"role":"user","content":"` + text + `"}],"max_tokens":100}`))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(r.body)))
			b.ReportAllocs()
			for b.Loop() {
				if e := r.Estimate(Chat); e.MaxTokens != 100 {
					b.Fatal("not seen")
				}
			}
		})
	}
}

// The quick way to a text's length and the slow one agree.
func TestTextLength(t *testing.T) {
	for _, raw := range []string{``, `abc`, `a\nb`, `\\`, `\\\\`, `\\\n`, `\\\\\"x`, `\"\\u0041`, `a\\\\\u0041`, `\u00e9`, `\ud83d\ude00`, `x\\ux\\`, `\\\\u`} {
		if got, want := textLength([]byte(raw)), unescapedLength([]byte(raw)); got != want {
			t.Errorf("%q: %d; want %d", raw, got, want)
		}
	}
}
