package verdict

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// k6Versions are those whose files are in testdata: runs of baseline.js with
// TIME_SCALE=0.01 against simulator and gateway, and of a script all of whose requests
// fail.
var k6Versions = []string{"1.8.1", "2.2.0"}

func k6File(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "k6-"+name+".json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func k6Unpacked(t testing.TB, name string) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(k6File(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func k6Read(t testing.TB, file []byte) *Samples {
	t.Helper()
	s, err := ReadK6(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// k6Base is when the runs of these tests begin.
var k6Base = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// k6Lines writes samples as k6 does.
type k6Lines struct{ strings.Builder }

func (l *k6Lines) point(second float64, metric string, v float64, tags ...string) {
	m := map[string]string{}
	for i := 0; i < len(tags); i += 2 {
		m[tags[i]] = tags[i+1]
	}
	encoded, _ := json.Marshal(m)
	at := k6Base.Add(time.Duration(second * 1e9)).Format(time.RFC3339Nano)
	fmt.Fprintf(l, `{"metric":%q,"type":"Point","data":{"time":%q,"value":%v,"tags":%s}}`+"\n", metric, at, v, encoded)
}

// request took so many milliseconds and ended well.
func (l *k6Lines) request(end, ms, ttft float64, tags ...string) {
	l.point(end, "http_req_duration", ms, append(tags, "expected_response", "true")...)
	l.point(end, "failed_requests", 0, tags...)
	l.point(end, "ttft_ms", ttft, tags...)
	l.point(end, "tokens_per_second", 50, tags...)
}

func (l *k6Lines) failure(end, ms float64, tags ...string) {
	l.point(end, "http_req_duration", ms, append(tags, "expected_response", "false")...)
	l.point(end, "failed_requests", 1, tags...)
}

// k6StagesOf are names with begins and ends in seconds.
func k6StagesOf(s *Samples) string {
	var all []string
	for _, stage := range s.Stages {
		all = append(all, fmt.Sprintf("%s %g-%g", stage.Name, stage.Start.Sub(k6Base).Seconds(), stage.End.Sub(k6Base).Seconds()))
	}
	return strings.Join(all, ", ")
}

// When a stage begins and ends, whatever way it is told.
func TestK6Stages(t *testing.T) {
	for _, c := range []struct {
		name    string
		write   func(l *k6Lines)
		want    string
		missing string // part of a sentence; empty: none
	}{
		{"planned", func(l *k6Lines) {
			l.point(0, "stage_seconds", 10, "scenario", "a", "script", "baseline")
			l.request(11, 2000, 100, "scenario", "a")
			l.point(15, "stage_seconds", 10, "scenario", "b", "script", "baseline")
			l.request(30, 2000, 100, "scenario", "b")
		}, "a 0-10, b 15-25", ""},
		{"the run ends before the plan", func(l *k6Lines) {
			l.point(0, "stage_seconds", 10, "scenario", "a")
			l.request(4, 2000, 100, "scenario", "a")
			l.point(5, "vus", 1)
		}, "a 0-5", "k6 ended at 12:00:05 UTC, and had planned to go on until 12:00:10 UTC: figures and gates are of what there was by then."},
		{"the run ends a moment before the plan", func(l *k6Lines) {
			l.point(0, "stage_seconds", 10, "scenario", "a")
			l.request(9.1, 2000, 100, "scenario", "a")
		}, "a 0-9.1", ""},
		{"interrupted in the first of many parts", func(l *k6Lines) {
			for i := range 3 {
				l.point(0, "stage_seconds", 10, "stage", fmt.Sprint("part_", i), "begins", fmt.Sprint(10*i))
			}
			l.request(4, 2000, 100, "stage", "part_0")
		}, "part_0 0-4", "until 12:00:30 UTC: figures and gates are of what there was by then, and of part_1 and part_2 there is nothing."},
		{"parts, all announced at once", func(l *k6Lines) {
			l.point(0, "stage_seconds", 10, "scenario", "soak", "stage", "first_third", "begins", "0")
			l.point(0, "stage_seconds", 10, "scenario", "soak", "stage", "last_third", "begins", "20.5")
			l.request(4, 2000, 100, "scenario", "soak", "stage", "first_third")
			l.request(15, 2000, 100, "scenario", "soak")
			l.request(31, 2000, 100, "scenario", "soak", "stage", "last_third")
		}, "first_third 0-10, last_third 20.5-30.5", ""},
		{"parts that the run did not reach", func(l *k6Lines) {
			l.point(0, "stage_seconds", 10, "stage", "first", "begins", "0")
			l.point(0, "stage_seconds", 10, "stage", "last", "begins", "20")
			l.request(12, 2000, 100, "stage", "first")
		}, "first 0-10", "k6 ended at 12:00:12 UTC, and had planned to go on until 12:00:30 UTC: figures and gates are of what there was by then, and of last there is nothing."},
		{"a step that broke off", func(l *k6Lines) {
			l.point(0, "stage_seconds", 30, "scenario", "sweep", "stage", "rate_8")
			l.request(3, 1000, 100, "scenario", "sweep", "stage", "rate_8")
			l.point(4, "stage_seconds", 4, "scenario", "sweep", "stage", "rate_8")
			l.request(20, 1000, 100, "scenario", "sweep", "stage", "rate_8")
		}, "rate_8 0-4", ""},
		{"of unknown length", func(l *k6Lines) {
			l.point(0, "stage_seconds", 0, "scenario", "a")
			l.request(7, 1000, 100, "scenario", "a")
			l.point(9, "vus", 1)
		}, "a 0-7", ""},
		{"not announced at all", func(l *k6Lines) {
			l.point(0, "vus", 1)
			l.request(6, 1000, 100, "scenario", "b")
			l.request(3, 2000, 100, "scenario", "default")
			l.request(5, 1000, 100, "scenario", "default")
		}, "default 1-5, b 5-6", "no stage_seconds"},
		{"nothing but the preflight", func(l *k6Lines) {
			l.point(0, "http_req_duration", 100, "group", "::setup", "scenario", "a")
		}, "", "preflight"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l k6Lines
			c.write(&l)
			s := k6Read(t, []byte(l.String()))
			if got := k6StagesOf(s); got != c.want {
				t.Errorf("stages are %s, want %s", got, c.want)
			}
			if got := strings.Join(s.Missing, "\n"); c.missing == "" && got != "" || !strings.Contains(got, c.missing) || strings.Count(got, "k6 ended") > 1 {
				t.Errorf("missing: %q, want %q in it", got, c.missing)
			}
		})
	}
}

// What a stage's figures are of: only requests that ended well within it count for
// its rate, and all for what was in flight.
func TestK6Client(t *testing.T) {
	var l k6Lines
	l.point(0, "http_req_duration", 500, "group", "::setup", "expected_response", "true")
	l.point(0, "stage_seconds", 10, "scenario", "a", "script", "baseline", "run", "smoke")
	l.request(4, 4000, 100, "scenario", "a")
	l.request(8, 4000, 200, "scenario", "a")
	l.request(12, 4000, 400, "scenario", "a") // after the end; 2 s of it within
	l.failure(9, 1000, "scenario", "a")
	l.failure(11, 1000, "scenario", "a")
	l.point(11, "failed_requests", 1, "scenario", "a") // with status 200
	l.point(11, "http_req_duration", 500, "scenario", "a", "expected_response", "true")
	s := k6Read(t, []byte(l.String()))
	if s.Script != "baseline" || !s.Smoke || len(s.Stages) != 1 {
		t.Fatalf("script %q, smoke %t, %d stages, want baseline, true, 1", s.Script, s.Smoke, len(s.Stages))
	}
	ttft := Spread{N: 3, Mean: 700. / 3, P50: 200, P95: 380, P99: 396, Max: 400}
	want := Client{
		Requests: 6, Failed: 3, Completed: 2, RPS: 0.2, Ended: 3, InFlight: 1.1,
		TTFT:     ttft,
		Duration: Spread{N: 4, Mean: 3125, P50: 4000, P95: 4000, P99: 4000, Max: 4000},
		Speed:    Spread{N: 3, Mean: 50, P50: 50, P95: 50, P99: 50, Max: 50},
	}
	if got := *s.Stages[0].Client; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// What went on in a stage's time is of the one before, too: its last requests end in it.
func TestK6AdjoiningStages(t *testing.T) {
	var l k6Lines
	for i, stage := range []string{"calm", "spike", "after"} {
		l.point(0, "stage_seconds", 10, "stage", stage, "begins", fmt.Sprint(10*i))
	}
	l.request(10, 2000, 100, "stage", "calm")
	l.request(16, 8000, 100, "stage", "calm")   // 2 s, and 6 s
	l.request(24, 12000, 100, "stage", "spike") // 8 s, and 4 s
	l.failure(25, 10000, "stage", "spike")      // 5 s, and 5 s
	l.request(30, 2000, 100, "stage", "after")
	s := k6Read(t, []byte(l.String()))
	for i, want := range []Client{
		{Requests: 2, Completed: 1, RPS: 0.1, Ended: 1, InFlight: 0.4},
		{Requests: 2, Failed: 1, Ended: 1, InFlight: 1.9},
		{Requests: 1, Completed: 1, RPS: 0.1, Ended: 3, InFlight: 1.1},
	} {
		got := *s.Stages[i].Client
		got.TTFT, got.Duration, got.Speed = Spread{}, Spread{}, Spread{}
		if got != want {
			t.Errorf("%s: got  %+v\nwant %+v", s.Stages[i].Name, got, want)
		}
	}
}

// k6 gives status 0 to an answer that was cut, too. The lines are its own, of 1.8.1; those
// of 2.2.0 are alike.
func TestK6Unanswered(t *testing.T) {
	lines := `{"type":"Point","metric":"stage_seconds","data":{"time":"2026-11-30T01:44:30Z","value":1,"tags":{"scenario":"default"}}}` + "\n"
	for _, c := range []struct {
		millisecond         int
		status, tags        string
		duration, receiving float64
	}{
		{100, "0", `"error":"dial: connection refused","error_code":"1212"`, 0, 0},
		{200, "0", `"error":"unexpected EOF","error_code":"1000"`, 101.352417, 100.261918},
		{300, "0", `"error":"EOF","error_code":"1000"`, 51.07895, 0},
		{400, "503", `"error_code":"1503"`, 5, 0},
	} {
		for metric, v := range map[string]float64{"http_req_duration": c.duration, "http_req_receiving": c.receiving} {
			lines += fmt.Sprintf(`{"metric":%q,"type":"Point","data":{"time":"2026-11-30T01:44:30.%d063611Z","value":%v,"tags":{%s,"expected_response":"false","group":"","method":"POST","name":"http://127.0.0.1:1/","scenario":"default","status":%q,"url":"http://127.0.0.1:1/"}}}`, metric, c.millisecond, v, c.tags, c.status) + "\n"
		}
	}
	if c := k6Read(t, []byte(lines)).Stages[0].Client; c.Failed != 4 || c.Unanswered != 2 {
		t.Errorf("%d failed and %d had no answer, want 4 and 2", c.Failed, c.Unanswered)
	}
}

// Someone's own script counts nothing of ours: k6's own samples must do.
func TestK6OwnScript(t *testing.T) {
	var l k6Lines
	l.point(1, "http_req_duration", 1000, "scenario", "default", "expected_response", "true")
	l.point(2, "http_req_duration", 1000, "scenario", "default", "expected_response", "false")
	l.point(4, "http_req_duration", 1000, "scenario", "default", "expected_response", "true")
	s := k6Read(t, []byte(l.String()))
	c := s.Stages[0].Client
	if c.Requests != 3 || c.Failed != 1 || c.Completed != 2 || c.TTFT.N != 0 {
		t.Errorf("got %+v, want 3 requests, 1 failed, 2 completed, no TTFT", c)
	}
	if got := strings.Join(s.Missing, "\n"); !strings.Contains(got, "ttft_ms") {
		t.Errorf("missing: %q, want that there is no ttft_ms", got)
	}
}

func TestK6SidesAndTheRest(t *testing.T) {
	var l k6Lines
	for i, side := range []string{"shared", "own", "shared", "own"} {
		begin, stage := float64(10*i), fmt.Sprint("part_", i)
		l.point(begin, "stage_seconds", 10, "stage", stage, "side", side)
		for j := range i + 1 {
			l.request(begin+9, 1000, float64(100*(i+1)+j), "stage", stage, "side", side)
		}
	}
	for i := range 100 {
		l.point(40, "arrival_lateness_ms", float64(i), "scenario", "sweep")
	}
	l.point(20, "limit_rps", 4)
	l.point(40, "limit_rps", 6)
	for _, v := range []float64{1, 9, 5} {
		l.point(40, "ttft_drift", v)
	}
	s := k6Read(t, []byte(l.String()))
	if len(s.Sides) != 2 || s.Sides[0].Name != "shared" || s.Sides[1].Name != "own" {
		t.Fatalf("sides are %+v, want shared and own", s.Sides)
	}
	if c := s.Sides[0].Client; c.Requests != 4 || c.RPS != 0.2 || c.TTFT.N != 4 || c.TTFT.P50 != 300.5 {
		t.Errorf("shared is %+v, want the 4 requests of two stages together, over 20 s", c)
	}
	if s.Lateness == nil || s.Lateness.P50 != 49.5 || s.Lateness.Max != 99 {
		t.Errorf("lateness is %+v, want 0 to 99", s.Lateness)
	}
	if s.Limit == nil || *s.Limit != 6 {
		t.Errorf("limit is %v, want the last, 6", s.Limit)
	}
}

// A killed k6 leaves a file that ends anywhere. What there is counts, and the verdict
// says that there was more.
func TestK6Cut(t *testing.T) {
	whole := k6Unpacked(t, "1.8.1")
	zipped := k6File(t, "1.8.1")
	for _, c := range []struct {
		name string
		file []byte
	}{
		{"in mid-line", whole[:len(whole)/2]},
		{"in mid-file, zipped", zipped[:len(zipped)/2]},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := k6Read(t, c.file)
			if !s.Cut || !slices.ContainsFunc(s.Missing, func(says string) bool { return strings.Contains(says, "end in the middle of line ") }) {
				t.Errorf("cut is %t, missing is %q: want that it says so", s.Cut, s.Missing)
			}
			if len(s.Stages) == 0 || s.Stages[0].Client.Requests == 0 {
				t.Errorf("stages are %+v, want what there was", s.Stages)
			}
		})
	}
	if s := k6Read(t, bytes.TrimSuffix(whole, []byte("\n"))); s.Cut {
		t.Error("a file whose last line is whole is called cut")
	}
}

