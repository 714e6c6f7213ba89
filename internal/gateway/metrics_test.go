package gateway

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// docs/metrics.md has a row for each metric, with its type and labels, and no
// row too many.
func TestMetricsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(gateway_\\w+)` \\| (\\w+) \\| ([^|]+) \\| .{20,} \\|$").FindAllStringSubmatch(string(doc), -1) {
		documented = append(documented, row[1]+" "+row[2]+" "+strings.TrimSpace(row[3]))
	}
	m := newMetrics("test")
	var registered []string
	for _, c := range m.own {
		registered = append(registered, describe(c))
	}
	slices.Sort(documented)
	slices.Sort(registered)
	if !slices.Equal(documented, registered) {
		t.Errorf("docs/metrics.md:\n%s\nregistered:\n%s", strings.Join(documented, "\n"), strings.Join(registered, "\n"))
	}
	for _, five := range []string{"gateway_time_to_first_token_seconds histogram", "gateway_tokens_per_second histogram", "gateway_requests_total counter", "gateway_rps counter", "gateway_queue_depth gauge"} {
		if !slices.ContainsFunc(registered, func(s string) bool { return strings.HasPrefix(s, five+" ") }) {
			t.Errorf("the contract's %s is missing", five)
		}
	}
}

func describe(c prometheus.Collector) string {
	descs := make(chan *prometheus.Desc, 1)
	c.Describe(descs)
	parts := regexp.MustCompile(`fqName: "(\w+)".*variableLabels: \{([^}]*)\}`).FindStringSubmatch((<-descs).String())
	kind := "counter"
	switch c.(type) {
	case *prometheus.HistogramVec, prometheus.Histogram:
		kind = "histogram"
	case *prometheus.GaugeVec:
		kind = "gauge"
	case prometheus.Gauge:
		kind = "gauge"
	}
	labels := strings.ReplaceAll(parts[2], ",", ", ")
	if labels == "" {
		labels = "–"
	}
	return parts[1] + " " + kind + " " + labels
}

// What is scraped is well named, and gateway_rps stays a counter.
func TestScrape(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.mustPost("/v1/chat/completions", ask)
		req, _ := http.NewRequest("GET", gatewayURL+"/metrics", nil)
		req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text := r.read(resp)
		if !strings.Contains(text, "# TYPE gateway_rps counter\ngateway_rps 1\n") {
			t.Errorf("gateway_rps is no counter in\n%s", text)
		}
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if p.Metric != "gateway_rps" { // the guide's name
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
		for name, edges := range map[string]string{
			"gateway_time_to_first_token_seconds": "0.3 0.5 1 1.5 2 3 5 0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.75 2.5 7.5 10 20 40 80 160 640 2560",
			"gateway_tokens_per_second":           "30 50 150",
			"gateway_inter_token_latency_seconds": "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5 5 7.5 10 20 40 80",
			"gateway_request_duration_seconds":    "0.3 0.5 0.8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680",
		} {
			for edge := range strings.FieldsSeq(edges) {
				if !strings.Contains(text, name+`_bucket{backend="vllm-0:8000",model="tiny",le="`+edge+`"}`) {
					t.Errorf("%s has no edge at %s", name, edge)
				}
			}
		}
	}, sse(role, token("a"), stop, usage(1, 1), done))
}

// A model's series begin at 0, before its first request.
func TestSeriesBeginAtZero(t *testing.T) {
	inBubble(t, func(r *rig) {
		_, text := r.mustGet("/metrics")
		for _, want := range []string{
			`gateway_time_to_first_token_seconds_count{backend="vllm-0:8000",model="tiny"} 0`,
			`gateway_completion_tokens_total{backend="vllm-0:8000",model="tiny"} 0`,
			`gateway_upstream_errors_total{backend="vllm-0:8000",cause="cut"} 0`,
			`gateway_rps 0`, `gateway_queue_depth 0`, `gateway_backend_up{backend="vllm-0:8000"} 1`,
		} {
			if !strings.Contains(text, want+"\n") {
				t.Errorf("no %s", want)
			}
		}
	}, named(""))
}
