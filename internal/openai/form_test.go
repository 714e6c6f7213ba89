package openai

import (
	"bytes"
	"mime/multipart"
	"strings"
	"testing"
)

func TestFormWithModel(t *testing.T) {
	const kind = "multipart/form-data; boundary=xx"
	field := func(name, value string) string {
		return "--xx\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
	}
	file := "--xx\r\nContent-Disposition: form-data; name=\"model\"; filename=\"model\"\r\nContent-Type: audio/wav\r\n\r\n\r\n\r\nmodel\r\n\r\n--x\r\n"
	for name, tt := range map[string]struct{ body, want string }{
		"alone":                {field("model", "a") + "--xx--\r\n", field("model", "long name") + "--xx--\r\n"},
		"empty":                {field("model", "") + "--xx--", field("model", "long name") + "--xx--"},
		"behind a file":        {file + field("model", "a") + "--xx--", file + field("model", "long name") + "--xx--"},
		"before a file":        {field("model", "a") + file + "--xx--", field("model", "long name") + file + "--xx--"},
		"twice: the last":      {field("model", "a") + field("model", "b") + "--xx--", field("model", "a") + field("model", "long name") + "--xx--"},
		"header in lower case": {strings.ToLower(field("model", "a")) + "--xx--", strings.ToLower(field("model", "long name")) + "--xx--"},
		"none":                 {field("prompt", "a") + file + "--xx--", ""},
		"no form":              {"model=a", ""},
		"cut":                  {"--xx\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na", ""},
		"nothing":              {"", ""},
	} {
		got, ok := FormWithModel([]byte(tt.body), kind, "long name")
		if ok != (tt.want != "") || ok && string(got) != tt.want || !ok && string(got) != tt.body {
			t.Errorf("%s: %q, %v; want %q", name, got, ok, tt.want)
		}
	}
	for _, kind := range []string{"", "multipart/form-data", "multipart/form-data; boundary="} {
		if _, ok := FormWithModel([]byte(field("model", "a")+"--xx--"), kind, "b"); ok {
			t.Errorf("content type %q was taken", kind)
		}
	}
}

// What Go's own writer writes is renamed so that Go's own reader, and PeekForm,
// read the new name; whatever else comes, nothing panics.
func FuzzFormWithModel(f *testing.F) {
	f.Add("a", "content\r\n\r\n--", []byte("--xx\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--xx--"))
	f.Add("a", "", []byte("--xx\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--xx\r\nContent-Disposition: form-data; name=\"model\"; filename=\"\"\r\n\r\n--xx\r\n--xx--"))
	f.Add("", "\r\n", []byte("--xx\r\n\r\n\r\n--xx"))
	f.Fuzz(func(t *testing.T, model, content string, raw []byte) {
		const kind = "multipart/form-data; boundary=xx"
		if other, ok := FormWithModel(raw, kind, "new"); ok && !PeekForm(raw, kind).Doubtful {
			if got := PeekForm(other, kind); got.Model != "new" || got.Doubtful {
				t.Errorf("%q, renamed, is %q: %+v", raw, other, got)
			}
		}
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		part, _ := w.CreateFormFile("file", "name")
		part.Write([]byte(content))
		w.WriteField("model", model)
		w.Close()
		if strings.Contains(model+content, w.Boundary()) {
			return
		}
		renamed, ok := FormWithModel(body.Bytes(), w.FormDataContentType(), "new")
		if !ok {
			t.Fatalf("%q was not renamed", body.Bytes())
		}
		if got := PeekForm(renamed, w.FormDataContentType()); got.Model != "new" || got.Doubtful {
			t.Errorf("the model is %q in %q", got.Model, renamed)
		}
		if want := body.Len() - len(model) + len("new"); len(renamed) != want {
			t.Errorf("%d bytes; want %d", len(renamed), want)
		}
	})
}

func TestReadError(t *testing.T) {
	param := "model"
	for body, want := range map[string]Error{
		`{"error":{"message":"m","type":"T","param":"model","code":404}}`:        {"m", "T", &param, 404},
		`{"error":{"message":"m"}}`:                                              {"m", "NotFoundError", nil, 404},
		`{"object":"error","message":"flat","type":"T","param":null,"code":404}`: {"flat", "NotFoundError", nil, 404},
		`{"error":"Unauthorized"}`:                                               {"Unauthorized", "NotFoundError", nil, 404},
		`{"detail":"Not Found"}`:                                                 {"Not Found", "NotFoundError", nil, 404},
		`<html>`:                                                                 {"Not Found", "NotFoundError", nil, 404},
		``:                                                                       {"Not Found", "NotFoundError", nil, 404},
		`{"error":{"message":7}}`:                                                {"Not Found", "NotFoundError", nil, 404},
	} {
		got := ReadError(404, []byte(body))
		if got.Message != want.Message || got.Type != want.Type || got.Code != want.Code || (got.Param == nil) != (want.Param == nil) {
			t.Errorf("%s: %+v; want %+v", body, got, want)
		}
	}
}

