// Package verdict judges a load test: what k6 saw, and what the gateway and the
// GPU exporter saw in the same minutes, beside what the guide expects, and what it
// means. It reads k6's own output and asks a Prometheus; it sends no load.
package verdict

import "time"

// A Verdict is what there is to say about one run. Its JSON form is for machines:
// names do not change, what was not measured is absent.
type Verdict struct {
	Script string    `json:"script"`          // "baseline"; empty if k6's samples do not say
	Smoke  bool      `json:"smoke,omitempty"` // shortened by TIME_SCALE: says that it works, and nothing of capacity
	Start  time.Time `json:"start"`
	End    time.Time `json:"end"`
	Passed bool      `json:"passed"` // every gate was seen, and held; false without gates

	Gates    []Gate    `json:"gates"`
	Unseen   bool      `json:"gates_unseen,omitempty"` // the script has, or may have, more than Gates
	Stages   []Stage   `json:"stages"`
	Sides    []Side    `json:"sides,omitempty"`     // of a test that compares
	Limit    *float64  `json:"limit_rps,omitempty"` // of a sweep: the highest rate at which its objective held
	Lateness *Spread   `json:"arrival_lateness_ms,omitempty"`
	Findings []Finding `json:"findings"`

	// Missing says in a sentence each what was not measured, and why.
	Missing []string `json:"missing,omitempty"`
	// Series are for the report's pictures; the JSON does without.
	Series []Series `json:"-"`

	// byGateway says that nothing of k6's is there to judge the gates by. What the script
	// wants is then known by objective.
	byGateway bool
	objective promObjective
}

// A Gate is a threshold of the script; k6 exits with 99 if one does not hold.
type Gate struct {
	Metric    string   `json:"metric"`          // "ttft_ms", "http_reqs{scenario:users_10}"
	Condition string   `json:"condition"`       // "p(95)<2000"
	Value     *float64 `json:"value,omitempty"` // what the condition was held against; nil: nothing was measured
	Held      bool     `json:"held"`
}

// A Stage is a part of the run with one kind of load: 10 users, or 8 requests a
// second.
type Stage struct {
	Name  string    `json:"name"` // "users_10"
	Side  string    `json:"side,omitempty"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"` // as planned, or of the run if that ended before

	Client *Client `json:"k6,omitempty"`      // nil: no samples of k6
	Server *Server `json:"gateway,omitempty"` // nil: no Prometheus, or nothing in it of this time

	Guideline []Row  `json:"guideline,omitempty"` // only of stages that the guide has
	State     string `json:"state"`               // one of the States
}

// Client is what k6 measured of a stage.
type Client struct {
	Requests   int     `json:"requests"` // sent in the stage
	Failed     int     `json:"failed"`
	Unanswered int     `json:"unanswered,omitempty"` // of Failed: not a byte of an answer came
	Completed  int     `json:"completed"`            // of Requests: well, and before the stage's end
	RPS        float64 `json:"rps"`                  // Completed, over the stage's length and not the run's
	Ended      int     `json:"ended"`                // in the stage's time, whenever sent: what a server counts, failures included
	InFlight   float64 `json:"in_flight"`            // mean over the stage, whenever sent, failures included
	TTFT       Spread  `json:"ttft_ms"`              // of those that did not fail
	Duration   Spread  `json:"duration_ms"`          // of those that did not fail
	Speed      Spread  `json:"tokens_per_s"`         // of one stream, while it generates
}

