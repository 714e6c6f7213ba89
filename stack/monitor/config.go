package monitor

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// configure writes the jobs down as Prometheus's own configuration, so that
// /api/v1/status/config shows what would do the same elsewhere.
func configure(jobs []Job) (*config.Config, error) {
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels,omitempty"`
	}
	type job struct {
		Name     string  `json:"job_name"`
		Fallback string  `json:"fallback_scrape_protocol"`
		Static   []group `json:"static_configs"`
	}
	var scrapes []job
	for _, j := range jobs {
		// A target that says nothing of its format is taken to speak the one
		// that all speak.
		s := job{Name: j.Name, Fallback: string(config.PrometheusText0_0_4)}
		for _, t := range j.Targets {
			s.Static = append(s.Static, group{[]string{t.Host}, schemeOf(t)})
		}
		scrapes = append(scrapes, s)
	}
	// JSON is YAML, and quotes what has to be quoted.
	text, err := json.Marshal(map[string]any{
		"global": map[string]any{
			"scrape_interval":     duration(Interval),
			"scrape_timeout":      duration(Interval - time.Second),
			"evaluation_interval": duration(Interval),
			// A target that goes mad must not take this process with it, which is
			// the gateway's too. A vLLM server gives some 500 kB and 2000 samples.
			"body_size_limit":          "16MB",
			"sample_limit":             50_000,
			"label_limit":              64,
			"label_value_length_limit": 4096,
		},
		"scrape_configs": scrapes,
	})
	if err != nil {
		return nil, err
	}
	cfg, err := config.Load(string(text), promslog.NewNopLogger())
	if err != nil {
		return nil, fmt.Errorf("scrape jobs: %w", err)
	}
	return cfg, nil
}

func duration(d time.Duration) string { return model.Duration(d).String() }

func schemeOf(u *url.URL) map[string]string {
	if u.Scheme == "http" {
		return nil // as Prometheus assumes
	}
	return map[string]string{model.SchemeLabel: u.Scheme}
}

// targets is what discovery would find: the static targets of the configuration,
// by job.
func (m *Monitor) targets() map[string][]*targetgroup.Group {
	byJob := map[string][]*targetgroup.Group{}
	for _, s := range m.config.ScrapeConfigs {
		for _, d := range s.ServiceDiscoveryConfigs {
			if static, ok := d.(discovery.StaticConfig); ok {
				byJob[s.JobName] = append(byJob[s.JobName], static...)
			}
		}
	}
	return byJob
}

// loader reads rule files from an fs.FS.
type loader struct {
	files  fs.FS
	parser parser.Parser
	log    *slog.Logger
}

func (l loader) Load(name string, ignoreUnknown bool, names model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	text, err := fs.ReadFile(l.files, name)
	if err != nil {
		return nil, []error{err}
	}
	groups, errs := rulefmt.Parse(text, ignoreUnknown, names, l.parser, l.log)
	for i, err := range errs {
		errs[i] = fmt.Errorf("%s: %w", name, err)
	}
	return groups, errs
}

func (l loader) Parse(expr string) (parser.Expr, error) { return l.parser.ParseExpr(expr) }
