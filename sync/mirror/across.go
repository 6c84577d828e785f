package mirror

import (
	"errors"
	"io/fs"
)

// Operations on two directories of a tree. Both are open, each entry is named in its own: no link is followed.

// both gives the directories of two paths, to be used before the next call.
func (t *tree) both(from, to string) (a, b folder, err error) {
	if _, err = t.open(parent(from)); err != nil {
		return nil, nil, err
	}
	if b, err = t.open(parent(to)); err != nil {
		return nil, nil, err
	}
	a, err = t.open(parent(from)) // once more: the second may have closed the first, this one does not close the second
	return a, b, err
}

// move renames a file from one directory to another.
func (t *tree) move(from, to string) error {
	a, b, err := t.both(from, to)
	if err != nil {
		return err
	}
	if err := a.Rename(name(from), b, name(to)); err != nil {
		return err
	}
	t.touched[parent(to)] = struct{}{}
	delete(t.trust, to)
	return nil
}

// link gives a file, which is no directory, a second name.
func (t *tree) link(from, to string) error {
	a, b, err := t.both(from, to)
	if err != nil {
		return err
	}
	if err := a.Link(name(from), b, name(to)); err != nil {
		return err
	}
	t.touched[parent(to)] = struct{}{}
	return nil
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
		t.touched["."] = struct{}{}
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
