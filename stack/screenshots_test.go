//go:build screenshots

package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// The pictures in docs/ are of a baseline that passes, before a simulated vLLM: the page
// while a hundred users are there, and the report. TIME_SCALE shortens the run, to try
// this out: such a one is no measurement, and its pictures go to results/screenshots.
func TestScreenshots(t *testing.T) {
	scale, err := strconv.ParseFloat(cmp.Or(os.Getenv("TIME_SCALE"), "1"), 64)
	if err != nil || scale < 0.1 || scale > 1 {
		t.Fatalf("TIME_SCALE=%s: want a number from 0.1 to 1", os.Getenv("TIME_SCALE"))
	}
	folder := filepath.Join("..", "docs")
	if scale < 1 {
		folder = filepath.Join("..", "results", "screenshots")
	}
	tab := chromium(t) // if there is none, say so now and not in seven minutes
	args := []string{"--no-demo"}
	const gpus = "127.0.0.1:9835" // is to be read in the legends
	if l, err := net.Listen("tcp", gpus); err == nil {
		l.Close()
		args = append(args, "--listen-gpu", gpus)
	}
	p := start(t, t.TempDir(), args...)

	results := t.TempDir()
	run := p.loadTest("baseline", results, fmt.Sprintf("TIME_SCALE=%g", scale))
	run.Stdout, run.Stderr = os.Stdout, os.Stderr
	// Ctrl-C is for this test, which then ends k6.
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	interrupted, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(-run.Process.Pid, syscall.SIGTERM) })
	ended := make(chan error, 1)
	go func() { ended <- run.Wait() }()

	// Late in the last stage, so that all three are on the page.
	crowd := fmt.Sprintf("min_over_time(k6_vus[%ds]) >= 100", int(90*scale))
	for len(p.query(crowd, "")) == 0 {
		select {
		case err := <-ended:
			t.Fatalf("the baseline ended before its hundred users were seen: %v", err)
		case <-interrupted.Done():
			t.Fatal("interrupted")
		case <-time.After(time.Second):
		}
	}
	ten, _, _ := panels(t)
	shown := func() {
		for _, name := range append(ten, "State") {
			p.eventually(name+" shows data", func() bool { return shows(t, tab, name) })
		}
		p.eventually("changes of load are marked", func() bool { return read[bool](t, tab, `document.body.dataset.marks > 0`) })
	}
	taken := map[string][]byte{}
	// The narrowest page with three panels beside each other: its text is the largest.
	do(t, tab, chromedp.EmulateViewport(1120, 1200, chromedp.EmulateScale(2)), chromedp.Navigate(p.dashboard))
	for _, scheme := range []string{"light", "dark"} {
		media(t, tab, scheme)
		p.eventually("it is "+scheme, func() bool { return read[bool](t, tab, `document.documentElement.dataset.theme === '`+scheme+`'`) })
		shown()
		name := map[string]string{"light": "dashboard.png", "dark": "dashboard-dark.png"}[scheme]
		taken[name] = capture(t, tab, `document.body`, `document.querySelector('#panels section')`, 10)
	}

	select {
	case err := <-ended:
		if err != nil && (scale == 1 || run.ProcessState.ExitCode() != 99) { // 99: a gate did not hold
			t.Fatalf("the baseline did not pass, and no picture is of such a one; on a busy machine run it once more: %v", err)
		}
	case <-interrupted.Done():
		t.Fatal("interrupted")
	}
	report, err := filepath.Abs(filepath.Join(results, "verdict.html"))
	if err != nil {
		t.Fatal(err)
	}
	media(t, tab, "light")
	do(t, tab, chromedp.EmulateViewport(1060, 1200, chromedp.EmulateScale(2)), chromedp.Navigate("file://"+report))
	section := func(name string) string { return `document.querySelector('section[aria-labelledby=` + name + `]')` }
	taken["verdict.png"] = capture(t, tab, `document.body`, section("guideline"), 24)
	taken["verdict-time.png"] = capture(t, tab, section("time"), section("time"), 24)

	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(taken)) {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, taken[name], 0o644); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d KB", path, len(taken[name])>>10)
	}
	if scale == 1 {
		stamp := exec.Command("go", "test", "-count", "1", "-run", "TestPicturesAreCurrent", ".", "-stamp")
		stamp.Dir = ".."
		if out, err := stamp.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

func media(t *testing.T, tab context.Context, scheme string) {
	t.Helper()
	if _, err := chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
		t.Fatal(err)
	}
}

// capture is a picture over the page's whole width, from one element to another, with so
// many pixels around.
func capture(t *testing.T, tab context.Context, from, to string, around int) []byte {
	t.Helper()
	box := read[page.Viewport](t, tab, fmt.Sprintf(`(() => {
		const from = Math.max(0, Math.floor(%s.getBoundingClientRect().top + scrollY) - %d);
		const to = Math.ceil(%[3]s.getBoundingClientRect().bottom + scrollY) + %[2]d;
		return { x: 0, y: from, width: document.documentElement.clientWidth, height: to - from, scale: 1 };
	})()`, from, around, to))
	beyond := true
	got, err := chromedp.Call(tab, page.CaptureScreenshot, page.CaptureScreenshotParams{Clip: &box, CaptureBeyondViewport: &beyond})
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(got.Data))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&out, paletted(picture)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// paletted is the picture in 256 colours, which makes it half as large: the most frequent
// that are not all but the same, and for the others the nearest of these.
func paletted(picture image.Image) *image.Paletted {
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(picture.At(x, y)).(color.RGBA) }
	size := picture.Bounds()
	count := map[color.RGBA]int{}
	for y := size.Min.Y; y < size.Max.Y; y++ {
		for x := size.Min.X; x < size.Max.X; x++ {
			count[at(x, y)]++
		}
	}
	apart := func(a, b color.RGBA) int {
		r, g, b2 := int(a.R)-int(b.R), int(a.G)-int(b.G), int(a.B)-int(b.B)
		return r*r + g*g + b2*b2
	}
	var chosen []color.RGBA
	index := map[color.RGBA]uint8{}
	for _, c := range slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int {
		return cmp.Or(count[b]-count[a], apart(b, color.RGBA{})-apart(a, color.RGBA{}))
	}) {
		nearest, least := 0, 1<<30
		for i, other := range chosen {
			if d := apart(c, other); d < least {
				nearest, least = i, d
			}
		}
		if least > 3*3*3 && len(chosen) < 256 {
			nearest = len(chosen)
			chosen = append(chosen, c)
		}
		index[c] = uint8(nearest)
	}
	colours := make(color.Palette, len(chosen))
	for i, c := range chosen {
		colours[i] = c
	}
	out := image.NewPaletted(size, colours)
	for y := size.Min.Y; y < size.Max.Y; y++ {
		for x := size.Min.X; x < size.Max.X; x++ {
			out.SetColorIndex(x, y, index[at(x, y)])
		}
	}
	return out
}
