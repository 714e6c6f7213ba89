package gpu

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
)

// This file is the only one that calls the driver, and it runs in the worker
// only. Names, layouts and codes are those of NVIDIA's nvml.h.

// result is NVML's return code.
type result uint32

const (
	success          result = 0
	uninitialized    result = 1
	notSupported     result = 3
	noPermission     result = 4
	driverNotLoaded  result = 9
	libraryNotFound  result = 12
	functionNotFound result = 13
	gpuIsLost        result = 15
	resetRequired    result = 16
	operatingSystem  result = 17
	versionMismatch  result = 18
	unknownError     result = 999
)

const (
	sensorGPU      = 0
	clockSM        = 1
	clockMemory    = 2
	eccCorrected   = 0
	eccUncorrected = 1
	eccAggregate   = 1 // over the card's life; 0 is since the driver was loaded
	fieldRecovery  = 230
	unsignedInt    = 1 // of a field's value
	xidEvent       = 8

	maxGPUs         = 256
	maxEventsAtOnce = 1000
)

// memoryV2's version is its size and its number.
const memoryVersion = 40 | 2<<24

type memoryV2 struct {
	version                     uint32
	_                           uint32
	total, reserved, free, used uint64
}

type memoryV1 struct{ total, free, used uint64 }

type utilization struct{ gpu, memory uint32 }

type pciInfo struct {
	legacyBusID                             [16]byte
	domain, bus, device, deviceID, subsysID uint32
	busID                                   [32]byte
}

type fieldValue struct {
	field, scope       uint32
	timestamp, latency int64
	valueType, result  uint32
	value              [8]byte
}

type eventData struct {
	device            uintptr
	kind, code        uint64
	gpuPart, computeP uint32
}

// libraryPlaces are where NVML is looked for after the dynamic linker's own
// places: GKE's, the container toolkit's, NixOS's, WSL's.
var libraryPlaces = []string{
	"/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/home/kubernetes/bin/nvidia/lib64",
	"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/run/opengl-driver/lib", "/usr/lib/wsl/lib",
}

const libraryName = "libnvidia-ml.so.1"

// needed are the functions without which nothing can be read. All others may be
// missing from a driver, and only what they give is then not told.
var needed = []string{"nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetName"}

// nvml is the library, loaded and initialised.
type nvml struct {
	lib       uintptr
	functions map[string]uintptr // 0: the driver has none of that name
	path      string
	driver    string
	events    uintptr             // 0: none can be had
	known     map[uintptr]nvmlGPU // by handle
}

// nvmlGPU is what is remembered of a GPU, which tells nothing once it is lost.
type nvmlGPU struct {
	uuid, name, busID string
	registered        bool // for events
}

func openNVML() (*nvml, *Error) {
	n := &nvml{functions: map[string]uintptr{}, known: map[uintptr]nvmlGPU{}}
	if err := n.load(); err != nil {
		return nil, err
	}
	for _, name := range needed {
		if n.function(name) == 0 {
			return nil, fail(NoDriver, "update the driver", "%s has no function %s", n.path, name)
		}
	}
	if r := n.call("nvmlInit_v2"); r != success {
		return nil, n.failure("nvmlInit_v2", r)
	}
	n.driver = n.text(80, func(buf unsafe.Pointer, size uintptr) result {
		return n.call("nvmlSystemGetDriverVersion", uintptr(buf), size)
	})
	if n.call("nvmlEventSetCreate", uintptr(unsafe.Pointer(&n.events))) != success {
		n.events = 0
	}
	n.wake()
	return n, nil
}

// wake starts the GPUs: what the library does when it is first asked for one,
// and what may take seconds.
func (n *nvml) wake() {
	var count uint32
	var device uintptr
	n.call("nvmlDeviceGetCount_v2", uintptr(unsafe.Pointer(&count)))
	for i := range min(count, maxGPUs) {
		n.call("nvmlDeviceGetHandleByIndex_v2", uintptr(i), uintptr(unsafe.Pointer(&device)))
	}
}

