package page

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/vllm-gateway/vllm-gateway/dashboards"
)

// echo stands where Prometheus is and says what came through.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RequestURI(), body)
})

func testPage() http.Handler {
	return New(Config{
		Dashboard: dashboards.JSON,
		API:       echo,
		About:     About{Version: "v1", Simulated: true, Notice: "<b>simulated</b>", Prometheus: "9090"},
	})
}

func ask(h http.Handler, method, target string, header ...string) *http.Response {
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader("query=1")
	}
	r := httptest.NewRequest(method, target, body)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFiles(t *testing.T) {
	h := testPage()
	for target, mime := range map[string]string{
		"/":                            "text/html; charset=utf-8",
		"/index.html":                  "text/html; charset=utf-8",
		"/style.css":                   "text/css; charset=utf-8",
		"/favicon.svg":                 "image/svg+xml",
		"/js/main.js":                  "text/javascript; charset=utf-8",
		"/uplot/uPlot.iife.min.js":     "text/javascript; charset=utf-8",
		"/uplot/LICENSE":               "text/plain; charset=utf-8",
		"/dashboard.json":              "application/json",
		"/about.json":                  "application/json",
		"/js/main.js?version=whatever": "text/javascript; charset=utf-8",
	} {
		r := ask(h, "GET", target)
		if r.StatusCode != 200 || r.Header.Get("Content-Type") != mime {
			t.Errorf("%s: %d %s", target, r.StatusCode, r.Header.Get("Content-Type"))
		}
		if got := r.Header.Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'; script-src 'self'; style-src 'self'") || strings.Contains(got, "unsafe") {
			t.Errorf("%s: policy %q", target, got)
		}
		if r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: types may be guessed", target)
		}
		whole := text(t, r)
		head := ask(h, "HEAD", target)
		if b := text(t, head); head.StatusCode != 200 || b != "" || head.Header.Get("Content-Length") != fmt.Sprint(len(whole)) {
			t.Errorf("HEAD %s: %d, length %s of %d, body %q", target, head.StatusCode, head.Header.Get("Content-Length"), len(whole), b)
		}
	}
	for _, target := range []string{"/nothing", "/js", "/js/", "/assets/index.html", "/page.go", "/../page.go", "/js/../index.html", "/index.html/", "//", "/api", "/api/", "/api/v1", "/api/v1/"} {
		if r := ask(h, "GET", target); r.StatusCode != 404 {
			t.Errorf("%s: %d", target, r.StatusCode)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		if r := ask(h, method, "/"); r.StatusCode != 405 || r.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s /: %d, Allow %q", method, r.StatusCode, r.Header.Get("Allow"))
		}
	}
}

