package vllmsim

import (
	"encoding/json"
	"net/http/httptest"
	"testing"
)

// Whatever the body, the answer is an error for the client or a job that the
// engine can run.
func FuzzChatBody(f *testing.F) {
	for _, body := range []string{
		`{}`, `null`, `[]`, `{"messages":[]}`, `{"messages":[{}]}`,
		`{"messages":[{"role":"user","content":"what is the weather"}],"max_tokens":5,"n":2,"stop":["a"],"tools":[{"function":{"name":"get_weather","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}}]}`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"tool_choice":{"function":{"name":"f"}},"tools":[{"function":{"name":"f"}}]}`,
		`{"messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_schema","json_schema":{"schema":{"anyOf":[{"const":1}]}}}}`,
		`{"messages":[{"role":"user","content":"hi"}],"min_tokens":9,"max_completion_tokens":9,"chat_template_kwargs":{"enable_thinking":true}}`,
	} {
		f.Add([]byte(body))
	}
	s, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, body []byte) {
		var q chatRequest
		if decodeBody(body, &q) != nil || q.N != nil && *q.N > 100 {
			return
		}
		c, e := s.converse(httptest.NewRequest("POST", "/", nil), &q)
		if e != nil {
			if e.Code < 400 || e.Message == "" {
				t.Errorf("error %+v", e)
			}
			return
		}
		for _, seq := range c.job.seqs {
			if n := len(seq.script.tokens); n < 1 || len(c.prompt)+n > s.cfg.MaxModelLen {
				t.Errorf("%d prompt tokens, %d to say", len(c.prompt), n)
			}
		}
	})
}

// A fault that is accepted prints as JSON that means the same.
func FuzzFault(f *testing.F) {
	f.Add("stall,after=3,share=0.1")
	f.Add("slow-health,delay=1.5s")
	f.Fuzz(func(t *testing.T, text string) {
		var fault, back Fault
		if fault.UnmarshalText([]byte(text)) != nil {
			return
		}
		printed, err := json.Marshal(fault)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(printed, &back); err != nil {
			t.Fatalf("%q prints as %s: %v", text, printed, err)
		}
		fault.Share, fault.Status, back.Status = fault.share(), fault.status(), back.status()
		if back.Share = back.share(); back != fault {
			t.Errorf("%q prints as %s, which is %+v; want %+v", text, printed, back, fault)
		}
	})
}
