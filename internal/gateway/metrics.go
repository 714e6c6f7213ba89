package gateway

import (
	"net/http"
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bucket edges. Those of vLLM's own histograms are all here, so that engine and
// gateway can be laid over each other; so is every threshold of the guide, so
// that the share above a threshold is exact.
var (
	ttftBuckets     = []float64{.001, .005, .01, .02, .04, .06, .08, .1, .15, .2, .25, .3, .4, .5, .6, .75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560}
	speedBuckets    = []float64{1, 2, 5, 10, 15, 20, 30, 40, 50, 75, 100, 125, 150, 200, 300, 500, 1000}
	gapBuckets      = []float64{.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}
	durationBuckets = []float64{.01, .05, .1, .3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680}
	waitingBuckets  = []float64{.0001, .001, .01, .05, .1, .25, .5, .75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10, 20, 30, 60, 120, 300} // as fine as those of ttft where requests wait: else a share of it would seem longer than all of it
	overheadBuckets = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .5, 1}
)

// metrics are all the series of the gateway. docs/metrics.md says what each
// means; a test holds the two together.
type metrics struct {
	registry *prometheus.Registry
	own      []prometheus.Collector

	mu      sync.Mutex
	callers map[string]bool // that have series of their own

	ttft       *prometheus.HistogramVec
	speed      *prometheus.HistogramVec
	requests   *prometheus.CounterVec
	rps        prometheus.Counter
	queueDepth prometheus.Gauge

	gap              *prometheus.HistogramVec
	duration         *prometheus.HistogramVec
	waiting          prometheus.Histogram
	line             prometheus.Gauge
	refused          *prometheus.CounterVec
	overhead         prometheus.Histogram
	promptTokens     *prometheus.CounterVec
	completionTokens *prometheus.CounterVec
	cancelled        *prometheus.CounterVec
	retries          prometheus.Counter
	retriesWithheld  prometheus.Counter
	upstreamErrors   *prometheus.CounterVec
	inFlight         *prometheus.GaugeVec
	backendUp        *prometheus.GaugeVec
	ejections        *prometheus.CounterVec

	callerRequests         *prometheus.CounterVec
	callerPromptTokens     *prometheus.CounterVec
	callerCompletionTokens *prometheus.CounterVec
	callerRefused          *prometheus.CounterVec
	unauthorized           prometheus.Counter
	limitsUnavailable      prometheus.Counter
	reloaded               prometheus.Gauge
	reloadedAt             prometheus.Gauge
}

func newMetrics(version string) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), callers: map[string]bool{}}
	m.ttft = m.histograms("time_to_first_token_seconds", "Time from a request's headers to the first token of its stream, in seconds. Moves with each first token.", ttftBuckets, "model", "backend")
	m.speed = m.histograms("tokens_per_second", "Tokens a second within one stream, (completion tokens - 1) / (last token - first token). One value for each finished stream of 2 tokens or more.", speedBuckets, "model", "backend")
	m.requests = m.counters("requests_total", "Requests ended, by model, path, class of status and how they ended.", "model", "path", "status", "outcome")
	m.rps = m.counter("rps", "Requests ended. rate() of it is requests per second.")
	m.queueDepth = m.gauge("queue_depth", "Requests accepted and not ended: waiting and running together.")
	m.gap = m.histograms("inter_token_latency_seconds", "Time between one token-bearing event of a stream and the next, in seconds.", gapBuckets, "model", "backend")
	m.duration = m.histograms("request_duration_seconds", "Time from a request's headers to its end, in seconds.", durationBuckets, "model", "backend")
	m.waiting = m.histogram("waiting_seconds", "Time from a request having been read to its being sent to the backend that answered it, in seconds.", waitingBuckets)
	m.line = m.gauge("waiting_line", "Requests that wait for a backend to have room, now.")
	m.refused = m.counters("refused_requests_total", "Requests refused for want of room, by reason.", "reason")
	m.overhead = m.histogram("overhead_seconds", "Time that the gateway itself added before the first byte of an answer, in seconds.", overheadBuckets)
	m.promptTokens = m.counters("prompt_tokens_total", "Tokens of prompts, as the engine counted them.", "model", "backend")
	m.completionTokens = m.counters("completion_tokens_total", "Tokens generated, as the engine counted them.", "model", "backend")
	m.cancelled = m.counters("cancelled_requests_total", "Requests whose client left, by phase: before or after the first byte of the answer.", "phase")
	m.retries = m.counter("retries_total", "Requests sent to a second backend because the first one failed before its first token.")
	m.retriesWithheld = m.counter("retries_withheld_total", "Failed requests not sent to a second backend because second backends have failed too of late.")
	m.upstreamErrors = m.counters("upstream_errors_total", "Failures of backends, by cause; one for each attempt.", "backend", "cause")
	m.inFlight = m.gauges("backend_in_flight", "Requests running on the backend, by the gateway's own count.", "backend")
	m.backendUp = m.gauges("backend_up", "1 while the backend is usable, else 0.", "backend")

	m.ejections = m.counters("backend_ejections_total", "Times that a backend was passed over for failing requests which another one could answer.", "backend")

	m.callerRequests = m.counters("caller_requests_total", "Requests ended of callers with a key, by caller, model and how they ended.", "caller", "model", "outcome")
	m.callerPromptTokens = m.counters("caller_prompt_tokens_total", "Tokens of the prompts of callers with a key, as the engine counted them.", "caller", "model")
	m.callerCompletionTokens = m.counters("caller_completion_tokens_total", "Tokens generated for callers with a key, as the engine counted them.", "caller", "model")
	m.callerRefused = m.counters("caller_refused_requests_total", "Requests of callers with a key that were refused for what the caller may use, by reason.", "caller", "model", "reason")
	m.unauthorized = m.counter("unauthorized_requests_total", "Requests refused for want of a valid key.")
	m.limitsUnavailable = m.counter("limits_unavailable_total", "Requests for which the limits that gateways share could not be asked.")
	m.reloaded = m.gauge("config_last_reload_successful", "1 if the last attempt to read the configuration again succeeded, or there was none; else 0.")
	m.reloaded.Set(1)
	m.reloadedAt = m.gauge("config_last_reload_success_timestamp_seconds", "When the configuration in use was read, in Unix seconds.")
	m.reloadedAt.SetToCurrentTime()

	build := m.gauges("build_info", "Always 1; the labels tell version and Go release.", "version", "goversion")
	build.WithLabelValues(version, runtime.Version()).Set(1)
	for _, phase := range []string{beforeFirstByte, afterFirstByte} {
		m.cancelled.WithLabelValues(phase)
	}
	for _, reason := range []string{lineFull, lineTooLong, noMemory, noLimits} {
		m.refused.WithLabelValues(reason)
	}
	m.registry.MustRegister(m.own...)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// introduce makes a pair's series begin at 0: rate() does not see the step from
