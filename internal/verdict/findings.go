package verdict

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Judge fills in what follows from what was measured: the guide's rows, each stage's
// state, the findings, and whether the run passed.
func (v *Verdict) Judge() {
	v.Findings = elsewhere(v)
	for i := range v.Stages {
		s := &v.Stages[i]
		s.Guideline = rows(s)
		s.State = state(s, v.wanted())
	}
	v.Passed = v.passes()
	for _, find := range []func(*Verdict) []Finding{
		failures, load, speed, knee, gpu, memory, recovery, drift, limit, sides, lateness, agreement, others, backends, guide,
	} {
		v.Findings = append(v.Findings, find(v)...)
	}
	slices.SortStableFunc(v.Findings, func(a, b Finding) int { return weight[a.Severity] - weight[b.Severity] })
}

func (v *Verdict) passes() bool {
	for _, g := range v.Gates {
		if !g.Held {
			return false
		}
	}
	return len(v.Gates) > 0 && !v.Unseen
}

var weight = map[string]int{"bad": 0, "warn": 1, "good": 2, "info": 3}

// heaviest is the stage with the most in flight; nil if none was measured.
func (v *Verdict) heaviest() *Stage {
	var most *Stage
	for i := range v.Stages {
		if s := &v.Stages[i]; s.State != Unmeasured && (most == nil || s.inFlight() > most.inFlight()) {
			most = s
		}
	}
	return most
}

// worst is the stage with the most in flight of those that are so, and all that are.
func (v *Verdict) worst(so func(*Stage) bool) (s *Stage, all []string) {
	for i := range v.Stages {
		if at := &v.Stages[i]; so(at) {
			all = append(all, at.title())
			if s == nil || at.inFlight() >= s.inFlight() {
				s = at
			}
		}
	}
	return s, all
}

func in(state string) func(*Stage) bool { return func(s *Stage) bool { return s.State == state } }

// failures says what failed, and on whose side.
func failures(v *Verdict) []Finding {
	var sent, failed, unanswered, seen int // seen: failures of stages in which the gateway's outcomes are known
	causes, outcomes := map[string]float64{}, map[string]float64{}
	retries := 0.0
	var at *Stage
	for i := range v.Stages {
		s := &v.Stages[i]
		if s.Client != nil {
			sent += s.Client.Requests
			failed += s.Client.Failed
			unanswered += s.Client.Unanswered
			if s.Server != nil && len(s.Server.Outcomes) > 0 {
				seen += s.Client.Failed
			}
		}
		if s.Server != nil {
			add(causes, s.Server.Causes)
			add(outcomes, s.Server.Outcomes)
			retries += value(s.Server.Retries)
		}
		if at == nil || s.failedShare() > at.failedShare() {
			at = s
		}
	}
	if at == nil || at.failedShare() == 0 {
		return nil
	}
	f := Finding{Kind: "failing", Stage: at.Name, Severity: "warn"}
	if at.failedShare() > failedAtMost {
		f.Severity = "bad"
	}
	if sent > 0 {
		f.Says = fmt.Sprintf("%s of %s requests failed (%.1f %%); the most in %s: %.1f %%.", count(float64(failed)), count(float64(sent)), 100*float64(failed)/float64(sent), at.title(), 100*at.failedShare())
	} else {
		f.Says = fmt.Sprintf("Requests failed; the most in %s: %.1f %%, by the gateway's count.", at.title(), 100*at.failedShare())
	}
	bad := map[string]float64{}
	for outcome, n := range outcomes {
		if outcome != "ok" && math.Round(n) > 0 {
			bad[outcome] = n
		}
	}
	main := most(causes)
	switch {
	case 2*unanswered > failed && len(bad) == 0:
		f.Says += fmt.Sprintf(" %s of them got no answer at all, and the gateway has not seen them.", count(float64(unanswered)))
		f.Try = "See whether the gateway runs, or was restarted meanwhile, and whether the network lets so many connections through; k6's log has the first failures."
	case most(bad) == "client_error":
		f.Says += " The gateway counts 4xx: the requests were refused for what they are, or for their key."
		f.Try = "Look at the first failures in k6's log: a model that is not there, a prompt that is too long, a missing API_KEY."
	case most(bad) == "limited":
		f.Says += fmt.Sprintf(" The gateway refused %s for what the key may use: its limits were measured, not the box.", counted(bad["limited"], "request"))
		f.Try = "Test with a key that has no limits (`limits: {requests_per_minute: 0}`, and so on, in the gateway's file); `gateway_caller_refused_requests_total` says which limit it was."
	case most(bad) == "refused":
		f.Says += fmt.Sprintf(" The gateway refused %s for want of room of its own.", counted(bad["refused"], "request"))
		f.Try = "`gateway_refused_requests_total` says why: `line_full` is `--max-waiting`, `wait_too_long` `--max-wait`, `no_memory` `--body-memory`. If they are as they should be, send less, or add a backend."
	case most(bad) == "cancelled":
		f.Says += " The gateway saw the clients leave: k6's timeout came before the stream's end."
		f.Try = "If the load is too much, send less; if answers are long, set TIMEOUT higher."
	case most(bad) == "timeout":
		f.Says += " Backends fell silent in the middle of answers."
		f.Try = "See the backends' logs for a hanging engine, and `BackendStalled` among the alerts."
	case main != "":
		c := causeWords[main]
		f.Says += fmt.Sprintf(" Backends: %s, %s.", c.says, counted(causes[main], "time"))
		if retries >= 1 {
			f.Says += fmt.Sprintf(" The gateway sent %s to a second backend.", counted(retries, "request"))
		}
		f.Try = c.try
	case len(bad) == 0 && seen > 0:
		f.Kind = "spoilt on the way"
		f.Says += " The gateway counts none of these: its answers were whole when they left it."
		f.Try = "Look at what stands between k6 and the gateway: a proxy that cuts, buffers or rewrites event streams."
	default:
		f.Try = "See the first failures in k6's log, then the logs of the gateway and of vLLM."
	}
	return []Finding{f}
}

