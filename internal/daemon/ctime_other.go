//go:build !linux

package daemon

import (
	"io/fs"
	"time"
)

func ctime(fs.FileInfo) time.Time { return time.Time{} }
