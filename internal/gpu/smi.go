package gpu

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// smi reads GPUs by running nvidia-smi, for one caller at a time.
type smi struct {
	kids    *children
	path    string        // of nvidia-smi; empty: it is looked for at each run
	env     []string      // in addition to this process's
	timeout time.Duration // of a collection

	columns []column // what this nvidia-smi can be asked for
	driver  string   // the version it had
	known   []GPU    // those that the last collection listed: who they are, no values
	sure    bool     // nobody was missing in known, at some time
}

// smiTimeout is what a collection may take. Without persistence mode each run
// starts every GPU anew: 1.5 s for one have been seen (pop-os/system76-power#492),
// and more than 15 s in all (netdata/netdata#18690).
const smiTimeout = 30 * time.Second

func newSMI(kids *children) *smi {
	return &smi{kids: kids, timeout: smiTimeout, columns: slices.Clone(columns)}
}

func (s *smi) Close() {}

// column is a field that nvidia-smi is asked for.
type column struct {
	field string
	what  Quantity
	read  func(cell string) (value int64, ok bool)
	core  bool // every driver has it, and a GPU that tells nothing of these is lost
}

// throttled is what Garbled names the mask of reasons, which is no quantity.
const throttled Quantity = "throttle"

const (
	newReasons = "clocks_event_reasons.active"
	oldReasons = "clocks_throttle_reasons.active" // its name before driver 535
)

// A fixed list: what a driver offers of itself changes with it, and has made
// others panic (utkuozdemir/nvidia_gpu_exporter#316, #339, #389).
var columns = []column{
	{"utilization.gpu", Utilization, integer(1), true},
	{"utilization.memory", MemoryUtilization, integer(1), false},
	{"memory.used", MemoryUsed, integer(1 << 20), true},
	{"memory.total", MemoryTotal, integer(1 << 20), true},
	{"memory.reserved", MemoryReserved, integer(1 << 20), false},
	{"temperature.gpu", Temperature, integer(1), true},
	{"power.draw", Power, thousandths, true},
	{"enforced.power.limit", PowerLimit, thousandths, false},
	{"clocks.sm", SMClock, integer(1e6), false},
	{"clocks.mem", MemoryClock, integer(1e6), false},
	{"ecc.errors.corrected.aggregate.total", ECCCorrected, integer(1), false},
	{"ecc.errors.uncorrected.aggregate.total", ECCUncorrected, integer(1), false},
	{"mig.mode.current", MIG, oneOf(map[string]int64{"disabled": 0, "enabled": 1}), false},
	{"gpu_recovery_action", RecoveryAction, oneOf(map[string]int64{
		"none": 0, "reset": 1, "gpu reset": 1, "reboot": 2, "node reboot": 2, "drain p2p": 3, "drain and reset": 4,
	}), false},
	{newReasons, throttled, mask, false},
}

// After the values. A row has no quotes, so the name, which may hold commas, is
// last; and a row with a column too many or too few has no bus id in its place.
const identity = "driver_version,pci.bus_id,uuid,name"

// Collect runs nvidia-smi once; more often only if it refuses a field, or if it
// stops at a lost GPU, so that the others must be asked for one by one.
func (s *smi) Collect(ctx context.Context) (*Collection, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	began := time.Now()
	a, err := s.all(ctx)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	if a.code == 9 || a.code == 12 {
		s.columns = slices.Clone(columns) // the driver that comes may know more
	}
	c := &Collection{Source: "nvidia-smi", Driver: a.driver, Library: a.path, GPUs: a.gpus, Began: began, Took: took}
	switch {
	case a.rows == 0 && a.nobody():
		s.sure = false
	case a.rows == 0 && (a.refused > 0 || len(a.lost) == 0):
		return nil, a.failure()
	case a.partial():
		c.GPUs = s.complete(ctx, a)
	default:
		s.sure = true
	}
	for i := range c.GPUs {
		s.recognise(&c.GPUs[i])
	}
	s.remember(c)
	return c, nil
}

