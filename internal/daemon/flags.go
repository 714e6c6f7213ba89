package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
)

// version is stamped by the linker in released binaries:
// -ldflags "-X github.com/vllm-gateway/vllm-gateway/internal/daemon.version=v1.2.3".
var version string

// Version is the stamped version, else what the Go tool recorded of the module
// or the commit, else "devel".
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

// LogFlags are the flags of logging, the same in every command.
type LogFlags struct {
	LogLevel  string `enum:"debug,info,warn,error" default:"info" placeholder:"LEVEL" help:"What to log: debug, info, warn or error."`
	LogFormat string `enum:"text,json" default:"text" placeholder:"FORMAT" help:"How to log: text or json."`
}

// Logger writes lines of the asked level and format to w.
func (f LogFlags) Logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(strings.ToUpper(f.LogLevel))); err != nil {
		return nil, fmt.Errorf("log level %q: use debug, info, warn or error", f.LogLevel)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch f.LogFormat {
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("log format %q: use text or json", f.LogFormat)
}

// Exit codes: what was asked for is wrong, or doing it has failed.
const (
	Failed = 1
	Usage  = 2
)

// Exit ends the process with a code, and says why on stderr.
func Exit(name string, code int, err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	os.Exit(code)
}

// ParserExit is for the flag library, whose own codes for a mistyped command
// line are its own: it turns them into Usage.
func ParserExit(code int) {
	if code != 0 {
		code = Usage
	}
	os.Exit(code)
}
