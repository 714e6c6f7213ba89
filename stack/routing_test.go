package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
	"github.com/vllm-gateway/vllm-gateway/internal/vllmsim"
)

const routingServers = 64

// chat is somebody who sends requests one after the other, each with all that has
// been said before it.
type chat struct {
	model   string        // "" is the simulator's own
	at      time.Duration // of the first
	system  string
	turns   []string
	answers []string // that the next turn resends: as long as the real ones
	pause   time.Duration
	session string
}

// workload is who comes, in the order of time. Figures are of what is sent from
// warm on, when the caches are full.
type workload struct {
	name  string
	cache int // tokens that a server keeps
	warm  time.Duration
	chats []chat
}

// body is the request of a turn.
func (c chat) body(turn int) string {
	var b strings.Builder
	b.WriteString(`{"model":"` + cmp.Or(c.model, vllmsim.DefaultModel) + `","messages":[`)
	if c.system != "" {
		b.WriteString(`{"role":"system","content":"` + c.system + `"},`)
	}
	for i, said := range c.turns[:turn+1] {
		if i > 0 {
			b.WriteString(`{"role":"assistant","content":"` + c.answers[i-1] + `"},`)
		}
		b.WriteString(`{"role":"user","content":"` + said + `"},`)
	}
	return strings.TrimSuffix(b.String(), ",") + fmt.Sprintf(`],"stream":true,"temperature":0,"ignore_eos":true,"max_tokens":%d}`, answerTokens)
}

const answerTokens = 8

// textOf is so many tokens of text: a letter or a sign is one each to the simulator,
// where no letter follows a letter. The simulator's time goes by tokens, the test's
// by bytes.
func textOf(from *rand.Rand, tokens int) string {
	b := make([]byte, 0, tokens)
	for i := range tokens {
		if i%2 == 0 {
			b = append(b, 'a'+byte(from.IntN(26)))
		} else {
			b = append(b, ",.;:!?-+"[from.IntN(8)])
		}
	}
	return string(b)
}

// scale is how large a workload is: requests for so many seconds, of which the first fill the caches, and how many prefixes there are.
type scale struct {
	warm, measured float64
	prefixes       int
}

// routingRate is some 70 % of what 64 servers can do that have nothing cached: 2,100
// tokens take one 105 ms, and further 50 ms for an answer, some of it together with
// others.
const routingRate = 400

const prefixTokens = 2000

// tenants ask short questions about long texts; popularity says how often each text is
// asked about, in any unit. A server can keep a twentieth of the texts.
func tenants(name string, s scale, rate float64, popularity func(i int) float64) workload {
	from := rand.New(rand.NewPCG(1, 2))
	texts, upTo, total := make([]string, s.prefixes), make([]float64, s.prefixes), 0.0
	for i := range texts {
		texts[i] = textOf(from, prefixTokens)
		total += popularity(i)
		upTo[i] = total
	}
	w := workload{name: name, cache: s.prefixes / 20 * (prefixTokens + 100), warm: seconds(s.warm)}
	for at := 0.0; at < s.warm+s.measured; at += from.ExpFloat64() / rate {
		i, _ := slices.BinarySearch(upTo, from.Float64()*total)
		w.chats = append(w.chats, chat{at: seconds(at), system: texts[i], turns: []string{textOf(from, 100)}, session: fmt.Sprint("tenant-", i)})
	}
	return w
}

// talks are conversations, each of five turns.
func talks(name string, s scale, system string) workload {
	const turns, tokens = 5, 600
	from := rand.New(rand.NewPCG(3, 4))
	w := workload{name: name, cache: 26_000, warm: seconds(s.warm)}
	for at := 0.0; at < s.warm+s.measured; at += from.ExpFloat64() / routingRate * turns {
		c := chat{at: seconds(at), system: system, pause: seconds(0.1 + from.ExpFloat64()*0.3), session: fmt.Sprint("talk-", len(w.chats))}
		for range turns {
			c.turns, c.answers = append(c.turns, textOf(from, tokens)), append(c.answers, textOf(from, answerTokens))
		}
		w.chats = append(w.chats, c)
	}
	return w
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func even(s scale) workload { return tenants("even", s, routingRate, func(int) float64 { return 1 }) }

// skewed is Zipf's law: the first is asked about twice as often as the second.
func skewed(s scale) workload {
	return tenants("skewed", s, routingRate, zipf)
}

// crowded is more than the servers can do that have little cached, and comes while
// they have nothing.
func crowded(s scale) workload {
	return tenants("skewed, crowded", s, 2.2*routingRate, zipf)
}

func zipf(i int) float64 { return 1 / float64(i+1) }

func conversations(s scale) workload { return talks("conversations", s, "") }

// shared has one system prompt for all.
func shared(s scale) workload {
	return talks("shared", s, textOf(rand.New(rand.NewPCG(5, 6)), prefixTokens))
}

// fleet is one gateway or more before the simulators: real HTTP in memory, in
// virtual time.
type fleet struct {
	t        *testing.T
	net      memnet.Net
	client   *http.Client
	gateways int
	cache    int
	servers  []*countedServer
	ends     []func()

	hits, queries float64 // before count

	mu   sync.Mutex
	ttft []time.Duration
}

// countedServer is a simulator, and what has come to it since count.
type countedServer struct {
	*vllmsim.Server
	addr string
	end  func()

	mu       sync.Mutex
	served   int
	inFlight int
	peak     int           // that lasted
	area     time.Duration // in flight × time
	last     time.Time
}

func (s *countedServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		s.change(1)
		defer s.change(-1)
	}
	s.Server.ServeHTTP(w, r)
}

