// Command grafana stands in for Grafana's server on the tests' cluster, where its
// image is not to be had. It is started as the image is, reads what Grafana 13.2
// reads, in the same places and by the same environment, and ends with the reason
// where Grafana would not start, or would start and be of no use.
//
// It shows that everything provisioned is mounted where Grafana looks, has only keys
// that Grafana knows (Grafana passes over others without a word), and fits together:
// data source, dashboard and rule. It has the login, and puts the rule's question to
// the real Prometheus.
//
// It does not show that the image runs under these settings, nor how a dashboard
// looks, nor the alert's times: what is over the threshold fires at once.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"go.yaml.in/yaml/v3"
)

// file has the keys that are in use, of those that Grafana knows.
type file struct {
	APIVersion  int `yaml:"apiVersion"`
	Datasources []datasource
	Providers   []provider
	Groups      []group
}

type datasource struct {
	Name, Type, Access, URL, UID string
	IsDefault                    bool           `yaml:"isDefault"`
	Editable                     bool           `yaml:"editable"`
	JSONData                     map[string]any `yaml:"jsonData"`
}

type provider struct {
	Name, Type, Folder string
	UpdateSeconds      int  `yaml:"updateIntervalSeconds"`
	AllowUIUpdates     bool `yaml:"allowUiUpdates"`
	Options            struct{ Path string }
}

type group struct {
	Name, Folder, Interval string
	Rules                  []rule
}

type rule struct {
	UID, Title, Condition, For string
	KeepFiringFor              string `yaml:"keepFiringFor"`
	NoDataState                string `yaml:"noDataState"`
	ExecErrState               string `yaml:"execErrState"`
	DashboardUID               string `yaml:"dashboardUid"`
	PanelID                    int    `yaml:"panelId"`
	Labels, Annotations        map[string]string
	Data                       []query
}

type query struct {
	RefID         string                 `yaml:"refId"`
	DatasourceUID string                 `yaml:"datasourceUid"`
	TimeRange     struct{ From, To int } `yaml:"relativeTimeRange"`
	Model         struct {
		RefID            string `yaml:"refId"`
		Expr             string
		Instant, Range   bool
		Type, Expression string // of a threshold, as what follows
		Conditions       []struct {
			Evaluator struct {
				Type   string
				Params []float64
			}
		}
	}
}

type board struct {
	json   json.RawMessage
	panels []float64
}

func main() {
	log.SetFlags(0)
	f, err := load(env("GF_PATHS_PROVISIONING", "/etc/grafana/provisioning"))
	if err := errors.Join(host(), err); err != nil {
		log.Fatal(err)
	}
	log.Print("listening on :3000")
	log.Fatal(http.ListenAndServe(":3000", f.handler()))
}

// env has the image's own value where none is given.
func env(name, image string) string { return cmp.Or(os.Getenv(name), image) }

func host() error {
	for _, dir := range []string{env("GF_PATHS_DATA", "/var/lib/grafana"), os.TempDir()} {
		f, err := os.CreateTemp(dir, "")
		if err != nil {
			return fmt.Errorf("%s is not writable: %w", dir, err)
		}
		f.Close()
		os.Remove(f.Name())
	}
	var root syscall.Statfs_t
	if err := syscall.Statfs("/", &root); err != nil || root.Flags&syscall.MS_RDONLY == 0 {
		return cmp.Or(err, errors.New("the root is writable"))
	}
	if os.Getenv("GF_PLUGINS_PREINSTALL_DISABLED") != "true" {
		return errors.New("GF_PLUGINS_PREINSTALL_DISABLED is not true: Grafana stops the data source's plugin to update it, which a read-only root prevents")
	}
	return nil
}

func load(dir string) (*file, error) {
	all := &file{}
	for _, kind := range []string{"datasources", "dashboards", "alerting", "plugins"} {
		files, err := os.ReadDir(filepath.Join(dir, kind))
		if err != nil {
			return nil, err // Grafana logs it as an error, and goes on without
		}
		for _, entry := range files {
			path := filepath.Join(dir, kind, entry.Name())
			f, err := decode(path)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			log.Printf("read %s", path)
			switch kind {
			case "datasources":
				all.Datasources = append(all.Datasources, f.Datasources...)
			case "dashboards":
				all.Providers = append(all.Providers, f.Providers...)
			case "alerting":
				all.Groups = append(all.Groups, f.Groups...)
			}
		}
	}
	if len(all.Datasources) == 0 || len(all.Providers) == 0 || len(all.Groups) == 0 {
		return nil, fmt.Errorf("%s: %d data sources, %d providers of dashboards and %d groups of rules: one of each is needed",
			dir, len(all.Datasources), len(all.Providers), len(all.Groups))
	}
	for _, d := range all.Datasources {
		if d.UID == "" || d.Name == "" || d.Type == "" || d.URL == "" {
			return nil, fmt.Errorf("data source %q needs a UID, a name, a type and a URL", d.Name)
		}
	}
	boards, err := all.dashboards()
	if err != nil {
		return nil, err
	}
	for _, g := range all.Groups {
		// Each evaluation is at a tick of Grafana's scheduler.
		if d, err := time.ParseDuration(g.Interval); err != nil || d <= 0 || d%(10*time.Second) != 0 {
			return nil, fmt.Errorf("group %q: interval %q is not a multiple of 10s", g.Name, g.Interval)
		}
		if g.Name == "" || g.Folder == "" {
			return nil, fmt.Errorf("group %q needs a name and a folder", g.Name)
		}
		for _, r := range g.Rules {
			if err := all.check(r, boards); err != nil {
				return nil, fmt.Errorf("rule %q: %w", r.Title, err)
			}
		}
	}
	return all, nil
}

