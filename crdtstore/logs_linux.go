package crdtstore

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes a file's content durable, also what was written to it through memory, as badger writes its logs.
func datasync(f *os.File) error { return os.NewSyscallError("fdatasync", unix.Fdatasync(int(f.Fd()))) }

// arrivals tells whether files have appeared in a directory. The kernel notes each before the call that makes it returns,
// so nobody can have written to one that is not noted. To list the directory would take a tenth of a sync. Nil cannot tell.
type arrivals struct{ inotify int }

func watchArrivals(dir string) *arrivals {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil // the host has no more of them
	}
	a := &arrivals{fd}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		a.close()
		return nil
	}
	return a
}

// none tells that no file has appeared since it was asked last, or since the watch began.
func (a *arrivals) none() bool {
	if a == nil {
		return false
	}
	var events [1024]byte // what does not fit is told the next time
	_, err := unix.Read(a.inotify, events[:])
	return errors.Is(err, unix.EAGAIN)
}

func (a *arrivals) close() {
	if a != nil {
		_ = unix.Close(a.inotify) // it holds nothing
	}
}
