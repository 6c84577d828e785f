// Package mirror keeps a directory equal to a prefix of a source.
//
// A Mirror is a reconciler. Whatever rings its bell (a change of the source, the start, the periodic check, a repeated
// attempt) marks paths; one goroutine then compares what is wanted (the source), what is there (the disk) and what the
// mirror did last (the base, kept in a journal), a pure function says what to do, and the rest of the package does it.
//
// Guarantees:
//   - A file has the full content of one version, with its mode and owner, from the moment it appears; it is durable
//     when a trigger hears of it.
//   - Nothing outside the root is touched, no symbolic link below it is followed.
//   - Only what the mirror wrote is ever removed: without a journal nothing is. A root that is gone, or is another
//     directory than before, halts the mirror. Too many removals at once are held.
//   - All files of one write are in place before a trigger runs for them, and a trigger runs for every change that
//     settles, also if the process is killed in between.
//
// In ModePush and ModeBoth the mirror looks at the disk as well (events, and every file at the start and the periodic
// check) and makes local changes part of the source. There, no edit is lost: what a later one replaces stays in the
// source's history.
//
// A change can be checked before it goes live and tried afterwards, see Options.Check and Options.Trial; then all that a
// pass has to do is one change, staged as a whole.
//
// A wanted path replaces whatever has its name, except a directory. What the mirror puts beside the files begins with
// ".syncagent"; a path with such a segment is reported, not mirrored.
package mirror

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"syncagent/sync/trigger"
)

// Errors that callers tell apart. They come wrapped, with what and where.
var (
	ErrHalted     = errors.New("mirror is halted")                                 // a *HaltError has the details
	ErrHeld       = errors.New("too many files would be removed at once")          // nothing was removed
	ErrIncomplete = errors.New("some paths could not be mirrored")                 // all others are in place
	ErrBusy       = errors.New("another process is mirroring into this directory") // or uses the same journal
)

// Mirror keeps one directory. Run and Once must not run at the same time; Status may be called at any time.
type Mirror struct {
	src          Source
	disk         disk
	sink         Sink          // nil in ModePull
	settle       time.Duration // a file that is younger may still be written
	grace        time.Duration // how long a version stays that is not shown any more
	o            Options
	owner, group int
	journalPath  string
	filter       filter
	trust        map[string]print  // survives sessions; owned by Run or Once
	agreed       chan struct{}     // rings when somebody confirmed the removals that are held
	rejected     map[string]string // path -> why its change was rolled back; owned by Run or Once
	refusal      refusal           // the last one; owned by Run or Once
	refusedIn    map[string]want   // what the source showed at the end of a session that left some rejected

	mu        sync.Mutex
	journal   *journal        // nil until it is open
	faults    map[string]flaw // path -> why it is not as wanted, after the last pass
	status    Status
	held      map[string]struct{} // paths whose removal is held at present
	confirmed map[string]struct{} // paths whose removal somebody agreed to
}

// State is one word about a mirror.
type State string

// The states of a mirror.
const (
	StateStarting   State = "starting"   // nothing has been compared yet
	StateSyncing    State = "syncing"    // changes are being written
	StateOK         State = "ok"         // the directory equals the prefix
	StateIncomplete State = "incomplete" // some paths cannot be mirrored
	StateHeld       State = "held"       // removals wait for somebody to agree
	StateFailing    State = "failing"    // repeated until it works: disk full, source not there
	StateHalted     State = "halted"     // the root is not what it was
)

// Status tells how a mirror is.
type Status struct {
	Prefix, Dir string
	State       State
	Files       int       // that the mirror wrote and keeps
	Pending     int       // paths that are not as wanted
	LastError   string    // why the state is not ok
	LastOutput  string    // of the check or trial that is the reason; at most 1,000 bytes
	Problems    []Problem // at most 20, in order of the paths
	LastChange  time.Time // when files last changed
	LastCheck   time.Time // when everything was last compared
}

// Problem is one path that cannot be mirrored, and why.
type Problem struct{ Path, Reason string }

// Status gives a copy.
func (m *Mirror) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	s.Problems = append([]Problem(nil), s.Problems...)
	return s
}

// Confirm agrees to the removals that are held at this moment, and to no others; Run makes them soon. It gives their
// number, 0 if none are held.
func (m *Mirror) Confirm() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.held) == 0 {
		return 0
	}
	m.confirmed = maps.Clone(m.held)
	select {
	case m.agreed <- struct{}{}:
	default:
	}
	return len(m.confirmed)
}

func (m *Mirror) setStatus(change func(*Status)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.status.State
	change(&m.status)
	if is := m.status.State; is != was && is != StateSyncing && was != StateSyncing {
		m.o.Log.Debug("mirror state", "dir", m.o.Dir, "was", string(was), "is", string(is))
	}
}