// all asks for all GPUs, and for the fewer fields the more are refused.
func (s *smi) all(ctx context.Context) (*answer, error) {
	for {
		a, err := s.run(ctx, "")
		if err != nil || a.rows > 0 || !a.refuses() {
			return a, err
		}
		if !s.leaveOut(a.refusedField()) {
			s.columns = slices.Clone(columns) // it was not for the fields
			return a, nil
		}
	}
}

// leaveOut asks no more for a field that nvidia-smi does not know, and tells
// whether that leaves another question than before.
func (s *smi) leaveOut(field string) bool {
	i := slices.IndexFunc(s.columns, func(c column) bool { return c.field == field })
	switch {
	case i >= 0 && field == newReasons:
		s.columns[i].field = oldReasons
	case i >= 0:
		s.columns = slices.Delete(s.columns, i, i+1)
	default:
		n := len(s.columns)
		s.columns = slices.DeleteFunc(s.columns, func(c column) bool { return !c.core })
		return len(s.columns) < n
	}
	return true
}

// margin is what is left of a collection's time when it stops asking for single
// GPUs: what it has until then must not be lost.
const margin = 200 * time.Millisecond

// complete asks for those that a run did not tell of, although they may be there.
func (s *smi) complete(ctx context.Context, a *answer) []GPU {
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithDeadline(ctx, deadline.Add(-margin))
	defer cancel()
	gpus := slices.Clone(a.gpus)
	for _, g := range a.lost {
		gpus = add(gpus, g)
	}
	for _, k := range s.known {
		if place(gpus, k.BusID) >= 0 {
			continue
		}
		id := k.UUID
		if id == "" {
			id = k.BusID
		}
		g, there := s.one(ctx, id, k.BusID)
		if g.Failure != "" { // of this one, even if it speaks of another
			g = GPU{Index: k.Index, UUID: k.UUID, Name: k.Name, BusID: k.BusID, Failure: g.Failure}
		}
		if there {
			gpus = add(gpus, g)
		}
	}
	if !s.sure {
		gpus = s.search(ctx, gpus)
	}
	// The order of nvidia-smi, where some stand at the end now.
	slices.SortStableFunc(gpus, func(a, b GPU) int { return strings.Compare(normal(a.BusID), normal(b.BusID)) })
	return gpus
}

// search looks for GPUs that nobody has ever seen, by all indices that are not
// listed: an older nvidia-smi stops at a lost GPU.
func (s *smi) search(ctx context.Context, gpus []GPU) []GPU {
	for n := range 256 {
		if slices.ContainsFunc(gpus, func(g GPU) bool { return g.Index == n }) {
			continue
		}
		g, there := s.one(ctx, strconv.Itoa(n), "")
		if !there {
			s.sure = true
			break
		}
		if g.BusID == "" {
			break // nobody knows whose failure that is, and the next would be alike
		}
		gpus = add(gpus, g)
		i := place(gpus, g.BusID)
		switch {
		case gpus[i].Index < 0:
			gpus[i].Index = n
		case gpus[i].Index != n: // it tells of the same one whatever it is asked
			s.sure = true
			return gpus
		}
	}
	return gpus
}

// one asks for one GPU, of a place on the bus if that is known, and tells whether
// it is there at all.
func (s *smi) one(ctx context.Context, id, bus string) (GPU, bool) {
	if ctx.Err() != nil {
		return failed("no time was left to ask for it"), true
	}
	a, err := s.run(ctx, id)
	switch {
	case err != nil:
		return failed(err.Error()), true
	case len(a.gpus) > 0:
		return a.gpus[0], true
	case a.says(noDevices) && place(a.lost, bus) < 0:
		return GPU{}, false
	case len(a.lost) > 0:
		return a.lost[0], true
	}
	return failed(a.failure().Text), true
}

func failed(why string) GPU { return GPU{Index: -1, Failure: why} }

