package mirror

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Operations on two directories of a tree. Both are open, each entry is named in its own: no link is followed.

// both calls fn with descriptors of the directories of two paths.
func (t *tree) both(from, to string, fn func(from, to int) error) error {
	a, err := t.descriptor(parent(from))
	if err != nil {
		return err
	}
	defer a.Close() //nolint:errcheck // opened for reading
	b, err := t.descriptor(parent(to))
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // opened for reading
	return fn(int(a.Fd()), int(b.Fd()))
}

func (t *tree) descriptor(dir string) (*os.File, error) {
	d, err := t.open(dir)
	if err != nil {
		return nil, err
	}
	return d.Open(".")
}

// move renames a file from one directory to another.
func (t *tree) move(from, to string) error {
	err := t.both(from, to, func(a, b int) error {
		if err := unix.Renameat(a, name(from), b, name(to)); err != nil {
			return &fs.PathError{Op: "rename", Path: to, Err: err}
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.touched[parent(to)] = struct{}{}
	delete(t.trust, to)
	return nil
}

// link gives a file, which is no directory, a second name.
func (t *tree) link(from, to string) error {
	err := t.both(from, to, func(a, b int) error {
		if err := unix.Linkat(a, name(from), b, name(to), 0); err != nil {
			return &fs.PathError{Op: "link", Path: to, Err: err}
		}
		return nil
	})
	if err == nil {
		t.touched[parent(to)] = struct{}{}
	}
	return err
}

// makeDirs makes a directory and those above it. The ones of our own names are for us alone.
func (t *tree) makeDirs(dir string) error {
	if dir == "." {
		return nil
	}
	if _, err := t.open(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := t.makeDirs(parent(dir)); err != nil {
		return err
	}
	if parent(dir) == "." && (dir == nextDir || dir == prevDir) {
		return t.root.Mkdir(dir, 0o700)
	}
	return t.makeDir(dir)
}

// clearDir removes one of our own directories with all that is in it. It is no error if there is none.
func (t *tree) clearDir(dir string) error {
	t.closeDirs()
	for d := range t.touched {
		if d == dir || contains(dir, d) {
			delete(t.touched, d)
		}
	}
	return t.root.RemoveAll(dir)
}