// nothing to 1.
func (m *metrics) introduce(model, backend string) {
	for _, h := range []*prometheus.HistogramVec{m.ttft, m.speed, m.gap, m.duration} {
		h.WithLabelValues(model, backend)
	}
	m.promptTokens.WithLabelValues(model, backend)
	m.completionTokens.WithLabelValues(model, backend)
}

// pairSeries are the series of a model on a backend, looked up once a request.
type pairSeries struct {
	ttft, speed, gap, duration prometheus.Observer
	prompt, completion         prometheus.Counter
}

func (m *metrics) pair(model, backend string) *pairSeries {
	return &pairSeries{
		ttft:       m.ttft.WithLabelValues(model, backend),
		speed:      m.speed.WithLabelValues(model, backend),
		gap:        m.gap.WithLabelValues(model, backend),
		duration:   m.duration.WithLabelValues(model, backend),
		prompt:     m.promptTokens.WithLabelValues(model, backend),
		completion: m.completionTokens.WithLabelValues(model, backend),
	}
}

// series are those of a model on the backend.
func (b *backend) series(m *metrics, model string) *pairSeries {
	b.pairsMu.RLock()
	s := b.pairs[model]
	b.pairsMu.RUnlock()
	if s != nil {
		return s
	}
	b.pairsMu.Lock()
	defer b.pairsMu.Unlock()
	if b.pairs == nil {
		b.pairs = map[string]*pairSeries{}
	}
	if b.pairs[model] == nil {
		b.pairs[model] = m.pair(model, b.name)
	}
	return b.pairs[model]
}

// introduceBackend does the same for what is counted by backend alone.
func (m *metrics) introduceBackend(backend string) {
	m.inFlight.WithLabelValues(backend).Set(0)
	m.backendUp.WithLabelValues(backend).Set(0)
	m.ejections.WithLabelValues(backend)
	for _, cause := range causes {
		m.upstreamErrors.WithLabelValues(backend, cause)
	}
}

// drop drops all series with a label.
func (m *metrics) drop(label, value string) {
	for _, c := range m.own {
		if v, ok := c.(interface {
			DeletePartialMatch(prometheus.Labels) int
		}); ok {
			v.DeletePartialMatch(prometheus.Labels{label: value})
		}
	}
}

// handler serves the text format only: OpenMetrics would call gateway_rps an
// unknown, since its counters must end in _total.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: false})
}

const namespace = "gateway"

func (m *metrics) histogram(name, help string, buckets []float64) prometheus.Histogram {
	return add(m, prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}))
}

func (m *metrics) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return add(m, prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels))
}

func (m *metrics) counter(name, help string) prometheus.Counter {
	return add(m, prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}))
}

func (m *metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	return add(m, prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels))
}

func (m *metrics) gauge(name, help string) prometheus.Gauge {
	return add(m, prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}))
}

func (m *metrics) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return add(m, prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels))
}

func add[C prometheus.Collector](m *metrics, c C) C {
	m.own = append(m.own, c)
	return c
}