// Run mirrors until ctx ends, and returns nil then. Whatever goes wrong is told by Status and the log, and tried again.
// It runs the triggers as well.
func (m *Mirror) Run(ctx context.Context) error {
	var j *journal
	for failures := 0; j == nil; failures++ {
		var err error
		if j, err = openJournal(m.disk, m.journalPath, m.o.Log); err != nil {
			m.failed(err)
			if !pause(ctx, failures) {
				return nil
			}
		}
	}
	done := m.ran(j)
	m.restore(j)
	m.setJournal(j)
	var wg sync.WaitGroup
	if m.o.Triggers != nil {
		wg.Go(func() { _ = m.o.Triggers.Run(ctx, done) }) // it returns nil only
	}
	for failures := 0; ctx.Err() == nil; {
		synced, err := m.session(ctx, j)
		if ctx.Err() != nil {
			break
		}
		if synced {
			failures = 0
		}
		if !errors.Is(err, ErrReset) {
			m.failed(err)
		}
		failures++
		pause(ctx, failures)
	}
	wg.Wait()
	if err := j.close(); err != nil {
		m.o.Log.Warn("closing the mirror journal failed", "dir", m.o.Dir, "error", err)
	}
	return nil
}

// Once makes the directory equal to the prefix, runs the triggers that have to see it once each, and returns nil if all
// that succeeded. Errors: ErrHalted, ErrHeld, ErrIncomplete, ErrBusy, those of the source, of the disk, of triggers.
func (m *Mirror) Once(ctx context.Context) (err error) {
	j, err := openJournal(m.disk, m.journalPath, m.o.Log)
	if err != nil {
		m.note(err)
		return err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	m.restore(j)
	m.setJournal(j)
	if err = m.once(ctx, j); err != nil && !errors.Is(err, ErrIncomplete) && !errors.Is(err, ErrHeld) {
		m.note(err)
		return err
	}
	if m.o.Triggers != nil {
		err = errors.Join(err, m.o.Triggers.RunPending(ctx, m.ran(j)))
	}
	return err
}

func (m *Mirror) setJournal(j *journal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.journal = j
}

// restore tells the triggers what they had not seen when the process ended.
func (m *Mirror) restore(j *journal) {
	if m.o.Triggers == nil {
		return // the marks stay until there are triggers again
	}
	w := wanted{prefix: m.o.Prefix}
	for name, marks := range j.due() {
		var changes []trigger.Change
		var last uint64
		for path, k := range marks {
			changes = append(changes, trigger.Change{Path: w.absolute(path), Write: k.write})
			last = max(last, k.seq)
		}
		if m.o.Triggers.Has(name) {
			m.o.Triggers.Restore(name, last, changes)
		} else {
			m.ran(j)(name, last)
		}
	}
}

// ran gives the callback that notes in the journal what a trigger has seen.
func (m *Mirror) ran(j *journal) trigger.Done {
	return func(name string, seq uint64) {
		if err := j.append(line{Ran: &ran{name, seq}}); err != nil {
			m.o.Log.Warn("a finished trigger run could not be noted, it may run again after a restart", "trigger", name,
				"error", err)
		}
	}
}

// failed notes and logs why nothing can be done at present.
func (m *Mirror) failed(err error) {
	if state, news := m.note(err); news {
		m.o.Log.Warn("mirror cannot go on and tries again", "dir", m.o.Dir, "state", string(state), "error", err)
	}
}

// note makes an error the mirror's state, and tells whether it was not before.
func (m *Mirror) note(err error) (state State, news bool) {
	state = StateFailing
	if errors.Is(err, ErrHalted) {
		state = StateHalted
	}
	m.setStatus(func(s *Status) {
		news = s.State != state || s.LastError != err.Error()
		s.State, s.LastError = state, err.Error()
	})
	return state, news
}

// pause waits before the next attempt, after so many failures in a row: full jitter up to 0.2 s, doubling to 30 s. It
// returns false if ctx has ended.
func pause(ctx context.Context, failures int) bool {
	if failures == 0 {
		return ctx.Err() == nil
	}
	most := min(200*time.Millisecond<<min(failures-1, 10), 30*time.Second)
	return wait(ctx, rand.N(most)+time.Millisecond)
}

// setHeld notes which removals are held, for Confirm.
func (m *Mirror) setHeld(paths map[string]struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = maps.Clone(paths)
}

// takeConfirmed gives the removals that somebody agreed to; each agreement counts for one pass.
func (m *Mirror) takeConfirmed() map[string]struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.confirmed
	m.confirmed = nil
	return c
}
