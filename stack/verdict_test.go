package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/util/osutil"

	"github.com/vllm-gateway/vllm-gateway/alerts"
	"github.com/vllm-gateway/vllm-gateway/internal/gateway"
	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
	"github.com/vllm-gateway/vllm-gateway/internal/verdict"
	"github.com/vllm-gateway/vllm-gateway/internal/vllmsim"
	"github.com/vllm-gateway/vllm-gateway/stack/monitor"
)

// verdictRig is two gateways before two simulators with two GPUs each, and a
// Prometheus that scrapes them all: real HTTP in memory, in virtual time.
type verdictRig struct {
	t       *testing.T
	net     memnet.Net
	client  *http.Client
	monitor *monitor.Monitor
	sims    []*vllmsim.Server
	ends    []func()

	mu    sync.Mutex
	sent  []sentRequest
	users sync.WaitGroup
}

// sentRequest is what a client saw of a request.
type sentRequest struct {
	began, first, ended time.Time
	status              int
}

const (
	verdictTTFT = 330 * time.Millisecond // by a fault of the simulators, and some ms
	// Between requests: no part of the 5 s between scrapes, or each would see the same
	// moment of a request.
	verdictGap = 97 * time.Millisecond
)

func withVerdictRig(t *testing.T, test func(*testing.T, *verdictRig)) {
	t.Helper()
	data := t.TempDir()
	osutil.GetFQDN() // what the resolver makes for that must not belong to the bubble
	synctest.Test(t, func(t *testing.T) {
		r := &verdictRig{t: t}
		transport := &http.Transport{DialContext: r.net.Dial, MaxIdleConnsPerHost: 100}
		r.client = &http.Client{Transport: transport}
		defer func() {
			r.users.Wait()
			transport.CloseIdleConnections()
			for _, end := range slices.Backward(r.ends) {
				end()
			}
		}()
		for _, host := range []string{"a", "b"} {
			r.simulator(host)
		}
		for _, host := range []string{"a", "b"} {
			r.gateway(host)
		}
		r.prometheus(data)
		test(t, r)
	})
}

func (r *verdictRig) serve(addr string, h http.Handler) {
	r.t.Helper()
	l, err := r.net.Listen(addr)
	if err != nil {
		r.t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	r.ends = append(r.ends, func() { srv.Close() })
}

func (r *verdictRig) simulator(host string) {
	sim, err := vllmsim.New(vllmsim.Config{Faults: []vllmsim.Fault{{Kind: "slow-first-token", Delay: verdictTTFT}}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.sims = append(r.sims, sim)
	r.ends = append(r.ends, sim.Close)
	r.serve("vllm-"+host+":8000", sim)
	r.serve("gpu-"+host+":9835", sim.GPUs())
}

func (r *verdictRig) gateway(host string) {
	g, err := gateway.New(gateway.Config{
		Backends:         []string{"http://vllm-a:8000", "http://vllm-b:8000"},
		FirstByteTimeout: time.Minute, StreamIdleTimeout: time.Minute, MaxBody: 1 << 20,
		Version: "test", Log: slog.New(slog.DiscardHandler), Dial: r.net.Dial,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.serve("gateway-"+host+":9000", g)
	r.ends = append(r.ends, func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		g.Drain(ctx)
	})
}

func (r *verdictRig) prometheus(data string) {
	job := func(name string, hosts ...string) monitor.Job {
		j := monitor.Job{Name: name}
		for _, h := range hosts {
			j.Targets = append(j.Targets, &url.URL{Scheme: "http", Host: h})
		}
		return j
	}
	m, err := monitor.Open(monitor.Config{
		Data: data, Retention: 24 * time.Hour, Rules: alerts.Files, URL: &url.URL{Scheme: "http", Host: "prometheus:9090"},
		Jobs: []monitor.Job{
			job("vllm-gateway", "gateway-a:9000", "gateway-b:9000"),
			job("vllm", "vllm-a:8000", "vllm-b:8000"),
			job("gpu-exporter", "gpu-a:9835", "gpu-b:9835"),
		},
		Log: slog.New(slog.DiscardHandler), Dial: r.net.Dial,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.monitor = m
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { m.Run(ctx); close(ended) }()
	r.ends = append(r.ends, func() { stop(); <-ended; m.Close() })
	r.serve("prometheus:9090", m)
}

// ask is the Prometheus as the verdict sees it.
func (r *verdictRig) ask() *verdict.Prometheus {
	p, err := verdict.NewPrometheus("http://prometheus:9090")
	if err != nil {
		r.t.Fatal(err)
	}
	p.Client = r.client
	return p
}

// load sends streamed requests at an even rate, to the gateways in turn.
func (r *verdictRig) load(lasts time.Duration) {
	r.users.Go(func() {
		for i := range int(lasts / verdictGap) {
			r.users.Go(func() { r.send("ab"[i%2:][:1], vllmsim.DefaultModel) })
			time.Sleep(verdictGap)
		}
	})
}

func (r *verdictRig) send(host, model string) {
	body := `{"model":"` + model + `","messages":[{"role":"user","content":"Name three rivers that cross a border, and say which of them you would follow to its source, and why that one and no other of the three."}],"stream":true,"max_tokens":61,"ignore_eos":true,"stream_options":{"include_usage":true}}`
	s := sentRequest{began: time.Now()}
	res, err := r.client.Post("http://gateway-"+host+":9000/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		r.t.Error(err)
		return
	}
	defer res.Body.Close()
	s.first, s.status = time.Now(), res.StatusCode
	io.Copy(io.Discard, res.Body) // a backend that is killed cuts streams
	s.ended = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, s)
}

// counter is the sum of a counter over the simulators, as it is now.
func (r *verdictRig) counter(name string) (sum float64) {
	for _, sim := range r.sims {
		w := httptest.NewRecorder()
		sim.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		sum += sampleOf(r.t, w.Body.String(), name)[0]
	}
	return sum
}

// duty is that of the busiest card, as it is now, and the mean of all.
func (r *verdictRig) duty() (most, mean float64) {
	var all []float64
	for _, sim := range r.sims {
		w := httptest.NewRecorder()
		sim.GPUs().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		all = append(all, sampleOf(r.t, w.Body.String(), "nvidia_gpu_duty_cycle")...)
	}
	for _, v := range all {
		mean += v / float64(len(all))
	}
	return slices.Max(all), mean
}

func sampleOf(t *testing.T, text, name string) (all []float64) {
	t.Helper()
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+"{"); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndex(rest, " ")+1:]), 64)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		t.Fatalf("no %s in\n%s", name, text)
	}
	return all
}

