package commandline

import (
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// fromVariable is how kong says that a value was a variable's: with the value, which
// may be a secret.
var fromVariable = regexp.MustCompile(`(?s)^--[a-z0-9-]+(.*) \(from envar ([A-Z0-9_]+)=".*"\)$`)

var notInEnum = regexp.MustCompile(`^(--[a-z-]+) must be one of (.+) but got (".*")$`)

// reword says in our words what kong says in its own; [worded] does so for values.
func (p Program) reword(typed *kong.Context, says string) string {
	if m := fromVariable.FindStringSubmatch(says); m != nil {
		return m[2] + m[1]
	}
	if m := notInEnum.FindStringSubmatch(says); m != nil {
		return fmt.Sprintf("%s: %s: write one of %s", m[1], m[3], strings.NewReplacer(`"`, "", ",", ", ").Replace(m[2]))
	}
	switch {
	case strings.HasPrefix(says, "unknown flag"), strings.HasPrefix(says, "unexpected argument"):
		if !strings.Contains(says, "did you mean") {
			says += fmt.Sprintf("; %s --help says what there is", p.Name)
		}
	case strings.HasPrefix(says, `expected "<`):
		says = fmt.Sprintf("there is something missing: %s %s", p.Name, call(typed.Selected()))
	case strings.HasPrefix(says, "bool value"): // of what is after --no-x=
		says = "a flag that begins with --no- takes no value"
	}
	return says
}

// wordMistakes puts our words round what reads each value.
func wordMistakes(k *kong.Kong) error {
	var walk func(*kong.Node)
	walk = func(n *kong.Node) {
		for _, f := range n.Flags {
			f.Mapper = worded{f.Mapper, f.IsBool()}
		}
		for _, child := range n.Children {
			walk(child)
		}
	}
	walk(k.Model.Node)
	return nil
}

// worded reads a flag's value, and says of one that cannot be read what may be written.
type worded struct {
	kong.Mapper
	isBool bool
}

func (w worded) IsBool() bool { return w.isBool }

func (w worded) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	token := ctx.Scan.Peek()
	flag := ctx.Value.Flag
	if !w.isBool && !token.IsValue() {
		if token.IsEOL() || strings.HasPrefix(token.String(), "--") {
			return fmt.Errorf("its value is missing; write %s", usage(flag))
		}
		return fmt.Errorf("its value is missing; if %s is meant, write --%s=%[1]s", token, flag.Name)
	}
	if token.String() == "" && (flag.Tag.Type == "path" || flag.Tag.Type == "existingfile") {
		return fmt.Errorf("it is empty; name a %s, or leave it out", strings.ToLower(flag.PlaceHolder))
	}
	err := w.Mapper.Decode(ctx, target)
	if err == nil {
		return nil
	}
	if form := form(flag, target.Type()); form != "" {
		return fmt.Errorf("%q: write %s", token, form)
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		what := path.Err.Error()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			what = "there is no such file"
		case errors.Is(err, fs.ErrPermission):
			what = "this process may not look at it"
		}
		return fmt.Errorf("%s: %s", token, what)
	}
	if flag.Tag.Type == "existingfile" {
		return fmt.Errorf("%s: it is a folder; name a file in it", token)
	}
	return err
}

var unmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// form says how a value of a type is written; "" of types that say so themselves.
func form(f *kong.Flag, t reflect.Type) string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	switch {
	case reflect.PointerTo(t).Implements(unmarshaler):
		return ""
	case t == reflect.TypeFor[time.Duration]():
		return "a time with its unit, such as 500ms, 30s, 5m or 1h30m"
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint64:
		return "a whole number, 0 or more"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false, or no value"
	case reflect.Map:
		if t.Elem().Kind() == reflect.Int {
			return f.PlaceHolder + ", with a whole number"
		}
		return f.PlaceHolder
	}
	return ""
}
