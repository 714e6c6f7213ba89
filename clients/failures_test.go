package clients

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// TestGoFailures is what clients see when something is wrong.
func TestGoFailures(t *testing.T) {
	r := start(t)
	for name, k := range kinds {
		t.Run(name+": a model that is not there", func(t *testing.T) { r.nobody(t, k) })
		t.Run(name+": a bad request", func(t *testing.T) { r.badRequest(t, k) })
		t.Run(name+": a server that is not there", func(t *testing.T) { r.noServer(t, k) })
		if name != "responses" { // there vLLM breaks off instead, which is a cut stream
			t.Run(name+": an error in the stream", func(t *testing.T) { r.errorInStream(t, k) })
		}
		t.Run(name+": a cut stream", func(t *testing.T) { r.cut(t, k) })
		t.Run(name+": the SDK tries again", func(t *testing.T) { r.tryAgain(t, k) })
	}
	t.Run("a prompt that is too long", r.tooLong)
	t.Run("a path that is not served", r.noPath)
	t.Run("the client cancels a stream", r.leave)
	t.Run("the client cancels an answer in one piece", r.leaveWhole)
	t.Run("the client gives up before the first token", r.leaveEarly)
	t.Run("the server dies in the middle", r.die) // the last: there is no server after it
}

const (
	apiError    = "*apierror.Error"
	streamError = "*ssestream.StreamError"
)

// kind is an endpoint, asked whole and as a stream.
type kind struct {
	whole  func(*testing.T, openai.Client, ...option.RequestOption) seen
	stream func(*testing.T, openai.Client, ...option.RequestOption) seen
}

var kinds = map[string]kind{
	"chat": {
		func(t *testing.T, c openai.Client, more ...option.RequestOption) seen {
			return whole(c.Chat.Completions.New(t.Context(), usual(), more...))
		},
		func(t *testing.T, c openai.Client, more ...option.RequestOption) seen {
			return drain(c.Chat.Completions.NewStreaming(t.Context(), usual(), more...))
		},
	},
	"completions": {
		func(t *testing.T, c openai.Client, more ...option.RequestOption) seen {
			return whole(c.Completions.New(t.Context(), prose(), more...))
		},
		func(t *testing.T, c openai.Client, more ...option.RequestOption) seen {
			return drain(c.Completions.NewStreaming(t.Context(), prose(), more...))
		},
	},
	"responses": {
		func(t *testing.T, c openai.Client, more ...option.RequestOption) seen {
			return whole(c.Responses.New(t.Context(), story(), more...))
		},
		func(t *testing.T, c openai.Client, more ...option.RequestOption) seen {
			return drain(c.Responses.NewStreaming(t.Context(), story(), more...))
		},
	},
}

func (r *rig) nobody(t *testing.T, k kind) {
	for _, ask := range []func(*testing.T, openai.Client, ...option.RequestOption) seen{k.whole, k.stream} {
		s := r.same(t, func(c openai.Client) seen { return ask(t, c, option.WithJSONSet("model", "nobody")) })
		fails(t, s, apiError, 404, "404", "The model `nobody` does not exist.")
		want(t, "the field", s.param, "model")
	}
}

func (r *rig) badRequest(t *testing.T, k kind) {
	s := r.same(t, func(c openai.Client) seen { return k.whole(t, c, option.WithJSONSet("temperature", -1)) })
	fails(t, s, apiError, 400, "400", "temperature")
	s = r.same(t, func(c openai.Client) seen { return k.whole(t, c, option.WithJSONSet("stream", "perhaps")) })
	fails(t, s, apiError, 400, "400", "valid boolean")
	s = r.same(t, func(c openai.Client) seen {
		return k.whole(t, c, option.WithRequestBody("application/json", []byte("{")))
	})
	fails(t, s, apiError, 400, "400", "JSON decode error")
}

func (r *rig) noServer(t *testing.T, k kind) {
	fails(t, k.whole(t, client(r.orphan)), apiError, 502, "502", "model server could not be reached")
	fails(t, k.stream(t, client(r.orphan)), apiError, 502, "502", "model server could not be reached")
}

func (r *rig) errorInStream(t *testing.T, k kind) {
	r.withFaults(t, fault{Kind: "error", After: new(6)}, func() {
		s := r.same(t, func(c openai.Client) seen { return k.stream(t, c) })
		fails(t, s, streamError, 0, "500", "Internal server error")
		if len(s.json) == 0 {
			t.Error("nothing came before the error")
		}
	})
	// Before the first token the gateway can still tell it by the status.
	r.withFaults(t, fault{Kind: "error", After: new(0)}, func() {
		fails(t, k.stream(t, client(r.gateway)), apiError, 500, "500", "Internal server error")
	})
}

func (r *rig) cut(t *testing.T, k kind) {
	onlySimulated(t, noFaults)
	r.withFaults(t, fault{Kind: "cut", After: new(6)}, func() {
		direct, through := k.stream(t, client(r.backend, named("cut"))), k.stream(t, client(r.gateway, named("cut")))
		if direct.kind == "" || direct.kind == streamError {
			t.Errorf("the simulator did not cut: %s", direct)
		}
		want(t, "what came before the cut", through.comparable(t).json, direct.comparable(t).json)
		if len(through.json) == 0 {
			t.Error("nothing came before the cut")
		}
		fails(t, through, streamError, 0, "502", "ended early")
	})
	r.withFaults(t, fault{Kind: "cut", After: new(0)}, func() {
		fails(t, k.stream(t, client(r.gateway)), apiError, 502, "502", "model server")
	})
}

