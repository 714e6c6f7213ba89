// Package systemd has only this test: what the units say is held against the
// programs. It needs no systemd.
package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// sources are the programs that there are units for, and where each one's main is.
var sources = map[string]string{
	"vllm-gateway": "../cmd/vllm-gateway", "gpu-exporter": "../cmd/gpu-exporter", "vllm-sim": "../cmd/vllm-sim", "vllm-stack": "../stack",
}

// unit is its lines, by their names; what is said twice is there twice.
type unit map[string][]string

func read(t *testing.T, name string) unit {
	t.Helper()
	data, err := os.ReadFile(name + ".service")
	if err != nil {
		t.Fatal(err)
	}
	u := unit{}
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' || line[0] == '[' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Fatalf("%s.service: %q is neither a setting nor a comment", name, line)
		}
		u[key] = append(u[key], value)
	}
	return u
}

// build has those of this module in one folder. vllm-stack is of another: to build it
// takes long, and the libraries of that module; its own test runs this one, and says by
// VLLM_STACK where the program is.
func build(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", folder+"/", "./cmd/...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if stack := os.Getenv("VLLM_STACK"); stack != "" {
		if err := os.Symlink(stack, filepath.Join(folder, "vllm-stack")); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func TestFlagsAndVariablesAreReal(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	folder := build(t)
	files, err := filepath.Glob("*.service")
	if err != nil || len(files) != len(sources) {
		t.Fatalf("%q, %v: want a unit for each of %v", files, err, sources)
	}
	for name := range sources {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(filepath.Join(folder, name)); name == "vllm-stack" && err != nil {
				t.Skip("there is no VLLM_STACK; the test of stack/ has it")
			}
			u := read(t, name)
			command := strings.Fields(strings.Join(u["ExecStart"], " "))
			if len(command) == 0 || command[0] != "/usr/local/bin/"+name {
				t.Fatalf("ExecStart is %q, want /usr/local/bin/%s", command, name)
			}
			if got := u["EnvironmentFile"]; !slices.Equal(got, []string{"-/etc/vllm-gateway/" + name + ".env"}) {
				t.Errorf("EnvironmentFile is %q", got)
			}
			takes(t, folder, name, command[1:]...)
			for _, variable := range u["Environment"] {
				if !strings.HasPrefix(variable, "XDG_CACHE_HOME=") { // Go's own
					takes(t, folder, name, flag(t, name, variable))
				}
			}
			prefix := strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_"
			examples := regexp.MustCompile(`(?m)^(?:echo |# )?(`+prefix+`[A-Z_]+=\S*)`).FindAllSubmatch(readme, -1)
			if len(examples) == 0 {
				t.Errorf("README.md has no example of its variables")
			}
			for _, example := range examples {
				takes(t, folder, name, flag(t, name, string(example[1])))
			}
			for _, mention := range regexp.MustCompile("`("+prefix+"[A-Z_]+)`").FindAllSubmatch(readme, -1) {
				takes(t, folder, name, flag(t, name, string(mention[1])+"=1s")) // what is only mentioned is a time, or a number
			}
		})
	}
}

// flag is what says the same on the command line.
func flag(t *testing.T, name, variable string) string {
	t.Helper()
	key, value, _ := strings.Cut(variable, "=")
	key, ours := strings.CutPrefix(key, strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"_")
	if !ours {
		t.Errorf("%s: no variable of %s begins so", variable, name)
	}
	if strings.HasPrefix(key, "TLS_") { // must be a file that is there
		value = os.DevNull
	}
	if value == "1s" && strings.HasPrefix(key, "MAX_IN_") {
		value = "1"
	}
	return "--" + strings.ToLower(strings.ReplaceAll(key, "_", "-")) + "=" + value
}

// takes has the program read the flags, and nothing more.
func takes(t *testing.T, folder, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(folder, name), append(args, "--version")...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), name+" ") {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// Whoever drains must not be killed meanwhile.
func TestStopsLaterThanItDrains(t *testing.T) {
	for name, folder := range sources {
		u := read(t, name)
		if len(u["TimeoutStopSec"]) != 1 {
			t.Fatalf("%s: TimeoutStopSec is %q", name, u["TimeoutStopSec"])
		}
		stop, err := time.ParseDuration(u["TimeoutStopSec"][0] + "s")
		if err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(folder + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		drain, found := time.Duration(0), 0
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile("Drain(?:Delay|Timeout) +time\\.Duration +`[^`]*default:\"([^\"]+)\"").FindAllSubmatch(text, -1) {
				d, err := time.ParseDuration(string(m[1]))
				if err != nil {
					t.Fatal(err)
				}
				drain += d
				found++
			}
		}
		if want := map[string]int{"vllm-gateway": 2, "vllm-stack": 1}[name]; found != want {
			t.Errorf("%s has %d flags about the drain, want %d", name, found, want)
		}
		if stop < drain+10*time.Second {
			t.Errorf("%s is killed after %v, and may drain for %v", name, stop, drain)
		}
	}
}

// What would keep the driver's devices away, and what all have.
func TestHardened(t *testing.T) {
	for name := range sources {
		u := read(t, name)
		for _, key := range []string{"DynamicUser", "NoNewPrivileges", "PrivateTmp", "RestrictNamespaces"} {
			if !slices.Equal(u[key], []string{"yes"}) {
				t.Errorf("%s: %s is %q", name, key, u[key])
			}
		}
		if !slices.Equal(u["ProtectSystem"], []string{"strict"}) || !slices.Equal(u["CapabilityBoundingSet"], []string{""}) {
			t.Errorf("%s: ProtectSystem is %q, CapabilityBoundingSet %q", name, u["ProtectSystem"], u["CapabilityBoundingSet"])
		}
		gpus := name == "gpu-exporter" || name == "vllm-stack"
		if want := map[bool]string{false: "yes", true: "tmpfs"}[gpus]; !slices.Equal(u["ProtectHome"], []string{want}) {
			t.Errorf("%s: ProtectHome is %q, want %s", name, u["ProtectHome"], want)
		}
		for _, key := range []string{"PrivateDevices", "ProtectClock", "MemoryDenyWriteExecute"} {
			if got := len(u[key]) > 0; got == gpus {
				t.Errorf("%s: %s is set: %v, and it reads GPUs: %v", name, key, got, gpus)
			}
		}
		for _, key := range []string{"DeviceAllow", "DevicePolicy", "ProcSubset"} {
			if gpus && len(u[key]) > 0 {
				t.Errorf("%s: %s keeps the driver away", name, key)
			}
		}
	}
}
