package daemon

import (
	"io/fs"
	"syscall"
	"time"
)

// ctime is when a file was last changed, in itself or in what is known of it. Nobody
// can set it.
func ctime(info fs.FileInfo) time.Time {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(stat.Ctim.Unix())
	}
	return time.Time{}
}
