package vllmsim

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestMetricsAfterAKnownRun(t *testing.T) {
	inBubble(t, plain, func(t *testing.T, b *bubble) {
		b.stream("/v1/completions", ask(1, 20, 5))
		b.stream("/v1/completions", ask(2, 40, 3))
		for name, want := range map[string]string{
			"prompt_tokens_total":                       "60",
			"generation_tokens_total":                   "8",
			"prompt_tokens_cached_total":                "0",
			"num_preemptions_total":                     "0",
			"num_requests_running":                      "0",
			"num_requests_waiting":                      "0",
			"kv_cache_usage_perc":                       "0",
			"time_to_first_token_seconds_count":         "2",
			"time_to_first_token_seconds_sum":           "0.08", // 30 and 50 ms
			"inter_token_latency_seconds_count":         "6",
			"inter_token_latency_seconds_sum":           "0.06",
			"request_time_per_output_token_seconds_sum": "0.02",
			"e2e_request_latency_seconds_sum":           "0.14",
			"request_queue_time_seconds_sum":            "0",
			"request_prefill_time_seconds_sum":          "0.08",
			"request_decode_time_seconds_sum":           "0.06",
			"request_inference_time_seconds_sum":        "0.14",
			"request_prompt_tokens_sum":                 "60",
			"request_generation_tokens_sum":             "8",
			"request_max_num_generation_tokens_sum":     "8",
			"request_params_max_tokens_sum":             "8",
			"request_params_n_sum":                      "2",
			"request_prefill_kv_computed_tokens_sum":    "60",
			"iteration_tokens_total_sum":                "68",
			"iteration_tokens_total_count":              "8",
		} {
			got := b.metric("vllm:" + name + labels)
			if g, err := strconv.ParseFloat(got, 64); err != nil || fmt.Sprintf("%.9g", g) != want {
				t.Errorf("%s = %s; want %s", name, got, want)
			}
		}
		if got := b.metric(`vllm:request_success_total{engine="0",finished_reason="length",model_name="` + DefaultModel + `"}`); got != "2" {
			t.Errorf("request_success length = %s; want 2", got)
		}
	})
}

// The linter's complaints that vLLM's own names deserve are known.
func TestMetricNames(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		_, text := b.call("GET", "/metrics", "")
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			switch {
			case strings.Contains(p.Text, "':'"): // every name of vLLM's has one
			case p.Metric == "vllm:iteration_tokens_total": // a histogram
			default:
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
	})
}