var causeWords = map[string]struct{ says, try string }{
	"connect": {"no connection", "See whether vLLM runs (`curl http://BACKEND/health`), and whether its address is right."},
	"reset":   {"connections that ended before the answer began", "See vLLM's log for restarts, and for what ended its connections."},
	"timeout": {"silence", "See vLLM's log for a hanging engine."},
	"status":  {"answers with 5xx", "See vLLM's log for what it refused or could not do; 503 is often a limit of its own, or a proxy before it."},
	"stream":  {"errors inside streams", "See vLLM's log: the engine reports them there, out of memory among them."},
	"cut":     {"streams cut before their end", "See vLLM's log for crashed or restarted engines, and what stands between gateway and vLLM for timeouts."},
}

// load says what the states of the stages come to.
func load(v *Verdict) []Finding {
	var all []Finding
	if s, stages := v.worst(in(Overloaded)); s != nil {
		f := Finding{Kind: "overloaded", Stage: s.Name, Severity: "bad",
			Says: fmt.Sprintf("Overloaded in %s: %s.", list(stages), s.evidence())}
		m := s.Server
		switch {
		case m != nil && value(m.Refused) >= 1:
			f.Try = "An engine refuses requests by a limit of its own: raise that, send less, or add a backend."
		case m != nil && m.KVCache != nil && m.KVCache.Max > fullKVCache:
			f.Try = "The KV cache is full: shorter contexts (--max-model-len), a quantised model or cache, or another backend."
		case m != nil && m.Waiting != nil && m.Waiting.Mean >= 1 && m.GPU != nil && m.GPU.Mean < busyGPU:
			f.Kind = "batch too small"
			f.Says += fmt.Sprintf(" Requests wait in the engine while the GPU has time (%.0f %%): the batch is full before the GPU is.", m.GPU.Mean)
			f.Try = "Raise vLLM's --max-num-seqs, then run this again."
		default:
			f.Try = "Send less, add a backend, or try a larger --max-num-seqs; `loadtests/sweep.js` finds the rate that it can take."
		}
		all = append(all, f)
	}
	want := v.wanted()
	late := func(s *Stage) bool { p95, ok := s.ttftP95(); return s.State == Slow && ok && p95 > want.ttft }
	if s, stages := v.worst(late); s != nil {
		p95, _ := s.ttftP95()
		all = append(all, Finding{Kind: "slow first token", Stage: s.Name, Severity: "bad",
			Says: fmt.Sprintf("First tokens are late in %s (p95 %s), but not for the load: nothing waits in the engines%s.", list(stages), millis(p95), gpuAside(s)),
			Try:  "Look for what else delays them: very long prompts, a model that is still loading, a network or a proxy before vLLM, a CPU-bound tokenizer."})
	}
	if s, stages := v.worst(in(Approaching)); s != nil {
		f := Finding{Kind: "approaching saturation", Stage: s.Name, Severity: "warn",
			Says: fmt.Sprintf("Approaching saturation in %s: %s.", list(stages), s.evidence()),
			Try:  "Plan for another backend before there are more users than that."}
		if v.Passed {
			f.Try = "It still serves within the limits. " + f.Try
		}
		all = append(all, f)
	}
	if s, stages := v.worst(in(Healthy)); s != nil {
		all = append(all, Finding{Kind: "healthy", Stage: s.Name, Severity: "good",
			Says: fmt.Sprintf("Healthy in %s: %s.", list(stages), s.evidence())})
	}
	// A light stage is meant to be light.
	if s := v.heaviest(); s != nil && s.State == Insufficient {
		all = append(all, Finding{Kind: "insufficient load", Stage: s.Name, Severity: "info",
			Says: fmt.Sprintf("Even the heaviest stage (%s) does not load it: %s.", s.title(), s.evidence()),
			Try:  "Nothing is wrong; but the limit is not known yet. Run `loadtests/sweep.js`, or more users."})
	}
	return all
}

