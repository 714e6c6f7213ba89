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

// The gateway's gates are in seconds, k6's in milliseconds.
func TestGatesHaveTheirUnit(t *testing.T) {
	for _, c := range []struct {
		g          Gate
		text, html string
	}{
		{Gate{"ttft_ms", "p(95)<2000", 1234.5, true}, "1.23 s", "1234 ms"},
		{Gate{"gateway_time_to_first_token_seconds", "p(95)<2", 2.345, false}, "2.35 s", "2.345 s"},
		{Gate{"gateway_request_duration_seconds", "p(99)<10", 0.25, true}, "250 ms", "0.25 s"},
		{Gate{"gateway_tokens_per_second", "avg>30", 29.5, false}, "29.5", "29.5"},
		{Gate{`gateway_requests_total{outcome!="ok"}`, "rate<0.05", 0.0625, false}, "6.2 %", "0.0625 (6.2 %)"},
		{Gate{"k6_limit_rps", "value>0", 56, true}, "56", "56"},
	} {
		if got := c.g.value(); got != c.text {
			t.Errorf("%s: text says %q, want %q", c.g.Metric, got, c.text)
		}
		if got := c.g.Measured(); got != c.html {
			t.Errorf("%s: the report says %q, want %q", c.g.Metric, got, c.html)
		}
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
