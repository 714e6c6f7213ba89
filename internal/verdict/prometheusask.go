package verdict

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// promScrapes is how long what happened may take to get into a Prometheus: its
	// scrapes are some seconds apart, and so are its rules.
	promScrapes = 10 * time.Second
	// promAtOnce is how many questions are asked at a time.
	promAtOnce = 4
)

// Fill adds what a Prometheus has of the run. What it has not, and why, is in Missing
// then: without it k6's own figures still make a verdict.
func (p *Prometheus) Fill(ctx context.Context, v *Verdict) {
	if len(v.Stages) == 0 {
		return
	}
	begin, end := v.span()
	promWait(ctx, end)
	f := &promFill{p: p, ctx: ctx, v: v, begin: begin, end: end, turns: make(chan struct{}, promAtOnce)}
	own := len(v.Series)
	if err := f.present(); err != nil {
		v.Missing = append(v.Missing, fmt.Sprintf("The gateway's and the GPUs' figures: the Prometheus at %s %v. Set PROMETHEUS_URL, or --prometheus, to the one that watches this gateway.", p, err))
		f.gates()
		return
	}
	f.stages()
	f.levels()
	f.pictures()
	f.whole()
	f.wait.Wait()
	slices.SortFunc(v.Series[own:], func(a, b Series) int { // they came in any order
		return cmp.Or(cmp.Compare(a.Panel, b.Panel), cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	f.sides()
	f.gates()
	if f.failed > 0 {
		v.Missing = append(v.Missing, fmt.Sprintf("The Prometheus at %s answered only %d of %d questions. %s", p, f.asked-f.failed, f.asked, f.first))
	}
}

// span is from the first stage's begin to the last one's end.
func (v *Verdict) span() (begin, end time.Time) {
	for i, s := range v.Stages {
		if i == 0 || s.Start.Before(begin) {
			begin = s.Start
		}
		if s.End.After(end) {
			end = s.End
		}
	}
	return begin, end
}

// promWait waits until what happened before a time has been scraped.
func promWait(ctx context.Context, end time.Time) {
	select {
	case <-ctx.Done():
	case <-time.After(min(promScrapes, time.Until(end.Add(promScrapes)))):
	}
}

// promFill is all that is asked about one run.
type promFill struct {
	p          *Prometheus
	ctx        context.Context
	v          *Verdict
	begin, end time.Time
	interval   time.Duration // between scrapes of the gateway
	measured   []*Stage      // those that are long enough

	turns chan struct{}
	wait  sync.WaitGroup
	// mu is over all that follows, and over the verdict.
	mu            sync.Mutex
	asked, failed int
	first         string // what became of the first that failed
	ofStage       map[*Stage]promCounts
	ttftOf        map[*Stage]*promBuckets
	of            promWhole
	unsure        []string // gates that go by what is interpolated
}

// answer takes a question's answer, one at a time.
func (f *promFill) answer(about string, ask func() ([]promSeries, error), take func([]promSeries)) {
	f.wait.Go(func() {
		f.turns <- struct{}{}
		answer, err := ask()
		<-f.turns
		f.mu.Lock()
		defer f.mu.Unlock()
		f.asked++
		if err == nil {
			take(answer)
			return
		}
		if f.failed++; f.first == "" {
			f.first = fmt.Sprintf("Asked about %s it %v.", about, err)
		}
	})
}

func (f *promFill) instant(about, query string, at time.Time, take func([]promSeries)) {
	f.answer(about, func() ([]promSeries, error) { return f.p.instant(f.ctx, query, at) }, take)
}

func (f *promFill) buckets(metric string, from, to time.Time, take func(*promBuckets)) {
	f.instant(metric, promBucketsQuery(metric, promRange(to.Sub(from))), to, func(answer []promSeries) { take(promBucketsOf(answer)) })
}

// present finds out what there is, and how often the gateway is scraped. The error is
// that of a Prometheus which does not answer.
func (f *promFill) present() error {
	over := promRange(f.end.Sub(f.begin))
	var parts []string
	for _, metric := range []string{"gateway_rps", "nvidia_gpu_duty_cycle", "vllm:num_requests_waiting", "gateway:diagnosis"} {
		parts = append(parts, fmt.Sprintf(`label_replace(max(count_over_time(%s[%s])), "of", "%s", "", "")`, metric, over, metric))
	}
	answer, err := f.p.instant(f.ctx, strings.Join(parts, " or "), f.end)
	if err != nil {
		return err
	}
	scrapes := map[string]float64{}
	for _, s := range answer {
		if n := s.last(); n >= 1 {
			scrapes[s.labels["of"]] = n
		}
	}
	f.interval = 5 * time.Second
	if n := scrapes["gateway_rps"]; n > 0 {
		f.interval = time.Duration(float64(f.end.Sub(f.begin)) / n)
	}
	for _, part := range []struct{ metric, says string }{
		{"gateway_rps", "The gateway's figures: the Prometheus at %s has none of these minutes (gateway_rps). Let it scrape the gateway's :9000/metrics, or name the one that does."},
		{"nvidia_gpu_duty_cycle", "The GPUs: the Prometheus at %s has nothing of them in these minutes (nvidia_gpu_duty_cycle). Run gpu-exporter beside them, and let it scrape :9835/metrics."},
		{"vllm:num_requests_waiting", "vLLM's own figures (waiting, KV cache, preemptions, prefix cache): the Prometheus at %s has none of these minutes. Let it scrape the backends' /metrics."},
		{"gateway:diagnosis", "The diagnosis over time: the Prometheus at %s does not record gateway:diagnosis. Give it alerts/recording.yml."},
	} {
		if scrapes[part.metric] == 0 && (part.metric != "gateway:diagnosis" || scrapes["gateway_rps"] > 0) {
			f.v.Missing = append(f.v.Missing, fmt.Sprintf(part.says, f.p))
		}
	}
	return nil
}

// stages asks for what was counted in each stage. Of what is as short as two scrapes
// nothing can be known.
func (f *promFill) stages() {
	f.ofStage, f.ttftOf = map[*Stage]promCounts{}, map[*Stage]*promBuckets{}
	var short []string
	for i := range f.v.Stages {
		s := &f.v.Stages[i]
		if s.End.Sub(s.Start) < 19*f.interval/10 { // the interval is known to a twentieth or so
			short = append(short, s.Name)
			continue
		}
		f.measured = append(f.measured, s)
		f.buckets(promTTFT, s.Start, s.End, func(h *promBuckets) {
			f.ttftOf[s] = h
			if spread := h.spread(1000); spread != nil {
				s.server().TTFT, s.server().P95Range = spread, h.span(0.95, 1000)
			}
		})
		f.buckets(promSpeed, s.Start, s.End, func(h *promBuckets) {
			if spread := h.spread(1); spread != nil {
				s.server().Speed = spread
			}
		})
		f.counts(s.Start, s.End, func(c promCounts) {
			f.ofStage[s] = c
			c.fill(s)
		})
	}
	if len(short) > 0 {
		f.v.Missing = append(f.v.Missing, fmt.Sprintf("The gateway's and the GPUs' figures of %s: shorter than two of Prometheus's scrapes, which come every %s.", list(short), f.interval.Round(time.Second)))
	}
}

func (s *Stage) server() *Server {
	if s.Server == nil {
		s.Server = &Server{}
	}
	return s.Server
}
