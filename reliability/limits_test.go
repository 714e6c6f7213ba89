//go:build reliability

package reliability

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// fullest gives what was granted for certain in the fullest minute: of requests that
// were sent when it had begun, and answered before it was over.
func fullest(list []seen, weight func(seen) int64) (most int64) {
	for _, first := range list {
		sum := int64(0)
		for _, s := range list {
			if !s.sent.Before(first.sent) && s.head.Sub(first.sent) <= time.Minute {
				sum += weight(s)
			}
		}
		most = max(most, sum)
	}
	return most
}

// Two gateways and one Redis: a caller that offers both of them more than twice what
// it may gets what it may, of both together, in any minute. What was reserved for an
// answer and not used is there for others.
func TestSharedLimits(t *testing.T) {
	t.Parallel()
	const (
		requests = 600    // a minute
		tokens   = 60_000 // a minute
		most     = 360    // tokens of an answer, and so reserved; the mean is a quarter of it
		long     = 90 * time.Second
	)
	s := sim(t, 1, time.Millisecond, "--mean-output-tokens", strconv.Itoa(most/4))
	r := startRedis(t)
	keys := fmt.Sprintf("  - {name: asks, hash: %s, limits: {requests_per_minute: %d}}\n  - {name: writes, hash: %s, limits: {tokens_per_minute: %d}}\n", hashOf("asks"), requests, hashOf("writes"), tokens)
	var gateways []*gateway
	for range 2 {
		gateways = append(gateways, counting(t, s.url(), r.addr, "fail: closed, timeout: 5s", keys))
	}
	client := newClient(t, true)
	var mu sync.Mutex
	all := map[string][]seen{}
	began := time.Now()
	offer := func(caller string, every time.Duration, body func(i int) string) {
		tick := time.NewTicker(every)
		defer tick.Stop()
		var running sync.WaitGroup
		defer running.Wait()
		for i := 0; time.Since(began) < long; i++ {
			running.Go(func() {
				a := askAs(t.Context(), client, gateways[i%2].url(), caller, body(i), nil)
				mu.Lock()
				defer mu.Unlock()
				all[caller] = append(all[caller], a)
			})
			<-tick.C
		}
	}
	var both sync.WaitGroup
	both.Go(func() { offer("asks", 40*time.Millisecond, func(int) string { return chat(`"max_tokens":2,`) }) })
	both.Go(func() {
		offer("writes", 50*time.Millisecond, func(i int) string {
			return chat([]string{"", streamed}[i%2] + fmt.Sprintf(`"max_tokens":%d,`, most))
		})
	})
	both.Wait()

	one := func(seen) int64 { return 1 }
	for _, c := range []struct {
		caller string
		limit  int64
		weight func(seen) int64
	}{{"asks", requests, one}, {"writes", tokens, seen.tokens}} {
		var granted []seen
		var refused, offered, first, over int64
		for _, a := range all[c.caller] {
			inFirst := a.head.Sub(began) <= time.Minute
			if inFirst {
				offered++
			}
			switch {
			case a.status == 200 && a.err == nil:
				granted = append(granted, a)
				over += max(0, a.tokens()-most)
				if inFirst {
					first += c.weight(a)
				}
			case a.status == 429 && a.header.Get("Retry-After") != "" && a.err == nil:
				refused++
			default:
				t.Errorf("%s: %v", c.caller, a)
			}
		}
		if offered < requests*11/10 {
			t.Fatalf("%s: only %d requests were offered in a minute: this has shown nothing", c.caller, offered)
		}
		// The prompt is guessed before the engine has counted it: an answer that is as
		// long as it may be can cost more than was reserved, and that stands.
		if c.caller == "asks" {
			over = 0
		}
		in := fullest(granted, c.weight)
		if first < c.limit-c.limit/100 || first > c.limit+over || in > c.limit+over {
			t.Errorf("%s: %d in the first minute and %d in the fullest; want %d, and at most 1 %% less", c.caller, first, in, c.limit+over)
		}
		var took [2]float64
		var counted, said float64
		for i, g := range gateways {
			m := g.metrics()
			took[i] = m.sum("gateway_caller_requests_total", fmt.Sprintf("caller=%q", c.caller), `outcome="ok"`)
			counted += took[i]
			said += m.sum("gateway_caller_refused_requests_total", fmt.Sprintf("caller=%q", c.caller))
		}
		if counted != float64(len(granted)) || said != float64(refused) || min(took[0], took[1]) < counted/10 {
			t.Errorf("%s: by the gateways %v answered and %v refused; by the clients %d and %d", c.caller, took, said, len(granted), refused)
		}
		figure(t, "%s: offered %d requests in the first minute; of a limit of %d got %d then, %d in the fullest minute, %d of it beyond what is reserved; %d granted by one gateway and %d by the other, %d refused, in %v",
			c.caller, offered, c.limit, first, in, over, int(took[0]), int(took[1]), refused, long)
	}
}

// What a caller has used of the day outlives the gateway where a Redis counts, and not
// where the gateway does.
func TestDayOutlivesGateway(t *testing.T) {
	t.Parallel()
	const limit = 1000
	// At midnight of UTC the day's tokens are there again.
	if left := 24*time.Hour - time.Duration(time.Now().UnixNano())%(24*time.Hour); left < 2*patience {
		<-time.After(left)
	}
	s := sim(t, 1, time.Millisecond)
	keys := fmt.Sprintf("  - {name: alice, hash: %s, limits: {tokens_per_day: %d}}\n", hashOf("alice"), limit)
	for _, tt := range []struct {
		name  string
		redis string
		want  int
	}{{"by Redis", startRedis(t).addr, 429}, {"by the gateway", "", 200}} {
		g := counting(t, s.url(), tt.redis, "fail: closed, timeout: 5s", keys)
		client := newClient(t, true)
		body := chat(`"max_tokens":100,`) // of which an answer takes a third
		used, n := int64(0), 0
		left := func() string { // nothing is counted of a request that is more than the limit
			return askAs(t.Context(), client, g.url(), "alice", chat(fmt.Sprintf(`"max_tokens":%d,`, 2*limit)), nil).header.Get("X-Ratelimit-Remaining-Tokens-Day")
		}
		for settled := false; ; {
			a := askAs(t.Context(), client, g.url(), "alice", body, nil)
			switch {
			case a.status == 429 && settled:
			case a.status == 429: // an end may not have been counted yet
				until(t, "all is settled", func() bool { return left() == fmt.Sprint(limit-used) }, left, func() string { return fmt.Sprint(limit - used) })
				settled = true
				continue
			case a.status != 200 || a.err != nil || n > limit/10:
				t.Fatalf("%s, after %d tokens of %d: %v", tt.name, used, limit, a)
			default:
				used, n, settled = used+a.tokens(), n+1, false
				continue
			}
			break
		}
		g.kill()
		client.CloseIdleConnections()
		g.start()
		a := askAs(t.Context(), client, g.url(), "alice", body, nil)
		remaining := a.header.Get("X-Ratelimit-Remaining-Tokens-Day")
		if a.status != tt.want || a.status == http.StatusTooManyRequests && remaining != fmt.Sprint(limit-used) {
			t.Errorf("%s: after a restart %v, %s tokens left; before %d", tt.name, a, remaining, limit-used)
		}
		figure(t, "%s: %d of %d tokens used by %d requests; after kill -9 and a start: %d, %s left", tt.name, used, limit, n, a.status, remaining)
	}
}
