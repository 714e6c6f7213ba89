package vllmsim

import (
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// The model of the cards; docs/simulator.md says where the figures come from.
const (
	// hostShare of a step's base is the CPU's: scheduling, launching, sampling.
	// With one sequence the card waits for all of it.
	hostShare = 0.63
	// Each further sequence makes the kernels longer, so that more of the CPU's
	// work is done while they run: with so many of them all of it would be …
	hiddenBy = 19.0
	// … but for this part, which nothing hides.
	neverHidden = 0.05

	dutyTime = time.Second // over which a card's load and power are averaged
	heatTime = time.Minute // in which a cooler follows the load

	idleWatts, limitWatts = 25, 350 // of a GeForce RTX 3090

	cardBytes      = 24 << 30
	weightBytes    = 2_200_000_000       // 1.1 billion parameters of 2 bytes
	kvTokenBytes   = 22 * 2 * 4 * 64 * 2 // layers, K and V, heads, their size, bytes
	workspaceBytes = 1_400_000_000       // activations, graphs, CUDA's own
)

// card is what tells the two cards apart. The second works in step with the
// first, and as in most pairs a little less, and in its warm air.
type card struct {
	load               float64 // of the first card's
	idleHeat, fullHeat float64 // °C
	spared             float64 // bytes: the first one also gathers and samples
}

var pair = [2]card{
	{load: 1, idleHeat: 38, fullHeat: 80},
	{load: 0.97, idleHeat: 40, fullHeat: 83, spared: 256 << 20},
}

// busyShare is the part of a step in which kernels run.
func (c Cost) busyShare(sequences int, step time.Duration) float64 {
	if step <= 0 {
		return 0
	}
	waits := max(neverHidden, 1-float64(sequences-1)/hiddenBy)
	return 1 - hostShare*waits*float64(max(c.Base, 0))/float64(step)
}

// gpu follows what the engine's kernels do to a card. It needs no clock of its
// own: what happens between two steps is known when the next one begins, or when
// somebody looks.
type gpu struct {
	mu  sync.Mutex
	now pulse
}

// pulse is a card's state at a moment, and what it does until a later one;
// after that it is idle.
type pulse struct {
	at, until  time.Time
	busy       float64 // share of the time until then in which kernels run
	duty, heat float64 // busy, averaged over dutyTime and heatTime
}

// step tells of an engine step that begins.
func (g *gpu) step(from, until time.Time, busy float64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = g.now.then(from)
	g.now.until, g.now.busy = until, busy
}

// look is the state now. It leaves no trace, so that any number may look.
func (g *gpu) look() pulse {
	g.mu.Lock()
	p := g.now
	g.mu.Unlock()
	return p.then(time.Now())
}

// then is the state at a later time, if no other step begins before it.
func (p pulse) then(t time.Time) pulse {
	if p.until.Before(t) {
		p = p.through(p.until, p.busy)
		return p.through(t, 0)
	}
	return p.through(t, p.busy)
}

// through brings the averages to t, over a span in which the share was the same:
// that has an exact solution, however long the span.
func (p pulse) through(t time.Time, busy float64) pulse {
	span := t.Sub(p.at)
	if span <= 0 {
		return p
	}
	p.duty = busy + (p.duty-busy)*math.Exp(-span.Seconds()/dutyTime.Seconds())
	p.heat = busy + (p.heat-busy)*math.Exp(-span.Seconds()/heatTime.Seconds())
	p.at = t
	return p
}

// memory is what vLLM holds on a card: it takes its KV cache whole when it
// starts, so this stays the same under any load.
func (c card) memory(cfg Config) float64 {
	kv := kvTokenBytes * float64(cfg.KVCacheTokens/blockSize*blockSize)
	return min(weightBytes+kv+workspaceBytes-c.spared, cardBytes)
}

// cards are the readings as a driver gives them: whole percent, degrees and
// milliwatts.
type cards struct {
	cfg Config
	gpu *gpu

	duty, used, total, temperature, power *prometheus.Desc
}

// GPUs serves the readings of two simulated cards under the names that the
// monitoring guide's exporter uses. They follow from what the engine does.
func (s *Server) GPUs() http.Handler {
	describe := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("nvidia_gpu_"+name, help, []string{"gpu", "uuid", "name"}, nil)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(&cards{
		cfg: s.cfg, gpu: &s.engine.gpu,
		duty:        describe("duty_cycle", "Percent of the last second in which a kernel ran, 0 to 100. Simulated."),
		used:        describe("memory_used_bytes", "Memory in use. Simulated."),
		total:       describe("memory_total_bytes", "Memory of the card. Simulated."),
		temperature: describe("temperature", "Temperature in degrees Celsius. Simulated."),
		power:       describe("power_usage_milliwatts", "Power draw in milliwatts. Simulated."),
	})
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

func (c *cards) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.duty, c.used, c.total, c.temperature, c.power} {
		ch <- d
	}
}

func (c *cards) Collect(ch chan<- prometheus.Metric) {
	p := c.gpu.look()
	for i, card := range pair {
		n := strconv.Itoa(i)
		give := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, n, "GPU-simulated-"+n, "simulated NVIDIA GeForce RTX 3090")
		}
		duty, heat := p.duty*card.load, p.heat*card.load
		give(c.duty, math.Round(100*duty))
		give(c.used, card.memory(c.cfg))
		give(c.total, cardBytes)
		give(c.temperature, math.Round(card.idleHeat+(card.fullHeat-card.idleHeat)*heat))
		give(c.power, math.Round(1000*(idleWatts+(limitWatts-idleWatts)*duty)))
	}
}
