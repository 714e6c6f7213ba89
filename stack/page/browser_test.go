//go:build browser

package page

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/vllm-gateway/vllm-gateway/dashboards"
	"github.com/vllm-gateway/vllm-gateway/stack/monitor"
)

// Names that clients or operators could bring in, and that mean something in
// HTML, in PromQL or in a regular expression.
var hostile = []string{
	`<img src=x onerror=pwned=1>`,
	`"><script>pwned=1</script>`,
	"two\nlines \"quoted\" it's \\back\\ {{x}} ${model} .*",
}

const rules = `
groups:
- name: test
  rules:
  - alert: Hot
    expr: vector(95) > 90
    labels: {severity: warning}
    annotations: {summary: "GPU <img src=x onerror=pwned=1> is hot", description: "It has {{ $value }} °C."}
  - alert: Soon
    expr: vector(1)
    for: 1h
    labels: {severity: info}
`

// rig is the page before the real Prometheus, which holds a history of half an
// hour that goes on for some minutes into the future, so that what is shown
// does not depend on when it is looked at.
type rig struct {
	t       *testing.T
	url     string
	tab     context.Context
	started time.Time
	away    atomic.Bool
	mu      sync.Mutex
	asked   []string // paths and queries that reached Prometheus
	said    []string // what the browser's console says
}

func newRig(t *testing.T, dashboard []byte, history bool) *rig {
	r := &rig{t: t, started: time.Now().Truncate(5 * time.Second)}
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "test_alive 1") }))
	t.Cleanup(target.Close)
	at, err := url.Parse(target.URL)
	if err != nil {
		t.Fatal(err)
	}
	m, err := monitor.Open(monitor.Config{
		Data: t.TempDir(), Retention: time.Hour, Rules: fstest.MapFS{"test.yml": {Data: []byte(rules)}},
		Jobs: []monitor.Job{{Name: "test", Targets: []*url.URL{at}}},
		URL:  at, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { m.Run(ctx); close(ended) }()
	t.Cleanup(func() {
		stop()
		<-ended
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	if history {
		r.write(m)
	}
	api := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.asked = append(r.asked, q.URL.Path+"?"+q.URL.RawQuery)
		r.mu.Unlock()
		if r.away.Load() {
			panic(http.ErrAbortHandler)
		}
		m.ServeHTTP(w, q)
	})
	srv := httptest.NewUnstartedServer(New(Config{Dashboard: dashboard, API: api, About: About{Version: "v0.0-test", Simulated: true, Notice: "The load is simulated <b>.", Prometheus: "9090"}}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelError)
	srv.Start()
	t.Cleanup(srv.Close)
	r.url = srv.URL

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true))
	browser, stopBrowser := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stopBrowser)
	tab, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	r.tab = tab
	said := chromedp.Console(tab)
	go func() {
		for m, err := range said {
			if err != nil {
				return
			}
			r.mu.Lock()
			r.said = append(r.said, string(m.Type)+": "+m.Text)
			r.mu.Unlock()
		}
	}()
	r.media("dark")
	if _, err := chromedp.Call(tab, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true}); err != nil {
		t.Fatal(err)
	}
	// Every text that is drawn is remembered, with how far it reaches beyond
	// its canvas.
	if _, err := chromedp.Call(tab, cdpage.AddScriptToEvaluateOnNewDocument, cdpage.AddScriptToEvaluateOnNewDocumentParams{Source: `
		window.violations = [];
		addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective + ' ' + e.blockedURI));
		window.drawn = [];
		const fillText = CanvasRenderingContext2D.prototype.fillText;
		CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...rest) {
			const w = this.measureText(text).width, m = this.getTransform();
			const left = x + m.e - (this.textAlign === 'right' ? w : this.textAlign === 'center' ? w / 2 : 0);
			drawn.push({ text, panel: this.canvas.closest('.panel')?.dataset.panelId, beyond: Math.max(-left, left + w - this.canvas.width) });
			return fillText.call(this, text, x, y, ...rest);
		};`}); err != nil {
		t.Fatal(err)
	}
	r.do(chromedp.EmulateViewport(1440, 2600))
	return r
}

