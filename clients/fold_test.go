package clients

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// vLLM differs from itself in two ways, from one time to the next. It draws some
// ids by lot; and a stream that a real one is late to write has several tokens in
// one event, so where the events end is a matter of luck. Comparable answers have
// ids numbered in the order in which they come, and a real vLLM's events put
// together. TestBytes holds what is lost here.

// byLot is the ids that vLLM does not make of X-Request-Id.
var byLot = regexp.MustCompile(`"(resp_|msg_|rs_|chatcmpl-tool-|modelperm-)[0-9a-f]{16,32}"`)

// comparable is s without luck.
func (s seen) comparable(t *testing.T) seen {
	t.Helper()
	ids := map[string]string{}
	s.json = slices.Clone(s.json)
	for i, raw := range s.json {
		s.json[i] = byLot.ReplaceAllStringFunc(raw, func(id string) string {
			if ids[id] == "" {
				ids[id] = `"id ` + strconv.Itoa(len(ids)) + `"`
			}
			return ids[id]
		})
	}
	if vllm == "" {
		return s
	}
	var last map[string]any
	var folded []any
	for _, raw := range s.json {
		var event map[string]any
		if err := json.Unmarshal([]byte(raw), &event); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		// Of how many events there were before.
		delete(event, "sequence_number")
		if last != nil && last["id"] == event["id"] && last["type"] == event["type"] {
			fold("", last, event)
			continue
		}
		last = event
		folded = append(folded, event)
	}
	s.json = nil
	for _, event := range folded {
		text, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		s.json = append(s.json, string(text))
	}
	return s
}

// fold puts the next event's value of a key behind the value so far. Nothing is
// lost: text is put together, lists too, and of other values each that is new
// is kept.
func fold(key string, so, next any) any {
	switch so := so.(type) {
	case nil:
		return next
	case map[string]any:
		if next, ok := next.(map[string]any); ok {
			for k, v := range next {
				so[k] = fold(k, so[k], v)
			}
			return so
		}
	case []any:
		if next, ok := next.([]any); ok {
			for _, v := range next {
				so = foldInto(so, v)
			}
			return so
		}
	case string:
		if next, ok := next.(string); ok && strings.Contains(" content text delta arguments ", " "+key+" ") {
			return so + next
		}
	}
	if next == nil || reflect.DeepEqual(so, next) {
		return so
	}
	return []any{so, next}
}

// foldInto puts an element of a list in its place: what has an index is a piece
// of the element with the same index.
func foldInto(list []any, next any) []any {
	if piece, ok := next.(map[string]any); ok && piece["index"] != nil {
		for i, v := range list {
			if have, ok := v.(map[string]any); ok && have["index"] == piece["index"] {
				list[i] = fold("", v, next)
				return list
			}
		}
	}
	return append(list, next)
}
