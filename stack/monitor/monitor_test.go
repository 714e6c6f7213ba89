package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/util/osutil"

	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

const rulesYML = `
groups:
- name: test
  rules:
  - record: beat:seen
    expr: count(beat)
  - alert: TargetDown
    expr: up == 0
    for: 15s
    labels: {severity: critical}
    annotations: {summary: "{{ $labels.instance }} is down"}
`

// The scraper looks the machine's name up. What the resolver makes for that must
// not belong to a bubble.
func TestMain(m *testing.M) {
	osutil.GetFQDN()
	os.Exit(m.Run())
}

// rig is a monitor in a bubble, and a target that it scrapes.
type rig struct {
	t         *testing.T
	data      string
	retention time.Duration
	net       memnet.Net
	*Monitor
}

// inBubble runs a test in virtual time with a monitor on a new folder.
func inBubble(t *testing.T, test func(*rig)) {
	data := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, data: data, retention: 7 * 24 * time.Hour}
		l, err := r.net.Listen("target:1")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: beat()}
		go srv.Serve(l)
		defer srv.Close()
		test(r)
	})
}

// beat is a target whose series "beat" counts its scrapes.
func beat() http.Handler {
	n := 0
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n++
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintf(w, "# HELP beat Scrapes.\n# TYPE beat counter\nbeat{kind=\"a\"} %d\n", n)
	})
}

// while runs the monitor round a function.
func (r *rig) while(do func()) {
	r.t.Helper()
	var err error
	r.Monitor, err = Open(r.config())
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, stop := contextOf(r.t)
	ended := make(chan struct{})
	go func() { r.Run(ctx); close(ended) }()
	do()
	stop()
	<-ended
	if err := r.Close(); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) config() Config {
	return Config{
		Data: r.data, Retention: r.retention, Rules: fstest.MapFS{"test.yml": {Data: []byte(rulesYML)}},
		Jobs: []Job{{Name: "good", Targets: []*url.URL{{Scheme: "http", Host: "target:1"}}}, {Name: "bad", Targets: []*url.URL{{Scheme: "http", Host: "nobody:2"}}}},
		URL:  &url.URL{Scheme: "http", Host: "localhost:9090"}, Dial: r.net.Dial,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// get asks the API and returns its data; anything but success fails the test.
func (r *rig) get(path string, args ...string) string {
	r.t.Helper()
	q := url.Values{}
	for i := 0; i < len(args); i += 2 {
		q.Add(args[i], args[i+1])
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/"+path+"?"+q.Encode(), nil))
	var answer struct {
		Status string
		Data   json.RawMessage
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 || answer.Status != "success" {
		r.t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return string(answer.Data)
}

// value is that of the only series that an instant query finds, "" if there is
// none.
func (r *rig) value(query string) string {
	r.t.Helper()
	var data struct {
		Result []struct{ Value [2]any }
	}
	if err := json.Unmarshal([]byte(r.get("query", "query", query)), &data); err != nil {
		r.t.Fatal(err)
	}
	switch len(data.Result) {
	case 0:
		return ""
	case 1:
		return data.Result[0].Value[1].(string)
	}
	r.t.Fatalf("%s: %d series", query, len(data.Result))
	return ""
}

// Targets are scraped every 5 s, whatever the first offset, and rules see it.
func TestScrapesAndEvaluates(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.while(func() {
			time.Sleep(time.Minute)
			for query, want := range map[string]string{
				`count_over_time(beat[50s])`:        "10",
				`beat - beat offset 30s`:            "6",
				`up{job="good"}`:                    "1",
				`up{job="bad",instance="nobody:2"}`: "0",
				`count_over_time(beat:seen[50s])`:   "10",
			} {
				if got := r.value(query); got != want {
					t.Errorf("%s = %q, want %q", query, got, want)
				}
			}
		})
	})
}

// An alert is pending for its time, then firing, and tells whom it is about.
func TestAlerts(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.while(func() {
			state := func() (states []string) {
				var data struct {
					Alerts []struct {
						State       string
						Annotations map[string]string
					}
				}
				json.Unmarshal([]byte(r.get("alerts")), &data)
				for _, a := range data.Alerts {
					states = append(states, a.State+": "+a.Annotations["summary"])
				}
				return states
			}
			time.Sleep(12 * time.Second)
			if got := fmt.Sprint(state()); got != "[pending: nobody:2 is down]" {
				t.Errorf("after 12 s: %v", got)
			}
			time.Sleep(18 * time.Second)
			if got := fmt.Sprint(state()); got != "[firing: nobody:2 is down]" {
				t.Errorf("after 30 s: %v", got)
			}
		})
	})
}

// Every path that Grafana, promtool and the page ask for answers as Prometheus
// does.
func TestAPI(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.while(func() {
			time.Sleep(30 * time.Second)
			now := fmt.Sprint(time.Now().Unix())
			for _, c := range []struct {
				path string
				args []string
				want string
			}{
				{"query", []string{"query", "beat"}, `"__name__":"beat","instance":"target:1","job":"good","kind":"a"`},
				{"query_range", []string{"query", "beat", "start", fmt.Sprint(time.Now().Unix() - 20), "end", now, "step", "5"}, `"resultType":"matrix"`},
				{"series", []string{"match[]", "beat"}, `"job":"good"`},
				{"labels", nil, `"kind"`},
				{"label/job/values", nil, `["bad","good"]`},
				{"label/instance/values", []string{"match[]", "beat"}, `["target:1"]`},
				{"targets", nil, `"scrapeUrl":"http://target:1/metrics"`},
				{"rules", nil, `"name":"beat:seen"`},
				{"alerts", nil, `"alertname":"TargetDown"`},
				{"metadata", nil, `"beat":[{"type":"counter","unit":"","help":"Scrapes."`},
				{"status/buildinfo", nil, `"version":"` + Version()},
				{"status/runtimeinfo", nil, `"storageRetention":"1w"`},
				{"status/config", nil, `job_name: good`},
				{"status/flags", nil, `"storage.tsdb.path"`},
				{"status/tsdb", nil, `"seriesCountByMetricName"`},
				{"format_query", []string{"query", "sum( beat )"}, "sum(beat)"},
			} {
				if got := r.get(c.path, c.args...); !strings.Contains(got, c.want) {
					t.Errorf("%s: %s; want %s", c.path, got, c.want)
				}
			}
			for path, want := range map[string]string{
				"/-/healthy": "Prometheus Server is Healthy.", "/-/ready": "Prometheus Server is Ready.",
				"/metrics": "prometheus_build_info", "/targets": "http://target:1/metrics", "/rules": "TargetDown",
				"/query?expr=beat": `{__name__=&#34;beat&#34;, instance=&#34;target:1&#34;`, "/query?expr=beat(": "parse error", "/query?g0.expr=beat": "target:1", "/query?expr=%3Cscript%3E": "&lt;script&gt;",
			} {
				w := httptest.NewRecorder()
				r.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
				if w.Code != 200 || !strings.Contains(w.Body.String(), want) {
					t.Errorf("%s: %d %s; want %s", path, w.Code, w.Body, want)
				}
			}
		})
	})
}

