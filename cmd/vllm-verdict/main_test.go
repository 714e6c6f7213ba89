package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/commandline"
	"github.com/vllm-gateway/vllm-gateway/internal/verdict"
)

// binary is the command as it is released, built once.
var binary string

func TestMain(m *testing.M) {
	runtime.KeepAlive(main) // else go test takes its result from before, when only what main calls has changed
	dir, err := os.MkdirTemp("", name)
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, name)
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// run runs the command.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

const recorded = "../../internal/verdict/testdata/k6-"

// summary unpacks what k6 wrote with --summary-export.
func summary(t *testing.T, run string) (path string) {
	t.Helper()
	f, err := os.Open(recorded + run + "-summary.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(unzip)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, "summary.json", string(text))
}

func file(t *testing.T, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What k6 wrote is judged as k6 judged it, and left where it was asked for.
func TestRecordedRuns(t *testing.T) {
	for _, c := range []struct {
		run  string
		code int
		says []string
	}{
		{"1.8.1", 0, []string{"PASSED  baseline", "Gates: 13 of 13 held", "users_100"}},
		{"2.2.0", 0, []string{"PASSED  baseline"}},
		{"1.8.1-failing", crossed, []string{"FAILED  ", "✗ ttft_ms                   avg>0      not measured", "3 of 7 held"}},
		{"2.2.0-failing", crossed, []string{"FAILED  ", "3 of 7 held"}},
	} {
		t.Run(c.run, func(t *testing.T) {
			t.Parallel()
			folder := filepath.Join(t.TempDir(), "not", "there", "yet")
			stdout, stderr, code := run(t, "--prometheus=", "--summary", summary(t, c.run), "--out", folder, recorded+c.run+".json.gz")
			if code != c.code || stderr != "" {
				t.Errorf("it ends with %d, %q, want %d", code, stderr, c.code)
			}
			for _, says := range c.says {
				if !strings.Contains(stdout, says) {
					t.Errorf("it does not say %q:\n%s", says, stdout)
				}
			}
			html, data := filepath.Join(folder, "verdict.html"), filepath.Join(folder, "verdict.json")
			if !strings.HasSuffix(stdout, "\n"+html+"\n"+data+"\n") {
				t.Errorf("its last lines do not say where the files are:\n%s", stdout)
			}
			text, err := os.ReadFile(data)
			var v struct {
				Passed bool
				Gates  []struct{ Held bool }
			}
			if err != nil || json.Unmarshal(text, &v) != nil || v.Passed != (c.code == 0) || len(v.Gates) < 7 {
				t.Errorf("%v: %s", err, text)
			}
			if page, err := os.ReadFile(html); err != nil || !bytes.HasSuffix(bytes.TrimSpace(page), []byte("</html>")) {
				t.Errorf("%v: the report is no whole page", err)
			}
			left, _ := os.ReadDir(folder)
			info, err := os.Stat(html)
			if len(left) != 2 || err != nil || info.Mode().Perm() != 0o644 {
				t.Errorf("it leaves %v, %v", left, info)
			}
		})
	}
}

// Without a summary, and without a Prometheus, there is a verdict that says what it is
// not about.
func TestLittleIsKnown(t *testing.T) {
	stdout, stderr, code := run(t, "--prometheus", "http://127.0.0.1:1", recorded+"1.8.1.json.gz")
	words := strings.Join(strings.Fields(stdout), " ")
	for _, says := range []string{"the Prometheus at http://127.0.0.1:1 cannot be reached (nothing listens there). Set PROMETHEUS_URL, or --prometheus, to the one that watches this gateway.", "Run k6 with --summary-export=FILE as well"} {
		if !strings.Contains(words, says) {
			t.Errorf("it does not say %q:\n%s", says, stdout)
		}
	}
	if code != crossed || stderr != "" || !strings.HasPrefix(stdout, "\nNOT ALL GATES SEEN  baseline") {
		t.Errorf("it ends with %d, %q, want %d: gates that nobody saw need not have held\n%s", code, stderr, crossed, stdout)
	}
}

// A summary that k6 left beside the samples is taken, and nothing else that is called so.
func TestSummaryBesideSamples(t *testing.T) {
	whole, err := os.ReadFile(summary(t, "1.8.1"))
	if err != nil {
		t.Fatal(err)
	}
	samples, err := os.ReadFile(recorded + "1.8.1.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		text  []byte
		later time.Duration
		code  int
	}{
		{"k6's", whole, 50 * time.Millisecond, 0},
		{"of a slow disk", whole, time.Minute, 0},
		{"of another run", whole, 2 * time.Minute, crossed},
		{"of the run before", whole, -time.Second, crossed},
		{"of something else", []byte("{}"), time.Second, crossed},
	} {
		path := file(t, "samples.json.gz", string(samples))
		beside := filepath.Join(filepath.Dir(path), "summary.json")
		if err := os.WriteFile(beside, c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		ended := time.Now().Add(-time.Hour)
		if err := errors.Join(os.Chtimes(path, ended, ended), os.Chtimes(beside, ended, ended.Add(c.later))); err != nil {
			t.Fatal(err)
		}
		if stdout, stderr, code := run(t, "--prometheus=", path); code != c.code || stderr != "" {
			t.Errorf("%s: it ends with %d, %q, want %d\n%s", c.name, code, stderr, c.code, stdout)
		}
	}
}

// However long samples take to read, Prometheus has its time.
func TestReadingIsNotAsking(t *testing.T) {
	defer func(before time.Duration) { askTimeout = before }(askTimeout)
	askTimeout = time.Second
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		samples, _ := os.ReadFile(recorded + "1.8.1.json.gz")
		pipe, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			time.Sleep(2 * askTimeout)
			pipe.Write(samples)
			pipe.Close()
		}
	}()
	empty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	}))
	defer empty.Close()
	p, err := verdict.NewPrometheus(empty.URL)
	if err != nil {
		t.Fatal(err)
	}
	v, err := judge(t.Context(), flags{Samples: path}, p)
	if err != nil {
		t.Fatal(err)
	}
	if missing := strings.Join(v.Missing, " "); strings.Contains(missing, "no answer in time") || !strings.Contains(missing, "has none of these minutes") {
		t.Errorf("missing is %q", missing)
	}
}

