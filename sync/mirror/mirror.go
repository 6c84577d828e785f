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
// A wanted path replaces whatever has its name, except a directory. What the mirror puts beside the files begins with
// ".syncagent"; a path with such a segment is reported, not mirrored.
package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"syncagent/crdtstore/record"
	"syncagent/sync/trigger"
)

// Errors that callers tell apart. They come wrapped, with what and where.
var (
	ErrHalted     = errors.New("mirror is halted")                                 // a *HaltError has the details
	ErrHeld       = errors.New("too many files would be removed at once")          // nothing was removed
	ErrIncomplete = errors.New("some paths could not be mirrored")                 // all others are in place
	ErrBusy       = errors.New("another process is mirroring into this directory") // or uses the same journal
)

// Options of a Mirror. Prefix, Dir and StateDir are needed.
type Options struct {
	Prefix   string        // of the source; not part of the files' names
	Dir      string        // the root; made if it is missing and no journal says otherwise
	StateDir string        // where journals are kept, outside of any mirror
	FileMode fs.FileMode   // of files whose entry has none; 0 means 0644
	Owner    string        // user name or number; empty: the process's own
	Group    string        // group name or number; empty: the process's own
	Recheck  time.Duration // every so often everything is compared; 0 means 60 s
	// MaxDelete is the part of the mirror's files that may be removed at once, up to 20 may always be. 0 means 0.5, from
	// 1 on nothing is held.
	MaxDelete float64
	// Include and Exclude choose paths by patterns, see CheckPattern. What is left out is neither written nor removed.
	Include, Exclude []string
	// Drift says what becomes of local changes in ModePull, and of changes by others in ModePush. Empty means DriftRestore
	// in the first and DriftReport in the second.
	Drift Drift
	Mode  Mode // empty means ModePull; for others the source must be a Sink
	// PreserveMode makes the permission bits of files part of what is put.
	PreserveMode bool
	// ConflictCopy is, if not empty, what this host calls itself: in ModeBoth a local edit that loses is put beside its
	// path, under a name with it and the time, and not only kept in the history.
	ConflictCopy string
	// Check is a program and its arguments that looks at changes before they go live, in a directory of its own that
	// holds all files as they would be. If it fails the old files stay, and it is tried again later.
	Check []string
	// Trial is a program and its arguments that runs after a change went live. If it fails the files before the change
	// come back, it runs once more for them, and the change is not tried again before the source or the process changes.
	Trial    []string
	Timeout  time.Duration   // of Check and Trial; 0 means 30 s
	Triggers *trigger.Runner // may be nil; the mirror runs it
	Log      *slog.Logger
}

// Drift says what a mirror does about a file of its own that somebody changed or removed on this host.
type Drift string

// The kinds of Drift. A local change that is kept lasts until the store shows another version of the path.
const (
	DriftRestore Drift = "restore" // undo it
	DriftKeep    Drift = "keep"    // leave it
	DriftReport  Drift = "report"  // leave it and name the path among the problems
)

// Mirror keeps one directory. Run and Once must not run at the same time; Status may be called at any time.
type Mirror struct {
	src          Source
	sink         Sink          // nil in ModePull
	settle       time.Duration // a file that is younger may still be written
	o            Options
	owner, group int
	journalPath  string
	filter       filter
	trust        map[string]print  // survives sessions; owned by Run or Once
	agreed       chan struct{}     // rings when somebody confirmed the removals that are held
	rejected     map[string]string // path -> why its change was rolled back; owned by Run or Once

	mu        sync.Mutex
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
	Problems    []Problem // at most 20, in order of the paths
	LastChange  time.Time // when files last changed
	LastCheck   time.Time // when everything was last compared
}

// Problem is one path that cannot be mirrored, and why.
type Problem struct{ Path, Reason string }

