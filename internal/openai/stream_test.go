package openai

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestStreamRead(t *testing.T) {
	for name, tt := range map[string]struct {
		dialect Dialect
		data    string
		want    Fact // Failure is compared by its status alone
	}{
		"chat: role":                  {Chat, `{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`, Fact{}},
		"chat: role without content":  {Chat, `{"choices":[{"delta":{"role":"assistant"}}],"usage":null}`, Fact{}},
		"chat: content":               {Chat, `{"choices":[{"delta":{"content":"Hi"}}]}`, Fact{Token: true}},
		"chat: role with content":     {Chat, `{"choices":[{"delta":{"role":"assistant","content":"Hi"}}]}`, Fact{Token: true}},
		"chat: a newline is a token":  {Chat, `{"choices":[{"delta":{"content":"\n"}}]}`, Fact{Token: true}},
		"chat: reasoning":             {Chat, `{"choices":[{"delta":{"reasoning":"Hm"}}]}`, Fact{Token: true}},
		"chat: old reasoning":         {Chat, `{"choices":[{"delta":{"reasoning_content":"Hm","content":null}}]}`, Fact{Token: true}},
		"chat: no reasoning":          {Chat, `{"choices":[{"delta":{"reasoning_content":null,"content":""}}]}`, Fact{}},
		"chat: tool call":             {Chat, `{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"x"}]}}]}`, Fact{Token: true}},
		"chat: no tool call":          {Chat, `{"choices":[{"delta":{"tool_calls":[ ]}}]}`, Fact{}},
		"chat: second choice":         {Chat, `{"choices":[{"delta":{}},{"index":1,"delta":{"content":"x"}}]}`, Fact{Token: true}},
		"chat: finish":                {Chat, `{"choices":[{"delta":{"content":""},"finish_reason":"stop"}]}`, Fact{Finish: true}},
		"chat: finish with a token":   {Chat, `{"choices":[{"delta":{"content":"."},"finish_reason":"length"}]}`, Fact{Token: true, Finish: true}},
		"chat: Python's spacing":      {Chat, `{"choices": [{"delta": {"content": "Hi"}, "finish_reason": null}]}`, Fact{Token: true}},
		"chat: content of the prompt": {Chat, `{"prompt_text":"\"choices\":[{\"delta\":{\"content\":\"x\"}}]","choices":[{"delta":{"content":""}}]}`, Fact{}},
		"chat: done":                  {Chat, `[DONE]`, Fact{End: true}},
		"chat: error":                 {Chat, `{"error": {"message": "boom", "type": "InternalServerError", "param": null, "code": 503}}`, Fact{Failure: &Failure{Status: 503}}},
		"chat: error as a string":     {Chat, `{"error":"Unauthorized"}`, Fact{Failure: &Failure{Status: 500}}},
		"chat: odd code":              {Chat, `{"error":{"message":"x","code":"rate_limit"}}`, Fact{Failure: &Failure{Status: 500}}},
		"chat: code out of range":     {Chat, `{"error":{"message":"x","code":200}}`, Fact{Failure: &Failure{Status: 500}}},
		"chat: no error":              {Chat, `{"error":null,"choices":[{"delta":{"content":"x"}}]}`, Fact{Token: true}},
		"chat: not JSON":              {Chat, `hello`, Fact{}},
		"completions: text":           {Completions, `{"choices":[{"text":"Hi","finish_reason":null}]}`, Fact{Token: true}},
		"completions: no text":        {Completions, `{"choices":[{"text":"","finish_reason":null}]}`, Fact{}},
		"completions: finish":         {Completions, `{"choices":[{"text":"x","finish_reason":"length"}]}`, Fact{Token: true, Finish: true}},
		"completions: done":           {Completions, `[DONE]`, Fact{End: true}},
		"responses: created":          {Responses, `{"type":"response.created","response":{"id":"r"}}`, Fact{}},
		"responses: in progress":      {Responses, `{"type":"response.in_progress","response":{"error":null}}`, Fact{}},
		"responses: text":             {Responses, `{"type":"response.output_text.delta","delta":"x"}`, Fact{Token: true}},
		"responses: reasoning":        {Responses, `{"type":"response.reasoning_text.delta","delta":"x"}`, Fact{Token: true}},
		"responses: arguments":        {Responses, `{"type":"response.function_call_arguments.delta","delta":"{"}`, Fact{Token: true}},
		"responses: empty delta":      {Responses, `{"type":"response.output_text.delta","delta":""}`, Fact{}},
		"responses: a call begins":    {Responses, `{"type":"response.output_item.added","item":{"type":"function_call","name":"f"}}`, Fact{Token: true}},
		"responses: a message begins": {Responses, `{"type":"response.output_item.added","item":{"type":"message"}}`, Fact{}},
		"responses: completed":        {Responses, `{"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":2}}}`, Fact{Finish: true, End: true}},
		"responses: failed":           {Responses, `{"type":"response.failed","response":{"error":{"code":"server_error","message":"x"}}}`, Fact{End: true, Failure: &Failure{Status: 500}}},
		"responses: error":            {Responses, `{"type":"error","message":"x"}`, Fact{Failure: &Failure{Status: 500}}},
		"responses: done is no end":   {Responses, `[DONE]`, Fact{}},
		"messages: start":             {Messages, `{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}`, Fact{}},
		"messages: block":             {Messages, `{"type":"content_block_start","content_block":{"type":"text","text":""}}`, Fact{}},
		"messages: tool":              {Messages, `{"type":"content_block_start","content_block":{"type":"tool_use","name":"f"}}`, Fact{Token: true}},
		"messages: text":              {Messages, `{"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}}`, Fact{Token: true}},
		"messages: thinking":          {Messages, `{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"x"}}`, Fact{Token: true}},
		"messages: arguments":         {Messages, `{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}`, Fact{Token: true}},
		"messages: no arguments":      {Messages, `{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":""}}`, Fact{}},
		"messages: ping":              {Messages, `{"type":"ping"}`, Fact{}},
		"messages: delta":             {Messages, `{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}`, Fact{Finish: true}},
		"messages: stop":              {Messages, `{"type":"message_stop"}`, Fact{End: true}},
		"messages: error":             {Messages, `{"type":"error","error":{"type":"internal_error","message":"x"}}`, Fact{Failure: &Failure{Status: 500}}},
		"messages: done is no end":    {Messages, `[DONE]`, Fact{}},
		"other: anything":             {Other, `hello`, Fact{Token: true}},
		"other: done":                 {Other, `[DONE]`, Fact{End: true}},
		"other: error":                {Other, `{"error":{"message":"x","code":400}}`, Fact{Failure: &Failure{Status: 400}}},
	} {
		s := Stream{Dialect: tt.dialect}
		got := s.readEvent([]byte("event: any\ndata: " + tt.data + "\n\n"))
		status := func(f Fact) int {
			if f.Failure == nil {
				return 0
			}
			return f.Failure.Status
		}
		if status(got) != status(tt.want) {
			t.Errorf("%s: failure status %d; want %d", name, status(got), status(tt.want))
		}
		if got.Failure, tt.want.Failure = nil, nil; got != tt.want {
			t.Errorf("%s: %+v; want %+v", name, got, tt.want)
		}
	}
	for _, d := range []Dialect{Other, Chat, Completions, Responses, Messages} {
		s := Stream{Dialect: d}
		if got := s.readEvent([]byte(": keep-alive\n\n")); got != (Fact{}) {
			t.Errorf("dialect %d: a comment says %+v; want nothing", d, got)
		}
	}
}

