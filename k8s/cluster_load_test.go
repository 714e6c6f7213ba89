//go:build cluster

package k8s

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const users = 32

// gatewaysKilled takes gateways away under load, first as Kubernetes does it, then
// without warning.
func gatewaysKilled(t *testing.T) {
	load := startLoad(nodePort(t, "30900"))
	defer load.stop()
	load.await(t, 100)

	// With warning, nobody notices.
	victim := readyPods(t, serving, "app=vllm-gateway")[0]
	sh(t, "kubectl delete pod -n "+serving+" "+victim)
	twoGateways(t)
	load.await(t, 100)
	if failed := load.failures(); len(failed) > 0 {
		t.Fatalf("%d of %d requests failed as a gateway was deleted:\n%s", len(failed), load.ended.Load(), strings.Join(failed, "\n"))
	}

	// Without warning, what was in its hands is lost, and nothing else: no request
	// that a gateway which lives has had. Clients that cannot connect try again, as
	// the OpenAI libraries do.
	if !*local {
		t.Skip("its process is not on this machine")
	}
	victim = readyPods(t, serving, "app=vllm-gateway")[0]
	ended := load.ended.Load()
	kill(t, victim)
	load.await(t, 300)
	twoGateways(t)
	load.await(t, 100)
	load.stop()
	var logs string // of the container that came after the killed one, too
	for _, pod := range readyPods(t, serving, "app=vllm-gateway") {
		logs += sh(t, "kubectl logs -n "+serving+" "+pod)
	}
	failed := load.failures()
	for _, failure := range failed {
		id, _, _ := strings.Cut(failure, ":")
		if strings.Contains(logs, `"`+id+`"`) {
			t.Errorf("lost by a gateway that lives: %s", failure)
		}
	}
	if len(failed) == 0 || len(failed) > users {
		t.Errorf("%d requests were lost; it had some in its hands, and there are never more than %d:\n%s", len(failed), users, strings.Join(failed, "\n"))
	}
	t.Logf("%d requests of %d users as a gateway was deleted, none lost; %d as one was killed, %d lost, %d connections tried again",
		ended, users, load.ended.Load()-ended, len(failed), load.redialled.Load())
}

// kill ends the gateway's process in a pod: the node is this machine.
func kill(t *testing.T, pod string) {
	t.Helper()
	uid := sh(t, "kubectl get pod -n "+serving+" "+pod+" -o jsonpath={.metadata.uid}")
	cgroups, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	killed := 0
	for _, cgroup := range cgroups {
		text, _ := os.ReadFile(cgroup)
		dir := filepath.Dir(cgroup)
		command, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if !strings.Contains(strings.ReplaceAll(string(text), "_", "-"), "pod"+uid) || !strings.Contains(string(command), "vllm-gateway") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil {
			t.Fatal(err)
		}
		killed++
	}
	if killed != 1 {
		t.Fatalf("killed %d processes of pod %s; want 1", killed, pod)
	}
}

func twoGateways(t *testing.T) {
	t.Helper()
	eventually(t, time.Minute, "two gateways are ready again", func() error {
		if got := readyPods(t, serving, "app=vllm-gateway"); len(got) != 2 {
			return fmt.Errorf("ready: %v\n%s", got, state())
		}
		return nil
	})
}

type load struct {
	base             string
	ended, redialled atomic.Int64
	stopping         chan struct{}
	once             sync.Once
	users            sync.WaitGroup
	mu               sync.Mutex
	failed           []string
}

// startLoad has users that send one streamed request after the other, each on a
// connection of its own that is kept alive for five.
func startLoad(base string) *load {
	l := &load{base: base, stopping: make(chan struct{})}
	for user := range users {
		l.users.Go(func() { l.run(user) })
	}
	return l
}

func (l *load) run(user int) {
	client := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext}, Timeout: 2 * time.Minute}
	for n := 0; ; n++ {
		select {
		case <-l.stopping:
			return
		default:
		}
		if n%5 == 4 { // else all stay with the gateway that was there when another was not
			client.CloseIdleConnections()
		}
		id := fmt.Sprintf("user-%d-%d", user, n)
		err := stream(client, l.base, id)
		for dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial"; {
			l.redialled.Add(1)
			time.Sleep(200 * time.Millisecond)
			err = stream(client, l.base, id)
		}
		l.ended.Add(1)
		if err != nil {
			l.mu.Lock()
			l.failed = append(l.failed, fmt.Sprintf("%s: %v", id, err))
			l.mu.Unlock()
		}
	}
}

func (l *load) stop() {
	l.once.Do(func() { close(l.stopping) })
	l.users.Wait()
}

// await waits until so many more requests have ended.
func (l *load) await(t *testing.T, n int64) {
	t.Helper()
	from := l.ended.Load()
	eventually(t, 2*time.Minute, "the load runs", func() error {
		if more := l.ended.Load() - from; more < n {
			return fmt.Errorf("%d requests have ended, %d failed", more, len(l.failures()))
		}
		return nil
	})
}

func (l *load) failures() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.failed)
}

// stream sends a chat completion and reads it to its end mark.
func stream(client *http.Client, base, id string) error {
	body := `{"messages":[{"role":"user","content":"Tell me of the sea."}],"stream":true,"max_tokens":40}`
	r, err := http.NewRequest(http.MethodPost, base+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Request-Id", id)
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	last := ""
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if text := strings.TrimSpace(lines.Text()); text != "" {
			last = text
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("cut after %.80q: %w", last, err)
	}
	if last != "data: [DONE]" {
		return fmt.Errorf("ended without an end mark: %.80q", last)
	}
	return nil
}
