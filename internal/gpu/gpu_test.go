package gpu

import (
	"os"
	"testing"
)

// TestMain lets the test binary be the NVML worker, as the commands are.
func TestMain(m *testing.M) {
	Worker()
	code := m.Run()
	cleanupFakes()
	os.Exit(code)
}
