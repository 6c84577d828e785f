package mirror

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// renameExchange swaps two names.
func renameExchange(a int, name string, b int, as string) error {
	err := unix.Renameat2(a, name, b, as, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // the file system, or the kernel, cannot
		return errors.ErrUnsupported
	}
	if err != nil {
		return &fs.PathError{Op: "exchange", Path: as, Err: err}
	}
	return nil
}
