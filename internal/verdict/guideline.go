package verdict

import (
	"fmt"
	"math"
)

// expectation is what the guide's "Baseline Performance Guidelines" say of a stage:
// estimates for TinyLlama-1.1B on an RTX 3090.
type expectation struct {
	users            int
	rps, gpu, queue  between
	ttftP95          between // milliseconds
	rpsSays, gpuSays string  // the guide's own words
	ttftSays         string
	queueSays        string
}

// between is a range with its ends; from is 0 where the guide names only the upper one.
type between struct{ from, to float64 }

var guidelines = map[string]expectation{
	"users_10":  {10, between{8, 10}, between{30, 50}, between{1, 3}, between{0, 500}, "8-10", "30-50%", "< 500ms", "1-3"},
	"users_50":  {50, between{30, 45}, between{70, 90}, between{5, 15}, between{0, 1500}, "30-45", "70-90%", "< 1.5s", "5-15"},
	"users_100": {100, between{40, 60}, between{85, 98}, between{20, 50}, between{2000, 5000}, "40-60", "85-98%", "2-5s", "20-50"},
}

// rows holds the measurements of a stage against the guide's; nil if the guide does
// not have it.
func rows(s *Stage) []Row {
	e, ok := guidelines[s.Name]
	if !ok {
		return nil
	}
	rps := Row{Quantity: "RPS", Expected: e.rpsSays}
	ttft := Row{Quantity: "TTFT p95", Unit: "ms", Expected: e.ttftSays}
	gpu := Row{Quantity: "GPU util", Unit: "%", Expected: e.gpuSays}
	queue := Row{Quantity: "Queue", Expected: e.queueSays}
	if c := s.Client; c != nil && c.Requests > 0 {
		rps.K6, queue.K6 = &c.RPS, &c.InFlight
		if c.TTFT.N > 0 {
			ttft.K6 = &c.TTFT.P95
		}
	}
	if m := s.Server; m != nil {
		rps.Gateway = m.RPS
		if m.TTFT != nil && m.TTFT.N > 0 {
			ttft.Gateway = &m.TTFT.P95
		}
		gpu.Gateway = mean(m.GPU)
		queue.Gateway = mean(m.Queue)
	}
	// More requests and an earlier token are better than expected. More or less of
	// the GPU or of the queue is neither: it depends on the others.
	rps.Fits = fits(e.rps, 0.1, "below", "better", rps.K6, rps.Gateway)
	ttft.Fits = fits(e.ttftP95, 1, "better", "worse", ttft.K6, ttft.Gateway)
	gpu.Fits = fits(e.gpu, 1, "below", "above", gpu.Gateway)
	queue.Fits = fits(e.queue, 0.1, "below", "above", queue.Gateway, queue.K6)
	return []Row{rps, ttft, gpu, queue}
}

// fits goes by the first value that was measured, rounded as it is shown: what reads
// "8.0" is not below 8.
func fits(want between, digit float64, below, above string, values ...*float64) string {
	for _, v := range values {
		if v == nil {
			continue
		}
		switch shown := math.Round(*v/digit) * digit; {
		case shown < want.from-digit/2:
			return below
		case shown > want.to+digit/2:
			return above
		}
		return "as expected"
	}
	return "not measured"
}

func mean(l *Level) *float64 {
	if l == nil {
		return nil
	}
	return &l.Mean
}

// title is a stage's name for people.
func (s *Stage) title() string {
	if e, ok := guidelines[s.Name]; ok {
		return fmt.Sprintf("%d users", e.users)
	}
	return s.Name
}