func TestK6NotK6s(t *testing.T) {
	good := strings.SplitAfter(string(k6Unpacked(t, "2.2.0")), "\n")[:3]
	for _, c := range []struct{ name, file, want string }{
		{"nothing", "", "there is none"},
		{"a summary", "{\n  \"metrics\": {}\n}\n", "line 1: it is no JSON of k6's"},
		{"text", "metric_name,timestamp,metric_value\n", "line 1: it is no JSON"},
		{"other JSON", "{\"level\":\"info\"}\n", "line 1: it is no \"Metric\" and no \"Point\""},
		{"one line, broken off", `{"metric":"a"`, "line 1: "},
		{"something else in the middle", good[0] + good[1] + "what is this\n" + good[2], "line 3: it is no JSON"},
		{"a time that cannot be", strings.Replace(good[1], `"time":"2026`, `"time":"0026`, 1), "line 1: its time 0026"},
		{"a value that cannot be", `{"type":"Point","metric":"ttft_ms","data":{"time":"2026-03-01T12:00:00Z","value":1e300}}` + "\n", "line 1: 1e+300 cannot be"},
		{"a line without end", strings.Repeat("x", 2<<20), "line 1: it is longer"},
		{"a broken archive", "\x1f\x8bnothing", "gzip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := ReadK6(strings.NewReader(c.file)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q in it", err, c.want)
			}
		})
	}
}

