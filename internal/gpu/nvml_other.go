//go:build !linux

package gpu

// nvml is for Linux.
type nvml struct{}

func openNVML() (*nvml, *Error) {
	return nil, fail(NoDriver, "", "NVML is read on Linux only")
}

func (*nvml) faults() []Fault                { return nil }
func (*nvml) collect() (*Collection, *Error) { return nil, nil }
