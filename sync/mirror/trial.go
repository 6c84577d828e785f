package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"syncagent/crdtstore/fault"
	"syncagent/sync/trigger"
)

// A change on trial is one that may have to go back. The journal names what it touches before anything of it is live, says
// when all of it is, and when it is to go back. A command decides only about what is live as a whole: what a crash cut
// off before that, or on its way back, goes back unjudged, and the next pass applies it anew.

// keepOld puts links to everything that the change replaces or removes aside, and notes that it is on trial.
func (s *session) keepOld(p plan, files []staged) error {
	if len(s.m.o.Trial) == 0 {
		return nil
	}
	if err := s.tree.clearDir(prevDir); err != nil {
		return err
	}
	if err := s.tree.makeDirs(prevDir); err != nil {
		return err
	}
	var trial []triedFile
	keep := func(path string) error {
		t := triedFile{Path: path}
		if b, ok := s.j.at(path); ok {
			old := stage(path, "", b)
			t.Old = &old
		}
		var err error
		if t.Kept, err = s.keepFile(path); err != nil {
			return fmt.Errorf("keep %s: %w", path, err)
		}
		trial = append(trial, t)
		return nil
	}
	for _, list := range [][]item{p.clear, p.remove} {
		for _, i := range list {
			if err := keep(i.path); err != nil {
				return err
			}
		}
	}
	for _, f := range files {
		if f.temp == "" {
			continue
		}
		if err := keep(f.item.path); err != nil {
			return err
		}
	}
	if len(trial) == 0 {
		return nil
	}
	if err := s.tree.sync(); err != nil {
		return err
	}
	fault.Point("mirror.old-kept")
	return s.j.append(line{Trial: trial})
}

