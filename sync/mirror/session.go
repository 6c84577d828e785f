package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"syncagent/crdtstore/record"
	"syncagent/sync/trigger"
)

const (
	// attempts is how often a pass waits for the change that tells of a version newer than wanted, before it takes it
	// as it is.
	attempts = 3
	// moveWait is how long it waits for that change.
	moveWait = 200 * time.Millisecond
	// retryMin and retryMax bound the delay after which paths that failed are tried again.
	retryMin = time.Second
	retryMax = time.Minute
)

// session is the work on one open root, from a list of the source on.
type session struct {
	m    *Mirror
	j    *journal
	root *root
	top  *tree  // of the root
	tree *tree  // of the files: the same, or that of the version shown
	live folder // the version shown; nil: none
	want *wanted

	dirty    map[string]record.Version // paths to look at, with the version that made them so, if known
	failing  map[string]string         // path -> why it is not as wanted
	moved    int                       // paths for which the source had a newer version than wanted
	held     map[string]struct{}       // paths whose removal was too much
	drifted  map[string]string         // paths whose change on one side is kept and reported -> what it is
	young    map[string]struct{}       // local files that may still be written
	rejected map[string]string         // path -> why its change was rolled back
	unlinked map[string]string         // names in the root that are no links -> why
	staged   []staged                  // in nextDir, of a change that has to wait for the source
	retired  []retiree                 // versions not shown any more, the oldest first
	full     bool                      // everything is dirty
	scanAll  bool                      // and so are all files on disk, in a mirror that pushes
	changes  []trigger.Change          // in place, triggers not told yet
}

// open lists the source, locks the root, and finishes what a crash interrupted.
func (m *Mirror) open(ctx context.Context, j *journal) (s *session, cursor string, err error) {
	s = m.newSession(j)
	// The source comes first: if it is not there, nothing is made.
	if cursor, err = s.list(ctx); err != nil {
		return nil, "", err
	}
	if s.rejected = m.rejected; !maps.Equal(m.refusedIn, s.want.files) {
		clear(s.rejected) // the source moved on while nobody watched
	}
	if s.root, err = openRoot(m.disk, m.o.Dir, m.o.Prefix, j.head(), j.path); err != nil {
		return nil, "", err
	}
	s.top = newTree(s.root.r, m.owner, m.group, m.trust)
	s.tree = s.top
	if j.head().ID == "" {
		h := header{Format: journalFormat, ID: s.root.id, Prefix: m.o.Prefix, Dir: m.o.Dir}
		err = j.append(line{Mirror: &h})
	}
	for _, step := range []func() error{
		s.openLive, s.recover, func() error { return s.concludeTrial(ctx) }, s.convert, s.findRetired,
	} {
		if err == nil {
			err = step()
		}
	}
	if err == nil {
		s.markAll() // what was finished just now is perhaps not wanted any more
		err = s.sweep()
	}
	if err != nil {
		s.notify() // of what was finished: the next session does not know
		return nil, "", errors.Join(err, s.close())
	}
	return s, cursor, nil
}

func (m *Mirror) newSession(j *journal) *session {
	return &session{
		m: m, j: j, dirty: map[string]record.Version{}, failing: map[string]string{}, held: map[string]struct{}{},
		drifted: map[string]string{}, young: map[string]struct{}{}, unlinked: map[string]string{},
	}
}

func (s *session) close() error {
	if s.m.refusedIn = nil; len(s.rejected) > 0 {
		s.m.refusedIn = s.want.files
	}
	s.closeDirs()
	s.closeLive()
	return s.root.close()
}

func (s *session) closeDirs() {
	s.top.closeDirs()
	s.tree.closeDirs()
}