// Nothing that deletes or stops is there.
func TestNoAdmin(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.while(func() {
			for path, want := range map[string]int{
				"/api/v1/admin/tsdb/delete_series?match[]=beat": http.StatusForbidden, "/api/v1/otlp/v1/metrics": http.StatusNotFound,
				"/-/quit": http.StatusNotFound, "/-/reload": http.StatusNotFound,
			} {
				w := httptest.NewRecorder()
				r.ServeHTTP(w, httptest.NewRequest("POST", path, nil))
				if w.Code != want && !(strings.Contains(path, "admin") && strings.Contains(w.Body.String(), "admin APIs disabled")) {
					t.Errorf("POST %s: %d %s; want %d", path, w.Code, w.Body, want)
				}
			}
		})
	})
}

// Pages of other sites neither read nor write, nor make the machine work; what
// is no browser, or a page of ours, does.
func TestOtherSites(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.while(func() {
			time.Sleep(10 * time.Second)
			for _, c := range []struct {
				name   string
				header map[string]string
				may    bool
			}{
				{"curl, Grafana, k6", nil, true},
				{"typed into a browser", map[string]string{"Sec-Fetch-Site": "none"}, true},
				{"our own page", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://example.com"}, true},
				{"another site's image", map[string]string{"Sec-Fetch-Site": "cross-site"}, false},
				{"another port's page", map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3001"}, false},
				{"another site, old browser", map[string]string{"Origin": "https://elsewhere.example"}, false},
			} {
				for _, req := range []*http.Request{
					httptest.NewRequest("GET", "/api/v1/query?query=beat", nil),
					httptest.NewRequest("POST", "/api/v1/query?query=beat", nil),
					httptest.NewRequest("POST", "/api/v1/write", strings.NewReader(series("k6_vus", 10))),
				} {
					for k, v := range c.header {
						req.Header.Set(k, v)
					}
					w := httptest.NewRecorder()
					r.ServeHTTP(w, req)
					if may := w.Code/100 == 2; may != c.may || !may && w.Code != http.StatusForbidden {
						t.Errorf("%s: %s %s: %d %s", c.name, req.Method, req.URL, w.Code, w.Body)
					}
					if got := w.Header().Get("Access-Control-Allow-Origin"); got != "" {
						t.Errorf("%s: allowed origin %q", c.name, got)
					}
				}
			}
		})
	})
}