func (r *rig) tryAgain(t *testing.T, k kind) {
	attempts := 0
	counting := option.WithHTTPClient(doer(func(req *http.Request) (*http.Response, error) {
		attempts++
		return http.DefaultClient.Do(req)
	}))
	r.good(t, func(c openai.Client) seen {
		var both seen
		// Every second request is refused: the second here, and not its repetition.
		r.withFaults(t, fault{Kind: "reject", Status: 503, Share: 0.5}, func() {
			first, second := k.stream(t, c), k.stream(t, c)
			want(t, "the first one's failure", first.failure, failure{})
			both = seen{append(first.json, second.json...), second.failure}
		})
		return both
	}, option.WithMaxRetries(2), counting)
	want(t, "the number of attempts, three for each server,", attempts, 6)
}

type doer func(*http.Request) (*http.Response, error)

func (d doer) Do(req *http.Request) (*http.Response, error) { return d(req) }

func (r *rig) tooLong(t *testing.T) {
	params := usual()
	params.Messages = []openai.ChatCompletionMessageParamUnion{openai.UserMessage(strings.Repeat("word ", 5000))}
	s := r.same(t, func(c openai.Client) seen { return whole(c.Chat.Completions.New(t.Context(), params)) })
	fails(t, s, apiError, 400, "400", "context length")
}

func (r *rig) noPath(t *testing.T) {
	c := client(r.gateway)
	fails(t, whole(c.Files.List(t.Context(), openai.FileListParams{})), apiError, 404, "404", "not served here")
}

func fails(t *testing.T, s seen, kind string, status int, code, message string) {
	t.Helper()
	if s.kind != kind || s.status != status || s.code != code || !strings.Contains(s.message, message) {
		t.Errorf("the failure is %+v, not %s, status %d, code %s, %q", s.failure, kind, status, code, message)
	}
}

// tooMany tokens are more than the tests wait for.
const tooMany = 1900

func endless() openai.ChatCompletionNewParams {
	params := usual()
	params.MaxTokens = openai.Int(tooMany)
	return params
}

var ignoreEOS = option.WithJSONSet("ignore_eos", true)

func (r *rig) leave(t *testing.T) {
	before, tokens := r.cancelled(t), r.generated(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := client(r.gateway)
	stream := c.Chat.Completions.NewStreaming(ctx, endless(), ignoreEOS)
	defer stream.Close()
	if !stream.Next() {
		t.Fatal(stream.Err())
	}
	reaches(t, "num_requests_running", 1, func() float64 { return r.running(t) })
	cancel()
	r.stopped(t, before, tokens)
}

func (r *rig) leaveWhole(t *testing.T) {
	before, tokens := r.cancelled(t), r.generated(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		c := client(r.gateway)
		_, err := c.Chat.Completions.New(ctx, endless(), ignoreEOS)
		ended <- err
	}()
	reaches(t, "num_requests_running", 1, func() float64 { return r.running(t) })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the client is told %v", err)
	}
	r.stopped(t, before, tokens)
}

// stopped wants the endless request to end before its time.
func (r *rig) stopped(t *testing.T, cancelled, tokens float64) {
	t.Helper()
	reaches(t, "num_requests_running", 0, func() float64 { return r.running(t) })
	reaches(t, "cancelled requests", cancelled+1, func() float64 { return r.cancelled(t) })
	if made := r.generated(t) - tokens; made >= tooMany {
		t.Errorf("the backend made all %v tokens", made)
	}
}

func (r *rig) leaveEarly(t *testing.T) {
	load := func() float64 {
		var answer struct {
			Load float64 `json:"server_load"`
		}
		if text, err := get(r.backend + "/load"); err != nil || json.Unmarshal([]byte(text), &answer) != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return answer.Load
	}
	early := func() float64 {
		return metric(t, r.gateway, "gateway_cancelled_requests_total", "before_first_byte")
	}
	before := early()
	r.withFaults(t, fault{Kind: "slow-first-token", Delay: "60s"}, func() {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			c := client(r.gateway)
			stream := c.Chat.Completions.NewStreaming(ctx, endless())
			stream.Next()
			ended <- stream.Err()
		}()
		reaches(t, "server_load", 1, load)
		cancel()
		if err := <-ended; err == nil {
			t.Error("the stream succeeded")
		}
		reaches(t, "server_load", 0, load)
		reaches(t, "requests cancelled before the first byte", before+1, early)
	})
}

func (r *rig) die(t *testing.T) {
	onlySimulated(t, noFaults)
	c := client(r.gateway)
	killed := false
	s := drain(c.Chat.Completions.NewStreaming(t.Context(), endless(), ignoreEOS), func(openai.ChatCompletionChunk) {
		if !killed {
			killed = true
			r.crash(t)
		}
	})
	fails(t, s, streamError, 0, "502", "ended early")
	// A process that ends closes its connections first, then its port.
	await(t, "the simulator's port to close", limit, func() error {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.backend, "http://"))
		if err != nil {
			return nil
		}
		conn.Close()
		return errors.New("it is open")
	})
	fails(t, whole(c.Chat.Completions.New(t.Context(), usual())), apiError, 502, "502", "could not be reached")
}
