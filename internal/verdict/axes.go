package verdict

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// pictureClock is the run's time, the same in all pictures.
type pictureClock struct {
	from time.Time
	span float64 // seconds
}

func newPictureClock(v *Verdict) pictureClock {
	from, to := v.Start, v.End
	if from.IsZero() || !to.After(from) { // no samples of k6: as far as there are points
		from, to = time.Time{}, time.Time{}
		for _, s := range v.Series {
			for _, p := range s.Points {
				if from.IsZero() || p.At.Before(from) {
					from = p.At
				}
				if p.At.After(to) {
					to = p.At
				}
			}
		}
	}
	return pictureClock{from, max(1, to.Sub(from).Seconds())}
}

// across is where a moment lies, 0 to 1 within the run.
func (c pictureClock) across(t time.Time) float64 { return t.Sub(c.from).Seconds() / c.span }

// times are the marks of the time axis, no more than a telephone has room for.
func (c pictureClock) times() (marks []pictureLabel) {
	step := 1.0
	for _, s := range []float64{2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400} {
		if c.span/step > 8 {
			step = s
		}
	}
	step *= math.Ceil(c.span / step / 8)
	for s := 0.0; s <= c.span; s += step {
		marks = append(marks, pictureLabel{Text: clockTime(s), X: percentOfWidth(s / c.span)})
	}
	return marks
}

// bands are the stages. A label begins where its stage begins and may reach into what
// follows, but not into another label.
func (c pictureClock) bands(stages []Stage) []pictureBand {
	all := make([]pictureBand, len(stages))
	for i, s := range stages {
		from, to := max(0, c.across(s.Start)), min(1, c.across(s.End))
		all[i] = pictureBand{Name: s.Name, X: percentOfWidth(min(1, from)), W: percentOfWidth(max(0, to-from)), To: percentOfWidth(max(0, to))}
	}
	const wide, narrow, letter = 900, 290, 6.6 // pixels
	place := func(width float64, names []string, fits func(i int)) (placed int) {
		end := math.Inf(-1)
		for i, name := range names {
			x := width * max(0, c.across(stages[i].Start))
			if last := x + letter*float64(utf8.RuneCountInString(name)); x >= end && last <= width+8 {
				fits(i)
				end = last + 6
				placed++
			}
		}
		return placed
	}
	names := make([]string, len(stages))
	for i, s := range stages {
		names[i] = s.Name
	}
	if place(wide, names, func(int) {}) < len(names) {
		names = shortNames(names)
	}
	place(wide, names, func(i int) { all[i].Label, all[i].Wide = names[i], true })
	place(narrow, names, func(i int) { all[i].Label, all[i].Wide = names[i], false })
	return all
}

// shortNames leaves out what all but the first begin with: rate_1, 2, 4.
func shortNames(names []string) []string {
	prefix := names[0][:strings.LastIndexAny(names[0], "_- ")+1]
	short := slices.Clone(names)
	for i, name := range names[1:] {
		if rest, ok := strings.CutPrefix(name, prefix); ok && rest != "" {
			short[i+1] = rest
		}
	}
	return short
}

// pictureScale is the height of a picture, and its step. One wild value does not press
// all others flat: what is far above 1.2 times the 99.5th percentile is cut off there.
func pictureScale(sorted []float64, unit string) (top, step float64) {
	most := sorted[len(sorted)-1]
	if usual := 1.2 * sorted[int(0.995*float64(len(sorted)-1))]; len(sorted) >= 20 && usual > 0 && most > 1.25*usual {
		most = usual
	}
	if unit == "%" && most <= 100 {
		return 100, 25
	}
	if most < 1e-6 {
		most = 1
	}
	decade := math.Pow(10, math.Floor(math.Log10(most/5)))
	for _, by := range []float64{1, 2, 5, 10} {
		if step = decade * by; most <= 5*step*(1+1e-9) {
			break
		}
	}
	return step * math.Ceil(most/step-1e-9), step
}

// drawable says that a value can be drawn: beyond 1e15 nothing was measured in any unit.
func drawable(v float64) bool { return math.Abs(v) < 1e15 }

// pixels is a length to a tenth, as short as it goes.
func pixels(v float64) string { return strconv.FormatFloat(math.Round(10*v)/10, 'f', -1, 64) }

func percentOfWidth(share float64) string {
	return strconv.FormatFloat(math.Round(1e4*share)/100, 'f', -1, 64) + "%"
}

// clockTime is a time since the run's start, 12:05.
func clockTime(seconds float64) string {
	return fmt.Sprintf("%d:%02d", int(seconds)/60, int(seconds)%60)
}

// inUnit is a value for people.
func inUnit(v float64, unit string) string {
	switch {
	case unit == "ms":
		return millis(v)
	case unit == "%" && drawable(v):
		return fmt.Sprintf("%.0f %%", v)
	}
	return number(v)
}

// tickText is a value of an axis; all of an axis have the same unit and digits.
func tickText(v, step, top float64, unit string) string {
	if unit == "ms" && top >= 1000 {
		v, step, unit = v/1000, step/1000, "s"
	}
	if top >= 1e6 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	text := strconv.FormatFloat(v, 'f', max(0, -int(math.Floor(math.Log10(step)+1e-9))), 64)
	if unit == "ms" || unit == "s" || unit == "%" {
		text += " " + unit
	}
	return text
}