// k6 1.8.1 writes +Inf as it is, which is no JSON; 2.2.0 leaves such samples out.
func TestK6Infinity(t *testing.T) {
	var l k6Lines
	l.point(0, "stage_seconds", 1, "scenario", "a")
	l.point(1, "tokens_per_second", 50, "scenario", "a")
	file := l.String() + strings.Replace(l.String(), `"value":50,`, `"value":+Inf,`, 1)
	if s := k6Read(t, []byte(file)); s.Stages[0].Client.Speed.N != 1 {
		t.Errorf("got %+v, want the one sample that is a number", s.Stages[0].Client.Speed)
	}
}

func TestK6Series(t *testing.T) {
	var l k6Lines
	l.point(0, "stage_seconds", 100, "scenario", "a")
	l.request(2.5, 1500, 100, "scenario", "a") // open from 1 to 2.5
	l.request(2.75, 1750, 300, "scenario", "a")
	l.failure(4.5, 500, "scenario", "a")
	l.point(100, "vus", 0)
	s := k6Read(t, []byte(l.String()))
	got := map[string][]Point{}
	for _, line := range s.Series {
		got[line.Panel+"/"+line.Name] = line.Points
	}
	for _, c := range []struct {
		line string
		at   int
		want float64
	}{
		{"TTFT/k6 p50", 2, 200},
		{"TTFT/k6 p95", 2, 290},
		{"TTFT/k6 p95", 3, math.NaN()},
		{"Tokens per second/k6 mean", 2, 50},
		{"RPS/k6", 2, 2},
		{"RPS/k6", 4, 0},
		{"RPS/k6 failed", 4, 1},
		{"Queue/k6 in flight", 0, 0},
		{"Queue/k6 in flight", 1, 2},
		{"Queue/k6 in flight", 2, 1.25},
		{"Queue/k6 in flight", 4, 0.5},
	} {
		points := got[c.line]
		if len(points) != 100 {
			t.Fatalf("%s has %d points, want one for each of 100 s", c.line, len(points))
		}
		p := points[c.at]
		if p.Value != c.want && !(math.IsNaN(p.Value) && math.IsNaN(c.want)) {
			t.Errorf("%s, bin %d: %g, want %g", c.line, c.at, p.Value, c.want)
		}
		if at := p.At.Sub(k6Base); at != time.Duration(c.at)*time.Second+500*time.Millisecond {
			t.Errorf("%s, bin %d is at %v, want its middle", c.line, c.at, at)
		}
	}
}