// What is asked of a real Prometheus about a real load comes to what was sent.
//
// The stages lie within the load, so that it is as steady before and behind them as in
// them: increase() sees the scrapes that are in a stage, 55 s of its 60, and takes the
// rest to be alike. A hundredth is then some requests that a scrape came before, or
// after.
func TestVerdictOfARealLoad(t *testing.T) {
	t.Parallel()
	withVerdictRig(t, func(t *testing.T, r *verdictRig) {
		time.Sleep(30 * time.Second) // scrapes have begun, and the gateways know the models
		r.load(160 * time.Second)
		time.Sleep(15 * time.Second)

		one := verdict.Stage{Name: "one", Side: "left", Start: time.Now(), End: time.Now().Add(time.Minute)}
		hits, queries := r.counter("vllm:prefix_cache_hits_total"), r.counter("vllm:prefix_cache_queries_total")
		var duty float64
		for range 6 {
			time.Sleep(10 * time.Second)
			most, _ := r.duty()
			duty += most / 6
			if time.Until(one.End) == 30*time.Second {
				for range 7 { // a burst of failures between two scrapes, the first of their kind
					r.users.Go(func() { r.send("a", "no-such-model") })
				}
			}
		}
		hits, queries = r.counter("vllm:prefix_cache_hits_total")-hits, r.counter("vllm:prefix_cache_queries_total")-queries

		r.net.Kill("vllm-b:8000")
		time.Sleep(15 * time.Second)
		two := verdict.Stage{Name: "two", Side: "right", Start: time.Now(), End: time.Now().Add(time.Minute)}
		var busy, mean float64 // vllm-b's cards idle
		for range 6 {
			time.Sleep(10 * time.Second)
			most, all := r.duty()
			busy, mean = busy+most/6, mean+all/6
		}
		short := verdict.Stage{Name: "short", Start: two.End, End: two.End.Add(9 * time.Second)}
		time.Sleep(9 * time.Second)

		v := &verdict.Verdict{Start: one.Start, End: short.End, Stages: []verdict.Stage{one, two, short}, Sides: []verdict.Side{{Name: "left"}, {Name: "right"}}}
		asked := time.Now()
		r.ask().Fill(t.Context(), v)
		if waited := time.Since(asked); waited != 10*time.Second {
			t.Errorf("it waited %s for what had yet to be scraped, want 10 s", waited)
		}
		v.Judge()

		first, second := v.Stages[0].Server, v.Stages[1].Server
		if first == nil || second == nil || v.Stages[2].Server != nil {
			t.Fatalf("the stages have %v %v %v, missing is %q", first, second, v.Stages[2].Server, v.Missing)
		}
		near := func(what string, got *float64, want, by float64) {
			t.Helper()
			if got == nil || math.Abs(*got-want) > by {
				t.Errorf("%s is %v, want %v ± %v", what, deref(got), want, by)
			}
		}
		ended, ttft, took, inFlight := r.saw(one)
		rate := float64(time.Second) / float64(verdictGap)
		near("RPS", first.RPS, float64(ended)/60, 0.01*float64(ended)/60)
		near("RPS of the second stage", second.RPS, rate, 0.01*rate)
		ok := first.Outcomes["ok"]
		near("ok", &ok, float64(ended-7), 0.01*float64(ended))
		if first.Outcomes["client_error"] != 7 || len(first.Outcomes) != 2 {
			t.Errorf("outcomes are %v, want 7 client_error and the rest ok", first.Outcomes)
		}
		if first.TTFT == nil || first.P95Range == nil {
			t.Fatalf("no TTFT: %+v", first)
		}
		near("TTFT's mean", &first.TTFT.Mean, ttft, 2) // the client's is with its own way to the gateway
		if n := float64(first.TTFT.N); math.Abs(n-float64(ended-7)) > 6 {
			t.Errorf("TTFT is of %v requests, want %d or so", n, ended-7)
		}
		if *first.P95Range != (verdict.Range{Low: 300, High: 400}) {
			t.Errorf("TTFT's p95 lies in %+v, want 300 to 400", *first.P95Range)
		}
		for q, got := range map[float64]float64{0.5: first.TTFT.P50, 0.95: first.TTFT.P95, 0.99: first.TTFT.P99} {
			near(fmt.Sprintf("TTFT's %g quantile", q), &got, 1000*r.query(one.End, fmt.Sprintf("histogram_quantile(%g, sum by (le) (increase(gateway_time_to_first_token_seconds_bucket[60s])))", q)), 1e-6)
		}
		for q, got := range map[float64]float64{0.5: first.Speed.P50, 0.95: first.Speed.P95, 0.99: first.Speed.P99} {
			near(fmt.Sprintf("the speed's %g quantile", q), &got, r.query(one.End, fmt.Sprintf("histogram_quantile(%g, sum by (le) (increase(gateway_tokens_per_second_bucket[60s])))", q)), 1e-6)
		}
		near("tokens a second", &first.Speed.Mean, 60/(took-ttft)*1000, 0.03*first.Speed.Mean) // the last token is not quite the end
		near("queue", &first.Queue.Mean, inFlight, 0.7)                                        // of twelve looks
		near("backends", &first.Backends.Mean, 2, 0)
		near("backends of the second stage", &second.Backends.Mean, 1, 0)
		near("all backends", first.AllBackends, 2, 0)
		near("all backends of the second stage", second.AllBackends, 2, 0)
		near("GPU", &first.GPU.Mean, duty, 3)
		near("GPU of the second stage", &second.GPU.Mean, busy, 3)
		if busy < 1.5*mean {
			t.Errorf("the busiest card is at %v and all at %v: nothing tells one from the other", busy, mean)
		}
		if m := first.GPUMemory; m == nil || m.Max <= 0 || m.Max > 1 || first.GPUHeat == nil || first.GPUHeat.Max < 30 || first.GPUHeat.Max > 90 {
			t.Errorf("GPU memory %+v, heat %+v", m, first.GPUHeat)
		}
		near("running in vLLM", &first.Running.Mean, inFlight*(took-ttft)/took, 0.7) // the fault comes before the engine
		near("waiting in vLLM", &first.Waiting.Mean, 0, 0)
		if first.KVCache == nil || first.KVCache.Max <= 0 || first.KVCache.Max > 0.1 {
			t.Errorf("KV cache %+v", first.KVCache)
		}
		near("preemptions", first.Preemptions, 0, 0)
		near("refused", first.Refused, 0, 0)
		near("retries", first.Retries, 0, 0)
		near("prefix cache", first.PrefixHits, hits/queries, 0.01)
		near("prefix cache of the side", v.Sides[0].Hits, *first.PrefixHits, 1e-9)
		if len(first.Causes) != 6 || first.Causes["connect"] != 0 {
			t.Errorf("causes are %v, want the six, all 0", first.Causes)
		}
		states := 0.0
		for _, share := range first.States {
			states += share
		}
		if math.Abs(states-1) > 1e-9 || first.States["insufficient load"] == 0 {
			t.Errorf("states are %v", first.States)
		}

		if want := []string{"The gateway's and the GPUs' figures of short: shorter than two of Prometheus's scrapes, which come every 5s."}; !slices.Equal(v.Missing, want) {
			t.Errorf("missing is %q, want %q", v.Missing, want)
		}
		r.pictures(v)
	})
}

