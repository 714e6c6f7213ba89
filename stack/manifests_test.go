package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/util/strutil"
	"go.yaml.in/yaml/v2"

	"github.com/vllm-gateway/vllm-gateway/stack/monitor"
)

// What a cluster's Prometheus is told, in k8s/prometheus/configmap.yaml, is read
// here by Prometheus's own code. Only its discovery stands in: the real one brings
// client-go along, which takes longer to compile than all else. It runs in
// k8s/cluster_test.go.
func init() {
	discovery.RegisterConfig(&podSD{})
	discovery.RegisterConfig(&fileSD{})
}

// podSD are the fields of kubernetes_sd_configs that are in use.
type podSD struct {
	noDiscoverer `yaml:"-"`
	Role         string
	Namespaces   struct {
		Own bool `yaml:"own_namespace"`
	}
	Selectors []struct{ Role, Label string }
}

type fileSD struct {
	noDiscoverer `yaml:"-"`
	Files        []string
	Refresh      model.Duration `yaml:"refresh_interval"`
}

func (*podSD) Name() string  { return "kubernetes" }
func (*fileSD) Name() string { return "file" }

type noDiscoverer struct{}

func (noDiscoverer) NewDiscoverer(discovery.DiscovererOptions) (discovery.Discoverer, error) {
	return nil, errors.New("only its configuration is read here")
}

func (noDiscoverer) NewDiscovererMetrics(prometheus.Registerer, discovery.RefreshMetricsInstantiator) discovery.DiscovererMetrics {
	return nil
}

// clusterFiles are the files that a cluster's Prometheus finds, by ConfigMap.
func clusterFiles(t *testing.T) map[string]map[string]string {
	t.Helper()
	text, err := os.ReadFile("../k8s/prometheus/configmap.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]string{}
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var m struct {
			Metadata struct{ Name string }
			Data     map[string]string
		}
		switch err := d.Decode(&m); {
		case err == io.EOF:
			return all
		case err != nil:
			t.Fatal(err)
		}
		all[m.Metadata.Name] = m.Data
	}
}

func clusterConfig(t *testing.T) *config.Config {
	t.Helper()
	cfg, err := config.Load(clusterFiles(t)["prometheus-config"]["prometheus.yml"], promslog.NewNopLogger())
	if err != nil {
		t.Fatalf("prometheus.yml of ConfigMap prometheus-config: %v", err)
	}
	return cfg
}