func TestK6Bins(t *testing.T) {
	for _, c := range []struct {
		lasts time.Duration
		n     int
		width time.Duration
	}{
		{0, 1, time.Second},
		{16 * time.Second, 16, time.Second},
		{60 * time.Second, 60, time.Second},
		{450 * time.Second, 90, 5 * time.Second},
		{30 * time.Minute, 90, 20 * time.Second},
		{24 * time.Hour, 144, 10 * time.Minute},
		{40 * 24 * time.Hour, 120, 8 * time.Hour},
	} {
		b := k6BinsOf(k6Base.UnixNano(), k6Base.Add(c.lasts).UnixNano())
		if b.n != c.n || time.Duration(b.width) != c.width {
			t.Errorf("%v has %d bins of %v, want %d of %v", c.lasts, b.n, time.Duration(b.width), c.n, c.width)
		}
	}
}

// Real runs: what a stage was can be counted in k6's own summary of them.
func TestK6RealRuns(t *testing.T) {
	for version, requests := range map[string][]int{"1.8.1": {11, 52, 102}, "2.2.0": {12, 52, 101}} {
		t.Run(version, func(t *testing.T) {
			s := k6Read(t, k6File(t, version))
			if s.Script != "baseline" || !s.Smoke || s.Cut || len(s.Stages) != 3 {
				t.Fatalf("script %q, smoke %t, cut %t, %d stages, want baseline, true, false, 3", s.Script, s.Smoke, s.Cut, len(s.Stages))
			}
			for i, stage := range s.Stages {
				c := stage.Client
				if stage.Name != []string{"users_10", "users_50", "users_100"}[i] || stage.End.Sub(stage.Start) != 1200*time.Millisecond {
					t.Errorf("stage %d is %s of %v, want 1.2 s", i, stage.Name, stage.End.Sub(stage.Start))
				}
				if c.Requests != requests[i] || c.Failed != 0 || c.TTFT.N != requests[i] || c.Speed.N != requests[i] || c.Duration.N != requests[i] {
					t.Errorf("%s is %+v, want %d requests", stage.Name, c, requests[i])
				}
				if c.Completed == 0 || c.Completed > c.Requests || c.RPS != float64(c.Completed)/1.2 {
					t.Errorf("%s completed %d, %g a second, want some, over 1.2 s", stage.Name, c.Completed, c.RPS)
				}
				// Each user is waiting from the first moment on.
				if users := []float64{10, 50, 100}[i]; c.InFlight > users || c.InFlight < users/10 {
					t.Errorf("%s had %g in flight, want at most its users", stage.Name, c.InFlight)
				}
			}
			if len(s.Series) == 0 || len(s.Missing) != 1 {
				t.Errorf("%d series, missing %q, want pictures, and only some gates missing", len(s.Series), s.Missing)
			}
		})
	}
}

