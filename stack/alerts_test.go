package main

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/vllm-gateway/vllm-gateway/alerts"
)

// ruleGroups are those of alerts/, strictly parsed: unknown fields, expressions
// and templates that are wrong are errors.
func ruleGroups(t *testing.T) []rulefmt.RuleGroup {
	t.Helper()
	files, err := fs.Glob(alerts.Files, "*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no rules: %v", err)
	}
	var all []rulefmt.RuleGroup
	for _, file := range files {
		content, err := alerts.Files.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		groups, errs := rulefmt.Parse(content, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
		for _, err := range errs {
			t.Errorf("%s: %v", file, err)
		}
		if groups != nil {
			all = append(all, groups.Groups...)
		}
	}
	return all
}

// A rule that names a series which nobody emits, or a label which it does not
// have, is silent for ever.
func TestRulesUseWhatIsEmitted(t *testing.T) {
	known := emittedSeries(t)
	for _, job := range []string{"vllm-gateway", "vllm", "gpu-exporter"} {
		known["up"] = append(known["up"], labels.FromStrings("job", job, "instance", "host:1"))
	}
	groups := ruleGroups(t)
	recordedIn := map[string]string{}
	for _, g := range groups {
		for _, r := range g.Rules {
			if r.Record != "" {
				recordedIn[r.Record] = g.Name
			}
		}
	}

	for _, g := range groups {
		above := map[string]bool{}
		for _, r := range g.Rules {
			expr, err := parser.NewParser(parser.Options{}).ParseExpr(r.Expr)
			if err != nil {
				continue // ruleGroups has said so
			}
			parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
				s, ok := n.(*parser.VectorSelector)
				if !ok {
					return nil
				}
				if len(known[s.Name]) == 0 {
					t.Errorf("%s%s: nobody emits %s", r.Record, r.Alert, s.Name)
				}
				// In a group a rule sees what is above it; what is below was recorded
				// one round ago.
				if recordedIn[s.Name] == g.Name && !above[s.Name] {
					t.Errorf("%s%s: %s is recorded below", r.Record, r.Alert, s.Name)
				}
				for _, m := range s.LabelMatchers {
					if m.Name == model.MetricNameLabel {
						continue
					}
					if !slices.ContainsFunc(known[s.Name], func(l labels.Labels) bool { return l.Has(m.Name) }) {
						t.Errorf("%s%s: %s has no label %s", r.Record, r.Alert, s.Name, m.Name)
					}
					for value := range strings.SplitSeq(m.Value, "|") {
						given := slices.ContainsFunc(known[s.Name], func(l labels.Labels) bool { return l.Get(m.Name) == value })
						if !given && m.Name != "xid" && (m.Name != "outcome" || !slices.Contains(outcomes, value)) {
							t.Errorf("%s%s: %s has no %s=%q", r.Record, r.Alert, s.Name, m.Name, value)
						}
					}
				}
				return nil
			})
			above[r.Record] = true
		}
	}
}

// testedAlert is how promtool's tests name an alert that they see fire: in a
// sample of ALERTS, or by itself before what is expected of it.
var testedAlert = regexp.MustCompile(`labels: '\{alertname="(\w+)"|alertname: (\w+)\n\s+eval_time: \w+\n\s+exp_alerts:\n`)

func TestAlertsAreWhole(t *testing.T) {
	tests, err := os.ReadFile(filepath.Join("..", "alerts", "tests", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	tested := map[string]bool{}
	for _, m := range testedAlert.FindAllSubmatch(tests, -1) {
		tested[string(m[1])+string(m[2])] = true
	}

	seen := map[string]bool{}
	for _, g := range ruleGroups(t) {
		if g.Interval == 0 {
			t.Errorf("group %s: no interval, so a cluster's default of a minute would hold", g.Name)
		}
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			if seen[r.Alert] {
				t.Errorf("%s: twice", r.Alert)
			}
			seen[r.Alert] = true
			if !regexp.MustCompile(`^([A-Z][A-Za-z]+)$`).MatchString(r.Alert) {
				t.Errorf("%s: not CamelCase", r.Alert)
			}
			if s := r.Labels["severity"]; len(r.Labels) != 1 || !slices.Contains([]string{"info", "warning", "critical"}, s) {
				t.Errorf("%s: labels %v", r.Alert, r.Labels)
			}
			if len(r.Annotations) != 2 || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: annotations %v; want summary and description", r.Alert, r.Annotations)
			}
			if !tested[r.Alert] {
				t.Errorf("%s: no test in alerts/tests/alerts.yml sees it fire", r.Alert)
			}
		}
	}
	if len(seen) == 0 {
		t.Error("no alerts")
	}
}

// docs/monitoring.md lists the alerts that there are, with their severities.
func TestAlertsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| ([A-Z]\w+) \| (critical|warning|info) \|`).FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = row[2]
	}
	for _, g := range ruleGroups(t) {
		for _, r := range g.Rules {
			if r.Alert != "" && documented[r.Alert] != r.Labels["severity"] {
				t.Errorf("%s is %s, and docs/monitoring.md says %q", r.Alert, r.Labels["severity"], documented[r.Alert])
			}
			delete(documented, r.Alert)
		}
	}
	for name := range documented {
		t.Errorf("docs/monitoring.md lists %s, which is not there", name)
	}
}
