package verdict

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// promServer is a Prometheus whose every answer is the same.
func promServer(t *testing.T, answer http.HandlerFunc) *Prometheus {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	p, err := NewPrometheus(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func promSays(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

const promVector = `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"le":"2"},"value":[1764000000.123,"41.5"]}]}}`

// It fails as the real thing does, and what stands in front of it.
func TestPrometheusFails(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody, err := NewPrometheus("http://" + closed.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	jsonType := "application/json"
	for _, c := range []struct {
		name     string
		p        *Prometheus
		unusable bool // for every question
		says     string
	}{
		{"nobody there", nobody, true, "cannot be reached (nothing listens there)"},
		{"a web page", promServer(t, promSays(200, "text/html", "<!DOCTYPE html>\n<title>Grafana</title>")), true, "is none: what answers there is something else (200 OK, text/html, <!DOCTYPE html>)"},
		{"not found", promServer(t, promSays(404, "text/plain; charset=utf-8", "404 page not found\n")), true, "is none: what answers there is something else (404 Not Found, text/plain; charset=utf-8, 404 page not found)"},
		{"other JSON", promServer(t, promSays(200, jsonType, `{"object":"list","data":[]}`)), true, "is none"},
		{"JSON of another shape", promServer(t, promSays(200, jsonType, `{"status":{"phase":"up"}}`)), true, "is none"},
		{"bytes", promServer(t, promSays(200, "text/plain", "\x00\x1b[31m\xffred")), true, "(200 OK, text/plain, [31mred)"},
		{"nothing", promServer(t, promSays(200, jsonType, "")), true, "is none"},
		{"a login", promServer(t, promSays(401, "text/plain", "Unauthorized\n")), true, "wants a login (401 Unauthorized)"},
		{"starting", promServer(t, promSays(503, "text/plain", "Service Unavailable")), true, "is not ready (503 Service Unavailable): Service Unavailable"},
		{"a proxy without it", promServer(t, promSays(503, "", "")), true, "is not ready (503 Service Unavailable)"},
		{"a refusal", promServer(t, promSays(400, jsonType, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:5: parse error"}`)), false, `refuses the question: invalid parameter "query": 1:5: parse error`},
		{"overloaded", promServer(t, promSays(503, jsonType, `{"status":"error","errorType":"timeout","error":"query timed out in expression evaluation"}`)), false, "refuses the question: query timed out"},
		{"half an answer", promServer(t, promSays(200, jsonType, promVector[:80])), false, "gave an answer that ends in the middle"},
		{"a broken connection", promServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, promVector)
		}), false, "broke off its answer (the connection was closed)"},
		{"far too much", promServer(t, func(w http.ResponseWriter, _ *http.Request) {
			for block := make([]byte, 1<<20); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}), false, "gave an answer larger than 32 MiB"},
		{"a scalar", promServer(t, promSays(200, jsonType, `{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}`)), false, `of a kind that is not known here: "scalar"`},
		{"no points", promServer(t, promSays(200, jsonType, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":["x"]}]}}`)), false, "is not understood"},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer, err := c.p.instant(t.Context(), "up", time.Now())
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("the error is %v (%v), want %q", err, answer, c.says)
			}
			if got := errors.As(err, new(promUnusable)); got != c.unusable {
				t.Errorf("unusable: %t, want %t", got, c.unusable)
			}
		})
	}
}

// A slow one holds nobody up for longer than the context does.
func TestPrometheusIsSlow(t *testing.T) {
	ended := make(chan struct{})
	defer close(ended)
	p := promServer(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-ended:
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.instant(ctx, "up", time.Now()); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("the error is %v", err)
	}
	v := &Verdict{Stages: []Stage{stageOf("users_10", 8, 10, 2)}}
	p.Fill(ctx, v)
	if len(v.Missing) != 1 || !strings.Contains(v.Missing[0], "no answer in time") {
		t.Errorf("missing is %q", v.Missing)
	}
}

// What is asked arrives as Prometheus wants it, and below a path if the URL has one.
func TestPrometheusIsAsked(t *testing.T) {
	var got string
	p := promServer(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		got = fmt.Sprint(r.Method, " ", r.URL.Path, " ", r.PostFormValue("query"), " ", r.PostFormValue("time"), r.PostFormValue("start"), " ", r.PostFormValue("end"), " ", r.PostFormValue("step"), " ", user, password)
		io.WriteString(w, promVector)
	})
	at := time.UnixMilli(1764000000123)
	answer, err := p.instant(t.Context(), "sum(up)", at)
	if want := "POST /api/v1/query sum(up) 1764000000.123   "; err != nil || got != want {
		t.Errorf("asked %q, %v, want %q", got, err, want)
	}
	if len(answer) != 1 || answer[0].last() != 41.5 || answer[0].labels["le"] != "2" || !answer[0].points[0].At.Equal(at) {
		t.Errorf("understood %+v", answer)
	}
	p, err = NewPrometheus(strings.Replace(p.String(), "http://", "http://me:secret@", 1) + "/prometheus/")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = p.over(t.Context(), "up", at, at.Add(time.Minute), 7500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if want := "POST /prometheus/api/v1/query_range up 1764000000.123 1764000060.123 7.500 mesecret"; got != want {
		t.Errorf("asked %q, want %q", got, want)
	}
	if strings.Contains(p.String(), "secret") {
		t.Errorf("%s tells the password", p)
	}
}

func TestPrometheusURL(t *testing.T) {
	for _, text := range []string{"localhost:9090", "prometheus", "ftp://host", "http://", "http://:9090", ":", "http://host:port", "/metrics"} {
		if p, err := NewPrometheus(text); err == nil || !strings.Contains(err.Error(), "http://localhost:9090") {
			t.Errorf("%q gives %v, %v", text, p, err)
		}
	}
}

// Values of a histogram of the guide's edges, by hand.
func TestQuantiles(t *testing.T) {
	inf := math.Inf(1)
	h := &promBuckets{edges: []float64{0.1, 0.5, 1, 2, inf}, below: []float64{10, 50, 90, 96, 100}, sum: 70}
	for _, c := range []struct {
		q, want   float64
		low, high float64
	}{
		{0.05, 0.05, 0, 0.1},    // the middle of the first bucket
		{0.1, 0.1, 0, 0.1},      // its edge is its own
		{0.5, 0.5, 0.1, 0.5},    //
		{0.6, 0.625, 0.5, 1},    // 10 of the 40 in it
		{0.95, 11. / 6, 1, 2},   // 5 of 6
		{0.96, 2, 1, 2},         //
		{0.99, 2, 2, inf},       // above all edges: at the last
		{1, 2, 2, inf},          //
		{0.9001, 1.00167, 1, 2}, //
	} {
		if got := h.quantile(c.q); math.Abs(got-c.want) > 1e-5 {
			t.Errorf("the %g quantile is %g, want %g", c.q, got, c.want)
		}
		if r := h.span(c.q, 1); r.Low != c.low || r.High != c.high {
			t.Errorf("the %g quantile lies in %+v, want %g to %g", c.q, *r, c.low, c.high)
		}
	}
	for value, want := range map[float64]float64{0.1: 0.1, 0.5: 0.5, 2: 0.96, 0.3: 0.3, 1.5: 0.93, 0: 0, 50: 0.96, inf: 1} {
		if got := h.share(value); math.Abs(got-want) > 1e-12 {
			t.Errorf("at or below %g are %g, want %g", value, got, want)
		}
	}
	want := Spread{N: 100, Mean: 700, P50: 500, P95: 11000. / 6, P99: 2000}
	if got := *h.spread(1000); math.Abs(got.P95-want.P95) > 1e-9 || got.N != want.N || got.Mean != want.Mean || got.P50 != want.P50 || got.P99 != want.P99 {
		t.Errorf("in milliseconds: %+v, want %+v", got, want)
	}
	none := &promBuckets{edges: []float64{1, inf}, below: []float64{0, 0}}
	if s := none.spread(1); *s != (Spread{}) || none.span(0.95, 1) != nil {
		t.Errorf("of no values: %+v", s)
	}
}

// What is no histogram is none, and one that a scrape cut through is mended.
func TestBucketsOf(t *testing.T) {
	series := func(les ...string) (all []promSeries) {
		for i, le := range les {
			labels := map[string]string{}
			if le != "" {
				labels["le"] = le
			}
			all = append(all, promSeries{labels, []Point{{Value: float64(10 * (i + 1))}}})
		}
		return all
	}
	for name, answer := range map[string][]promSeries{"nothing": nil, "no +Inf": series("1", "2"), "only +Inf": series("+Inf"), "no edge": series("x", "+Inf"), "a gap": {{map[string]string{"le": "1"}, nil}, {map[string]string{"le": "+Inf"}, nil}}} {
		if h := promBucketsOf(answer); h != nil || h.spread(1) != nil {
			t.Errorf("%s gives %+v", name, h)
		}
	}
	h := promBucketsOf(series("+Inf", "2", "1", "")) // 10, 20, 30
	if h == nil || h.n() != 30 || h.below[0] != 30 || h.sum != 40 {
		t.Errorf("backwards and shrinking: %+v", h)
	}
}

// An end of a range that is none is absent, and the rest of the JSON is there.
func TestJSON(t *testing.T) {
	v := saturatedBaseline()
	v.Stages[2].Server.P95Range = &Range{Low: 2500, High: math.Inf(1)}
	v.Stages[1].Server.P95Range = &Range{Low: 60, High: 80}
	var b strings.Builder
	if err := WriteJSON(&b, v); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Stages []struct {
			Gateway struct {
				Bucket map[string]float64 `json:"ttft_p95_bucket_ms"`
			}
		}
	}
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(got.Stages[1].Gateway.Bucket, got.Stages[2].Gateway.Bucket); text != "map[high:80 low:60] map[low:2500]" {
		t.Errorf("the ranges are %s", text)
	}
	b.Reset()
	if err := WriteJSON(&b, &Verdict{}); err != nil || !strings.Contains(b.String(), `"gates": []`) || strings.Contains(b.String(), "null") {
		t.Errorf("%v: of nothing it is %s", err, &b)
	}
}

// Whatever answers, there is no panic, and what is understood is a number or a gap.
func FuzzPrometheus(f *testing.F) {
	for _, body := range []string{
		promVector,
		`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"outcome":"ok"},"values":[[1764000000,"1"],[1764000005.5,"NaN"],[1764000010,"+Inf"]]}]}}`,
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"le":"1"},"value":[1,"3"]},{"metric":{"le":"+Inf"},"value":[1,"4"]},{"metric":{},"value":[1,"2.5"]}]}}`,
		`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"script":"sweep","stage":"rate_1","begins":"5"},"values":[[10,"30"],[20,"10"],[300,"30"]]},{"metric":{"script":"sweep","stage":"rate_2"},"values":[[11,"1e9"]]}]}}`,
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{"count":"1"}]}]}}`,
		`{"status":"error","errorType":"timeout","error":"query timed out"}`, `[]`, ``, `{"status":"success"}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		answer, err := promAnswer(body)
		if err != nil {
			return
		}
		finite := func(values ...float64) {
			for _, v := range values {
				if math.IsNaN(v) || math.IsInf(v, 0) {
					t.Fatalf("%v from %s", values, body)
				}
			}
		}
		for _, s := range answer {
			for _, p := range s.points {
				if !math.IsNaN(p.Value) {
					finite(p.Value)
				}
			}
		}
		if h := promBucketsOf(answer); h != nil {
			if s := h.spread(1000); s != nil {
				finite(s.Mean, s.P50, s.P95, s.P99)
			}
			if r := h.span(0.95, 1000); r != nil {
				finite(r.Low)
			}
		}
		v := &Verdict{Stages: []Stage{{Name: "s", Start: time.Unix(0, 0), End: time.Unix(100, 0)}}}
		s := &v.Stages[0]
		promCountsOf(answer).fill(s)
		fill := &promFill{v: v, interval: 5 * time.Second, begin: s.Start, end: s.End, measured: []*Stage{s}}
		for _, series := range answer {
			if l := fill.level(series.points, s); l != nil {
				s.server().Queue = l
			}
			fill.draw("Queue", "gateway", "", series.points)
		}
		fill.shares(answer, s)
		for _, run := range promRuns(answer) {
			run.verdict()
		}
		v.Judge()
		if err := WriteJSON(io.Discard, v); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
	})
}