func TestMistakes(t *testing.T) {
	samples := recorded + "1.8.1.json.gz"
	notFolder := file(t, "file", "")
	empty := file(t, "empty.json", "")
	dashboards := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }))
	defer dashboards.Close()
	nothing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"status":"success","data":{"resultType":"matrix","result":[]}}`)
	}))
	defer nothing.Close()
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"nothing to judge", []string{"--prometheus="}, 2, "neither samples nor a Prometheus: name a file of k6 run --out json=FILE, or set --prometheus"},
		{"no such file", []string{"nowhere.json"}, 1, "nowhere.json: there is no such file"},
		{"a folder", []string{"."}, 1, ". is a folder: name a file in it"},
		{"an empty file", []string{empty}, 1, empty + ": k6's samples: there is none in the file: give the one that k6 run --out json=FILE wrote"},
		{"not k6's", []string{file(t, "go.mod", "module example\n")}, 1, "give the file that k6 run --out json=FILE wrote"},
		{"a summary for samples", []string{summary(t, "1.8.1")}, 1, "give the file that k6 run --out json=FILE wrote"},
		{"samples for a summary", []string{"--summary", file(t, "lines.json", `{"type":"Metric"}`), samples}, 1, "give the file that k6 run --summary-export=FILE wrote"},
		{"no such summary", []string{"--summary", "nowhere.json", samples}, 1, "nowhere.json: there is no such file"},
		{"a summary without samples", []string{"--summary", "s.json"}, 2, "--summary is of samples: name the file of k6 run --out json=FILE as well"},
		{"no URL", []string{"--prometheus", "localhost:9090", samples}, 2, `--prometheus "localhost:9090": that is no URL of a Prometheus: write it as http://localhost:9090`},
		{"no Prometheus for the last run", []string{"--prometheus", "http://127.0.0.1:1"}, 1, "the Prometheus at http://127.0.0.1:1 cannot be reached (nothing listens there): set --prometheus to the one that k6 writes to, or name a file of k6 run --out json=FILE"},
		{"something else there", []string{"--prometheus", dashboards.URL}, 1, "the Prometheus at " + dashboards.URL + " is none: what answers there is something else (200 OK, text/html"},
		{"no last run", []string{"--prometheus", nothing.URL, "--since", "90m"}, 1, "the Prometheus at " + nothing.URL + " has no load test of the last 1h30m"},
		{"no time", []string{"--since", "0s"}, 2, "--since 0s: it must be above 0, such as 3h"},
		{"no time at all", []string{"--since", "yesterday"}, 2, `--since: "yesterday": write a time with its unit`},
		{"a file for a folder", []string{"--prometheus=", "--out", notFolder, samples}, 1, "--out: " + notFolder + ": there is a file where a folder should be; name a folder"},
		{"a folder in a file", []string{"--prometheus=", "--out", notFolder + "/below", samples}, 1, "there is a file where a folder should be"},
		{"two files", []string{samples, samples}, 2, "unexpected argument"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, stderr, code := run(t, c.args...)
			if code != c.code || !strings.Contains(stderr, c.says) {
				t.Errorf("it ends with %d, %q\nwant %d, %q", code, stderr, c.code, c.says)
			}
			if !strings.HasPrefix(stderr, name+": ") || strings.Count(stderr, name+":") != 1 || strings.Count(stderr, "\n") != 1 {
				t.Errorf("it is not one line that begins with the command: %q", stderr)
			}
		})
	}
}

