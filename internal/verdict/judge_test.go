package verdict

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func number64(v float64) *float64 { return &v }

func steady(mean float64) *Level { return &Level{mean, mean, mean, mean, mean} }

// stageOf is a stage of two minutes that goes well; the tests spoil it.
func stageOf(name string, rps, ttft, inFlight float64) Stage {
	start := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	n := int(120 * rps)
	spread := Spread{N: n, Mean: ttft, P50: ttft, P95: ttft, P99: ttft, Max: ttft}
	return Stage{
		Name: name, Start: start, End: start.Add(2 * time.Minute),
		Client: &Client{
			Requests: n, Completed: n, Ended: n, RPS: rps, InFlight: inFlight,
			TTFT: spread, Duration: spread, Speed: Spread{N: n, Mean: 80, P50: 80, P95: 80, P99: 80},
		},
		Server: &Server{
			RPS: number64(rps), TTFT: &spread, P95Range: &Range{0.8 * ttft, 1.2 * ttft}, Queue: steady(inFlight),
			Outcomes: map[string]float64{"ok": float64(n)}, Causes: map[string]float64{},
			Backends: steady(1), AllBackends: number64(1), GPU: steady(80), Waiting: steady(0), Running: steady(inFlight), KVCache: steady(0.2),
		},
	}
}

func serverOnly(stages ...Stage) []Stage {
	for i := range stages {
		stages[i].Client = nil
	}
	return stages
}

