package mirror

import (
	"errors"
	"io/fs"
	"maps"
	"slices"

	"syncagent/crdtstore/fault"
)

// removeFiles removes files that the mirror wrote, forgets others, and removes directories that it made and that are
// empty now.
func (s *session) removeFiles(remove, forget []item) error {
	if len(remove)+len(forget) == 0 {
		return nil
	}
	var o outcome
	var paths []string
	gone := func(i item) {
		paths = append(paths, i.path)
		o.Gone = append(o.Gone, i.gone())
	}
	for _, i := range remove {
		err := s.takeAway(i)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			gone(i)
		} else if general := s.fault(i.path, err); general != nil {
			return general
		}
	}
	fault.Point("mirror.removed")
	for _, i := range forget {
		gone(i)
	}
	s.removeDirs(s.idleAbove(paths), &o)
	if err := s.tree.sync(); err != nil {
		return err
	}
	return s.settle(line{}, o, nil)
}

func (i *item) gone() goneFile {
	g := goneFile{Path: i.path}
	if !i.changed.IsZero() {
		g.Write = i.changed.WriteString()
	}
	return g
}

// tidy removes directories that were made for files that never came, and, when everything is looked at, those that
// became idle while something of somebody else was in them, or in a crash.
func (s *session) tidy(never []string) error {
	idle := s.idleAbove(never)
	if s.full {
		idle = s.j.dirs()
		maps.DeleteFunc(idle, func(d string, _ struct{}) bool { return s.want.isDir(d) })
	}
	if len(idle) == 0 {
		return nil
	}
	var o outcome
	if s.removeDirs(idle, &o); len(o.Unmade) == 0 {
		return nil
	}
	if err := s.tree.sync(); err != nil {
		return err
	}
	return s.settle(line{}, o, nil)
}

// idleAbove gives the directories above what is gone that the mirror made and in which nothing is wanted any more.
func (s *session) idleAbove(gone []string) map[string]struct{} {
	idle := map[string]struct{}{}
	for _, p := range gone {
		for d := parent(p); d != "." && !s.want.isDir(d) && s.j.madeDir(d); d = parent(d) {
			idle[d] = struct{}{}
		}
	}
	return idle
}

// removeDirs removes those of the directories that are empty.
func (s *session) removeDirs(idle map[string]struct{}, o *outcome) {
	dirs := slices.Sorted(maps.Keys(idle))
	slices.Reverse(dirs) // children first
	for _, d := range dirs {
		gone, err := s.tree.removeDir(d)
		if err != nil {
			s.m.o.Log.Warn("an empty directory cannot be removed", "dir", s.m.o.Dir, "path", d, "error", err)
		}
		if gone {
			o.Unmade = append(o.Unmade, d)
		}
	}
}
