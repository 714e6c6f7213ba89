package vllmsim

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bucket edges are those of vllm/v1/metrics/loggers.py.
var (
	ttftBuckets = []float64{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75,
		1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560}
	itlBuckets = []float64{.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75,
		1, 2.5, 5, 7.5, 10, 20, 40, 80}
	latencyBuckets = []float64{.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60,
		120, 240, 480, 960, 1920, 7680}
	iterationBuckets  = []float64{1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384}
	nBuckets          = []float64{1, 2, 5, 10, 20}
	preemptionBuckets = []float64{1, 2, 3, 4, 5, 10, 20}
)

// metrics are what vLLM exports of the things that this engine has; what it
// has no source for is absent.
type metrics struct {
	registry *prometheus.Registry

	running, waiting, waitingCapacity, kvUsage prometheus.Gauge

	prefixQueries, prefixHits, preemptions                    prometheus.Counter
	promptTokens, promptCached, promptComputed, promptHits    prometheus.Counter
	cachedDevice                                              prometheus.Counter
	generationTokens                                          prometheus.Counter
	finished                                                  map[string]prometheus.Counter
	ttft, interToken, perToken                                prometheus.Histogram
	e2e, queue, inference, prefill, decode                    prometheus.Histogram
	prompt, generation, maxGeneration, maxTokens, n, computed prometheus.Histogram
	iteration, preempted                                      prometheus.Histogram
}

func newMetrics(cfg Config) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), finished: map[string]prometheus.Counter{}}
	r := registrar{prometheus.WrapRegistererWith(prometheus.Labels{"model_name": cfg.Models[0], "engine": "0"}, m.registry)}

	m.running = r.gauge("num_requests_running", "Number of requests in model execution batches.", nil)
	m.waiting = r.gauge("num_requests_waiting", "Number of requests waiting to be processed.", nil)
	m.waitingCapacity = r.gauge("num_requests_waiting_by_reason", "Number of requests waiting, by reason.", prometheus.Labels{"reason": "capacity"})
	m.kvUsage = r.gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", nil)

	m.prefixQueries = r.counter("prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.", nil)
	m.prefixHits = r.counter("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", nil)
	m.preemptions = r.counter("num_preemptions", "Cumulative number of preemptions from the engine.", nil)
	m.promptTokens = r.counter("prompt_tokens", "Number of prefill tokens processed.", nil)
	m.promptCached = r.counter("prompt_tokens_cached", "Number of prompt tokens that were cached.", nil)
	const bySource = "Number of prompt tokens, by where their KV came from."
	m.promptComputed = r.counter("prompt_tokens_by_source", bySource, prometheus.Labels{"source": "local_compute"})
	m.promptHits = r.counter("prompt_tokens_by_source", bySource, prometheus.Labels{"source": "local_cache_hit"})
	r.counter("prompt_tokens_by_source", bySource, prometheus.Labels{"source": "external_kv_transfer"})
	const byTier = "Prompt tokens that a prefix cache had, by the tier that had them."
	m.cachedDevice = r.counter("prompt_tokens_cached_by_source", byTier, prometheus.Labels{"source": "device"})
	for _, tier := range []string{"host", "disk", "p2p", "external_unspecified"} {
		r.counter("prompt_tokens_cached_by_source", byTier, prometheus.Labels{"source": tier})
	}
	m.generationTokens = r.counter("generation_tokens", "Number of generation tokens processed.", nil)
	for _, reason := range []string{"stop", "length", "abort", "error", "repetition"} {
		m.finished[reason] = r.counter("request_success", "Count of successfully processed requests.", prometheus.Labels{"finished_reason": reason})
	}

	m.ttft = r.histogram("time_to_first_token_seconds", "Time from arrival to the first token, in seconds.", ttftBuckets)
	m.interToken = r.histogram("inter_token_latency_seconds", "Time between two tokens of a request, in seconds.", itlBuckets)
	m.perToken = r.histogram("request_time_per_output_token_seconds", "Mean time per output token after the first, by request, in seconds.", itlBuckets)
	m.e2e = r.histogram("e2e_request_latency_seconds", "Time from arrival to the last token, in seconds.", latencyBuckets)
	m.queue = r.histogram("request_queue_time_seconds", "Time a request waited, in seconds.", latencyBuckets)
	m.inference = r.histogram("request_inference_time_seconds", "Time a request ran, in seconds.", latencyBuckets)
	m.prefill = r.histogram("request_prefill_time_seconds", "Time from running to the first token, in seconds.", latencyBuckets)
	m.decode = r.histogram("request_decode_time_seconds", "Time from the first token to the last, in seconds.", latencyBuckets)

	sizes := oneTwoFive(cfg.MaxModelLen)
	m.prompt = r.histogram("request_prompt_tokens", "Number of prompt tokens of a request.", sizes)
	m.generation = r.histogram("request_generation_tokens", "Number of tokens generated for a request.", sizes)
	m.maxGeneration = r.histogram("request_max_num_generation_tokens", "Most tokens generated for one answer of a request.", sizes)
	m.maxTokens = r.histogram("request_params_max_tokens", "The max_tokens parameter of a request.", sizes)
	m.n = r.histogram("request_params_n", "The n parameter of a request.", nBuckets)
	m.computed = r.histogram("request_prefill_kv_computed_tokens", "Prompt tokens of a request that the prefix cache did not have.", sizes)
	m.iteration = r.histogram("iteration_tokens_total", "Number of tokens per engine step.", iterationBuckets)

	m.preempted = r.histogram("request_num_preemptions", "How often a request was preempted.", preemptionBuckets)

	m.registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.info(cfg)
	m.idle(cfg, r)
	return m
}