// saw is what the clients saw of a stage: how many requests ended in it, the means of
// the time to the first byte and to the end, in ms, and of those in flight.
func (r *verdictRig) saw(s verdict.Stage) (ended int, ttft, took, inFlight float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0.0
	for _, q := range r.sent {
		if !q.ended.After(s.Start) || q.ended.After(s.End) {
			continue
		}
		ended++
		inFlight += q.ended.Sub(q.began).Seconds() / s.End.Sub(s.Start).Seconds()
		if q.status == http.StatusOK {
			n++
			ttft += float64(q.first.Sub(q.began)) / 1e6
			took += float64(q.ended.Sub(q.began)) / 1e6
		}
	}
	return ended, ttft / n, took / n, inFlight
}

// query is one value of Prometheus's own.
func (r *verdictRig) query(at time.Time, expr string) float64 {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.monitor.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/query?"+url.Values{"query": {expr}, "time": {fmt.Sprintf("%.3f", float64(at.UnixMilli())/1000)}}.Encode(), nil))
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || len(answer.Data.Result) != 1 {
		r.t.Fatalf("%s: %v %s", expr, err, w.Body)
	}
	v, err := strconv.ParseFloat(answer.Data.Result[0].Value[1].(string), 64)
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// pictures holds the report's lines: all are there, in order, and show the load.
func (r *verdictRig) pictures(v *verdict.Verdict) {
	r.t.Helper()
	var names []string
	for _, s := range v.Series {
		names = append(names, s.Panel+": "+s.Name)
		if len(s.Points) < 20 || len(s.Points) > 150 {
			r.t.Errorf("%s, %s has %d points", s.Panel, s.Name, len(s.Points))
		}
		values := map[string][2]float64{"TTFT": {300, 400}, "RPS": {9.5, 11.5}, "Tokens per second": {50, 150}}
		between, ok := values[s.Panel]
		if !ok {
			continue
		}
		for _, p := range s.Points {
			if p.At.After(v.Stages[0].Start.Add(20*time.Second)) && p.At.Before(v.Stages[0].End) && !(p.Value >= between[0] && p.Value <= between[1]) {
				r.t.Errorf("%s, %s is %v at %s, want %v", s.Panel, s.Name, p.Value, p.At.Sub(v.Start), between)
			}
		}
	}
	want := []string{"GPU: GPU 0 gpu-a:9835", "GPU: GPU 0 gpu-b:9835", "GPU: GPU 1 gpu-a:9835", "GPU: GPU 1 gpu-b:9835", "Queue: gateway", "Queue: waiting in vLLM", "RPS: gateway", "TTFT: gateway p50", "TTFT: gateway p95", "Tokens per second: gateway mean"}
	if !slices.Equal(names, want) {
		r.t.Errorf("drawn are %q, want %q", names, want)
	}
}

func deref(p *float64) any {
	if p == nil {
		return "absent"
	}
	return *p
}

// k6Pod writes as k6's remote write does.
func (r *verdictRig) k6Pod(name string, value float64, at time.Time, more ...string) {
	r.t.Helper()
	set := labels.FromStrings(append([]string{"__name__", name}, more...)...)
	series := prompb.TimeSeries{Samples: []prompb.Sample{{Value: value, Timestamp: at.UnixMilli()}}}
	set.Range(func(l labels.Label) {
		series.Labels = append(series.Labels, prompb.Label{Name: l.Name, Value: l.Value})
	})
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{series}}).Marshal()
	if err != nil {
		r.t.Fatal(err)
	}
	post := httptest.NewRequest("POST", "/api/v1/write", bytes.NewReader(snappy.Encode(nil, raw)))
	post.Header.Set("Content-Type", "application/x-protobuf")
	post.Header.Set("Content-Encoding", "snappy")
	w := httptest.NewRecorder()
	if r.monitor.ServeHTTP(w, post); w.Code != http.StatusNoContent {
		r.t.Fatalf("remote write: %d %s", w.Code, w.Body)
	}
}