func TestExtraUsageChunk(t *testing.T) {
	const (
		usage      = `data: {"choices":[],"usage":{"prompt_tokens":4,"total_tokens":10,"completion_tokens":6}}` + "\n\n"
		continuous = `data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":4,"completion_tokens":1}}` + "\n\n"
		null       = `data: {"choices":[{"delta":{"content":"x"}}],"usage":null}` + "\n\n"
		noUsage    = `data: {"choices":[],"prompt_filter_results":[]}` + "\n\n"
	)
	for name, tt := range map[string]struct {
		asked  bool
		events []string
		want   bool // the last event is left out
	}{
		"we asked":              {true, []string{null, usage}, true},
		"the client asked":      {false, []string{null, usage}, false},
		"the server forces it":  {true, []string{continuous, usage}, false},
		"no usage in it":        {true, []string{noUsage}, false},
		"usage beside a choice": {true, []string{continuous}, false},
	} {
		s := Stream{Dialect: Chat, Asked: tt.asked}
		var fact Fact
		for _, e := range tt.events {
			fact = s.readEvent([]byte(e))
		}
		if fact.Extra != tt.want {
			t.Errorf("%s: Extra = %v; want %v", name, fact.Extra, tt.want)
		}
	}
}

func TestStreamUsage(t *testing.T) {
	for name, tt := range map[string]struct {
		dialect Dialect
		events  []string
		want    Usage
	}{
		"chat":             {Chat, []string{`{"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":6}}`}, Usage{4, 6, true, true}},
		"continuous":       {Chat, []string{`{"choices":[{}],"usage":{"prompt_tokens":4,"completion_tokens":0}}`, `{"choices":[{}],"usage":{"prompt_tokens":4,"completion_tokens":2}}`}, Usage{4, 2, true, true}},
		"null":             {Chat, []string{`{"choices":[],"usage":null}`}, Usage{}},
		"no number":        {Chat, []string{`{"choices":[],"usage":{"prompt_tokens":"4"}}`}, Usage{}},
		"negative":         {Chat, []string{`{"choices":[],"usage":{"prompt_tokens":-4,"completion_tokens":-1}}`}, Usage{}},
		"responses":        {Responses, []string{`{"type":"response.completed","response":{"usage":{"input_tokens":3,"output_tokens":0}}}`}, Usage{3, 0, true, true}},
		"messages":         {Messages, []string{`{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":0}}}`, `{"type":"message_delta","usage":{"output_tokens":5}}`}, Usage{9, 5, true, true}},
		"messages, cut":    {Messages, []string{`{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":0}}}`}, Usage{9, 0, true, false}},
		"messages, cached": {Messages, []string{`{"type":"message_start","message":{"usage":{"input_tokens":4,"output_tokens":0,"cache_read_input_tokens":16,"cache_creation_input_tokens":null}}}`, `{"type":"message_delta","usage":{"input_tokens":2,"output_tokens":5,"cache_read_input_tokens":16,"cache_creation_input_tokens":2}}`}, Usage{20, 5, true, true}},
		"embeddings alike": {Other, []string{`{"usage":{"prompt_tokens":2,"total_tokens":2}}`}, Usage{2, 0, true, false}},
	} {
		s := Stream{Dialect: tt.dialect}
		for _, e := range tt.events {
			s.readEvent([]byte("data: " + e + "\n\n"))
		}
		if s.Usage != tt.want {
			t.Errorf("%s: %+v; want %+v", name, s.Usage, tt.want)
		}
	}
}