func decode(path string) (f file, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return f, err
	}
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil {
		return f, err
	}
	if v := dollar(&n); v != "" {
		return f, fmt.Errorf("%q has a dollar sign, which Grafana takes for a variable", v)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil {
		return f, err
	}
	if f.APIVersion != 1 {
		return f, fmt.Errorf("apiVersion is %d, want 1", f.APIVersion)
	}
	return f, nil
}

func dollar(n *yaml.Node) string {
	if strings.Contains(n.Value, "$") {
		return n.Value
	}
	for _, c := range n.Content {
		if v := dollar(c); v != "" {
			return v
		}
	}
	return ""
}

// dashboards are read anew each time, as Grafana does after some seconds.
func (f *file) dashboards() (map[string]board, error) {
	all := map[string]board{}
	for _, p := range f.Providers {
		paths, _ := filepath.Glob(filepath.Join(p.Options.Path, "*.json"))
		if p.Name == "" || p.Type != "file" || len(paths) == 0 {
			return nil, fmt.Errorf("provider %q needs a name, the type file, and *.json in its path %q", p.Name, p.Options.Path)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			var d struct {
				UID, Title string
				Templating struct {
					List []struct {
						Name, Type string
						Query      any
					}
				}
			}
			var tree any
			if err := errors.Join(json.Unmarshal(b, &d), json.Unmarshal(b, &tree)); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			if d.UID == "" || d.Title == "" {
				return nil, fmt.Errorf("%s needs a UID and a title", path)
			}
			// What a "datasource" may be. Nobody fills in a file's __inputs.
			sources := []string{"-- Grafana --"}
			for _, ds := range f.Datasources {
				sources = append(sources, ds.UID)
				for _, v := range d.Templating.List {
					if v.Type == "datasource" && v.Query == ds.Type {
						sources = append(sources, "${"+v.Name+"}")
					}
				}
			}
			panels, err := walk(tree, sources)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			all[d.UID] = board{b, panels}
		}
	}
	return all, nil
}

// walk looks at each data source, and gives the panels' ids, those in rows too.
func walk(v any, sources []string) (panels []float64, err error) {
	var in []any
	switch v := v.(type) {
	case []any:
		in = v
	case map[string]any:
		if ds, is := v["datasource"].(map[string]any); is {
			if uid, _ := ds["uid"].(string); !slices.Contains(sources, uid) {
				return nil, fmt.Errorf("there is no data source %q", uid)
			}
		}
		if id, is := v["id"].(float64); is && v["gridPos"] != nil {
			panels = append(panels, id)
		}
		for _, e := range v {
			in = append(in, e)
		}
	}
	for _, e := range in {
		more, err := walk(e, sources)
		if err != nil {
			return nil, err
		}
		panels = append(panels, more...)
	}
	return panels, nil
}

// check knows the one kind of rule that there is: a threshold over an instant query.
func (f *file) check(r rule, boards map[string]board) error {
	if r.UID == "" || r.Title == "" {
		return errors.New("it needs a UID and a title")
	}
	for _, d := range []string{r.For, r.KeepFiringFor} {
		if _, err := time.ParseDuration(cmp.Or(d, "0s")); err != nil {
			return err
		}
	}
	if !slices.Contains([]string{"", "NoData", "Alerting", "OK", "KeepLast"}, r.NoDataState) {
		return fmt.Errorf("there is no noDataState %q", r.NoDataState)
	}
	if !slices.Contains([]string{"", "Error", "Alerting", "OK", "KeepLast"}, r.ExecErrState) {
		return fmt.Errorf("there is no execErrState %q", r.ExecErrState)
	}
	if !slices.Contains(boards[r.DashboardUID].panels, float64(r.PanelID)) {
		return fmt.Errorf("there is no panel %d in a dashboard %q", r.PanelID, r.DashboardUID)
	}
	for _, q := range r.Data {
		if q.RefID != q.Model.RefID {
			return fmt.Errorf("the model of %q calls itself %q", q.RefID, q.Model.RefID)
		}
	}
	c := r.query(r.Condition)
	if c.DatasourceUID != "__expr__" || c.Model.Type != "threshold" || len(c.Model.Conditions) != 1 ||
		c.Model.Conditions[0].Evaluator.Type != "gt" || len(c.Model.Conditions[0].Evaluator.Params) != 1 {
		return fmt.Errorf("condition %q is not a threshold to be above", r.Condition)
	}
	a := r.query(c.Model.Expression)
	if a.Model.Expr == "" || !a.Model.Instant || a.Model.Range || a.TimeRange.From <= a.TimeRange.To {
		return fmt.Errorf("%q, which the threshold is for, is not an instant query with a time range", c.Model.Expression)
	}
	_, dsErr := f.url(a.DatasourceUID)
	_, err := r.expand(nil, nil)
	return cmp.Or(dsErr, err)
}

