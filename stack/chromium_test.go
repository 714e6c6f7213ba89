//go:build browser || screenshots

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/vllm-gateway/vllm-gateway/dashboards"
)

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
	if err := chromedp.Do(tab); err != nil {
		t.Fatalf("Chromium does not start (on Debian it comes by apt-get install chromium): %v", err)
	}
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
