//go:build !linux

package wire

import "time"

// Now is the time by a clock that all processes of this machine share, in nanoseconds.
func Now() int64 { return time.Now().UnixNano() }