// Ctrl-C ends it, whatever it waits for.
func TestInterrupted(t *testing.T) {
	asked, ended := make(chan struct{}, 9), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-ended
	}))
	defer slow.Close()
	defer close(ended)
	for _, args := range [][]string{{}, {recorded + "1.8.1.json.gz"}} {
		var errs bytes.Buffer
		cmd := exec.CommandContext(t.Context(), binary, append(args, "--prometheus", slow.URL)...)
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-asked
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 1 || errs.String() != name+": interrupted\n" {
			t.Errorf("with %q it ends with %d, %q", args, code, &errs)
		}
	}
}

// A write that is cut off leaves the old file as it was, and no other.
func TestReplace(t *testing.T) {
	path := file(t, "verdict.json", "old")
	full := errors.New("the disk is full")
	err := replace(path, func(w io.Writer) error {
		io.WriteString(w, "half of the n")
		return full
	})
	text, _ := os.ReadFile(path)
	left, _ := os.ReadDir(filepath.Dir(path))
	if !errors.Is(err, full) || string(text) != "old" || len(left) != 1 {
		t.Errorf("%v: it holds %q, beside it %v", err, text, left)
	}
	err = replace(path, func(w io.Writer) error {
		_, err := io.WriteString(w, "new")
		return err
	})
	if text, _ := os.ReadFile(path); err != nil || string(text) != "new" {
		t.Errorf("%v: it holds %q", err, text)
	}
}

func TestHelp(t *testing.T) {
	if err := commandline.Check(program, &flags{}, 24, "../.."); err != nil {
		t.Error(err)
	}
	if stdout, _, code := run(t, "--help"); code != 0 || !strings.Contains(stdout, "\nExamples:\n") {
		t.Errorf("it ends with %d, %s", code, stdout)
	}
	if stdout, _, code := run(t, "--version"); code != 0 || !regexp.MustCompile(`^vllm-verdict \S+ \(go.*\)\n$`).MatchString(stdout) {
		t.Errorf("--version ends with %d, %q", code, stdout)
	}
}