// load finds the library. What is there and cannot be loaded is told rather
// than that it is not elsewhere.
func (n *nvml) load() *Error {
	runtime.LockOSThread() // dlerror tells of its own thread
	defer runtime.UnlockOSThread()
	var broken error
	for _, path := range append([]string{libraryName}, inFolders(libraryPlaces, libraryName)...) {
		lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
		if err == nil {
			n.lib, n.path = lib, loadedFrom(path)
			return nil
		}
		if broken == nil && !strings.Contains(err.Error(), path+": cannot open shared object file: No such file") {
			broken = err
		}
	}
	if broken != nil {
		return fail(NoDriver, "see that the library fits this machine and is whole", "%s cannot be loaded: %v", libraryName, broken)
	}
	return fail(NoDriver, "install the NVIDIA driver; in a container, run it with the NVIDIA runtime and NVIDIA_DRIVER_CAPABILITIES=utility",
		"%s is not on this machine", libraryName)
}

func inFolders(folders []string, name string) []string {
	var paths []string
	for _, f := range folders {
		paths = append(paths, f+"/"+name)
	}
	return paths
}

// loadedFrom is the file that the linker took.
func loadedFrom(asked string) string {
	maps, _ := os.ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(maps)) {
		if i := strings.IndexByte(line, '/'); i >= 0 && strings.Contains(line[i:], "libnvidia-ml.so") {
			return strings.TrimSpace(line[i:])
		}
	}
	return asked
}

func (n *nvml) function(name string) uintptr {
	f, ok := n.functions[name]
	if !ok {
		f, _ = purego.Dlsym(n.lib, name) // an error leaves 0
		n.functions[name] = f
	}
	return f
}

// call calls a function of the library. What the arguments point to stays where
// it is for so long.
//
//go:uintptrescapes
func (n *nvml) call(name string, args ...uintptr) result {
	f := n.function(name)
	if f == 0 {
		return functionNotFound
	}
	r, _, _ := purego.SyscallN(f, args...)
	return result(r)
}

// text reads a string that the library writes into a buffer.
func (n *nvml) text(size int, read func(buf unsafe.Pointer, size uintptr) result) string {
	buf := make([]byte, size)
	if read(unsafe.Pointer(&buf[0]), uintptr(size)) != success {
		return ""
	}
	return cString(buf)
}

func cString(b []byte) string {
	text, _, _ := bytes.Cut(b, []byte{0})
	return clean(string(text), 128)
}

// collect reads all GPUs. An error means that the library is to be opened anew.
func (n *nvml) collect() (*Collection, *Error) {
	var count uint32
	if r := n.call("nvmlDeviceGetCount_v2", uintptr(unsafe.Pointer(&count))); r != success {
		return nil, n.failure("nvmlDeviceGetCount_v2", r)
	}
	if count > maxGPUs {
		return nil, fail(Malformed, "", "NVML counts %d GPUs", count)
	}
	c := &Collection{Source: "nvml", Driver: n.driver, Library: n.path, GPUs: make([]GPU, 0, count)}
	for i := range count {
		g, err := n.gpu(int(i))
		if err != nil {
			return nil, err
		}
		c.GPUs = append(c.GPUs, g)
	}
	return c, nil
}

// gpu reads one GPU. An error means that none can be read any more.
func (n *nvml) gpu(index int) (GPU, *Error) {
	g := GPU{Index: index}
	var device uintptr
	if r := n.call("nvmlDeviceGetHandleByIndex_v2", uintptr(index), uintptr(unsafe.Pointer(&device))); r != success {
		g.Failure = n.explain(r)
		return g, n.ifGone("nvmlDeviceGetHandleByIndex_v2", r)
	}
	id := n.identify(device)
	g.UUID, g.Name, g.BusID = id.uuid, id.name, id.busID

	d := deviceReader{n: n, device: device, values: map[Quantity]int64{}}
	d.read()
	if d.gone != nil {
		return g, d.gone
	}
	if d.failure != success && (d.lost() || len(d.values) == 0) {
		g.Failure = n.explain(d.failure)
		return g, nil
	}
	g.Values, g.Throttle = d.values, d.throttle
	return g, nil
}

