package clients

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
)

func client(url string, more ...option.RequestOption) openai.Client {
	return openai.NewClient(append([]option.RequestOption{
		option.WithBaseURL(url + "/v1/"), option.WithAPIKey("none"),
		option.WithMaxRetries(0), option.WithRequestTimeout(30 * time.Second),
	}, more...)...)
}

func named(id string) option.RequestOption { return option.WithHeader("X-Request-Id", id) }

// seen is what the SDK gave: the JSON of each object, in order, and the error
// that ended it.
type seen struct {
	json []string
	failure
}

// failure is an error as the SDK tells it; the zero value is none.
type failure struct {
	kind    string // its type
	status  int
	code    string
	param   string
	message string
}

func failed(err error) failure {
	var api *openai.Error
	var inStream *ssestream.StreamError
	switch {
	case err == nil:
		return failure{}
	case errors.As(err, &api):
		return failure{fmt.Sprintf("%T", api), api.StatusCode, api.Code, api.Param, api.Message}
	case errors.As(err, &inStream):
		var body struct {
			Error struct {
				Code    json.Number
				Param   string
				Message string
			}
		}
		if err := json.Unmarshal(inStream.Event.Data, &body); err != nil {
			return failure{message: err.Error()}
		}
		return failure{fmt.Sprintf("%T", inStream), 0, body.Error.Code.String(), body.Error.Param, body.Error.Message}
	}
	return failure{kind: fmt.Sprintf("%T", err), message: err.Error()}
}

// fleeting is what differs from one time to the next, whoever is asked.
var fleeting = regexp.MustCompile(`"(created|created_at|cached_tokens)": ?\d+`)

// fingerprint: vLLM names itself on the last chunk of a stream. Where that is a
// usage chunk that only the gateway asked for, the name goes with it
// (docs/configuration.md).
var fingerprint = regexp.MustCompile(`,"system_fingerprint":"[^"]*"`)

type object interface{ RawJSON() string }

// whole is an answer in one piece.
func whole[T object](answer T, err error) seen {
	if err != nil {
		return seen{failure: failed(err)}
	}
	return seen{json: []string{fleeting.ReplaceAllString(answer.RawJSON(), `"$1":0`)}}
}

// drain reads a stream to its end, whichever it is.
func drain[T object](stream *ssestream.Stream[T], each ...func(T)) seen {
	var s seen
	for stream.Next() {
		raw := fleeting.ReplaceAllString(stream.Current().RawJSON(), `"$1":0`)
		if !strings.Contains(raw, `"usage":{`) {
			raw = fingerprint.ReplaceAllString(raw, "")
		}
		s.json = append(s.json, raw)
		for _, f := range each {
			f(stream.Current())
		}
	}
	s.failure = failed(stream.Err())
	return s
}

// same asks the backend, then the gateway, and wants the same of both. Both
// get the same X-Request-Id, of which the server makes the ids in its answers.
// It gives what the gateway answered.
func (r *rig) same(t *testing.T, ask func(openai.Client) seen, more ...option.RequestOption) seen {
	t.Helper()
	more = append(more, named("same"))
	direct := ask(client(r.backend, more...))
	through := ask(client(r.gateway, more...))
	if direct, through := direct.comparable(t), through.comparable(t); !reflect.DeepEqual(direct, through) {
		t.Fatalf("the backend:\n%v\nthrough the gateway:\n%v", direct, through)
	}
	return through
}

// good is same for requests that succeed.
func (r *rig) good(t *testing.T, ask func(openai.Client) seen, more ...option.RequestOption) seen {
	t.Helper()
	s := r.same(t, ask, more...)
	if s.failure != (failure{}) || len(s.json) == 0 {
		t.Fatalf("%+v", s)
	}
	return s
}

func (s seen) String() string {
	return strings.Join(s.json, "\n") + fmt.Sprintf("\n%+v", s.failure)
}

func want[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s is %+v, not %+v", what, got, want)
	}
}
