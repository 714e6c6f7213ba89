package commandline

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type flags struct {
	Listen  string         `default:":1" placeholder:"ADDR" help:"where (${default})"`
	MaxWait time.Duration  `default:"1s" placeholder:"TIME" help:"how long (${default})"`
	Count   int            `placeholder:"N" help:"how many"`
	Seed    uint64         `placeholder:"N" help:"chance"`
	Share   float64        `placeholder:"N" help:"of all"`
	Weight  map[string]int `placeholder:"URL=N" help:"how heavy"`
	Alias   []string       `placeholder:"NAME" help:"more names"`
	Level   string         `enum:"low,high" default:"low" placeholder:"LEVEL" help:"low or high (${default})"`
	Demo    *bool          `negatable:"" help:"or not"`
	Secret  secret         `placeholder:"KEY" help:"shown to nobody"`
	Cert    string         `type:"existingfile" placeholder:"FILE" help:"a file"`
	Out     string         `type:"path" placeholder:"FOLDER" help:"a folder"`
	Version Version        `env:"-" help:"print the version and exit"`

	Serve struct{} `cmd:"" default:"1" hidden:"" help:"serve"`
	Check check    `cmd:"" help:"look at a file"`
}

type check struct {
	File string `arg:"" help:"The file."`
}

func (check) Help() string { return "Examples:\n  program check a.yaml" }

type secret string

func (*secret) UnmarshalText([]byte) error { return errors.New("it is none") }

var program = Program{
	Name: "program", Version: "v1", About: "program does this.", Variables: "PROGRAM", Docs: "docs/program.md",
	Examples: []string{"program --listen :2  # there", "program --alias 'a' < file"},
}

// What is said of each mistake, in full, and what of a value from the environment.
func TestMistakes(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("folder", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ env, args, want string }{
		{"", "--lisen x", `unknown flag --lisen, did you mean "--listen"?`},
		{"", "--nothing", `unknown flag --nothing; program --help says what there is`},
		{"", "chek", `unexpected argument chek, did you mean "check"?`},
		{"", "frobnicate", `unexpected argument frobnicate; program --help says what there is`},
		{"", "check", `there is something missing: program check FILE`},
		{"", "check a b", `unexpected argument b; program --help says what there is`},
		{"", "--listen", `--listen: its value is missing; write --listen=ADDR`},
		{"", "--alias --listen :1", `--alias: its value is missing; write --alias=NAME`},
		{"", "--weight", `--weight: its value is missing; write --weight=URL=N`},
		{"", "--max-wait -1s", `--max-wait: its value is missing; if -1s is meant, write --max-wait=-1s`},
		{"", "--max-wait 10", `--max-wait: "10": write a time with its unit, such as 500ms, 30s, 5m or 1h30m`},
		{"", "--count 1.5", `--count: "1.5": write a whole number`},
		{"", "--count 99999999999999999999", `--count: "99999999999999999999": write a whole number`},
		{"", "--seed=-1", `--seed: "-1": write a whole number, 0 or more`},
		{"", "--share x", `--share: "x": write a number`},
		{"", "--weight a", `--weight: "a": write URL=N, with a whole number`},
		{"", "--weight a=b", `--weight: "a=b": write URL=N, with a whole number`},
		{"", "--level loud", `--level: "loud": write one of low, high`},
		{"", "--demo=maybe", `--demo: "maybe": write true or false, or no value`},
		{"", "--no-demo=maybe", `a flag that begins with --no- takes no value`},
		{"", "--cert nowhere", `--cert: nowhere: there is no such file`},
		{"", "--cert folder", `--cert: folder: it is a folder; name a file in it`},
		{"", "--cert=", `--cert: it is empty; name a file, or leave it out`},
		{"", "--out=", `--out: it is empty; name a folder, or leave it out`},
		{"PROGRAM_MAX_WAIT=10", "", `PROGRAM_MAX_WAIT: "10": write a time with its unit, such as 500ms, 30s, 5m or 1h30m`},
		{"PROGRAM_WEIGHT=a", "", `PROGRAM_WEIGHT: "a": write URL=N, with a whole number`},
		{"PROGRAM_LEVEL=loud", "", `PROGRAM_LEVEL: "loud": write one of low, high`},
		{"PROGRAM_CERT=nowhere", "", `PROGRAM_CERT: nowhere: there is no such file`},
		{"PROGRAM_SECRET=x (from envar PROGRAM_COUNT=y", "", `PROGRAM_SECRET: it is none`},
		{"PROGRAM_COUNT=x", "--count 1", `PROGRAM_COUNT: "x": write a whole number`},
		{"PROGRAM_COUNT=1", "--count x", `--count: "x": write a whole number`},
		{"PROGRAM_LISTEN=:2", "--lisen x", `unknown flag --lisen, did you mean "--listen"?`},
	} {
		t.Run(tt.env+" "+tt.args, func(t *testing.T) {
			if name, value, ok := strings.Cut(tt.env, "="); ok {
				t.Setenv(name, value)
			}
			line, err := program.Read(&flags{}, strings.Fields(tt.args))
			if err == nil || line.Text(err) != tt.want {
				t.Errorf("\n got %v\nwant %s", err, tt.want)
			}
		})
	}
}