// identify asks who a GPU is, and remembers it: the library answers this from
// what it has read before, unless the GPU is lost.
func (n *nvml) identify(device uintptr) nvmlGPU {
	id := n.known[device]
	set := func(to *string, told string) {
		if told != "" {
			*to = told
		}
	}
	set(&id.uuid, n.text(96, func(buf unsafe.Pointer, size uintptr) result {
		return n.call("nvmlDeviceGetUUID", device, uintptr(buf), size)
	}))
	set(&id.name, n.text(96, func(buf unsafe.Pointer, size uintptr) result {
		return n.call("nvmlDeviceGetName", device, uintptr(buf), size)
	}))
	var pci pciInfo
	if n.call("nvmlDeviceGetPciInfo_v3", device, uintptr(unsafe.Pointer(&pci))) == success {
		set(&id.busID, cString(pci.busID[:]))
	}
	if n.events != 0 && !id.registered {
		id.registered = n.call("nvmlDeviceRegisterEvents", device, xidEvent, n.events) == success
	}
	n.known[device] = id
	return id
}

// faults are the events since the last call. It does not wait for any.
func (n *nvml) faults() []Fault {
	var list []Fault
	for n.events != 0 && len(list) < maxEventsAtOnce {
		var e eventData
		if n.call("nvmlEventSetWait_v2", n.events, uintptr(unsafe.Pointer(&e)), 0) != success {
			break
		}
		if e.kind == xidEvent {
			list = append(list, Fault{UUID: n.known[e.device].uuid, XID: e.code, Time: time.Now()})
		}
	}
	return list
}

// deviceReader reads the values of one GPU.
type deviceReader struct {
	n        *nvml
	device   uintptr
	values   map[Quantity]int64
	throttle map[string]bool
	failure  result // what was answered last, of the whole GPU
	gone     *Error // set when no GPU can be read any more
}

func (d *deviceReader) lost() bool { return d.failure == gpuIsLost || d.failure == resetRequired }

// ok reports whether a call gave something, and keeps what a failure says of
// the whole GPU.
func (d *deviceReader) ok(function string, r result) bool {
	switch r {
	case success:
		return true
	case notSupported, functionNotFound, noPermission: // of this quantity alone
	default:
		d.gone = d.n.ifGone(function, r)
		d.failure = r
	}
	return false
}

func (d *deviceReader) read() {
	for _, step := range []func(){d.utilization, d.memory, d.numbers, d.reasons, d.recovery} {
		if step(); d.lost() || d.gone != nil {
			return
		}
	}
}

func (d *deviceReader) utilization() {
	var u utilization
	if d.ok("nvmlDeviceGetUtilizationRates", d.n.call("nvmlDeviceGetUtilizationRates", d.device, uintptr(unsafe.Pointer(&u)))) {
		d.values[Utilization], d.values[MemoryUtilization] = int64(u.gpu), int64(u.memory)
	}
}

// memory follows nvidia-smi, whose "used" is that of the second version: without
// what is reserved. A driver that has only the first version tells the total
// alone, since its "used" is another thing.
func (d *deviceReader) memory() {
	if d.n.function("nvmlDeviceGetMemoryInfo_v2") == 0 {
		var m memoryV1
		if d.ok("nvmlDeviceGetMemoryInfo", d.n.call("nvmlDeviceGetMemoryInfo", d.device, uintptr(unsafe.Pointer(&m)))) {
			d.values[MemoryTotal] = whole(m.total)
		}
		return
	}
	m := memoryV2{version: memoryVersion}
	if d.ok("nvmlDeviceGetMemoryInfo_v2", d.n.call("nvmlDeviceGetMemoryInfo_v2", d.device, uintptr(unsafe.Pointer(&m)))) {
		d.values[MemoryTotal], d.values[MemoryUsed], d.values[MemoryReserved] = whole(m.total), whole(m.used), whole(m.reserved)
	}
}

// whole keeps what does not fit out of the plausible.
func whole(v uint64) int64 {
	if v > 1<<62 {
		return -1
	}
	return int64(v)
}

