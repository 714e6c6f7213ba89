// A fake nvidia-smi, for tests without a GPU. It answers --query-gpu, as CSV
// with neither header nor units, from the description of a machine in the file
// $FAKE_GPUS, and notes each of its runs in $FAKE_GPUS.runs. What a line of the
// description means stands in fake_test.go.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type gpu struct {
	values map[string]string
	lost   bool
}

// machine is the description; the fields from delay on are its "smi" lines.
type machine struct {
	gpus []*gpu

	delay         time.Duration
	exit          int // -1: as it comes
	flood         int
	stderr        string
	before, after string
	is            map[string]bool   // the plain words: hang, crlf, …
	rejected      map[string]bool   // by field
	cells         map[string]string // by "PLACE FIELD"
}

const sleeper = "--sleep-and-hold-stdout" // what a grandchild is run with

func main() {
	if len(os.Args) == 2 && os.Args[1] == sleeper {
		time.Sleep(time.Minute)
		return
	}
	path := os.Getenv("FAKE_GPUS")
	m, err := read(path)
	if m.is["ignore-term"] {
		signal.Ignore(syscall.SIGTERM)
	}
	note(path + ".runs") // from now on a test may take it for running
	if err != nil {
		fmt.Println("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.")
		fmt.Println()
		os.Exit(9)
	}
	for m.is["hang"] {
		time.Sleep(time.Hour)
	}
	time.Sleep(m.delay)
	if m.is["grandchild"] {
		self, _ := os.Executable()
		child := exec.Command(self, sleeper)
		child.Stdout = os.Stdout
		if err := child.Start(); err != nil {
			panic(err)
		}
	}

	rows, code := m.answer(os.Args[1:])
	out := strings.Repeat("x", m.flood) + m.before + rows + m.after
	if m.is["crlf"] {
		out = strings.ReplaceAll(out, "\n", "\r\n")
	}
	if m.is["nonewline"] {
		out = strings.TrimRight(out, "\r\n")
	}
	fmt.Fprint(os.Stderr, m.stderr)
	fmt.Print(out)
	if m.exit >= 0 {
		code = m.exit
	}
	os.Exit(code)
}

func note(path string) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(f, "pid=%d LC_ALL=%s %s\n", os.Getpid(), os.Getenv("LC_ALL"), strings.Join(os.Args[1:], " "))
	f.Close()
}

func read(path string) (*machine, error) {
	content, err := os.ReadFile(path)
	m := &machine{exit: -1, is: map[string]bool{}, rejected: map[string]bool{}, cells: map[string]string{}}
	driver, lost := "", map[int]bool{}
	for _, line := range strings.Split(string(content), "\n") {
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "driver":
			driver = rest
		case "gpu":
			m.gpus = append(m.gpus, parseGPU(rest, len(m.gpus)))
		case "lost":
			lost[whole(strings.Fields(rest)[0])] = true
		case "smi":
			m.obey(rest)
		}
	}
	for place, g := range m.gpus {
		g.lost = lost[place]
		if driver != "" {
			g.values["driver"] = driver
		}
	}
	return m, err
}

func parseGPU(line string, place int) *gpu {
	values := map[string]string{"index": strconv.Itoa(place)}
	line, name, named := strings.Cut(" "+line, " name=")
	if named {
		values["name"] = name
	}
	for _, field := range strings.Fields(line) {
		key, value, _ := strings.Cut(field, "=")
		values[key] = value
	}
	return &gpu{values: values}
}

func (m *machine) obey(line string) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "delay":
		var err error
		if m.delay, err = time.ParseDuration(rest); err != nil {
			panic(err)
		}
	case "exit":
		m.exit = whole(rest)
	case "flood":
		m.flood = whole(rest)
	case "before":
		m.before += text(rest) + "\n"
	case "after":
		m.after += text(rest) + "\n"
	case "stderr":
		m.stderr += text(rest) + "\n"
	case "reject":
		m.rejected[rest] = true
	case "cell":
		place, rest, _ := strings.Cut(rest, " ")
		field, cell, _ := strings.Cut(rest, " ")
		m.cells[place+" "+field] = text(cell)
	case "hang", "ignore-term", "grandchild", "crlf", "nonewline", "stop-at-lost", "drop-column", "add-column":
		m.is[word] = true
	default:
		panic("smi " + line)
	}
}