// write stores the history by remote write.
func (r *rig) write(m http.Handler) {
	var w prompb.WriteRequest
	series := func(value func(age float64) float64, labels ...string) {
		s := prompb.TimeSeries{}
		for i := 0; i < len(labels); i += 2 {
			s.Labels = append(s.Labels, prompb.Label{Name: labels[i], Value: labels[i+1]})
		}
		slices.SortFunc(s.Labels, func(a, b prompb.Label) int { return strings.Compare(a.Name, b.Name) })
		for at := r.started.Add(-30 * time.Minute); at.Before(r.started.Add(5 * time.Minute)); at = at.Add(5 * time.Second) {
			if v := value(r.started.Sub(at).Seconds()); !math.IsInf(v, 0) {
				s.Samples = append(s.Samples, prompb.Sample{Value: v, Timestamp: at.UnixMilli()})
			}
		}
		w.Timeseries = append(w.Timeseries, s)
	}
	always := func(v float64) func(float64) float64 { return func(float64) float64 { return v } }
	only := func(v, from, to float64) func(float64) float64 { // seconds ago
		return func(age float64) float64 {
			if age <= from && age >= to {
				return v
			}
			return 0
		}
	}
	series(always(1), "__name__", "up", "job", "other")
	series(always(0.25), "__name__", "test_latency_seconds", "q", "p50")
	series(always(1.2), "__name__", "test_latency_seconds", "q", "p95")
	series(always(25018184499), "__name__", "test_memory_bytes")
	series(always(math.NaN()), "__name__", "test_nan")
	series(always(95), "__name__", "test_busy", "gpu", "0")
	series(always(40), "__name__", "test_busy", "gpu", "1")
	series(always(7), "__name__", "test_inside")
	series(func(age float64) float64 { return math.Mod(math.Floor((age+3600)/180), 3) }, "__name__", "test_state")
	series(func(age float64) float64 {
		if age < 600 && age > 200 {
			return math.Inf(1) // no sample
		}
		return 5
	}, "__name__", "test_gap")
	for i, model := range append([]string{"good"}, hostile...) {
		rate := []float64{41.8, 1, 2, 3}[i]
		series(func(age float64) float64 { return (3600 - age) * rate }, "__name__", "test_requests_total", "model", model)
	}
	series(only(1, 360, 350), "__name__", "test_change", "direction", "up")
	series(only(1, 180, 180), "__name__", "test_change", "direction", hostile[0])

	raw, err := w.Marshal()
	if err != nil {
		r.t.Fatal(err)
	}
	q := httptest.NewRequest("POST", "/api/v1/write", strings.NewReader(string(snappy.Encode(nil, raw))))
	q.Header.Set("Content-Type", "application/x-protobuf")
	q.Header.Set("Content-Encoding", "snappy")
	a := httptest.NewRecorder()
	m.ServeHTTP(a, q)
	if a.Code != http.StatusNoContent {
		r.t.Fatalf("remote write: %d %s", a.Code, a.Body)
	}
}

