package commandline

import (
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// ofService are variables that Kubernetes sets in each pod beside a Service whose name
// begins as the program's, values and all.
var ofService = regexp.MustCompile(`_(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=[0-9]+|PORT=\w+://.*|PORT_[0-9]+_(TCP|UDP|SCTP)\w*=.*)$`)

// Strange are the variables of the environment, sorted, that begin as the program's
// do and set none of its flags: names that are mistyped.
func (l *Line) Strange() []string {
	if l.program.Variables == "" {
		return nil
	}
	known := map[string]bool{}
	var walk func(*kong.Node)
	walk = func(n *kong.Node) {
		for _, f := range n.Flags {
			for _, name := range f.Envs {
				known[name] = true
			}
		}
		for _, child := range n.Children {
			walk(child)
		}
	}
	walk(l.Model.Node)
	var strange []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, l.program.Variables+"_") && !known[name] && !ofService.MatchString(variable) {
			strange = append(strange, name)
		}
	}
	slices.Sort(strange)
	return strange
}

// Warn logs each [Line.Strange] variable, without its value.
func (l *Line) Warn(log *slog.Logger) {
	for _, name := range l.Strange() {
		log.Warn("a variable of the environment sets nothing: there is no such flag; "+l.program.Name+" --help names all", "variable", name)
	}
}