// keepFile links what is at the path into prevDir; false if there is nothing, or a directory.
func (s *session) keepFile(path string) (bool, error) {
	d, err := s.tree.open(parent(path))
	if err == nil {
		info, lerr := d.Lstat(name(path))
		if err = lerr; err == nil && info.IsDir() {
			return false, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) || isReason(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := s.tree.makeDirs(parent(prevDir + "/" + path)); err != nil {
		return false, err
	}
	return true, s.tree.link(path, prevDir+"/"+path)
}

// concludeTrial runs the trial of the change that went live, if there is one, and takes the change back if it fails.
// After a crash it finishes what was on trial then.
func (s *session) concludeTrial(ctx context.Context) error {
	trial, live := s.j.onTrial()
	if len(trial) == 0 {
		return nil
	}
	defer s.closeDirs()
	if !live {
		_, err := s.takeBack(trial)
		return err
	}
	why, said := "", ""
	if len(s.m.o.Trial) > 0 { // else the configuration changed in between: what is there stays
		r := s.try(ctx, trial)
		if ctx.Err() != nil {
			return ctx.Err() // it was cut off: the next start tries again
		}
		fault.Point("mirror.tried")
		if r.Err != nil {
			why, said = fmt.Sprintf("it was rolled back: %v", r.Err), tail(r.Output)
		}
	}
	if why == "" {
		if err := s.j.append(line{Tried: true}); err != nil {
			return err
		}
		return s.top.clearDir(prevDir)
	}
	if err := s.j.append(line{Back: true}); err != nil {
		return err
	}
	left, err := s.takeBack(trial)
	if err != nil {
		return err
	}
	if r := s.try(ctx, trial); r.Err != nil {
		why += fmt.Sprintf("; on the files before it, the command failed too: %v", r.Err)
	}
	s.m.refusal = refusal{why, said}
	for _, t := range trial {
		if _, edited := left[t.Path]; edited {
			s.mark(t.Path)
			continue
		}
		delete(s.dirty, t.Path)
		s.rejected[t.Path], s.failing[t.Path] = why, why
	}
	s.m.o.Log.Error("a change was rolled back", "dir", s.m.o.Dir, "paths", len(trial))
	return nil
}

func (s *session) try(ctx context.Context, trial []triedFile) trigger.Result {
	var p plan
	for _, t := range trial {
		p.write = append(p.write, item{path: t.Path})
	}
	return s.command(s.m.o.Trial).Run(ctx, s.changedPaths(p), s.facts(p)...)
}

// takeBack ends a trial with what was there before it. Left are the paths that stay as they are.
func (s *session) takeBack(trial []triedFile) (left map[string]struct{}, err error) {
	if s.j.shown() != "" {
		err = s.rollBackSwap(trial)
	} else {
		left, err = s.rollBack(trial)
	}
	if err != nil {
		return nil, fmt.Errorf("roll back: %w", err)
	}
	return left, s.top.clearDir(prevDir)
}

// rollBack removes what the change added, and puts everything back that it replaced or removed. Some of it may have gone
// back before a crash.
func (s *session) rollBack(trial []triedFile) (left map[string]struct{}, err error) {
	left = map[string]struct{}{}
	idle := map[string]struct{}{}
	for _, t := range trial { // first, since directories may be where files were
		if t.Kept {
			continue
		}
		if err := s.putBack(t, left); err != nil {
			return nil, err
		}
		for d := parent(t.Path); d != "." && s.j.madeDir(d); d = parent(d) {
			idle[d] = struct{}{}
		}
	}
	for _, t := range trial {
		for d := parent(t.Path); t.Kept && d != "."; d = parent(d) {
			delete(idle, d) // it is needed
		}
	}
	for d := range idle { // what a crash left in them would be in the way
		if err := s.tree.sweep(d, false); err != nil {
			return nil, err
		}
	}
	var o outcome
	s.removeDirs(idle, &o)
	if err := s.makeOldDirs(trial); err != nil {
		return nil, err
	}
	for _, t := range trial {
		if !t.Kept {
			continue
		}
		if err := s.putBack(t, left); err != nil {
			return nil, err
		}
	}
	if err := s.tree.sync(); err != nil {
		return nil, err
	}
	fault.Point("mirror.rolled-back")
	var files []staged
	for _, t := range trial {
		if _, as := left[t.Path]; as {
			continue
		}
		if !t.Kept || t.Old == nil {
			o.Gone = append(o.Gone, goneFile{Path: t.Path}) // it was not ours before
			continue
		}
		b, err := t.Old.base()
		if err != nil {
			return nil, err
		}
		files = append(files, staged{item: item{path: t.Path, want: want{version: b.version}}, base: b})
	}
	return left, s.settle(line{Tried: true, Staged: stagedLines(files)}, o, files)
}

// makeOldDirs makes the directories that files of before need. They are noted as ours first, as always.
func (s *session) makeOldDirs(trial []triedFile) error {
	missing := map[string]struct{}{}
	for _, t := range trial {
		for d := parent(t.Path); t.Kept && d != "."; d = parent(d) {
			if _, err := s.tree.open(d); errors.Is(err, fs.ErrNotExist) {
				missing[d] = struct{}{}
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	dirs := slices.Sorted(maps.Keys(missing))
	if err := s.j.append(line{Made: dirs}); err != nil {
		return err
	}
	for _, d := range dirs {
		if err := s.tree.makeDirs(d); err != nil && !isReason(err) {
			return err
		}
	}
	return s.tree.sync() // a file must not move into a directory that a power cut takes away
}

// putBack makes one path what it was before the change. What somebody edited since is noted as left, if edits count in this
// mirror, and so is what cannot be put back.
func (s *session) putBack(t triedFile, left map[string]struct{}) error {
	i, old, kept := item{path: t.Path}, item{path: t.Path}, item{path: prevDir + "/" + t.Path}
	i.base, i.based = s.j.at(t.Path)
	if t.Old != nil {
		b, err := t.Old.base()
		if err != nil {
			return err
		}
		old.base, old.based, kept.base, kept.based = b, true, b, true
	}
	err := errors.Join(s.tree.observe(&i), s.tree.observe(&old), s.tree.observe(&kept))
	there := i.have.kind != absent
	edited := there && !(i.based && i.have.same) && (s.m.o.Mode == ModeBoth || s.m.o.Drift != DriftRestore)
	switch {
	case err != nil:
	case t.Kept && (kept.sameAs(&i) || old.have.same && !kept.have.same && !i.have.same): // it never left, or went back before a crash
		s.tree.touched[parent(t.Path)] = struct{}{}
	case edited:
		err = errSwapped
	case !t.Kept && !there:
	case !t.Kept:
		err = s.takeAway(i)
	case i.have.kind == directory:
		err = errDirInWay
	case !there && s.m.o.Mode == ModeBoth:
		err = s.tree.link(kept.path, t.Path) // a power cut may take one of two names, so both stay
	default:
		err = s.putInPlace(staged{item: i, temp: kept.path})
	}
	if isReason(err) || errors.Is(err, fs.ErrExist) {
		left[t.Path] = struct{}{}
		s.m.o.Log.Warn("a path stays as it is while its change goes back", "dir", s.m.o.Dir, "path", t.Path, "reason", err)
		return nil
	}
	return err
}

// sameAs tells whether a kept file is the one now at its path, or is there no more.
func (i *item) sameAs(now *item) bool {
	return i.have.kind == absent || i.have.kind == now.have.kind && i.have.print.inode == now.have.print.inode
}
