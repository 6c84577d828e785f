package mirror

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
)

// The names in the root of a mirror that swaps: links through the one that shows a version.

// earlyLinks makes the links of files whose names are not taken.
func (s *session) earlyLinks(files []staged) error {
	for name := range firsts(files) {
		if _, err := s.root.r.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := s.root.r.Symlink(liveLink+"/"+name, name); err != nil {
			return err
		}
	}
	return nil
}

// links makes every name of the version shown a link, and removes links that lead nowhere any more. What somebody else
// put in a link's place is a local change; it is replaced whatever drift says if force says so.
func (s *session) links(force func(name string) bool) error {
	clear(s.unlinked)
	if s.live == nil {
		return nil
	}
	names, err := s.live.Entries()
	if err != nil {
		return fmt.Errorf("list the files shown: %w", err)
	}
	shown := make(map[string]struct{}, len(names))
	for _, e := range names {
		shown[e.Name()] = struct{}{}
		if err := s.link(e.Name(), force != nil && force(e.Name())); err != nil {
			return err
		}
	}
	found, err := s.root.r.Entries()
	if err != nil {
		return fmt.Errorf("list the root: %w", err)
	}
	for _, e := range found {
		if _, ok := shown[e.Name()]; !ok && e.Type()&fs.ModeSymlink != 0 && s.isLink(e.Name()) {
			if err := s.root.r.Remove(e.Name()); err != nil {
				return err
			}
		}
	}
	return s.root.r.Sync()
}

// link makes one name a link, if it is not.
func (s *session) link(name string, force bool) error {
	info, err := s.root.r.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.root.r.Symlink(liveLink+"/"+name, name)
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0 && s.isLink(name):
		return nil
	case info.IsDir():
		return s.replaceDir(name)
	case force:
	case s.m.o.Drift == DriftReport:
		s.unlinked[name] = "it was changed on this host"
		return nil
	case s.m.o.Drift == DriftKeep:
		return nil
	default: // the triggers shall see it
		var files []staged
		for _, path := range s.j.filesBelow(name) {
			b, _ := s.j.at(path)
			files = append(files, staged{item: item{path: path, want: want{version: b.version}}, base: b})
		}
		if err := s.settle(line{Staged: stagedLines(files)}, outcome{}, files); err != nil {
			return err
		}
	}
	return s.linkTo(liveLink+"/"+name, name)
}

// isLink tells whether a symbolic link is one of ours.
func (s *session) isLink(name string) bool {
	to, err := s.root.r.Readlink(name)
	return err == nil && to == liveLink+"/"+name
}

// replaceDir puts a link in place of a directory that the mirror made before it swapped, if nothing of others is in it.
// For an instant there is neither.
func (s *session) replaceDir(name string) error {
	var below []string
	ours := s.j.madeDir(name)
	err := s.top.walk(name, func(path string) {
		_, known := s.j.at(path)
		ours = ours && known
	})
	if err != nil || !ours {
		s.unlinked[name] = errDirInWay.Error()
		return nil //nolint:nilerr // whatever it is, it stays
	}
	for d := range s.j.dirs() {
		if contains(name, d) {
			below = append(below, d)
		}
	}
	if err := s.top.clearDir(prevDir); err != nil {
		return err
	}
	if err := s.root.r.Rename(name, s.root.r, prevDir); err != nil {
		return err
	}
	if err := s.root.r.Symlink(liveLink+"/"+name, name); err != nil {
		return err
	}
	return errors.Join(s.settle(line{}, outcome{Unmade: below}, nil), s.top.clearDir(prevDir))
}

// convert makes the root look as Options.Swap says, if it does not yet.
func (s *session) convert() error {
	switch {
	case s.m.swaps() && s.live == nil:
		return s.swapIn()
	case !s.m.swaps() && s.j.shown() != "":
		return s.swapOut()
	}
	return nil
}

// swapIn shows a first version: what the mirror has put so far.
func (s *session) swapIn() error {
	if err := s.top.clearDir(nextDir); err != nil {
		return err
	}
	if s.j.shown() == "" {
		var paths []string
		s.j.eachFile(func(path string) {
			i := item{path: path}
			if err := s.top.observe(&i); err == nil && i.have.kind == regular {
				paths = append(paths, path)
			}
		})
		if err := s.linkNext("", paths); err != nil {
			return fmt.Errorf("make a version of what is there: %w", err)
		}
	}
	dir, err := s.promote()
	if err != nil {
		return fmt.Errorf("make a first version: %w", err)
	}
	// What was shown before is gone, if anything was.
	if err := s.settle(line{Swap: &swap{}}, outcome{}, nil); err != nil {
		return err
	}
	return s.show(line{Swap: &swap{Dir: dir}}, nil, outcome{})
}

// swapOut puts the files of the version shown into the root. A crash in between goes on with what is left.
func (s *session) swapOut() error {
	dirs := map[string]struct{}{}
	s.j.eachFile(func(path string) {
		for d := parent(path); d != "."; d = parent(d) {
			dirs[d] = struct{}{}
		}
	})
	if err := s.j.append(line{Made: slices.Sorted(maps.Keys(dirs))}); err != nil {
		return err
	}
	if s.live != nil {
		entries, err := s.live.Entries()
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := s.moveOut(e.Name()); err != nil {
				return err
			}
		}
	}
	if err := s.dropLinks(); err != nil {
		return err
	}
	if err := s.settle(line{Swap: &swap{}}, outcome{}, nil); err != nil {
		return err
	}
	return s.openLive()
}

// dropLinks removes every link of ours.
func (s *session) dropLinks() error {
	entries, err := s.root.r.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink != 0 && (e.Name() == liveLink || s.isLink(e.Name())) {
			err = errors.Join(err, s.root.r.Remove(e.Name()))
		}
	}
	return errors.Join(err, s.root.r.Sync())
}

// moveOut puts a file or directory of the version shown in the place of its link.
func (s *session) moveOut(name string) error {
	if s.isLink(name) {
		if err := s.root.r.Remove(name); err != nil {
			return err
		}
	}
	if _, err := s.root.r.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return err // a local change has the name
	}
	return s.live.Rename(name, s.root.r, name)
}

// walk calls fn for everything below a directory that is no directory itself.
func (t *tree) walk(dir string, fn func(path string)) error {
	d, err := t.open(dir)
	if err != nil {
		return err
	}
	entries, err := d.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := strings.TrimPrefix(dir+"/"+e.Name(), "./")
		if !e.IsDir() {
			fn(path)
		} else if err := t.walk(path, fn); err != nil {
			return err
		}
	}
	return nil
}

// first gives the first segment of a relative path.
func first(rel string) string {
	name, _, _ := strings.Cut(rel, "/")
	return name
}

// firsts gives the names in the root that files have, or lie below, each once.
func firsts(files []staged) iter.Seq[string] {
	names := map[string]struct{}{}
	for _, f := range files {
		names[first(f.item.path)] = struct{}{}
	}
	return maps.Keys(names)
}

func touches(files []staged, name string) bool {
	return slices.ContainsFunc(files, func(f staged) bool { return first(f.item.path) == name })
}
