package verdict

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Judge fills in what follows from what was measured: the guide's rows, each stage's
// state, the findings, and whether the run passed.
func (v *Verdict) Judge() {
	for i := range v.Stages {
		s := &v.Stages[i]
		s.Guideline = rows(s)
		s.State = state(s)
	}
	v.Passed = len(v.Gates) > 0
	for _, g := range v.Gates {
		v.Passed = v.Passed && g.Held
	}
	v.Findings = nil
	for _, find := range []func(*Verdict) []Finding{
		failures, load, speed, knee, gpu, memory, recovery, drift, limit, sides, lateness, agreement, guests, backends, guide,
	} {
		v.Findings = append(v.Findings, find(v)...)
	}
	slices.SortStableFunc(v.Findings, func(a, b Finding) int { return weight[a.Severity] - weight[b.Severity] })
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

// worst is the stage in one of the states with the most in flight, and all that are.
func (v *Verdict) worst(states ...string) (s *Stage, all []string) {
	for i := range v.Stages {
		if at := &v.Stages[i]; slices.Contains(states, at.State) {
			all = append(all, at.title())
			if s == nil || at.inFlight() >= s.inFlight() {
				s = at
			}
		}
	}
	return s, all
}

// failures says what failed, and on whose side.
func failures(v *Verdict) []Finding {
	var sent, failed int
	causes, outcomes := map[string]float64{}, map[string]float64{}
	var at *Stage
	for i := range v.Stages {
		s := &v.Stages[i]
		if s.Client != nil {
			sent += s.Client.Requests
			failed += s.Client.Failed
		}
		if s.Server != nil {
			add(causes, s.Server.Causes)
			add(outcomes, s.Server.Outcomes)
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
	case most(bad) == "client_error":
		f.Says += " The gateway counts 4xx: the requests were refused for what they are, or for their key."
		f.Try = "Look at the first failures in k6's log: a model that is not there, a prompt that is too long, a missing API_KEY."
	case most(bad) == "cancelled":
		f.Says += " The gateway saw the clients leave: k6's timeout came before the stream's end."
		f.Try = "If the load is too much, send less; if answers are long, set TIMEOUT higher."
	case most(bad) == "timeout":
		f.Says += " Backends fell silent in the middle of answers."
		f.Try = "See the backends' logs for a hanging engine, and `BackendStalled` among the alerts."
	case main != "":
		c := causeWords[main]
		f.Says += fmt.Sprintf(" Backends: %s (%s times, of which the gateway mended what had no first token yet).", c.says, count(causes[main]))
		f.Try = c.try
	case len(outcomes) > 0 && len(bad) == 0 && failed > 0:
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
	if s, stages := v.worst(Overloaded); s != nil {
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
	if s, stages := v.worst(Slow); s != nil {
		p95, _ := s.ttftP95()
		all = append(all, Finding{Kind: "slow first token", Stage: s.Name, Severity: "bad",
			Says: fmt.Sprintf("First tokens are late in %s (p95 %s), but not for the load: nothing waits in the engines%s.", list(stages), millis(p95), gpuAside(s)),
			Try:  "Look for what else delays them: very long prompts, a model that is still loading, a network or a proxy before vLLM, a CPU-bound tokenizer."})
	}
	if s, stages := v.worst(Approaching); s != nil {
		all = append(all, Finding{Kind: "approaching saturation", Stage: s.Name, Severity: "warn",
			Says: fmt.Sprintf("Approaching saturation in %s: %s.", list(stages), s.evidence()),
			Try:  "It still serves within the limits. Plan for another backend before there are more users than that."})
	}
	if s, stages := v.worst(Healthy); s != nil {
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

// speed says where streams flow too slowly to read along.
func speed(v *Verdict) []Finding {
	var slow *Stage
	var slowest float64
	var all []string
	for i := range v.Stages {
		s := &v.Stages[i]
		if mean, ok := s.speed(); ok && mean < 30 { // the guide's gate
			all = append(all, s.title())
			if slow == nil || mean < slowest {
				slow, slowest = s, mean
			}
		}
	}
	if slow == nil {
		return nil
	}
	f := Finding{Kind: "slow generation", Stage: slow.Name, Severity: "bad",
		Says: fmt.Sprintf("Tokens flow slowly in %s: %s a second in a stream, and the guide wants over 30.", list(all), number(slowest))}
	m := slow.Server
	switch {
	case m != nil && m.GPU != nil && m.GPU.Mean < busyGPU:
		f.Says += fmt.Sprintf(" The GPU is only at %.0f %%.", m.GPU.Mean)
		f.Try = "Something else holds the engine up: a CPU without a free core, the network or PCIe between several GPUs."
	case m != nil && m.Running != nil && m.Running.Mean > 32:
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
		Says: fmt.Sprintf("vLLM preempted %s requests: their KV cache was given to others, and computed again.", count(n)),
		Try:  "Fewer sequences at once (--max-num-seqs), shorter contexts, or more memory for the cache (--gpu-memory-utilization)."}}
}

// recovery: what a spike left behind.
func recovery(v *Verdict) []Finding {
	calm, spike, after := v.stage("calm"), v.stage("spike"), v.stage("after")
	if calm == nil || spike == nil || after == nil || calm.Client == nil || spike.Client == nil || after.Client == nil {
		return nil
	}
	before, during, then := calm.Client.TTFT, spike.Client.TTFT, after.Client.TTFT
	if before.N == 0 || during.N == 0 || then.N == 0 {
		return nil
	}
	f := Finding{Kind: "recovered", Severity: "good", Stage: after.Name,
		Says: fmt.Sprintf("TTFT p95 was %s before the spike, %s in it, and %s after it.", millis(before.P95), millis(during.P95), millis(then.P95))}
	if then.P95 > 2*before.P95+100 {
		f.Kind, f.Severity = "not recovered", "warn"
		f.Try = "The box had not worked off the spike's queue: see how long the queue's panel stays high, and cap what waits."
	}
	return []Finding{f}
}

// drift: whether the last third of a soak is like the first.
func drift(v *Verdict) []Finding {
	first, last := v.stage("first_third"), v.stage("last_third")
	if first == nil || last == nil {
		return nil
	}
	var parts []string
	worse := false
	compare := func(what string, a, b float64, ok bool, format func(float64) string, limit float64) {
		if !ok || a <= 0 {
			return
		}
		parts = append(parts, fmt.Sprintf("%s %s → %s", what, format(a), format(b)))
		worse = worse || limit > 1 && b > limit*a || limit < 1 && b < limit*a
	}
	if a, b := first.Client, last.Client; a != nil && b != nil {
		compare("TTFT p50", a.TTFT.P50, b.TTFT.P50, a.TTFT.N > 0 && b.TTFT.N > 0, millis, 1.25)
		compare("tokens/s", a.Speed.Mean, b.Speed.Mean, a.Speed.N > 0 && b.Speed.N > 0, number, 0.8)
		compare("requests/s", a.RPS, b.RPS, true, number, 0.8)
	}
	if a, b := first.Server, last.Server; a != nil && b != nil {
		level := func(what string, a, b *Level, limit float64) {
			if a != nil && b != nil {
				compare(what, a.Mean, b.Mean, true, number, limit)
			}
		}
		level("queue", a.Queue, b.Queue, 1.5)
		level("GPU °C", a.GPUHeat, b.GPUHeat, math.Inf(1))
		level("KV cache", a.KVCache, b.KVCache, math.Inf(1))
	}
	if len(parts) == 0 {
		return nil
	}
	f := Finding{Kind: "steady", Severity: "good", Says: "First third against last: " + strings.Join(parts, ", ") + "."}
	if worse {
		f.Kind, f.Severity = "drifts", "bad"
		f.Try = "Something wears out: a GPU that gets hot, a cache that fills, memory that is not given back. See those panels over the whole run."
	}
	return []Finding{f}
}

// limit: what a sweep found.
func limit(v *Verdict) []Finding {
	if v.Limit == nil {
		return nil
	}
	if *v.Limit == 0 {
		return []Finding{{Kind: "no limit found", Severity: "bad",
			Says: "The objective does not even hold at the first rate.",
			Try:  "See what fails there, or begin with a lower RATE."}}
	}
	return []Finding{{Kind: "limit", Severity: "good",
		Says: fmt.Sprintf("It can take %s requests a second within the objective; above that the objective breaks, or was not tried.", number(*v.Limit)),
		Try:  "Plan for less: what comes in bursts needs room."}}
}

// sides: how those compare that were compared.
func sides(v *Verdict) []Finding {
	if len(v.Sides) < 2 {
		return nil
	}
	base := v.Sides[0]
	var all []Finding
	for _, s := range v.Sides[1:] {
		if base.Client == nil || s.Client == nil || base.Client.TTFT.N == 0 || s.Client.TTFT.N == 0 {
			continue
		}
		a, b := base.Client, s.Client
		all = append(all, Finding{Kind: "compared", Severity: "info",
			Says: fmt.Sprintf("%s against %s: TTFT p50 %s against %s (%s), p95 %s against %s (%s), %s against %s tokens/s, %s against %s requests/s.",
				s.Name, base.Name, millis(b.TTFT.P50), millis(a.TTFT.P50), ratio(b.TTFT.P50, a.TTFT.P50), millis(b.TTFT.P95), millis(a.TTFT.P95), ratio(b.TTFT.P95, a.TTFT.P95),
				number(b.Speed.Mean), number(a.Speed.Mean), number(b.RPS), number(a.RPS))})
	}
	return all
}

func ratio(a, b float64) string {
	if b <= 0 {
		return "–"
	}
	return fmt.Sprintf("× %.2f", a/b)
}

// lateness: a client that is late did not send the load it was asked for.
func lateness(v *Verdict) []Finding {
	if v.Lateness == nil || v.Lateness.N == 0 {
		return nil
	}
	f := Finding{Kind: "on time", Severity: "info", Says: fmt.Sprintf("Requests left on time: lateness p99 %s, at most %s.", millis(v.Lateness.P99), millis(v.Lateness.Max))}
	if v.Lateness.P99 > 50 {
		f.Kind, f.Severity = "client late", "warn"
		f.Says = fmt.Sprintf("k6 was late itself: p99 of lateness is %s, so the load was not the one asked for.", millis(v.Lateness.P99))
		f.Try = "Give k6 a machine, or a core, of its own."
	}
	return []Finding{f}
}

// comparable is how long a stage must be for k6's figures to be held against the
// gateway's: of a shorter one too much lies before its first scrape, which is where
// all users begin at once.
const comparable = time.Minute

// agreement holds k6's times against the gateway's: the same requests, seen from both
// ends.
func agreement(v *Verdict) []Finding {
	for i := range v.Stages {
		s := &v.Stages[i]
		if s.Client == nil || s.Server == nil || s.Client.TTFT.N < 20 || s.Server.P95Range == nil || s.End.Sub(s.Start) < comparable {
			continue
		}
		p95, r := s.Client.TTFT.P95, *s.Server.P95Range
		if late := p95 - r.High; late > 50+0.1*r.High {
			return []Finding{{Kind: "time lost on the way", Stage: s.Name, Severity: "warn",
				Says: fmt.Sprintf("In %s k6 saw a TTFT p95 of %s where the gateway saw %s at most: %s or more are lost between them.", s.title(), millis(p95), millis(r.High), millis(late)),
				Try:  "Look at the network and any proxy between them, and whether k6's machine has a core to spare."}}
		}
		if early := r.Low - p95; early > 50+0.1*r.Low {
			return []Finding{{Kind: "not the same requests", Stage: s.Name, Severity: "warn",
				Says: fmt.Sprintf("In %s k6 saw a TTFT p95 of %s, and the gateway one of at least %s: Prometheus counts others than k6's requests.", s.title(), millis(p95), millis(r.Low)),
				Try:  "See that PROMETHEUS_URL is the one that watches this gateway, and that nobody else uses it during a test."}}
		}
	}
	return nil
}

// guests: requests in the same minutes that were not k6's.
func guests(v *Verdict) []Finding {
	for i := range v.Stages {
		s := &v.Stages[i]
		if s.Client == nil || s.Server == nil || s.Server.RPS == nil || s.End.Sub(s.Start) < comparable {
			continue
		}
		answered := s.Client.RPS
		if s.Client.Requests > 0 { // failures end, too
			answered *= 1 + s.failedShare()/(1-min(s.failedShare(), 0.99))
		}
		if more := *s.Server.RPS - answered; more > 1+0.15*answered {
			return []Finding{{Kind: "others at work", Stage: s.Name, Severity: "warn",
				Says: fmt.Sprintf("In %s the gateway served %s requests a second, and k6 sent %s of them: others used it meanwhile.", s.title(), number(*s.Server.RPS), number(answered)),
				Try:  "Run it again when nobody else does; the gateway's figures are of all."}}
		}
	}
	return nil
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
		if g.Metric == "ttft_ms" && strings.HasPrefix(g.Condition, "p(95)") && !g.Held && s.Client.TTFT.P95 <= expected.ttftP95.to {
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
