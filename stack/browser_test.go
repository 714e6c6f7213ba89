//go:build browser

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/vllm-gateway/vllm-gateway/dashboards"
)

// A newcomer runs one command and opens the page: every panel of the guide's
// ten lives, and what follows them, too. SCREENSHOTS=folder keeps pictures of it.
func TestBrowserSeesTheWholePicture(t *testing.T) {
	p := start(t, t.TempDir())
	t.Logf("up after %v", p.greets)
	tab := chromium(t)
	do(t, tab, chromedp.EmulateViewport(1440, 1080), chromedp.Navigate(p.dashboard))

	ten, rest, callers := panels(t)
	for _, name := range ten {
		p.eventually(name+" shows data", func() bool { return shows(t, tab, name) })
	}
	t.Logf("all ten panels show data %v after the start", time.Since(p.began).Round(100*time.Millisecond))

	for _, text := range []string{"vLLM Gateway", "Simulated"} {
		if got := read[string](t, tab, `document.body.innerText`); !strings.Contains(got, text) {
			t.Errorf("the page does not say %q: %.300s", text, got)
		}
	}
	picture(t, tab, "dashboard.png")

	// The rest is asked for when it comes into view.
	do(t, tab, chromedp.EmulateViewport(1440, 5600))
	for _, name := range rest {
		if strings.HasPrefix(name, "k6:") || name == "Upstream Errors" {
			continue // nobody runs a load test, and nothing fails
		}
		p.eventually(name+" shows data", func() bool { return shows(t, tab, name) })
	}
	for _, name := range callers { // nobody has a key
		p.eventually(name+" waits for callers", func() bool { return waits(t, tab, name) })
	}
	picture(t, tab, "all.png")
}

// panels are the titles of the first ten, of the others, and of those in the row
// of callers.
func panels(t *testing.T) (ten, rest, callers []string) {
	var board struct {
		Panels []struct{ Title, Type string }
	}
	if err := json.Unmarshal(dashboards.JSON, &board); err != nil {
		t.Fatal(err)
	}
	row := ""
	for i, p := range board.Panels {
		switch {
		case i < 10:
			ten = append(ten, p.Title)
		case p.Type == "row":
			row = p.Title
		case row == "Callers":
			callers = append(callers, p.Title)
		default:
			rest = append(rest, p.Title)
		}
	}
	return ten, rest, callers
}

// shows reports whether a panel has drawn a value that is a number.
func shows(t *testing.T, tab context.Context, title string) bool {
	return read[bool](t, tab, fmt.Sprintf(`(() => {
		const panel = [...document.querySelectorAll('[data-panel-id]')].find((p) => p.querySelector('h3').textContent === %q);
		return panel !== undefined && panel.dataset.state === 'data' && Object.values(JSON.parse(panel.dataset.values)).some(Number.isFinite);
	})()`, title))
}

// waits reports whether a panel has asked, and has no series to draw.
func waits(t *testing.T, tab context.Context, title string) bool {
	return read[bool](t, tab, fmt.Sprintf(`(() => {
		const panel = [...document.querySelectorAll('[data-panel-id]')].find((p) => p.querySelector('h3').textContent === %q);
		return panel !== undefined && panel.dataset.state === 'collecting' && panel.dataset.answered > 0 && panel.querySelector('.message').offsetHeight > 0;
	})()`, title))
}

func chromium(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true))
	browser, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	tab, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	do(t, tab)
	return tab
}

func do(t *testing.T, tab context.Context, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(tab, actions...); err != nil {
		t.Fatal(err)
	}
}

func read[T any](t *testing.T, tab context.Context, script string) T {
	t.Helper()
	v, err := chromedp.Run(tab, chromedp.Evaluate[T](script))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func picture(t *testing.T, tab context.Context, name string) {
	t.Helper()
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		return
	}
	png, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name), png, 0o644); err != nil {
		t.Fatal(err)
	}
}