// numbers are the functions that give one number. Power is that of nvidia-smi's
// power.draw: the mean of a second on GA10x and later, else of the moment.
func (d *deviceReader) numbers() {
	for _, f := range []struct {
		quantity Quantity
		function string
		args     []uintptr // between the device and where the number goes
		factor   int64
		wide     bool // unsigned long long, else unsigned int
	}{
		{Temperature, "nvmlDeviceGetTemperature", []uintptr{sensorGPU}, 1, false},
		{Power, "nvmlDeviceGetPowerUsage", nil, 1, false},
		{PowerLimit, "nvmlDeviceGetEnforcedPowerLimit", nil, 1, false},
		{Energy, "nvmlDeviceGetTotalEnergyConsumption", nil, 1, true},
		{SMClock, "nvmlDeviceGetClockInfo", []uintptr{clockSM}, 1e6, false},
		{MemoryClock, "nvmlDeviceGetClockInfo", []uintptr{clockMemory}, 1e6, false},
		{ECCCorrected, "nvmlDeviceGetTotalEccErrors", []uintptr{eccCorrected, eccAggregate}, 1, true},
		{ECCUncorrected, "nvmlDeviceGetTotalEccErrors", []uintptr{eccUncorrected, eccAggregate}, 1, true},
		{MIG, "nvmlDeviceGetMigMode", nil, 1, false},
	} {
		var got, pending uint64 // pending: MIG's mode after the next reset; the others do not look at it
		var r result
		switch len(f.args) {
		case 0:
			r = d.n.call(f.function, d.device, uintptr(unsafe.Pointer(&got)), uintptr(unsafe.Pointer(&pending)))
		case 1:
			r = d.n.call(f.function, d.device, f.args[0], uintptr(unsafe.Pointer(&got)))
		case 2:
			r = d.n.call(f.function, d.device, f.args[0], f.args[1], uintptr(unsafe.Pointer(&got)))
		}
		if d.ok(f.function, r) {
			if !f.wide {
				got = uint64(uint32(got))
			}
			d.values[f.quantity] = whole(got) * f.factor
		}
		if d.lost() || d.gone != nil {
			return
		}
	}
}

func (d *deviceReader) reasons() {
	name := "nvmlDeviceGetCurrentClocksEventReasons"
	if d.n.function(name) == 0 {
		name = "nvmlDeviceGetCurrentClocksThrottleReasons" // its name before R535
	}
	var mask uint64
	if d.ok(name, d.n.call(name, d.device, uintptr(unsafe.Pointer(&mask)))) {
		d.throttle = throttle(mask)
	}
}

func (d *deviceReader) recovery() {
	f := fieldValue{field: fieldRecovery}
	r := d.n.call("nvmlDeviceGetFieldValues", d.device, 1, uintptr(unsafe.Pointer(&f)))
	if r == success {
		r = result(f.result)
	}
	if d.ok("nvmlDeviceGetFieldValues", r) && f.valueType == unsignedInt {
		d.values[RecoveryAction] = int64(*(*uint32)(unsafe.Pointer(&f.value)))
	}
}

// ifGone is an error if a code says that the driver itself has gone.
func (n *nvml) ifGone(function string, r result) *Error {
	switch r {
	case uninitialized, driverNotLoaded, libraryNotFound, versionMismatch:
		return n.failure(function, r)
	}
	return nil
}

// explain is what a code means.
func (n *nvml) explain(r result) string {
	switch r {
	case gpuIsLost:
		return "GPU is lost"
	case resetRequired:
		return "GPU requires a reset"
	case noPermission:
		return "no permission"
	case unknownError:
		return "unknown error"
	}
	text := ""
	if f := n.function("nvmlErrorString"); f != 0 {
		var errorString func(result) string
		purego.RegisterFunc(&errorString, f)
		text = clean(errorString(r), 128)
	}
	return strings.TrimSpace(fmt.Sprintf("%s (NVML error %d)", text, r))
}

// failure is what a code means for all GPUs, and what to do.
func (n *nvml) failure(function string, r result) *Error {
	switch r {
	case driverNotLoaded:
		return fail(Driver, "load it (modprobe nvidia), and see dmesg for NVRM lines", "the NVIDIA driver is not loaded")
	case versionMismatch:
		return fail(Driver, cureMismatch, "the NVIDIA driver and its library %s are of different versions", n.path)
	case noPermission:
		return fail(Driver, "let the user of this process read and write /dev/nvidiactl and /dev/nvidia*", "no permission to ask the NVIDIA driver")
	case unknownError, operatingSystem:
		return fail(Driver, cureUnknown, "%s: %s", function, n.explain(r))
	}
	return fail(Driver, "see dmesg for NVRM and Xid lines", "%s: %s", function, n.explain(r))
}

const (
	cureMismatch = "reboot, or reload the driver's kernel modules: it was updated while it ran"
	// NVIDIA/nvidia-container-toolkit#48: the devices are taken away from the
	// container, and do not come back.
	cureUnknown = "in a container, start a new one: systemctl daemon-reload on the host takes the GPUs away from those that run; else see dmesg for NVRM and Xid lines"
)