func FuzzK6(f *testing.F) {
	var l k6Lines
	l.point(0, "stage_seconds", 2, "scenario", "a", "begins", "1", "side", "x")
	l.request(2, 1000, 100, "scenario", "a")
	l.failure(3, 1000, "scenario", "a")
	l.point(3, "arrival_lateness_ms", 3)
	whole := k6Unpacked(f, "1.8.1")
	f.Add([]byte(l.String()))
	f.Add(whole[:4<<10])
	f.Add(k6File(f, "2.2.0-failing"))
	f.Add([]byte(`{"type":"Metric","metric":"a","data":{"type":"trend","thresholds":["p(95)<1",{"threshold":"avg>2"}],"submetrics":[{"name":"a","tags":{"b":"c"}}]}}` + "\n" +
		`{"metric":"a","type":"Point","data":{"time":"2100-12-31T23:59:59Z","value":-9e17,"tags":{"b":"c","scenario":"d"}}}` + "\n" +
		`{"metric":"http_req_duration","type":"Point","data":{"time":"1971-01-01T00:00:00Z","value":9e17,"tags":{"scenario":"d"}}}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		s, err := ReadK6(bytes.NewReader(file))
		if err != nil {
			return
		}
		// JSON has no NaN and no infinity.
		if _, err := json.Marshal(Verdict{Stages: s.Stages, Sides: s.Sides, Gates: s.Gates, Lateness: s.Lateness, Limit: s.Limit}); err != nil {
			t.Error(err)
		}
		for _, stage := range s.Stages {
			if stage.Client.Completed+stage.Client.Failed < 0 || stage.End.Before(stage.Start) {
				t.Errorf("%+v ends before it begins", stage)
			}
		}
		for _, line := range s.Series {
			if len(line.Points) > 151 {
				t.Errorf("%s has %d points", line.Name, len(line.Points))
			}
			for _, p := range line.Points {
				if math.IsInf(p.Value, 0) {
					t.Errorf("%s is %g at %v", line.Name, p.Value, p.At)
				}
			}
		}
		_ = s.ReadSummary(bytes.NewReader(file))
	})
}

// A whole baseline is about 240,000 lines.
func BenchmarkK6(b *testing.B) {
	whole := k6Unpacked(b, "1.8.1")
	file := bytes.Repeat(whole, 240_000/bytes.Count(whole, []byte("\n")))
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadK6(bytes.NewReader(file)); err != nil {
			b.Fatal(err)
		}
	}
}
