package verdict

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func textOfVerdict(t *testing.T, v *Verdict) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteText(&b, v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The whole text, to the byte. go test ./internal/verdict -run Golden -update writes it
// anew; then read it.
func TestTextGolden(t *testing.T) {
	v := saturatedBaseline()
	v.Judge()
	got := textOfVerdict(t, v)
	path := filepath.Join("testdata", "text-baseline.txt")
	if *updateReport {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("%v; -update and git diff show how the text differs", err)
	}
}

// Whatever is in a verdict, its text fits a terminal and says nothing that is no number.
func TestTextFits(t *testing.T) {
	for name, v := range reportSamples() {
		for line := range strings.Lines(textOfVerdict(t, v)) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); n > 100 && name != "hostile" {
				t.Errorf("%s: a line of %d: %s", name, n, line)
			}
			if strings.TrimRight(line, " ") != line {
				t.Errorf("%s: blanks at the end of %q", name, line)
			}
			for _, word := range []string{"NaN", "Inf", "%!"} {
				if strings.Contains(line, word) {
					t.Errorf("%s: %s", name, line)
				}
			}
		}
	}
}

// Whether a run passed is not said of gates that nobody has seen.
func TestTheWord(t *testing.T) {
	held, failed := Gate{Metric: "ttft_ms", Condition: "avg>0", Held: true}, Gate{Metric: "ttft_ms", Condition: "avg>0"}
	for _, c := range []struct {
		v                 Verdict
		word, gates, held string
	}{
		{Verdict{Gates: []Gate{held}}, "PASSED", "1 of 1 held\n", "its one gate held"},
		{Verdict{Gates: []Gate{held, failed}}, "FAILED", "1 of 2 held\n", "1 of 2 gates did not hold"},
		{Verdict{Gates: []Gate{held}, Unseen: true}, "NOT ALL GATES SEEN", "1 of 1 held, and others were not seen\n", "not all gates were seen; 1 held"},
		{Verdict{Gates: []Gate{held, failed}, Unseen: true}, "FAILED", "1 of 2 held, and others were not seen\n", "1 of 2 gates did not hold"},
		{Verdict{Unseen: true}, "NOT ALL GATES SEEN", "", "not all gates were seen; 0 held"},
		{Verdict{}, "NO GATES", "", "no gates: nothing was held against anything"},
	} {
		c.v.Judge()
		text := textOfVerdict(t, &c.v)
		if c.v.Passed != (c.word == "PASSED") || !strings.HasPrefix(text, "\n"+c.word+"  load test") || !strings.Contains(text, c.gates) {
			t.Errorf("want %s, %q; passed is %t:%s", c.word, c.gates, c.v.Passed, text)
		}
		page := string(reportOf(t, &c.v))
		if !strings.Contains(page, ">"+c.word+"</span>") || !strings.Contains(page, c.held) || strings.Contains(page, `class="word bad"`) != (c.word == "FAILED") {
			t.Errorf("the report does not say %s, %q", c.word, c.held)
		}
	}
}

// The gateway's gates are in seconds, k6's in milliseconds.
func TestGatesHaveTheirUnit(t *testing.T) {
	for _, c := range []struct {
		metric, condition string
		value             float64
		want              string
	}{
		{"ttft_ms", "p(95)<2000", 1234.5, "1234 ms"},
		{"http_req_duration{scenario:users_10}", "p(95)<5000", 12.345, "12.35 ms"},
		{"gateway_time_to_first_token_seconds", "p(95)<2", 2.345, "2.345 s"},
		{"gateway_request_duration_seconds", "p(99)<10", 0.25, "0.25 s"},
		{"gateway_tokens_per_second", "avg>30", 29.5, "29.5"},
		{`gateway_requests_total{outcome!="ok"}`, "rate<0.05", 0.0625, "0.0625 (6.2 %)"},
		{"failed_requests{stage:calm}", "rate<0.05", 0.0625, "0.0625 (6.2 %)"},
		{"http_reqs", "rate>100", 34.8, "34.8"},
		{"http_reqs{scenario:users_10}", "count>0", 12345, "12345"},
		{"k6_limit_rps", "value>0", 56, "56"},
	} {
		g := Gate{Metric: c.metric, Condition: c.condition, Value: &c.value}
		if got := g.Measured(); got != c.want {
			t.Errorf("%s %s: it says %q, want %q", c.metric, c.condition, got, c.want)
		}
	}
	if got := (Gate{Metric: "ttft_ms", Condition: "avg>0"}).Measured(); got != "not measured" {
		t.Errorf("of nothing it says %q", got)
	}
}

// What was not measured is not 0.
func TestTextOfTheGatewayAlone(t *testing.T) {
	v := saturatedBaseline()
	v.Stages = append(v.Stages, Stage{Name: "unmeasured", Start: v.End, End: v.End.Add(time.Minute)})
	v.Sides = []Side{{Name: "own"}, {Name: "shared", Hits: pointer(0.61)}}
	for i := range v.Stages {
		v.Stages[i].Client = nil
	}
	v.Judge()
	text := textOfVerdict(t, v)
	for _, row := range []string{
		"users_100 5,012 12 42.0 1.08 s 3.27 s 3.81 s 75.1 57 97 % overloaded",
		"unmeasured – – – – – – – – – not measured",
		"own – – – – – – –",
		"shared – – – – – – 61 % hit",
	} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), row) {
			t.Errorf("no row %q in\n%s", row, text)
		}
	}
}
