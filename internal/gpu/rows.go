package gpu

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// rows takes in what nvidia-smi printed, warnings among it.
func rows(a *answer, text string, columns []column) {
	for line := range strings.Lines(text) {
		if a.message(line) {
			continue
		}
		if g, driver, ok := row(line, columns); ok {
			a.rows++
			a.gpus = add(a.gpus, g)
			if a.driver == "" {
				a.driver = driver
			}
		} else if g, ok := misfit(line); ok {
			a.refused++
			if g.BusID != "" {
				a.gpus = add(a.gpus, g)
			}
		}
	}
}

// row reads a row of CSV, which must have every column in its place.
func row(line string, columns []column) (g GPU, driver string, ok bool) {
	n := 1 + len(columns) + 4
	cells := split(line, n)
	if len(cells) < n {
		return g, "", false
	}
	index, err := strconv.ParseUint(cells[0], 10, 31)
	tail := cells[1+len(columns):]
	if err != nil || !busID.MatchString(tail[1]) {
		return g, "", false
	}
	g = GPU{Index: int(index), BusID: tail[1], UUID: text(tail[2]), Name: text(tail[3])}
	if g.Failure = whyLost(cells[1:], columns); g.Failure == "" {
		g.read(cells[1:], columns)
	}
	return g, text(tail[0]), true
}

func split(line string, n int) []string {
	cells := strings.SplitN(line, ",", n)
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells
}

func (g *GPU) read(cells []string, columns []column) {
	g.Values = map[Quantity]int64{}
	for i, c := range columns {
		if absent(cells[i]) {
			continue
		}
		v, ok := c.read(cells[i])
		switch {
		case ok && c.what == throttled:
			g.Throttle = throttle(uint64(v))
		case ok:
			g.Values[c.what] = v
		case c.what == RecoveryAction: // newer drivers have more of them
		default:
			g.Garbled = append(g.Garbled, c.what)
		}
	}
}

// whyLost is why a row's GPU cannot be read: it requires a reset, and what is told
// beside that is not measured (0 MiB have been seen); or a cell of the core says
// that it is lost, and none has a value.
func whyLost(cells []string, columns []column) string {
	why, told := "", false
	for i, c := range columns {
		if !c.core {
			continue
		}
		switch unbracketed(cells[i]) {
		case "gpu requires reset":
			return "GPU requires a reset"
		case "gpu is lost":
			why = "GPU is lost"
		case "unknown error":
			if why == "" {
				why = "unknown error"
			}
		default:
			told = told || !absent(cells[i])
		}
	}
	if told {
		return ""
	}
	return why
}

var (
	busID = regexp.MustCompile(`^([0-9a-fA-F]{4}){1,2}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-9a-fA-F]$`)
	uuid  = regexp.MustCompile(`^GPU-[0-9a-fA-F-]{1,64}$`)
)

// misfit tells whether a line that is no row should have been one, and whose, if
// that is clear: a decimal comma or a missing column moves a bus id and a UUID,
// but not apart.
func misfit(line string) (GPU, bool) {
	g := failed("its row cannot be understood")
	cells := split(line, -1)
	for i, cell := range cells {
		if busID.MatchString(cell) {
			if i+1 < len(cells) && uuid.MatchString(cells[i+1]) {
				g.BusID, g.UUID = cell, cells[i+1]
			}
			return g, true
		}
	}
	return g, len(cells) > 1 && digits(cells[0])
}

// normal is the form of a bus id in which two can be compared: a domain of eight
// digits, upper case.
func normal(bus string) string {
	if strings.IndexByte(bus, ':') == 4 {
		bus = "0000" + bus
	}
	return strings.ToUpper(bus)
}

// absent tells whether a cell says that there is no value. Seen with and without
// brackets, and in any spelling of the error.
func absent(cell string) bool {
	if strings.HasPrefix(cell, "[") && strings.HasSuffix(cell, "]") {
		return true
	}
	switch strings.ToLower(cell) {
	case "", "-", "n/a", "not supported", "unknown error", "gpu is lost", "insufficient permissions",
		"function not found", "requested functionality has been deprecated", "err!":
		return true
	}
	return false
}

func unbracketed(cell string) string { return strings.ToLower(strings.Trim(cell, "[]")) }

// text is what a cell names, or nothing.
func text(cell string) string {
	if cell = clean(cell, 128); absent(cell) {
		return ""
	}
	return cell
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func integer(unit int64) func(string) (int64, bool) {
	return func(cell string) (int64, bool) {
		n, err := strconv.ParseUint(cell, 10, 63)
		if err != nil || int64(n) > math.MaxInt64/unit {
			return 0, false
		}
		return int64(n) * unit, true
	}
}

// thousandths reads a decimal number without the rounding of a float.
func thousandths(cell string) (int64, bool) {
	ones, parts, point := strings.Cut(cell, ".")
	if !digits(ones) || point && !digits(parts) {
		return 0, false
	}
	n, err := strconv.ParseUint(ones+(parts + "000")[:3], 10, 63)
	return int64(n), err == nil
}

func mask(cell string) (int64, bool) {
	hex, ok := strings.CutPrefix(cell, "0x")
	n, err := strconv.ParseUint(hex, 16, 63)
	return int64(n), ok && err == nil
}

func oneOf(words map[string]int64) func(string) (int64, bool) {
	return func(cell string) (int64, bool) {
		n, ok := words[strings.ToLower(cell)]
		return n, ok
	}
}
