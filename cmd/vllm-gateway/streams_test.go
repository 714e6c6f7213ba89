package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// 2,000 streams open at the same time through one real process, each
// byte-identical with what the backend sent. The memory that an open stream
// takes is logged.
func TestTwoThousandStreams(t *testing.T) {
	const streams = 2000
	var arrived sync.WaitGroup
	arrived.Add(streams)
	measured := make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.Method != "POST" {
			return
		}
		seed, _ := strconv.Atoi(r.Header.Get("Seed"))
		parts := parts(seed)
		rc := http.NewResponseController(w)
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, parts[0])
		rc.Flush()
		arrived.Done()
		arrived.Wait() // every stream is open before any goes on
		<-measured
		for _, p := range parts[1:] {
			io.WriteString(w, p)
			rc.Flush()
		}
	}))
	defer backend.Close()
	p := start(t, backend.URL)
	idle := rss(t, p.cmd.Process.Pid)

	var open, ended sync.WaitGroup
	open.Add(streams)
	failures := make(chan string, streams)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	for i := range streams {
		ended.Go(func() {
			req, _ := http.NewRequest("POST", "http://"+p.addr+"/v1/chat/completions", strings.NewReader(ask))
			req.Header.Set("Seed", strconv.Itoa(i))
			resp, err := client.Do(req)
			open.Done()
			if err != nil {
				failures <- err.Error()
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if want := strings.Join(parts(i), ""); err != nil || string(got) != want {
				failures <- fmt.Sprintf("stream %d: %d bytes of %d, %v", i, len(got), len(want), err)
			}
		})
	}
	open.Wait()
	t.Logf("%.1f KiB RSS per open stream (%d KiB idle, %d streams open)", float64(rss(t, p.cmd.Process.Pid)-idle)/streams, idle, streams)
	close(measured)
	ended.Wait()
	close(failures)
	for f := range failures {
		t.Error(f)
	}
}

// parts is a stream cut into the writes of the backend: events, several at once,
// halves of one.
func parts(seed int) []string {
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	list := []string{token("first")}
	for range 20 {
		var b strings.Builder
		for range 1 + rng.IntN(3) {
			b.WriteString(token(strings.Repeat("x", rng.IntN(300)) + strconv.Itoa(rng.Int())))
		}
		text := b.String()
		cut := rng.IntN(len(text))
		list = append(list, text[:cut], text[cut:])
	}
	return append(list, "data: [DONE]\n\n")
}

// rss gives the resident memory of a process in KiB; 0 where there is no /proc.
func rss(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Logf("memory is not measured: %v", err)
		return 0
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}
