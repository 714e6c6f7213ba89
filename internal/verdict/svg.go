package verdict

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A picture is a panel over the run's time, worked out and ready for report.html to
// draw: across in percent of the plot's width, which only the browser knows, and down
// in pixels. Without lines nothing was measured.
type picture struct {
	Title, About, Desc string
	Lines              []pictureLine
	Bands              []pictureBand
	Values, Times      []pictureLabel // of the axes
	Above              []pictureLabel // what lies above the picture's top
	Limit              *pictureLabel
}

// pictureLine is a line. Colour tells one quantity from the next, dashes tell who measured.
type pictureLine struct {
	Name, Most   string
	Path         string // across in thousandths
	Colour       int
	Hex          string // of the colour, where there is no style sheet
	Dash, Weight string
}

type pictureBand struct {
	Name, Label string // Label is empty where there is no room for it
	Wide        bool   // the label fits wide screens only
	X, W, To    string
}

type pictureLabel struct {
	Text, X, Y string
	End        bool // the text ends at X, and does not begin there
	Below      bool // of a line: the text is below it, since the stages' names are above
}

const plotHeight = 160

var picturePanels = []struct{ name, about string }{
	{"TTFT", "time to first token"},
	{"Tokens per second", "of one stream, while it generates"},
	{"RPS", "requests per second"},
	{"Queue", "requests accepted and not ended"},
	{"GPU", "duty cycle: share of time in which anything ran"},
}

// Strokes without a style sheet, on white and on black alike; with one they are the
// scheme's.
var lineColours = []string{"#3b82d6", "#d9731a", "#2f9e63", "#9166dd", "#d9534f", "#1796ad"}

// The first is for k6, the second for the gateway.
var lineDashes = []string{"", "7 4", "2 3", "10 3 2 3"}

func pictures(v *Verdict) []picture {
	c := newPictureClock(v)
	bands := c.bands(v.Stages)
	var all []picture
	draw := func(name, about string) {
		var of []Series
		for _, s := range v.Series {
			if s.Panel == name {
				of = append(of, s)
			}
		}
		p := c.picture(of, limitOf(v, name))
		p.Title, p.About, p.Bands, p.Times = name, about, bands, c.times()
		all = append(all, p)
	}
	for _, p := range picturePanels {
		draw(p.name, p.about)
	}
	for _, s := range v.Series {
		if !slices.ContainsFunc(all, func(p picture) bool { return p.Title == s.Panel }) {
			draw(s.Panel, s.Unit)
		}
	}
	return all
}

func (c pictureClock) picture(series []Series, limit pictureLimit) (p picture) {
	var values []float64
	drawn := make([][]Point, len(series)) // what is a number, or a gap, within the run
	for i, s := range series {
		for _, at := range s.Points {
			if x := c.across(at.At); x < -1e-6 || x > 1+1e-6 {
				continue
			}
			if drawable(at.Value) {
				values = append(values, at.Value)
			}
			drawn[i] = append(drawn[i], at)
		}
	}
	if len(values) == 0 {
		return p
	}
	slices.Sort(values)
	unit := series[0].Unit
	top, step := pictureScale(values, unit)
	for i := range int(math.Round(top/step)) + 1 {
		v := float64(i) * step
		p.Values = append(p.Values, pictureLabel{Text: tickText(v, step, top, unit), Y: pixels(pictureDown(v, top))})
	}
	if limit.at > 0 && limit.at <= top {
		y := pictureDown(limit.at, top)
		p.Limit = &pictureLabel{Text: limit.says, Y: pixels(y), Below: y < 12}
	}
	var above []Point
	var says []string
	for i, style := range lineStyles(series) {
		least, most := math.Inf(1), math.Inf(-1)
		for _, at := range drawn[i] {
			if !drawable(at.Value) {
				continue
			}
			least, most = min(least, at.Value), max(most, at.Value)
			if at.Value > top {
				above = append(above, at)
			}
		}
		style.Name, style.Most = series[i].Name, "not measured"
		if least <= most {
			style.Path, style.Most = c.path(drawn[i], top), "up to "+inUnit(most, unit)
			says = append(says, fmt.Sprintf("%s: %s to %s", style.Name, inUnit(least, unit), inUnit(most, unit)))
		}
		style.Hex = lineColours[style.Colour]
		p.Lines = append(p.Lines, style)
	}
	p.Desc, p.Above = strings.Join(says, "; ")+".", c.above(above, unit)
	return p
}

