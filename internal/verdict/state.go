package verdict

import "strings"

// How the box was in a stage: the guide's "Interpreting Metrics" in one word. Those in
// common with alerts/recording.yml mean the same here, over the whole stage.
const (
	Unmeasured   = "not measured"
	Insufficient = "insufficient load"
	Healthy      = "healthy"
	Approaching  = "approaching saturation"
	Overloaded   = "overloaded"
	// Slow: the first token is late, or tokens flow slowly, and not because of the load.
	Slow = "slow"
	// Failing: more than one request in twenty failed.
	Failing = "failing"
)

const (
	failedAtMost = 0.05 // the guide's gate
	lateTTFT     = 2000 // ms: the guide's "acceptable" ends
	slowTTFT     = 1000 // ms: the guide's "excellent" ends
	fewInFlight  = 4    // per backend: a batch of fewer leaves most of a GPU unused
	busyGPU      = 70   // %: the guide's "good" begins
	fullGPU      = 95   // %: the guide's "good" ends
	fullKVCache  = 0.95
	slowSpeed    = 30 // tokens/s: the guide's gate, where the script has none of its own
)

// state says how the box was, from what there is: what was not measured leaves its
// part out.
func state(s *Stage, want wanted) string {
	c, m := s.Client, s.Server
	if c == nil && m == nil || c != nil && c.Requests == 0 {
		return Unmeasured
	}
	if m == nil {
		m = &Server{}
	}
	p95, measured := s.ttftP95()
	switch {
	case s.failedShare() > failedAtMost:
		return Failing
	case value(m.Refused) >= 1:
		return Overloaded
	case measured && p95 > want.ttft && s.hasRoom():
		return Slow
	case measured && p95 > want.ttft && s.inFlightPerBackend() >= fewInFlight:
		return Overloaded
	case measured && p95 > want.ttft*slowTTFT/lateTTFT,
		m.Waiting != nil && m.Waiting.Begin >= 1 && m.Waiting.Finish >= 1,
		m.KVCache != nil && m.KVCache.Mean > fullKVCache,
		m.Queue != nil && m.Queue.Begin >= fewInFlight && m.Queue.Finish > 1.5*m.Queue.Begin+4,
		measured && p95 > 500 && m.GPU != nil && m.GPU.Mean >= fullGPU:
		return Approaching
	case s.flowsSlowly(want):
		return Slow
	case s.inFlightPerBackend() < fewInFlight, m.GPU != nil && m.GPU.Mean < busyGPU:
		return Insufficient
	}
	return Healthy
}

// hasRoom says that the engines had nothing waiting, and the GPUs time: whatever is
// late then is not late for the load. Without the engines' own figures nobody knows.
func (s *Stage) hasRoom() bool {
	m := s.Server
	return m != nil && m.Waiting != nil && m.Waiting.Mean < 1 && (m.GPU == nil || m.GPU.Mean < fullGPU)
}

// ttftP95 is k6's, which saw every request, else the gateway's.
func (s *Stage) ttftP95() (ms float64, measured bool) {
	if t := s.ttft(); t != nil {
		return t.P95, true
	}
	return 0, false
}

func (s *Stage) failedShare() float64 {
	if s.Client != nil && s.Client.Requests > 0 {
		return float64(s.Client.Failed) / float64(s.Client.Requests)
	}
	all, failed, _ := s.Server.requests()
	if all == 0 {
		return 0
	}
	return failed / all
}

// requests are those that the gateways counted; m may be nil.
func (m *Server) requests() (all, failed float64, counted bool) {
	if m == nil || m.Outcomes == nil {
		return 0, 0, false
	}
	for outcome, n := range m.Outcomes {
		all += n
		if outcome != "ok" {
			failed += n
		}
	}
	return all, failed, true
}

// inFlight is k6's, which knows each request, else the gateway's mean queue depth, which
// is looked at every few seconds.
func (s *Stage) inFlight() float64 {
	if s.Client != nil {
		return s.Client.InFlight
	}
	if s.Server != nil && s.Server.Queue != nil {
		return s.Server.Queue.Mean
	}
	return 0
}

func (s *Stage) inFlightPerBackend() float64 {
	backends := 1.0
	if s.Server != nil && s.Server.Backends != nil {
		backends = max(1, s.Server.Backends.Mean)
	}
	return s.inFlight() / backends
}

func (s *Stage) rps() (float64, bool) {
	if s.Client != nil {
		return s.Client.RPS, true
	}
	if s.Server != nil && s.Server.RPS != nil {
		return *s.Server.RPS, true
	}
	return 0, false
}

func (s *Stage) speed() (mean float64, measured bool) {
	if s.Client != nil && s.Client.Speed.N > 0 {
		return s.Client.Speed.Mean, true
	}
	if s.Server != nil && s.Server.Speed != nil && s.Server.Speed.N > 0 {
		return s.Server.Speed.Mean, true
	}
	return 0, false
}

// flowsSlowly says that streams have fewer tokens a second than are wanted.
func (s *Stage) flowsSlowly(want wanted) bool {
	mean, measured := s.speed()
	return measured && mean < want.speed
}

// wanted is what the script's gates want of a stream.
type wanted struct {
	ttft  float64 // ms, the 95th percentile
	speed float64 // tokens/s, the mean; 0: nothing is wanted
}

// wanted is the guide's, where the script has no gates, or none of times to first token.
func (v *Verdict) wanted() wanted {
	w := wanted{ttft: lateTTFT}
	if len(v.Gates) == 0 {
		w.speed = slowSpeed
	}
	for _, g := range v.Gates {
		c, known := k6ConditionOf(g.Condition)
		metric, _, _ := strings.Cut(g.Metric, "{")
		if !known {
			continue
		}
		early := c.method == "p" && c.percentile == 95 && c.operator == "<"
		switch {
		case metric == "ttft_ms" && early:
			w.ttft = c.limit
		case metric == promTTFT && early:
			w.ttft = 1000 * c.limit
		case (metric == "tokens_per_second" || metric == promSpeed) && c.method == "avg" && c.operator == ">":
			w.speed = c.limit
		}
	}
	return w
}

func value(p *float64) float64 {
	if p == nil {
		return 0
	}
	return *p
}
