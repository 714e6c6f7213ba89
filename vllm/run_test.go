package vllm

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What cannot be run is said in one line, before anything is installed.
func TestRunMistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	// On :1 nothing listens.
	for _, tt := range []struct {
		env, args, want string
		code            int
	}{
		{"", "--port soon", "--port soon: write a number, such as --port 8001", 2},
		{"", "--port=" + port, "port " + port + " is taken: stop what has it, or choose another with --port", 1},
		{"", "--port 1", "there is no HOME: name a folder as VLLM_HOME", 1},
		{"VLLM_HOME=" + file, "--port 1", "no folder can be made in " + file + ": name another as VLLM_HOME", 1},
	} {
		cmd := exec.Command("./run", strings.Fields(tt.args)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), tt.env}
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != tt.code || string(out) != "vllm/run: "+tt.want+"\n" {
			t.Errorf("%s %s: exit %d, %q\nwant %d, %q", tt.env, tt.args, code, out, tt.code, tt.want)
		}
	}
	help, err := exec.Command("./run", "--help").Output()
	if text := string(help); err != nil || strings.Count(text, "\n") > 24 || !strings.Contains(text, "\n  vllm/run --port 8001") || strings.Contains(text, "set -") {
		t.Errorf("%v\n%s", err, text)
	}
}
