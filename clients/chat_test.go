package clients

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

func usual() openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model:     model,
		Messages:  []openai.ChatCompletionMessageParamUnion{openai.UserMessage("What is the weather in Oslo?")},
		Seed:      openai.Int(7),
		MaxTokens: openai.Int(40),
	}
}

func tool(name string, properties map[string]any) openai.ChatCompletionToolUnionParam {
	return openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{
		Name: name,
		// Else a real vLLM lets the arguments be any JSON.
		Strict: openai.Bool(true),
		Parameters: openai.FunctionParameters{
			"type": "object", "properties": properties, "required": slices.Sorted(maps.Keys(properties)),
		},
	})
}

// Short words: a model of random weights finds no end by itself.
var word = map[string]any{"type": "string", "maxLength": 8}

var tools = []openai.ChatCompletionToolUnionParam{
	tool("get_weather", map[string]any{"city": word, "unit": map[string]any{"enum": []string{"celsius", "fahrenheit"}}}),
	tool("get_time", map[string]any{"zone": word, "seconds": map[string]any{"type": "integer"}}),
}

// chat is a request, and what each of its choices must be like.
type chat struct {
	change func(*openai.ChatCompletionNewParams)
	check  func(*testing.T, openai.ChatCompletionMessage)
}

var chats = map[string]chat{
	"plain": {func(*openai.ChatCompletionNewParams) {}, talks},
	"two answers with logprobs": {func(p *openai.ChatCompletionNewParams) {
		p.N, p.Logprobs, p.TopLogprobs = openai.Int(2), openai.Bool(true), openai.Int(2)
	}, talks},
	"required tool": {func(p *openai.ChatCompletionNewParams) {
		p.Tools, p.ToolChoice.OfAuto = tools, openai.String("required")
		p.ParallelToolCalls, p.MaxTokens = openai.Bool(false), openai.Int(400)
	}, calls("get_weather", "get_time")},
	"named tool": {func(p *openai.ChatCompletionNewParams) {
		p.Tools, p.MaxTokens = tools, openai.Int(400)
		p.ToolChoice = openai.ToolChoiceOptionFunctionToolChoice(openai.ChatCompletionNamedToolChoiceFunctionParam{Name: "get_time"})
	}, calls("get_time")},
	"tool of its own choice": {func(p *openai.ChatCompletionNewParams) { p.Tools = tools }, chooses},
}

func talks(t *testing.T, m openai.ChatCompletionMessage) {
	if m.Content == "" {
		t.Error("no content")
	}
}

// arguments are those that each tool requires.
var arguments = map[string][]string{"get_weather": {"city", "unit"}, "get_time": {"seconds", "zone"}}

// chooses: a model of random weights, if left the choice, calls nothing.
func chooses(t *testing.T, m openai.ChatCompletionMessage) {
	if vllm != "" {
		talks(t, m)
		return
	}
	calls("get_weather")(t, m)
}

// calls is for a call of one of the named tools; the simulator calls the first.
func calls(names ...string) func(*testing.T, openai.ChatCompletionMessage) {
	if vllm == "" {
		names = names[:1]
	}
	return func(t *testing.T, m openai.ChatCompletionMessage) {
		if len(m.ToolCalls) != 1 {
			t.Fatalf("%d calls", len(m.ToolCalls))
		}
		call := m.ToolCalls[0].Function
		var given map[string]any
		if err := json.Unmarshal([]byte(call.Arguments), &given); err != nil {
			t.Fatalf("%s: %v", call.Arguments, err)
		}
		if !slices.Contains(names, call.Name) {
			t.Errorf("%s is called, not one of %s", call.Name, names)
		}
		want(t, "the arguments' names", slices.Sorted(maps.Keys(given)), arguments[call.Name])
	}
}

// chat asks whole, chunk by chunk, and lets the SDK's accumulator assemble the
// chunks.
func (r *rig) chat(t *testing.T, c chat) {
	params := usual()
	c.change(&params)
	var answer *openai.ChatCompletion
	r.good(t, func(c openai.Client) seen {
		var err error
		answer, err = c.Chat.Completions.New(t.Context(), params)
		return whole(answer, err)
	})
	var acc openai.ChatCompletionAccumulator
	s := r.good(t, func(c openai.Client) seen {
		acc = openai.ChatCompletionAccumulator{}
		return drain(c.Chat.Completions.NewStreaming(t.Context(), params), func(chunk openai.ChatCompletionChunk) {
			if !acc.AddChunk(chunk) {
				t.Errorf("the accumulator refused %s", chunk.RawJSON())
			}
		})
	})
	few := 4
	if vllm != "" {
		few = 2 // the role, and all tokens together
	}
	if len(s.json) < few || strings.Contains(s.String(), `"usage"`) {
		t.Errorf("few chunks, or usage that nobody asked for: %s", s)
	}
	want(t, "the number of choices", len(acc.Choices), len(answer.Choices))
	for i, choice := range answer.Choices {
		c.check(t, choice.Message)
		c.check(t, acc.Choices[i].Message)
		want(t, "the assembled content", acc.Choices[i].Message.Content, choice.Message.Content)
		want(t, "the finish reason", acc.Choices[i].FinishReason, choice.FinishReason)
	}
}

func (r *rig) usage(t *testing.T) {
	var answer *openai.ChatCompletion
	r.good(t, func(c openai.Client) seen {
		var err error
		answer, err = c.Chat.Completions.New(t.Context(), usual())
		return whole(answer, err)
	})
	params := usual()
	params.StreamOptions.IncludeUsage = openai.Bool(true)
	var last openai.ChatCompletionChunk
	s := r.good(t, func(c openai.Client) seen {
		return drain(c.Chat.Completions.NewStreaming(t.Context(), params), func(chunk openai.ChatCompletionChunk) { last = chunk })
	})
	want(t, "the number of chunks with usage", strings.Count(s.String(), `"usage"`), 1)
	counts := func(u openai.CompletionUsage) []int64 {
		return []int64{u.PromptTokens, u.CompletionTokens, u.TotalTokens}
	}
	want(t, "the usage", counts(last.Usage), counts(answer.Usage))
	want(t, "the fingerprint", last.SystemFingerprint, answer.SystemFingerprint)
}

func (r *rig) reasoning(t *testing.T) {
	onlySimulated(t, "the tiny model does not reason")
	thinking := option.WithJSONSet("chat_template_kwargs", map[string]any{"enable_thinking": true})
	text := func(raw string) string {
		s := ""
		json.Unmarshal([]byte(raw), &s) // absent: nothing said
		return s
	}
	var said, thought string
	r.good(t, func(c openai.Client) seen {
		answer, err := c.Chat.Completions.New(t.Context(), usual())
		if err == nil {
			said, thought = answer.Choices[0].Message.Content, text(answer.Choices[0].Message.JSON.ExtraFields["reasoning"].Raw())
		}
		return whole(answer, err)
	}, thinking)
	var deltas, thoughts string
	r.good(t, func(c openai.Client) seen {
		deltas, thoughts = "", ""
		return drain(c.Chat.Completions.NewStreaming(t.Context(), usual()), func(chunk openai.ChatCompletionChunk) {
			for _, choice := range chunk.Choices {
				deltas += choice.Delta.Content
				thoughts += text(choice.Delta.JSON.ExtraFields["reasoning"].Raw())
			}
		})
	}, thinking)
	if said == "" || thought == "" {
		t.Errorf("said %q, thought %q", said, thought)
	}
	want(t, "the streamed text", deltas, said)
	want(t, "the streamed reasoning", thoughts, thought)
}
