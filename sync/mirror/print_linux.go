package mirror

import (
	"io/fs"
	"syscall"
	"time"
)

// printOf takes the change time as well, which no program can set.
func printOf(info fs.FileInfo) print {
	st := info.Sys().(*syscall.Stat_t)
	return print{
		inode: st.Ino, size: st.Size,
		changed: time.Unix(st.Ctim.Unix()).UnixNano(), wrote: time.Unix(st.Mtim.Unix()).UnixNano(),
	}
}

// steady tells whether a later change is sure to give another print.
func (p print) steady(now time.Time) bool { return now.UnixNano()-p.changed > int64(time.Second) }