// evidence is what the figures are that a state goes by.
func (s *Stage) evidence() string {
	var parts []string
	if p95, ok := s.ttftP95(); ok {
		parts = append(parts, fmt.Sprintf("TTFT p95 %s (%s)", millis(p95), rating(p95)))
	}
	if rps, ok := s.rps(); ok {
		parts = append(parts, fmt.Sprintf("%s requests/s", number(rps)))
	}
	parts = append(parts, fmt.Sprintf("%s in flight", number(s.inFlight())))
	if m := s.Server; m != nil {
		if m.Queue != nil && m.Queue.Finish > 1.5*m.Queue.Begin+4 {
			parts = append(parts, fmt.Sprintf("a queue that grows (%s to %s)", number(m.Queue.Begin), number(m.Queue.Finish)))
		}
		if m.Waiting != nil && m.Waiting.Mean >= 0.5 {
			parts = append(parts, fmt.Sprintf("%s waiting in the engines", number(m.Waiting.Mean)))
		}
		if m.KVCache != nil && m.KVCache.Mean > fullKVCache {
			parts = append(parts, "the KV cache full")
		}
		if m.GPU != nil {
			parts = append(parts, fmt.Sprintf("GPU at %.0f %%", m.GPU.Mean))
		}
		if r := value(m.Refused); r >= 1 {
			parts = append(parts, count(r)+" refused by vLLM")
		}
	}
	return strings.Join(parts, ", ")
}

// rating is the guide's word for a TTFT p95.
func rating(p95 float64) string {
	switch {
	case p95 < slowTTFT:
		return "excellent"
	case p95 < lateTTFT:
		return "acceptable"
	}
	return "high"
}

func gpuAside(s *Stage) string {
	if s.Server == nil || s.Server.GPU == nil {
		return ""
	}
	return fmt.Sprintf(", and the GPU is at %.0f %%", s.Server.GPU.Mean)
}