// recognise gives a GPU that failed the identity that it had before.
func (s *smi) recognise(g *GPU) {
	i := place(s.known, g.BusID)
	if i < 0 || g.Failure == "" {
		return
	}
	k := s.known[i]
	g.BusID = k.BusID
	if g.Index < 0 {
		g.Index = k.Index
	}
	if g.UUID == "" {
		g.UUID = k.UUID
	}
	if g.Name == "" {
		g.Name = k.Name
	}
}

// remember keeps who was listed, and nobody else: a card that was taken out must
// not come back as a lost one.
func (s *smi) remember(c *Collection) {
	s.known = s.known[:0]
	for _, g := range c.GPUs {
		s.known = append(s.known, GPU{Index: g.Index, UUID: g.UUID, Name: g.Name, BusID: g.BusID})
	}
	if c.Driver == "" {
		return
	}
	if s.driver != "" && s.driver != c.Driver {
		s.columns = slices.Clone(columns)
	}
	s.driver = c.Driver
}

func place(gpus []GPU, bus string) int {
	return slices.IndexFunc(gpus, func(g GPU) bool { return normal(g.BusID) == normal(bus) })
}

// add adds a GPU, unless it is there: two of one bus id are one.
func add(gpus []GPU, g GPU) []GPU {
	if place(gpus, g.BusID) >= 0 {
		return gpus
	}
	return append(gpus, g)
}

// places are where nvidia-smi is if it is not in PATH: nvidia-docker 1 and GKE
// (both names of one folder), WSL 2, Flatcar and other systems without package
// manager.
var places = []string{"/usr/local/nvidia/bin", "/home/kubernetes/bin/nvidia/bin", "/usr/lib/wsl/lib", "/opt/bin"}

func (s *smi) find() (string, error) {
	if s.path != "" {
		return s.path, nil
	}
	if path, err := exec.LookPath("nvidia-smi"); err == nil {
		return path, nil
	}
	for _, dir := range places {
		if path, err := exec.LookPath(filepath.Join(dir, "nvidia-smi")); err == nil {
			return path, nil
		}
	}
	return "", fail(NoDriver, "install the NVIDIA driver, or, in a container, let the NVIDIA runtime mount it (NVIDIA_DRIVER_CAPABILITIES=utility)",
		"nvidia-smi is neither in PATH nor in %s", strings.Join(places, ", "))
}

