package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const model = "tiny"

// binaries is where the commands under test are.
var binaries string

// vllm is a real vLLM to test before, with the model of vllm/run; without one,
// the tests start the simulator.
var vllm = strings.TrimRight(os.Getenv("VLLM_URL"), "/")

// onlySimulated skips what a real vLLM cannot be made to do.
func onlySimulated(t *testing.T, why string) {
	t.Helper()
	if vllm != "" {
		t.Skip("not before a real vLLM: " + why)
	}
}

const noFaults = "it does not fail on request"

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if binaries, err = os.MkdirTemp("", "clients"); err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(binaries)
	build := exec.Command("go", "build", "-o", binaries, "./cmd/vllm-gateway", "./cmd/vllm-sim")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		log.Printf("%v: %v\n%s", build, err, out)
		return 1
	}
	return m.Run()
}

// rig is the URLs of real processes, which the test's end kills.
type rig struct {
	backend string // the simulator, or a real vLLM
	gateway string
	orphan  string // a gateway whose backend does not listen
}

func start(t *testing.T) *rig {
	t.Helper()
	r := &rig{backend: vllm}
	if vllm == "" {
		r.backend = launch(t, "vllm-sim", "--model", model, "--step-base", "2ms")
	}
	r.gateway = launch(t, "vllm-gateway", "--backend", r.backend)
	r.orphan = launch(t, "vllm-gateway", "--backend", "http://"+freeAddr(t))
	for _, url := range []string{r.backend, r.gateway} {
		await(t, url+"/health", limit, func() error {
			_, err := get(url + "/health")
			return err
		})
	}
	await(t, r.orphan+" to know that it has no backend", limit, func() error {
		if text, err := get(r.orphan + "/health"); !strings.Contains(text, `"down"`) {
			return fmt.Errorf("%s %v", text, err)
		}
		return nil
	})
	return r
}

// limit is how long the tests wait for what must come.
const limit = 10 * time.Second

// environment tells the tests in other languages where the servers are.
func (r *rig) environment() []string {
	return append(os.Environ(), "BACKEND_URL="+r.backend, "GATEWAY_URL="+r.gateway, "ORPHAN_URL="+r.orphan)
}

// launch starts a command of ours and gives its URL, before it listens there.
func launch(t *testing.T, name string, args ...string) string {
	t.Helper()
	addr := freeAddr(t)
	cmd := exec.Command(filepath.Join(binaries, name), append(args, "--listen", addr)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s\n%s", cmd, out.Bytes()[max(0, out.Len()-4<<10):])
		}
	})
	return "http://" + addr
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// await polls until done returns nil.
func await(t *testing.T, what string, limit time.Duration, done func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s: %v", limit, what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// reaches polls for a number.
func reaches(t *testing.T, what string, want float64, get func() float64) {
	t.Helper()
	await(t, what, limit, func() error {
		if got := get(); got != want {
			return fmt.Errorf("it is %v, not %v", got, want)
		}
		return nil
	})
}

// plain is for what the tests ask without an SDK.
var plain = &http.Client{Timeout: 5 * time.Second}

// get gives the body even where it gives an error for the status.
func get(url string) (string, error) {
	res, err := plain.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return string(text), err
}

// fault is one of the simulator's.
type fault struct {
	Kind   string  `json:"kind"`
	After  *int    `json:"after,omitempty"`
	Status int     `json:"status,omitempty"`
	Share  float64 `json:"share,omitempty"`
	Delay  string  `json:"delay,omitempty"`
}

// withFaults lets the simulator fail while body runs.
func (r *rig) withFaults(t *testing.T, f fault, body func()) {
	t.Helper()
	onlySimulated(t, noFaults)
	r.put(t, []fault{f})
	defer r.put(t, []fault{})
	body()
}

func (r *rig) put(t *testing.T, faults []fault) {
	t.Helper()
	list, err := json.Marshal(faults)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPut, r.backend+"/sim/faults", bytes.NewReader(list))
	if err != nil {
		t.Fatal(err)
	}
	res, err := plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		t.Fatalf("%s: %s %s", list, res.Status, text)
	}
}

// crash ends the simulator's process.
func (r *rig) crash(t *testing.T) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, r.backend+"/sim/faults", strings.NewReader(`[{"kind":"crash"}]`))
	if err != nil {
		t.Fatal(err)
	}
	if res, err := plain.Do(req); err == nil {
		res.Body.Close()
		t.Fatalf("the simulator did not crash: %s", res.Status)
	}
}

// metric is the sum of a metric's series that have the label.
func metric(t *testing.T, url, name, label string) float64 {
	t.Helper()
	text, err := get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, name) || !strings.Contains(line, label) {
			continue
		}
		fields := strings.Fields(line)
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

func (r *rig) running(t *testing.T) float64 {
	return metric(t, r.backend, "vllm:num_requests_running", "")
}

func (r *rig) generated(t *testing.T) float64 {
	return metric(t, r.backend, "vllm:generation_tokens_total", "")
}

func (r *rig) cancelled(t *testing.T) float64 {
	return metric(t, r.gateway, "gateway_requests_total", `outcome="cancelled"`)
}
