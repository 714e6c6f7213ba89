package commandline

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// help prints what --help shows. Nothing is wrapped: texts are written so that they
// fit 80 columns, a flag to a line, and [Check] holds that.
func (p Program) help(_ kong.HelpOptions, typed *kong.Context) error {
	var b strings.Builder
	if command := typed.Selected(); command != nil {
		p.helpCommand(&b, command)
	} else {
		p.helpAll(&b, typed.Model)
	}
	_, err := io.WriteString(typed.Stdout, b.String())
	return err
}

func (p Program) helpAll(b *strings.Builder, model *kong.Application) {
	fmt.Fprintf(b, "%s\n", p.About)
	if len(p.Examples) > 0 {
		b.WriteString("\nExamples:\n")
		for _, example := range p.Examples {
			fmt.Fprintf(b, "  %s\n", example)
		}
	}
	var commands rows
	for _, c := range model.Children {
		if !c.Hidden {
			commands.add(call(c), c.Help)
		}
	}
	if len(commands.all) > 0 {
		b.WriteString("\nCommands:\n")
		commands.print(b)
	}
	b.WriteString("\n")
	p.helpFlags(b, model.Node)
	b.WriteString("\n")
	if p.Variables != "" {
		flag := example(model.Flags)
		fmt.Fprintf(b, "Each flag can be set in the environment: --%s as %s.\n", flag.Name, flag.Envs[0])
	}
	fmt.Fprintf(b, "Everything in detail: %s.\n", p.Docs)
}

// helpCommand says what a command is for. The flags of the program go with it; they
// are not said again.
func (p Program) helpCommand(b *strings.Builder, c *kong.Node) {
	fmt.Fprintf(b, "%s %s: %s.\n", p.Name, call(c), strings.TrimSuffix(c.Help, "."))
	if c.Detail != "" {
		fmt.Fprintf(b, "\n%s\n", c.Detail)
	}
	fmt.Fprintf(b, "\nThe flags are those of %s --help.\n", p.Name)
}

func (p Program) helpFlags(b *strings.Builder, n *kong.Node) {
	groups := p.Groups
	if len(groups) == 0 {
		groups = []Group{{Title: "Flags:"}}
	}
	of := map[string]*rows{}
	width := 0
	put := func(group, left, right string) {
		if of[group] == nil {
			of[group] = &rows{}
		}
		of[group].add(left, right)
		width = max(width, utf8.RuneCountInString(left))
	}
	for _, a := range n.Positional {
		put(groups[0].Key, argument(a), a.Help)
	}
	for _, f := range last(n.Flags, "help") {
		group := groups[len(groups)-1].Key
		if f.Group != nil {
			group = f.Group.Key
		}
		put(group, usage(f), f.Help)
	}
	for _, g := range groups {
		if r := of[g.Key]; r != nil {
			fmt.Fprintln(b, g.Title)
			r.width = width // one for all groups
			r.print(b)
		}
	}
}

// last moves a flag to the end.
func last(flags []*kong.Flag, name string) []*kong.Flag {
	var all, end []*kong.Flag
	for _, f := range flags {
		if f.Name == name {
			f.Help = "print this and exit"
			end = append(end, f)
		} else if !f.Hidden {
			all = append(all, f)
		}
	}
	return append(all, end...)
}

// usage is how a flag is typed.
func usage(f *kong.Flag) string {
	switch {
	case f.Tag.Negatable != "":
		return "--[no-]" + f.Name
	case f.IsBool() && f.Short != 0:
		return fmt.Sprintf("-%c, --%s", f.Short, f.Name)
	case f.IsBool():
		return "--" + f.Name
	}
	return "--" + f.Name + "=" + f.PlaceHolder
}

// call is how a command is typed.
func call(c *kong.Node) string {
	words := []string{c.Name}
	for _, a := range c.Positional {
		if !a.Tag.Hidden {
			words = append(words, argument(a))
		}
	}
	return strings.Join(words, " ")
}

func argument(a *kong.Positional) string {
	if name := strings.ToUpper(a.Name); a.Required {
		return name
	} else {
		return "[" + name + "]"
	}
}

// example is the shortest flag of two words: it shows what becomes of the hyphen.
func example(flags []*kong.Flag) *kong.Flag {
	var best *kong.Flag
	for _, f := range flags {
		if len(f.Envs) > 0 && strings.Contains(f.Name, "-") && (best == nil || len(f.Name) < len(best.Name)) {
			best = f
		}
	}
	return best
}

// rows are lines of two columns.
type rows struct {
	all   [][2]string
	width int // of the first column, at least
}

func (r *rows) add(left, right string) {
	r.all = append(r.all, [2]string{left, right})
	r.width = max(r.width, utf8.RuneCountInString(left))
}

func (r *rows) print(b *strings.Builder) {
	for _, row := range r.all {
		line := fmt.Sprintf("  %s%*s  %s", row[0], r.width-utf8.RuneCountInString(row[0]), "", row[1])
		fmt.Fprintln(b, strings.TrimRight(line, " "))
	}
}
