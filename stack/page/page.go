// Package page is the dashboard on :3000. It serves a page that draws the
// very file that Grafana would be given, and passes the page's questions on
// to Prometheus. What the page is made of is in assets/, without a build step.
package page

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// Config is what the page shows and whom it asks.
type Config struct {
	Dashboard []byte       // Grafana's classic JSON
	API       http.Handler // Prometheus's, at /api/v1/
	About     About
}

// About is what the page says of the program that serves it.
type About struct {
	Version    string `json:"version"`
	Simulated  bool   `json:"simulated"`
	Notice     string `json:"notice"`
	Prometheus string `json:"prometheus"` // its port, on the host that serves the page
}

//go:embed assets
var assets embed.FS

// Types are named here, not looked up: what a machine's own table says of
// .js differs, and browsers run no script under another type.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".json": "application/json",
	"":      "text/plain; charset=utf-8",
}

// Nothing but the page's own files runs or is loaded, whatever a label's
// value manages to be. Styles are set through the CSSOM, which no policy
// hinders, so not even they may be inline.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'self'; require-trusted-types-for 'script'"

// New returns the page.
func New(c Config) http.Handler {
	about, err := json.Marshal(c.About)
	if err != nil {
		panic(err) // strings and a bool
	}
	files := map[string]*file{
		"/dashboard.json": newFile(types[".json"], c.Dashboard),
		"/about.json":     newFile(types[".json"], about),
	}
	err = fs.WalkDir(assets, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		files[strings.TrimPrefix(name, "assets")] = newFile(types[path.Ext(name)], b)
		return nil
	})
	if err != nil {
		panic(err) // what was embedded can be read
	}
	files["/"] = files["/index.html"]

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if strings.HasPrefix(r.URL.Path, "/api/") {
			question(c.API, w, r)
			return
		}
		h.Set("Content-Security-Policy", policy)
		f := files[r.URL.Path]
		if f == nil {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		f.serve(w, r)
	})
}

// What the page, or a Grafana that is pointed at it, asks of Prometheus.
// Whatever else Prometheus can do (delete series, take snapshots, receive
// samples) is not to be reached through a page that anybody may open.
var (
	questions = map[string]bool{
		"query": true, "query_range": true, "series": true, "labels": true,
		"alerts": true, "rules": true, "targets": true, "metadata": true, "status/buildinfo": true,
	}
	values = regexp.MustCompile(`^label/[^/]+/values$`)
	posted = map[string]bool{"query": true, "query_range": true, "series": true, "labels": true}
)

func question(api http.Handler, w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.URL.Path, "/api/v1/")
	if api == nil || !ok || !questions[name] && !values.MatchString(name) {
		http.NotFound(w, r)
		return
	}
	// Another site's page can send a form here, or ask for a picture. It gets
	// nothing to read, but the work would be done.
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" {
		http.Error(w, "cross-site request refused", http.StatusForbidden)
		return
	}
	switch {
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
	case r.Method == http.MethodPost && posted[name]:
		r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	default:
		h := w.Header()
		h.Set("Allow", "GET, HEAD")
		if posted[name] {
			h.Set("Allow", "GET, HEAD, POST")
		}
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	api.ServeHTTP(w, r)
}

// file is one file, compressed once.
type file struct {
	mime, tag  string
	plain, zip []byte // zip is nil where it would not be smaller
}

func newFile(mime string, b []byte) *file {
	sum := sha256.Sum256(b)
	f := &file{mime: mime, plain: b, tag: hex.EncodeToString(sum[:8])}
	var buf bytes.Buffer
	z, _ := gzip.NewWriterLevel(&buf, gzip.BestCompression) // the level is one
	_, _ = z.Write(b)                                       // a buffer takes all
	_ = z.Close()
	if buf.Len() < len(b) {
		f.zip = buf.Bytes()
	}
	return f
}

func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Vary", "Accept-Encoding")
	// Always asked for again, which costs 304 and no body: a page of one
	// version with a script of another is worse than a round trip.
	h.Set("Cache-Control", "no-cache")
	body, tag := f.plain, f.tag
	zipped := f.zip != nil && acceptsGzip(r.Header.Get("Accept-Encoding"))
	if zipped {
		body, tag = f.zip, f.tag+"-gzip"
	}
	h.Set("ETag", `"`+tag+`"`)
	if matches(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if zipped {
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Type", f.mime)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that has left needs nothing
	}
}

func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		coding, params, _ := strings.Cut(part, ";")
		if coding = strings.TrimSpace(coding); coding != "gzip" && coding != "*" {
			continue
		}
		q, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		if v, err := strconv.ParseFloat(q, 64); !ok || err == nil && v > 0 {
			return true
		}
	}
	return false
}

func matches(header, tag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if part == "*" || part == `"`+tag+`"` {
			return true
		}
	}
	return false
}