// path draws what is measured; where nothing was, the line breaks. Of many points in
// one thousandth of the run only the extremes are drawn, so that a day is no larger
// than an hour.
func (c pictureClock) path(points []Point, top float64) string {
	var path strings.Builder
	var column, high, low float64
	down, alone := false, false // the pen; with a single point under it
	for _, at := range append(slices.Clip(points), Point{Value: math.NaN()}) {
		if !drawable(at.Value) {
			if down && alone { // would not be seen
				path.WriteString("h3")
			}
			down = false
			continue
		}
		x, y := math.Round(1000*min(1, max(0, c.across(at.At)))), pictureDown(at.Value, top)
		switch {
		case !down:
			path.WriteString("M" + pixels(x) + " " + pixels(y))
			down, alone, column, high, low = true, true, x, y, y
		case x > column:
			path.WriteString("L" + pixels(x) + " " + pixels(y))
			alone, column, high, low = false, x, y, y
		case y < high || y > low:
			path.WriteString("V" + pixels(y))
			alone, high, low = false, min(y, high), max(y, low)
		}
	}
	return path.String()
}

// above marks the highest of what lies above the picture, and no two so close that
// their texts would lie on each other.
func (c pictureClock) above(points []Point, unit string) (marks []pictureLabel) {
	slices.SortStableFunc(points, func(a, b Point) int { return cmp.Compare(b.Value, a.Value) })
	var taken []float64
	for _, at := range points {
		x := c.across(at.At)
		if slices.ContainsFunc(taken, func(t float64) bool { return math.Abs(t-x) < 0.25 }) {
			continue
		}
		taken = append(taken, x)
		m := pictureLabel{Text: "▲ " + inUnit(at.Value, unit), X: percentOfWidth(x), Y: "12"}
		if m.End = x > 0.75; m.End {
			m.Text = inUnit(at.Value, unit) + " ▲"
		}
		marks = append(marks, m)
	}
	return marks
}

func pictureDown(v, top float64) float64 { return plotHeight * (1 - min(1, max(0, v/top))) }

// lineStyles gives each quantity a colour and each source its dashes: "k6 p95" and
// "gateway p95" look alike but for the dashes. Where all lines are of one quantity,
// their colours differ too.
func lineStyles(series []Series) []pictureLine {
	sources := []string{"k6", "gateway"}
	var quantities []string
	all := make([]pictureLine, len(series))
	for i, s := range series {
		source, quantity, _ := strings.Cut(s.Name, " ")
		at := slices.Index(sources[:2], source)
		if at < 0 { // GPU 0, GPU 1
			at, quantity = len(sources), s.Name
			if sources = append(sources, s.Name); s.Panel == "GPU" {
				at -= 2
			}
		}
		q := slices.Index(quantities, quantity)
		if q < 0 {
			q, quantities = len(quantities), append(quantities, quantity)
		}
		all[i] = pictureLine{Colour: q % len(lineColours), Dash: lineDashes[at%len(lineDashes)], Weight: []string{"1.5", "2.3"}[q%2]}
	}
	if len(quantities) == 1 {
		for i := range all {
			all[i].Colour = i % len(lineColours)
		}
	}
	return all
}

// pictureLimit is a thin line across a picture.
type pictureLimit struct {
	at   float64
	says string
}

// limitOf is what the guide, or the script's own gate, says of a panel.
func limitOf(v *Verdict, panel string) pictureLimit {
	switch panel {
	case "GPU":
		return pictureLimit{90, "the guide’s alert: 90 %"}
	case "TTFT":
		for _, g := range v.Gates {
			if ms, ok := strings.CutPrefix(g.Condition, "p(95)<"); ok && g.Metric == "ttft_ms" {
				at, _ := strconv.ParseFloat(ms, 64) // 0: no line
				return pictureLimit{at, "gate over the whole run: " + g.Condition}
			}
		}
		return pictureLimit{2000, "the guide: p95 < 2 s"}
	}
	return pictureLimit{}
}