// info is the cache's configuration, which vLLM exports without model_name.
func (m *metrics) info(cfg Config) {
	g := registrar{m.registry}.gauge("cache_config_info", "Information of the LLMEngine CacheConfig.", prometheus.Labels{
		"engine":                "0",
		"block_size":            strconv.Itoa(blockSize),
		"num_gpu_blocks":        strconv.Itoa(cfg.KVCacheTokens / blockSize),
		"enable_prefix_caching": "True",
		"kv_cache_size_tokens":  strconv.Itoa(cfg.KVCacheTokens / blockSize * blockSize),
	})
	g.Set(1)
}

// idle are metrics of parts that this engine does not have, at what vLLM gives
// for them where they are not in use.
func (m *metrics) idle(cfg Config, r registrar) {
	r.gauge("num_requests_waiting_by_reason", "Number of requests waiting, by reason.", prometheus.Labels{"reason": "deferred"})
	for _, name := range []string{"external_prefix_cache_queries", "external_prefix_cache_hits", "mm_cache_queries", "mm_cache_hits",
		"estimated_flops_per_gpu", "estimated_read_bytes_per_gpu", "estimated_write_bytes_per_gpu"} {
		r.counter(name, "Not in use.", nil)
	}
	for _, state := range []string{"awake", "weights_offloaded", "discard_all"} {
		g := r.gauge("engine_sleep_state", "1 for the state that the engine is in.", prometheus.Labels{"sleep_state": state})
		if state == "awake" {
			g.Set(1)
		}
	}
	// These are the server's, not the engine's.
	server := registrar{prometheus.WrapRegistererWith(prometheus.Labels{"model_name": cfg.Models[0]}, m.registry)}
	for _, reason := range []string{"max_num_queued_reqs", "max_num_queued_tokens"} {
		server.counter("admission_rejections", "Requests that a limit of the queue refused.", prometheus.Labels{"reason": reason})
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func (m *metrics) queues(running, waiting int, usage float64) {
	m.running.Set(float64(running))
	m.waiting.Set(float64(waiting))
	m.waitingCapacity.Set(float64(waiting))
	m.kvUsage.Set(usage)
}

// prefix counts a sequence's first look into the prefix cache.
func (m *metrics) prefix(tokens, hits int) {
	m.prefixQueries.Add(float64(tokens))
	m.prefixHits.Add(float64(hits))
}

func (m *metrics) step(prefill, said int) {
	m.generationTokens.Add(float64(said))
	m.iteration.Observe(float64(prefill + said))
}

func (m *metrics) firstToken(q *sequence) {
	m.promptTokens.Add(float64(q.prompt))
	m.promptCached.Add(float64(q.cached))
	m.cachedDevice.Add(float64(q.cached))
	m.promptHits.Add(float64(q.cached))
	m.promptComputed.Add(float64(q.prompt - q.cached))
	m.ttft.Observe(q.first.Sub(q.arrived).Seconds())
}

// finish records a sequence that has said all. One that was aborted is in none
// of these: vLLM forgets a request with its client, and finished_reason="abort"
// counts only what the engine itself gave up.
func (m *metrics) finish(q *sequence) {
	m.finished[q.script.finish].Inc()
	m.e2e.Observe(q.last.Sub(q.arrived).Seconds())
	m.queue.Observe(q.admitted.Sub(q.arrived).Seconds())
	m.inference.Observe(q.last.Sub(q.admitted).Seconds())
	m.prefill.Observe(q.first.Sub(q.admitted).Seconds())
	m.decode.Observe(q.last.Sub(q.first).Seconds())
	m.prompt.Observe(float64(q.prompt))
	m.generation.Observe(float64(q.generated()))
	m.computed.Observe(float64(q.prompt - q.cached))
	m.perToken.Observe(q.last.Sub(q.first).Seconds() / float64(max(1, q.said()-1)))
	m.preempted.Observe(float64(q.preempted))
	if q.job.limit > 0 {
		m.maxTokens.Observe(float64(q.job.limit))
	}
	if longest, all := q.longest(); all {
		m.n.Observe(float64(q.job.n))
		m.maxGeneration.Observe(float64(longest))
	}
}

// oneTwoFive is 1, 2, 5, 10, 20, 50, … up to a limit.
func oneTwoFive(limit int) []float64 {
	var edges []float64
	for ten := 1; ; ten *= 10 {
		for _, m := range []int{1, 2, 5} {
			if m*ten > limit {
				return edges
			}
			edges = append(edges, float64(m*ten))
		}
	}
}

// registrar makes metrics of vLLM's namespace.
type registrar struct{ prometheus.Registerer }

func (r registrar) gauge(name, help string, labels prometheus.Labels) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "vllm:" + name, Help: help, ConstLabels: labels})
	r.MustRegister(g)
	return g
}

// counter adds _total, as Python's client does.
func (r registrar) counter(name, help string, labels prometheus.Labels) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "vllm:" + name + "_total", Help: help, ConstLabels: labels})
	r.MustRegister(c)
	return c
}

func (r registrar) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "vllm:" + name, Help: help, Buckets: buckets})
	r.MustRegister(h)
	return h
}
