//go:build tuning

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
	"github.com/vllm-gateway/vllm-gateway/internal/vllmsim"
)

// longModel is a further name of the simulator's model, so that the dashboard's model
// filter tells long prompts from short ones.
const longModel = "long-prompts"

// users each ask, read the stream, and sleep for a second.
type users struct {
	n         int
	model     string // "" is the simulator's own
	maxTokens int    // of an answer
	exact     bool   // answers have all of them: ignore_eos
	prompt    int    // tokens of a prompt that nobody has sent before; 0: a short question
}

// guides are the users of the monitoring guide.
func guides(n int) []users { return []users{{n: n, maxTokens: 50}} }

// tuned is a gateway before one engine: real HTTP in memory, in virtual time.
type tuned struct {
	t       *testing.T
	net     memnet.Net
	client  *http.Client
	scrapes []reading
}

// reading is what one of the three exporters said at a time.
type reading struct {
	at            time.Time
	job, instance string
	text          []byte
}

// scrapeEvery is as in monitor and k8s.
const scrapeEvery = 5 * time.Second

// inTuned runs a test in a bubble, and gives what was scraped meanwhile.
func inTuned(t *testing.T, engine vllmsim.Config, maxInFlight int, test func(*tuned)) *shelf {
	t.Helper()
	u := &tuned{t: t}
	synctest.Test(t, func(t *testing.T) {
		transport := &http.Transport{DialContext: u.net.Dial, MaxIdleConnsPerHost: 10_000, DisableCompression: true}
		u.client = &http.Client{Transport: transport}
		engine.Models = []string{vllmsim.DefaultModel, longModel}
		sim, err := vllmsim.New(engine)
		if err != nil {
			t.Fatal(err)
		}
		g, err := gateway.New(gateway.Config{
			Backends: []string{"http://vllm:8000"}, MaxInFlight: maxInFlight, MaxWaiting: 1000,
			FirstByteTimeout: time.Hour, StreamIdleTimeout: time.Hour, MaxBody: 1 << 20,
			Version: "test", Log: slog.New(slog.DiscardHandler), Dial: u.net.Dial,
		})
		if err != nil {
			t.Fatal(err)
		}
		var servers []*http.Server
		for addr, h := range map[string]http.Handler{"vllm:8000": sim, "gateway:9000": g, "gpu:9835": sim.GPUs()} {
			l, err := u.net.Listen(addr)
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: h}
			servers = append(servers, srv)
			go srv.Serve(l)
		}
		synctest.Wait() // the first probe is through
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			u.scrapeUntil(stop)
		}()
		test(u)
		close(stop)
		<-stopped
		transport.CloseIdleConnections()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		g.Drain(ctx)
		sim.Close()
		for _, srv := range servers {
			srv.Close()
		}
	})
	return newShelf(t, u.scrapes)
}

func (u *tuned) scrapeUntil(stop <-chan struct{}) {
	tick := time.NewTicker(scrapeEvery)
	defer tick.Stop()
	for {
		at := time.Now()
		for _, s := range []reading{{job: "vllm-gateway", instance: "gateway:9000"}, {job: "vllm", instance: "vllm:8000"}, {job: "gpu-exporter", instance: "gpu:9835"}} {
			res, err := u.client.Get("http://" + s.instance + "/metrics")
			if err != nil {
				u.t.Error(err)
				return
			}
			s.at = at
			s.text, err = io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil {
				u.t.Error(err)
				return
			}
			u.scrapes = append(u.scrapes, s)
		}
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

// closedLoop has users at work until warm and span are over, and gives the window of
// the latter. Whoever is in the middle of an answer then reads it to its end.
func (u *tuned) closedLoop(who []users, warm, span time.Duration) window {
	began := time.Now()
	var all sync.WaitGroup
	for kind, w := range who {
		for i := range w.n {
			all.Go(func() {
				from := rand.New(rand.NewPCG(uint64(kind), uint64(i)))
				time.Sleep(time.Duration(i) * time.Second / time.Duration(w.n)) // not all in step
				for turn := 0; time.Since(began) < warm+span; turn++ {
					u.send(w, from, i+turn)
					time.Sleep(time.Second)
				}
			})
		}
	}
	all.Wait()
	return window{end: began.Add(warm + span), span: span}
}

// The objective of loadtests/streams.js.
const (
	objectiveTTFT  = 2.0 // seconds, that nineteen in twenty keep to
	objectiveSpeed = 30  // tokens a second of a stream, in the mean
)

const sweepStep = 30 * time.Second

// sweep is loadtests/sweep.js: the rate is doubled until first tokens come too late,
// then halved in on. It gives the last rate that held, and its step.
func (u *tuned) sweep(first float64) (limit float64, w window) {
	bad := math.Inf(1)
	for rate := first; ; {
		if step, ok := u.step(rate); ok {
			limit, w = rate, step
		} else {
			bad = rate
		}
		if limit == 0 || bad/limit < 1.1 {
			return limit, w
		}
		if rate = 2 * limit; !math.IsInf(bad, 1) {
			rate = math.Round((limit + bad) / 2)
		}
		if rate >= bad || rate <= limit {
			return limit, w
		}
	}
}

// step has requests come at a rate, whatever becomes of those before them, and says
// whether the objective held. It ends when all have.
func (u *tuned) step(rate float64) (w window, ok bool) {
	began := time.Now().Truncate(scrapeEvery).Add(scrapeEvery)
	from := rand.New(rand.NewPCG(uint64(rate), 1))
	var sent, missed atomic.Int64
	allowed := func(of float64) int64 { return int64(of / 20) }
	var all sync.WaitGroup
	for at := from.ExpFloat64() / rate; at < sweepStep.Seconds() && missed.Load() <= allowed(rate*sweepStep.Seconds()); at += from.ExpFloat64() / rate {
		time.Sleep(time.Until(began.Add(seconds(at))))
		turn := int(sent.Add(1))
		all.Go(func() {
			if u.send(users{maxTokens: 50}, nil, turn).Seconds() > objectiveTTFT {
				missed.Add(1)
			}
		})
	}
	all.Wait()
	return window{end: began.Add(sweepStep), span: sweepStep}, missed.Load() <= allowed(float64(sent.Load()))
}

var shortQuestions = []string{
	"Write a short poem about the sea.",
	"What is the capital of France?",
	"Explain how a bicycle stays upright.",
	"Give me three ideas for dinner tonight.",
	"Summarize the plot of a famous novel in two sentences.",
	"How does a large language model generate text?",
}

// send is one request. It gives the time to the first token: the gateway sends nothing
// before.
func (u *tuned) send(w users, from *rand.Rand, turn int) time.Duration {
	prompt := shortQuestions[turn%len(shortQuestions)]
	if w.prompt > 0 {
		prompt = textOf(from, w.prompt)
	}
	model := w.model
	if model == "" {
		model = vllmsim.DefaultModel
	}
	began := time.Now()
	res, err := u.client.Post("http://gateway:9000/v1/chat/completions", "application/json", strings.NewReader(fmt.Sprintf(
		`{"model":%q,"messages":[{"role":"user","content":%q}],"max_tokens":%d,"ignore_eos":%t,"stream":true}`, model, prompt, w.maxTokens, w.exact)))
	if err != nil {
		u.t.Error(err)
		return math.MaxInt64
	}
	defer res.Body.Close()
	first := time.Since(began)
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !bytes.HasSuffix(text, []byte("data: [DONE]\n\n")) {
		u.t.Errorf("%d %v %.200s", res.StatusCode, err, text)
	}
	return first
}