// New makes a mirror. It touches nothing yet; errors are faults of the options.
func New(src Source, o Options) (*Mirror, error) {
	prefix, err := record.CleanPrefix(o.Prefix)
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	o.Prefix = prefix
	if o.Dir == "" || o.StateDir == "" {
		return nil, errors.New("mirror: directory and state directory are needed")
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	if o.FileMode&^fs.ModePerm != 0 {
		return nil, fmt.Errorf("mirror %s: file mode %04o is not within 0777", o.Dir, o.FileMode)
	}
	if o.MaxDelete < 0 {
		return nil, fmt.Errorf("mirror %s: max_delete is negative", o.Dir)
	}
	m := &Mirror{src: src, o: withDefaults(o), trust: map[string]print{}, agreed: make(chan struct{}, 1), settle: settleTime, rejected: map[string]string{}}
	if m.filter, err = newFilter(o.Include, o.Exclude); err != nil {
		return nil, fmt.Errorf("mirror %s: %w", o.Dir, err)
	}
	switch m.o.Mode {
	case ModePull:
	case ModePush, ModeBoth:
		var ok bool
		if m.sink, ok = src.(Sink); !ok {
			return nil, fmt.Errorf("mirror %s: mode %s: the source cannot be written", o.Dir, m.o.Mode)
		}
		if m.o.Mode == ModePush && m.guarded() {
			return nil, fmt.Errorf("mirror %s: mode %s: no file changes that could be checked", o.Dir, m.o.Mode)
		}
	default:
		return nil, fmt.Errorf("mirror %s: mode %q: want %s, %s or %s", o.Dir, m.o.Mode, ModePull, ModePush, ModeBoth)
	}
	switch m.o.Drift {
	case DriftRestore, DriftKeep, DriftReport:
	default:
		return nil, fmt.Errorf("mirror %s: drift %q: want %s, %s or %s", o.Dir, o.Drift, DriftRestore, DriftKeep, DriftReport)
	}
	if m.owner, err = lookup(o.Owner, userID); err != nil {
		return nil, fmt.Errorf("mirror %s: owner: %w", o.Dir, err)
	}
	if m.group, err = lookup(o.Group, groupID); err != nil {
		return nil, fmt.Errorf("mirror %s: group: %w", o.Dir, err)
	}
	sum := sha256.Sum256([]byte(o.Dir))
	m.journalPath = filepath.Join(o.StateDir, filepath.Base(o.Dir)+"-"+hex.EncodeToString(sum[:6])+".journal")
	m.status = Status{Prefix: o.Prefix, Dir: o.Dir, State: StateStarting}
	return m, nil
}

func withDefaults(o Options) Options {
	if o.FileMode == 0 {
		o.FileMode = 0o644
	}
	if o.Recheck <= 0 {
		o.Recheck = time.Minute
	}
	if o.MaxDelete == 0 {
		o.MaxDelete = 0.5
	}
	if o.Timeout <= 0 {
		o.Timeout = trigger.DefaultTimeout
	}
	if o.Mode == "" {
		o.Mode = ModePull
	}
	if o.Drift == "" && o.Mode == ModePush {
		o.Drift = DriftReport
	}
	if o.Drift == "" {
		o.Drift = DriftRestore
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// lookup resolves a name or number; -1 stands for none.
func lookup(s string, byName func(string) (string, error)) (int, error) {
	if s == "" {
		return -1, nil
	}
	if id, err := strconv.ParseUint(s, 10, 31); err == nil {
		return int(id), nil
	}
	id, err := byName(s)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(id)
}

func userID(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func groupID(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}

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
		if j, err = openJournal(m.journalPath, m.o.Log); err != nil {
			m.failed(err)
			if !pause(ctx, failures) {
				return nil
			}
		}
	}
	done := m.ran(j)
	m.restore(j)
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
	j, err := openJournal(m.journalPath, m.o.Log)
	if err != nil {
		m.failed(err)
		return err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	m.restore(j)
	if err = m.once(ctx, j); err != nil && !errors.Is(err, ErrIncomplete) && !errors.Is(err, ErrHeld) {
		m.failed(err)
		return err
	}
	if m.o.Triggers != nil {
		err = errors.Join(err, m.o.Triggers.RunPending(ctx, m.ran(j)))
	}
	return err
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

// failed notes why nothing can be done at present.
func (m *Mirror) failed(err error) {
	state := StateFailing
	if errors.Is(err, ErrHalted) {
		state = StateHalted
	}
	repeated := false
	m.setStatus(func(s *Status) {
		repeated = s.State == state && s.LastError == err.Error()
		s.State, s.LastError = state, err.Error()
	})
	if !repeated {
		m.o.Log.Warn("mirror cannot go on and tries again", "dir", m.o.Dir, "state", string(state), "error", err)
	}
}

// pause waits before the next attempt, after so many failures in a row: full jitter up to 0.2 s, doubling to 30 s. It
// returns false if ctx has ended.
func pause(ctx context.Context, failures int) bool {
	if failures == 0 {
		return ctx.Err() == nil
	}
	most := min(200*time.Millisecond<<min(failures-1, 10), 30*time.Second)
	t := time.NewTimer(rand.N(most) + time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
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