// What vLLM would read otherwise is doubtful: each of the doubtful ones names the model
// "b" to python-multipart under Starlette 1.10, and "a" to Go's reader or to nobody.
func TestDoubtfulForms(t *testing.T) {
	const kind = "multipart/form-data; boundary=xx"
	field := func(head, value string) string { return "--xx\r\n" + head + "\r\n\r\n" + value + "\r\n" }
	const model, other = `Content-Disposition: form-data; name="model"`, `Content-Disposition: form-data; name="other"`
	a, b := field(model, "a"), field(model, "b")
	file := field("Content-Disposition: form-data; name=\"file\"; filename=\"Ä, é; name=model.wav\"\r\nContent-Type: audio/wav", "\r\n\r\n--x\r\n")
	for name, tt := range map[string]struct {
		kind, body string
		doubtful   bool
	}{
		"as browsers do":            {kind, file + a + "--xx--\r\n", false},
		"without quotes":            {kind + "; charset=UTF-8", field("content-disposition:form-data;name=model", "a") + "--xx--", false},
		"a boundary in quotes":      {`multipart/form-data; boundary="xx"`, a + "--xx--", false},
		"the file's name twice":     {kind, field(`Content-Disposition: form-data; name="file"; filename="_.wav"; filename*=UTF-8''%C3%84.wav`, "RIFF") + a + "--xx--", false},
		"the last one holds":        {kind, b + a + "--xx--", false},
		"many fields":               {kind, b + strings.Repeat(field(other, "x"), 200) + a + "--xx--", false},
		"another disposition":       {kind, a + field(`Content-Disposition: x; name="model"`, "b") + "--xx--", true},
		"a parameter twice":         {kind, a + field(model+"; x=1; x=2", "b") + "--xx--", true},
		"two dispositions":          {kind, a + field(other+"\r\n"+model, "b") + "--xx--", true},
		"quotes within quotes":      {kind, a + field(`Content-Disposition: form-data; name="f\\"; foo="; name=model; bar="`, "b") + "--xx--", true},
		"a delimiter behind a head": {kind, b + "--xx\r\n" + other + "\r\n\r\n" + field(model, "a") + "--xx--", false},
		"another character set":     {kind + "; charset=cp037", a + field("Content-Disposition: form-data; name=\"\x94\x96\x84\x85\x93\"", "\x82") + "--xx--", true},
		"a space behind one":        {kind, a + "--xx \r\n" + model + "\r\n\r\nb\r\n--xx--", true},
		"something before":          {kind, "x\r\n" + a + "--xx--", true},
		"no head":                   {kind, a + "--xx\r\n\r\nb\r\n--xx--", true},
		"a head without a name":     {kind, a + field("Content-Type: text/plain", "b") + "--xx--", true},
		"a folded head":             {kind, field("Content-Disposition: form-data;\r\n name=\"model\"", "a") + "--xx--", true},
		"cut":                       {kind, a, true},
		"two boundaries":            {kind + "; boundary=yy", a + "--xx--", true},
	} {
		got := PeekForm([]byte(tt.body), tt.kind)
		if got.Doubtful != tt.doubtful {
			t.Errorf("%s: doubtful %v", name, got.Doubtful)
		}
		want := "a"
		if name == "a delimiter behind a head" { // is none, to Python: it is the field's text
			want = "b"
		}
		if !tt.doubtful && got.Model != want {
			t.Errorf("%s: the model is %q; want %q", name, got.Model, want)
		}
	}
	for body, want := range map[string]bool{`{"model":"a"}`: false, "\xef\xbb\xbf{}": true, "\xff\xfe{\x00}\x00": true, "\xfe\xff\x00{\x00}": true, "{\x00}\x00": true, "\x00{\x00}": true, "": false, "{": false} {
		if got := Peek([]byte(body)).Doubtful; got != want {
			t.Errorf("%q: doubtful %v", body, got)
		}
	}
}