// run runs nvidia-smi, for all GPUs or for one.
func (s *smi) run(ctx context.Context, id string) (*answer, error) {
	path, err := s.find()
	if err != nil {
		return nil, err
	}
	fields := "index,"
	for _, c := range s.columns {
		fields += c.field + ","
	}
	args := []string{"--query-gpu=" + fields + identity, "--format=csv,noheader,nounits"}
	if id != "" {
		args = append(args, "--id="+id)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = slices.Concat(os.Environ(), s.env, []string{"LC_ALL=C"}) // no decimal comma
	out, errOut, code, err := s.kids.run(ctx, cmd)
	if err != nil {
		return nil, err
	}
	a := &answer{path: path, code: code}
	stdout, cut := ended(out, code)
	a.cut = cut
	stderr, _ := ended(errOut, code)
	rows(a, stdout, s.columns)
	a.messages(stderr)
	a.text = stdout + "\n" + stderr
	return a, nil
}

// ended is output up to the last line that is certainly whole: children.run
// keeps no more than a limit, and who is killed may be in the middle of a line.
func ended(out []byte, code int) (text string, cut bool) {
	cut = len(out) >= outputLimit || code < 0
	if cut {
		out = out[:strings.LastIndex(string(out), "\n")+1]
	}
	return string(out), cut
}

// answer is what a run of nvidia-smi gave.
type answer struct {
	path    string
	code    int    // exit code, -1: killed by a signal
	text    string // all it said
	cut     bool   // it would have said more
	driver  string
	gpus    []GPU // that have a row, good or bad
	lost    []GPU // that a message names; there may be a row all the same
	rows    int   // that were understood
	refused int   // that were not
}

// partial tells whether there may be GPUs that the answer does not tell of.
func (a *answer) partial() bool {
	return a.code != 0 || a.cut || a.refused > 0 || len(a.lost) > 0
}

const noDevices = "No devices were found"

// nobody tells whether there is no GPU, which is no failure. Where all are lost it
// says the same, after a line for each.
func (a *answer) nobody() bool {
	return (a.code == 0 || a.code == 6) && len(a.lost) == 0 && a.says(noDevices)
}

func (a *answer) says(text string) bool {
	return strings.Contains(strings.ToLower(a.text), strings.ToLower(text))
}

var refusal = regexp.MustCompile(`Field "([^"]*)" is not a valid field`)

// refuses tells whether the question was wrong: exit code 2, by its manual.
func (a *answer) refuses() bool { return a.code == 2 || refusal.MatchString(a.text) }

// refusedField is the field that the question was refused for, if it says so.
func (a *answer) refusedField() string {
	if m := refusal.FindStringSubmatch(a.text); m != nil {
		return m[1]
	}
	return ""
}

// failures are the ends of nvidia-smi that have a known cure. Exit codes are
// from the section RETURN VALUE of its manual.
var failures = []struct {
	code   int // 0: many have it
	text   string
	reason Reason
	cure   string
}{
	{18, "Driver/library version mismatch", Driver, "reboot, or reload the driver's kernel modules: it was updated while it ran"},
	{9, "couldn't communicate with the NVIDIA driver", Driver, "load the driver (modprobe nvidia); after an update of the kernel it may have to be installed anew"},
	{12, "NVML Shared Library couldn't be found", NoDriver, "install the driver's libraries, or, in a container, let the NVIDIA runtime mount them"},
	{4, "Insufficient Permissions", Driver, "let this user read and write /dev/nvidiactl and /dev/nvidia0, 1, …"},
	// NVIDIA/nvidia-container-toolkit#48: systemd takes the devices away.
	{0, "Failed to initialize NVML: Unknown Error", Driver, "a container that has lost its devices, e.g. by `systemctl daemon-reload` on the host, must be replaced by a new one"},
}

// failure is why an answer has no GPUs.
func (a *answer) failure() *Error {
	if a.refused > 0 {
		return fail(Malformed, "", "nvidia-smi gave no row that can be understood, and %d that cannot", a.refused)
	}
	said := a.firstLine()
	for _, f := range failures {
		if a.says(f.text) || f.code != 0 && a.code == f.code {
			if said == "" {
				said = f.text
			}
			return fail(f.reason, f.cure, "nvidia-smi: %s", said)
		}
	}
	switch {
	case a.code < 0:
		return fail(Crash, "", "nvidia-smi was killed by a signal")
	case a.code > 0 && said != "":
		return fail(Driver, "", "nvidia-smi: %s (exit code %d)", said, a.code)
	case said != "":
		return fail(Malformed, "", "nvidia-smi gave no row, but: %s", said)
	}
	return fail(Malformed, "", "nvidia-smi said nothing that can be understood, and ended with exit code %d", a.code)
}

func (a *answer) firstLine() string {
	for line := range strings.Lines(a.text) {
		if line = clean(line, 200); line != "" {
			return line
		}
	}
	return ""
}

// Seen: "GPU 0000:04:00.0: GPU is lost.  Reboot …", "GPU0000:65:00.0: Unknown
// Error" (nvidia-container-toolkit#69), "GPU3: 0000:04:00.0: Unknown Error".
var handle = regexp.MustCompile(`(?i)unable to determine the device handle for gpu *(?:([0-9]{1,3}): +)?((?:[0-9a-f]{4}){1,2}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])\b:?(.*)`)

// messages takes in what lines say of lost GPUs.
func (a *answer) messages(text string) {
	for line := range strings.Lines(text) {
		a.message(line)
	}
}

func (a *answer) message(line string) bool {
	m := handle.FindStringSubmatch(line)
	if m == nil {
		return false
	}
	g := failed("GPU is lost")
	if why := clean(m[3], 128); why != "" {
		g.Failure = why
	}
	if n, err := strconv.Atoi(m[1]); err == nil {
		g.Index = n
	}
	g.BusID = normal(m[2])
	a.lost = add(a.lost, g)
	return true
}