func (r rule) query(ref string) (q query) {
	if i := slices.IndexFunc(r.Data, func(q query) bool { return q.RefID == ref }); i >= 0 {
		q = r.Data[i]
	}
	return q
}

func (f *file) url(uid string) (string, error) {
	for _, d := range f.Datasources {
		if d.UID == uid {
			return d.URL, nil
		}
	}
	return "", fmt.Errorf("there is no data source %q", uid)
}

// expand only parses, where there are no values.
func (r rule) expand(labels map[string]string, values map[string]struct{ Value float64 }) (map[string]string, error) {
	out := map[string]string{}
	for name, text := range r.Annotations {
		t, err := template.New(name).Option("missingkey=error").Funcs(template.FuncMap{ // those in use here
			"humanize": func(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) },
		}).Parse(text)
		if err != nil {
			return nil, err
		}
		var b strings.Builder
		if values != nil {
			err = t.Execute(&b, map[string]any{"Labels": labels, "Values": values})
		}
		if err != nil {
			return nil, err
		}
		out[name] = b.String()
	}
	return out, nil
}

type sample struct {
	Metric map[string]string
	Value  [2]any
}

func ask(base, expr string) ([]sample, error) {
	client := http.Client{Timeout: 5 * time.Second}
	res, err := client.PostForm(base+"/api/v1/query", url.Values{"query": {expr}})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var answer struct {
		Error string
		Data  struct{ Result []sample }
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s %s", base, res.Status, answer.Error)
	}
	return answer.Data.Result, nil
}

// alerts are the rule's series: state firing or normal.
func (f *file) alerts(r rule) ([]any, error) {
	c := r.query(r.Condition)
	a := r.query(c.Model.Expression)
	base, err := f.url(a.DatasourceUID)
	if err != nil {
		return nil, err
	}
	series, err := ask(base, a.Model.Expr)
	alerts := []any{}
	for _, s := range series {
		text, _ := s.Value[1].(string)
		v, numErr := strconv.ParseFloat(text, 64)
		annotations, expandErr := r.expand(s.Metric, map[string]struct{ Value float64 }{a.RefID: {v}})
		err = errors.Join(err, numErr, expandErr)
		state := "normal"
		if v > c.Model.Conditions[0].Evaluator.Params[0] {
			state = "firing"
		}
		alerts = append(alerts, map[string]any{"state": state, "value": v, "labels": s.Metric, "annotations": annotations})
	}
	return alerts, err
}

func (f *file) handler() http.Handler {
	mux := http.NewServeMux()
	admin := func(pattern string, get func(uid string) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			if user != env("GF_SECURITY_ADMIN_USER", "admin") || password != env("GF_SECURITY_ADMIN_PASSWORD", "admin") {
				http.Error(w, `{"message":"Invalid username or password"}`, http.StatusUnauthorized)
				return
			}
			v, err := get(r.PathValue("uid"))
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				v = map[string]string{"status": "ERROR", "message": err.Error()}
			}
			json.NewEncoder(w).Encode(v)
		})
	}
	mux.HandleFunc("GET /api/health", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"database":"ok","version":"stand-in"}`)
	})
	admin("GET /api/datasources/uid/{uid}/health", func(uid string) (any, error) {
		base, err := f.url(uid)
		if err == nil {
			_, err = ask(base, "vector(1)")
		}
		return map[string]string{"status": "OK"}, err
	})
	admin("GET /api/dashboards/uid/{uid}", func(uid string) (any, error) {
		boards, err := f.dashboards()
		if err == nil && boards[uid].json == nil {
			err = errors.New("dashboard not found")
		}
		return map[string]any{"dashboard": boards[uid].json}, err
	})
	// Grafana's own has the rules without their alerts.
	admin("GET /api/v1/provisioning/alert-rules", func(string) (any, error) {
		rules := []any{}
		for _, g := range f.Groups {
			for _, r := range g.Rules {
				alerts, err := f.alerts(r)
				if err != nil {
					return nil, fmt.Errorf("rule %q: %w", r.Title, err)
				}
				rules = append(rules, map[string]any{
					"uid": r.UID, "title": r.Title, "folder": g.Folder, "ruleGroup": g.Name, "for": r.For,
					"dashboardUid": r.DashboardUID, "panelId": r.PanelID, "alerts": alerts,
				})
			}
		}
		return rules, nil
	})
	return mux
}
