package daemon

import (
	"regexp"
	"testing"
)

func TestVersionLine(t *testing.T) {
	defer func(was string) { version = was }(version)
	version = "v1.2.3"
	if line := VersionLine("vllm-gateway"); !regexp.MustCompile(`^vllm-gateway v1\.2\.3 \(\S+.*, [a-z0-9]+/[a-z0-9]+\)$`).MatchString(line) {
		t.Errorf("%q", line)
	}
	version = ""
	if line := VersionLine("vllm-sim"); !regexp.MustCompile(`^vllm-sim \S+ \(`).MatchString(line) {
		t.Errorf("without a stamp: %q", line)
	}
}
