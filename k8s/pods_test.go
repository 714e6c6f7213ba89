package k8s

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/vllm-gateway/vllm-gateway/dashboards"
)

func TestPods(t *testing.T) {
	all := append(stack(t), gateway(t)...)
	goodCitizens(t, all, false)
	references(t, all)
	prometheusFiles(t, all)
	grafanaFiles(t, all)
}

// goodCitizens: no pod takes more of a node than it needs, as PodSecurity's
// "restricted" has it, and more: limits, probes, images that stay what they are.
// The exporter alone may be privileged, where a component makes it so.
func goodCitizens(t *testing.T, all []object, privilegedExporter bool) {
	t.Helper()
	for _, o := range workloads(all) {
		p := o.template().Spec
		bad := func(format string, args ...any) { t.Helper(); t.Errorf("%v: %s", o, fmt.Sprintf(format, args...)) }
		s := p.SecurityContext
		if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0 {
			bad("securityContext wants runAsNonRoot: true, and a runAsUser that is a number other than 0")
		}
		if s == nil || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			bad("securityContext wants seccompProfile: {type: RuntimeDefault}")
		}
		isPrometheus := o.id() == "Deployment/prometheus"
		if mounted := p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken; mounted != isPrometheus {
			bad("automountServiceAccountToken is %v: Prometheus asks the API server, and nobody else does", mounted)
		}
		if p.HostNetwork != isPrometheus || p.HostPID || p.HostIPC {
			bad("hostNetwork %v, hostPID %v, hostIPC %v: only Prometheus shares its node's network, and nobody the rest", p.HostNetwork, p.HostPID, p.HostIPC)
		}
		if d, ok := o.value.(*appsv1.Deployment); ok && p.HostNetwork && d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
			bad("strategy %q: the new pod would wait for the old one's ports for ever, use Recreate", d.Spec.Strategy.Type)
		}
		for _, c := range append(slices.Clone(p.InitContainers), p.Containers...) {
			goodContainer(t, o, c, privilegedExporter && o.GetName() == "gpu-exporter")
		}
		for _, c := range p.Containers {
			for name, probe := range map[string]*corev1.Probe{"readinessProbe": c.ReadinessProbe, "livenessProbe": c.LivenessProbe} {
				if probe == nil {
					bad("container %s has no %s", c.Name, name)
				}
			}
		}
	}
}

