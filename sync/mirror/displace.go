package mirror

import (
	"errors"
	"io/fs"
)

// In ModeBoth somebody may edit a file between the look that a plan rests on and the moment when the plan is carried out.
// So what is in the way is not overwritten but displaced, looked at, and put back if it is not what was seen.

// putInPlace gives a staged file its name.
func (s *session) putInPlace(f staged) error {
	if s.m.o.Mode != ModeBoth {
		return s.tree.rename(f.item.path, f.temp)
	}
	err := s.tree.replaceSeen(f.item, f.temp)
	if errors.Is(err, errSwapped) {
		s.young[f.item.path] = struct{}{} // an edit: look again
	}
	return err
}

// takeAway removes a file that is not wanted any more.
func (s *session) takeAway(i item) error {
	if s.m.o.Mode != ModeBoth {
		return s.tree.remove(i.path)
	}
	err := s.tree.removeSeen(i)
	if errors.Is(err, errSwapped) {
		s.young[i.path] = struct{}{}
	}
	return err
}

// replaceSeen puts a staged file in place of what was seen at the item's path. Errors: errSwapped if that is something
// else by now; it is in its place then, and the staged file in its own.
func (t *tree) replaceSeen(i item, temp string) error {
	from := temp
	if parent(temp) == "." {
		from = join(parent(i.path), temp)
	}
	a, b, err := t.both(from, i.path)
	if err != nil {
		return err
	}
	t.touched[parent(i.path)] = struct{}{}
	delete(t.trust, i.path)
	if i.have.kind == absent {
		if err = a.Link(name(from), b, name(i.path)); errors.Is(err, fs.ErrExist) {
			return errSwapped
		}
		return errors.Join(err, a.Remove(name(from)))
	}
	err = a.Exchange(name(from), b, name(i.path))
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return a.Rename(name(from), b, name(i.path))
	case errors.Is(err, fs.ErrNotExist):
		return errSwapped
	case err != nil:
		return err
	}
	if seen, err := i.seen(a, name(from)); err != nil || !seen {
		return errors.Join(errSwapped, err, a.Exchange(name(from), b, name(i.path)))
	}
	return a.Remove(name(from))
}

// removeSeen removes what was seen at the item's path. Errors: errSwapped if that is something else by now, and stays;
// fs.ErrNotExist.
func (t *tree) removeSeen(i item) error {
	d, err := t.open(parent(i.path))
	if err != nil {
		return err
	}
	temp := tempName()
	if err := d.Rename(name(i.path), d, temp); err != nil {
		return err
	}
	t.touched[parent(i.path)] = struct{}{}
	delete(t.trust, i.path)
	seen, err := i.seen(d, temp)
	if err == nil && seen {
		return d.Remove(temp)
	}
	err = errors.Join(errSwapped, err)
	if back := d.Link(temp, d, name(i.path)); back == nil || errors.Is(back, fs.ErrExist) {
		return errors.Join(err, d.Remove(temp)) // back, or edited once more meanwhile
	}
	return errors.Join(err, d.Rename(temp, d, name(i.path))) // a directory has no second name
}

// seen tells whether an entry is what was seen at the item's path. Its change time is another one, since it was renamed.
func (i *item) seen(d folder, entry string) (bool, error) {
	info, err := d.Lstat(entry)
	if err != nil {
		return false, err
	}
	if i.have.kind != regular {
		return i.have.kind == other && !info.Mode().IsRegular() && !info.IsDir(), nil
	}
	if !info.Mode().IsRegular() {
		return false, nil
	}
	is, was := printOf(info), i.have.print
	return is.inode == was.inode && is.size == was.size && is.wrote == was.wrote, nil
}

// join puts a name below a relative directory.
func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}