// list reads the state of the source and marks every path.
func (s *session) list(ctx context.Context) (cursor string, err error) {
	s.want = newWanted(s.m.o.Prefix, s.m.o.FileMode, &s.m.filter)
	cursor, err = s.m.src.List(ctx, s.m.o.Prefix, func(f File) error {
		s.want.put(f, s.mark)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("list %s: %w", s.m.o.Prefix, err)
	}
	s.markAll()
	return cursor, nil
}

func (s *session) mark(path string) {
	if _, known := s.dirty[path]; !known {
		s.dirty[path] = record.Version{}
	}
}

// markAll marks everything that is wanted or ours.
func (s *session) markAll() {
	s.full = true
	s.scanAll = s.m.sink != nil
	for p := range s.want.files {
		s.mark(p)
	}
	s.j.eachFile(s.mark)
}

// sweep removes what crashes have left in the directories that we use.
func (s *session) sweep() error {
	defer s.top.closeDirs()
	for _, own := range []string{nextDir, prevDir} { // nothing is on trial any more
		if err := s.top.clearDir(own); err != nil {
			return fmt.Errorf("sweep %s: %w", own, err)
		}
	}
	made := s.j.dirs()
	dirs := maps.Clone(made)
	dirs["."] = struct{}{}
	if !s.m.swaps() {
		for p := range s.dirty {
			dirs[parent(p)] = struct{}{}
		}
	}
	for d := range dirs {
		_, byUs := made[d]
		if err := s.top.sweep(d, byUs); err != nil {
			if isGeneral(err) {
				return fmt.Errorf("sweep %s: %w", d, err)
			}
			s.m.o.Log.Warn("cannot look for temporary files", "dir", s.m.o.Dir, "path", d, "error", err)
		}
	}
	return nil
}

// once brings the directory to the state of the source and leaves.
func (m *Mirror) once(ctx context.Context, j *journal) (err error) {
	s, _, err := m.open(ctx, j)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for n := 0; ; n++ {
		if err := s.pass(ctx, n < attempts); err != nil {
			return err
		}
		if s.moved == 0 && len(s.young) == 0 || n == maxPasses {
			break
		}
		if len(s.young) > 0 && !wait(ctx, m.settle) {
			return ctx.Err()
		}
		if _, err := s.list(ctx); err != nil {
			return err
		}
	}
	if s.moved > 0 {
		return fmt.Errorf("mirror %s: %w: the source changes all the time", m.o.Dir, ErrIncomplete)
	}
	err = s.verdict()
	if output := s.output(); output != "" {
		err = fmt.Errorf("%w: %s", err, output)
	}
	return err
}

// session mirrors until something ends it. Synced tells that the first pass got through.
func (m *Mirror) session(ctx context.Context, j *journal) (synced bool, err error) {
	s, cursor, err := m.open(ctx, j)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	box, ended := newInbox(), make(chan error, 1)
	go func() { ended <- m.src.Watch(ctx, m.o.Prefix, cursor, box.put) }()
	defer func() {
		cancel()
		<-ended //nolint:errcheck // follow has reported it, or ctx has ended
	}()
	return s.follow(ctx, box, ended)
}

// follow passes over what is dirty, then waits for more, until the watch ends or a pass fails.
func (s *session) follow(ctx context.Context, box *inbox, ended chan error) (synced bool, err error) {
	recheck := time.NewTimer(jitter(s.m.o.Recheck))
	defer recheck.Stop()
	local := s.watchLocal()
	defer local.close()
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for moves, failures := 0, 0; ; {
		if err := s.pass(ctx, moves < attempts); err != nil {
			return synced, err
		}
		synced = true
		switch {
		case len(s.young) > 0:
			retry.Reset(max(s.m.settle, moveWait))
		case s.moved > 0:
			moves++
			retry.Reset(moveWait << min(moves-1, 5))
		case len(s.failing) > 0:
			moves, failures = 0, failures+1
			retry.Reset(jitter(min(retryMin<<min(failures-1, 10), retryMax)))
		default:
			moves, failures = 0, 0
			retry.Stop()
		}
		select {
		case <-ctx.Done():
			return synced, ctx.Err()
		case err := <-ended:
			ended <- err // for who waits for the watch's end
			if err == nil {
				err = errors.New("it ended")
			}
			return synced, fmt.Errorf("watch %s: %w", s.m.o.Prefix, err)
		case <-box.bell:
			s.take(box)
		case <-s.m.agreed:
			// the next plan looks at what was confirmed
		case <-local.bell():
			s.takeLocal(local)
		case <-retry.C:
			for p := range s.young {
				s.mark(p)
			}
			for p := range s.failing {
				s.mark(p)
			}
		case <-recheck.C:
			s.markAll()
			recheck.Reset(jitter(s.m.o.Recheck))
		}
	}
}

// take makes the changes that have come part of what is wanted.
func (s *session) take(box *inbox) {
	for p := range s.rejected { // what failed may work with the change that has come
		delete(s.rejected, p)
		s.mark(p)
	}
	for p, why := range s.failing {
		if why == s.m.refusal.why { // the same of what a check refused
			s.mark(p)
		}
	}
	for _, c := range box.take() {
		dirty := func(path string) { s.dirty[path] = c.Version }
		if c.Deleted {
			s.want.remove(c.Path, dirty)
		} else {
			s.want.put(c.File, dirty)
		}
	}
}

// pass compares and repairs what is dirty. With strict it leaves alone what the source has in a newer version than
// wanted: the change that tells of it, and of what belongs to it, is on its way. Errors end the session.
func (s *session) pass(ctx context.Context, strict bool) (err error) {
	s.moved = 0
	clear(s.young)
	defer s.closeDirs()
	defer s.notify()
	if err := errors.Join(s.root.check(), s.checkLive()); err != nil {
		return err
	}
	if err := s.scan(); err != nil {
		return err
	}
	all := len(s.dirty)
	s.m.setStatus(func(st *Status) {
		st.Pending = all
		if st.State == StateOK && all > 0 {
			st.State = StateSyncing
		}
	})
	confirmed := s.m.takeConfirmed()
	p, err := s.plan(confirmed)
	if err == nil {
		err = s.doubt(ctx, &p, confirmed)
	}
	if err != nil {
		return err
	}
	for _, path := range p.fine {
		delete(s.dirty, path)
	}
	for _, i := range p.held {
		delete(s.dirty, i.path)
		s.held[i.path] = struct{}{}
	}
	for _, i := range p.kept {
		delete(s.dirty, i.path)
		if s.m.o.Drift == DriftReport {
			s.drifted[i.path] = s.driftReason(i)
		}
	}
	if s.m.sink != nil {
		if err := s.exchange(ctx, &p); err != nil {
			return err
		}
	}
	if err := s.apply(ctx, p, strict); err != nil {
		return err
	}
	s.dropRetired()
	s.full = false
	s.report()
	return nil
}

// plan looks at every dirty path. Those that cannot be looked at are failing.
func (s *session) plan(confirmed map[string]struct{}) (plan, error) {
	for p := range confirmed {
		s.mark(p)
	}
	paths := slices.Sorted(maps.Keys(s.dirty)) // neighbours share open directories
	var general error
	var none []string
	p := makePlan(func(yield func(item) bool) {
		for _, path := range paths {
			i := item{path: path, changed: s.dirty[path]}
			i.want, i.wanted = s.want.at(path)
			i.base, i.based = s.j.at(path)
			delete(s.failing, path)
			delete(s.held, path)
			delete(s.drifted, path)
			if why, no := s.rejected[path]; no {
				delete(s.dirty, path)
				s.failing[path] = why
				continue
			}
			i.ignored = !s.m.filter.takes(path)
			if !i.wanted && !i.based && (s.m.sink == nil || i.ignored) {
				none = append(none, path)
				delete(s.dirty, path)
				continue
			}
			if err := s.tree.observe(&i); err != nil {
				if general = s.fault(path, err); general != nil {
					return
				}
				continue
			}
			if !yield(i) {
				return
			}
		}
	}, rules{
		mode: s.m.o.Mode, preserve: s.m.o.PreserveMode, drift: s.m.o.Drift, owned: s.j.files(), share: s.m.o.MaxDelete, confirmed: confirmed,
	})
	p.none = none
	return p, general
}

// fault notes that something is wrong with a path, and gives the error back if it is not the path's own.
func (s *session) fault(path string, err error) error {
	if isGeneral(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("mirror %s: %w", s.want.absolute(path), err)
	}
	reason := err
	var at *fs.PathError
	if errors.As(err, &at) {
		reason = fmt.Errorf("%s: %w", at.Op, at.Err)
	}
	delete(s.dirty, path)
	s.failing[path] = reason.Error()
	return nil
}

// notify tells the triggers what is in place.
func (s *session) notify() {
	if len(s.changes) == 0 {
		return
	}
	if s.m.o.Triggers != nil {
		s.m.o.Triggers.Notify(s.j.nextSeq()-1, s.changes)
	}
	s.changes = nil
}

// jitter keeps mirrors from doing their checks all at once.
func jitter(d time.Duration) time.Duration { return d - d/8 + rand.N(d/4+1) }
