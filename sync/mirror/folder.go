package mirror

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// disk is what a mirror keeps its files and its journal on: the seam at which tests put one that crashes.
type disk interface {
	Lstat(path string) (fs.FileInfo, error)
	MkdirAll(path string, mode fs.FileMode) error
	Folder(path string) (folder, error) // opens a directory; links in its path are followed
}

// folder is an open directory. Every name is that of one of its entries; only Open and Folder follow links, and those
// not out of it.
type folder interface {
	Stat() (fs.FileInfo, error)
	Lstat(name string) (fs.FileInfo, error)
	Entries() ([]fs.DirEntry, error)
	Names() ([]string, error) // of its entries, for less than Entries
	Open(name string, flag int, mode fs.FileMode) (file, error)
	OpenLocked(name string, flag int, mode fs.FileMode) (file, error) // ErrBusy: another process has the lock
	Folder(name string) (folder, error)
	Mkdir(name string, mode fs.FileMode) error
	Rename(name string, to folder, as string) error
	Exchange(name string, to folder, as string) error // swaps the two; errors.ErrUnsupported
	Link(name string, to folder, as string) error
	Symlink(target, name string) error
	Readlink(name string) (string, error)
	Remove(name string) error
	RemoveAll(name string) error
	Dress(owner, group int, mode fs.FileMode) error // of the directory; -1: as it is
	Touch(at time.Time) error                       // its modification time
	Sync() error                                    // makes the names in it durable
	Close() error
}

// file is an open file.
type file interface {
	io.ReadWriteCloser
	io.WriterAt
	Stat() (fs.FileInfo, error)
	Chown(uid, gid int) error
	Chmod(mode fs.FileMode) error
	Truncate(size int64) error
	Sync() error
}

// osDisk is the machine's own.
type osDisk struct{}

func (osDisk) Lstat(path string) (fs.FileInfo, error)       { return os.Lstat(path) }
func (osDisk) MkdirAll(path string, mode fs.FileMode) error { return os.MkdirAll(path, mode) }

func (osDisk) Folder(path string) (folder, error) {
	r, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return osFolder{r}, nil
}

type osFolder struct{ root *os.Root }

func (d osFolder) Stat() (fs.FileInfo, error)                { return d.root.Stat(".") }
func (d osFolder) Lstat(name string) (fs.FileInfo, error)    { return d.root.Lstat(name) }
func (d osFolder) Mkdir(name string, mode fs.FileMode) error { return d.root.Mkdir(name, mode) }
func (d osFolder) Symlink(target, name string) error         { return d.root.Symlink(target, name) }
func (d osFolder) Readlink(name string) (string, error)      { return d.root.Readlink(name) }
func (d osFolder) Remove(name string) error                  { return d.root.Remove(name) }
func (d osFolder) RemoveAll(name string) error               { return d.root.RemoveAll(name) }
func (d osFolder) Touch(at time.Time) error                  { return d.root.Chtimes(".", at, at) }
func (d osFolder) Close() error                              { return d.root.Close() }

func (d osFolder) Open(name string, flag int, mode fs.FileMode) (file, error) {
	f, err := d.root.OpenFile(name, flag, mode)
	if err != nil {
		return nil, err // no *os.File that is nil
	}
	return f, nil
}

func (d osFolder) OpenLocked(name string, flag int, mode fs.FileMode) (file, error) {
	f, err := d.root.OpenFile(name, flag, mode)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d osFolder) Folder(name string) (folder, error) {
	r, err := d.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return osFolder{r}, nil
}

func (d osFolder) Names() (names []string, err error) {
	err = d.self(func(f *os.File) error {
		names, err = f.Readdirnames(-1)
		return err
	})
	return names, err
}

func (d osFolder) Entries() (entries []fs.DirEntry, err error) {
	err = d.self(func(f *os.File) error {
		entries, err = f.ReadDir(-1)
		return err
	})
	return entries, err
}

func (d osFolder) Sync() error { return d.self((*os.File).Sync) }

func (d osFolder) Dress(owner, group int, mode fs.FileMode) error {
	return d.self(func(f *os.File) error { return dress(f, owner, group, mode) })
}

// self calls fn with the directory as an open file.
func (d osFolder) self(fn func(*os.File) error) error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(fn(f), f.Close())
}

func (d osFolder) Rename(name string, to folder, as string) error {
	if to == folder(d) {
		return d.root.Rename(name, as)
	}
	return d.with(to, func(a, b int) error {
		if err := unix.Renameat(a, name, b, as); err != nil {
			return &fs.PathError{Op: "rename", Path: as, Err: err}
		}
		return nil
	})
}

func (d osFolder) Exchange(name string, to folder, as string) error {
	return d.with(to, func(a, b int) error { return renameExchange(a, name, b, as) })
}

func (d osFolder) Link(name string, to folder, as string) error {
	return d.with(to, func(a, b int) error {
		if err := unix.Linkat(a, name, b, as, 0); err != nil {
			return &fs.PathError{Op: "link", Path: as, Err: err}
		}
		return nil
	})
}

// with calls fn with the descriptors of two directories.
func (d osFolder) with(to folder, fn func(a, b int) error) error {
	return d.self(func(a *os.File) error {
		return to.(osFolder).self(func(b *os.File) error { return fn(int(a.Fd()), int(b.Fd())) })
	})
}

// flock takes an exclusive lock that ends with the process. ErrBusy: somebody else has it. It is tried for a moment: of
// a process that was killed while it started a command, a child may have the lock until the command is loaded.
func flock(f *os.File) error {
	const tries, pause = 20, 25 * time.Millisecond
	for n := 1; ; n++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if n == tries {
			return ErrBusy
		}
		time.Sleep(pause)
	}
}

// dress gives an open file or directory its owner and mode, in this order, since a change of owner may clear bits.
func dress(f interface {
	Chown(uid, gid int) error
	Chmod(mode fs.FileMode) error
}, owner, group int, mode fs.FileMode,
) error {
	if owner >= 0 || group >= 0 {
		if err := f.Chown(owner, group); err != nil {
			return err
		}
	}
	return f.Chmod(mode)
}

// sameFile tells whether two names lead to one file.
func sameFile(a, b fs.FileInfo) bool {
	x, y := a.Sys().(*syscall.Stat_t), b.Sys().(*syscall.Stat_t)
	return x.Dev == y.Dev && x.Ino == y.Ino
}

// syncDir makes what happened to a directory's names durable.
func syncDir(d disk, path string) error {
	dir, err := d.Folder(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// markedAbove gives the nearest directory above dir that is the root of a mirror, if there is one.
func markedAbove(d disk, dir string) string {
	for up := filepath.Dir(dir); up != dir; dir, up = up, filepath.Dir(up) {
		if _, err := d.Lstat(filepath.Join(up, markerName)); err == nil {
			return up
		}
	}
	return ""
}
