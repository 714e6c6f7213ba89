// Package docs reads the guide as its reader does: from top to bottom, typing each
// command where the text says so. What is typed is run by tests, so that the guide
// cannot go stale.
//
// A command is a fenced block of "bash". The words after it, which no renderer shows,
// say where it can be run and for how long:
//
//	bash                          here, on one machine; it ends, and ends well
//	bash terminal=stack           here, in a terminal called stack, where it goes on until
//	                              the next command in that terminal, for which Ctrl-C makes way
//	bash cluster                  on a Kubernetes cluster (terminal=… as above)
//	bash needs=GPU                nowhere: it needs what a machine for tests has not
//
// A block of "text" right after a command is what it prints: lines of it, in this order.
// There "…" stands for anything, a run of x for letters and digits, and a number or a
// time for any other, but for whole numbers of four or five digits, which are ports and
// thresholds.
package docs

import (
	"embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Guide is the guide and the how-tos that belong to it, in the order in which they are
// read.
var Guide = []string{"monitoring.md", "tuning.md"}

//go:embed monitoring.md tuning.md
var files embed.FS

// Place is where a command can be run.
type Place string

// The places. Elsewhere is a machine that has what Block.Needs names.
const (
	Here      Place = "here"
	Cluster   Place = "cluster"
	Elsewhere Place = "elsewhere"
)

// Needs are the things that a machine for tests has not.
var Needs = []string{"GPU", "internet", "macOS", "minikube", "Docker"}

// A Block is one fenced block of commands.
type Block struct {
	File    string
	Line    int    // of its first command, from 1
	Heading string // the nearest above it
	Place   Place
	// Needs is what a machine must have for it; empty but Elsewhere.
	Needs string
	// Terminal is where it goes on after it has begun. Empty: it ends by itself.
	Terminal string
	Script   string
	// Prints is what the guide says that it prints. Empty: it says nothing.
	Prints string
}

func (b Block) String() string { return fmt.Sprintf("%s:%d (%s)", b.File, b.Line, b.Heading) }

// Blocks are the commands of the whole guide. The error names the line of the first
// block whose words mean nothing.
func Blocks() ([]Block, error) {
	var all []Block
	for _, name := range Guide {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		blocks, err := parse(name, string(text))
		if err != nil {
			return nil, err
		}
		all = append(all, blocks...)
	}
	return all, nil
}

var (
	fence   = regexp.MustCompile("^( *)```(.*)$")
	heading = regexp.MustCompile(`^#+ +(.*)$`)
)

func parse(name, text string) ([]Block, error) {
	var blocks []Block
	under := ""
	after := false // nothing but empty lines since the last command
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		open := fence.FindStringSubmatch(lines[i])
		if open == nil {
			if m := heading.FindStringSubmatch(lines[i]); m != nil {
				under = m[1]
			}
			if lines[i] != "" {
				after = false
			}
			continue
		}
		indent, words := open[1], strings.Fields(open[2])
		first := i + 1
		var inside strings.Builder
		for i++; ; i++ {
			if i == len(lines) {
				return nil, fmt.Errorf("%s:%d: this block has no end", name, first)
			}
			if lines[i] == indent+"```" {
				break
			}
			inside.WriteString(strings.TrimPrefix(lines[i], indent) + "\n")
		}
		if len(words) == 0 {
			return nil, fmt.Errorf("%s:%d: this block has no language: bash is run, text is what a command prints, and a picture is text, too", name, first)
		}
		switch words[0] {
		case "text":
			if after {
				blocks[len(blocks)-1].Prints = inside.String()
			}
			after = false
		case "bash":
			b := Block{File: name, Line: first + 1, Heading: under, Place: Here, Script: inside.String()}
			for _, word := range words[1:] {
				key, value, _ := strings.Cut(word, "=")
				switch {
				case word == "cluster":
					b.Place = Cluster
				case key == "terminal" && value != "":
					b.Terminal = value
				case key == "needs" && slices.Contains(Needs, value):
					b.Place, b.Needs = Elsewhere, value
				default:
					return nil, fmt.Errorf("%s:%d: bash %s: the words are cluster, terminal=NAME, and needs= with one of %s", name, first, word, strings.Join(Needs, ", "))
				}
			}
			blocks = append(blocks, b)
			after = true
		default:
			after = false
		}
	}
	return blocks, nil
}

var varying = regexp.MustCompile(`…|\bx+\b|(?:[0-9]+(?:[.,][0-9]+)*(?:µs|ms|[smhd])?)+|\s+`)

// Missing is the first line of what the guide says b prints that is not in what it has
// printed, each after the one before; empty if all are there.
func (b Block) Missing(printed string) string {
	printed = strings.ReplaceAll(printed, "\r", "") // HTTP ends its lines so
	for _, line := range strings.Split(b.Prints, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line == "…" {
			continue
		}
		at := pattern(line).FindStringIndex(printed)
		if at == nil {
			return line
		}
		printed = printed[at[1]:]
	}
	return ""
}

func pattern(line string) *regexp.Regexp {
	var p strings.Builder
	p.WriteString(`(?m)^\s*`)
	rest := 0
	for _, at := range varying.FindAllStringIndex(line, -1) {
		p.WriteString(regexp.QuoteMeta(line[rest:at[0]]))
		rest = at[1]
		switch word := line[at[0]:at[1]]; {
		case word == "…":
			p.WriteString(`.*`)
		case word[0] == 'x':
			p.WriteString(`[a-z0-9]+`)
		case strings.TrimSpace(word) == "":
			p.WriteString(`[ \t]+`)
		case len(word) >= 4 && len(word) <= 5 && !strings.ContainsAny(word, ".,"):
			p.WriteString(word)
		default:
			p.WriteString(`(?:[0-9]+(?:[.,][0-9]+)*(?:µs|ms|[smhd])?)+`)
		}
	}
	p.WriteString(regexp.QuoteMeta(line[rest:]) + `[ \t]*$`)
	return regexp.MustCompile(p.String())
}
