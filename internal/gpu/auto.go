package gpu

import "context"

// mostSkips is for how many collections NVML is left alone at most.
const mostSkips = 128

// auto asks NVML, and nvidia-smi where NVML cannot be used at all.
type auto struct {
	nvml, smi Source
	failures  int    // of NVML, in a row
	skip      int    // collections until it is asked again
	instead   string // why nvidia-smi is asked; empty: it is not
}

func (a *auto) Collect(ctx context.Context) (*Collection, error) {
	if a.skip > 0 {
		a.skip--
		if c, err := a.smi.Collect(ctx); err == nil {
			c.Instead = a.instead
			return c, nil
		}
	}
	c, err := a.nvml.Collect(ctx)
	if err == nil {
		a.failures, a.skip, a.instead = 0, 0, ""
		return c, nil
	}
	// nvidia-smi asks the same driver through the same library, so an answer of
	// the driver's is final, and what hangs the one hangs the other.
	e := explain(err)
	if e.Reason != NoDriver && e.Reason != Crash {
		return c, e
	}
	other, smiErr := a.smi.Collect(ctx)
	if smiErr != nil {
		a.skip = 0
		return c, either(e, explain(smiErr))
	}
	a.failures++
	a.skip = min(1<<min(a.failures, 10), mostSkips)
	a.instead = e.Text
	other.Instead = a.instead
	if c != nil {
		other.Faults = append(c.Faults, other.Faults...)
	}
	return other, nil
}

// either is the error of two sources: where both only lack what they need, of
// both; else of the one that got further.
func either(nvml, smi *Error) *Error {
	switch {
	case smi.Reason != NoDriver:
		return smi
	case nvml.Reason != NoDriver:
		return nvml
	}
	return &Error{Reason: NoDriver, Text: nvml.Text + "; " + smi.Text, Cure: nvml.Cure}
}

func (a *auto) Close() {
	a.nvml.Close()
	a.smi.Close()
}
