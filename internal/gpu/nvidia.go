package gpu

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// What both ways of asking NVIDIA's driver have in common.

// throttle names the bits of a mask of clocks event reasons, as nvml.h counts
// them. What it does not name here is not told.
func throttle(mask uint64) map[string]bool {
	reasons := map[string]bool{}
	for i, name := range []string{
		"gpu_idle", "applications_clocks_setting", "sw_power_cap", "hw_slowdown", "sync_boost",
		"sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "display_clock_setting",
		"board_limit", "reliability",
	} {
		reasons[name] = mask&(1<<i) != 0
	}
	return reasons
}

// clean makes text from outside fit for a label and for one line of a log.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.Join(strings.Fields(s), " ")
	for len(s) > limit {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return strings.TrimSpace(s)
}
