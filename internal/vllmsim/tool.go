package vllmsim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/openai"
)

type tool struct {
	Type     string           `json:"type"`
	Function toolFunctionSpec `json:"function"`
}

type toolFunctionSpec struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
}

// toolChoice is none, auto or required, or the name of a function.
type toolChoice struct {
	mode string // empty when the request has none
	name string
}

func (c *toolChoice) UnmarshalJSON(data []byte) error {
	if string(data) == "null" || json.Unmarshal(data, &c.mode) == nil {
		return nil
	}
	var named struct {
		Function *struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	if err := json.Unmarshal(data, &named); err != nil || named.Function == nil || named.Function.Name == "" {
		return refused("tool_choice.function", "Invalid value for `function` in `tool_choice`! "+
			"Correct usage: `{\"type\": \"function\", \"function\": {\"name\": \"my_function\"}}`")
	}
	c.mode, c.name = "named", named.Function.Name
	return nil
}

// settle checks the choice against the tools; without one, tools mean auto.
func (c *toolChoice) settle(tools []tool) *openai.Error {
	switch {
	case c.mode == "" && len(tools) > 0:
		c.mode = "auto"
	case c.mode == "" || c.mode == "none":
		c.mode = "none"
	case len(tools) == 0:
		return refused("tool_choice", "When using `tool_choice`, `tools` must be set.")
	case !slices.Contains([]string{"auto", "required", "named"}, c.mode):
		return refused("tool_choice", fmt.Sprintf("Invalid value for `tool_choice`: %s! "+
			"Only named tools, \"none\", \"auto\" or \"required\" are supported.", c.mode))
	case c.mode == "named" && find(tools, c.name) == nil:
		return refused("tool_choice", "The tool specified in `tool_choice` does not match any of the specified `tools`")
	}
	return nil
}

func find(tools []tool, name string) *tool {
	for i := range tools {
		if tools[i].Function.Name == name {
			return &tools[i]
		}
	}
	return nil
}

// call is the call that the model makes, nil for none. With auto it calls the
// first tool of which the name or the description shares a word of four letters
// or more with the last message, if that is the user's.
func (c toolChoice) call(tools []tool, messages []message, seed uint64) *toolCall {
	var chosen *tool
	switch c.mode {
	case "named":
		chosen = find(tools, c.name)
	case "required":
		chosen = &tools[0]
	case "auto":
		last := messages[len(messages)-1]
		for i := range tools {
			about := tools[i].Function.Name + " " + tools[i].Function.Description
			if chosen == nil && last.Role == "user" && shareWord(about, last.Content.text) {
				chosen = &tools[i]
			}
		}
	}
	if chosen == nil {
		return nil
	}
	return &toolCall{name: chosen.Function.Name, arguments: sample(chosen.Function.Parameters, seed)}
}

func shareWord(a, b string) bool {
	const least = 4
	have := map[string]bool{}
	for _, w := range wordsOf(a) {
		have[w] = len(w) >= least
	}
	return slices.ContainsFunc(wordsOf(b), func(w string) bool { return have[w] })
}

func wordsOf(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !wordRune(r) })
}