func TestTheDashboardIsTheVeryFile(t *testing.T) {
	if got := text(t, ask(testPage(), "GET", "/dashboard.json")); got != string(dashboards.JSON) {
		t.Error("the page shows another dashboard than Grafana would")
	}
	var a About
	if err := json.Unmarshal([]byte(text(t, ask(testPage(), "GET", "/about.json"))), &a); err != nil || a != (About{"v1", true, "<b>simulated</b>", "9090"}) {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestCompressedAndAskedForAgain(t *testing.T) {
	h := testPage()
	plain := ask(h, "GET", "/style.css")
	want := text(t, plain)
	zipped := ask(h, "GET", "/style.css", "Accept-Encoding", "br;q=1.0, gzip;q=0.8")
	if zipped.Header.Get("Content-Encoding") != "gzip" || zipped.Header.Get("Vary") != "Accept-Encoding" {
		t.Fatalf("%v", zipped.Header)
	}
	z, err := gzip.NewReader(zipped.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || string(got) != want {
		t.Errorf("unpacked to something else, %v", err)
	}
	for _, header := range []string{"", "br", "gzip;q=0", "gzip; q=0.0", "identity"} {
		if r := ask(h, "GET", "/style.css", "Accept-Encoding", header); r.Header.Get("Content-Encoding") != "" {
			t.Errorf("%q was answered with gzip", header)
		}
	}
	tag := zipped.Header.Get("ETag")
	if tag == "" || tag == plain.Header.Get("ETag") {
		t.Errorf("tags %s and %s: two bodies need two", tag, plain.Header.Get("ETag"))
	}
	for _, match := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		r := ask(h, "GET", "/style.css", "Accept-Encoding", "gzip", "If-None-Match", match)
		if b := text(t, r); r.StatusCode != 304 || b != "" {
			t.Errorf("If-None-Match %s: %d and %d bytes", match, r.StatusCode, len(b))
		}
	}
	if r := ask(h, "GET", "/style.css", "Accept-Encoding", "gzip", "If-None-Match", `"old"`); r.StatusCode != 200 {
		t.Errorf("an old tag: %d", r.StatusCode)
	}
}

func TestQuestionsAreForwardedAndNothingElse(t *testing.T) {
	h := testPage()
	for _, path := range []string{"query?query=up", "query_range?query=up&start=1&end=2&step=1", "series?match[]=up", "labels", "label/model/values", "label/__name__/values",
		"alerts", "rules", "targets?state=active", "metadata", "status/buildinfo"} {
		if r := ask(h, "GET", "/api/v1/"+path); r.StatusCode != 200 || text(t, r) != "GET /api/v1/"+path+" " {
			t.Errorf("GET %s: %d", path, r.StatusCode)
		}
	}
	for _, path := range []string{"query", "query_range", "series", "labels"} {
		if r := ask(h, "POST", "/api/v1/"+path); r.StatusCode != 200 || text(t, r) != "POST /api/v1/"+path+" query=1" {
			t.Errorf("POST %s: %d", path, r.StatusCode)
		}
		if r := ask(h, "POST", "/api/v1/"+path, "Sec-Fetch-Site", "cross-site"); r.StatusCode != 403 {
			t.Errorf("POST %s from another site: %d", path, r.StatusCode)
		}
	}
	for _, path := range []string{"write", "read", "otlp/v1/metrics", "admin/tsdb/delete_series", "admin/tsdb/snapshot", "admin/tsdb/clean_tombstones", "status/config", "status/flags",
		"status/tsdb", "federate", "query/", "label/a/b/values", "label//values", "label/values", "alertmanagers", "-/reload", "../../-/quit", "query_exemplars", "notifications/live"} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
			if r := ask(h, method, "/api/v1/"+path); r.StatusCode != 404 {
				t.Errorf("%s %s: %d", method, path, r.StatusCode)
			}
		}
	}
	for _, c := range [][2]string{{"DELETE", "series"}, {"PUT", "query"}, {"POST", "alerts"}, {"POST", "label/model/values"}, {"POST", "targets"}, {"OPTIONS", "query"}} {
		if r := ask(h, c[0], "/api/v1/"+c[1]); r.StatusCode != 405 {
			t.Errorf("%s %s: %d", c[0], c[1], r.StatusCode)
		}
	}
	if r := ask(New(Config{}), "GET", "/api/v1/query"); r.StatusCode != 404 {
		t.Errorf("without Prometheus: %d", r.StatusCode)
	}
}

// What could make markup, code or a request of a label's value. The policy of
// the page stops most of it, too; this stops it earlier.
var forbidden = regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML|srcdoc|\beval\b|new Function|\bimport\(|javascript:|\.cssText|setAttribute\('(style|on)`)

func TestNothingMakesMarkupOfWhatItReads(t *testing.T) {
	seen := 0
	err := fs.WalkDir(assets, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		seen++
		if found := forbidden.Find(b); found != nil {
			t.Errorf("%s has %q", name, found)
		}
		if path.Ext(name) == ".html" {
			if found := regexp.MustCompile(`(?i)<script[^>]*>[^<]|<style|\son\w+=|\sstyle=|https?://`).Find(b); found != nil {
				t.Errorf("%s has %q", name, found)
			}
		}
		return nil
	})
	if err != nil || seen < 20 {
		t.Errorf("%d files, %v", seen, err)
	}
}

// What others wrote lies here as they released it: uPlot 1.6.32, its file
// dist/uPlot.iife.min.js and dist/uPlot.min.css. To take a new one, replace
// both files and LICENSE by those of the release, and these sums.
func TestThirdPartyIsAsReleased(t *testing.T) {
	for name, want := range map[string]string{
		"assets/uplot/uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
		"assets/uplot/uPlot.min.css":     "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
	} {
		b, err := assets.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != want {
			t.Errorf("%s has the sum %s", name, got)
		}
	}
}

// The whole page, as a browser loads it the first time.
func TestWeight(t *testing.T) {
	h := testPage()
	sum, largest := 0, ""
	most := 0
	err := fs.WalkDir(assets, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Base(name) == "LICENSE" {
			return err
		}
		n := len(text(t, ask(h, "GET", strings.TrimPrefix(name, "assets"), "Accept-Encoding", "gzip")))
		if sum += n; n > most {
			most, largest = n, name
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes compressed, the largest %s with %d", sum, largest, most)
	if sum > 80_000 {
		t.Errorf("the page weighs %d bytes, more than 80 kB", sum)
	}
}
