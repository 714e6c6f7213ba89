package openai

import (
	"bytes"
	"encoding/json"
	"maps"
	"mime/multipart"
	"slices"
	"strings"
	"testing"
)

func TestPeek(t *testing.T) {
	for name, tt := range map[string]struct {
		body string
		want Request
	}{
		"plain":               {`{"model":"m","stream":true}`, Request{Model: "m", Stream: true}},
		"a word":              {`{"model":"m","stream":"Yes"}`, Request{Model: "m", Stream: true}},
		"a number":            {`{"model":"m","stream":1}`, Request{Model: "m", Stream: true}},
		"another word":        {`{"model":"m","stream":"no"}`, Request{Model: "m"}},
		"another number":      {`{"model":"m","stream":0}`, Request{Model: "m"}},
		"spaced":              {" {\n \"model\" : \"m\" ,\t\"stream\" : true }\n", Request{Model: "m", Stream: true}},
		"no stream":           {`{"model":"m"}`, Request{Model: "m"}},
		"stream false":        {`{"stream":false,"model":"m"}`, Request{Model: "m"}},
		"the last one holds":  {`{"model":"a","stream":true,"model":"b","stream":false}`, Request{Model: "b"}},
		"escaped name":        {`{"mod\u0065l":"m"}`, Request{Model: "m"}},
		"escaped value":       {`{"model":"a\"b\\"}`, Request{Model: `a"b\`}},
		"nested is not ours":  {`{"x":{"model":"inner","stream":true},"y":["model",{"model":"z"}]}`, Request{}},
		"quotes in a prompt":  {`{"prompt":"say \"model\": \"x\", }{][","model":"m"}`, Request{Model: "m"}},
		"model is a number":   {`{"model":7}`, Request{}},
		"not an object":       {`["model","m"]`, Request{}},
		"cut":                 {`{"model":"m","prompt":"abc`, Request{}},
		"cut after a value":   {`{"model":"m"`, Request{}},
		"comma before brace":  {`{"model":"m",}`, Request{}},
		"missing comma":       {`{"model":"m" "stream":true}`, Request{}},
		"empty":               {``, Request{}},
		"case counts":         {`{"Model":"m","STREAM":true}`, Request{}},
		"stream as a string":  {`{"model":"m","stream":"true"}`, Request{Model: "m", Stream: true}},
		"a backslash at last": {`{"a":"\\","model":"m"}`, Request{Model: "m"}},
	} {
		got := Peek([]byte(tt.body))
		got.options = member{}
		if got.Model != tt.want.Model || got.Stream != tt.want.Stream {
			t.Errorf("%s: Peek(%s) = %+v; want %+v", name, tt.body, got, tt.want)
		}
	}
}

func TestAskForUsage(t *testing.T) {
	for name, tt := range map[string]struct{ body, want string }{ // want "": left alone
		"absent":                {`{"model":"m","stream":true}`, `{"stream_options":{"include_usage":true},"model":"m","stream":true}`},
		"leading space":         {` { "stream":true}`, ` {"stream_options":{"include_usage":true}, "stream":true}`},
		"null":                  {`{"stream_options":null,"stream":true}`, `{"stream_options":{"include_usage":true},"stream":true}`},
		"empty":                 {`{"stream_options":{},"stream":true}`, `{"stream_options":{"include_usage":true},"stream":true}`},
		"empty with space":      {`{"stream_options":{ },"stream":true}`, `{"stream_options":{"include_usage":true },"stream":true}`},
		"other options":         {`{"stream_options":{"x":1},"stream":true}`, `{"stream_options":{"include_usage":true,"x":1},"stream":true}`},
		"refused":               {`{"stream":true,"stream_options":{"a":[1], "include_usage" : false }}`, `{"stream":true,"stream_options":{"a":[1], "include_usage" : true }}`},
		"refused with a 0":      {`{"stream":1,"stream_options":{"include_usage":0}}`, `{"stream":1,"stream_options":{"include_usage":true}}`},
		"refused in words":      {`{"stream":"on","stream_options":{"include_usage":"No"}}`, `{"stream":"on","stream_options":{"include_usage":true}}`},
		"null inside":           {`{"stream":true,"stream_options":{"include_usage":null}}`, `{"stream":true,"stream_options":{"include_usage":true}}`},
		"the last one holds":    {`{"stream":true,"stream_options":{"include_usage":true},"stream_options":{}}`, `{"stream":true,"stream_options":{"include_usage":true},"stream_options":{"include_usage":true}}`},
		"asked already":         {`{"stream":true,"stream_options":{"include_usage":true}}`, ""},
		"continuous":            {`{"stream":true,"stream_options":{"continuous_usage_stats":true}}`, ""},
		"continuous, of none":   {`{"stream":true,"stream_options":{"include_usage":false,"continuous_usage_stats":true}}`, `{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":false}}`},
		"the other way about":   {`{"stream":true,"stream_options":{"continuous_usage_stats":1,"include_usage":null},"n":1}`, `{"stream":true,"stream_options":{"continuous_usage_stats":false,"include_usage":true},"n":1}`},
		"continuous, and asked": {`{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`, ""},
		"nonsense, of none":     {`{"stream":true,"stream_options":{"include_usage":false,"continuous_usage_stats":"x"}}`, ""},
		"not continuous":        {`{"stream":true,"stream_options":{"continuous_usage_stats":false}}`, `{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":false}}`},
		"no stream":             {`{"model":"m"}`, ""},
		"odd options":           {`{"stream":true,"stream_options":7}`, ""},
		"no JSON":               {`{"stream":true`, ""},
	} {
		want := tt.want
		if want == "" {
			want = tt.body
		}
		for _, room := range []int{0, 1, 64} {
			body := append(make([]byte, 0, len(tt.body)+room), tt.body...)
			got, ok := Peek(body).AskForUsage(body)
			if string(got) != want || ok != (tt.want != "") {
				t.Errorf("%s, room for %d: AskForUsage(%s) = %s, %v; want %s, %v", name, room, tt.body, got, ok, want, tt.want != "")
			}
			if room == 64 && &got[0] != &body[0] {
				t.Errorf("%s: not changed in place", name)
			}
		}
	}
}

func TestPrevious(t *testing.T) {
	for name, tt := range map[string]struct{ body, want string }{
		"named":       {`{"previous_response_id":"resp_1","input":"x"}`, "resp_1"},
		"last holds":  {`{"previous_response_id":"a","previous_response_id":"b"}`, "b"},
		"null":        {`{"previous_response_id":null}`, ""},
		"a number":    {`{"previous_response_id":7}`, ""},
		"nested":      {`{"input":[{"previous_response_id":"a"}]}`, ""},
		"no JSON":     {`{"previous_response_id":"a"`, ""},
		"as it comes": {`{"previous_response_id":"../\u0061"}`, "../a"},
	} {
		if got := Peek([]byte(tt.body)).Previous; got != tt.want {
			t.Errorf("%s: Peek(%s).Previous = %q; want %q", name, tt.body, got, tt.want)
		}
	}
}

func TestPrefix(t *testing.T) {
	for name, tt := range map[string]struct {
		body string
		n    int
		want string
	}{
		"chat":             {`{"messages":[{"role":"user"}],"model":"m"}`, 100, `[{"role":"user"}`},
		"chat goes on":     {`{"messages":[{"role":"system"},{"role":"user"}, {"role":"assistant"},{"role":"user"}]}`, 100, `[{"role":"system"},{"role":"user"}`},
		"chat, cut":        {`{"messages":[{"role":"user"}],"model":"m"}`, 5, `[{"ro`},
		"completions":      {`{"model":"m","prompt":"Once upon"}`, 100, `"Once upon"`},
		"completions, ids": {`{"prompt":[1, 2]}`, 100, `[1, 2]`},
		"responses":        {`{"input":"hi","instructions":"Be brief."}`, 100, `"Be brief.""hi"`},
		"responses, cut":   {`{"input":"hi","instructions":"Be brief."}`, 13, `"Be brief.""h`},
		"messages":         {`{"messages":[1],"system":[{"text":"x"}]}`, 100, `[{"text":"x"}][1]`},
		"the fixed order":  {`{"input":5,"messages":4,"prompt":3,"tools":6,"system":2,"instructions":1}`, 100, `12345`},
		"null":             {`{"system":null,"messages":[1]}`, 100, `[1]`},
		"escaped name":     {`{"m\u0065ssages":[1]}`, 100, `[1]`},
		"last holds":       {`{"input":"a","input":"b"}`, 100, `"b"`},
		"nested":           {`{"x":{"prompt":"a"}}`, 100, ""},
		"none":             {`{"model":"m"}`, 100, ""},
		"no JSON":          {`{"prompt":"a"`, 100, ""},
		"nothing asked":    {`{"prompt":"a"}`, 0, ""},
		"less than that":   {`{"prompt":"a"}`, -1, ""},
	} {
		got := Peek([]byte(tt.body)).Prefix(tt.n)
		if string(got) != tt.want {
			t.Errorf("%s: Peek(%s).Prefix(%d) = %s; want %s", name, tt.body, tt.n, got, tt.want)
		}
		if cap(got) != len(got) {
			t.Errorf("%s: %d bytes taken for %d", name, cap(got), len(got))
		}
	}
	body := []byte(`{"prompt":"a"}`)
	prefix := Peek(body).Prefix(9)
	copy(body, "XXXXXXXXXXXXXX")
	if string(prefix) != `"a"` {
		t.Errorf("the prefix became %s with its body", prefix)
	}
}

func TestOpening(t *testing.T) {
	const system, hello, one = `{"role":"system","content":"Be brief."}`, `{"role":"user","content":"Hello"}`, `{"content":"One","role":"assistant"}`
	for name, tt := range map[string]struct {
		body string
		n    int
		want string
	}{
		"chat":              {`{"messages":[` + system + `, ` + hello + `]}`, 100, system + hello},
		"chat goes on":      {`{"messages":[` + system + `,` + hello + `,` + one + `,` + hello + `]}`, 100, system + hello},
		"each is cut":       {`{"messages":[` + system + `,` + hello + `]}`, 12, system[:12] + hello[:12]},
		"assistant first":   {`{"messages":[` + one + `,` + hello + `,` + one + `]}`, 100, one + hello},
		"nobody is a user":  {`{"messages":[` + one + `,` + one + `]}`, 100, one + one},
		"many of them":      {`{"messages":[` + strings.Repeat("1,", 99) + `1]}`, 100, strings.Repeat("1", 16)},
		"messages":          {`{"messages":[` + hello + `,` + one + `],"system":"Be brief."}`, 100, `"Be brief."` + hello},
		"responses":         {`{"input":[` + hello + `,` + one + `],"instructions":"Be brief."}`, 100, `"Be brief."` + hello},
		"responses, a text": {`{"input":"Hello","instructions":"Be brief."}`, 4, `"Be "Hel`},
		"no turns":          {`{"instructions":"Be brief.","input":null}`, 100, ""},
		"completions":       {`{"prompt":"Once upon a time"}`, 100, ""},
		"empty":             {`{"messages":[]}`, 100, ""},
		"no JSON":           {`{"messages":[1]`, 100, ""},
		"less than nothing": {`{"messages":[1]}`, -1, ""},
	} {
		if got := Peek([]byte(tt.body)).Opening(tt.n); string(got) != tt.want {
			t.Errorf("%s: Peek(%s).Opening(%d) = %s; want %s", name, tt.body, tt.n, got, tt.want)
		}
	}
}

func TestWithModel(t *testing.T) {
	for name, tt := range map[string]struct{ body, model, want string }{
		"plain":        {`{"model":"m","stream":true}`, "other", `{"model":"other","stream":true}`},
		"spaced":       {" { \"a\":1 , \"model\" : \"m\" }\n", "o", " { \"a\":1 , \"model\" : \"o\" }\n"},
		"escaped name": {`{"mod\u0065l":"m"}`, "o", `{"mod\u0065l":"o"}`},
		"escaped":      {`{"model":"m"}`, `a"b\`, `{"model":"a\"b\\"}`},
		"repeated":     {`{"model":"a","x":1,"model":"b"}`, "o", `{"model":"a","x":1,"model":"o"}`},
		"a number":     {`{"model":7}`, "o", `{"model":"o"}`},
		"null":         {`{"model":null}`, "o", `{"model":"o"}`},
		"nested":       {`{"x":{"model":"m"}}`, "o", `{"x":{"model":"m"}}`},
		"none":         {`{"stream":true}`, "o", `{"stream":true}`},
		"no JSON":      {`{"model":"m"`, "o", `{"model":"m"`},
		"no object":    {`["model","m"]`, "o", `["model","m"]`},
	} {
		body := []byte(tt.body)
		got := Peek(body).WithModel(body, tt.model)
		if string(got) != tt.want {
			t.Errorf("%s: WithModel(%s, %s) = %s; want %s", name, tt.body, tt.model, got, tt.want)
		}
		if string(body) != tt.body {
			t.Errorf("%s: the body itself was changed to %s", name, body)
		}
	}
}

// A model is renamed first; the renamed body is asked for its usage as any other.
func TestWithModelThenAskForUsage(t *testing.T) {
	body := []byte(`{"model":"m","stream":true,"stream_options":{"include_usage":false}}`)
	body = Peek(body).WithModel(body, "a longer one")
	got, ok := Peek(body).AskForUsage(body)
	if want := `{"model":"a longer one","stream":true,"stream_options":{"include_usage":true}}`; string(got) != want || !ok {
		t.Errorf("%s, %v; want %s", got, ok, want)
	}
}

func TestPeekForm(t *testing.T) {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, _ := form.CreateFormFile("file", "model")
	file.Write([]byte("RIFF"))
	form.WriteField("model", "whisper")
	form.WriteField("stream", "true")
	form.Close()
	got := PeekForm(body.Bytes(), form.FormDataContentType())
	if got.Model != "whisper" || !got.Stream {
		t.Errorf("PeekForm = %+v; want whisper, streamed", got)
	}
	if _, ok := got.AskForUsage(body.Bytes()); ok {
		t.Error("a form was made to ask for usage, as if it were JSON")
	}
	if got := PeekForm(body.Bytes()[:body.Len()/2], "multipart/form-data"); got.Model != "" {
		t.Errorf("PeekForm without a boundary = %+v; want nothing", got)
	}
}

// What Peek sees is what a real JSON parser sees, and asking for usage never
// turns a sound body into a broken one, a broken one into a sound one, or
// changes anything but stream_options. A prefix is made of the body's bytes, and
// is no longer than it may be. Another model changes nothing but the model.
func FuzzPeek(f *testing.F) {
	for _, s := range []string{
		`{"model":"m","stream":true,"messages":[{"role":"user","content":"hi \"there\" \\"}]}`,
		`{"model":"m","stream":true,"stream_options":{"include_usage":false,"x":{"y":[1,2]}}}`,
		`{"stream_options":null,"stream":true}`, `{"mod\u0065l":"\ud83d\ude00"}`, `{"a":1}{"model":"m"}`, `[]`, ` { } `,
		`{"stream":true,"stream_options":{"continuous_usage_stats":true}}`,
		`{"model":"a","model":null,"input":"x","instructions":[1,2],"previous_response_id":"resp_1"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		got := Peek(body)
		body = slices.Clip(body)
		asked, did := got.AskForUsage(body)
		if !bytes.Equal(before, body) && &asked[0] != &body[0] {
			t.Fatalf("the body was changed: %q -> %q", before, body)
		}
		roomy := append(make([]byte, 0, len(before)+64), before...)
		if in, _ := Peek(roomy).AskForUsage(roomy); !bytes.Equal(in, asked) {
			t.Fatalf("with room %q, without %q", in, asked)
		}
		body = before
		got = Peek(body)
		if did == bytes.Equal(asked, body) {
			t.Fatalf("asked = %v, yet %q -> %q", did, body, asked)
		}
		if json.Valid(body) != json.Valid(asked) {
			t.Fatalf("soundness changed: %q -> %q", body, asked)
		}
		prefix := got.Prefix(1 << 20)
		for n := range 9 {
			if short := got.Prefix(n); len(short) != min(n, len(prefix)) || !bytes.HasPrefix(prefix, short) || cap(short) > n {
				t.Fatalf("Prefix(%d) of %q is %q of %d bytes; whole: %q", n, body, short, cap(short), prefix)
			}
		}
		if opening := got.Opening(9); len(opening) > 9*(maxOpens+3) { // system, instructions and a text besides
			t.Fatalf("Opening(9) of %q is %q", body, opening)
		}
		renamed := got.WithModel(body, odd)
		if !bytes.Equal(before, body) {
			t.Fatalf("the body was changed: %q -> %q", before, body)
		}
		if json.Valid(body) && !json.Valid(renamed) {
			t.Fatalf("broken by another model: %q -> %q", body, renamed)
		}
		var want map[string]json.RawMessage
		if !json.Valid(body) || !strings.HasPrefix(strings.TrimLeft(string(body), " \t\r\n"), "{") || json.Unmarshal(body, &want) != nil {
			return
		}
		var model string
		json.Unmarshal(want["model"], &model)
		if got.Model != model && !strings.ContainsRune(model, '\uFFFD') {
			t.Errorf("Peek(%q).Model = %q; encoding/json says %q", body, got.Model, model)
		}
		if stream := isTrueToPydantic(want["stream"]); got.Stream != stream {
			t.Errorf("Peek(%q).Stream = %v; encoding/json says %v", body, got.Stream, stream)
		}
		var previous string
		json.Unmarshal(want["previous_response_id"], &previous)
		if got.Previous != previous && !strings.ContainsRune(previous, '\uFFFD') {
			t.Errorf("Peek(%q).Previous = %q; encoding/json says %q", body, got.Previous, previous)
		}
		var read []byte
		for _, name := range []string{"instructions", "system", "prompt", "messages", "input"} {
			if v := want[name]; string(v) != "null" {
				read = append(read, v...)
			}
		}
		turns := len(want["messages"]) > 0 || len(want["input"]) > 0
		if !turns && !bytes.Equal(read, prefix) || (want["input"] == nil || want["messages"] == nil) && !bytes.HasPrefix(read, prefix) {
			t.Errorf("the model reads %q of %q; Prefix says %q", read, body, prefix)
		}
		var other map[string]json.RawMessage
		json.Unmarshal(renamed, &other)
		if _, named := want["model"]; named {
			if err := json.Unmarshal(other["model"], &model); err != nil || model != odd || Peek(renamed).Model != odd {
				t.Errorf("%q names the model %q (%v)", renamed, model, err)
			}
		} else if !bytes.Equal(body, renamed) {
			t.Errorf("no model to change: %q -> %q", body, renamed)
		}
		sameMembers(t, body, renamed, "model")
		if !did {
			return
		}
		var edited map[string]json.RawMessage
		json.Unmarshal(asked, &edited)
		var options map[string]json.RawMessage // a struct would take names of another case
		if err := json.Unmarshal(edited["stream_options"], &options); err != nil || string(options["include_usage"]) != "true" {
			t.Errorf("asked, but %q does not ask (%v)", asked, err)
		}
		sameMembers(t, body, asked, "stream_options")
	})
}

// odd is a model whose name must be escaped.
const odd = "a\"b\\ \u2028é<"

// sameMembers compares two objects in all but the member except.
func sameMembers(t *testing.T, body, edited []byte, except string) {
	t.Helper()
	var a, b map[string]json.RawMessage
	json.Unmarshal(body, &a)
	json.Unmarshal(edited, &b)
	delete(a, except)
	delete(b, except)
	if !maps.EqualFunc(a, b, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
		t.Errorf("other members than %s changed: %q -> %q", except, body, edited)
	}
}

// isTrueToPydantic is the rule of isTrue, from a decoded value.
func isTrueToPydantic(raw json.RawMessage) bool {
	var v any
	json.Unmarshal(raw, &v)
	switch v := v.(type) {
	case bool:
		return v
	case float64:
		return v == 1
	case string:
		return slices.Contains([]string{"1", "on", "t", "true", "y", "yes"}, strings.ToLower(v))
	}
	return false
}