func (s *countedServer) change(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if past := time.Since(s.last); past > 0 {
		s.area += time.Duration(s.inFlight) * past
		s.peak = max(s.peak, s.inFlight)
	}
	s.last = time.Now()
	s.inFlight += by
	s.served += max(by, 0)
}

func (s *countedServer) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served, s.peak, s.area, s.last = 0, 0, 0, time.Now()
}

func inFleet(t *testing.T, gateways, cache int, change func(*gateway.Config), test func(*fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t, gateways: gateways, cache: cache}
		transport := &http.Transport{DialContext: f.net.Dial, MaxIdleConnsPerHost: 10_000, DisableCompression: true}
		f.client = &http.Client{Transport: transport}
		defer func() {
			transport.CloseIdleConnections()
			for _, end := range slices.Backward(f.ends) {
				end()
			}
		}()
		cfg := gateway.Config{
			FirstByteTimeout: time.Hour, StreamIdleTimeout: time.Hour, MaxBody: 1 << 20,
			Version: "test", Log: slog.New(slog.DiscardHandler), Dial: f.net.Dial,
		}
		for i := range routingServers {
			s := &countedServer{addr: fmt.Sprintf("vllm-%d:8000", i)}
			f.servers = append(f.servers, s)
			f.start(s)
			cfg.Backends = append(cfg.Backends, "http://"+s.addr)
		}
		f.ends = append(f.ends, func() {
			for _, s := range f.servers {
				s.end()
			}
		})
		change(&cfg)
		for i := range gateways {
			g, err := gateway.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			f.serve(fmt.Sprintf("gateway-%d:9000", i), g)
			f.ends = append(f.ends, func() {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				g.Drain(ctx)
			})
		}
		synctest.Wait() // the first probes are through
		test(f)
	})
}

func (f *fleet) start(s *countedServer) {
	sim, err := vllmsim.New(vllmsim.Config{Models: []string{vllmsim.DefaultModel, "other"}, MaxModelLen: 6000, KVCacheTokens: f.cache})
	if err != nil {
		f.t.Fatal(err)
	}
	s.Server = sim
	stop := f.listen(s.addr, s)
	s.end = func() { stop(); sim.Close() }
}

func (f *fleet) serve(addr string, h http.Handler) { f.ends = append(f.ends, f.listen(addr, h)) }

