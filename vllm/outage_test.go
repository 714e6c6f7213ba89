//go:build vllm

package vllm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// One of two engines goes, in each of the ways that it can, while streams run
// on both and others wait in its queue.
//
// What had not begun is answered by the other engine, and nobody notices. What
// had is told to have failed. Where the API server goes, its connections break.
// Where the engine goes behind it, the API server says so by itself: in streams
// an error event, which [DONE] follows, and else 500. At SIGTERM vLLM does the
// same, or, as luck has it, ends every answer as if it were finished, with status
// 200, [DONE] and finish_reason "abort"; the gateway makes an error event of that.
// A third way is to hang, with its connections open, until it is killed.
func TestOutage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		strike func(t *testing.T, e *engine)
		tells  bool // vLLM may tell its running streams itself
		back   bool // it is started again
	}{
		{"API server killed", func(t *testing.T, e *engine) { e.cmd.Process.Kill() }, false, true},
		{"EngineCore killed", func(t *testing.T, e *engine) { syscall.Kill(e.process(t, "VLLM::EngineCore"), syscall.SIGKILL) }, true, true},
		{"terminated", terminate, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := start(t, wide, narrow)
			// Six each; narrow runs four of its own.
			const tokens = 3000
			var streams []*reply
			for i := range 12 {
				body := ofLength(tokens)
				body["return_token_ids"] = true
				streams = append(streams, send(g.url(), chat, fmt.Sprintf("%s-%d", strings.ReplaceAll(tt.name, " ", "-"), i), body))
			}
			var running, waiting []*reply
			within(t, 20*time.Second, "ten streams have begun", func() error {
				running, waiting = nil, nil
				for _, r := range streams {
					ok, err := r.hasBegun()
					if err != nil {
						t.Fatal(err)
					}
					if ok {
						running = append(running, r)
					} else {
						waiting = append(waiting, r)
					}
				}
				if len(running) != 6+narrowSeqs {
					return fmt.Errorf("%d have", len(running))
				}
				return nil
			})
			narrow.comesTo(t, narrowSeqs, 2)
			var pieces []*reply // answers that are no streams: two more wait at each
			for i := range 4 {
				body := ofLength(tokens)
				body["stream"] = false
				pieces = append(pieces, send(g.url(), chat, fmt.Sprintf("piece-%d", i), body))
			}
			narrow.comesTo(t, narrowSeqs, 4)
			struck := time.Now()
			tt.strike(t, narrow)

			succeed(t, g, "at-once")
			meanwhile, sent := map[int]int{}, 0
			within(t, 30*time.Second, "the gateway knows", func() error {
				if up := now(t, g.url()).sum("gateway_backend_up", narrow.label()); up == 0 {
					return nil
				}
				r := ask(g.url(), chat, fmt.Sprintf("meanwhile-%d", sent), ofLength(5))
				sent++
				meanwhile[r.status]++
				if !r.whole() {
					t.Errorf("%v", r)
				}
				return errors.New("gateway_backend_up is 1")
			})
			t.Logf("gateway_backend_up was 0 after %v; requests meanwhile, by status: %v", time.Since(struck), meanwhile)

			lost := 0
			for _, r := range running {
				<-r.done
				if strings.Contains(g.request(r.id), " backend="+wide.addr+" ") {
					if !r.whole() || r.tokens != tokens {
						t.Errorf("on the other engine, %d tokens of %d: %v", r.tokens, tokens, r)
					}
					continue
				}
				lost++
				t.Logf("%d tokens, then: %v", r.tokens, r)
				if r.status != http.StatusOK || r.fault == "" {
					t.Errorf("a stream was lost and its client not told: %v", r)
				}
				if told := tt.tells && strings.Contains(r.fault, "EngineCore"); !told && (r.end || r.err == nil) {
					t.Errorf("a stream was cut and ends like a whole one: %v", r)
				}
				if line := g.request(r.id); !strings.Contains(line, " outcome=backend_error ") {
					t.Errorf("in the log: %s", line)
				}
			}
			if lost != narrowSeqs {
				t.Errorf("%d streams were lost; want %d", lost, narrowSeqs)
			}
			for _, r := range waiting {
				<-r.done
				t.Logf("waiting: %v", r)
				if !r.whole() || r.tokens != tokens {
					t.Errorf("a stream that had not begun, %d tokens of %d: %v", r.tokens, tokens, r)
				}
			}

			for _, r := range pieces {
				<-r.done
				var answer struct {
					Usage struct {
						Completion int `json:"completion_tokens"`
					}
				}
				if err := json.Unmarshal(r.body, &answer); err != nil || r.status != http.StatusOK || answer.Usage.Completion != tokens {
					t.Errorf("an answer in one piece, %d tokens of %d, status %d: %.200s", answer.Usage.Completion, tokens, r.status, r.body)
				}
			}

			succeed(t, g, "later")
			page := now(t, g.url())
			if up := page.sum("gateway_backend_up", narrow.label()); up != 0 {
				t.Errorf("gateway_backend_up is %v of a dead engine", up)
			}
			t.Logf("retries: %v; upstream errors: %v", page.sum("gateway_retries_total"), page.having("gateway_upstream_errors_total"))

			narrow.kill() // what is left of it
			if !tt.back {
				return
			}
			restarted := time.Now()
			narrow.ready(t)
			t.Logf("vLLM was back after %v", time.Since(restarted))
			within(t, 10*time.Second, "the gateway finds the engine again", func() error {
				if up := now(t, g.url()).sum("gateway_backend_up", narrow.label()); up != 1 {
					return errors.New("gateway_backend_up is 0")
				}
				return nil
			})
			succeed(t, g, "again")
			if n := now(t, narrow.url()).sum("vllm:request_success_total"); n != 10 {
				t.Errorf("the engine that is back was given %v of 20 requests; want every other", n)
			}
		})
	}
}

// terminate stops an engine as Kubernetes does: what is left after a while is
// killed.
func terminate(t *testing.T, e *engine) {
	e.cmd.Process.Signal(syscall.SIGTERM)
	patience := time.AfterFunc(10*time.Second, e.kill)
	t.Cleanup(func() { patience.Stop() })
}

// succeed sends twenty requests, one after the other.
func succeed(t *testing.T, g *gateway, when string) {
	t.Helper()
	for i := range 20 {
		if r := ask(g.url(), chat, fmt.Sprintf("%s-%d", when, i), ofLength(5)); !r.whole() {
			t.Errorf("%v", r)
		}
	}
}

// having gives the series of a metric that are not 0.
func (m metrics) having(name string) (some metrics) {
	some = metrics{}
	for series, v := range m {
		if strings.HasPrefix(series, name+"{") && v != 0 {
			some[series] = v
		}
	}
	return some
}