// Server is what Prometheus had of a stage. A nil pointer was not measured.
type Server struct {
	RPS      *float64 `json:"rps,omitempty"`                // requests that ended
	TTFT     *Spread  `json:"ttft_ms,omitempty"`            // interpolated in the histogram's buckets
	P95Range *Range   `json:"ttft_p95_bucket_ms,omitempty"` // of the bucket that TTFT's p95 lies in
	Speed    *Spread  `json:"tokens_per_s,omitempty"`
	Queue    *Level   `json:"queue_depth,omitempty"` // over all gateways

	// Outcomes are counts of requests by docs/metrics.md's outcome, "ok" among them.
	Outcomes    map[string]float64 `json:"outcomes,omitempty"`
	Causes      map[string]float64 `json:"upstream_errors,omitempty"` // by cause
	Retries     *float64           `json:"retries,omitempty"`
	Backends    *Level             `json:"backends_up,omitempty"` // how many were up
	AllBackends *float64           `json:"backends,omitempty"`    // how many there are

	GPU         *Level   `json:"gpu_duty_cycle_percent,omitempty"`  // of the busiest GPU at each moment
	GPUMemory   *Level   `json:"gpu_memory_ratio,omitempty"`        // of the fullest GPU, 0 to 1
	GPUHeat     *Level   `json:"gpu_temperature_celsius,omitempty"` // of the hottest GPU
	Waiting     *Level   `json:"vllm_waiting,omitempty"`            // requests in the engines' own lines, summed
	Running     *Level   `json:"vllm_running,omitempty"`
	KVCache     *Level   `json:"kv_cache_ratio,omitempty"` // of the fullest engine, 0 to 1
	Preemptions *float64 `json:"preemptions,omitempty"`
	Refused     *float64 `json:"vllm_refused,omitempty"`           // by an engine's own limit
	PrefixHits  *float64 `json:"prefix_cache_hit_ratio,omitempty"` // tokens hit of tokens asked for

	// States is the share of time, 0 to 1, in each state of the diagnosis that
	// alerts/recording.yml records.
	States map[string]float64 `json:"diagnosis,omitempty"`
}

// Spread is a distribution in a few numbers. Without samples N is 0, and so is
// the rest.
type Spread struct {
	N    int     `json:"n"`
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max,omitempty"` // a histogram knows none
}

// Level is a gauge over a stage.
type Level struct {
	Mean float64 `json:"mean"`
	Min  float64 `json:"min"`
	Max  float64 `json:"max"`
	// Begin and Finish are the means of the stage's first and last third: a queue
	// that grows shows in them.
	Begin  float64 `json:"begin"`
	Finish float64 `json:"finish"`
}

// Range is an interval; High may be +Inf, then it is absent from the JSON.
type Range struct{ Low, High float64 }

// A Row is one of the guide's "Baseline Performance Guidelines" for a stage,
// beside what was measured. It informs; gates decide.
type Row struct {
	Quantity string   `json:"quantity"` // "RPS", "TTFT p95", "GPU util", "Queue"
	Unit     string   `json:"unit,omitempty"`
	Expected string   `json:"expected"` // in the guide's words: "8-10", "< 500ms"
	K6       *float64 `json:"k6,omitempty"`
	Gateway  *float64 `json:"gateway,omitempty"` // of the GPU util: the exporter
	Fits     string   `json:"fits"`              // "as expected", "better", "worse", "below", "above", "not measured"
}

// A Side is one of those that a comparison compares, all its stages together.
type Side struct {
	Name   string   `json:"name"`
	Client *Client  `json:"k6,omitempty"`
	Hits   *float64 `json:"prefix_cache_hit_ratio,omitempty"`
}

// A Finding is something that the figures say, and what to try next.
type Finding struct {
	Kind     string `json:"kind"`            // stable, for machines: "overloaded", "failing"
	Stage    string `json:"stage,omitempty"` // where it showed most; empty: of the run
	Says     string `json:"says"`            // one or two plain sentences, with the figures
	Try      string `json:"try,omitempty"`   // what to do next
	Severity string `json:"severity"`        // "bad", "warn", "good", "info"
}

// Series is a line of a picture.
type Series struct {
	Panel  string // "TTFT", "Tokens per second", "RPS", "Queue", "GPU"
	Name   string // "k6 p95", "gateway p95", "GPU 0"
	Unit   string // "ms", "tokens/s", "requests/s", "", "%"
	Points []Point
}

// Point is a value at a time. NaN is a gap.
type Point struct {
	At    time.Time
	Value float64
}