func TestState(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*Stage)
		want  string
	}{
		{"good", func(*Stage) {}, Healthy},
		{"k6 alone", func(s *Stage) { s.Server = nil }, Healthy},
		{"Prometheus alone", func(s *Stage) { s.Client = nil }, Healthy},
		{"nothing", func(s *Stage) { s.Client, s.Server = nil, nil }, Unmeasured},
		{"no requests", func(s *Stage) { s.Client.Requests = 0 }, Unmeasured},
		{"few in flight", func(s *Stage) { s.Client.InFlight = 3.9 }, Insufficient},
		{"few in flight by the gateway", func(s *Stage) { s.Client, s.Server.Queue = nil, steady(3.9) }, Insufficient},
		{"slow tokens", func(s *Stage) { s.Client.Speed.Mean = 29.9 }, Slow},
		{"slow tokens in an idle stage", func(s *Stage) { s.Client.Speed.Mean, s.Client.InFlight = 29.9, 1 }, Slow},
		{"slow tokens under load", func(s *Stage) { s.Client.Speed.Mean, s.Server.Waiting = 29.9, steady(1) }, Approaching},
		{"tokens as wanted", func(s *Stage) { s.Client.Speed.Mean = 30 }, Healthy},
		{"few per backend", func(s *Stage) { s.Server.Backends = steady(4) }, Insufficient},
		{"idle GPU", func(s *Stage) { s.Server.GPU = steady(69) }, Insufficient},
		{"no GPU known", func(s *Stage) { s.Server.GPU = nil }, Healthy},
		{"TTFT over 1 s", func(s *Stage) { s.Client.TTFT.P95 = 1001 }, Approaching},
		{"the engine's line", func(s *Stage) { s.Server.Waiting = steady(1) }, Approaching},
		{"a line that came and went", func(s *Stage) { s.Server.Waiting = &Level{Mean: 3, Max: 20, Begin: 8} }, Healthy},
		{"KV cache full", func(s *Stage) { s.Server.KVCache = steady(0.96) }, Approaching},
		{"growing queue", func(s *Stage) { s.Server.Queue = &Level{Mean: 10, Begin: 5, Finish: 15} }, Approaching},
		{"full GPU and some delay", func(s *Stage) { s.Server.GPU = steady(96); s.Client.TTFT.P95 = 501 }, Approaching},
		{"TTFT over 2 s", func(s *Stage) { s.Client.TTFT.P95 = 2001; s.Server.Waiting = steady(1) }, Overloaded},
		{"TTFT over 2 s, k6 alone", func(s *Stage) { s.Client.TTFT.P95 = 2001; s.Server = nil }, Overloaded},
		{"TTFT over 2 s by the gateway", func(s *Stage) { s.Server.TTFT.P95 = 2001; s.Client = nil; s.Server.Waiting = steady(1) }, Overloaded},
		{"refused by vLLM", func(s *Stage) { s.Server.Refused = number64(1) }, Overloaded},
		{"late without a line", func(s *Stage) { s.Client.TTFT.P95 = 2001; s.Server.GPU = steady(20) }, Slow},
		{"late without a line, no GPU known", func(s *Stage) { s.Client.TTFT.P95 = 2001; s.Server.GPU = nil }, Slow},
		{"late without a line, GPU not full", func(s *Stage) { s.Client.TTFT.P95 = 2001; s.Server.GPU = steady(94) }, Slow},
		{"late without a line, GPU full", func(s *Stage) { s.Client.TTFT.P95 = 2001; s.Server.GPU = steady(95) }, Overloaded},
		{"failures", func(s *Stage) { s.Client.Failed = s.Client.Requests/20 + 1 }, Failing},
		{"just not too many failures", func(s *Stage) { s.Client.Failed = s.Client.Requests / 20 }, Healthy},
		{"failures by the gateway", func(s *Stage) { s.Client = nil; s.Server.Outcomes["backend_error"] = 200 }, Failing},
	} {
		s := stageOf("users_50", 20, 100, 10)
		c.spoil(&s)
		if got := state(&s, wanted{2000, 30}); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// What the guide has in its "Baseline Performance Guidelines", at the edges.
func TestGuideline(t *testing.T) {
	for _, c := range []struct {
		stage                                 string
		rps, ttft, gpu, queue                 float64
		wantRPS, wantTTFT, wantGPU, wantQueue string
	}{
		{"users_10", 8, 500, 30, 1, "as expected", "as expected", "as expected", "as expected"},
		{"users_10", 10, 12, 50, 3, "as expected", "as expected", "as expected", "as expected"},
		{"users_10", 7.94, 501, 29.4, 0.94, "below", "worse", "below", "below"},
		{"users_10", 10.06, 1, 50.6, 3.06, "better", "as expected", "above", "above"},
		{"users_10", 7.96, 500.4, 29.6, 0.96, "as expected", "as expected", "as expected", "as expected"},
		{"users_50", 30, 1500, 70, 5, "as expected", "as expected", "as expected", "as expected"},
		{"users_50", 46, 1501, 91, 16, "better", "worse", "above", "above"},
		{"users_100", 40, 5000, 98, 50, "as expected", "as expected", "as expected", "as expected"},
		{"users_100", 39, 1999, 84, 19, "below", "better", "below", "below"},
		{"users_100", 61, 5001, 99, 51, "better", "worse", "above", "above"},
	} {
		s := stageOf(c.stage, c.rps, c.ttft, c.queue)
		s.Server.GPU = steady(c.gpu)
		var got []string
		for _, r := range rows(&s) {
			got = append(got, r.Fits)
		}
		if want := []string{c.wantRPS, c.wantTTFT, c.wantGPU, c.wantQueue}; !slices.Equal(got, want) {
			t.Errorf("%s with %v: %q, want %q", c.stage, []float64{c.rps, c.ttft, c.gpu, c.queue}, got, want)
		}
	}
	s := stageOf("users_10", 9, 100, 2)
	s.Server = nil
	for _, r := range rows(&s) {
		if r.Quantity == "GPU util" && (r.Fits != "not measured" || r.Gateway != nil) {
			t.Errorf("without an exporter: %+v", r)
		}
	}
	if other := stageOf("rate_8", 8, 1, 1); rows(&other) != nil {
		t.Error("the guide has no rate_8")
	}
}

// baselineRun is a run as the guide expects it.
func baselineRun() *Verdict {
	v := &Verdict{
		Script: "baseline",
		Gates:  []Gate{{"ttft_ms", "p(95)<2000", number64(1100), true}, {"failed_requests", "rate<0.05", number64(0), true}, {"tokens_per_second", "avg>30", number64(80), true}},
		Stages: []Stage{stageOf("users_10", 8.1, 15, 1.9), stageOf("users_50", 37, 80, 13), stageOf("users_100", 43, 1120, 57)},
	}
	v.Stages[0].Server.GPU = steady(38)
	v.Stages[2].Server.GPU = steady(92)
	v.Stages[2].Server.Waiting = steady(41)
	return v
}

func TestFindings(t *testing.T) {
	failing := func(v *Verdict, outcome, cause string) {
		for i := range v.Stages {
			s := &v.Stages[i]
			s.Client.Failed = s.Client.Requests / 10
			if outcome != "" {
				s.Server.Outcomes[outcome] = float64(s.Client.Failed)
			}
			if cause != "" {
				s.Server.Causes[cause] = float64(s.Client.Failed)
			}
		}
	}
	each := func(v *Verdict, spoil func(*Stage)) {
		for i := range v.Stages {
			spoil(&v.Stages[i])
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(*Verdict)
		kinds []string // all of them, in order
		says  string   // by the first
	}{
		{"as the guide expects", func(*Verdict) {}, []string{"approaching saturation", "healthy", "saturated", "the guide's queue"}, "TTFT p95 1.12 s (acceptable), 43 requests/s, 57 in flight, 41 waiting in the engines, GPU at 92 %"},
		{"refused", func(v *Verdict) { failing(v, "backend_error", "status") }, []string{"failing", "saturated"}, "requests failed (10.0 %)"},
		{"refused by one of two", func(v *Verdict) {
			failing(v, "backend_error", "status")
			v.Stages[1].Server.Retries = number64(12)
		}, []string{"failing", "saturated"}, "answers with 5xx, 1,057 times. The gateway sent 12 requests to a second backend."},
		{"one refused by one of two", func(v *Verdict) {
			failing(v, "backend_error", "status")
			for i := range v.Stages {
				v.Stages[i].Server.Causes, v.Stages[i].Server.Retries = nil, nil
			}
			v.Stages[1].Server.Causes, v.Stages[1].Server.Retries = map[string]float64{"status": 1}, number64(1)
		}, []string{"failing", "saturated"}, "answers with 5xx, 1 time. The gateway sent 1 request to a second backend."},
		{"cut", func(v *Verdict) { failing(v, "backend_error", "cut") }, []string{"failing", "saturated"}, "streams cut before their end"},
		{"silent", func(v *Verdict) { failing(v, "timeout", "timeout") }, []string{"failing", "saturated"}, "fell silent"},
		{"wrong requests", func(v *Verdict) { failing(v, "client_error", "") }, []string{"failing", "saturated"}, "4xx"},
		{"a key with limits", func(v *Verdict) { failing(v, "limited", "") }, []string{"failing", "saturated"}, "for what the key may use: its limits were measured, not the box."},
		{"no room in the gateway", func(v *Verdict) { failing(v, "refused", "") }, []string{"failing", "saturated"}, "for want of room of its own."},
		{"impatient", func(v *Verdict) { failing(v, "cancelled", "") }, []string{"failing", "saturated"}, "clients leave"},
		{"nobody there", func(v *Verdict) {
			failing(v, "", "")
			each(v, func(s *Stage) {
				s.Client.Unanswered = s.Client.Failed
				*s.Server.RPS *= 0.9
			})
		}, []string{"failing", "saturated"}, "1,057 of them got no answer at all, and the gateway has not seen them"},
		{"another gateway", func(v *Verdict) {
			each(v, func(s *Stage) {
				*s.Server.RPS, s.Server.Waiting, s.Server.GPU = 0.1, steady(0), steady(1)
				s.Client.TTFT.P95 = 3000
			})
		}, []string{"another gateway", "overloaded", "approaching saturation", "saturated", "the guide's queue"}, "Of the 10,572 requests that k6 sent, the gateway that this Prometheus reads had 36"},
		{"an objective of its own", func(v *Verdict) {
			v.Gates[0] = Gate{Metric: "ttft_ms", Condition: "p(95)<10000", Held: true}
			v.Stages[2].Server.Waiting = steady(0)
		}, []string{"healthy", "saturated", "the guide's queue"}, "Healthy in 50 users and 100 users"},
		{"spoilt", func(v *Verdict) { failing(v, "", "") }, []string{"spoilt on the way", "saturated"}, "whole when they left"},
		{"overloaded", func(v *Verdict) { v.Stages[2].Client.TTFT.P95 = 6000; v.Stages[2].Server.P95Range = &Range{5000, 7000} }, []string{"overloaded", "healthy", "saturated", "the guide's queue"}, "Overloaded in 100 users: TTFT p95 6.00 s (high)"},
		{"batch too small", func(v *Verdict) {
			v.Stages[2].Client.TTFT.P95, v.Stages[2].Server.GPU = 6000, steady(40)
			v.Stages[2].Server.P95Range = &Range{5000, 7000}
		}, []string{"batch too small", "healthy", "saturated", "the guide's queue"}, "the batch is full before the GPU is"},
		{"KV cache", func(v *Verdict) {
			v.Stages[2].Client.TTFT.P95, v.Stages[2].Server.KVCache, v.Stages[2].Server.Preemptions = 6000, steady(0.99), number64(7)
			v.Stages[2].Server.P95Range = &Range{5000, 7000}
		}, []string{"overloaded", "preempted", "healthy", "saturated", "the guide's queue"}, "the KV cache full"},
		{"slow without load", func(v *Verdict) {
			each(v, func(s *Stage) {
				s.Client.TTFT.P95, s.Server.Waiting, s.Server.GPU = 2600, steady(0), steady(15)
				s.Server.P95Range = &Range{2500, 3000}
			})
		}, []string{"slow first token", "saturated", "the guide's queue"}, "nothing waits in the engines, and the GPU is at 15 %"},
		{"slow generation", func(v *Verdict) { each(v, func(s *Stage) { s.Client.Speed.Mean = 12 }) }, []string{"slow generation", "approaching saturation", "saturated", "the guide's queue"}, "12 a second in a stream, and over 30 are wanted"},
		{"slow by the script's own gate", func(v *Verdict) {
			v.Gates[2] = Gate{Metric: "tokens_per_second", Condition: "avg>90"}
		}, []string{"slow generation", "approaching saturation", "saturated", "the guide's queue"}, "80 a second in a stream, and over 90 are wanted"},
		{"light", func(v *Verdict) { v.Stages = v.Stages[:1] }, []string{"insufficient load"}, "Even the heaviest stage (10 users)"},
		{"GPU waits", func(v *Verdict) {
			v.Stages[2] = stageOf("users_100", 60, 100, 40)
			v.Stages[2].Server.GPU = steady(35)
		}, []string{"GPU waits", "healthy", "insufficient load"}, "only at 35 %, with 40 in flight and none waiting"},
		{"throughput falls", func(v *Verdict) { v.Stages[2].Client.RPS, *v.Stages[2].Server.RPS = 30, 30 }, []string{"throughput falls", "approaching saturation", "healthy", "the guide's queue"}, "37 a second in 50 users, 30 in 100 users"},
		{"hot", func(v *Verdict) { v.Stages[1].Server.GPUHeat = steady(85) }, []string{"approaching saturation", "GPU hot", "healthy", "saturated", "the guide's queue"}, ""},
		{"backend down", func(v *Verdict) {
			v.Stages[1].Server.Backends, v.Stages[1].Server.AllBackends = &Level{Mean: 1.5, Min: 1, Max: 2}, number64(2)
		}, []string{"backend down", "approaching saturation", "healthy", "saturated", "the guide's queue"}, "only 1 of 2 backends"},
		{"a proxy between", func(v *Verdict) { v.Stages[1].Client.TTFT.P95 = 400 }, []string{"approaching saturation", "time lost on the way", "healthy", "saturated", "the guide's queue"}, ""},
		{"others", func(v *Verdict) { *v.Stages[1].Server.RPS = 50 }, []string{"approaching saturation", "others at work", "healthy", "saturated", "the guide's queue"}, ""},
		{"a proxy between, or a short stage", func(v *Verdict) {
			v.Stages[1].Client.TTFT.P95, v.Stages[1].End = 400, v.Stages[1].Start.Add(59*time.Second)
		}, []string{"approaching saturation", "healthy", "saturated", "the guide's queue"}, ""},
		{"others, or a short stage", func(v *Verdict) {
			*v.Stages[1].Server.RPS, v.Stages[1].End = 50, v.Stages[1].Start.Add(59*time.Second)
		}, []string{"approaching saturation", "healthy", "saturated", "the guide's queue"}, ""},
		{"the guide's contradiction", func(v *Verdict) {
			v.Gates[0].Held, v.Gates[0].Value = false, number64(2900)
			v.Stages[2].Client.TTFT.P95, v.Stages[2].Server.P95Range = 3100, &Range{3000, 5000}
		}, []string{"overloaded", "healthy", "saturated", "the guide's contradiction", "the guide's queue"}, "Overloaded"},
		{"late client", func(v *Verdict) { v.Lateness = &Spread{N: 10, P99: 51, Max: 90} }, []string{"approaching saturation", "client late", "healthy", "saturated", "the guide's queue"}, ""},
		{"k6 alone", func(v *Verdict) { each(v, func(s *Stage) { s.Server = nil }) }, []string{"approaching saturation", "healthy", "saturated", "the guide's queue"}, "57 in flight"},
		{"Prometheus alone", func(v *Verdict) { each(v, func(s *Stage) { s.Client = nil }) }, []string{"approaching saturation", "healthy", "saturated"}, "57 in flight"},
		{"nothing", func(v *Verdict) { v.Stages = nil }, nil, ""},
	} {
		v := baselineRun()
		c.spoil(v)
		v.Judge()
		var kinds []string
		for _, f := range v.Findings {
			kinds = append(kinds, f.Kind)
			if strings.Contains(f.Says, "NaN") || strings.Contains(f.Says, "Inf") || strings.Contains(f.Says, "%!") {
				t.Errorf("%s: %s", c.name, f.Says)
			}
		}
		if !slices.Equal(kinds, c.kinds) {
			t.Errorf("%s: finds %q, want %q", c.name, kinds, c.kinds)
		}
		if len(v.Findings) > 0 && !strings.Contains(v.Findings[0].Says, c.says) {
			t.Errorf("%s: says %q, want %q in it", c.name, v.Findings[0].Says, c.says)
		}
	}
}

func TestFindingsOfOtherScripts(t *testing.T) {
	for _, c := range []struct {
		name, kind, says string
		v                Verdict
	}{
		{"steady", "steady", "TTFT p50 100 ms → 120 ms", Verdict{Stages: []Stage{stageOf("first_third", 10, 100, 5), stageOf("last_third", 10, 120, 5)}}},
		{"drift", "drifts", "TTFT p50 100 ms → 130 ms", Verdict{Stages: []Stage{stageOf("first_third", 10, 100, 5), stageOf("last_third", 10, 130, 5)}}},
		{"a difference that nobody sees", "steady", "TTFT p50 10 ms → 20 ms", Verdict{Stages: []Stage{stageOf("first_third", 10, 10, 5), stageOf("last_third", 10, 20, 5)}}},
		{"recovered", "recovered", "was 50 ms before the spike, 900 ms in it, and 60 ms after it", Verdict{Stages: []Stage{stageOf("calm", 10, 50, 5), stageOf("spike", 40, 900, 60), stageOf("after", 10, 60, 5)}}},
		{"not recovered", "not recovered", "400 ms after it", Verdict{Stages: []Stage{stageOf("calm", 10, 50, 5), stageOf("spike", 40, 900, 60), stageOf("after", 10, 400, 5)}}},
		{"drift by the gateway", "drifts", "TTFT p50 100 ms → 130 ms", Verdict{Stages: serverOnly(stageOf("first_third", 10, 100, 5), stageOf("last_third", 10, 130, 5))}},
		{"recovered by the gateway", "not recovered", "400 ms after it", Verdict{Stages: serverOnly(stageOf("calm", 10, 50, 5), stageOf("spike", 40, 900, 60), stageOf("after", 10, 400, 5))}},
		{"limit", "limit", "56 requests a second", Verdict{Limit: number64(56)}},
		{"no limit", "no limit found", "first rate", Verdict{Limit: number64(0)}},
		{"on time", "on time", "lateness p99 2.1 ms, at most 80 ms", Verdict{Lateness: &Spread{N: 5, P99: 2.1, Max: 80}}},
		{"sides", "compared", "shared against own: TTFT p50 50 ms against 200 ms (× 0.25)", Verdict{Sides: []Side{{Name: "own", Client: stageOf("", 10, 200, 5).Client}, {Name: "shared", Client: stageOf("", 10, 50, 5).Client}}}},
	} {
		c.v.Judge()
		i := slices.IndexFunc(c.v.Findings, func(f Finding) bool { return f.Kind == c.kind })
		if i < 0 || !strings.Contains(c.v.Findings[i].Says, c.says) {
			t.Errorf("%s: found %+v, want %q with %q", c.name, c.v.Findings, c.kind, c.says)
		}
	}
}

// What did not pass is not told that it serves within the limits.
func TestWithinTheLimits(t *testing.T) {
	for _, held := range []bool{true, false} {
		v := baselineRun()
		v.Gates[0].Held = held
		v.Judge()
		if f := v.Findings[0]; f.Kind != "approaching saturation" || strings.Contains(f.Try, "within the limits") != held {
			t.Errorf("with a gate that held: %v, %q says to try %q", held, f.Kind, f.Try)
		}
	}
}

func TestPassed(t *testing.T) {
	v := baselineRun()
	if v.Judge(); !v.Passed {
		t.Error("all gates held, and it has not passed")
	}
	v.Gates[1].Held = false
	if v.Judge(); v.Passed {
		t.Error("a gate did not hold, and it has passed")
	}
	v.Gates = nil
	if v.Judge(); v.Passed {
		t.Error("it has passed without a gate")
	}
}

func TestWords(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.04: "0.04", 8.14: "8.1", 99.94: "99.9", 99.96: "100", 1234: "1,234", 1234567: "1,234,567", math.Inf(1): "–"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) is %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{0: "0.0 ms", 9.94: "9.9 ms", 9.96: "10 ms", 999.4: "999 ms", 999.6: "1.00 s", 61200: "61.20 s", 120000: "120 s", math.NaN(): "–"} {
		if got := millis(v); got != want {
			t.Errorf("millis(%v) is %q, want %q", v, got, want)
		}
	}
}
