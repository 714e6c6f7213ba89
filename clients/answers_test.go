package clients

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

// TestGoAnswers is what servers answer when all is well.
func TestGoAnswers(t *testing.T) {
	r := start(t)
	for name, c := range chats {
		t.Run("chat: "+name, func(t *testing.T) { r.chat(t, c) })
	}
	t.Run("chat: usage where it is asked for", r.usage)
	t.Run("chat: reasoning", r.reasoning)
	t.Run("completions", r.completions)
	t.Run("responses", r.responses)
	t.Run("embeddings", r.embeddings)
	t.Run("models", r.models)
	t.Run("20 streams at once", r.crowd)
	t.Run("request ids", r.requestIDs)
}

func prose() openai.CompletionNewParams {
	return openai.CompletionNewParams{
		Model: model, Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("Once upon a time")},
		Seed: openai.Int(7), MaxTokens: openai.Int(40),
	}
}

// story has no seed, which responses do not take: without a temperature the text
// is the prompt's.
func story() responses.ResponseNewParams {
	return responses.ResponseNewParams{
		Model: model, Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("Tell me a story.")},
		Temperature: openai.Float(0), MaxOutputTokens: openai.Int(40),
	}
}

func (r *rig) completions(t *testing.T) {
	params := prose()
	var text, pieces string
	r.good(t, func(c openai.Client) seen {
		answer, err := c.Completions.New(t.Context(), params)
		if err == nil {
			text = answer.Choices[0].Text
		}
		return whole(answer, err)
	})
	s := r.good(t, func(c openai.Client) seen {
		pieces = ""
		return drain(c.Completions.NewStreaming(t.Context(), params), func(chunk openai.Completion) {
			for _, choice := range chunk.Choices {
				pieces += choice.Text
			}
		})
	})
	if text == "" || strings.Contains(s.String(), `"usage"`) {
		t.Errorf("no text, or usage that nobody asked for: %s", s)
	}
	want(t, "the streamed text", pieces, text)

	params.StreamOptions.IncludeUsage = openai.Bool(true)
	s = r.good(t, func(c openai.Client) seen { return drain(c.Completions.NewStreaming(t.Context(), params)) })
	want(t, "the number of chunks with usage", strings.Count(s.String(), `"usage"`), 1)
}

func (r *rig) responses(t *testing.T) {
	var text, deltas string
	r.good(t, func(c openai.Client) seen {
		answer, err := c.Responses.New(t.Context(), story())
		if err == nil {
			text = answer.OutputText()
		}
		return whole(answer, err)
	})
	r.good(t, func(c openai.Client) seen {
		deltas = ""
		events := int64(0)
		return drain(c.Responses.NewStreaming(t.Context(), story()), func(event responses.ResponseStreamEventUnion) {
			want(t, "the event's number", event.SequenceNumber, events)
			events++
			if event.Type == "response.output_text.delta" {
				deltas += event.Delta
			}
		})
	})
	if text == "" {
		t.Error("no text")
	}
	want(t, "the streamed text", deltas, text)
}

func (r *rig) embeddings(t *testing.T) {
	onlySimulated(t, "a model that writes has no embeddings")
	for _, format := range []openai.EmbeddingNewParamsEncodingFormat{"", "float", "base64"} {
		params := openai.EmbeddingNewParams{
			Model: model, Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"one", "two words"}}, EncodingFormat: format,
		}
		r.good(t, func(c openai.Client) seen {
			answer, err := c.Embeddings.New(t.Context(), params)
			if err == nil {
				want(t, "the number of vectors", len(answer.Data), 2)
				want(t, "a vector's length", len(answer.Data[1].Embedding), 256)
			}
			return whole(answer, err)
		})
	}
}

func (r *rig) models(t *testing.T) {
	r.good(t, func(c openai.Client) seen {
		page, err := c.Models.List(t.Context())
		if err == nil {
			want(t, "the number of models", len(page.Data), 1)
			want(t, "the model", page.Data[0].ID, model)
		}
		return whole(page, err)
	})
}

func (r *rig) crowd(t *testing.T) {
	r.good(t, func(c openai.Client) seen {
		streams := make([]seen, 20)
		var wg sync.WaitGroup
		for i := range streams {
			wg.Go(func() {
				params := usual()
				params.Seed = openai.Int(int64(i))
				streams[i] = drain(c.Chat.Completions.NewStreaming(t.Context(), params, named("crowd-"+strconv.Itoa(i))))
			})
		}
		wg.Wait()
		var all seen
		for _, s := range streams {
			want(t, "a stream's failure", s.failure, failure{})
			if len(s.json) == 0 || !strings.Contains(s.json[len(s.json)-1], `"finish_reason":"`) {
				t.Errorf("a stream without an end: %s", s)
			}
			all.json = append(all.json, s.json...)
		}
		return all
	})
}

func (r *rig) requestIDs(t *testing.T) {
	ask := func(more ...option.RequestOption) (header, id string) {
		t.Helper()
		var res *http.Response
		c := client(r.gateway)
		answer, err := c.Chat.Completions.New(t.Context(), usual(), append(more, option.WithResponseInto(&res))...)
		if err != nil {
			t.Fatal(err)
		}
		return res.Header.Get("X-Request-Id"), answer.ID
	}
	fresh, id := ask()
	if !regexp.MustCompile(`^[\w-]+$`).MatchString(fresh) {
		t.Errorf("X-Request-Id is %q", fresh)
	}
	want(t, "the server's id", id, "chatcmpl-"+fresh)
	if again, _ := ask(); again == fresh {
		t.Errorf("%s twice", again)
	}
	own, _ := ask(named("my-own-id"))
	want(t, "X-Request-Id", own, "my-own-id")
}
