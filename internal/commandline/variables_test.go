package commandline

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
)

// A variable that is mistyped is told of, without its value, and none of others.
func TestStrangeVariables(t *testing.T) {
	for name, value := range map[string]string{
		"PROGRAM_LISTEN": ":2", "PROGRAM_LISTNE": "secret", "PROGRAM_COUNTS": "3", "PROGRAMS_X": "1", "PROGRAM_METRICS_PORT": "9000",
		"PROGRAM_PORT": "tcp://10.0.0.1:9000", "PROGRAM_PORT_9000_TCP_ADDR": "10.0.0.1", "PROGRAM_SERVICE_HOST": "10.0.0.1", "PROGRAM_SERVICE_PORT_HTTP": "9000", "PROGRAM_METRICS_SERVICE_HOST": "10.0.0.2", "PROGRAM_METRICS_SERVICE_PORT": "80",
	} {
		t.Setenv(name, value)
	}
	line, err := program.Read(&flags{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := line.Strange(); !slices.Equal(got, []string{"PROGRAM_COUNTS", "PROGRAM_LISTNE", "PROGRAM_METRICS_PORT"}) {
		t.Errorf("strange are %q", got)
	}
	var log strings.Builder
	line.Warn(slog.New(slog.NewTextHandler(&log, nil)))
	if got := log.String(); strings.Count(got, "\n") != 3 || !strings.Contains(got, "variable=PROGRAM_LISTNE") || strings.Contains(got, "secret") {
		t.Errorf("logged %s", got)
	}
	without := program
	without.Variables = ""
	if line, err = without.Read(&flags{}, nil); err != nil || line.Strange() != nil {
		t.Errorf("a program that asks no variables: %q, %v", line.Strange(), err)
	}
}
