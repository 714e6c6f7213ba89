package main

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"net/url"
	"runtime/debug"
	"strings"
)

// sbom says in CycloneDX what a program is made of, by what Go has written into it:
// each module with its version and its go.sum, and Go's library. There is no serial
// number and no time in it, so that it is the same each time.
func sbom(name, version, binary string) ([]byte, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	self := component{
		Ref: name, Type: "application", Name: name, Version: version,
		Purl:     purl(ours, version) + "#" + strings.TrimPrefix(strings.TrimPrefix(info.Path, ours), "/"),
		Licenses: []licence{{Expression: "Apache-2.0"}},
	}
	for _, s := range info.Settings {
		if s.Key == "GOOS" || s.Key == "GOARCH" {
			self.Properties = append(self.Properties, property{s.Key, s.Value})
		}
	}
	doc := document{
		Format: "CycloneDX", Spec: "1.6", Version: 1,
		Metadata: metadata{Component: self},
	}
	used := dependency{Ref: name}
	add := func(c component) {
		c.Ref, c.Type, c.Scope = c.Purl, "library", "required"
		doc.Components = append(doc.Components, c)
		used.On = append(used.On, c.Ref)
	}
	for _, m := range linked(info) {
		add(component{Name: m.Path, Version: m.Version, Purl: purl(m.Path, m.Version), Properties: []property{{"go.sum", m.Sum}}})
	}
	// A build for trial may be of a Go that tells more than its version.
	goVersion, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	add(component{Name: "stdlib", Version: goVersion, Purl: purl("stdlib", goVersion)})
	doc.Dependencies = []dependency{used}
	data, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// ours is the module's path, and the beginning of that of the module beside it.
const ours = "github.com/vllm-gateway/vllm-gateway"

// linked are others' modules, as they were built: what replaces one is what is in
// the program.
func linked(info *debug.BuildInfo) []debug.Module {
	var all []debug.Module
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		if strings.HasPrefix(m.Path, ".") { // a folder of the repository
			continue
		}
		all = append(all, *m)
	}
	return all
}

// purl is a package's URL, which scanners go by.
func purl(path, version string) string {
	return fmt.Sprintf("pkg:golang/%s@%s", path, url.QueryEscape(version))
}

// What there is of CycloneDX 1.6.
type (
	document struct {
		Format       string       `json:"bomFormat"`
		Spec         string       `json:"specVersion"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Component component `json:"component"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version"`
		Scope      string     `json:"scope,omitempty"`
		Licenses   []licence  `json:"licenses,omitempty"`
		Purl       string     `json:"purl"`
		Properties []property `json:"properties,omitempty"`
	}
	licence struct {
		Expression string `json:"expression"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref string   `json:"ref"`
		On  []string `json:"dependsOn"`
	}
)
