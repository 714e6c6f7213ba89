package loadtests

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// checkout is a copy of the script and of what it looks for; k6 and the others do
// nothing and end with the code in EXIT.
func checkout(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	put := func(path, text string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script, err := os.ReadFile("run")
	if err != nil {
		t.Fatal(err)
	}
	put("loadtests/run", string(script))
	for _, name := range []string{"baseline", "soak", "streams"} {
		put("loadtests/"+name+".js", "")
	}
	for _, name := range []string{"k6", "vllm-verdict", "vllm-stack"} {
		put("bin/"+name, "#!/bin/sh\necho \"$0 $1\"\nexit ${EXIT:-0}\n")
	}
	return root
}

// What cannot be run is said in one line, before anything is started.
func TestRunMistakes(t *testing.T) {
	root := checkout(t)
	t.Chdir(root)
	if err := os.WriteFile("file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tools := t.TempDir() // all that is needed but curl
	for _, tool := range []string{"bash", "dirname", "ls", "sed", "grep", "xargs", "echo"} {
		at, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(at, filepath.Join(tools, tool)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ env, args, want string }{
		{"", "", "which test? One of: baseline soak; as in loadtests/run baseline, or make loadtest TEST=baseline"},
		{"", "streams", "which test? One of: baseline soak; as in loadtests/run baseline, or make loadtest TEST=baseline"},
		{"K6=/nowhere", "baseline", "there is no /nowhere: name another as K6"},
		{"PATH=" + tools, "baseline", "there is no curl on this machine: install it"},
		{"GATEWAY_URL=localhost:9000", "baseline", "GATEWAY_URL=localhost:9000: that is no URL; write it as http://host:port"},
		{"PROMETHEUS_URL=localhost:9090", "baseline", "PROMETHEUS_URL=localhost:9090: that is no URL; write it as http://host:port"},
		{"RESULTS=file", "baseline", "file is a file: name a folder as RESULTS"},
		{"RESULTS=bin", "baseline", "there is something in bin: name another folder as RESULTS"},
		{"RESULTS=/proc/x", "baseline", "/proc/x cannot be written to: name another folder as RESULTS"},
	} {
		cmd := exec.Command("loadtests/run", strings.Fields(tt.args)...)
		cmd.Env = append(os.Environ(), "K6=", "GATEWAY_URL=http://127.0.0.1:1", tt.env)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 2 || string(out) != "loadtests/run: "+tt.want+"\n" {
			t.Errorf("%s %s: exit %d, %q\nwant %q", tt.env, tt.args, code, out, tt.want)
		}
	}
}

// Where k6 has not begun nothing is judged, and nothing left behind.
func TestRunWithoutSamples(t *testing.T) {
	t.Chdir(checkout(t))
	cmd := exec.Command("loadtests/run", "baseline", "--frobnicate")
	cmd.Env = append(os.Environ(), "GATEWAY_URL=http://127.0.0.1:1", "PROMETHEUS_URL=", "RESULTS=results", "EXIT=255", "K6=")
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 255 || strings.Contains(string(out), "vllm-verdict") {
		t.Errorf("exit %d, %s", code, out)
	}
	if _, err := os.Stat("results"); !os.IsNotExist(err) {
		t.Errorf("it leaves a folder (%v)", err)
	}
}

// An archive has no k6, and no make to build one: the one that is installed does.
func TestRunFindsK6(t *testing.T) {
	root := checkout(t)
	t.Chdir(root)
	path := os.Getenv("PATH")
	for _, tt := range []struct {
		env, where string // where bin/k6 has gone
		code       int
		want       string
	}{
		{"K6=", "bin/k6", 0, root + "/bin/k6 run\n"},
		{"K6=", "elsewhere/k6", 0, root + "/elsewhere/k6 run\n"},
		{"K6=bin/vllm-stack", "elsewhere/k6", 0, "bin/vllm-stack run\n"},
		{"K6=", "mine", 2, "loadtests/run: there is no k6: install it (https://grafana.com/docs/k6/latest/set-up/install-k6/), or name yours as K6; in a clone of the repository: make build k6\n"},
	} {
		if err := os.MkdirAll("elsewhere", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename("bin/k6", tt.where); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("loadtests/run", "baseline")
		cmd.Env = append(os.Environ(), "GATEWAY_URL=http://127.0.0.1:1", "PROMETHEUS_URL=", "RESULTS="+t.TempDir(), "PATH="+root+"/elsewhere:"+path, tt.env)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != tt.code || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s and k6 is %s: exit %d, %q\nwant %d, %q", tt.env, tt.where, code, out, tt.code, tt.want)
		}
		if err := os.Rename(tt.where, "bin/k6"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRunHelp(t *testing.T) {
	out, err := exec.Command("./run", "--help").Output()
	if text := string(out); err != nil || strings.Count(text, "\n") > 24 || !strings.Contains(text, "baseline compare") || !strings.Contains(text, "\n  loadtests/run baseline\n") || strings.Contains(text, "set -") {
		t.Errorf("%v\n%s", err, text)
	}
}

// A stack that does not start is told from a test that fails.
func TestRunStackFails(t *testing.T) {
	if l, err := net.Listen("tcp", "127.0.0.1:9000"); err != nil {
		t.Skip("there is something on :9000, which would be tested")
	} else {
		l.Close()
	}
	t.Chdir(checkout(t))
	cmd := exec.Command("loadtests/run", "baseline")
	cmd.Env = append(os.Environ(), "RESULTS=results", "EXIT=1", "K6=", "GATEWAY_URL=")
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.HasSuffix(string(out), "loadtests/run: the stack that this would test does not start: mend that, or name a gateway that runs as GATEWAY_URL\n") {
		t.Errorf("exit %d, %s", code, out)
	}
}
