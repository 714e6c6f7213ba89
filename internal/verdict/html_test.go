package verdict

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

var (
	updateReport = flag.Bool("update", false, "write the golden report anew")
	keepReports  = flag.String("reports", "", "folder in which the reports are left, to be looked at")
)

// The whole report, to the byte. go test ./internal/verdict -run Golden -update writes
// it anew; then look at it in a browser and read the diff.
func TestReportGolden(t *testing.T) {
	got := reportOf(t, saturatedBaseline())
	path := filepath.Join("testdata", "report-baseline.html")
	if *updateReport {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v; -update and git diff show how the report differs", err)
	}
}

// Whatever is in a verdict, the report is one well-formed page that stands by itself,
// and all numbers in its pictures are numbers.
func TestReportStandsByItself(t *testing.T) {
	for name, v := range reportSamples() {
		t.Run(name, func(t *testing.T) {
			page := reportOf(t, v)
			if *keepReports != "" {
				os.WriteFile(filepath.Join(*keepReports, name+".html"), page, 0o644)
			}
			balanced(t, page)
			root, err := html.Parse(bytes.NewReader(page))
			if err != nil {
				t.Fatal(err)
			}
			headings := 0
			for n := range root.Descendants() {
				if n.Type != html.ElementNode {
					continue
				}
				switch n.Data {
				case "script", "link", "img", "iframe", "object", "embed", "form", "base", "foreignObject":
					t.Errorf("<%s>: a report neither runs nor loads anything", n.Data)
				case "h1", "h2", "h3":
					headings++
				case "th":
					if attribute(n, "scope") == "" {
						t.Errorf("a table's header without scope: %s", textOf(n))
					}
				case "svg":
					if attribute(n, "role") == "img" && (find(n, "title") == nil || textOf(find(n, "desc")) == "") {
						t.Error("a picture without title and description")
					}
				}
				for _, a := range n.Attr {
					if strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "href" || a.Key == "src" {
						t.Errorf("<%s %s=%q>: a strict policy forbids it", n.Data, a.Key, a.Val)
					}
					if n.Namespace == "svg" && geometry[a.Key] && !lengths.MatchString(a.Val) {
						t.Errorf("<%s %s=%q> cannot be drawn", n.Data, a.Key, a.Val)
					}
				}
			}
			if headings < 8 {
				t.Errorf("%d headings", headings)
			}
			for _, word := range []string{"NaN", "Inf", "+Inf", "%!", "ZgotmplZ"} {
				if regexp.MustCompile(`(^|[^\w])` + regexp.QuoteMeta(word)).Match(page) {
					t.Errorf("the report says %s", word)
				}
			}
		})
	}
}

var (
	geometry = map[string]bool{"x": true, "y": true, "x1": true, "x2": true, "y1": true, "y2": true, "width": true, "height": true, "d": true}
	lengths  = regexp.MustCompile(`^(-?[0-9]+(\.[0-9]+)?%?|[MLHVh0-9. -]+)$`)
)

// The style is inline, and a URL in it would be loaded.
func TestReportLoadsNothing(t *testing.T) {
	for _, part := range []string{"://", "url(", "@import", "<script", "javascript:"} {
		if strings.Contains(reportHTML, part) {
			t.Errorf("report.html holds %q", part)
		}
	}
}

// Names of models, stages and metrics come from outside.
func TestReportEscapes(t *testing.T) {
	page := string(reportOf(t, hostile()))
	if n := strings.Count(page, "&lt;script&gt;alert("); n < 15 {
		t.Errorf("%d places show the hostile name, want 15 at least", n)
	}
	for _, raw := range []string{"<script", "</title><b", "<b>bold", `alert("`} {
		if strings.Contains(page, raw) {
			t.Errorf("the report holds %s", raw)
		}
	}
}

