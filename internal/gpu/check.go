package gpu

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
)

// Check reads the GPUs once, and writes for people what it found. The error, an
// *Error, says why nothing could be read, and has not been written.
func Check(ctx context.Context, source string, w io.Writer) error {
	kids := &children{}
	s, err := newSource(source, kids)
	if err != nil {
		return err
	}
	defer s.Close()
	c, err := s.Collect(ctx)
	devices := pciGPUs("/sys")
	// None there and yet some read: as in WSL, whose bus is not the host's.
	if devices > 0 || devices == 0 && err != nil {
		fmt.Fprintf(w, "PCI bus  %d NVIDIA %s\n", devices, plural(devices, "GPU"))
	}
	if err != nil {
		e := *explain(err)
		if e.Reason == NoDriver && devices == 0 {
			e.Text = "none is on the PCI bus; " + e.Text
			e.Cure = "nothing, if this machine has no NVIDIA GPU; else " + e.Cure
		}
		return &e
	}
	if c.Instead != "" {
		fmt.Fprintf(w, "NVML     not used: %s\n", c.Instead)
	}
	fmt.Fprintf(w, "source   %s (%s)\n", c.Source, c.Library)
	fmt.Fprintf(w, "driver   %s\n", orDash(c.Driver))
	fmt.Fprintf(w, "GPUs     %d\n", len(c.GPUs))
	if len(c.GPUs) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "GPU\tNAME\tUUID\tBUS ID\tBUSY\tMEMORY USED\tTEMP\tPOWER\t")
	for _, g := range c.GPUs {
		index := "–"
		if g.Index >= 0 {
			index = strconv.Itoa(g.Index)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t", index, orDash(g.Name), orDash(g.UUID), orDash(g.BusID))
		g.weigh()
		if g.Failure != "" {
			fmt.Fprintf(t, "cannot be read: %s\t\t\t\t\n", g.Failure)
			continue
		}
		fmt.Fprintf(t, "%s\t%s of %s\t%s\t%s of %s\t\n", g.show(Utilization, 1, "%.0f %%"),
			g.show(MemoryUsed, 1<<30, "%.1f"), g.show(MemoryTotal, 1<<30, "%.1f GiB"),
			g.show(Temperature, 1, "%.0f °C"), g.show(Power, 1e3, "%.0f"), g.show(PowerLimit, 1e3, "%.0f W"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if !slices.ContainsFunc(c.GPUs, func(g GPU) bool { return g.Failure == "" }) {
		return fail(Driver, "see dmesg for Xid and NVRM lines; it takes a reset (nvidia-smi --gpu-reset) or a restart of the machine", "the driver lists %d and tells nothing of them", len(c.GPUs))
	}
	return nil
}

func (g GPU) show(q Quantity, divisor float64, format string) string {
	v, ok := g.Values[q]
	if !ok {
		return "–"
	}
	return fmt.Sprintf(format, float64(v)/divisor)
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func plural(n int, s string) string {
	if n != 1 {
		s += "s"
	}
	return s
}
