// Package commandline reads the command lines of our programs, and the variables of
// the environment that stand for flags, into structs; and has one way for all of them
// to say what a program is, and what was typed wrong.
package commandline

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
)

// Program is what a command line is of. Its flags and commands are the fields of the
// struct that they are read into, with kong's tags.
type Program struct {
	// Name is what is typed.
	Name string
	// Version is what --version prints after the name.
	Version string
	// About says in a sentence or two what the program is; its lines are printed as
	// they are.
	About string
	// Examples are command lines that work, each with a few words after a #.
	Examples []string
	// Variables is what the names of its variables begin with: X for X_MAX_BODY of
	// --max-body. Empty: the environment is not asked.
	Variables string
	// Docs is where everything is described.
	Docs string
	// Groups are the titles of the flags' groups, in their order. Flags without one are
	// in the last.
	Groups []Group
	// Words are put in the place of ${…} in tags, beside kong's own.
	Words map[string]string
}

// Group is a group of flags: those with its key as the tag group.
type Group struct{ Key, Title string }

// Version is the type of a field for --version.
type Version = kong.VersionFlag

// Exit codes: what was asked for is wrong, or doing it has failed.
const (
	Failed = 1
	Usage  = 2
)

// Line is a command line that was read.
type Line struct {
	*kong.Context
	program Program
	// variables are those that have set a flag, by its name.
	variables map[string]string
}

// Parse reads the command line of this process. It returns if there is something to
// do: it ends the process itself after --help and --version, and on what is wrong.
func (p Program) Parse(into any) *Line {
	line, err := p.Read(into, os.Args[1:])
	if err != nil {
		line.Exit(Usage, err)
	}
	return line
}

// Read reads a command line. The error says what is wrong with it; the line is never
// nil.
func (p Program) Read(into any, args []string) (*Line, error) {
	k, err := kong.New(into, p.options()...)
	if err != nil {
		panic(err) // of the struct's tags
	}
	typed, err := k.Parse(args)
	if err == nil {
		return &Line{typed, p, variables(typed)}, nil
	}
	line := &Line{program: p}
	if wrong, ok := errors.AsType[*kong.ParseError](err); ok {
		line.Context = wrong.Context
		if typed = wrong.Context; typed.Error == nil { // else it is in what was typed
			line.variables = variables(typed)
		}
	}
	return line, errors.New(p.reword(line.Context, err.Error()))
}

func (p Program) options() []kong.Option {
	words := kong.Vars{"version": p.Name + " " + p.Version}
	for word, text := range p.Words {
		words[word] = text
	}
	options := []kong.Option{kong.Name(p.Name), words, kong.Help(p.help), kong.PostBuild(wordMistakes)}
	if p.Variables != "" {
		options = append(options, kong.DefaultEnvars(p.Variables))
	}
	return options
}

// variables are those that have set a flag: they are there, and it was not typed.
func variables(typed *kong.Context) map[string]string {
	all := map[string]string{}
	for _, f := range typed.Model.Flags {
		for _, name := range f.Envs {
			if _, ok := os.LookupEnv(name); ok {
				all[f.Name] = name
			}
		}
	}
	for _, p := range typed.Path {
		if p.Flag != nil {
			delete(all, p.Flag.Name)
		}
	}
	return all
}

// Given are the names of the flags that were typed, or set in the environment.
func (l *Line) Given() map[string]bool {
	names := map[string]bool{}
	for _, p := range l.Path {
		if p.Flag != nil {
			names[p.Flag.Name] = true
		}
	}
	for name := range l.variables {
		names[name] = true
	}
	return names
}

var anyFlag = regexp.MustCompile(`--[a-z][a-z0-9-]*`)

// Text is what an error says, with the name of a variable in the place of each flag
// that it has set: that is where the mistake is to be mended.
func (l *Line) Text(err error) string {
	return anyFlag.ReplaceAllStringFunc(err.Error(), func(flag string) string {
		if variable, ok := l.variables[flag[2:]]; ok {
			return variable
		}
		return flag
	})
}

// Exit ends the process with a code, and says why on stderr, with the program's name
// before each line.
func (l *Line) Exit(code int, err error) {
	for line := range strings.SplitSeq(strings.TrimRight(l.Text(err), "\n"), "\n") {
		fmt.Fprintf(os.Stderr, "%s: %s\n", l.program.Name, line)
	}
	os.Exit(code)
}
