package vllmsim

import (
	"encoding/json"
	"net/http/httptest"
	"testing"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

// Whatever the body, the answer is an error for the client or a job that the
// engine can run.
func FuzzBody(f *testing.F) {
	for _, body := range []string{
		`{}`, `null`, `[]`, `{"messages":[]}`, `{"messages":[{}]}`,
		`{"messages":[{"role":"user","content":"what is the weather"}],"max_tokens":5,"n":2,"stop":["a"],"tools":[{"function":{"name":"get_weather","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}}]}`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"tool_choice":{"function":{"name":"f"}},"tools":[{"function":{"name":"f"}}]}`,
		`{"messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_schema","json_schema":{"schema":{"anyOf":[{"const":1}]}}}}`,
		`{"messages":[{"role":"user","content":"hi"}],"min_tokens":9,"max_completion_tokens":9,"chat_template_kwargs":{"enable_thinking":true}}`,
		`{"prompt":["5", "6"],"echo":true,"max_tokens":0,"logprobs":1}`, `{"prompt":[[1],[2]],"truncate_prompt_tokens":"-1","n":"2"}`,
		`{"messages":[{"role":"user","content":["hi",5]}],"echo":true,"add_generation_prompt":0,"continue_final_message":1}`, `{"a":"\`,
		`{"prompt":"a b c","echo":true,"logprobs":1,"max_tokens":0,"truncate_prompt_tokens":1}`,
	} {
		f.Add([]byte(body))
	}
	s, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("POST", "/", nil)
		var chat chatRequest
		if e := decodeBody(body, chatShape, &chat, chatChecks...); e != nil {
			sound(t, e)
		} else if chat.answers() <= 100 {
			if c, e := s.converse(r, &chat); e != nil {
				sound(t, e)
			} else {
				runnable(t, s, c.job, c.response(""))
			}
		}
		var completion completionRequest
		if e := decodeBody(body, completionShape, &completion, completionChecks...); e != nil {
			sound(t, e)
		} else if completion.answers()*len(completion.Prompt) <= 100 {
			if c, e := s.complete(r, &completion); e != nil {
				sound(t, e)
			} else {
				runnable(t, s, c.job, c.response())
			}
		}
	})
}

func sound(t *testing.T, e *openai.Error) {
	if e.Code < 400 || e.Message == "" {
		t.Errorf("error %+v", e)
	}
}

func runnable(t *testing.T, s *Server, j *job, answer any) {
	for _, q := range j.seqs {
		if n := len(q.script.tokens); n < 1 || q.prompt+n > s.cfg.MaxModelLen {
			t.Errorf("%d prompt tokens, %d to say", q.prompt, n)
		}
	}
	if !json.Valid(encodeJSON(answer)) {
		t.Errorf("%+v prints as no JSON", answer)
	}
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