// exact is an image with its registry, and a tag of a version that is not moved.
var exact = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+(/[a-z0-9-]+)+:v?\d+\.\d+\.\d+$`)

func goodContainer(t *testing.T, o object, c corev1.Container, privileged bool) {
	t.Helper()
	bad := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%v: container %s: %s", o, c.Name, fmt.Sprintf(format, args...))
	}
	if !exact.MatchString(c.Image) {
		bad("image %q: want REGISTRY/NAME:VERSION, with a version of three numbers", c.Image)
	}
	if c.ImagePullPolicy != corev1.PullIfNotPresent {
		bad("imagePullPolicy %q: want IfNotPresent, so that images may be loaded by hand", c.ImagePullPolicy)
	}
	s := c.SecurityContext
	if s == nil {
		s = &corev1.SecurityContext{}
	}
	is := func(b *bool) bool { return b != nil && *b }
	if !is(s.ReadOnlyRootFilesystem) || s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
		bad("securityContext wants readOnlyRootFilesystem: true and capabilities: {drop: [ALL]}")
	}
	if is(s.Privileged) != privileged || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation != privileged {
		bad("securityContext wants allowPrivilegeEscalation: %v, and privileged: %v; that is %v", privileged, privileged, is(s.Privileged))
	}
	for what, list := range map[string]corev1.ResourceList{"requests": c.Resources.Requests, "limits": c.Resources.Limits} {
		if list.Cpu().IsZero() || list.Memory().IsZero() {
			bad("resources.%s wants cpu and memory", what)
		}
		for name := range list {
			if strings.Contains(string(name), "/") {
				bad("resources.%s has %s: no pod here takes a GPU from those who need it", what, name)
			}
		}
	}
}

// references: what a pod names has to be there, unless it is optional; else the pod
// waits for it for ever.
func references(t *testing.T, all []object) {
	t.Helper()
	have := ids(all)
	for _, o := range workloads(all) {
		needs := func(by, kind, name string, optional *bool) {
			if id := kind + "/" + name; !slices.Contains(have, id) && (optional == nil || !*optional) {
				t.Errorf("%v: %s names %s, which no manifest has", o, by, id)
			}
		}
		p := o.template().Spec
		if p.ServiceAccountName != "" {
			needs("serviceAccountName", "ServiceAccount", p.ServiceAccountName, nil)
		}
		for _, v := range p.Volumes {
			switch {
			case v.ConfigMap != nil:
				needs("volume "+v.Name, "ConfigMap", v.ConfigMap.Name, v.ConfigMap.Optional)
			case v.Secret != nil:
				needs("volume "+v.Name, "Secret", v.Secret.SecretName, v.Secret.Optional)
			case v.Projected != nil:
				for _, s := range v.Projected.Sources {
					if s.ConfigMap != nil {
						needs("volume "+v.Name, "ConfigMap", s.ConfigMap.Name, s.ConfigMap.Optional)
					}
					if s.Secret != nil {
						needs("volume "+v.Name, "Secret", s.Secret.Name, s.Secret.Optional)
					}
				}
			case v.PersistentVolumeClaim != nil:
				needs("volume "+v.Name, "PersistentVolumeClaim", v.PersistentVolumeClaim.ClaimName, nil)
			}
		}
		for _, c := range p.Containers {
			for _, e := range c.EnvFrom {
				if e.SecretRef != nil {
					needs("envFrom", "Secret", e.SecretRef.Name, e.SecretRef.Optional)
				}
				if e.ConfigMapRef != nil {
					needs("envFrom", "ConfigMap", e.ConfigMapRef.Name, e.ConfigMapRef.Optional)
				}
			}
		}
		mounts(t, o)
	}
}

// mounts: each mount has its volume, and each volume its mount.
func mounts(t *testing.T, o object) {
	t.Helper()
	mounted := map[string]bool{}
	for _, v := range o.template().Spec.Volumes {
		mounted[v.Name] = false
	}
	for _, c := range o.template().Spec.Containers {
		for _, m := range c.VolumeMounts {
			if _, ok := mounted[m.Name]; !ok {
				t.Errorf("%v: container %s mounts volume %s, which the pod does not have", o, c.Name, m.Name)
				continue
			}
			if m.SubPath != "" {
				t.Errorf("%v: container %s mounts %s with a subPath, and so would never see a changed ConfigMap", o, c.Name, m.Name)
			}
			mounted[m.Name] = true
		}
	}
	for name, ok := range mounted {
		if !ok {
			t.Errorf("%v: no container mounts volume %s", o, name)
		}
	}
}

// files are what the first container of a Deployment finds of ConfigMaps, by path.
func files(t *testing.T, all []object, name string) map[string]string {
	t.Helper()
	p := find[*appsv1.Deployment](t, all, name).Spec.Template.Spec
	found := map[string]string{}
	for _, m := range p.Containers[0].VolumeMounts {
		for _, v := range p.Volumes {
			if v.Name != m.Name || v.ConfigMap == nil {
				continue
			}
			data := find[*corev1.ConfigMap](t, all, v.ConfigMap.Name).Data
			for _, item := range v.ConfigMap.Items {
				text, ok := data[item.Key]
				if !ok {
					t.Errorf("Deployment %s: volume %s wants key %s of ConfigMap %s, which it lacks", name, v.Name, item.Key, v.ConfigMap.Name)
				}
				found[path.Join(m.MountPath, item.Path)] = text
			}
			for key, text := range data {
				if len(v.ConfigMap.Items) == 0 {
					found[path.Join(m.MountPath, key)] = text
				}
			}
		}
	}
	return found
}

// under are the files that a pattern, such as a folder's *, finds.
func under(found map[string]string, pattern string) (texts []string) {
	for file, text := range found {
		if ok, _ := path.Match(pattern, file); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// prometheusConfig is what of prometheus.yml names files, or is named elsewhere.
type prometheusConfig struct {
	Global struct {
		Interval string `json:"scrape_interval"`
	} `json:"global"`
	RuleFiles []string `json:"rule_files"`
	Scrapes   []struct {
		Job   string `json:"job_name"`
		Lists []struct {
			Files []string `json:"files"`
		} `json:"file_sd_configs"`
	} `json:"scrape_configs"`
}

func configured(t *testing.T, all []object) (c prometheusConfig) {
	t.Helper()
	found := files(t, all, "prometheus")
	args := find[*appsv1.Deployment](t, all, "prometheus").Spec.Template.Spec.Containers[0].Args
	path := flagOf(args, "config.file")
	if err := yaml.Unmarshal([]byte(found[path]), &c); err != nil || len(c.Scrapes) == 0 {
		t.Fatalf("Prometheus's --config.file=%s: no jobs in it, %v; its files are %q", path, err, keys(found))
	}
	return c
}

// prometheusFiles: a file that is not there is no error to Prometheus, neither one
// of rules nor one of targets.
func prometheusFiles(t *testing.T, all []object) {
	t.Helper()
	c, found := configured(t, all), files(t, all, "prometheus")
	need := map[string][]string{"rule_files": c.RuleFiles}
	for _, s := range c.Scrapes {
		for _, l := range s.Lists {
			need["job "+s.Job] = append(need["job "+s.Job], l.Files...)
		}
	}
	for by, patterns := range need {
		for _, pattern := range patterns {
			if len(under(found, pattern)) == 0 {
				t.Errorf("prometheus.yml: %s names %s, and no ConfigMap puts a file there; there are %q", by, pattern, keys(found))
			}
		}
	}
	container := find[*appsv1.Deployment](t, all, "prometheus").Spec.Template.Spec.Containers[0]
	data := flagOf(container.Args, "storage.tsdb.path")
	if !slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == data && !m.ReadOnly }) {
		t.Errorf("Prometheus's --storage.tsdb.path=%s is no volume, and the root is read-only", data)
	}
}

// provisioning is what of Grafana's files names other things.
type provisioning struct {
	Datasources []struct {
		UID, URL string
		JSONData struct{ TimeInterval string }
	}
	Providers []struct{ Options struct{ Path string } }
	Groups    []struct {
		Rules []struct {
			UID, DashboardUID string
			PanelID           int
			Data              []struct{ DatasourceUID string }
		}
	}
}

func provisioned(t *testing.T, all []object) (p provisioning) {
	t.Helper()
	const folder = "/etc/grafana/provisioning/"
	found := files(t, all, "grafana")
	for _, kind := range []string{"datasources", "dashboards", "alerting"} {
		texts := under(found, folder+kind+"/*.yaml")
		if len(texts) != 1 {
			t.Fatalf("Grafana finds %d files in %s, want 1; there are %q", len(texts), folder+kind, keys(found))
		}
		if err := yaml.Unmarshal([]byte(texts[0]), &p); err != nil {
			t.Fatalf("%s%s: %v", folder, kind, err)
		}
	}
	if len(p.Datasources) != 1 || len(p.Providers) != 1 || len(p.Groups) == 0 {
		t.Fatalf("Grafana is provisioned with %d data sources, %d dashboard providers and %d alert groups, want 1, 1 and some", len(p.Datasources), len(p.Providers), len(p.Groups))
	}
	return p
}

// grafanaFiles: each provisioned thing that names another one names one that is
// there. Grafana would say so in its log, at best.
func grafanaFiles(t *testing.T, all []object) {
	t.Helper()
	p := provisioned(t, all)
	source, found := p.Datasources[0], files(t, all, "grafana")
	s := find[*corev1.Service](t, all, "prometheus")
	if want := fmt.Sprintf("http://%s:%d", s.Name, s.Spec.Ports[0].Port); source.URL != want {
		t.Errorf("Grafana's data source asks %s, and Prometheus's Service is at %s", source.URL, want)
	}
	if every := configured(t, all).Global.Interval; source.JSONData.TimeInterval != every {
		t.Errorf("Grafana's data source has timeInterval %s, and Prometheus scrapes every %s", source.JSONData.TimeInterval, every)
	}
	if got := under(found, p.Providers[0].Options.Path+"/vllm-gateway.json"); len(got) != 1 || got[0] != string(dashboards.JSON) {
		t.Errorf("Grafana looks for dashboards in %s, where dashboards/vllm-gateway.json is not; there are %q", p.Providers[0].Options.Path, keys(found))
	}
	uid, panels := dashboard(t)
	for _, g := range p.Groups {
		for _, r := range g.Rules {
			if r.DashboardUID != uid || !panels[r.PanelID] {
				t.Errorf("Grafana's alert %s is shown on panel %d of dashboard %s, which dashboard %s does not have", r.UID, r.PanelID, r.DashboardUID, uid)
			}
			for _, d := range r.Data {
				if d.DatasourceUID != source.UID && d.DatasourceUID != "__expr__" {
					t.Errorf("Grafana's alert %s asks data source %s, and the only one is %s", r.UID, d.DatasourceUID, source.UID)
				}
			}
		}
	}
}

// dashboard is the uid and the panels' ids of dashboards/vllm-gateway.json.
func dashboard(t *testing.T) (uid string, ids map[int]bool) {
	t.Helper()
	type panel struct {
		ID     int
		Panels []struct{ ID int }
	}
	var d struct {
		UID    string
		Panels []panel
	}
	if err := json.Unmarshal(dashboards.JSON, &d); err != nil {
		t.Fatal(err)
	}
	ids = map[int]bool{}
	for _, p := range d.Panels {
		ids[p.ID] = true
		for _, inner := range p.Panels {
			ids[inner.ID] = true
		}
	}
	return d.UID, ids
}

// kubectl apply keeps what it applied in an annotation, and annotations may have
// 256 KiB: kubectl create would still do, and the next apply fail.
func TestObjectsFitTheirAnnotation(t *testing.T) {
	for _, o := range append(stack(t), gateway(t)...) {
		if size := len(o.json(t)); size > 200<<10 {
			t.Errorf("%v: %d KiB of JSON, and kubectl apply can do 256", o, size>>10)
		}
	}
}

// The images of ours are those that images/ builds.
func TestImagesAreBuilt(t *testing.T) {
	registry, tag := imageConstant(t, "registry"), imageConstant(t, "tag")
	ours := 0
	for _, o := range workloads(append(stack(t), gateway(t)...)) {
		for _, c := range o.template().Spec.Containers {
			if !strings.HasPrefix(c.Image, registry) {
				continue
			}
			ours++
			if want := registry + o.GetName() + ":" + tag; c.Image != want {
				t.Errorf("%v: image %s, and images/ builds %s", o, c.Image, want)
			}
		}
	}
	if ours != 2 {
		t.Errorf("%d images of %s, want 2: gateway and exporter", ours, registry)
	}
}

// imageConstant is a string constant of images/programs.go, a program that nobody
// can import.
func imageConstant(t *testing.T, name string) string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../images/programs.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var value string
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.ValueSpec); ok && s.Names[0].Name == name && len(s.Values) == 1 {
			if text, ok := s.Values[0].(*ast.BasicLit); ok {
				value, _ = strconv.Unquote(text.Value)
			}
		}
		return true
	})
	if value == "" {
		t.Fatalf("images/programs.go has no string constant %s", name)
	}
	return value
}

// flagOf is the value of --name=value, "" without.
func flagOf(args []string, name string) string {
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, "--"+name+"="); ok {
			return v
		}
	}
	return ""
}

func keys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
