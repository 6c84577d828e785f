package mirror

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"syncagent/crdtstore/record"
	"syncagent/sync/trigger"
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
	Swap  Swap // empty means SwapFiles; SwapDirectory is for ModePull only
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
	m := &Mirror{
		src: src, disk: osDisk{}, o: withDefaults(o), trust: map[string]print{}, agreed: make(chan struct{}, 1),
		settle: settleTime, grace: versionGrace, rejected: map[string]string{},
	}
	if m.filter, err = newFilter(o.Include, o.Exclude); err != nil {
		return nil, fmt.Errorf("mirror %s: %w", o.Dir, err)
	}
	if err := m.o.check(); err != nil {
		return nil, fmt.Errorf("mirror %s: %w", o.Dir, err)
	}
	if m.o.Mode != ModePull {
		var ok bool
		if m.sink, ok = src.(Sink); !ok {
			return nil, fmt.Errorf("mirror %s: mode %s: the source cannot be written", o.Dir, m.o.Mode)
		}
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
	if o.Swap == "" {
		o.Swap = SwapFiles
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

// check finds words that mean nothing, and options that do not go together.
func (o *Options) check() error {
	switch o.Mode {
	case ModePull, ModePush, ModeBoth:
	default:
		return fmt.Errorf("mode %q: want %s, %s or %s", o.Mode, ModePull, ModePush, ModeBoth)
	}
	switch o.Swap {
	case SwapFiles, SwapDirectory:
	default:
		return fmt.Errorf("swap %q: want %s or %s", o.Swap, SwapFiles, SwapDirectory)
	}
	switch o.Drift {
	case DriftRestore, DriftKeep, DriftReport:
	default:
		return fmt.Errorf("drift %q: want %s, %s or %s", o.Drift, DriftRestore, DriftKeep, DriftReport)
	}
	switch {
	case o.Mode == ModePush && len(o.Check)+len(o.Trial) > 0:
		return fmt.Errorf("mode %s: no file changes that could be checked", o.Mode)
	case o.Swap == SwapDirectory && o.Mode != ModePull:
		return fmt.Errorf("swap %s: only with mode %s: what is switched as a whole is not edited file by file", o.Swap, ModePull)
	}
	return nil
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