func TestStreamID(t *testing.T) {
	const created = `{"response":{"id":"resp_1"},"type":"response.created"}`
	for name, tt := range map[string]struct {
		dialect Dialect
		events  []string
		want    string
	}{
		"responses":         {Responses, []string{created}, "resp_1"},
		"the first one":     {Responses, []string{created, `{"response":{"id":"resp_2"},"type":"response.created"}`}, "resp_1"},
		"of a later event":  {Responses, []string{`{"response":{"id":"resp_2"},"type":"response.completed"}`}, ""},
		"not the response":  {Responses, []string{`{"id":"a","response":{"x":{"id":"b"}},"type":"response.created"}`}, ""},
		"a path":            {Responses, []string{`{"response":{"id":"../resp_1"},"type":"response.created"}`}, ""},
		"a number":          {Responses, []string{`{"response":{"id":12},"type":"response.created"}`}, ""},
		"empty":             {Responses, []string{`{"response":{"id":""},"type":"response.created"}`}, ""},
		"128 bytes":         {Responses, []string{`{"response":{"id":"` + strings.Repeat("a", 128) + `"},"type":"response.created"}`}, strings.Repeat("a", 128)},
		"129 bytes":         {Responses, []string{`{"response":{"id":"` + strings.Repeat("a", 129) + `"},"type":"response.created"}`}, ""},
		"another dialect":   {Messages, []string{created, `{"type":"message_start","message":{"id":"msg_1"}}`}, ""},
		"long":              {Responses, []string{`{"type":"response.created","response": {"id":"resp_1","instructions":"` + strings.Repeat("x", 2*MaxEvent) + `"}}`}, "resp_1"},
		"long, id too late": {Responses, []string{`{"type":"response.created","response":{"instructions":"` + strings.Repeat("x", 2*MaxEvent) + `","id":"resp_1"}}`}, ""},
		"long, of another":  {Messages, []string{`{"type":"response.created","response":{"id":"resp_1","instructions":"` + strings.Repeat("x", 2*MaxEvent) + `"}}`}, ""},
	} {
		s := Stream{Dialect: tt.dialect}
		for _, e := range tt.events {
			var cut Events
			event := strings.NewReader("event: response.created\ndata: " + e + "\n\n")
			for {
				if p := cut.Next(); p.Bytes != nil {
					s.Read(p)
				} else if cut.fill(event) != nil {
					break
				}
			}
		}
		if s.ID != tt.want {
			t.Errorf("%s: ID %q; want %q", name, s.ID, tt.want)
		}
	}
}

