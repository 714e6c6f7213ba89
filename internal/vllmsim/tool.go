package vllmsim

import (
	"encoding/json"
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
	if data[0] != '{' {
		return json.Unmarshal(data, &c.mode)
	}
	var named struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	c.mode = "named"
	err := json.Unmarshal(data, &named)
	c.name = named.Function.Name
	return err
}

var toolShape = asIs(model(
	may("type", oneOf("function")),
	need("function", model(
		need("name", text), may("description", optional(text)), may("parameters", optional(dict)), may("strict", optional(boolean)))),
	may("defer_loading", optional(boolean)),
))

// checkTools is check_tool_usage of ChatCompletionRequest.
func checkTools(in fields) *openai.Error {
	const usage = "Correct usage: `{\"type\": \"function\", \"function\": {\"name\": \"my_function\"}}`"
	choice := in["tool_choice"]
	switch {
	case in.has("tools") && in["tools"][0] == '[' && size(in["tools"]) == 0:
		return bad("tools", nil, "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.")
	case !in.has("tool_choice") || string(choice) == `"none"`:
		return nil
	case !in.has("tools"):
		return bad("tool_choice", nil, "When using `tool_choice`, `tools` must be set.")
	case choice[0] != '{':
		if word := unquote(choice); word != "auto" && word != "required" {
			return bad("tool_choice", nil, "Invalid value for `tool_choice`: %s! "+
				"Only named tools, \"none\", \"auto\" or \"required\" are supported.", summary(choice))
		}
		return nil
	}
	function := fieldsOf(fieldsOf(choice)["function"])
	name := unquote(function["name"])
	var tools []tool
	json.Unmarshal(in["tools"], &tools)
	switch {
	case function == nil:
		return bad("tool_choice.function", nil, "Invalid value for `function`: `%s` in `tool_choice`! %s", summary(fieldsOf(choice)["function"]), usage)
	case function["name"] == nil:
		return bad("tool_choice.function.name", nil, "Expected field `name` in `function` in `tool_choice`! %s", usage)
	case name == "":
		return bad("tool_choice.function.name", nil, "Invalid `name` in `function`: `%s` in `tool_choice`! %s", summary(function["name"]), usage)
	case find(tools, name) == nil:
		return bad("tool_choice", nil, "The tool specified in `tool_choice` does not match any of the specified `tools`")
	}
	return nil
}

// settle says what the choice is where the request has none: with tools, auto.
func (c *toolChoice) settle(tools []tool) {
	switch {
	case len(tools) == 0:
		c.mode = "none"
	case c.mode == "":
		c.mode = "auto"
	}
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
