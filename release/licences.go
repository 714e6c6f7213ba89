package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// licences are the texts that must go along with a program, since what is linked
// into it is others': where each goes, and the file it is a copy of.
type licences map[string]string

// licenceName is how such files are called: licences, and the notices that
// Apache-2.0 and Go's own licence speak of.
var licenceName = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice|patents)([._-].*)?$`)

// code is what only looks like it: license.go.
var code = regexp.MustCompile(`(?i)\.(go|s|h|c|json|ya?ml|sh)$`)

// addGo adds Go's own, of whose library half of each program is made.
func (l licences) addGo() error {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	return l.addFolder("go", strings.TrimSpace(string(out)))
}

// add adds those of all packages that the program links, as they lie in the module
// cache: in a package's folder and in those above it, up to its module's. Some
// modules hold packages that they have from others.
func (l licences) add(p program, where platform) error {
	const format = `{{if not .Standard}}{{with .Module}}{{if not .Main}}{{if .Replace}}{{.Replace.Path}}{{end}}|{{.Path}}|{{.Version}}|{{.Dir}}{{end}}{{end}}|{{.Dir}}{{end}}`
	cmd := p.goCommand(where, "list", "-deps", "-f", format, p.pkg)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go list -deps: %w", err)
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		fields := strings.Split(line, "|")
		if len(fields) != 5 {
			continue // Go's own library, and the module itself
		}
		replaced, module, version, root, dir := fields[0], fields[1], fields[2], fields[3], fields[4]
		if strings.HasPrefix(replaced, ".") {
			// Ours. What it holds of others has its licence beside it.
			continue
		}
		if err := l.addPackage(module+"@"+version, root, dir); err != nil {
			return err
		}
	}
	if p.module == "stack" {
		return l.addFolder("uPlot", "stack/page/assets/uplot")
	}
	return nil
}

func (l licences) addPackage(module, root, dir string) error {
	inside, err := filepath.Rel(root, dir)
	if err != nil {
		return err
	}
	for folder := filepath.ToSlash(inside); folder != "."; folder = path.Dir(folder) {
		if err := l.addFolder(path.Join(module, folder), filepath.Join(root, folder)); err != nil && !errors.Is(err, errNoLicence) {
			return err
		}
	}
	return l.addFolder(module, root)
}

var errNoLicence = errors.New("no licence")

// addFolder adds those that lie in one folder.
func (l licences) addFolder(name, folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	found := false
	for _, e := range entries {
		if e.Type()&fs.ModeType == 0 && licenceName.MatchString(e.Name()) && !code.MatchString(e.Name()) {
			l[path.Join(name, e.Name())] = filepath.Join(folder, e.Name())
			found = true
		}
	}
	if !found {
		return fmt.Errorf("%w in %s: nothing there is called LICENSE or COPYING; what comes without a licence cannot be shipped", errNoLicence, folder)
	}
	return nil
}