const staleMarker = 0x7ff0000000000002

// Of a run from two pods, which left nothing but what they wrote to Prometheus, the
// last one is found, and judged by the gateways.
func TestVerdictOfTwoPods(t *testing.T) {
	t.Parallel()
	withVerdictRig(t, func(t *testing.T, r *verdictRig) {
		_, err := r.ask().LastRun(t.Context(), time.Hour)
		if want := "no load test of the last 1h (no series k6_stage_seconds)"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("before there is a run: %v, want %q", err, want)
		}
		pods := func(do func(tags ...string)) {
			for _, pod := range []string{"1", "2"} {
				do("job_name", "baseline-"+pod, "instance_id", pod)
				time.Sleep(700 * time.Millisecond)
			}
		}
		run := func(load bool) (begins time.Time) {
			begins = time.Now()
			for _, users := range []string{"users_10", "users_50"} {
				pods(func(tags ...string) {
					if users == "users_10" && tags[3] == "2" {
						return // a pod that got none of so few users
					}
					r.k6Pod("k6_stage_seconds", 40, time.Now(), append(tags, "script", "baseline", "scenario", users)...)
				})
				if load {
					r.load(40 * time.Second)
				}
				for range 10 {
					pods(func(tags ...string) { r.k6Pod("k6_vus", 5, time.Now(), tags...) })
					time.Sleep(4*time.Second - 2*700*time.Millisecond)
				}
			}
			pods(func(tags ...string) {
				for _, users := range []string{"users_10", "users_50"} {
					r.k6Pod("k6_stage_seconds", math.Float64frombits(staleMarker), time.Now(), append(tags, "script", "baseline", "scenario", users)...)
				}
				r.k6Pod("k6_vus", math.Float64frombits(staleMarker), time.Now(), tags...)
			})
			return begins
		}
		run(false)
		time.Sleep(time.Minute)
		begins := run(true)
		time.Sleep(time.Minute)

		v, err := r.ask().LastRun(t.Context(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		var stages []string
		for _, s := range v.Stages {
			stages = append(stages, fmt.Sprint(s.Name, " ", s.Start.Sub(begins).Round(time.Second), " ", s.End.Sub(s.Start)))
		}
		if got, want := strings.Join(stages, ", "), "users_10 0s 40s, users_50 41s 40s"; got != want || v.Script != "baseline" || v.Smoke {
			t.Fatalf("found %q of %q, want %q", got, v.Script, want)
		}
		r.ask().Fill(t.Context(), v)
		v.Judge()
		gates := map[string]bool{}
		for _, g := range v.Gates {
			gates[g.Metric+" "+g.Condition] = g.Held
		}
		want := map[string]bool{
			"gateway_time_to_first_token_seconds p(95)<2": true, "gateway_time_to_first_token_seconds p(99)<3": true,
			"gateway_request_duration_seconds p(95)<5": true, "gateway_request_duration_seconds p(99)<10": true,
			"gateway_tokens_per_second avg>30": true, `gateway_requests_total{outcome!="ok"} rate<0.05`: true,
		}
		if !maps.Equal(gates, want) || !v.Passed {
			t.Errorf("gates are %v, want %v; passed %t", gates, want, v.Passed)
		}
		// These are the first requests there ever were: their series begin with them, at
		// most half an interval of scrapes is guessed wrong.
		if ended, _, _, _ := r.saw(v.Stages[0]); math.Abs(v.Stages[0].Server.Outcomes["ok"]-float64(ended)) > 26 {
			t.Errorf("outcomes are %v, want %d ok or so", v.Stages[0].Server.Outcomes, ended)
		}
		// The line rises when the load does, and not when a range of scrapes is full of it.
		rps := v.Series[slices.IndexFunc(v.Series, func(s verdict.Series) bool { return s.Panel == "RPS" })].Points
		rises := rps[slices.IndexFunc(rps, func(p verdict.Point) bool { return p.Value > 5 })].At.Sub(begins)
		if rises < 0 || rises > 8*time.Second { // the first end after 2 s, and a point is each 5 s
			t.Errorf("the requests rise %s into the load", rises)
		}
		if rows := v.Stages[0].Guideline; len(rows) != 4 || rows[0].Gateway == nil || math.Abs(*rows[0].Gateway-10) > 0.7 {
			t.Errorf("the guide's rows are %+v", rows)
		}
		if len(v.Missing) != 1 || !strings.Contains(v.Missing[0], "no samples of k6 were given") {
			t.Errorf("missing is %q", v.Missing)
		}
	})
}