// speed says where streams flow too slowly.
func speed(v *Verdict) []Finding {
	want := v.wanted()
	var slow, fast *Stage // the slowest, and any that is not slow
	var all []string
	slowest := math.Inf(1)
	for i := range v.Stages {
		s := &v.Stages[i]
		mean, ok := s.speed()
		switch {
		case ok && s.flowsSlowly(want):
			all = append(all, s.title())
			if mean < slowest {
				slow, slowest = s, mean
			}
		case ok:
			fast = s
		}
	}
	if slow == nil {
		return nil
	}
	f := Finding{Kind: "slow generation", Stage: slow.Name, Severity: "bad",
		Says: fmt.Sprintf("Tokens flow slowly in %s: %s a second in a stream, and over %s are wanted.", list(all), number(slowest), number(want.speed))}
	m := slow.Server
	switch {
	case m != nil && m.GPU != nil && m.GPU.Mean < busyGPU:
		f.Says += fmt.Sprintf(" The GPU is only at %.0f %%.", m.GPU.Mean)
		f.Try = "Something else holds the engine up: a CPU without a free core, the network or PCIe between several GPUs."
	case fast != nil && m != nil && m.Running != nil && m.Running.Mean > 32:
		f.Try = fmt.Sprintf("%s streams share a batch: a lower --max-num-seqs makes each faster and lets others wait.", number(m.Running.Mean))
	default:
		f.Try = "A smaller or quantised model, or a faster GPU; check that the GPU is busy while it generates."
	}
	return []Finding{f}
}

// knee says where more load brought no more requests.
func knee(v *Verdict) []Finding {
	if len(v.Sides) > 0 || v.Limit != nil {
		return nil
	}
	for i := 1; i < len(v.Stages); i++ {
		a, b := &v.Stages[i-1], &v.Stages[i]
		ra, _ := a.rps()
		rb, _ := b.rps()
		if a.State == Unmeasured || b.State == Unmeasured || a.inFlight() < 1 || b.inFlight() < 1.5*a.inFlight() || ra == 0 {
			continue
		}
		if rb < ra*0.95 {
			return []Finding{{Kind: "throughput falls", Stage: b.Name, Severity: "bad",
				Says: fmt.Sprintf("With more load fewer requests were served: %s a second in %s, %s in %s.", number(ra), a.title(), number(rb), b.title()),
				Try:  "A box that is full should hold its rate. Look for preemptions, failures, or swapping in that stage."}}
		}
		// Of one and a half times as many in flight, a box with room serves as many more.
		if rb < ra*1.25 {
			return []Finding{{Kind: "saturated", Stage: b.Name, Severity: "info",
				Says: fmt.Sprintf("It saturates between %s and %s: %s requests/s became %s, while those in flight went from %s to %s.", a.title(), b.title(), number(ra), number(rb), number(a.inFlight()), number(b.inFlight())),
				Try:  fmt.Sprintf("About %s requests/s is what this box gives at these lengths; more users only wait longer.", number(max(ra, rb)))}}
		}
	}
	return nil
}

// gpu says where the GPU is the bottleneck, or something before it.
func gpu(v *Verdict) []Finding {
	s := v.heaviest()
	if s == nil || s.Server == nil || s.Server.GPU == nil {
		return nil
	}
	var all []Finding
	m := s.Server
	if p95, ok := s.ttftP95(); m.GPU.Mean >= 99 && ok && p95 > 500 {
		all = append(all, Finding{Kind: "GPU is the bottleneck", Stage: s.Name, Severity: "info",
			Says: fmt.Sprintf("The GPU was at %.0f %% throughout %s.", m.GPU.Mean, s.title()),
			Try:  "A faster or second GPU, or a quantised model; tuning vLLM will not give much."})
	}
	if m.GPU.Mean < busyGPU && s.inFlightPerBackend() >= 2*fewInFlight && s.State != Slow && (m.Waiting == nil || m.Waiting.Mean < 1) {
		all = append(all, Finding{Kind: "GPU waits", Stage: s.Name, Severity: "warn",
			Says: fmt.Sprintf("In %s the GPU was only at %.0f %%, with %s in flight and none waiting in the engines.", s.title(), m.GPU.Mean, number(s.inFlight())),
			Try:  "Something before the GPU holds requests up: vLLM's CPU (tokenizer, scheduler), the network, or memory bandwidth."})
	}
	for i := range v.Stages {
		if heat := v.Stages[i].Server; heat != nil && heat.GPUHeat != nil && heat.GPUHeat.Max >= 83 {
			all = append(all, Finding{Kind: "GPU hot", Stage: v.Stages[i].Name, Severity: "warn",
				Says: fmt.Sprintf("A GPU reached %.0f °C in %s: most slow themselves down there.", heat.GPUHeat.Max, v.Stages[i].title()),
				Try:  "See to its cooling, or its power limit, before you trust the figures."})
			break
		}
	}
	return all
}

