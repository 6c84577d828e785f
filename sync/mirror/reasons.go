package mirror

import (
	"errors"
	"syscall"
)

// Reasons why a path cannot be reached or written. They concern one path and are reported with it.
var (
	errSymlink   = errors.New("a symbolic link is in the way")
	errFileInWay = errors.New("a file is in the way")
	errDirInWay  = errors.New("a directory is in the way")
	errNested    = errors.New("another mirror has its root here")
	errSwapped   = errors.New("it was replaced while we looked at it")
	errReserved  = errors.New("/.sys is reserved")
)

// isReason tells errors that concern one path, and may stay until somebody changes the tree.
func isReason(err error) bool {
	for _, reason := range []error{errSymlink, errFileInWay, errDirInWay, errNested, errSwapped} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// isGeneral tells errors that every further operation would meet as well: the pass ends, and is repeated later.
func isGeneral(err error) bool {
	for _, no := range []syscall.Errno{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
		syscall.ESTALE,
	} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}
