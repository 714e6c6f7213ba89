//go:build vllm

package vllm

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Whoever leaves, at whatever moment, ends the work on the engine at once: each
// of these requests would go on for minutes.
//
// vLLM has no count of them: request_success_total{finished_reason="abort"}
// moves only for requests that the engine ends by itself. So what the engine
// did is read from its log, and from its gauges.
func TestClientsLeave(t *testing.T) {
	g := start(t, narrow)
	before, logged := now(t, narrow.url()), len(narrow.log.String())
	var all []*reply
	begin := func(n int, name string, more fields) (some []*reply) {
		for i := range n {
			body := forever()
			for field, v := range more {
				body[field] = v
			}
			some = append(some, send(g.url(), chat, fmt.Sprintf("leave-%s-%d", name, i), body))
		}
		all = append(all, some...)
		return some
	}
	leave := func(what string, some []*reply, running, waiting int) {
		t.Helper()
		left := time.Now()
		for _, r := range some {
			r.leave()
		}
		narrow.comesTo(t, running, waiting)
		t.Logf("%s: %d left, and the engine knew after %v", what, len(some), time.Since(left))
	}
	plain := fields{"stream": false}

	streams := begin(narrowSeqs, "stream", nil)
	haveBegun(t, streams)
	queued := append(begin(12, "queued", nil), begin(8, "queued-plain", plain)...)
	narrow.comesTo(t, narrowSeqs, 20)
	leave("queued", queued, narrowSeqs, 0)
	leave("in mid stream", streams, 0, 0)

	unstreamed := begin(narrowSeqs, "plain", plain)
	narrow.comesTo(t, narrowSeqs, 0)
	leave("not streamed", unstreamed, 0, 0)

	two := begin(narrowSeqs/2, "two", fields{"n": 2})
	haveBegun(t, two)
	leave("two choices", two, 0, 0)

	// Each leaves with the first byte, and those that wait move up.
	left := time.Now()
	for _, r := range begin(10, "first", nil) {
		go func() {
			<-r.begun
			r.leave()
		}()
	}
	page := g.rests(len(all))
	narrow.comesTo(t, 0, 0)
	t.Logf("10, each upon its first token: all gone from the engine after %v", time.Since(left))

	if n := page.sum("gateway_cancelled_requests_total"); n != float64(len(all)) || n != 40 {
		t.Errorf("%v cancelled by the gateway's count, %d clients left; want 40", n, len(all))
	}
	// Streams that had begun: 4, 2 of two choices, and those with a first token.
	if n := page.sum("gateway_cancelled_requests_total", `phase="after_first_byte"`); n != 16 {
		t.Errorf("%v cancelled after their first byte; want 16", n)
	}
	if n := page.sum("gateway_requests_total", `outcome="cancelled"`); n != 40 {
		t.Errorf("%v with the outcome cancelled; want 40", n)
	}
	for _, r := range all {
		<-r.done
		within(t, 5*time.Second, "the engine logs the end of "+r.id, func() error {
			for _, word := range []string{"Received request chatcmpl-" + r.id + ":", "Request chatcmpl-" + r.id + " aborted."} {
				if n := strings.Count(narrow.log.String()[logged:], word); n != 1 {
					return fmt.Errorf("%d times: %s", n, word)
				}
			}
			return nil
		})
	}
	added := now(t, narrow.url()).since(before)
	if n := added.sum("vllm:request_success_total"); n != 0 {
		t.Errorf("%v requests were finished by the engine; want none", n)
	}
	t.Logf("the engine's own counts of these: %v aborted, %v first tokens, %v prompt and %v generated tokens, %v in histograms of finished requests",
		added.sum("vllm:request_success_total", `finished_reason="abort"`), added.sum(engineTTFT+"_count"),
		added.sum("vllm:prompt_tokens_total"), added.sum("vllm:generation_tokens_total"), added.sum("vllm:e2e_request_latency_seconds_count"))
	t.Logf("the gateway's: %v first tokens, %v prompt and %v generated tokens", page.sum(gatewayTTFT+"_count"), page.sum("gateway_prompt_tokens_total"), page.sum("gateway_completion_tokens_total"))
}

// comesTo waits until so many sequences run and wait in the engine.
func (e *engine) comesTo(t *testing.T, running, waiting int) {
	t.Helper()
	within(t, 20*time.Second, fmt.Sprintf("%d run and %d wait in the engine", running, waiting), func() error {
		page, err := scrape(e.url())
		if err != nil {
			return err
		}
		if r, w := page.sum("vllm:num_requests_running"), page.sum("vllm:num_requests_waiting"); r != float64(running) || w != float64(waiting) {
			return fmt.Errorf("%v run and %v wait", r, w)
		}
		return nil
	})
}

// vLLM sends its head at once, to a request that waits in its queue; the
// gateway with the first token.
func TestHeadComesWithTheFirstToken(t *testing.T) {
	g := start(t, narrow)
	var busy []*reply
	for i := range narrowSeqs {
		busy = append(busy, send(narrow.url(), chat, fmt.Sprintf("busy-%d", i), forever()))
	}
	narrow.comesTo(t, narrowSeqs, 0)
	throughGateway := dialStream(t, g.addr)
	narrow.comesTo(t, narrowSeqs, 1)
	sent := time.Now()
	direct := dialStream(t, narrow.addr)
	directHead := <-direct.head
	narrow.comesTo(t, narrowSeqs, 2)
	select {
	case <-throughGateway.head:
		t.Fatal("the gateway has sent something while its request waits in the engine's queue")
	default:
	}
	freed := time.Now()
	for _, r := range busy {
		r.leave()
	}
	gatewayHead, gatewayToken, directToken := <-throughGateway.head, <-throughGateway.token, <-direct.token
	if gatewayHead.Before(freed) {
		t.Errorf("the gateway's head came %v before the engine was free", freed.Sub(gatewayHead))
	}
	t.Logf("the engine's head came after %v, and its first token %v later", directHead.Sub(sent), directToken.Sub(directHead))
	t.Logf("the gateway's head came %v after the engine was free, and the first token %v later", gatewayHead.Sub(freed), gatewayToken.Sub(gatewayHead))
}

// arrivals are the times at which parts of a stream arrive over bare TCP.
type arrivals struct {
	head  chan time.Time // its first byte
	token chan time.Time // the first text
}

func dialStream(t *testing.T, addr string) arrivals {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	const body = `{"model":"tiny","prompt":"hello","max_tokens":5,"ignore_eos":true,"stream":true}`
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: vllm\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", completion, len(body), body)
	a := arrivals{make(chan time.Time, 1), make(chan time.Time, 1)}
	go func() {
		defer close(a.head)
		defer close(a.token)
		r := bufio.NewReader(conn)
		if _, err := r.Peek(1); err != nil {
			t.Error(err)
			return
		}
		a.head <- time.Now()
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%v, %v", resp, err)
			return
		}
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if strings.Contains(lines.Text(), `"text":"`) && !strings.Contains(lines.Text(), `"text":""`) {
				a.token <- time.Now()
				return
			}
		}
		t.Error("no text came")
	}()
	return a
}