// memory says where the KV cache was too small.
func memory(v *Verdict) []Finding {
	var n float64
	for i := range v.Stages {
		if m := v.Stages[i].Server; m != nil {
			n += value(m.Preemptions)
		}
	}
	if n < 1 {
		return nil
	}
	return []Finding{{Kind: "preempted", Severity: "warn",
		Says: fmt.Sprintf("vLLM preempted %s: KV cache was given to others, and computed again.", counted(n, "request")),
		Try:  "Fewer sequences at once (--max-num-seqs), shorter contexts, or more memory for the cache (--gpu-memory-utilization)."}}
}

// backends: one that went away during the run.
func backends(v *Verdict) []Finding {
	for i := range v.Stages {
		m := v.Stages[i].Server
		if m == nil || m.Backends == nil || m.AllBackends == nil || m.Backends.Min >= *m.AllBackends {
			continue
		}
		return []Finding{{Kind: "backend down", Stage: v.Stages[i].Name, Severity: "bad",
			Says: fmt.Sprintf("In %s only %.0f of %.0f backends were up at some time.", v.Stages[i].title(), m.Backends.Min, *m.AllBackends),
			Try:  "See that backend's log; the figures are those of a smaller box."}}
	}
	return nil
}

// guide says where the guide contradicts itself, or what can be, if this run met it.
func guide(v *Verdict) []Finding {
	var all []Finding
	s := v.stage("users_100")
	if s == nil || s.Client == nil || s.Client.TTFT.N == 0 {
		return nil
	}
	expected := guidelines["users_100"]
	for _, g := range v.Gates {
		if g.Metric == "ttft_ms" && strings.HasPrefix(g.Condition, "p(95)") && !g.Held && s.Client.TTFT.P95 >= expected.ttftP95.from && s.Client.TTFT.P95 <= expected.ttftP95.to {
			all = append(all, Finding{Kind: "the guide's contradiction", Stage: s.Name, Severity: "info",
				Says: fmt.Sprintf("100 users have a TTFT p95 of %s: within the %s that the guide expects of them on one small GPU, and over the 2s that its gate allows the whole run, where half of all samples are theirs.", millis(s.Client.TTFT.P95), expected.ttftSays)})
		}
	}
	// Each user is either waiting for an answer or thinking for a second, so those in
	// flight are 100 less the requests a second (Little's law).
	if q := s.inFlight(); q > expected.queue.to && s.Client.RPS < float64(expected.users)-expected.queue.to && s.failedShare() == 0 {
		all = append(all, Finding{Kind: "the guide's queue", Stage: s.Name, Severity: "info",
			Says: fmt.Sprintf("The queue is above the guide's %s at 100 users because it must be: users who think for a second between requests leave 100 less the %s requests a second in flight.", expected.queueSays, number(s.Client.RPS))})
	}
	return all
}

func (v *Verdict) stage(name string) *Stage {
	for i := range v.Stages {
		if v.Stages[i].Name == name {
			return &v.Stages[i]
		}
	}
	return nil
}

func add(to, from map[string]float64) {
	for k, n := range from {
		to[k] += n
	}
}

// most is the key with the highest value, if that is one at least.
func most(of map[string]float64) string {
	key := ""
	for k, n := range of {
		if math.Round(n) >= 1 && (key == "" || n > of[key] || n == of[key] && k < key) {
			key = k
		}
	}
	return key
}