func whole(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// text takes escapes such as \n within double quotes.
func text(s string) string {
	if unquoted, err := strconv.Unquote(s); err == nil && s[0] == '"' {
		return unquoted
	}
	return s
}

// answer gives what belongs on stdout, and the exit code. What belongs on
// stderr it adds to m.stderr.
func (m *machine) answer(args []string) (string, int) {
	var query, format, id string
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "--query-gpu":
			query = value
		case "--format":
			format = value
		case "--id":
			id = value
		default:
			return fmt.Sprintf("Invalid combination of input arguments: %s\n", arg), 1
		}
	}
	if query == "" || format != "csv,noheader,nounits" {
		return "Invalid combination of input arguments: only CSV without header and units is faked\n", 1
	}
	fields := strings.Split(query, ",")
	for _, field := range fields {
		if columns[field] == nil || m.rejected[field] {
			return fmt.Sprintf("Field %q is not a valid field to query.\n\n", field), 2
		}
	}

	var out bytes.Buffer
	asked, code := 0, 0
	for place, g := range m.gpus {
		if id != "" && !g.is(id) {
			continue
		}
		asked++
		if !g.lost {
			out.WriteString(m.row(place, fields))
			continue
		}
		code = 15
		bus := g.values["bus"]
		if len(bus) == len("00000000:00:00.0") {
			bus = bus[4:]
		}
		if m.is["stop-at-lost"] {
			fmt.Fprintf(&out, "Unable to determine the device handle for GPU %s: GPU is lost.  Reboot the system to recover this GPU\n", bus)
			break
		}
		m.stderr += fmt.Sprintf("Unable to determine the device handle for GPU%s: %s: Unknown Error\n", g.values["index"], bus)
	}
	if asked == 0 {
		return "No devices were found\n", 6
	}
	return out.String(), code
}

func (g *gpu) is(id string) bool {
	long := id
	if strings.Index(id, ":") == 4 {
		long = "0000" + id
	}
	return id == g.values["index"] || id == g.values["uuid"] || strings.EqualFold(long, g.values["bus"])
}

func (m *machine) row(place int, fields []string) string {
	var cells []string
	for _, field := range fields {
		cell, forced := m.cells[fmt.Sprint(place, " ", field)]
		if !forced {
			cell = m.gpus[place].cell(field)
		}
		cells = append(cells, cell)
	}
	if m.is["drop-column"] {
		cells = cells[:len(cells)-1]
	}
	if m.is["add-column"] {
		cells = append(cells, "0")
	}
	return strings.Join(cells, ", ") + "\n"
}

func (g *gpu) cell(field string) string {
	column := columns[field]
	value, ok := g.values[column.key]
	if !ok || strings.HasPrefix(field, "utilization.") && g.values["mig"] == "1" {
		return "[N/A]"
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(value, "-"), 10, 64)
	if column.show == nil || err != nil {
		return value
	}
	if value[0] == '-' {
		n = -n // wraps, as in the fake NVML
	}
	return column.show(n)
}

// columns are the known fields: the key of each in the description, and how its
// number is shown; without that its text is, as it stands.
var columns = map[string]*struct {
	key  string
	show func(uint64) string
}{
	"driver_version":                         {"driver", nil},
	"index":                                  {"index", nil},
	"uuid":                                   {"uuid", nil},
	"name":                                   {"name", nil},
	"pci.bus_id":                             {"bus", nil},
	"utilization.gpu":                        {"util", small},
	"utilization.memory":                     {"memutil", small},
	"memory.total":                           {"total", mebibytes},
	"memory.used":                            {"used", mebibytes},
	"memory.reserved":                        {"reserved", mebibytes},
	"temperature.gpu":                        {"temp", small},
	"power.draw":                             {"power", watts},
	"enforced.power.limit":                   {"limit", watts},
	"clocks.sm":                              {"sm", small},
	"clocks.mem":                             {"mem", small},
	"clocks_event_reasons.active":            {"reasons", mask},
	"clocks_throttle_reasons.active":         {"reasons", mask},
	"ecc.errors.corrected.aggregate.total":   {"corrected", large},
	"ecc.errors.uncorrected.aggregate.total": {"uncorrected", large},
	"mig.mode.current":                       {"mig", migMode},
	"gpu_recovery_action":                    {"recovery", recovery},
}

func small(n uint64) string     { return fmt.Sprint(uint32(n)) }
func large(n uint64) string     { return fmt.Sprint(n) }
func mebibytes(n uint64) string { return fmt.Sprint(n >> 20) }
func watts(n uint64) string     { return fmt.Sprintf("%.2f", float64(uint32(n))/1000) }
func mask(n uint64) string      { return fmt.Sprintf("0x%016x", n) }

func migMode(n uint64) string {
	if n == 0 {
		return "Disabled"
	}
	return "Enabled"
}

func recovery(n uint64) string {
	actions := []string{"None", "Reset", "Reboot", "Drain P2P", "Drain and Reset"}
	if n < uint64(len(actions)) {
		return actions[n]
	}
	return "Unknown"
}