// What was not measured is a gap, and never a line across it or down to 0.
func TestReportGap(t *testing.T) {
	nan := math.NaN()
	for _, tt := range []struct {
		name   string
		values []float64
		want   string
	}{
		{"none", []float64{50, 50, 50}, "M0 80L500 80L1000 80"},
		{"in the middle", []float64{50, nan, 100, 50, 100}, "M0 80h3M500 0L750 80L1000 0"},
		{"at the ends", []float64{nan, 100, 50, 100, nan}, "M250 0L500 80L750 0"},
		{"infinite", []float64{50, math.Inf(1), 50, math.Inf(-1), 50}, "M0 80h3M500 80h3M1000 80h3"},
		{"absurd", []float64{50, 1e300, -1e300, 50, 50}, "M0 80h3M750 80L1000 80"},
		{"below zero", []float64{-50, 0, 50}, "M0 160L500 160L1000 80"},
		{"nothing but gaps", []float64{nan, nan}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := &Verdict{Start: reportStart, End: reportStart.Add(time.Duration(len(tt.values)-1) * time.Second)}
			s := Series{Panel: "GPU", Name: "GPU 0", Unit: "%"}
			for i, value := range tt.values {
				s.Points = append(s.Points, Point{reportStart.Add(time.Duration(i) * time.Second), value})
			}
			v.Series = []Series{s}
			got := ""
			if p := pictures(v)[4]; len(p.Lines) > 0 {
				got = p.Lines[0].Path
			}
			if got != tt.want {
				t.Errorf("%v: drawn %q, want %q", tt.values, got, tt.want)
			}
		})
	}
}

// The picture of a day is no larger than that of an hour, and no peak is lost in it.
func TestReportOfADay(t *testing.T) {
	v := &Verdict{Start: reportStart, End: reportStart.Add(24 * time.Hour)}
	seriesOf(v, "GPU", "GPU 0", "%", func(s float64) float64 {
		if s == 40000 {
			return 200 // is held at 100
		}
		return 60
	})
	path := pictures(v)[4].Lines[0].Path
	if n := len(v.Series[0].Points); len(path) > 50_000 || strings.Count(path, " 0")+strings.Count(path, "V0") != 1 {
		t.Errorf("%d points drawn in %d bytes, %d times to the top; want 50000 at most, and the one peak", n, len(path), strings.Count(path, " 0")+strings.Count(path, "V0"))
	}
}

