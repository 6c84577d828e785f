package mirror

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// With Options.Swap, all files lie in a version, a directory beside the files' names in the root. A link shows one version,
// and each name in the root is a link through it:
//
//	tls.crt                            -> .syncagent-data/tls.crt
//	tls.key                            -> .syncagent-data/tls.key
//	.syncagent-data                    -> .syncagent-data-5f1c3ab29d77e014
//	.syncagent-data-5f1c3ab29d77e014/     tls.crt tls.key
//
// A change is staged whole, with hard links to what stays, becomes a version, and is shown by replacing the one link.
// A version that is not shown any more stays for a while, for those who have it open.
const (
	liveLink     = ours + "-data"
	versionStart = liveLink + "-"
	// versionGrace is how long a version stays after it was shown.
	versionGrace = 30 * time.Second
)

// Swap says how a change becomes visible.
type Swap string

// The kinds of Swap.
const (
	SwapFiles     Swap = "files"     // file by file, in one go
	SwapDirectory Swap = "directory" // all at one instant
)

// swaps tells that the files lie, or will lie, in versions.
func (m *Mirror) swaps() bool { return m.o.Swap == SwapDirectory }

// openLive makes s.tree the tree of the files: that of the version shown, or the root's own.
func (s *session) openLive() error {
	s.closeLive()
	dir := s.j.shown()
	if dir == "" {
		s.tree = s.top
		return nil
	}
	live, err := openDir(s.root.r, dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !isReason(err) {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	if err == nil {
		s.live = live
		s.tree = newTree(live, s.m.owner, s.m.group, s.m.trust)
	} else { // somebody took it away
		s.tree = newTree(nil, s.m.owner, s.m.group, s.m.trust)
	}
	return nil
}

func (s *session) closeLive() {
	if s.live != nil {
		s.tree.closeDirs()
		_ = s.live.Close() // opened for reading
		s.live = nil
	}
}

// checkLive tells whether the version that is shown is still the one that its name leads to.
func (s *session) checkLive() error {
	if !s.m.swaps() {
		return nil
	}
	dir := s.j.shown()
	if s.live == nil {
		return fmt.Errorf("check %s: %w", dir, fs.ErrNotExist) // the next session begins with an empty one
	}
	open, err := s.live.Stat()
	if err == nil {
		var named fs.FileInfo
		if named, err = s.root.r.Lstat(dir); err == nil && !sameFile(open, named) {
			err = errSwapped
		}
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", dir, err)
	}
	if to, err := s.root.r.Readlink(liveLink); err != nil || to != dir {
		return s.turn(dir)
	}
	return nil
}

// applySwap does what the plan says as one change that is visible at one instant.
func (s *session) applySwap(ctx context.Context, p plan) error {
	if len(p.write)+len(p.clear)+len(p.remove) == 0 {
		return errors.Join(s.links(nil), s.removeFiles(nil, p.forget))
	}
	stay, err := s.staying(p)
	if err != nil {
		return err
	}
	if p.write, err = s.fitting(p.write, stay); err != nil {
		return err
	}
	files, err := s.stageVersion(ctx, p.write)
	if err != nil {
		return errors.Join(err, s.unstage())
	}
	if s.moved > 0 {
		return nil // all or nothing: the change that tells of it is on its way
	}
	s.staged = nil
	defer s.clearNext()
	var o outcome
	for _, i := range slices.Concat(p.clear, p.remove, p.forget) {
		o.Gone = append(o.Gone, i.gone())
	}
	if !slices.ContainsFunc(files, func(f staged) bool { return f.temp != "" }) && len(p.clear)+len(p.remove) == 0 {
		return errors.Join(s.links(nil), s.settle(line{Staged: stagedLines(files)}, o, files))
	}
	if err := s.carryOver(stay, files); err != nil {
		return fmt.Errorf("stage unchanged files: %w", err)
	}
	if err := s.check(ctx, p); err != nil {
		s.reject(p, err)
		return s.links(nil)
	}
	dir, err := s.promote()
	if err != nil {
		return err
	}
	n := line{Swap: &swap{Dir: dir}}
	if len(s.m.o.Trial) > 0 {
		n.Trial, n.Live = s.tried(files, o), true // it is shown as a whole, or not at all
	}
	if err := s.show(n, files, o); err != nil {
		return err
	}
	return s.concludeTrial(ctx)
}

// stageVersion stages items, beside those that an earlier pass staged before the source moved on: so that a large change
// gets done although there are small ones all the time.
func (s *session) stageVersion(ctx context.Context, items []item) ([]staged, error) {
	have := make(map[string]staged, len(s.staged))
	for _, f := range s.staged {
		have[f.item.path] = f
	}
	var files []staged
	var lack []item
	for _, i := range items {
		f, ok := have[i.path]
		delete(have, i.path)
		if ok && f.temp != "" && f.base.version == i.want.version {
			files = append(files, f)
		} else {
			lack = append(lack, i)
		}
	}
	if len(have) > 0 || len(s.staged) == 0 { // something is not wanted any more
		if err := s.unstage(); err != nil {
			return nil, err
		}
		files, lack = nil, items
	}
	more, err := s.stageAll(ctx, lack, true)
	s.staged = append(files, more...)
	return s.staged, err
}

// unstage removes what is staged.
func (s *session) unstage() error {
	s.staged = nil
	return s.top.clearDir(nextDir)
}

// staying gives the files in the version shown that the plan does not remove: also those of others, who came by a link.
func (s *session) staying(p plan) (map[string]struct{}, error) {
	stay := map[string]struct{}{}
	if err := s.tree.walk(".", func(path string) { stay[path] = struct{}{} }); err != nil {
		return nil, fmt.Errorf("list the files shown: %w", err)
	}
	for _, i := range slices.Concat(p.clear, p.remove) {
		delete(stay, i.path)
	}
	return stay, nil
}

// fitting gives the writes that nothing is in the way of.
func (s *session) fitting(items []item, stay map[string]struct{}) (able []item, err error) {
	dirs := map[string]struct{}{}
	for path := range stay {
		for d := parent(path); d != "."; d = parent(d) {
			dirs[d] = struct{}{}
		}
	}
	fits := func(path string) error {
		if _, taken := dirs[path]; taken {
			return errDirInWay
		}
		for d := parent(path); d != "."; d = parent(d) {
			if _, taken := stay[d]; taken {
				return errFileInWay
			}
		}
		if s.top.root == nil {
			return nil
		}
		if info, err := s.top.root.Lstat(first(path)); err == nil && info.IsDir() {
			return errDirInWay
		}
		return nil
	}
	for _, i := range items {
		if err := fits(i.path); err == nil {
			able = append(able, i)
		} else if general := s.fault(i.path, err); general != nil {
			return nil, general
		}
	}
	return able, nil
}

// carryOver gives the files that stay a second name beside those that are staged.
func (s *session) carryOver(stay map[string]struct{}, files []staged) error {
	for _, f := range files {
		if f.temp != "" {
			delete(stay, f.item.path)
		}
	}
	return s.linkNext(s.j.shown()+"/", slices.Sorted(maps.Keys(stay)))
}

// tried gives what a change touches, for the case that it has to go back.
func (s *session) tried(files []staged, o outcome) []triedFile {
	var trial []triedFile
	try := func(path string) {
		t := triedFile{Path: path}
		if b, ok := s.j.at(path); ok {
			old := stage(path, "", b)
			t.Old = &old
		}
		trial = append(trial, t)
	}
	for _, g := range o.Gone {
		try(g.Path)
	}
	for _, f := range files {
		try(f.item.path)
	}
	return trial
}

// promote makes a version of what is staged, durably, and gives its name.
func (s *session) promote() (dir string, err error) {
	if err := s.top.makeDirs(nextDir); err != nil {
		return "", err
	}
	if err := s.top.sync(); err != nil {
		return "", err
	}
	s.top.closeDirs()
	var random [8]byte
	rand.Read(random[:])
	dir = versionStart + hex.EncodeToString(random[:])
	if err := s.root.r.Rename(nextDir, s.root.r, dir); err != nil {
		return "", err
	}
	d, err := openDir(s.root.r, dir)
	if err != nil {
		return "", err
	}
	return dir, errors.Join(d.Dress(s.m.owner, s.m.group, dirMode), d.Sync(), d.Close(), s.root.r.Sync())
}

// show makes the version that n names the one that is seen. Files and o are what becomes true by it.
func (s *session) show(n line, files []staged, o outcome) error {
	// From here on a crash finishes forward.
	n.Swap.Was, n.Swap.Gone, n.Staged = s.j.shown(), o.Gone, stagedLines(files)
	if err := s.j.append(n); err != nil {
		return err
	}
	return s.finishSwap(files, o)
}

// finishSwap does what the last swap in the journal says. Part of it may have been done before a crash.
func (s *session) finishSwap(files []staged, o outcome) error {
	now := s.j.swapping()
	// Names that are new appear with the version: until then their links lead nowhere.
	if err := s.earlyLinks(files); err != nil {
		return err
	}
	if err := s.turn(now.Dir); err != nil {
		return err
	}
	if err := s.openLive(); err != nil {
		return err
	}
	if err := s.links(func(name string) bool { return now.Was == "" || touches(files, name) }); err != nil {
		return err
	}
	s.retire(now.Was)
	return s.settle(line{}, o, files)
}

// recoverSwap finishes the swap that a crash cut off.
func (s *session) recoverSwap(now *swap) error {
	var files []staged
	o := outcome{Gone: now.Gone}
	for _, f := range s.j.unsettled() {
		b, err := f.base()
		if err != nil {
			return err
		}
		files = append(files, staged{item: item{path: f.Path, want: want{version: b.version}}, base: b})
		o.Failed = append(o.Failed, f.Path)
	}
	d, err := openDir(s.root.r, now.Dir)
	if err == nil {
		_ = d.Close() // opened for reading
		o.Failed = nil
		return s.finishSwap(files, o)
	}
	if !errors.Is(err, fs.ErrNotExist) && !isReason(err) {
		return err
	}
	// Somebody took the version away: it never was, and the mirror begins with an empty one.
	return errors.Join(s.settle(line{Swap: &swap{}, Tried: true}, outcome{Failed: o.Failed}, nil), s.openLive())
}

// turn makes the one link lead to a version.
func (s *session) turn(dir string) error {
	return errors.Join(s.linkTo(dir, liveLink), s.root.r.Sync())
}

// linkTo makes a symbolic link, in place of whatever has its name, except a directory.
func (s *session) linkTo(target, name string) error {
	temp := tempName()
	if err := s.root.r.Symlink(target, temp); err != nil {
		return err
	}
	if err := s.root.r.Rename(temp, s.root.r, name); err != nil {
		return errors.Join(err, s.root.r.Remove(temp))
	}
	return nil
}

// rollBackSwap shows the version before the one on trial again.
func (s *session) rollBackSwap(trial []triedFile) error {
	var o outcome
	var files []staged
	for _, t := range trial {
		if t.Old == nil {
			o.Gone = append(o.Gone, goneFile{Path: t.Path})
			continue
		}
		b, err := t.Old.base()
		if err != nil {
			return err
		}
		files = append(files, staged{item: item{path: t.Path, want: want{version: b.version}}, base: b})
	}
	return s.show(line{Tried: true, Swap: &swap{Dir: s.j.shownBefore()}}, files, o)
}