func TestErrorEventIsReadAsFailure(t *testing.T) {
	for _, d := range []Dialect{Other, Chat, Completions, Responses, Messages} {
		event := d.ErrorEvent(NewError(502, `it said "no"`))
		s := Stream{Dialect: d}
		fact := s.readEvent(event)
		if fact.Failure == nil || fact.End || !strings.HasSuffix(string(event), "\n\n") {
			t.Errorf("dialect %d: %q is read as %+v; want a failure and no end", d, event, fact)
		}
		var body struct{ Error Error }
		if err := json.Unmarshal(data(event), &body); err != nil || body.Error.Message != `it said "no"` || body.Error.Code != 502 || body.Error.Type == "" {
			t.Errorf("dialect %d: %q holds %+v, %v", d, event, body, err)
		}
	}
}

func TestBody(t *testing.T) {
	for name, tt := range map[string]struct {
		body  string
		want  Usage
		whole bool
	}{
		"chat":              {`{"id":"x","choices":[{"message":{"content":"a \"usage\":{\"prompt_tokens\":9} b"}}],"usage":{"prompt_tokens":4,"completion_tokens":6,"prompt_tokens_details":{"cached_tokens":1}},"prompt_logprobs":null}`, Usage{4, 6, true, true}, true},
		"embeddings":        {`{"data":[{"embedding":[0.1,-2e-5]}],"usage":{"prompt_tokens":4,"total_tokens":4}}`, Usage{4, 0, true, false}, true},
		"nested is other":   {`{"choices":[{"usage":{"prompt_tokens":4}}],"x":{"usage":{"prompt_tokens":4}}}`, Usage{}, true},
		"spaced":            {"{ \"usage\" : { \"prompt_tokens\" : 4 } }\n", Usage{4, 0, true, false}, true},
		"null":              {`{"usage":null}`, Usage{}, true},
		"cut":               {`{"usage":{"prompt_tokens":4},"choices":[`, Usage{4, 0, true, false}, false},
		"cut in a string":   {`{"usage":{"prompt_tokens":4},"x":"abc\"`, Usage{4, 0, true, false}, false},
		"closed by another": {`{"usage":{"prompt_tokens":4}]`, Usage{4, 0, true, false}, false},
		"array":             {`[{"usage":{"prompt_tokens":4}}]`, Usage{}, false},
		"two":               {`{"usage":{"prompt_tokens":4}}{}`, Usage{4, 0, true, false}, false},
		"text":              {`hello`, Usage{}, false},
		"nothing":           {``, Usage{}, false},
		"usage as a value":  {`{"a":"usage","b":{"prompt_tokens":4}}`, Usage{}, true},
		"a long name":       {`{"` + strings.Repeat("usage", 20) + `":1,"usage":{"prompt_tokens":4}}`, Usage{4, 0, true, false}, true},
		"a huge usage":      {`{"usage":{"x":"` + strings.Repeat("y", 2*maxUsage) + `","prompt_tokens":4}}`, Usage{}, true},
	} {
		for _, size := range []int{1, 7, len(tt.body) + 1} {
			var b Body
			for rest := tt.body; rest != ""; rest = rest[min(size, len(rest)):] {
				b.Write([]byte(rest[:min(size, len(rest))]))
			}
			if b.Usage != tt.want || b.Whole() != tt.whole {
				t.Errorf("%s, %d bytes at a time: %+v, whole %v; want %+v, %v", name, size, b.Usage, b.Whole(), tt.want, tt.whole)
			}
		}
	}
}