func (r *rig) do(actions ...chromedp.Action[chromedp.Void]) {
	r.t.Helper()
	if err := chromedp.Do(r.tab, actions...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) open(query string) {
	r.t.Helper()
	r.do(chromedp.Navigate(r.url + "/" + query))
	r.until("the panels have answers", `document.querySelectorAll('[data-state=data]').length > 3`)
}

func (r *rig) media(scheme string) {
	r.t.Helper()
	if _, err := chromedp.Call(r.tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
		r.t.Fatal(err)
	}
}

func read[T any](r *rig, script string) T {
	r.t.Helper()
	v, err := chromedp.Run(r.tab, chromedp.Evaluate[T](script))
	if err != nil {
		r.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// until waits for a condition in the page.
func (r *rig) until(what, script string) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if read[bool](r, "Boolean("+script+")") {
			return
		}
		if time.Now().After(end) {
			states := read[string](r, `[...document.querySelectorAll('[data-panel-id]')].map((p) => p.dataset.panelId + ' ' + p.dataset.state + ' ' + p.dataset.texts).join('\n')`)
			r.t.Fatalf("never: %s\n%s\n%s", what, states, read[string](r, "document.body.innerText.slice(0, 1500)"))
		}
	}
}

func (r *rig) is(what, script, want string) {
	r.t.Helper()
	if got := read[string](r, "String("+script+")"); got != want {
		r.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// quiet fails if the console or the content policy had anything to say.
func (r *rig) quiet() {
	r.t.Helper()
	r.is("violations of the content policy", "violations.join('; ')", "")
	r.is("code that ran out of a label", "typeof pwned", "undefined")
	r.is("elements made of labels", "document.querySelectorAll('img, iframe, object, embed, body script').length", "0")
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.said {
		if strings.Contains(s, "status of 400") {
			continue // the board has a query that is broken, and the browser says so
		}
		r.t.Errorf("the console says %s", s)
	}
}

func (r *rig) queries() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}

// picture keeps a screenshot where SCREENSHOTS names a folder.
func (r *rig) picture(name string) {
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		return
	}
	png, err := chromedp.Run(r.tab, chromedp.CaptureScreenshot())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func board(t *testing.T) []byte {
	b, err := os.ReadFile("testdata/board.json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// p is what is asked of a panel.
func p(id, rest string) string {
	return fmt.Sprintf(`document.querySelector('[data-panel-id="%s"]')?%s`, id, rest)
}

func TestBrowserDrawsEveryKindOfPanel(t *testing.T) {
	r := newRig(t, board(t), true)
	r.open("")
	r.until("all are answered", `[...document.querySelectorAll('.panel')].every((p) => !p.checkVisibility() || p.dataset.state !== 'loading')`)
	r.until("annotations", "document.body.dataset.marks === '2'")
	r.picture("kinds")

	r.is("title", "document.title", "Test board")
	r.is("units", p("1", ".dataset.texts"), `{"p50":"250`+"\u00a0"+`ms","p95":"1.20`+"\u00a0"+`s"}`)
	r.is("legend", p("1", ".querySelector('.legend tbody').innerText.replaceAll('\\u00a0', ' ').replace(/\\s+/g, ' ').trim()"), "p50 250 ms 250 ms p95 1.20 s 1.20 s")
	r.is("an override's dash", p("1", ".querySelectorAll('.legend i.dash').length"), "1")
	r.is("an override's colour", "getComputedStyle("+p("1", ".querySelector('.legend i.dash')")+").color", "rgb(242, 123, 120)")
	r.is("memory", p("2", ".dataset.texts"), `{"used":"23.3`+"\u00a0"+`GiB"}`)
	r.is("stat", p("4", ".querySelector('.big').textContent"), "1.20\u202fs")
	r.is("the colour of a stat's threshold", "getComputedStyle("+p("4", ".querySelector('.big')")+").color", "rgb(242, 123, 120)")
	r.is("sparkline", p("4", ".querySelectorAll('.spark path').length"), "2")
	r.is("gauges", "[..."+p("6", ".querySelectorAll('.reading')]")+".map((n) => n.textContent + ' ' + n.getAttribute('fill')).join('; ')", "95 % #f27b78; 40 % #63c58a")
	r.is("bars", "[..."+p("7", ".querySelectorAll('.track div')]")+".map((n) => n.style.width).join('; ')", "95%; 40%")
	r.is("states", p("8", ".querySelector('.legend').innerText.replace(/\\s+/g, ' ')"), "idle busy overloaded")
	r.is("the state now, for those who cannot see it", "/^state: (idle|busy|overloaded)$/.test("+p("8", ".querySelector('.unseen').textContent)"), "true")
	r.is("a stack's legend has the series' own values", p("3", ".dataset.texts.includes('\"good\":\"41.8\u00a0req/s\"')"), "true")

	// Boxes with nothing to draw say why.
	r.is("no series", p("9", ".dataset.state"), "collecting")
	r.is("no series, in words", p("9", ".querySelector('.message').innerText.replace(/\\s+/g, ' ')"), "Nothing yet waiting for test_never_seen_total")
	r.is("no values", p("10", ".dataset.state")+" + ' ' + "+p("10", ".querySelector('.message').innerText.split('\\n')[0]"), "empty No traffic")
	r.is("no values, in the dashboard's words", p("5", ".querySelector('.message').innerText.split('\\n')[0]"), "No streams")
	r.is("a query that is refused", p("11", ".dataset.state"), "error")
	r.is("its reason", p("11", ".querySelector('.failed').textContent.includes('parse error')"), "true")
	r.is("the panel's other query", p("11", ".dataset.values"), `{"used":25018184499}`)

	r.is("what sticks out of its panel", `[...document.querySelectorAll('.panel')].filter((p) => p.checkVisibility()).flatMap((p) => {
		const b = p.getBoundingClientRect();
		return [...p.querySelectorAll('*')].filter((n) => n.checkVisibility() && !n.closest('.legend *, .u-wrap, .about, .unseen')).filter((n) => {
			const c = n.getBoundingClientRect();
			return c.width && (c.bottom > b.bottom + 0.5 || c.right > b.right + 0.5 || c.top < b.top - 0.5);
		}).map((n) => p.dataset.panelId + ' ' + n.tagName + '.' + n.className);
	}).join('; ')`, "")
	r.is("squares beside the states", "[..."+p("8", ".querySelectorAll('.legend i')]")+".map((n) => getComputedStyle(n).backgroundColor + ' ' + n.offsetWidth).join('; ')", "rgb(110, 170, 245) 10; rgb(99, 197, 138) 10; rgb(242, 123, 120) 10")

	// What is on the axes can be read: whole, in round steps, with units.
	r.is("texts that reach beyond their chart", "drawn.filter((d) => d.panel && d.beyond > 0.5).map((d) => d.panel + ' ' + d.text).join('; ')", "")
	ticks := func(id string) string {
		return read[string](r, `[...new Set(drawn.filter((d) => d.panel === '`+id+`' && !d.text.includes(':')).map((d) => d.text))].join(' ').replaceAll('\u00a0', '')`)
	}
	for id, want := range map[string]string{"1": "0.0s 0.5s 1.0s", "2": "0GiB 8GiB 16GiB 24GiB"} {
		if got := ticks(id); !strings.HasPrefix(got, want) {
			t.Errorf("ticks of panel %s: %q, want %q", id, got, want)
		}
	}

	// Above the charts lie the marks, in the colour of the annotation.
	for _, id := range []string{"1", "2", "3", "8", "12"} {
		for _, ago := range []int{355, 180} {
			got := read[string](r, fmt.Sprintf(`(() => {
				const over = %s, canvas = %s;
				const [min, max] = document.body.dataset.window.split(' ').map(Number);
				const o = over.getBoundingClientRect(), c = canvas.getBoundingClientRect(), r = canvas.width / c.width;
				const x = (o.left - c.left + (%d - min) / (max - min) * o.width) * r;
				const copy = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
				copy.drawImage(canvas, Math.round(x) - 30, Math.round((o.top - c.top - 4) * r), 60, 1, 0, 0, 60, 1);
				const data = copy.getImageData(0, 0, 60, 1).data;
				for (let i = 0; i < data.length; i += 4) if (data[i] === 110 && data[i + 1] === 170 && data[i + 2] === 245) return 'marked';
				return 'not marked';
			})()`, p(id, ".querySelector('.u-over')"), p(id, ".querySelector('canvas')"), r.started.Add(-time.Duration(ago)*time.Second).Unix()))
			if got != "marked" {
				t.Errorf("panel %s, %d s ago: %s", id, ago, got)
			}
		}
	}
	r.quiet()
}

// A time at an edge of the window has no room for its text; the others have.
func TestBrowserTimesAtTheEdge(t *testing.T) {
	r := newRig(t, board(t), true)
	end := r.started.Truncate(10 * time.Minute)
	// Ten minutes go by steps of two, fifteen by steps of five.
	for span, middle := range map[time.Duration]time.Duration{10 * time.Minute: 4 * time.Minute, 15 * time.Minute: 5 * time.Minute} {
		for _, ago := range []time.Duration{0, 2 * time.Second, 7 * time.Second} {
			to := end.Add(ago)
			r.open(fmt.Sprintf("?from=%d&to=%d", to.Add(-span).UnixMilli(), to.UnixMilli()))
			r.until("the times", `['1', '2', '3', '8'].every((id) => drawn.some((d) => d.panel === id && d.text.includes(':')))`)
			what := fmt.Sprintf("%v to %v after a round time: ", span, ago)
			r.is(what+"texts that reach beyond their chart", "drawn.filter((d) => d.panel && d.beyond > 0.5).map((d) => d.panel + ' ' + d.text).join('; ')", "")
			r.is(what+"the middle has its text", `drawn.some((d) => d.panel === '1' && d.text === '`+end.Add(-middle).Format("15:04")+`')`, "true")
		}
	}
}

func TestBrowserTrustsNoName(t *testing.T) {
	r := newRig(t, board(t), true)
	r.open("")
	r.until("the models", p("3", ".querySelectorAll('.legend tbody tr').length === 4"))
	names := read[[]string](r, "[..."+p("3", ".querySelectorAll('.legend tbody button span')].map((n) => n.textContent)"))
	for _, name := range hostile {
		if !slices.Contains(names, name) {
			t.Errorf("%q is not in %q", name, names)
		}
	}
	r.until("the alert", "document.querySelector('.alerts').dataset.firing === '1'")
	r.is("alerts", "document.querySelector('.alerts summary').innerText.replace(/\\s+/g, ' ').trim()", "1 alert firing, 1 pending GPU <img src=x onerror=pwned=1> is hot")
	r.do(chromedp.Click(chromedp.CSS(".alerts summary")))
	r.is("an alert", "/^warning GPU <img src=x onerror=pwned=1> is hot It has 95 °C. Hot since /.test(document.querySelector('.alerts li').innerText.replace(/\\s+/g, ' '))", "true")
	r.is("notice", "document.querySelector('#notice').innerText", "Simulated The load is simulated <b>.")

	// A hostile name is chosen: the query stays one, and finds just it.
	r.do(chromedp.Click(chromedp.CSS("#var-model")))
	for i, name := range hostile {
		r.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`(() => {
			const boxes = [...document.querySelectorAll('#var-model-list input')];
			boxes.find((b) => b.value === '$__all' && b.checked)?.click();
			[...document.querySelectorAll('#var-model-list input')].find((b) => b.value === %q).click();
			for (const b of [...document.querySelectorAll('#var-model-list input:checked')]) if (b.value !== %[1]q && b.value !== '$__all') b.click();
		})()`, name)))
		r.until(fmt.Sprintf("only %q", name), p("3", fmt.Sprintf(`.dataset.values === JSON.stringify({[%q]: %d}) || Math.abs(Object.values(JSON.parse(document.querySelector('[data-panel-id="3"]').dataset.values))[0] - %[2]d) < 0.01 && Object.keys(JSON.parse(document.querySelector('[data-panel-id="3"]').dataset.values)).join() === %[1]q`, name, i+1)))
	}
	r.is("title", p("3", ".querySelector('h3').textContent"), "Requests of "+hostile[2])
	r.do(chromedp.Reload())
	r.until("the choice after a reload", p("3", ".dataset.values")+fmt.Sprintf(" && Object.keys(JSON.parse(%s)).join() === %q", p("3", ".dataset.values"), hostile[2]))

	// The mark with a hostile label is read under the pointer.
	r.until("the chart", p("1", ".querySelector('.u-over') !== null"))
	r.hover("1", 180)
	r.until("the mark's text", `!document.querySelector('.tip').hidden && document.querySelector('.tip').innerText.includes('Load <img src=x onerror=pwned=1> of the queue')`)
	r.quiet()
}

// at is where a moment lies in a panel's chart.
func (r *rig) at(id string, ago int) (x, y float64) {
	r.t.Helper()
	at := read[[]float64](r, fmt.Sprintf(`(() => {
		const o = %s.getBoundingClientRect();
		const [min, max] = document.body.dataset.window.split(' ').map(Number);
		return [o.left + (%d - min) / (max - min) * o.width, o.top + o.height / 2];
	})()`, p(id, ".querySelector('.u-over')"), r.started.Add(-time.Duration(ago)*time.Second).Unix()))
	return at[0], at[1]
}

// hover puts the pointer there; the first move enters the chart.
func (r *rig) hover(id string, ago int) (x, y float64) {
	r.t.Helper()
	x, y = r.at(id, ago)
	r.do(chromedp.MouseEvent(chromedp.MouseMoved, x-3, y), chromedp.MouseEvent(chromedp.MouseMoved, x, y))
	return x, y
}

func TestBrowserVariablesChangeQueries(t *testing.T) {
	r := newRig(t, board(t), true)
	r.open("")
	r.until("all models", p("3", `.dataset.queries?.includes('model=~\\".*\\"')`))
	r.is("the data source is no choice here", "document.querySelectorAll('#variables .control').length", "2")
	// The scrape interval is Prometheus's to say: four times 5 s.
	r.is("rate interval", p("3", `.dataset.queries.includes('[20s]')`), "true")

	// By keyboard: open, go to the second box, tick it.
	r.do(chromedp.Focus(chromedp.CSS("#var-model")), chromedp.KeyEvent(kb.Enter), chromedp.KeyEvent(kb.Tab))
	for range 4 { // hostile names come before "good" in the list
		if read[string](r, "document.activeElement.value") == "good" {
			break
		}
		r.do(chromedp.KeyEvent(kb.Tab))
	}
	r.is("focus", "document.activeElement.value", "good")
	r.do(chromedp.KeyEvent(" "))
	r.until("one model", p("3", `.dataset.queries.includes('model=~\\"good\\"')`))
	r.is("focus stays", "document.activeElement.value", "good")
	r.until("its figures alone", p("3", ".querySelectorAll('.legend tbody tr').length === 1"))
	r.is("the address", "new URLSearchParams(location.search).get('var-model')", "good")
	r.do(chromedp.KeyEvent(kb.Escape))
	r.is("closed", "document.querySelector('#var-model-list').hidden + ' ' + document.activeElement.id", "true var-model")
	r.is("button", "document.querySelector('#var-model').innerText.trim()", "good")

	// A link to a model that has no series just now says so, and shows no other.
	r.open("?var-model=gone")
	r.until("the link's choice", p("3", `.dataset.queries?.includes('model=~\\"gone\\"')`))
	r.is("its panel", p("3", ".dataset.state"), "collecting")
	r.is("its button", "document.querySelector('#var-model').innerText.trim()", "gone")
	r.quiet()
}

func TestBrowserZoomAndCursor(t *testing.T) {
	r := newRig(t, board(t), true)
	r.open("")
	r.until("two charts", p("1", ".querySelector('.u-over')")+" && "+p("2", ".querySelector('.u-over')"))

	// The cursor moves in all charts; where it is, the values of that time.
	r.hover("1", 400)
	r.until("the tooltip", `!document.querySelector('.tip').hidden`)
	r.is("sorted", `[...document.querySelectorAll('.tip tr')].map((n) => n.innerText.replace(/\s+/g, ' ').trim()).join('; ')`, "p95 1.20 s; p50 250 ms")
	r.until("another chart's cursor at the same time", `(() => {
		const at = [...document.querySelectorAll('.u-over')].filter((o) => o.offsetWidth && getComputedStyle(o.querySelector('.u-cursor-x')).display !== 'none').map((o) => {
			const c = o.querySelector('.u-cursor-x');
			return (c.getBoundingClientRect().left - o.getBoundingClientRect().left) / o.offsetWidth;
		});
		return at.length > 3 && Math.max(...at) - Math.min(...at) < 0.02;
	})()`)
	r.is("another chart's legend is at the cursor", p("2", ".querySelectorAll('.at-cursor').length > 0"), "true")
	r.do(chromedp.MouseEvent(chromedp.MouseMoved, 5, 5))
	r.until("the tooltip goes", `document.querySelector('.tip').hidden && document.querySelectorAll('.at-cursor').length === 0`)

	// Drag.
	window := func() float64 {
		return read[float64](r, "document.body.dataset.window.split(' ').map(Number).reduce((a, b) => b - a)")
	}
	if got := window(); math.Abs(got-900) > 1 {
		t.Errorf("%v s are shown, want 900", got)
	}
	x, y := r.hover("1", 500)
	to, _ := r.at("1", 300)
	r.do(chromedp.DragAndDropXY(x, y, to, y))
	r.until("zoomed", "/^\\d+$/.test(new URLSearchParams(location.search).get('from'))")
	r.until("a narrower window", "Math.abs(document.body.dataset.window.split(' ').map(Number).reduce((a, b) => b - a) - 200) < 20")
	r.until("drawn", p("1", ".dataset.state === 'data'"))
	r.picture("zoomed")
	r.is("the choice of ranges", "/^\\d\\d:\\d\\d:\\d\\d – \\d\\d:\\d\\d:\\d\\d$/.test(document.querySelector('#range').selectedOptions[0].text)", "true")
	zoomed := read[string](r, "location.search")
	r.do(chromedp.Click(chromedp.CSS("#back")))
	r.until("back", "new URLSearchParams(location.search).get('from') === 'now-15m' && document.querySelector('#back').hidden")
	r.do(chromedp.NavigateBack())
	r.until("the browser's own back", fmt.Sprintf("location.search === %q && document.body.dataset.window.split(' ')[0] > %d", zoomed, r.started.Add(-520*time.Second).Unix()))
	r.do(chromedp.NavigateForward())
	r.until("forward", "document.body.dataset.window.split(' ').map(Number).reduce((a, b) => b - a) > 890")

	// By keyboard: read, choose, zoom.
	r.do(chromedp.Focus(chromedp.CSS(`[data-panel-id="1"] .plot`)), chromedp.KeyEvent(kb.ArrowLeft), chromedp.KeyEvent(kb.ArrowLeft))
	r.until("what is read aloud", `/^\d\d:\d\d:\d\d, p95 1.20.s, p50 250.ms$/.test(document.querySelector('body > .unseen[role=status]').textContent)`)
	for range 12 {
		r.do(chromedp.KeyEvent(kb.ArrowLeft, chromedp.KeyModifiers(chromedp.ModifierShift)))
	}
	r.do(chromedp.KeyEvent(kb.Enter))
	r.until("zoomed by keyboard", "/^\\d+$/.test(new URLSearchParams(location.search).get('from'))")
	r.until("a minute", "Math.abs(document.body.dataset.window.split(' ').map(Number).reduce((a, b) => b - a) - 60) < 11")
	r.quiet()
}

func TestBrowserRefreshes(t *testing.T) {
	r := newRig(t, board(t), true)
	r.open("")
	answered := func() int { return read[int](r, "Number("+p("1", ".dataset.answered)")) }
	first := answered()
	r.until("the next refresh", fmt.Sprintf("Number(%s) > %d", p("1", ".dataset.answered"), first))

	// Nobody looks: nothing is asked.
	r.do(chromedp.Evaluate[chromedp.Void](`Object.defineProperty(document, 'hidden', { get: () => window.away, configurable: true }); window.away = true; document.dispatchEvent(new Event('visibilitychange'))`))
	time.Sleep(time.Second)
	before := len(r.queries())
	time.Sleep(6 * time.Second)
	if n := len(r.queries()) - before; n != 0 {
		t.Errorf("%d questions from a page that nobody sees", n)
	}
	first = answered()
	r.do(chromedp.Evaluate[chromedp.Void](`window.away = false; document.dispatchEvent(new Event('visibilitychange'))`))
	r.until("somebody looks again", fmt.Sprintf("Number(%s) > %d", p("1", ".dataset.answered"), first))

	r.do(chromedp.SetValue(chromedp.CSS("#refresh"), "off"), chromedp.Evaluate[chromedp.Void](`document.querySelector('#refresh').dispatchEvent(new Event('change'))`))
	r.is("the address", "new URLSearchParams(location.search).get('refresh')", "off")
	time.Sleep(time.Second)
	before = len(r.queries())
	time.Sleep(6 * time.Second)
	if n := len(r.queries()) - before; n != 0 {
		t.Errorf("%d questions with refresh off", n)
	}
	first = answered()
	r.do(chromedp.Click(chromedp.CSS("#now")))
	r.until("asked by hand", fmt.Sprintf("Number(%s) > %d", p("1", ".dataset.answered"), first))

	// What nobody can see is not asked for.
	r.is("a closed row's panel", p("13", ".dataset.state"), "loading")
	if i := slices.IndexFunc(r.queries(), func(q string) bool { return strings.Contains(q, "test_inside") }); i >= 0 {
		t.Error("a panel in a closed row was asked for")
	}
	r.do(chromedp.EmulateViewport(1440, 500), chromedp.Reload())
	r.until("the first", p("1", ".dataset.state === 'data'"))
	time.Sleep(500 * time.Millisecond)
	r.is("a panel far below", p("12", ".dataset.state"), "loading")
	r.do(chromedp.ScrollIntoView(chromedp.CSS(`[data-panel-id="12"]`)))
	r.until("it comes into view", p("12", ".dataset.state === 'data'"))
	r.quiet()
}

func TestBrowserOutlivesPrometheus(t *testing.T) {
	r := newRig(t, board(t), true)
	r.away.Store(true)
	r.do(chromedp.Navigate(r.url + "/?refresh=off"))
	r.until("one banner", "!document.querySelector('#away').hidden")
	time.Sleep(2 * time.Second) // until nothing is on its way any more
	r.away.Store(false)
	r.until("it recovers, even with refresh off", "document.querySelector('#away').hidden && document.querySelectorAll('[data-state=data]').length > 3")
	r.is("the models", p("3", ".dataset.state"), "data")
	r.until("the scrape interval is known", p("3", `.dataset.queries.includes('[20s]')`))

	r.open("?refresh=5s")
	r.away.Store(true)
	r.until("the banner", "!document.querySelector('#away').hidden")
	r.is("what was drawn stays", p("1", ".dataset.state")+" + "+p("1", ".querySelectorAll('canvas').length"), "data1")
	r.picture("away")
	r.away.Store(false)
	r.until("back", "document.querySelector('#away').hidden")
	first := read[int](r, "Number("+p("1", ".dataset.answered)"))
	r.until("drawn anew", fmt.Sprintf("Number(%s) > %d", p("1", ".dataset.answered"), first))

	// The program that serves the page ends as well: what the browser says of
	// connections is all that may be on the console.
	r.mu.Lock()
	r.said = slices.DeleteFunc(r.said, func(s string) bool { return strings.Contains(s, "Failed to load resource") })
	r.mu.Unlock()
	r.quiet()
}

func TestBrowserLightAndDark(t *testing.T) {
	r := newRig(t, board(t), true)
	r.open("")
	ground := "getComputedStyle(document.body).backgroundColor"
	r.is("dark", ground, "rgb(16, 19, 24)")
	r.media("light")
	r.until("light, as the system is now", ground+" === 'rgb(243, 244, 246)'")
	r.is("a threshold's colour in the light", "getComputedStyle("+p("4", ".querySelector('.big')")+").color", "rgb(196, 50, 47)")
	r.picture("light")
	r.do(chromedp.Click(chromedp.CSS("#theme")))
	r.is("dark, as chosen", ground, "rgb(16, 19, 24)")
	r.do(chromedp.Reload())
	r.until("data", p("1", ".dataset.state === 'data'"))
	r.is("the choice is kept", ground, "rgb(16, 19, 24)")
	r.do(chromedp.Click(chromedp.CSS("#theme")))
	r.media("dark")
	r.until("the system's again", ground+" === 'rgb(16, 19, 24)'")

	// WCAG's AA: 4.5 for what is small, in both.
	for _, scheme := range []string{"dark", "light"} {
		r.media(scheme)
		r.until(scheme, "document.documentElement.dataset.theme === '"+scheme+"'")
		time.Sleep(300 * time.Millisecond)
		if got := read[[]string](r, contrast); len(got) > 0 {
			t.Errorf("%s: too little contrast:\n%s", scheme, strings.Join(got, "\n"))
		}
	}
	r.quiet()
}

const contrast = `(() => {
	const nums = (c) => c.match(/[\d.]+/g).map(Number);
	const lum = ([r, g, b]) => [r, g, b].map((c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)).reduce((s, c, i) => s + c * [0.2126, 0.7152, 0.0722][i], 0);
	const ground = (n) => { for (; n; n = n.parentElement) { const c = nums(getComputedStyle(n).backgroundColor); if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
	const bad = new Set();
	for (const n of document.querySelectorAll('body *')) {
		if (!n.checkVisibility() || ![...n.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim()) || n.closest('svg, .unseen, option, script')) continue;
		const [a, b] = [lum(nums(getComputedStyle(n).color)), lum(ground(n))];
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < 4.5) bad.add(ratio.toFixed(2) + ' ' + n.tagName + '.' + n.className + ' ' + n.textContent.slice(0, 30));
	}
	return [...bad];
})()`

func TestBrowserOnAPhone(t *testing.T) {
	r := newRig(t, board(t), true)
	r.do(chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile, chromedp.EmulateTouch))
	r.open("")
	r.picture("phone")
	// The body clips what is too wide, so each is measured.
	wide := `[...document.querySelectorAll('body *')].filter((n) => n.checkVisibility() && !n.closest('.u-wrap, .legend, .skip, .unseen, pre') && (n.getBoundingClientRect().right > innerWidth + 0.5 || n.getBoundingClientRect().left < -0.5)).map((n) => n.tagName + '.' + n.className + '#' + n.id).join(' ')`
	r.is("no scrolling sideways", "document.documentElement.scrollWidth + ' ' + innerWidth", "390 390")
	r.is("nothing beyond the edge", wide, "")
	r.is("one column", "[...new Set([...document.querySelectorAll('.panel')].filter((p) => p.checkVisibility()).map((p) => Math.round(p.getBoundingClientRect().left) + ' ' + Math.round(p.getBoundingClientRect().width)))].join('; ')", "10 370")
	r.do(chromedp.Evaluate[chromedp.Void]("document.querySelector('#var-model').click()"))
	r.is("a list of choices stays inside", wide, "")
	r.do(chromedp.Evaluate[chromedp.Void]("document.querySelector('#var-model').click(); document.querySelector('[data-panel-id=\"1\"] .info').click()"))
	r.until("a description", "!"+p("1", ".querySelector('.about').hidden"))
	r.is("it stays inside", wide, "")
	r.do(chromedp.Evaluate[chromedp.Void]("scrollTo(0, 900)"))
	r.until("scrolled", "scrollY > 500")
	r.is("the notice stays in sight", "document.querySelector('#notice').getBoundingClientRect().top", "0")
	r.is("and in front", "document.elementFromPoint(100, 10).closest('#notice') !== null", "true")
	r.quiet()
}