// A target that sends without end is down, and not kept in memory.
func TestMadTarget(t *testing.T) {
	inBubble(t, func(r *rig) {
		l, err := r.net.Listen("nobody:2")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			for line := []byte(strings.Repeat("# nothing\n", 1000)); ; {
				if _, err := w.Write(line); err != nil {
					return
				}
				time.Sleep(time.Millisecond) // the bubble's clock stands still while anybody is busy
			}
		})}
		go srv.Serve(l)
		defer time.Sleep(time.Second) // for the handler's own to end
		defer srv.Close()
		r.while(func() {
			time.Sleep(12 * time.Second)
			if got := r.value(`up{job="bad"}`); got != "0" {
				t.Errorf("up = %q", got)
			}
			if got := r.get("targets"); !strings.Contains(got, "body size limit exceeded") {
				t.Errorf("targets: %s", got)
			}
		})
	})
}

// k6 writes here.
func TestRemoteWrite(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.while(func() {
			time.Sleep(10 * time.Second)
			write := func(body string) *httptest.ResponseRecorder {
				post := httptest.NewRequest("POST", "/api/v1/write", strings.NewReader(body))
				post.Header.Set("Content-Type", "application/x-protobuf")
				post.Header.Set("Content-Encoding", "snappy")
				w := httptest.NewRecorder()
				r.ServeHTTP(w, post)
				return w
			}
			if w := write(series("k6_vus", 10)); w.Code != http.StatusNoContent {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if got := r.value(`k6_vus{scenario="users_10"}`); got != "10" {
				t.Errorf("k6_vus = %q", got)
			}
			r.maxSeries = r.db.Head().NumSeries() - 1
			if w := write(series("k6_http_reqs_total", 1)); w.Code != http.StatusTooManyRequests || !strings.Contains(w.Body.String(), "is the limit") {
				t.Errorf("beyond the limit of series: %d %s", w.Code, w.Body)
			}
		})
	})
}

// series is a remote write of one sample of now.
func series(name string, value float64) string {
	req := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: name}, {Name: "scenario", Value: "users_10"}},
		Samples: []prompb.Sample{{Value: value, Timestamp: time.Now().UnixMilli()}},
	}}}
	raw, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return string(snappy.Encode(nil, raw))
}

// What was stored is there after a stop and a start, and counts on.
func TestHistorySurvivesARestart(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.while(func() { time.Sleep(time.Minute) })
		time.Sleep(time.Minute)
		r.while(func() {
			time.Sleep(time.Minute)
			if got := r.value("count_over_time(beat[3m])"); got != "24" {
				t.Errorf("%s samples of two minutes out of three, want 24", got)
			}
		})
	})
}

// What is older than the retention goes: not at once, since it goes in blocks of
// two hours, and blocks are made every two hours.
func TestRetention(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.retention = 3 * time.Hour
		r.while(func() {
			time.Sleep(10 * time.Hour)
			if got := r.value("count_over_time(beat[2h])"); got != "1440" {
				t.Errorf("%s samples of the last two hours, want 1440", got)
			}
			if got := r.value("count_over_time(beat[3h] offset 7h)"); got != "" {
				t.Errorf("%s samples of the first three hours are still there", got)
			}
		})
	})
}

// What is wrong with a folder, the jobs or the rules is said in a line.
func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := (&rig{t: t, data: filepath.Join(dir, "data"), retention: time.Hour}).config()
	holder, err := Open(good)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"in use", func(*Config) {}, "another process uses it"},
		{"a file", func(c *Config) { c.Data = file }, "not a folder"},
		{"below a file", func(c *Config) { c.Data = filepath.Join(file, "sub") }, "not a folder"},
		{"not writable", func(c *Config) { c.Data = "/proc/nowhere" }, "no folder can be made there"}, // who has asked for it names it
		{"bad rules", func(c *Config) {
			c.Data = filepath.Join(dir, "other")
			c.Rules = fstest.MapFS{"bad.yml": {Data: []byte("groups: [{name: x, rules: [{record: a, expr: 'sum('}]}]")}}
		}, "bad.yml"},
	} {
		cfg := good
		c.change(&cfg)
		m, err := Open(cfg)
		if err == nil {
			m.Close()
			t.Errorf("%s: opened", c.name)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want a line with %q", c.name, err, c.want)
		}
	}
	if _, err := Open(good); !errors.Is(err, ErrInUse) {
		t.Errorf("%v is no ErrInUse", err)
	}
}

func TestRelease(t *testing.T) {
	for version, want := range map[string]string{"v0.316.0": "3.16.0", "v0.305.1": "3.5.1", "v0.314.0-rc.0": "3.14.0-rc.0", "(devel)": "(devel)"} {
		if got := release(version); got != want {
			t.Errorf("%s: %s, want %s", version, got, want)
		}
	}
}

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}