func TestBodyID(t *testing.T) {
	for name, tt := range map[string]struct {
		dialect    Dialect
		body, want string
	}{
		"responses":        {Responses, `{"id":"resp_1","output":[{"id":"msg_1"}],"usage":{"input_tokens":3}}`, "resp_1"},
		"at the end":       {Responses, `{"output":[{"id":"msg_1"}],"id" : "resp_1"}`, "resp_1"},
		"the first one":    {Responses, `{"id":"resp_1","id":"resp_2"}`, "resp_1"},
		"only inside":      {Responses, `{"output":[{"id":"msg_1"}],"x":{"id":"y"}}`, ""},
		"as a value":       {Responses, `{"object":"id","x":"y"}`, ""},
		"a path":           {Responses, `{"id":"../resp_1"}`, ""},
		"an object":        {Responses, `{"id":{"id":"a"}}`, ""},
		"a list":           {Responses, `{"id":["a"]}`, ""},
		"a number":         {Responses, `{"id":12}`, ""},
		"128 bytes":        {Responses, `{"id":"` + strings.Repeat("a", 128) + `"}`, strings.Repeat("a", 128)},
		"129 bytes":        {Responses, `{"id":"` + strings.Repeat("a", 129) + `"}`, ""},
		"a huge one":       {Responses, `{"id":"` + strings.Repeat("a", 2*maxUsage) + `","x":1}`, ""},
		"another dialect":  {Chat, `{"id":"chatcmpl-1"}`, ""},
		"no dialect known": {Other, `{"id":"embd-1"}`, ""},
	} {
		for _, size := range []int{1, 7, len(tt.body) + 1} {
			b := Body{Dialect: tt.dialect}
			for rest := tt.body; rest != ""; rest = rest[min(size, len(rest)):] {
				b.Write([]byte(rest[:min(size, len(rest))]))
			}
			if b.ID != tt.want || !b.Whole() || cap(b.value) > 2*maxUsage {
				t.Errorf("%s, %d bytes at a time: ID %q, whole %v, %d bytes kept; want %q", name, size, b.ID, b.Whole(), cap(b.value), tt.want)
			}
		}
	}
}

// What Body finds, however the answer is cut into writes, is what a JSON parser
// finds, and a cut answer is never whole.
func FuzzBody(f *testing.F) {
	f.Add([]byte(`{"id":"x","usage":{"prompt_tokens":4,"completion_tokens":6},"a":[{"b":"\"}"}]}`), 3)
	f.Add([]byte(`{"usage":{"input_tokens":1},"usage":{"output_tokens":2}}`), 1)
	f.Add([]byte(`{"id":"resp_1","output":[{"id":"msg_1"}]}`), 2)
	f.Fuzz(func(t *testing.T, body []byte, size int) {
		b := Body{Dialect: Responses}
		size = max(1, size)
		for rest := body; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			b.Write(rest[:min(size, len(rest))])
		}
		if b.ID != "" && !WellFormedID(b.ID) {
			t.Fatalf("%q: ID %q", body, b.ID)
		}
		var want map[string]json.RawMessage
		if json.Unmarshal(body, &want) != nil || want == nil {
			return
		}
		if strings.Count(string(body), `"id"`) == 1 && !strings.Contains(string(body), `\`) {
			var id string
			json.Unmarshal(want["id"], &id)
			if WellFormedID(id) != (b.ID != "") || b.ID != "" && b.ID != id {
				t.Fatalf("%q: ID %q; encoding/json says %q", body, b.ID, id)
			}
		}
		if !b.Whole() {
			t.Fatalf("%q is a whole object; Whole() = false", body)
		}
		if strings.Count(string(body), "usage") == 1 && len(body) < maxUsage && !strings.Contains(string(body), `\`) {
			var u Usage
			u.merge(want["usage"])
			if b.Usage != u {
				t.Fatalf("%q: %+v; encoding/json says %+v", body, b.Usage, u)
			}
		}
		for i := range body[:len(strings.TrimRight(string(body), " \t\r\n"))] {
			var cut Body
			cut.Write(body[:i])
			if cut.Whole() {
				t.Fatalf("%q is cut; Whole() = true", body[:i])
			}
		}
	})
}
