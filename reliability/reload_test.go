//go:build reliability

package reliability

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// mounted is a file as Kubernetes mounts a ConfigMap: a link into a folder that is
// itself a link, ..data, and what changes is the latter.
type mounted struct {
	t       *testing.T
	dir     string
	version int
}

func (m *mounted) path() string { return filepath.Join(m.dir, "gateway.yaml") }

func mount(t *testing.T, text string) *mounted {
	t.Helper()
	m := &mounted{t: t, dir: t.TempDir()}
	m.swap(text)
	if err := os.Symlink("..data/gateway.yaml", m.path()); err != nil {
		t.Fatal(err)
	}
	return m
}

// swap makes a new folder, and the link point to it.
func (m *mounted) swap(text string) {
	m.t.Helper()
	link := filepath.Join(m.dir, "..data")
	former, _ := os.Readlink(link)
	m.version++
	folder := fmt.Sprint("..", m.version)
	err := os.Mkdir(filepath.Join(m.dir, folder), 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(m.dir, folder, "gateway.yaml"), []byte(text), 0o600)
	}
	if err == nil {
		err = os.Symlink(folder, link+"_tmp")
	}
	if err == nil {
		err = os.Rename(link+"_tmp", link)
	}
	if err == nil && former != "" {
		err = os.RemoveAll(filepath.Join(m.dir, former))
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// rename puts another file in the place of the one in the folder.
func (m *mounted) rename(text string) {
	replace(m.t, filepath.Join(m.dir, "..data", "gateway.yaml"), text)
}

// overwrite writes into the file that is there.
func (m *mounted) overwrite(text string) {
	m.t.Helper()
	if err := os.WriteFile(m.path(), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// A thousand changes of the file under 200 streams, in each of the ways in which files
// are changed; every tenth is broken. No stream is cut or altered, no request fails;
// what is sound holds at once, what is broken changes nothing and is told; and nothing
// is left behind.
func TestReloads(t *testing.T) {
	const streams = 200
	reloads := number(t, "RELOADS", 1000)
	pieces := len(parts(0))
	goOn := make([]chan struct{}, pieces)
	for i := range goOn {
		goOn[i] = make(chan struct{})
	}
	var open, elsewhere atomic.Int64
	serve := func(mine *atomic.Int64) *bare {
		return (&bare{serve: func(c *call) bool {
			seed, err := strconv.Atoi(c.req.Header.Get("Seed"))
			c.write(streamHead + "Transfer-Encoding: chunked\r\n\r\n")
			if err != nil { // a passer-by
				c.write(chunk(role+delta("hello")+finish+done) + "0\r\n\r\n")
				return true
			}
			for i, p := range parts(seed) {
				if i == 1 {
					open.Add(1)
					mine.Add(1)
				}
				if i > 0 {
					<-goOn[i]
				}
				c.write(chunk(p))
			}
			c.write("0\r\n\r\n")
			return true
		}}).listen(t)
	}
	stays, goes := serve(new(atomic.Int64)), serve(&elsewhere)
	// file is the n-th version: of backends, keys and limits another one each time.
	file := func(n int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "backends:\n  - {url: %s, weight: %d}\n", stays.url(), 1+n%3)
		if n%2 == 0 {
			fmt.Fprintf(&b, "  - {url: %s}\n", goes.url())
		}
		fmt.Fprintf(&b, "models: {m: {aliases: [alias-%d]}}\nrouting: {policy: %s}\nadmission: {max_in_flight: %d, body_memory: %dMiB}\n", n, []string{"least-in-flight", "prefix", "session"}[n%3], n%4*500, 100+n%5)
		fmt.Fprintf(&b, "keys:\n  - {name: alice, hash: %s, limits: {requests_per_minute: %d}}\n", hashOf("alice"), 1_000_000+n)
		for i := range n % 7 {
			fmt.Fprintf(&b, "  - {name: guest-%d-%d, hash: %s}\n", n, i, hashOf(fmt.Sprintf("guest-%d-%d", n, i)))
		}
		return b.String()
	}
	broken := []struct{ text, told string }{
		{"nonsense: 1\n" + file(0), `there is no key \"nonsense\"`},
		{strings.Replace(file(0), "1000000}", "many}", 1), "is not a whole number"},
		{file(0) + "  - {name: alice\n", "this is not YAML"},
		{strings.Replace(file(0), "http://", "gopher://", 1), "gopher"},
		{file(0)[:strings.Index(file(0), "keys:")], "there are no keys any more"},
		{file(0) + "timeouts: {drain: 7s}\n", "takes a restart"},
		{"", "the file is empty"},
	}
	m := mount(t, file(0))
	g := front(t, nil, "--config", m.path())
	client := newClient(t, true)

	var wrong, had atomic.Int64
	var all sync.WaitGroup
	for i := range streams {
		all.Go(func() {
			req, _ := http.NewRequestWithContext(t.Context(), "POST", g.url()+"/v1/chat/completions", strings.NewReader(ask))
			req.Header.Set("Seed", strconv.Itoa(i))
			req.Header.Set("Authorization", "Bearer "+keyOf("alice"))
			resp, err := client.Do(req)
			had.Add(1)
			if err != nil {
				wrong.Add(1)
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if t.Context().Err() != nil {
				return // the test has failed already
			}
			if want := strings.Join(parts(i), ""); err != nil || string(got) != want {
				wrong.Add(1)
				t.Errorf("stream %d: status %d, %d bytes of %d, %v", i, resp.StatusCode, len(got), len(want), err)
			}
		})
	}
	until(t, "all are open", func() bool { return open.Load() == streams && had.Load() == streams })
	if n := elsewhere.Load(); n < streams/4 {
		t.Errorf("the backend that comes and goes has %d streams: this has shown less than it means to", n)
	}
	rss, _ := g.memory()
	before := g.metrics()

	loaded := func() (sound, refused int) {
		log := g.log.String()
		return strings.Count(log, "configuration reloaded"), strings.Count(log, "configuration not reloaded")
	}
	holds, counts, passers := 0, map[string]int{}, 0
	began := time.Now()
	for n := 1; n <= reloads; n++ {
		bad := n%10 == 0
		text := file(n)
		b := broken[n/10%len(broken)]
		if bad {
			text = b.text
		}
		sound, refused := loaded()
		told := strings.Count(g.log.String(), b.told)
		ways := []struct {
			name  string
			write func(string)
		}{{"renamed", m.rename}, {"..data", m.swap}, {"written", m.overwrite}}
		way := ways[n%len(ways)]
		way.write(text)
		// The gateway sees it by itself, too, in some seconds: a few are left to that.
		if by := reloads / 4; n%by == by/2 {
			way.name += ", no signal"
		} else {
			g.cmd.Process.Signal(syscall.SIGHUP)
		}
		counts[way.name]++
		until(t, "it is loaded, or refused", func() bool {
			s, r := loaded()
			return s > sound && !bad || r > refused && bad
		}, func() string { return fmt.Sprintf("change %d, %s", n, way.name) })
		if bad {
			counts["broken"]++
			if strings.Count(g.log.String(), b.told) == told {
				t.Fatalf("change %d: the log does not say %q:\n%s", n, b.told, tail(g.log.String()))
			}
		} else {
			holds = n
		}
		// All of what holds is of one version: alice's limit, and who the guests are.
		a := askAs(t.Context(), client, g.url(), "alice", ask, nil)
		passers++
		if got, want := a.header.Get("X-Ratelimit-Limit-Requests"), fmt.Sprint(1_000_000+holds); a.status != 200 || a.err != nil || got != want {
			t.Fatalf("change %d, %s, broken %v: %v; alice's limit is %s, and must be %s", n, way.name, bad, a, got, want)
		}
		if n%10 < 2 {
			guests := map[string]int{fmt.Sprintf("guest-%d-%d", holds, holds%7-1): 200, fmt.Sprintf("guest-%d-%d", holds, holds%7): 401, fmt.Sprintf("guest-%d-0", holds-1): 401}
			for guest, want := range guests {
				if holds%7 == 0 {
					want = 401
				}
				if a := askAs(t.Context(), client, g.url(), guest, ask, nil); a.status != want {
					t.Fatalf("change %d: %s: %v; want %d", n, guest, a, want)
				}
			}
			m := g.metrics()
			if ok := m.sum("gateway_config_last_reload_successful"); (ok == 1) == bad {
				t.Fatalf("change %d, broken %v: gateway_config_last_reload_successful is %v", n, bad, ok)
			}
		}
		for i := n * (pieces - 2) / reloads; i > 0; i-- { // a piece of each stream now and then
			select {
			case <-goOn[i]:
				i = 1
			default:
				close(goOn[i])
			}
		}
	}
	took := time.Since(began)
	now := g.metrics()
	under, _ := g.memory()
	close(goOn[pieces-1])
	all.Wait()
	client.CloseIdleConnections()
	sound, refused := loaded()
	if sound < reloads-reloads/10 || wrong.Load() > 0 {
		t.Errorf("%d loaded and %d refused; %d streams cut or altered", sound, refused, wrong.Load())
	}
	g.settled()
	after := g.metrics()
	rssAfter, _ := g.memory()
	if most := max(under, rssAfter); most > rss+rss/2+16<<10 {
		t.Errorf("resident memory went from %d to %d KiB", rss, most)
	}
	figure(t, "%d changes under %d streams in %.1f s (%v): %d streams cut or altered; %d requests beside them, all right", reloads, streams, took.Seconds(), counts, wrong.Load(), passers)
	figure(t, "with the streams: RSS %d KiB before and %d after, goroutines %.0f and %.0f, descriptors %.0f and %.0f; without them RSS %d KiB, goroutines %.0f (%.0f at the start), descriptors %.0f (%.0f)",
		rss, under, before.sum("go_goroutines"), now.sum("go_goroutines"), before.sum("process_open_fds"), now.sum("process_open_fds"),
		rssAfter, after.sum("go_goroutines"), g.goroutines, after.sum("process_open_fds"), g.fds)
}

func tail(s string) string { return s[max(0, len(s)-2000):] }
