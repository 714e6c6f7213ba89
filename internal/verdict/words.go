package verdict

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// millis is a time in milliseconds for people: 12 ms, 1.24 s.
func millis(ms float64) string {
	switch {
	case math.IsInf(ms, 0) || math.IsNaN(ms):
		return "–"
	case ms < 9.95:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 999.5:
		return fmt.Sprintf("%.0f ms", ms)
	case ms < 99995:
		return fmt.Sprintf("%.2f s", ms/1000)
	}
	return fmt.Sprintf("%.0f s", ms/1000)
}

// number is a number for people: one digit behind the point where it says something.
func number(v float64) string {
	switch {
	case math.IsInf(v, 0) || math.IsNaN(v):
		return "–"
	case v >= 1000:
		return count(v)
	case v >= 99.95 || v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case v < 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// count is a whole number, its thousands apart: 12,345.
func count(v float64) string {
	digits := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// counted is a count and what it is of: 1 request, 12 requests.
func counted(v float64, what string) string {
	if math.Round(v) == 1 {
		return "1 " + what
	}
	return count(v) + " " + what + "s"
}

// lasted is a duration to the second: 7m30s.
func lasted(d time.Duration) string { return d.Round(time.Second).String() }

// list is "a", "a and b", "a, b and c".
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
