// Package k8s is a folder of manifests, and tests of them. It is a module of its
// own, so that Kubernetes' types are not the gateway's dependencies. They are those
// of Kubernetes 1.30: what is younger is not known here, and must not be used.
package k8s

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// object is one document of a manifest.
type object struct {
	metav1.Object
	kind  string
	value runtime.Object
	from  string // file and document
}

func (o object) id() string { return o.kind + "/" + o.GetName() }

// String is how messages call it.
func (o object) String() string { return o.from + ": " + o.id() }

// json is what the API server gets, in one spelling.
func (o object) json(t *testing.T) string {
	t.Helper()
	text, err := json.Marshal(o.value)
	if err != nil {
		t.Fatalf("%v: %v", o, err)
	}
	return string(text)
}

// template is the pod that a workload makes, nil of what is none.
func (o object) template() *corev1.PodTemplateSpec {
	switch v := o.value.(type) {
	case *appsv1.Deployment:
		return &v.Spec.Template
	case *appsv1.DaemonSet:
		return &v.Spec.Template
	case *appsv1.StatefulSet:
		return &v.Spec.Template
	case *batchv1.Job:
		return &v.Spec.Template
	}
	return nil
}

// operators are those whose types are too heavy to have here: only the YAML of
// their kinds is checked.
var operators = []string{"monitoring.coreos.com"}

var strict = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(testRunKind, &testRun{})
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, autoscalingv2.AddToScheme,
		networkingv1.AddToScheme, nodev1.AddToScheme, policyv1.AddToScheme, rbacv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}()

// decode reads the documents of a manifest, each into its own type: unknown
// fields, fields that are there twice, and values of a wrong type are errors.
func decode(file string, text []byte) (all []object, errs error) {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for n := 1; ; n++ {
		text, err := documents.Read()
		if err == io.EOF {
			return all, errs
		}
		from := fmt.Sprintf("%s, document %d", file, n)
		o, err := decodeOne(text)
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", from, err))
			continue
		}
		o.from = from
		all = append(all, o)
	}
}

func decodeOne(text []byte) (object, error) {
	var plain map[string]any
	if err := yaml.UnmarshalStrict(text, &plain); err != nil {
		return object{}, err
	}
	u := &unstructured.Unstructured{Object: plain}
	if u.GetAPIVersion() == "" || u.GetKind() == "" {
		return object{}, errors.New("apiVersion and kind are needed")
	}
	kind := u.GroupVersionKind()
	if kind.Group == types.KustomizationVersion[:strings.Index(types.KustomizationVersion, "/")] {
		return object{Object: u, kind: kind.Kind, value: u}, yaml.UnmarshalStrict(text, &types.Kustomization{})
	}
	if u.GetName() == "" {
		return object{}, errors.New("metadata.name is needed")
	}
	if slices.Contains(operators, kind.Group) {
		return object{Object: u, kind: kind.Kind, value: u}, nil
	}
	value, _, err := strict.Decode(text, nil, nil)
	if runtime.IsNotRegisteredError(err) {
		return object{}, fmt.Errorf("Kubernetes 1.30 has no %s of %s, nor has an operator that is known here", kind.Kind, kind.GroupVersion())
	}
	if err != nil {
		return object{}, fmt.Errorf("%s/%s: %w", kind.Kind, u.GetName(), err)
	}
	return object{Object: value.(metav1.Object), kind: kind.Kind, value: value}, nil
}

// inRepository is what messages call a file.
func inRepository(file string) string { return path.Join("k8s", filepath.ToSlash(file)) }

// read are the objects of these files.
func read(t *testing.T, files ...string) []object {
	t.Helper()
	var all []object
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := decode(inRepository(file), text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, objects...)
	}
	return all
}

// gatewayFile is no manifest: the gateway reads it, not the API server.
const gatewayFile = "components/gateway-config/gateway.yaml"

// manifests are all YAML files here with objects in them, links aside.
func manifests(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "testdata" {
			return fs.SkipDir
		}
		if err == nil && d.Type().IsRegular() && slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(file)) && filepath.ToSlash(file) != gatewayFile {
			all = append(all, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// stack are the plain files that "kubectl apply -f k8s/" finds, as objects;
// gateway are those of k8s/gateway.
func stack(t *testing.T) []object {
	t.Helper()
	files := links(t)
	for i, name := range files {
		if to, err := os.Readlink(name); err == nil {
			files[i] = to // for messages
		}
	}
	return read(t, files...)
}

func gateway(t *testing.T) []object {
	t.Helper()
	files, err := filepath.Glob("gateway/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("gateway/*.yaml: %q, %v", files, err)
	}
	return read(t, files...)
}

// render is "kubectl kustomize ." after somebody took away the "# " before these
// components in kustomization.yaml.
func render(t *testing.T, components ...string) []object {
	t.Helper()
	return rendered(t, "kustomization.yaml", "k8s/components/", components...)
}

// renderGateway is the same of k8s/gateway.
func renderGateway(t *testing.T, components ...string) []object {
	t.Helper()
	return rendered(t, "k8s/gateway/Kustomization", "../components/", components...)
}

// rendered is what a kustomization of the repository gives, with components that it
// finds in folder.
func rendered(t *testing.T, kustomization, folder string, components ...string) []object {
	t.Helper()
	from := fmt.Sprintf("%s with the components %q", kustomization, components)
	disk := filesys.MakeFsInMemory()
	text, err := os.ReadFile(filepath.Join("..", kustomization))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range components {
		off := regexp.MustCompile(`(?m)^( *)# (- ` + regexp.QuoteMeta(folder+c) + `)( |$)`)
		if !off.Match(text) {
			t.Fatalf("%s has no line %q", kustomization, "# - "+folder+c)
		}
		text = off.ReplaceAll(text, []byte("$1$2$3"))
	}
	disk.WriteFile(kustomization, text)
	for _, file := range append(manifests(t), gatewayFile) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		disk.WriteFile(filepath.Join("k8s", file), text)
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(disk, path.Dir(kustomization))
	if err != nil {
		t.Fatalf("%s: %v", from, err)
	}
	out, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	all, err := decode(from, out)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// find is the object of a type and a name, which has to be there.
func find[T runtime.Object](t *testing.T, all []object, name string) T {
	t.Helper()
	for _, o := range all {
		if v, ok := o.value.(T); ok && o.GetName() == name {
			return v
		}
	}
	t.Fatalf("there is no %v %q", reflect.TypeFor[T](), name)
	panic("unreachable")
}

func ids(all []object) []string {
	var names []string
	for _, o := range all {
		names = append(names, o.id())
	}
	slices.Sort(names)
	return names
}

// covers is whether a selector takes what has these labels.
func covers(selector, labels map[string]string) bool {
	for name, value := range selector {
		if labels[name] != value {
			return false
		}
	}
	return len(selector) > 0
}

// container is the first one: ours, which kubectl logs and exec mean.
func container(t *testing.T, o object) corev1.Container {
	t.Helper()
	p := o.template()
	if p == nil || len(p.Spec.Containers) == 0 {
		t.Fatalf("%v has no containers", o)
	}
	return p.Spec.Containers[0]
}

func workloads(all []object) []object {
	return slices.DeleteFunc(slices.Clone(all), func(o object) bool { return o.template() == nil })
}

// portOf is the number of a port of the pod, by name or number.
func portOf(p *corev1.PodTemplateSpec, name string) (int32, bool) {
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name == name || fmt.Sprint(port.ContainerPort) == name {
				return port.ContainerPort, true
			}
		}
	}
	return 0, false
}