func (f *fleet) listen(addr string, h http.Handler) (stop func()) {
	l, err := f.net.Listen(addr)
	if err != nil {
		f.t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	return func() { srv.Close() }
}

// figures are what came of a workload.
type figures struct {
	done           int
	hits           float64       // share of prompt tokens that were cached
	p50, p95       time.Duration // of the time to the first token
	requests, busy float64       // the largest of a server ÷ the mean, of requests and of those in flight
	mean           float64       // in flight on a server
	peak           int           // in flight
}

func (f *fleet) run(w workload) figures {
	start := time.Now()
	var all sync.WaitGroup
	for i, c := range w.chats {
		if wait := time.Until(start.Add(w.warm)); wait > 0 && c.at >= w.warm {
			time.Sleep(wait)
			f.count()
		}
		time.Sleep(time.Until(start.Add(c.at)))
		all.Go(func() {
			for turn := range c.turns {
				if turn > 0 {
					time.Sleep(c.pause)
				}
				f.send(c, i, turn, time.Since(start) >= w.warm)
			}
		})
	}
	took := time.Since(start) - w.warm
	var r figures
	for _, s := range f.servers { // while they still come
		s.change(0)
		s.mu.Lock()
		share := s.area.Seconds() / took.Seconds()
		r.mean += share / routingServers
		r.busy = max(r.busy, share)
		r.requests = max(r.requests, float64(s.served))
		r.done += s.served
		r.peak = max(r.peak, s.peak)
		s.mu.Unlock()
	}
	r.busy /= r.mean
	r.requests /= float64(r.done) / routingServers
	hits, queries := f.cached()
	r.hits = (hits - f.hits) / (queries - f.queries)
	all.Wait()
	slices.Sort(f.ttft)
	r.p50, r.p95 = f.ttft[len(f.ttft)/2], f.ttft[len(f.ttft)*95/100]
	return r
}

// count begins to count.
func (f *fleet) count() {
	for _, s := range f.servers {
		s.reset()
	}
	f.hits, f.queries = f.cached()
}

func (f *fleet) send(c chat, i, turn int, counts bool) {
	began := time.Now()
	req, err := http.NewRequest("POST", fmt.Sprintf("http://gateway-%d:9000/v1/chat/completions", (i+turn)%f.gateways), strings.NewReader(c.body(turn)))
	if err != nil {
		f.t.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Chat", c.session)
	res, err := f.client.Do(req)
	if err != nil {
		f.t.Error(err)
		return
	}
	defer res.Body.Close()
	first := time.Since(began)
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !bytes.HasSuffix(text, []byte("data: [DONE]\n\n")) {
		f.t.Errorf("%d %v %s", res.StatusCode, err, text)
	}
	if counts {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.ttft = append(f.ttft, first)
	}
}

// cached sums over the simulators how many tokens of prompts there were, and how many
// of them were cached.
func (f *fleet) cached() (hits, queries float64) {
	for _, s := range f.servers {
		w := httptest.NewRecorder()
		s.Server.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		hits += sampleOf(f.t, w.Body.String(), "vllm:prefix_cache_hits_total")[0]
		queries += sampleOf(f.t, w.Body.String(), "vllm:prefix_cache_queries_total")[0]
	}
	return hits, queries
}

type routingPolicy struct {
	name   string
	change func(*gateway.Config)
}

var routingPolicies = []routingPolicy{
	{"round-robin", func(c *gateway.Config) { c.Routing = gateway.RoundRobin }},
	{"least-in-flight", func(c *gateway.Config) { c.Routing = gateway.LeastInFlight }},
	{"power-of-two", func(c *gateway.Config) { c.Routing = gateway.PowerOfTwo }},
	{"session, no bound", func(c *gateway.Config) {
		c.Routing, c.SessionHeader, c.MaxLoad = gateway.Session, "X-Chat", math.Inf(1)
	}},
	{"session", func(c *gateway.Config) { c.Routing, c.SessionHeader = gateway.Session, "X-Chat" }},
	{"prefix", func(c *gateway.Config) { c.Routing = gateway.Prefix }},
}

// route gives what a policy makes of a workload.
func route(t *testing.T, policy string, gateways int, w workload) (r figures) {
	t.Helper()
	i := slices.IndexFunc(routingPolicies, func(p routingPolicy) bool { return p.name == policy })
	inFleet(t, gateways, w.cache, routingPolicies[i].change, func(f *fleet) { r = f.run(w) })
	t.Logf("%s, %s, %d gateway(s): %+v", w.name, policy, gateways, r)
	return r
}

// all gives that of several, side by side.
func all(t *testing.T, w workload, policies ...string) map[string]figures {
	t.Helper()
	var mu sync.Mutex
	got := map[string]figures{}
	t.Run("policies", func(t *testing.T) {
		for _, p := range policies {
			t.Run(p, func(t *testing.T) {
				t.Parallel()
				name, two := strings.CutSuffix(p, ", two gateways")
				gateways := 1
				if two {
					gateways = 2
				}
				r := route(t, name, gateways, w)
				mu.Lock()
				defer mu.Unlock()
				got[p] = r
			})
		}
	})
	return got
}

// fast is large enough to tell policies apart; docs/routing.md has more.
var fast = scale{warm: 1.2, measured: 0.8, prefixes: 64}

// Prompts that begin alike meet the same cache, whichever gateway they come through.
func TestRoutingByPrefix(t *testing.T) {
	t.Parallel()
	r := all(t, even(fast), "round-robin", "least-in-flight", "prefix", "prefix, two gateways")
	prefixWins(t, r, 0.75)
	if one, two := r["prefix"].hits, r["prefix, two gateways"].hits; two < one-0.03 {
		t.Errorf("%.3f of the tokens were cached with one gateway, %.3f with two", one, two)
	}
}

// Where some prefixes are far more popular, they still do, and no server gets more than
// its bound, 8 where the mean is less than 4.
func TestRoutingBySkewedPrefix(t *testing.T) {
	t.Parallel()
	r := all(t, skewed(fast), "least-in-flight", "prefix", "session, no bound")
	prefixWins(t, r, 1) // every server misses a hot prefix once, and these come late
	if with, without := r["prefix"], r["session, no bound"]; with.peak > 8 || without.peak <= 16 || without.p95 < 2*with.p95 {
		t.Errorf("the most in flight on a server, and p95: with a bound %d, %v, without %d, %v", with.peak, with.p95, without.peak, without.p95)
	}
}

func prefixWins(t *testing.T, r map[string]figures, late float64) {
	t.Helper()
	p := r["prefix"]
	for _, other := range []string{"round-robin", "least-in-flight"} {
		if o, ok := r[other]; ok && (p.hits < o.hits+0.4 || p.p50 > o.p50/4 || p.p95.Seconds() > late*o.p95.Seconds()) {
			t.Errorf("prefix: %.3f of the tokens cached, p50 %v, p95 %v; %s: %.3f, %v, %v", p.hits, p.p50, p.p95, other, o.hits, o.p50, o.p95)
		}
	}
}

// A conversation stays on its server as it grows, also where all begin with one system
// prompt; for that none is more crowded.
func TestRoutingConversations(t *testing.T) {
	t.Parallel()
	// Two thirds of what a conversation sends have been sent before.
	long := scale{warm: 2, measured: 0.8} // until as many end as begin
	for _, w := range []workload{conversations(long), shared(long)} {
		t.Run(w.name, func(t *testing.T) {
			r := all(t, w, "least-in-flight", "prefix")
			if p, o := r["prefix"], r["least-in-flight"]; p.hits < max(0.6, o.hits+0.2) || p.p95 > o.p95*21/20 || p.p50 > o.p50 {
				t.Errorf("prefix: %.3f of the tokens cached, p50 %v, p95 %v; least in flight: %.3f, %v, %v", p.hits, p.p50, p.p95, o.hits, o.p50, o.p95)
			}
		})
	}
}

// Gateways that never talk send a prefix to the same server. When one goes, its own
// prefixes spread over others, and come back with it; the rest stay.
func TestRoutingMovesLittle(t *testing.T) {
	t.Parallel()
	inFleet(t, 2, 26_000, func(c *gateway.Config) { c.Routing = gateway.Prefix }, func(f *fleet) {
		from := rand.New(rand.NewPCG(7, 8))
		var chats []chat
		for range 256 {
			chats = append(chats, chat{system: textOf(from, 50), turns: []string{textOf(from, 10)}})
		}
		homes := func(gateway int) (at []int) {
			for _, c := range chats {
				for _, s := range f.servers {
					s.reset()
				}
				f.send(c, gateway, 0, false)
				at = append(at, slices.IndexFunc(f.servers, func(s *countedServer) bool { return s.served > 0 }))
			}
			return at
		}
		before := homes(0)
		used := slices.Clone(before)
		slices.Sort(used)
		if n := len(slices.Compact(used)); n < 54 { // 63 in the mean
			t.Errorf("256 prefixes have homes on %d servers", n)
		}
		if !slices.Equal(homes(1), before) {
			t.Error("the other gateway sends some elsewhere")
		}
		homed := make([]int, routingServers)
		for _, at := range before {
			homed[at]++
		}
		gone := slices.Index(homed, slices.Max(homed))
		f.net.Kill(f.servers[gone].addr)
		f.servers[gone].end()
		time.Sleep(time.Minute)
		during := homes(0)
		spread := map[int]bool{}
		for i := range chats {
			switch {
			case before[i] == gone:
				spread[during[i]] = true
			case before[i] != during[i]:
				t.Errorf("prefix %d moved from %d to %d when %d went", i, before[i], during[i], gone)
			}
		}
		if len(spread) < 2 || spread[gone] {
			t.Errorf("what belonged to %d went to %v", gone, spread)
		}
		f.start(f.servers[gone])
		time.Sleep(time.Minute)
		if !slices.Equal(homes(0), before) {
			t.Error("not all came back")
		}
		same := 0
		for i := range chats {
			chats[i].model = "other"
		}
		for i, at := range homes(0) {
			if at == before[i] {
				same++
			}
		}
		if same > 26 { // 4 in the mean
			t.Errorf("of 256 prefixes %d have the same home with another model: its cache is another", same)
		}
	})
}
