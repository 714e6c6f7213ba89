//go:build browser

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
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
