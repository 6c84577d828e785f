package crdtstore

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes a file's content durable, also what was written to it through memory, as badger writes its logs.
func datasync(f *os.File) error { return os.NewSyscallError("fdatasync", unix.Fdatasync(int(f.Fd()))) }
