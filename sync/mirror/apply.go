package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
	"syncagent/sync/trigger"
)

// chunkFiles is how many files are staged and renamed together, more only if one write has more.
const chunkFiles = 1024

// apply does what the plan says. Paths that fail are noted; an error is one that concerns all.
func (s *session) apply(ctx context.Context, p plan, strict bool) error {
	if s.m.swaps() {
		return s.applySwap(ctx, p)
	}
	if s.m.guarded() {
		return s.applyGuarded(ctx, p, strict)
	}
	if err := s.removeFiles(p.clear, nil); err != nil {
		return err
	}
	if err := s.tidy(p.none); err != nil {
		return err
	}
	for chunk := range chunks(p.write, chunkFiles) {
		if err := s.writeFiles(ctx, chunk, strict); err != nil {
			return err
		}
	}
	return s.removeFiles(p.remove, p.forget)
}

// staged is a file written beside its target.
type staged struct {
	item item
	temp string // empty: the same file was found in place
	base base
}

// writeFiles puts the wanted files in place, all of them within one short moment.
func (s *session) writeFiles(ctx context.Context, items []item, strict bool) error {
	items, err := s.makeDirs(items)
	if err != nil || len(items) == 0 {
		return err
	}
	files, err := s.stageFiles(ctx, items, strict)
	if err != nil || len(files) == 0 {
		return err
	}
	return s.place(files)
}

// place puts staged files where they belong.
func (s *session) place(files []staged) error {
	n := line{Staged: stagedLines(files)}
	renames := slices.ContainsFunc(files, func(f staged) bool { return f.temp != "" })
	var o outcome
	if renames {
		fault.Point("mirror.staged")
		// From here on a crash finishes forward: recovery renames what is still beside its target.
		if !fault.Planted("rename-before-journal") {
			if err := s.j.append(n); err != nil {
				return errors.Join(err, s.discard(files))
			}
			n = line{}
		}
		fault.Point("mirror.noted")
		for _, f := range files {
			if f.temp == "" {
				continue
			}
			if err := s.putInPlace(f); err != nil {
				o.Failed = append(o.Failed, f.item.path)
				if general := s.fault(f.item.path, err); general != nil {
					return general
				}
				_ = s.tree.discard(f.item.path, f.temp) // the next sweep will find it
			}
			fault.Point("mirror.renamed")
		}
		if err := s.tree.sync(); err != nil {
			return err
		}
		fault.Point("mirror.in-place")
	}
	return s.settle(n, o, files)
}

func stagedLines(files []staged) []stagedFile {
	lines := make([]stagedFile, 0, len(files))
	for _, f := range files {
		lines = append(lines, stage(f.item.path, f.temp, f.base))
	}
	return lines
}

// settle writes the outcome to the journal and takes note of the changes.
func (s *session) settle(n line, o outcome, files []staged) error {
	var changes []trigger.Change
	for _, f := range files {
		if !slices.Contains(o.Failed, f.item.path) {
			changes = append(changes, trigger.Change{
				Path: s.want.absolute(f.item.path), Write: f.item.want.version.WriteString(),
			})
		}
	}
	for _, g := range o.Gone {
		changes = append(changes, trigger.Change{Path: s.want.absolute(g.Path), Write: g.Write})
	}
	o.Seq = s.j.nextSeq()
	if o.Due = s.m.covering(changes); fault.Planted("forget-marks") {
		o.Due = nil
	}
	n.Done = &o
	if err := s.j.append(n); err != nil {
		return err
	}
	fault.Point("mirror.settled")
	for _, f := range files {
		delete(s.dirty, f.item.path)
	}
	for _, g := range o.Gone {
		delete(s.dirty, g.Path)
		delete(s.m.trust, g.Path)
	}
	s.changes = append(s.changes, changes...)
	return nil
}