// An axis goes up in round steps, and one wild value does not press the others flat.
func TestReportAxis(t *testing.T) {
	many := func(n int, v float64, more ...float64) (all []float64) {
		for range n {
			all = append(all, v)
		}
		return append(all, more...)
	}
	for _, tt := range []struct {
		name   string
		values []float64 // ascending
		unit   string
		want   string // the axis, and what is marked above it
	}{
		{"milliseconds", many(30, 180), "ms", "0 ms 50 ms 100 ms 150 ms 200 ms"},
		{"seconds", many(30, 2300), "ms", "0.0 s 0.5 s 1.0 s 1.5 s 2.0 s 2.5 s"},
		{"tokens", many(30, 83), "tokens/s", "0 20 40 60 80 100"},
		{"a percentage", many(30, 12), "%", "0 % 25 % 50 % 75 % 100 %"},
		{"more than 100 %", many(30, 180), "%", "0 % 50 % 100 % 150 % 200 %"},
		{"nothing but zeros", many(30, 0), "", "0.0 0.2 0.4 0.6 0.8 1.0"},
		{"small", many(30, 0.03), "", "0.00 0.01 0.02 0.03"},
		{"large", many(30, 123456), "", "0 50000 100000 150000"},
		{"one wild value", many(100, 100, 48000), "ms", "0 ms 50 ms 100 ms 150 ms ▲ 48.00 s"},
		{"a peak that is none", many(100, 100, 140), "ms", "0 ms 50 ms 100 ms 150 ms"},
		{"few values", []float64{1, 2, 400}, "", "0 100 200 300 400"},
		{"all but one are zero", many(100, 0, 9), "", "0 2 4 6 8 10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := Series{Panel: "X", Name: "k6", Unit: tt.unit}
			for i, value := range tt.values {
				s.Points = append(s.Points, Point{reportStart.Add(time.Duration(i-len(tt.values)/2) * time.Second), value})
			}
			half := time.Duration(len(tt.values)) * time.Second
			p := pictures(&Verdict{Start: reportStart.Add(-half), End: reportStart.Add(half), Series: []Series{s}})[5]
			var got []string
			for _, l := range append(p.Values, p.Above...) {
				got = append(got, l.Text)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestReportTimes(t *testing.T) {
	for _, tt := range []struct {
		length time.Duration
		want   string
	}{
		{time.Second, "0:00 0:01"},
		{20 * time.Second, "0:00 0:05 0:10 0:15 0:20"},
		{7*time.Minute + 30*time.Second, "0:00 1:00 2:00 3:00 4:00 5:00 6:00 7:00"},
		{30 * time.Minute, "0:00 5:00 10:00 15:00 20:00 25:00 30:00"},
		{24 * time.Hour, "0:00 240:00 480:00 720:00 960:00 1200:00 1440:00"},
	} {
		var got []string
		for _, l := range newPictureClock(&Verdict{Start: reportStart, End: reportStart.Add(tt.length)}).times() {
			got = append(got, l.Text)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %s, want %s", tt.length, got, tt.want)
		}
	}
}

// Labels of stages never lie on each other, whatever they are called.
func TestReportBands(t *testing.T) {
	stages := func(n int, length time.Duration, name string) (all []Stage) {
		for i := range n {
			at := reportStart.Add(time.Duration(i) * length)
			all = append(all, Stage{Name: fmt.Sprint(name, i), Start: at, End: at.Add(length)})
		}
		return all
	}
	for _, tt := range []struct {
		name   string
		stages []Stage
		want   string // labels; * on wide screens only
	}{
		{"none", nil, ""},
		{"three", stages(3, time.Minute, "users_"), "users_0 users_1 users_2"},
		{"eight", stages(8, time.Minute, "users_"), "users_0 users_1* users_2 users_3* users_4 users_5* users_6 users_7*"},
		{"thirty", stages(30, time.Minute, "rate_"), "rate_0 2* 3* 4* 5 6* 7 8* 9 10* 11 12* 13 14* 15 16* 17 18* 19 20* 21 22* 23 24* 25 26* 27 28* 29"},
	} {
		end := reportStart.Add(time.Duration(len(tt.stages)) * time.Minute)
		var got []string
		for _, b := range newPictureClock(&Verdict{Start: reportStart, End: end}).bands(tt.stages) {
			switch {
			case b.Label != "" && b.Wide:
				got = append(got, b.Label+"*")
			case b.Label != "":
				got = append(got, b.Label)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// k6's lines and the gateway's can be told apart without colours.
// The line of a limit at a picture's top is where the names of the stages are.
func TestReportLimit(t *testing.T) {
	clock := newPictureClock(&Verdict{Start: reportStart, End: reportStart.Add(time.Minute)})
	for _, c := range []struct {
		most  float64 // of what is measured, so that the picture ends there or above
		below bool
	}{{2000, true}, {3900, false}} {
		series := []Series{{Panel: "TTFT", Name: "k6 p95", Unit: "ms", Points: []Point{{At: reportStart, Value: c.most}}}}
		p := clock.picture(series, pictureLimit{2000, "the guide: p95 < 2 s"})
		if p.Limit == nil || p.Limit.Below != c.below {
			t.Errorf("most is %v: the limit is %+v; below its line: want %v", c.most, p.Limit, c.below)
		}
	}
}

func TestReportDashes(t *testing.T) {
	var got []string
	for _, l := range lineStyles([]Series{{Name: "k6 p50"}, {Name: "k6 p95"}, {Name: "gateway p95"}, {Name: "engines waiting"}}) {
		got = append(got, fmt.Sprintf("%d[%s]", l.Colour, l.Dash))
	}
	if want := "0[] 1[] 1[7 4] 2[2 3]"; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// What the one line at the top says.
func TestReportVerdict(t *testing.T) {
	samples := reportSamples()
	for name, want := range map[string]string{
		"baseline": "FAILED baseline 2 of 11 gates did not hold · 7m30s · 24 November 2026, 08:00:00 UTC",
		"sweep":    "PASSED sweep all 3 gates held · 15m0s · 24 November 2026, 08:00:00 UTC",
		"nothing":  "NO GATES load test no gates: nothing was held against anything · 0s · 24 November 2026, 08:00:00 UTC",
		"smoke":    "PASSED baseline its one gate held · 18s · 24 November 2026, 08:00:00 UTC Shortened run: it says that everything works, and nothing about capacity.",
	} {
		root, err := html.Parse(bytes.NewReader(reportOf(t, samples[name])))
		if err != nil {
			t.Fatal(err)
		}
		if got := textOf(find(root, "header")); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func reportOf(t *testing.T, v *Verdict) []byte {
	t.Helper()
	var page bytes.Buffer
	if err := WriteHTML(&page, v); err != nil {
		t.Fatal(err)
	}
	return page.Bytes()
}

// balanced says whether each element is closed where it should be: a browser would
// mend it, and might mend it wrongly.
func balanced(t *testing.T, page []byte) {
	t.Helper()
	void := map[string]bool{"meta": true, "br": true}
	var open []string
	for z := html.NewTokenizer(bytes.NewReader(page)); ; {
		switch z.Next() {
		case html.ErrorToken:
			if len(open) > 0 {
				t.Errorf("left open: %v", open)
			}
			return
		case html.StartTagToken:
			if name, _ := z.TagName(); !void[string(name)] {
				open = append(open, string(name))
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			if len(open) == 0 || open[len(open)-1] != string(name) {
				t.Fatalf("</%s> closes %v", name, open)
			}
			open = open[:len(open)-1]
		}
	}
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func find(n *html.Node, element string) *html.Node {
	if n == nil {
		return nil
	}
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && d.Data == element {
			return d
		}
	}
	return nil
}

func textOf(n *html.Node) string {
	if n == nil {
		return ""
	}
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

var reportStart = time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)

// reportSamples are runs as they may come.
func reportSamples() map[string]*Verdict {
	smoke := &Verdict{Script: "baseline", Smoke: true, Passed: true, Start: reportStart, End: reportStart.Add(18 * time.Second),
		Gates: []Gate{{"http_reqs{scenario:users_10}", "count>0", pointer(12), true}}}
	for i, name := range []string{"users_10", "users_50", "users_100"} { // of a second each
		at := reportStart.Add(time.Duration(6*i) * time.Second)
		smoke.Stages = append(smoke.Stages, Stage{Name: name, Start: at, End: at.Add(time.Second), State: Unmeasured})
	}
	nan := math.NaN()
	odd := saturatedBaseline() // every figure is none
	odd.Limit, odd.Lateness = &nan, &Spread{N: 1, P50: nan, P99: math.Inf(1)}
	odd.Gates[0].Value, odd.Gates[1].Value = &nan, pointer(math.Inf(1))
	bad := Spread{N: 3, Mean: nan, P50: math.Inf(1), P95: nan, P99: math.Inf(-1), Max: nan}
	level := Level{nan, nan, math.Inf(1), nan, nan}
	for i := range odd.Stages {
		s := &odd.Stages[i]
		*s.Client = Client{Requests: 1, RPS: nan, InFlight: math.Inf(1), TTFT: bad, Duration: bad, Speed: bad}
		*s.Server = Server{RPS: &nan, TTFT: &bad, P95Range: &Range{10000, math.Inf(1)}, Queue: &level, GPU: &level, KVCache: &level, GPUHeat: &level, Retries: &nan,
			Outcomes: map[string]float64{"ok": nan, "timeout": math.Inf(1)}, States: map[string]float64{"idle": nan}}
		for j := range s.Guideline {
			s.Guideline[j].K6, s.Guideline[j].Gateway = &nan, &nan
		}
	}
	for i := range odd.Series {
		for j := range odd.Series[i].Points {
			odd.Series[i].Points[j].Value = []float64{nan, math.Inf(1), 1e300, 3}[j%4]
		}
	}
	odd.Sides = []Side{{Name: "a", Client: &Client{RPS: nan}}, {Name: "b", Client: &Client{RPS: math.Inf(1)}}, {Name: "c"}}
	return map[string]*Verdict{
		"baseline": saturatedBaseline(),
		"sweep":    longSweep(),
		"failing":  failingRun(),
		"compare":  comparison(),
		"hostile":  hostile(),
		"odd":      odd,
		"smoke":    smoke,
		"nothing":  {Start: reportStart, End: reportStart},
		"zero":     {},
	}
}

func pointer(v float64) *float64 { return &v }

// spreadOf is a distribution with a tail like those of real queues.
func spreadOf(n int, p50, p95, p99 float64) Spread {
	return Spread{N: n, Mean: p50 * 1.07, P50: p50, P95: p95, P99: p99, Max: p99 * 1.3}
}

// seriesOf is a value every five seconds, as curve has it, with some noise.
func seriesOf(v *Verdict, panel, name, unit string, curve func(second float64) float64) {
	noise := rand.New(rand.NewPCG(1, uint64(len(v.Series))))
	s := Series{Panel: panel, Name: name, Unit: unit}
	for at := v.Start; !at.After(v.End); at = at.Add(5 * time.Second) {
		value := curve(at.Sub(v.Start).Seconds()) * (1 + 0.06*noise.NormFloat64())
		if unit == "%" {
			value = min(value, 100)
		}
		s.Points = append(s.Points, Point{at, value})
	}
	v.Series = append(v.Series, s)
}

// saturatedBaseline is a baseline of a box that 100 users are too many for.
func saturatedBaseline() *Verdict {
	v := &Verdict{Script: "baseline", Start: reportStart, End: reportStart.Add(7*time.Minute + 30*time.Second)}
	v.Gates = []Gate{
		{"http_req_duration", "p(95)<5000", pointer(3312.4), true},
		{"http_req_duration", "p(99)<10000", pointer(3907.9), true},
		{"http_req_duration{expected_response:true}", "p(95)<5000", pointer(3312.4), true},
		{"http_req_duration{expected_response:true}", "avg>0", pointer(1544.2), true},
		{"ttft_ms", "p(95)<2000", pointer(2711.83), false},
		{"ttft_ms", "p(99)<3000", pointer(3207.2), false},
		{"tokens_per_second", "avg>30", pointer(91.73), true},
		{"failed_requests", "rate<0.05", pointer(0.0012), true},
		{"http_reqs{scenario:users_10}", "count>0", pointer(972), true},
		{"http_reqs{scenario:users_50}", "count>0", pointer(4418), true},
		{"http_reqs{scenario:users_100}", "count>0", pointer(5012), true},
	}
	for i, s := range []struct {
		name                    string
		n, failed               int
		rps, flight             float64
		ttft, duration, speed   Spread
		queue, gpu, waiting, kv Level
		state                   string
		states                  map[string]float64
	}{
		{"users_10", 972, 0, 8.08, 1.9, spreadOf(972, 11, 15, 18), spreadOf(972, 240, 480, 610), spreadOf(972, 135, 145, 150),
			Level{1.9, 0, 5, 1.8, 1.9}, Level{44, 31, 58, 42, 45}, Level{}, Level{0.01, 0, 0.02, 0.01, 0.01}, Insufficient, map[string]float64{"insufficient load": 0.94, "idle": 0.06}},
		{"users_50", 4418, 0, 36.9, 13.1, spreadOf(4418, 17, 78, 137), spreadOf(4418, 350, 690, 980), spreadOf(4418, 92.4, 104, 110),
			Level{13.1, 6, 22, 12.8, 13.3}, Level{83, 71, 92, 82, 84}, Level{0.1, 0, 2, 0.1, 0.1}, Level{0.09, 0.03, 0.15, 0.09, 0.09}, Healthy, map[string]float64{"healthy": 1}},
		{"users_100", 5012, 12, 41.6, 57, spreadOf(5000, 1104, 3140, 3460), spreadOf(5000, 1490, 3620, 4100), spreadOf(5000, 70.2, 84, 88),
			Level{57, 12, 71, 48, 61}, Level{97, 94, 99, 96, 98}, Level{38, 0, 54, 30, 43}, Level{0.11, 0.08, 0.16, 0.11, 0.11}, Overloaded, map[string]float64{"overloaded": 0.71, "approaching saturation": 0.23, "healthy": 0.06}},
	} {
		at := v.Start.Add(time.Duration(150*i) * time.Second)
		server := s.ttft
		server.P50, server.P95, server.P99, server.Max = 0.98*server.P50, 1.04*server.P95, 1.1*server.P99, 0
		speed := s.speed
		speed.Max = 0
		stage := Stage{Name: s.name, Start: at, End: at.Add(2 * time.Minute), State: s.state,
			Client: &Client{Requests: s.n, Failed: s.failed, Completed: s.n - s.failed - 3, RPS: s.rps, Ended: s.n - 3, InFlight: s.flight, TTFT: s.ttft, Duration: s.duration, Speed: s.speed},
			Server: &Server{RPS: pointer(s.rps * 1.01), TTFT: &server, P95Range: &Range{s.ttft.P95 * 0.7, s.ttft.P95 * 1.3}, Speed: &speed, Queue: &s.queue,
				Outcomes: map[string]float64{"ok": float64(s.n - s.failed), "backend_error": float64(s.failed)}, Causes: map[string]float64{"cut": float64(s.failed)}, Retries: pointer(float64(s.failed / 4)),
				Backends: &Level{2, 2, 2, 2, 2}, AllBackends: pointer(2), GPU: &s.gpu, GPUMemory: &Level{0.88, 0.88, 0.88, 0.88, 0.88}, GPUHeat: &Level{71, 60, 78, 64, 77},
				Waiting: &s.waiting, Running: &Level{14, 2, 32, 12, 15}, KVCache: &s.kv, Preemptions: pointer(0), Refused: pointer(0), PrefixHits: pointer(0.613), States: s.states}}
		stage.Guideline = rows(&stage)
		v.Stages = append(v.Stages, stage)
	}
	v.Findings = []Finding{
		{"insufficient load", "users_10", "Fewer than 4 requests were in flight per backend (1.0), and the GPUs were 44 % busy: 10 users leave most of the box unused.", "", "info"},
		{"healthy", "users_50", "50 users were served well: TTFT p95 78 ms, 92.4 tokens/s, nothing failed.", "", "good"},
		{"overloaded", "users_100", "100 users are more than can be served: TTFT p95 was 3.14 s while 57 requests were in flight and 38 of them waited in vLLM. RPS rose by no more than 13 % over 50 users.", "a second GPU, or fewer users; a larger --max-num-seqs if the KV cache (11 % full) has room, as here.", "bad"},
		{"GPU is the bottleneck", "users_100", "The GPUs were busy 97 % of the time.", "a smaller or quantized model, or more GPUs.", "warn"},
	}
	v.Missing = []string{"ECC errors: the exporter has read none of the GPUs.", "vLLM's inter-token latency of the stage users_10: too few samples."}
	// A level for each stage, and what is left of it in the rests between them.
	curve := func(a, b, c, rest float64) func(float64) float64 {
		return func(s float64) float64 {
			in := math.Mod(s, 150)
			level := []float64{a, b, c, c}[int(s/150)]
			if in > 125 {
				return rest
			}
			return rest + (level-rest)*(1-math.Exp(-(in+2)/9))
		}
	}
	unmeasured := func(f func(float64) float64) func(float64) float64 {
		return func(s float64) float64 {
			if in := math.Mod(s, 150); in > 130 || in < 3 {
				return math.NaN()
			}
			return f(s)
		}
	}
	seriesOf(v, "TTFT", "k6 p50", "ms", unmeasured(curve(11, 17, 1104, 9)))
	seriesOf(v, "TTFT", "k6 p95", "ms", unmeasured(curve(15, 78, 3140, 14)))
	seriesOf(v, "TTFT", "gateway p50", "ms", unmeasured(curve(11, 18, 1080, 9)))
	seriesOf(v, "TTFT", "gateway p95", "ms", unmeasured(curve(16, 85, 3290, 14)))
	v.Series[1].Points[40].Value = 21400 // a wild one
	seriesOf(v, "Tokens per second", "k6 mean", "tokens/s", unmeasured(curve(135, 92, 70, 136)))
	seriesOf(v, "Tokens per second", "gateway mean", "tokens/s", unmeasured(curve(134, 91, 69, 136)))
	seriesOf(v, "RPS", "k6", "requests/s", curve(8.1, 36.9, 41.6, 0))
	seriesOf(v, "RPS", "gateway", "requests/s", curve(8.1, 37.4, 42.1, 0))
	seriesOf(v, "Queue", "gateway", "", curve(1.9, 13.1, 57, 0))
	seriesOf(v, "Queue", "waiting in vLLM", "", curve(0, 0.1, 38, 0))
	seriesOf(v, "GPU", "GPU 0", "%", curve(44, 83, 94, 3))
	seriesOf(v, "GPU", "GPU 1", "%", curve(41, 79, 93, 3))
	seriesOf(v, "KV cache", "fullest engine", "%", curve(1, 9, 11, 0))
	return v
}

// longSweep is a sweep of thirty steps, known from k6 alone.
func longSweep() *Verdict {
	v := &Verdict{Script: "sweep", Passed: true, Start: reportStart, End: reportStart.Add(15 * time.Minute), Limit: pointer(44), Lateness: &Spread{N: 9120, Mean: 0.7, P50: 0.4, P95: 1.3, P99: 3.9, Max: 14.2}}
	v.Gates = []Gate{{"limit_rps", "value>=1", pointer(44), true}, {"http_reqs{scenario:sweep}", "count>0", pointer(9120), true}, {"arrival_lateness_ms", "p(99)<200", pointer(3.9), true}}
	for i := range 30 {
		rate := []float64{1, 2, 4, 8, 16, 32, 64, 48, 40, 44}[min(i, 9)] + float64(max(0, i-9))
		at := v.Start.Add(time.Duration(i) * 30 * time.Second)
		c := Client{Requests: int(rate * 30), Completed: int(rate * 30), RPS: min(rate, 45), InFlight: rate / 3, TTFT: spreadOf(int(rate*30), 12+rate, 20+rate*rate, 30+1.4*rate*rate), Duration: spreadOf(int(rate*30), 400, 800, 1000), Speed: spreadOf(int(rate*30), 140-rate, 150, 152)}
		state := Healthy
		if rate > 44 {
			state, c.Failed = Overloaded, int(rate)
		}
		v.Stages = append(v.Stages, Stage{Name: fmt.Sprintf("rate_%g", rate), Start: at, End: at.Add(30 * time.Second), Client: &c, State: state})
	}
	v.Findings = []Finding{{"limit", "", "The objective holds at 44 requests a second, and not at 48.", "", "good"}}
	v.Missing = []string{"The gateway's figures: no Prometheus was named."}
	seriesOf(v, "TTFT", "k6 p95", "ms", func(s float64) float64 { return 20 + s*1.5 })
	seriesOf(v, "RPS", "k6", "requests/s", func(s float64) float64 { return min(45, 1+s/12) })
	return v
}

// failingRun is one in which nothing came back: series, but of gaps.
func failingRun() *Verdict {
	v := &Verdict{Script: "soak", Start: reportStart, End: reportStart.Add(42 * time.Second)}
	v.Gates = []Gate{{"failed_requests", "rate<0.05", pointer(1), false}, {"ttft_ms", "avg>0", pointer(0), false}, {"tokens_per_second", "avg>30", pointer(0), false}}
	v.Stages = []Stage{{Name: "soak", Start: v.Start, End: v.End, Client: &Client{Requests: 410, Failed: 410, InFlight: 0.1}, State: Failing,
		Server: &Server{Outcomes: map[string]float64{"backend_error": 409, "ok": 0}, Causes: map[string]float64{"connect": 818}, Retries: pointer(409), Backends: &Level{}, AllBackends: pointer(1)}}}
	v.Findings = []Finding{{"failing", "soak", "All 410 requests failed, and nothing had a first token.", "the log of the gateway: 818 times it had no connection to a backend.", "bad"}}
	v.Missing = []string{"TTFT and tokens per second: no request ended well.", "GPU: Prometheus has no nvidia_gpu_duty_cycle of this time."}
	seriesOf(v, "TTFT", "k6 p95", "ms", func(float64) float64 { return math.NaN() })
	seriesOf(v, "RPS", "gateway", "requests/s", func(s float64) float64 { return 9.8 })
	v.Series = append(v.Series, Series{Panel: "Queue", Name: "gateway"})
	return v
}

// comparison has two sides, each measured twice.
func comparison() *Verdict {
	v := &Verdict{Script: "prefix", Passed: true, Start: reportStart, End: reportStart.Add(4 * time.Minute)}
	v.Gates = []Gate{{"failed_requests", "rate<0.05", pointer(0), true}}
	for i, side := range []string{"own", "shared", "own", "shared"} {
		at := v.Start.Add(time.Duration(i) * time.Minute)
		c := Client{Requests: 600, Completed: 597, RPS: 9.9, Ended: 597, InFlight: 4.2, TTFT: spreadOf(600, 410, 602, 711), Duration: spreadOf(600, 900, 1200, 1350), Speed: spreadOf(600, 88, 96, 99)}
		if side == "shared" {
			c.TTFT, c.Duration = spreadOf(600, 48, 97, 120), spreadOf(600, 540, 660, 700)
		}
		v.Stages = append(v.Stages, Stage{Name: fmt.Sprintf("%s_%d", side, i/2+1), Side: side, Start: at, End: at.Add(time.Minute), Client: &c, State: Healthy})
		if i < 2 {
			v.Sides = append(v.Sides, Side{Name: side, Client: &c, Hits: pointer([]float64{0.02, 0.91}[i])})
		}
	}
	v.Findings = []Finding{{"compared", "", "A shared prefix makes the first token come in 97 ms instead of 602 ms (p95).", "", "info"}}
	for _, name := range []string{"k6 p95", "gateway p95"} {
		seriesOf(v, "TTFT", name, "ms", func(s float64) float64 { return []float64{600, 100, 590, 96, 96}[int(s/60)] })
	}
	return v
}

// hostile has what a name from outside may hold.
func hostile() *Verdict {
	const name = `<script>alert("x")</script></title><b>bold'` + "`${1}\x00\xff日本"
	v := saturatedBaseline()
	v.Script = name
	v.Missing, v.Findings = []string{name}, []Finding{{name, name, name, name, name}}
	v.Gates = []Gate{{name, name, pointer(1), true}, {"ttft_ms", "p(95)<" + name, pointer(1), false}}
	for i := range v.Stages {
		s := &v.Stages[i]
		s.Name, s.Side, s.State = name, name, name
		s.Guideline[0] = Row{name, name, name, pointer(1), nil, name}
		s.Server.Outcomes, s.Server.Causes, s.Server.States = map[string]float64{name: 1}, map[string]float64{name: 1}, map[string]float64{name: 1}
	}
	for i := range v.Series {
		v.Series[i].Name, v.Series[i].Unit = name, name
	}
	v.Series = append(v.Series, Series{Panel: name, Name: name, Unit: name, Points: v.Series[0].Points})
	v.Sides = []Side{{Name: name, Client: v.Stages[0].Client}, {Name: name + "2", Client: v.Stages[1].Client}}
	return v
}