func TestBrowserByKeyboard(t *testing.T) {
	r := newRig(t, board(t), true)
	r.open("")
	r.is("headings", "[...document.querySelectorAll('h1, h2, h3')].filter((h) => h.checkVisibility()).map((h) => h.tagName[1]).join('')", "1233333333333"+"232")
	// Every stop has a name, and shows that it is one.
	seen := map[string]bool{}
	for range 60 {
		r.do(chromedp.KeyEvent(kb.Tab))
		at := read[string](r, `(() => {
			const n = document.activeElement;
			if (n === document.body) return '';
			const name = n.getAttribute('aria-label') || n.getAttribute('aria-labelledby') || n.innerText?.trim() || n.closest('label')?.innerText.trim() || '';
			const s = getComputedStyle(n);
			return (name ? '' : 'NAMELESS ') + (s.outlineStyle === 'none' ? 'INVISIBLE ' : '') + n.tagName + ' ' + n.className + ' ' + n.id + ' ' + name.slice(0, 40) + ' ' + (n.closest('.panel')?.dataset.panelId ?? '');
		})()`)
		if strings.Contains(at, "NAMELESS") || strings.Contains(at, "INVISIBLE") {
			t.Errorf("a stop without name or mark: %s", at)
		}
		seen[at] = true
	}
	if len(seen) < 30 {
		t.Errorf("only %d stops: %v", len(seen), seen)
	}

	r.do(chromedp.Focus(chromedp.CSS(`[data-panel-id="1"] .info`)))
	r.until("a description on focus", "!"+p("1", ".querySelector('.about').hidden"))
	r.is("its words", p("1", ".querySelector('.about').innerText.replace(/\\s+/g, ' ').trim()"), "What it means: <b>one</b> two Queries")
	r.is("announced", p("1", ".querySelector('.info').getAttribute('aria-expanded')"), "true")
	r.picture("about")
	r.do(chromedp.KeyEvent(kb.Escape))
	r.is("Escape closes it", p("1", ".querySelector('.about').hidden"), "true")

	r.do(chromedp.Focus(chromedp.CSS(`[data-row-id="21"] h2 button`)), chromedp.KeyEvent(kb.Enter))
	r.until("the row opens and its panels are asked for", p("13", ".dataset.state === 'data'"))
	r.is("the address", "new URLSearchParams(location.search).get('open')", "21")
	r.is("text", p("14", ".querySelector('.prose').innerText"), "Some words <script>pwned=1</script>")
	r.is("a kind that is not drawn", p("15", ".innerText.includes('does not draw panels of the type “heatmap”')"), "true")
	r.do(chromedp.Focus(chromedp.CSS(`[data-row-id="20"] h2 button`)), chromedp.KeyEvent(" "))
	r.is("another closes", "document.querySelector('#row-20').hidden + ' ' + new URLSearchParams(location.search).get('closed')", "true 20")
	r.do(chromedp.Reload())
	r.until("rows after a reload", "document.querySelector('#row-20')?.hidden === true && document.querySelector('#row-21')?.hidden === false")

	// One series alone, and all again.
	r.until("legend", p("1", ".querySelectorAll('.legend button').length === 2"))
	r.do(chromedp.Focus(chromedp.CSS(`[data-panel-id="1"] .legend button`)), chromedp.KeyEvent(kb.Enter))
	pressed := "[..." + p("1", ".querySelectorAll('.legend button')].map((b) => b.getAttribute('aria-pressed')).join(' ')")
	r.is("one alone", pressed, "true false")
	r.do(chromedp.KeyEvent(kb.Enter))
	r.is("all", pressed, "true true")
	r.quiet()
}