// A program's own errors name a flag; who set its variable reads of that.
func TestText(t *testing.T) {
	t.Setenv("PROGRAM_LISTEN", ":2")
	t.Setenv("PROGRAM_COUNT", "2")
	line, err := program.Read(&flags{}, []string{"--count", "3"})
	if err != nil {
		t.Fatal(err)
	}
	got := line.Text(errors.New("--listen :2 is taken; choose with --listen, not --listener or --count"))
	if want := "PROGRAM_LISTEN :2 is taken; choose with PROGRAM_LISTEN, not --listener or --count"; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if given := line.Given(); len(given) != 2 || !given["listen"] || !given["count"] {
		t.Errorf("given are %v", given)
	}
}

const help = `program does this.

Examples:
  program --listen :2  # there
  program --alias 'a' < file

Commands:
  check FILE  look at a file

Flags:
  --listen=ADDR    where (:1)
  --max-wait=TIME  how long (1s)
  --count=N        how many
  --seed=N         chance
  --share=N        of all
  --weight=URL=N   how heavy
  --alias=NAME     more names
  --level=LEVEL    low or high (low)
  --[no-]demo      or not
  --secret=KEY     shown to nobody
  --cert=FILE      a file
  --out=FOLDER     a folder
  --version        print the version and exit
  -h, --help       print this and exit

Each flag can be set in the environment: --max-wait as PROGRAM_MAX_WAIT.
Everything in detail: docs/program.md.
`

func TestHelp(t *testing.T) {
	if got, _ := program.helpOf(&flags{}); got != help {
		t.Errorf("got\n%s", got)
	}
	const want = "program check FILE: look at a file.\n\nExamples:\n  program check a.yaml\n\nThe flags are those of program --help.\n"
	if got, _ := program.helpOf(&flags{}, "check"); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestCheck(t *testing.T) {
	root := t.TempDir()
	var rows strings.Builder
	for _, row := range []string{"`--listen`, `--max-wait` | `:1`, `1s`", "`--count` `--seed` `--share` | ", "`--weight` `--alias` | ", "`--level` | `low`", "`--[no-]demo` | ", "`--secret` `--cert` `--out` | "} {
		rows.WriteString("| " + row + " |\n")
	}
	if err := errors.Join(os.Mkdir(filepath.Join(root, "docs"), 0o700), os.WriteFile(filepath.Join(root, "docs/program.md"), []byte(rows.String()), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Check(program, &flags{}, 30, root); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Program){
		"27 lines, of which 26 fit": func(*Program) {},
		"86 columns":                func(p *Program) { p.About += strings.Repeat("x", 68) },
		`example "program --listn :1": unknown flag --listn`: func(p *Program) { p.Examples[0] = "program --listn :1" },
		"no such file": func(p *Program) { p.Docs = "nowhere.md" },
		"1 examples":   func(p *Program) { p.Examples = nil },
	} {
		p := program
		p.Examples = append([]string{}, program.Examples...)
		change(&p)
		if err := Check(p, &flags{}, 26, root); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}