// covering gives the names of the triggers that have to see one of the changes.
func (m *Mirror) covering(changes []trigger.Change) []string {
	if m.o.Triggers == nil {
		return nil
	}
	var names []string
	for _, c := range changes {
		for _, n := range m.o.Triggers.Covering(c.Path) {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}

// makeDirs makes the directories that items need and gives the items that can be written now.
func (s *session) makeDirs(items []item) ([]item, error) {
	missing := map[string]struct{}{}
	for _, i := range items {
		for d := parent(i.path); d != "."; d = parent(d) {
			if _, err := s.tree.open(d); !errors.Is(err, fs.ErrNotExist) {
				break
			}
			missing[d] = struct{}{}
		}
	}
	if len(missing) > 0 {
		dirs := slices.Sorted(maps.Keys(missing)) // parents first
		// Noted before they are made, so that even after a crash we know which directories are ours.
		if err := s.j.append(line{Made: dirs}); err != nil {
			return nil, err
		}
		fault.Point("mirror.directories-noted")
		for _, d := range dirs {
			if err := s.tree.makeDir(d); err != nil && isGeneral(err) {
				return nil, fmt.Errorf("make directory %s: %w", d, err)
			} // any other error comes up again with each file below
		}
	}
	able := items[:0]
	for _, i := range items {
		err := s.reachable(i)
		if err == nil {
			able = append(able, i)
		} else if general := s.fault(i.path, err); general != nil {
			return nil, general
		}
	}
	return able, nil
}

// reachable tells whether a file can be put at the item's path, before its content is asked for.
func (s *session) reachable(i item) error {
	d, err := s.tree.open(parent(i.path))
	if err != nil {
		return err
	}
	if info, err := d.Lstat(name(i.path)); err == nil && info.IsDir() {
		return errDirInWay
	}
	return nil
}

// stageAll stages items in pieces.
func (s *session) stageAll(ctx context.Context, items []item, strict bool) (files []staged, err error) {
	for chunk := range chunks(items, chunkFiles) {
		more, err := s.stageFiles(ctx, chunk, strict)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	return files, nil
}

// stageFiles fetches the items' contents and writes them beside their targets, durably. What the source has in another
// version than wanted is left out with strict, together with all of the same write; else it is taken as it is. After an
// error nothing is left beside the targets.
func (s *session) stageFiles(ctx context.Context, items []item, strict bool) ([]staged, error) {
	byPath := make(map[string]item, len(items))
	paths := make([]string, 0, len(items))
	for _, i := range items {
		abs := s.want.absolute(i.path)
		byPath[abs] = i
		paths = append(paths, abs)
	}
	moved := map[record.ID]struct{}{} // writes of which something has a newer version by now
	var files []staged
	pool := newSyncPool()
	err := s.m.src.Fetch(ctx, paths, func(f File, r io.Reader) error {
		i, asked := byPath[f.Path]
		if !asked {
			return nil
		}
		delete(byPath, f.Path)
		if f.Version != i.want.version {
			if strict {
				moved[i.want.version.Write] = struct{}{}
				return nil
			}
			s.want.put(f, s.mark)
			i.want, _ = s.want.at(i.path)
		}
		got, err := s.stageFile(i, r, pool)
		if err == nil {
			files = append(files, got)
			return nil
		}
		return s.fault(i.path, err)
	})
	if syncErr := pool.wait(); err == nil {
		err = syncErr
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fetch files: %w", err), s.discard(files))
	}
	s.vanished(byPath, moved, strict)
	return s.together(files, moved)
}

// vanished deals with paths that were wanted and that the source does not have any more.
func (s *session) vanished(left map[string]item, moved map[record.ID]struct{}, strict bool) {
	for path, i := range left {
		if strict {
			moved[i.want.version.Write] = struct{}{}
		} else {
			s.want.remove(path, s.mark)
			s.moved++ // come back and remove the file
		}
	}
}

// together takes out and counts all files of writes that moved: they wait for the change.
func (s *session) together(files []staged, moved map[record.ID]struct{}) ([]staged, error) {
	s.moved += len(moved)
	var stay, out []staged
	for _, f := range files {
		if _, wait := moved[f.item.want.version.Write]; wait {
			out = append(out, f)
		} else {
			stay = append(stay, f)
		}
	}
	if err := s.discard(out); err != nil {
		return nil, errors.Join(err, s.discard(stay))
	}
	// Fetch gives them in any order; they appear in that of their versions.
	slices.SortFunc(stay, func(a, b staged) int {
		if c := a.item.want.version.Compare(b.item.want.version); c != 0 {
			return c
		}
		return strings.Compare(a.item.path, b.item.path)
	})
	return stay, nil
}

// stageFile writes one file beside its target, unless the target is the same already.
func (s *session) stageFile(i item, r io.Reader, pool *syncPool) (staged, error) {
	at := i.path
	if s.m.whole() {
		at = nextDir + "/" + i.path
		if err := s.top.makeDirs(parent(at)); err != nil {
			return staged{}, err
		}
	}
	f, temp, b, err := s.top.stage(at, i.want.mode, r)
	if err != nil {
		return staged{}, err
	}
	if s.m.whole() {
		if err := s.top.rename(at, temp); err != nil {
			return staged{}, errors.Join(err, f.Close(), s.top.discard(at, temp))
		}
		temp = at
	}
	b.version = i.want.version
	if s.inPlace(i, b) {
		_ = f.Close() // it is removed
		return staged{item: i, base: b}, s.top.discard(i.path, temp)
	}
	pool.sync(f)
	return staged{i, temp, b}, nil
}

// inPlace tells whether the file on disk is what was just staged.
func (s *session) inPlace(i item, b base) bool {
	if err := s.tree.observe(&i); err != nil || i.have.kind != regular || i.have.size != b.size || !i.have.attrs {
		return false
	}
	if i.based && i.have.same {
		return i.base.hash == b.hash
	}
	i.base, i.based = b, true
	err := s.tree.observe(&i)
	return err == nil && i.have.kind == regular && i.have.same && i.have.attrs
}

// discard removes staged files that will not be used.
func (s *session) discard(files []staged) error {
	var err error
	for _, f := range files {
		if f.temp != "" {
			err = errors.Join(err, s.top.discard(f.item.path, f.temp))
		}
	}
	return err
}
