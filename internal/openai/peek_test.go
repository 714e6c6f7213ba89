package openai

import (
	"bytes"
	"encoding/json"
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
		"absent":             {`{"model":"m","stream":true}`, `{"stream_options":{"include_usage":true},"model":"m","stream":true}`},
		"leading space":      {` { "stream":true}`, ` {"stream_options":{"include_usage":true}, "stream":true}`},
		"null":               {`{"stream_options":null,"stream":true}`, `{"stream_options":{"include_usage":true},"stream":true}`},
		"empty":              {`{"stream_options":{},"stream":true}`, `{"stream_options":{"include_usage":true},"stream":true}`},
		"empty with space":   {`{"stream_options":{ },"stream":true}`, `{"stream_options":{"include_usage":true },"stream":true}`},
		"other options":      {`{"stream_options":{"x":1},"stream":true}`, `{"stream_options":{"include_usage":true,"x":1},"stream":true}`},
		"refused":            {`{"stream":true,"stream_options":{"a":[1], "include_usage" : false }}`, `{"stream":true,"stream_options":{"a":[1], "include_usage" : true }}`},
		"refused with a 0":   {`{"stream":1,"stream_options":{"include_usage":0}}`, `{"stream":1,"stream_options":{"include_usage":true}}`},
		"refused in words":   {`{"stream":"on","stream_options":{"include_usage":"No"}}`, `{"stream":"on","stream_options":{"include_usage":true}}`},
		"null inside":        {`{"stream":true,"stream_options":{"include_usage":null}}`, `{"stream":true,"stream_options":{"include_usage":true}}`},
		"the last one holds": {`{"stream":true,"stream_options":{"include_usage":true},"stream_options":{}}`, `{"stream":true,"stream_options":{"include_usage":true},"stream_options":{"include_usage":true}}`},
		"asked already":      {`{"stream":true,"stream_options":{"include_usage":true}}`, ""},
		"continuous":         {`{"stream":true,"stream_options":{"continuous_usage_stats":true}}`, ""},
		"not continuous":     {`{"stream":true,"stream_options":{"continuous_usage_stats":false}}`, `{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":false}}`},
		"no stream":          {`{"model":"m"}`, ""},
		"odd options":        {`{"stream":true,"stream_options":7}`, ""},
		"no JSON":            {`{"stream":true`, ""},
	} {
		body := []byte(tt.body)
		got, ok := Peek(body).AskForUsage(body)
		want := tt.want
		if want == "" {
			want = tt.body
		}
		if string(got) != want || ok != (tt.want != "") {
			t.Errorf("%s: AskForUsage(%s) = %s, %v; want %s, %v", name, tt.body, got, ok, want, tt.want != "")
		}
		if string(body) != tt.body {
			t.Errorf("%s: the body itself was changed to %s", name, body)
		}
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
// changes anything but stream_options.
func FuzzPeek(f *testing.F) {
	for _, s := range []string{
		`{"model":"m","stream":true,"messages":[{"role":"user","content":"hi \"there\" \\"}]}`,
		`{"model":"m","stream":true,"stream_options":{"include_usage":false,"x":{"y":[1,2]}}}`,
		`{"stream_options":null,"stream":true}`, `{"mod\u0065l":"\ud83d\ude00"}`, `{"a":1}{"model":"m"}`, `[]`, ` { } `,
		`{"stream":true,"stream_options":{"continuous_usage_stats":true}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		got := Peek(body)
		asked, did := got.AskForUsage(body)
		if !bytes.Equal(before, body) {
			t.Fatalf("the body was changed: %q -> %q", before, body)
		}
		if did == bytes.Equal(asked, body) {
			t.Fatalf("asked = %v, yet %q -> %q", did, body, asked)
		}
		if json.Valid(body) != json.Valid(asked) {
			t.Fatalf("soundness changed: %q -> %q", body, asked)
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
		if !did {
			return
		}
		var edited map[string]json.RawMessage
		json.Unmarshal(asked, &edited)
		var options map[string]json.RawMessage // a struct would take names of another case
		if err := json.Unmarshal(edited["stream_options"], &options); err != nil || string(options["include_usage"]) != "true" {
			t.Errorf("asked, but %q does not ask (%v)", asked, err)
		}
		delete(want, "stream_options")
		delete(edited, "stream_options")
		if len(want) != len(edited) {
			t.Errorf("other members changed: %q -> %q", body, asked)
		}
		for name := range want {
			if !bytes.Equal(want[name], edited[name]) {
				t.Errorf("member %q changed: %q -> %q", name, want[name], edited[name])
			}
		}
	})
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
