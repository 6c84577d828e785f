package mirror

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Step is one thing that a mirror would do, or would not.
type Step struct {
	Verb   Verb
	Path   string // in the store
	Reason string // of Hold, Keep and Skip
}

// Verb says what a Step is.
type Verb string

// The verbs.
const (
	Write  Verb = "write"  // a file is made or replaced
	Remove Verb = "remove" // a file that the mirror wrote goes
	Hold   Verb = "hold"   // it would be removed, but too many would
	Keep   Verb = "keep"   // a local change stays
	Skip   Verb = "skip"   // the path cannot be mirrored
	Put    Verb = "put"    // the file becomes the source's
	Delete Verb = "delete" // the path goes in the source
)

// Preview tells what Once would do at this moment, in the order of the paths, and changes nothing, neither on disk nor
// in the journal. It may run beside a running mirror. Errors are those of the source and of the disk, and ErrHalted.
func (m *Mirror) Preview(ctx context.Context) ([]Step, error) {
	j, err := peekJournal(m.disk, m.journalPath, m.o.Log)
	if err != nil {
		return nil, err
	}
	s := m.newSession(j)
	if _, err := s.list(ctx); err != nil {
		return nil, err
	}
	top, err := peekRoot(m.disk, m.o.Dir, m.o.Prefix, j.head(), j.path)
	if err != nil {
		return nil, err
	}
	if top != nil {
		defer top.Close() //nolint:errcheck // opened for reading
	}
	s.top = newTree(top, m.owner, m.group, map[string]print{})
	s.tree = s.top
	if top != nil {
		s.root = &root{dir: m.o.Dir, disk: m.disk, r: top}
		if err := s.openLive(); err != nil {
			return nil, err
		}
		defer s.closeLive()
	}
	defer s.closeDirs()
	if err := s.scan(); err != nil {
		return nil, err
	}
	p, err := s.plan(nil)
	if err == nil {
		err = s.doubt(ctx, &p, nil)
	}
	if err != nil {
		return nil, err
	}
	return s.steps(ctx, p)
}

// steps makes steps of a plan. What is on disk already in another version's name is no step.
func (s *session) steps(ctx context.Context, p plan) ([]Step, error) {
	dressed := slices.DeleteFunc(slices.Clone(p.write), func(i item) bool { return !i.have.attrs })
	same, err := s.sameContent(ctx, dressed)
	if err != nil {
		return nil, err
	}
	agreed, err := s.sameContent(ctx, slices.Concat(p.clash, unknown(p.push)))
	if err != nil {
		return nil, err
	}
	var steps []Step
	add := func(v Verb, path, reason string) { steps = append(steps, Step{v, s.want.absolute(path), reason}) }
	for _, i := range slices.Concat(p.clear, p.remove) {
		add(Remove, i.path, "")
	}
	able, err := s.possible(p)
	if err != nil {
		return nil, err
	}
	for _, i := range able {
		if _, ok := same[i.path]; !ok {
			add(Write, i.path, "")
		}
	}
	for _, i := range slices.Concat(p.push, p.clash) {
		_, equal := agreed[i.path]
		switch {
		case equal && (!s.m.o.PreserveMode || i.have.mode == i.want.mode):
		case !i.wanted || i.based && !i.remoteChange() || s.m.o.Mode == ModePush || i.localWins():
			add(Put, i.path, "")
		default:
			add(Write, i.path, "the edit in the store is the later one")
		}
	}
	for _, i := range p.drop {
		add(Delete, i.path, "")
	}
	for _, i := range p.held {
		add(Hold, i.path, ErrHeld.Error())
	}
	for _, i := range p.kept {
		add(Keep, i.path, s.driftReason(i))
	}
	s.drifted = nil // they are steps of their own
	reasons := s.reasons()
	for _, bad := range s.problems(reasons, len(reasons)) {
		steps = append(steps, Step{Skip, bad.Path, bad.Reason})
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return strings.Compare(a.Path, b.Path) })
	return steps, nil
}

// blocked says why the item cannot be written after the files in clear are gone.
func (s *session) blocked(i item, clear map[string]struct{}) error {
	err := s.reachable(i)
	if errors.Is(err, errDirInWay) {
		for path := range clear {
			if contains(i.path, path) {
				return nil // perhaps it is empty then
			}
		}
	}
	if errors.Is(err, errFileInWay) {
		for d := parent(i.path); d != "."; d = parent(d) {
			if _, ok := clear[d]; ok {
				return nil
			}
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it will be made
	}
	return err
}

// sameContent gives the items whose file holds what is wanted.
func (s *session) sameContent(ctx context.Context, items []item) (map[string]struct{}, error) {
	byPath := map[string]item{}
	for _, i := range items {
		if i.have.kind == regular {
			byPath[s.want.absolute(i.path)] = i
		}
	}
	same := map[string]struct{}{}
	for paths := range slices.Chunk(slices.Sorted(maps.Keys(byPath)), chunkFiles) {
		err := s.m.src.Fetch(ctx, paths, func(f File, r io.Reader) error {
			i, asked := byPath[f.Path]
			if !asked {
				return nil
			}
			sum := sha256.New()
			n, err := io.Copy(sum, r)
			if err != nil {
				return s.fault(i.path, err)
			}
			i.base, i.based = base{hash: hash(sum.Sum(nil)), size: n}, true
			if err := s.tree.observe(&i); err != nil {
				return s.fault(i.path, err)
			}
			if i.have.kind == regular && i.have.same {
				same[i.path] = struct{}{}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("fetch files: %w", err)
		}
	}
	return same, nil
}

// peekJournal reads a journal without its lock, for looking only: append would fail.
func peekJournal(d disk, path string, log *slog.Logger) (*journal, error) {
	j := &journal{path: path, log: log, ledger: newLedger()}
	dir, err := d.Folder(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	defer dir.Close() //nolint:errcheck // opened for reading
	f, err := dir.Open(filepath.Base(path), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	if _, err := readLines(f, j.ledger); errors.Is(err, errDamaged) {
		j.ledger = newLedger() // it would be set aside
	} else if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	return j, nil
}

// peekRoot opens the root for looking only; nil: it would be made.
func peekRoot(d disk, dir, prefix string, head header, journal string) (folder, error) {
	halt, fresh := halting(dir, journal), head.ID == ""
	if err := checkPlace(d, dir, prefix, head, halt); err != nil {
		return nil, err
	}
	if _, err := d.Lstat(dir); fresh && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	top, err := openTop(d, dir, halt)
	if err != nil {
		return nil, err
	}
	m, err := peekMarker(top, prefix)
	switch {
	case fresh && errors.Is(err, fs.ErrNotExist):
		return top, nil
	case err != nil:
		err = markerFault(dir, err, halt)
	case !fresh && m.ID != head.ID:
		err = halt("its marker is of another mirror")
	}
	if err != nil {
		return nil, errors.Join(err, top.Close())
	}
	return top, nil
}

func peekMarker(top folder, prefix string) (m marker, err error) {
	info, err := top.Lstat(markerName)
	if err != nil {
		return m, err
	}
	if !info.Mode().IsRegular() {
		return m, fmt.Errorf("%w: no regular file", errForeign)
	}
	f, err := top.Open(markerName, os.O_RDONLY, 0)
	if err != nil {
		return m, err
	}
	defer f.Close() //nolint:errcheck // read only
	return readMarker(f, info, prefix)
}
