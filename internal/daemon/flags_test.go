package daemon

import (
	"regexp"
	"testing"
)

func TestFullVersion(t *testing.T) {
	defer func(was string) { version = was }(version)
	version = "v1.2.3"
	if v := FullVersion(); !regexp.MustCompile(`^v1\.2\.3 \(\S+.*, [a-z0-9]+/[a-z0-9]+\)$`).MatchString(v) {
		t.Errorf("%q", v)
	}
	version = ""
	if v := FullVersion(); !regexp.MustCompile(`^\S+ \(`).MatchString(v) {
		t.Errorf("without a stamp: %q", v)
	}
}
