//go:build vllm

package vllm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"time"
)

const (
	chat       = "/v1/chat/completions"
	completion = "/v1/completions"
)

// fields are those of a request's body.
type fields map[string]any

// forever is a request that ends only when somebody ends it.
func forever() fields { return ofLength(endless) }

// ofLength is a request whose answer has exactly so many tokens.
func ofLength(tokens int) fields {
	return fields{
		"model": "tiny", "messages": []fields{{"role": "user", "content": "hello"}},
		"max_tokens": tokens, "ignore_eos": true, "stream": true,
	}
}

// reply is what a client gets of an answer. It is read while the answer comes,
// so only its channels may be touched before it is done.
type reply struct {
	id    string
	begun chan struct{} // its head is here
	done  chan struct{}
	leave context.CancelFunc

	status    int
	header    http.Header
	firstByte time.Duration // from before the request is written
	body      []byte        // of an answer that is no stream

	prompt, tokens int // by usage, or by ids of tokens
	finish         []string
	visible        bool // there was text
	events         int
	fault          string // an error event's message
	end            bool   // [DONE]
	err            error  // that it broke
}

// whole reports whether the stream is a finished answer.
func (r *reply) whole() bool {
	return r.status == http.StatusOK && r.end && r.fault == "" && r.err == nil && !slices.Contains(r.finish, "abort")
}

func (r *reply) String() string {
	return fmt.Sprintf("%s: status %d %s, %d events, finish %v, end mark %v, error event %q, %v", r.id, r.status, r.body, r.events, r.finish, r.end, r.fault, r.err)
}

// each request has a connection of its own, as from a client of its own.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// send sends a request and reads its answer in the background.
func send(url, path, id string, body fields) *reply {
	ctx, leave := context.WithCancel(context.Background())
	r := &reply{id: id, begun: make(chan struct{}), done: make(chan struct{}), leave: leave}
	go func() {
		defer leave()
		defer close(r.done)
		r.err = r.read(ctx, url+path, body)
	}()
	return r
}

// ask sends a request and reads its answer.
func ask(url, path, id string, body fields) *reply {
	r := send(url, path, id, body)
	<-r.done
	return r
}

func (r *reply) read(ctx context.Context, url string, body fields) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	start := time.Now()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { r.firstByte = time.Since(start) }})
	req, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Request-Id", r.id)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	r.status, r.header = resp.StatusCode, resp.Header
	close(r.begun)
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		r.body, err = io.ReadAll(resp.Body)
		return err
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if event, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); ok {
			if err := r.take(event); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// chunk is an event of a stream, of either kind.
type chunk struct {
	Choices []struct {
		Index        int
		Text         string
		Delta        struct{ Content string }
		FinishReason string `json:"finish_reason"`
		TokenIDs     []int  `json:"token_ids"`
		// Where completions have it.
		PromptTokenIDs []int `json:"prompt_token_ids"`
	}
	// Where chat has it.
	PromptTokenIDs []int `json:"prompt_token_ids"`
	Usage          *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
	}
	Error *struct{ Message string }
}

func (r *reply) take(event []byte) error {
	if r.end {
		return fmt.Errorf("an event after [DONE]: %s", event)
	}
	r.events++
	if string(event) == "[DONE]" {
		r.end = true
		return nil
	}
	var c chunk
	if err := json.Unmarshal(event, &c); err != nil {
		return fmt.Errorf("%w: %s", err, event)
	}
	if c.Error != nil {
		r.fault = c.Error.Message
	}
	if c.Usage != nil {
		r.prompt, r.tokens = c.Usage.Prompt, c.Usage.Completion
		return nil
	}
	r.prompt = max(r.prompt, len(c.PromptTokenIDs))
	for _, choice := range c.Choices {
		r.prompt = max(r.prompt, len(choice.PromptTokenIDs))
		r.tokens += len(choice.TokenIDs)
		r.visible = r.visible || choice.Text+choice.Delta.Content != ""
		if choice.FinishReason != "" {
			r.finish = append(r.finish, choice.FinishReason)
		}
	}
	return nil
}

// hasBegun reports whether a reply's head is here, and fails if its answer is
// over already.
func (r *reply) hasBegun() (bool, error) {
	select {
	case <-r.done:
		return false, errors.New("over already: " + r.String())
	default:
	}
	select {
	case <-r.begun:
		return true, nil
	default:
		return false, nil
	}
}