// With a young Prometheus there is little to show: said, not left empty.
func TestBrowserWithoutHistory(t *testing.T) {
	r := newRig(t, dashboards.JSON, false)
	r.do(chromedp.EmulateViewport(1440, 5200), chromedp.Navigate(r.url))
	r.until("all have answers", `[...document.querySelectorAll('.panel')].length > 30 && [...document.querySelectorAll('.panel')].every((p) => p.dataset.state !== 'loading')`)
	r.is("panels in error", `[...document.querySelectorAll('[data-state=error]')].map((p) => p.dataset.panelId + p.querySelector('.failed').textContent).join('; ')`, "")
	r.is("boxes that do not say that they collect", `[...document.querySelectorAll('[data-state=collecting] .message')].map((m) => m.innerText).filter((m) => !/^Collecting …\n+waiting for \w/.test(m)).join('; ')`, "")
	r.is("none is empty", `[...document.querySelectorAll('.panel')].filter((p) => p.innerText.trim() === p.querySelector('h3').textContent).length`, "0")
	// A few scrapes, not fifteen minutes of which fourteen are empty.
	r.is("the window", "document.body.dataset.window.split(' ').map(Number).reduce((a, b) => b - a) < 31", "true")
	r.is("kinds that this page cannot draw", `document.body.innerText.includes('does not draw')`, "false")
	r.picture("collecting")
	r.quiet()
}

// A range that begins before the history does is cut to it, in all panels.
func TestBrowserCutsToTheHistory(t *testing.T) {
	r := newRig(t, board(t), true)
	r.open("?from=now-12h")
	r.until("the window", fmt.Sprintf("Math.abs(document.body.dataset.window.split(' ')[0] - %d) < 10", r.started.Add(-30*time.Minute).Unix()))
	r.until("a step for the part that is shown", p("1", ".dataset.step === '5'"))
	r.quiet()
}

func TestMain(m *testing.M) {
	// A resolver that takes its time would make the first scrape late.
	net.DefaultResolver.PreferGo = true
	os.Exit(m.Run())
}