// Dashboard and rules go by the names of jobs, and by how often they are scraped.
func TestClusterScrapesAsTheStackDoes(t *testing.T) {
	cfg := clusterConfig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	jobs, err := (&stack{ports: ports{gateway: l, prometheus: l}}).jobs()
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, j := range jobs {
		want = append(want, j.Name)
	}
	for _, s := range cfg.ScrapeConfigs {
		got = append(got, s.JobName)
		if s.ScrapeInterval != model.Duration(monitor.Interval) {
			t.Errorf("job %s is scraped every %v, and by vllm-stack every %v", s.JobName, s.ScrapeInterval, monitor.Interval)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("jobs %q; those of vllm-stack are %q", got, want)
	}
	if every := cfg.GlobalConfig.EvaluationInterval; every != model.Duration(monitor.Interval) {
		t.Errorf("rules are evaluated every %v, and by vllm-stack every %v", every, monitor.Interval)
	}
	if keep := cfg.StorageConfig.TSDBConfig.Retention.Time; keep != model.Duration(7*24*time.Hour) {
		t.Errorf("retention %v, want 7d, as the guide has it", keep)
	}
}

func TestClusterRulesParse(t *testing.T) {
	rules := clusterFiles(t)["prometheus-rules"]
	if len(rules) == 0 {
		t.Fatal("ConfigMap prometheus-rules has no files")
	}
	for name, text := range rules {
		_, errs := rulefmt.Parse([]byte(text), false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
		for _, err := range errs {
			t.Errorf("%s of ConfigMap prometheus-rules: %v", name, err)
		}
	}
}

// pod is a pod as its annotations, its controller and its containers' ports make
// it a target.
type pod struct {
	namespace   string // prod
	name        string
	ip          string // 10.0.0.7
	app         string // its label
	controller  string // KIND/NAME
	phase       string // Running
	annotations map[string]string
	ports       [][]string // by container
}

// group is what Prometheus's role "pod" makes of it (discovery/kubernetes/pod.go).
func (p pod) group() *targetgroup.Group {
	const meta = model.MetaLabelPrefix + "kubernetes_"
	set := func(ls model.LabelSet, name, value string) {
		ls[meta+model.LabelName(name)] = model.LabelValue(value)
	}
	kind, controller, _ := strings.Cut(p.controller, "/")
	g := &targetgroup.Group{Labels: model.LabelSet{}}
	for name, value := range map[string]string{
		"namespace": p.namespace, "pod_name": p.name, "pod_ip": p.ip, "pod_host_ip": "192.168.0.1", "pod_node_name": "node-1",
		"pod_phase": p.phase, "pod_ready": "true", "pod_uid": "1", "pod_controller_kind": kind, "pod_controller_name": controller,
		"pod_label_app": p.app, "pod_labelpresent_app": "true",
	} {
		set(g.Labels, name, value)
	}
	for name, value := range p.annotations {
		set(g.Labels, "pod_annotation_"+strutil.SanitizeLabelName(name), value)
		set(g.Labels, "pod_annotationpresent_"+strutil.SanitizeLabelName(name), "true")
	}
	for i, container := range p.ports {
		target := func(address string) model.LabelSet {
			ls := model.LabelSet{model.AddressLabel: model.LabelValue(address)}
			set(ls, "pod_container_name", fmt.Sprint("container-", i))
			return ls
		}
		if len(container) == 0 { // one, without a port
			g.Targets = append(g.Targets, target(p.ip))
		}
		for _, port := range container {
			ls := target(net.JoinHostPort(p.ip, port))
			set(ls, "pod_container_port_number", port)
			g.Targets = append(g.Targets, ls)
		}
	}
	return g
}

// selects is whether discovery asks the API server for such pods at all.
func (sd *podSD) selects(p pod) bool {
	if sd.Namespaces.Own && p.namespace != "vllm-monitoring" {
		return false
	}
	for _, s := range sd.Selectors {
		if s.Label != "app="+p.app {
			return false
		}
	}
	return true
}

// targets are what the job would scrape of the groups: where, and under which
// labels. What has all labels in common, hidden ones too, is scraped once
// (scrapePool.sync).
func targets(t *testing.T, s *config.ScrapeConfig, groups ...*targetgroup.Group) []string {
	t.Helper()
	lb := labels.NewBuilder(labels.EmptyLabels())
	all := map[string]string{}
	for _, g := range groups {
		for _, ls := range g.Targets {
			found, err := scrape.PopulateLabels(lb, s, ls, g.Labels)
			if err != nil {
				t.Errorf("job %s, target %v: %v", s.JobName, ls, err)
			}
			if !found.IsEmpty() {
				target := scrape.NewTarget(found, s, ls, g.Labels)
				all[found.String()] = fmt.Sprint(target.URL(), " ", target.Labels(lb))
			}
		}
	}
	return slices.Sorted(maps.Values(all))
}

func TestClusterFindsPods(t *testing.T) {
	gateway := func(more ...string) map[string]string { return annotations("vllm-gateway", more...) }
	vllm := func(more ...string) map[string]string { return annotations("vllm", more...) }
	const where = `namespace="prod", node="node-1", pod=`
	for name, c := range map[string]struct {
		pod  pod
		want string // "": nobody scrapes it
	}{
		"gateway":                {pod{name: "gw-1", annotations: gateway("port", "9000")}, `http://10.0.0.7:9000/metrics {instance="10.0.0.7:9000", job="vllm-gateway", ` + where + `"gw-1"}`},
		"gateway's default port": {pod{name: "gw-1", annotations: gateway()}, `http://10.0.0.7:9000/metrics {instance="10.0.0.7:9000", job="vllm-gateway", ` + where + `"gw-1"}`},
		"gateway elsewhere":      {pod{name: "gw-1", annotations: gateway("port", "9443", "path", "/m", "scheme", "https")}, `https://10.0.0.7:9443/m {instance="10.0.0.7:9443", job="vllm-gateway", ` + where + `"gw-1"}`},
		"no such scheme":         {pod{name: "gw-1", annotations: gateway("scheme", "ftp")}, `http://10.0.0.7:9000/metrics {instance="10.0.0.7:9000", job="vllm-gateway", ` + where + `"gw-1"}`},
		"gateway, IPv6":          {pod{name: "gw-1", ip: "fd00::7", annotations: gateway("port", "9001")}, `http://[fd00::7]:9001/metrics {instance="[fd00::7]:9001", job="vllm-gateway", ` + where + `"gw-1"}`},
		"default port, IPv6":     {pod{name: "gw-1", ip: "fd00::7", annotations: gateway()}, `http://[fd00::7]:9000/metrics {instance="[fd00::7]:9000", job="vllm-gateway", ` + where + `"gw-1"}`},

		"vLLM in a StatefulSet":   {pod{name: "vllm-0", controller: "StatefulSet/vllm", annotations: vllm()}, `http://10.0.0.7:8000/metrics {instance="vllm-0.vllm:8000", job="vllm", ` + where + `"vllm-0"}`},
		"StatefulSet, its port":   {pod{name: "vllm-0", controller: "StatefulSet/vllm", annotations: vllm("port", "8080")}, `http://10.0.0.7:8080/metrics {instance="vllm-0.vllm:8080", job="vllm", ` + where + `"vllm-0"}`},
		"StatefulSet, IPv6":       {pod{name: "vllm-0", ip: "fd00::7", controller: "StatefulSet/vllm", annotations: vllm()}, `http://[fd00::7]:8000/metrics {instance="vllm-0.vllm:8000", job="vllm", ` + where + `"vllm-0"}`},
		"vLLM in a ReplicaSet":    {pod{name: "v-7d-x", controller: "ReplicaSet/v-7d", annotations: vllm()}, `http://10.0.0.7:8000/metrics {instance="10.0.0.7:8000", job="vllm", ` + where + `"v-7d-x"}`},
		"containers and ports":    {pod{name: "v", annotations: vllm(), ports: [][]string{{"8000", "5557"}, {"15090"}, nil}}, `http://10.0.0.7:8000/metrics {instance="10.0.0.7:8000", job="vllm", ` + where + `"v"}`},
		"containers, StatefulSet": {pod{name: "vllm-1", controller: "StatefulSet/vllm", annotations: vllm(), ports: [][]string{{"8000"}, nil}}, `http://10.0.0.7:8000/metrics {instance="vllm-1.vllm:8000", job="vllm", ` + where + `"vllm-1"}`},

		"exporter":                   {pod{namespace: "vllm-monitoring", name: "g-1", app: "gpu-exporter", ports: [][]string{{"9835"}}}, `http://10.0.0.7:9835/metrics {instance="node-1", job="gpu-exporter"}`},
		"exporter, pending":          {pod{namespace: "vllm-monitoring", name: "g-1", app: "gpu-exporter", phase: "Pending"}, ""},
		"exporter of other people":   {pod{name: "g-1", app: "gpu-exporter"}, ""},
		"other pod of the namespace": {pod{namespace: "vllm-monitoring", name: "grafana-1", app: "grafana"}, ""},

		"scrape false": {pod{name: "gw-1", annotations: gateway("scrape", "false")}, ""},
		"no scrape":    {pod{name: "gw-1", annotations: map[string]string{"prometheus.io/job": "vllm"}}, ""},
		"no job":       {pod{name: "x", annotations: map[string]string{"prometheus.io/scrape": "true"}}, ""},
		"other job":    {pod{name: "x", annotations: annotations("vllm-router")}, ""},
		"nothing said": {pod{name: "x"}, ""},
		"pending":      {pod{name: "gw-1", annotations: gateway(), phase: "Pending"}, ""},
		"succeeded":    {pod{name: "v", annotations: vllm(), phase: "Succeeded"}, ""},
		"failed":       {pod{name: "v", annotations: vllm(), phase: "Failed"}, ""},
	} {
		p := c.pod.withDefaults()
		var got []string
		for _, s := range clusterConfig(t).ScrapeConfigs {
			for _, sd := range s.ServiceDiscoveryConfigs {
				if sd, ok := sd.(*podSD); ok && sd.selects(p) {
					got = append(got, targets(t, s, p.group())...)
				}
			}
		}
		if all := strings.Join(got, "\n\t"); all != c.want {
			t.Errorf("%s:\ngot\t%s\nwant\t%s", name, all, c.want)
		}
	}
}

func annotations(job string, more ...string) map[string]string {
	all := map[string]string{"prometheus.io/scrape": "true", "prometheus.io/job": job}
	for pair := range slices.Chunk(more, 2) {
		all["prometheus.io/"+pair[0]] = pair[1]
	}
	return all
}

func (p pod) withDefaults() pod {
	for field, value := range map[*string]string{&p.namespace: "prod", &p.ip: "10.0.0.7", &p.phase: "Running", &p.controller: "ReplicaSet/x"} {
		if *field == "" {
			*field = value
		}
	}
	if p.ports == nil {
		p.ports = [][]string{nil}
	}
	return p
}

// What is no pod comes from lists: the node's gateway and vLLM server, and nothing
// else until somebody writes it there.
func TestClusterReadsTargetLists(t *testing.T) {
	lists := clusterFiles(t)["prometheus-targets"]
	want := map[string]string{
		"vllm-gateway": `http://127.0.0.1:9000/metrics {instance="127.0.0.1:9000", job="vllm-gateway"}`,
		"vllm":         `http://127.0.0.1:8000/metrics {instance="127.0.0.1:8000", job="vllm"}`,
		"gpu-exporter": "",
		"prometheus":   `http://127.0.0.1:9090/metrics {instance="127.0.0.1:9090", job="prometheus"}`,
	}
	read := 0
	for _, s := range clusterConfig(t).ScrapeConfigs {
		var groups []*targetgroup.Group
		for _, sd := range s.ServiceDiscoveryConfigs {
			switch sd := sd.(type) {
			case discovery.StaticConfig:
				groups = append(groups, sd...)
			case *fileSD:
				read++
				groups = append(groups, listed(t, lists, sd.Files)...)
			}
		}
		if got := strings.Join(targets(t, s, groups...), "\n\t"); got != want[s.JobName] {
			t.Errorf("job %s:\ngot\t%s\nwant\t%s", s.JobName, got, want[s.JobName])
		}
	}
	if read != len(lists) {
		t.Errorf("ConfigMap prometheus-targets has %d lists, and %d are read", len(lists), read)
	}
}

// listed is what discovery/file makes of the lists.
func listed(t *testing.T, lists map[string]string, files []string) []*targetgroup.Group {
	t.Helper()
	var all []*targetgroup.Group
	for _, file := range files {
		text, ok := lists[strings.TrimPrefix(file, "/etc/prometheus-targets/")]
		if !ok {
			t.Errorf("ConfigMap prometheus-targets has no list for %s", file)
		}
		var groups []*targetgroup.Group
		if err := yaml.UnmarshalStrict([]byte(text), &groups); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, g := range groups {
			g.Labels = g.Labels.Merge(model.LabelSet{model.MetaLabelPrefix + "filepath": model.LabelValue(file)})
		}
		all = append(all, groups...)
	}
	return all
}
