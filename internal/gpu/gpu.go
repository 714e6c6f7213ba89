// Package gpu reads GPUs and serves what it read as Prometheus metrics. A
// reading is never older than it looks, and what was not read is not there.
package gpu

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Quantity is one thing that is read of a GPU: a whole number in the unit that
// is named with it.
type Quantity string

const (
	Utilization       Quantity = "utilization"        // percent of the last sample period in which a kernel ran
	MemoryUtilization Quantity = "memory_utilization" // percent of it in which memory was read or written
	MemoryUsed        Quantity = "memory_used"        // bytes, without what driver and firmware reserve
	MemoryTotal       Quantity = "memory_total"       // bytes
	MemoryReserved    Quantity = "memory_reserved"    // bytes
	Temperature       Quantity = "temperature"        // °C
	Power             Quantity = "power"              // milliwatts
	PowerLimit        Quantity = "power_limit"        // milliwatts, as enforced
	Energy            Quantity = "energy"             // millijoules since the driver was loaded
	SMClock           Quantity = "sm_clock"           // Hz
	MemoryClock       Quantity = "memory_clock"       // Hz
	ECCCorrected      Quantity = "ecc_corrected"      // errors in the card's life
	ECCUncorrected    Quantity = "ecc_uncorrected"    // errors in the card's life
	MIG               Quantity = "mig"                // 1: the GPU is partitioned, 0: not
	RecoveryAction    Quantity = "recovery_action"    // what the driver wants done to it, as NVML counts: 0 is nothing
)

// GPU is what was read of one.
type GPU struct {
	Index int    // as the driver counts them, which may change when one is lost; -1: not told
	UUID  string // as the driver writes it, GPU-…; empty: not told
	Name  string // such as NVIDIA H200; empty: not told
	BusID string // PCI, as the driver writes it, 00000000:01:00.0; empty: not told
	// Failure is why the GPU cannot be read, although it is or was there. Empty:
	// it was read. With a failure there are no values.
	Failure string
	// Values holds what the GPU told; what is not in it is not known.
	Values map[Quantity]int64
	// Throttle tells, for each reason that slows clocks down, whether it does;
	// nil: not told.
	Throttle map[string]bool
	// Garbled counts quantities for which something was told that is no number.
	Garbled []Quantity
}

// Fault is an error that the driver reported as it happened.
type Fault struct {
	UUID string // of the GPU
	XID  uint64 // NVIDIA's number for what went wrong
	Time time.Time
}

// Collection is what one look at all GPUs gave.
type Collection struct {
	Source  string // the source that gave it, by its name in --source
	Driver  string // version; empty: not told
	Library string // path of what was asked: a library, or a program
	Instead string // why it was asked instead of a better source; empty: it is the best, or alone
	// Began is when the reading began, and Took how long it took: without the
	// start of a driver, for which no reading is to live longer.
	Began  time.Time
	Took   time.Duration
	GPUs   []GPU // in the driver's order
	Faults []Fault
}

// Source reads the GPUs of this machine.
type Source interface {
	// Collect reads all GPUs once. One that cannot be read is in the collection
	// with its Failure; an error, always an *Error, means that none could. It
	// returns soon after ctx has ended, whatever the driver does.
	Collect(ctx context.Context) (*Collection, error)
	// Close ends what runs for the source, as far as it can be ended.
	Close()
}

// Reason is a kind of failure; it is a label of metrics.
type Reason string

const (
	NoDriver  Reason = "no_driver" // neither library nor program is there
	Driver    Reason = "driver"    // the driver answers with an error
	Timeout   Reason = "timeout"   // no answer in time
	Crash     Reason = "crash"     // the child that asks the driver has died
	Stuck     Reason = "stuck"     // an earlier child cannot be killed, and no other is started
	Malformed Reason = "malformed" // an answer that cannot be understood
)

var reasons = []Reason{NoDriver, Driver, Timeout, Crash, Stuck, Malformed}

// Error is why a collection failed.
type Error struct {
	Reason Reason
	Text   string // what is wrong
	Cure   string // what to do about it; may be empty
}

func (e *Error) Error() string { return e.Text }

func fail(r Reason, cure, format string, args ...any) *Error {
	return &Error{Reason: r, Text: fmt.Sprintf(format, args...), Cure: cure}
}

// explain makes an *Error of any error.
func explain(err error) *Error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	return &Error{Reason: Driver, Text: err.Error()}
}
