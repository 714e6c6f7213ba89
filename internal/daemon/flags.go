package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"runtime"
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

// FullVersion is what --version prints after a program's name: v1.2.3 (go1.26.8,
// linux/amd64).
func FullVersion() string {
	return fmt.Sprintf("%s (%s, %s/%s)", Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// LogFlags are the flags of logging, the same in every command.
type LogFlags struct {
	LogLevel  string `enum:"debug,info,warn,error" default:"info" placeholder:"LEVEL" help:"debug, info, warn or error (${default})"`
	LogFormat string `enum:"text,json" default:"text" placeholder:"FORMAT" help:"text or json (${default})"`
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
