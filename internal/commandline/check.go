package commandline

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// Check is for tests: it says what a program's --help lacks. It must have no more than
// so many lines, none of more than 80 columns, one for each flag; and every command
// line in it, and in the help of its commands, must be one that can be typed. What it
// names as the place where all is described, beside root, must have a row for each
// flag, with its default. The struct is that which the command line is read into; it
// stays as it is.
func Check(p Program, of any, lines int, root string) error {
	var wrong []error
	text, model := p.helpOf(of)
	if n := strings.Count(text, "\n"); n > lines {
		wrong = append(wrong, fmt.Errorf("--help has %d lines, of which %d fit", n, lines))
	}
	for _, f := range model.Flags {
		if n := strings.Count(text, "\n  "+usage(f)+" "); n != 1 {
			wrong = append(wrong, fmt.Errorf("--help has %d lines for --%s", n, f.Name))
		}
		if f.Help == "" {
			wrong = append(wrong, fmt.Errorf("--help says nothing of --%s", f.Name))
		}
	}
	for _, c := range model.Children {
		if c.Hidden {
			continue
		}
		help, _ := p.helpOf(of, c.Name)
		if n := strings.Count(help, "\n"); n > 24 {
			wrong = append(wrong, fmt.Errorf("%s --help has %d lines; write 24 at most", c.Name, n))
		}
		text += help
	}
	wrong = append(wrong, p.undocumented(model, root)...)
	examples := 0
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if n := utf8.RuneCountInString(line); n > 80 {
			wrong = append(wrong, fmt.Errorf("%d columns: %s", n, line))
		}
		if typed, ok := strings.CutPrefix(line, "  "+p.Name); ok {
			examples++
			if _, err := p.Read(fresh(of), arguments(typed)); err != nil {
				wrong = append(wrong, fmt.Errorf("example %q: %w", p.Name+typed, err))
			}
		}
	}
	if examples < 2 {
		wrong = append(wrong, fmt.Errorf("%d examples; give two at least", examples))
	}
	return errors.Join(wrong...)
}

// undocumented are the flags of which the first page of Docs says nothing.
func (p Program) undocumented(model *kong.Application, root string) (wrong []error) {
	page, _, _ := strings.Cut(p.Docs, ",")
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		return []error{err}
	}
	for _, f := range model.Flags {
		name, _, _ := strings.Cut(strings.TrimPrefix(usage(f), "-h, "), "=")
		if f.Name == "help" || f.Name == "version" {
			continue
		}
		rows := regexp.MustCompile("(?m)^\\|[^|]*`"+regexp.QuoteMeta(name)+"`.*$").FindAllString(string(text), -1)
		if !slices.ContainsFunc(rows, func(row string) bool { return strings.Contains(row, f.Default) }) {
			wrong = append(wrong, fmt.Errorf("%s has no row for %s with its default %q", page, name, f.Default))
		}
	}
	return wrong
}

// helpOf is what --help prints, after a command if one is named.
func (p Program) helpOf(of any, command ...string) (string, *kong.Application) {
	var out bytes.Buffer
	k, err := kong.New(fresh(of), append(p.options(), kong.Writers(&out, &out), kong.Exit(func(int) {}))...)
	if err != nil {
		panic(err)
	}
	k.Parse(append(command, "--help")) // goes on after it has printed
	return out.String(), k.Model
}

// fresh is another struct of the same kind, as it is before anything is read into it.
func fresh(of any) any { return reflect.New(reflect.TypeOf(of).Elem()).Interface() }

// arguments are the words of an example, up to what is the shell's: a comment, a pipe,
// a file for stdin.
func arguments(line string) []string {
	for _, shells := range []string{" #", " |", " <", " >"} {
		line, _, _ = strings.Cut(line, shells)
	}
	var words []string
	for word := range strings.FieldsSeq(line) {
		words = append(words, strings.Trim(word, `'"`))
	}
	return words
}
