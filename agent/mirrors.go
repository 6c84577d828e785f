package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
	"syncagent/sync/mirror"
	"syncagent/sync/trigger"
)

// mirrorWatchInterval is how often the state of the mirrors is looked at for alarms.
const mirrorWatchInterval = time.Second

// mirrors are the mirrors of the configuration.
type mirrors struct {
	list     []*configMirror
	alarms   *Alarms
	caughtUp <-chan struct{} // closed when it is known what others wrote while the agent was down
}

type configMirror struct {
	title, mode string
	*mirror.Mirror
	triggers *trigger.Runner // nil: none
	faulty   string          // what is wrong with files in triggers_dir; empty: nothing
	paused   bool            // it does not run
}

// newMirrors makes the mirrors of a configuration; nothing is touched before run. A faulty trigger file is an alarm and
// holds up neither the other triggers nor the files.
func newMirrors(c *Config, s store, alarms *Alarms, caughtUp <-chan struct{}, log *slog.Logger) (*mirrors, error) {
	m := &mirrors{alarms: alarms, caughtUp: caughtUp}
	roots, taken := []string{}, c.OwnFiles()
	var configured []trigger.Spec
	for i := range c.Triggers {
		spec, err := c.Triggers[i].spec()
		if err != nil {
			return nil, &Error{Code: CodeBadConfig, Message: fmt.Sprintf("triggers[%d]: %v", i, err), Err: err}
		}
		configured = append(configured, spec)
	}
	for i := range c.Mirrors {
		mc := &c.Mirrors[i]
		roots = append(roots, mc.Dir)
		if mc.TriggersDir != "" {
			taken = append(taken, mc.TriggersDir)
		}
		one, err := newMirror(mc, c, configured, s, log)
		if err != nil {
			return nil, &Error{Code: CodeBadConfig, Message: fmt.Sprintf("mirrors[%d]: %v", i, err), Err: err}
		}
		m.list = append(m.list, one)
	}
	if err := mirror.CheckDirs(roots, taken); err != nil && len(roots) > 0 {
		return nil, &Error{Code: CodeBadConfig, Message: err.Error(), Err: err, Hint: "give every mirror a directory of its own"}
	}
	return m, nil
}

func newMirror(mc *MirrorConfig, c *Config, configured []trigger.Spec, s store, log *slog.Logger) (*configMirror, error) {
	log = log.With("mirror", mc.title())
	one := &configMirror{title: mc.title(), mode: mc.Mode, paused: mc.Paused}
	prefix, err := record.CleanPrefix(mc.Prefix)
	if err != nil {
		return nil, err
	}
	specs := specsFor(mc, prefix, configured)
	if mc.TriggersDir != "" {
		fromFiles, err := trigger.Load(mc.TriggersDir)
		if err != nil {
			one.faulty = err.Error()
		}
		specs = append(specs, fromFiles...)
	}
	if len(specs) > 0 {
		one.triggers = trigger.New(trigger.Options{
			Specs: specs, Prefix: prefix, Dir: mc.Dir, Log: log,
			DebounceMin: time.Duration(mc.Debounce.Min), DebounceMax: time.Duration(mc.Debounce.Max),
		})
	}
	o := mirror.Options{
		Prefix: mc.Prefix, Dir: mc.Dir, StateDir: filepath.Join(c.DataDir, "mirrors"),
		FileMode: fs.FileMode(mc.FileMode), Owner: mc.Owner, Group: mc.Group, Include: mc.Include, Exclude: mc.Exclude,
		Drift: mirror.Drift(mc.Drift), MaxDelete: float64(mc.MaxDelete), Check: mc.Check, Timeout: time.Duration(mc.Timeout),
		Mode: mirror.Mode(mc.Mode), Swap: mirror.Swap(mc.Swap), PreserveMode: mc.PreserveMode, Triggers: one.triggers, Log: log,
	}
	if mc.ConflictCopy {
		o.ConflictCopy = c.AgentName()
	}
	if mc.Rollback {
		o.Trial = mc.OnChange
	}
	source := storeSource{store: s}
	if source.network, _, err = c.pins(); err != nil {
		return nil, err
	}
	one.Mirror, err = mirror.New(source, o)
	return one, err
}

// CheckTriggerFiles tells which files in the directories of triggers would be left out.
func (c *Config) CheckTriggerFiles() error {
	var k check
	for i := range c.Mirrors {
		if dir := c.Mirrors[i].TriggersDir; dir != "" {
			if _, err := trigger.Load(dir); err != nil {
				for fault := range strings.SplitSeq(err.Error(), "\n") {
					k.add(fmt.Sprintf("mirrors[%d].triggers_dir", i), "%s", fault)
				}
			}
		}
	}
	return faultsError(c.File, k.faults)
}

// specsFor gives the triggers of the configuration that changes of a mirror concern. Their names hold a slash, which no
// name of a file does.
func specsFor(mc *MirrorConfig, prefix string, configured []trigger.Spec) (specs []trigger.Spec) {
	if len(mc.OnChange) > 0 && !mc.Rollback { // with rollback it is the mirror's own to run
		specs = append(specs, trigger.Spec{
			Name: "mirror/on_change", Path: prefix, Args: mc.OnChange, Timeout: orDefault(mc.Timeout, trigger.DefaultTimeout),
		})
	}
	for _, s := range configured {
		if meets(prefix, s.Path) {
			specs = append(specs, s)
		}
	}
	return specs
}

// run keeps all mirrors until ctx ends.
func (m *mirrors) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, one := range m.list {
		if !one.paused {
			group.Go(func() error {
				if one.mode == string(mirror.ModeBoth) { // an edit from before may be older than what others wrote
					select {
					case <-m.caughtUp:
					case <-ctx.Done():
					}
				}
				return one.Run(ctx)
			})
		}
	}
	if len(m.list) > 0 {
		group.Go(func() error { return m.watch(ctx) })
	}
	return group.Wait()
}

// statePaused is the state of a mirror that the configuration keeps from running.
const statePaused = mirror.State("paused")

// alarmingStates are those that have an alarm.
var alarmingStates = []mirror.State{mirror.StateHalted, mirror.StateHeld, mirror.StateIncomplete, mirror.StateFailing, statePaused}

// Status is that of the mirror.
func (one *configMirror) Status() mirror.Status {
	s := one.Mirror.Status()
	if one.paused {
		s.State, s.LastError = statePaused, "its configuration says so: files do not follow, and no command runs"
	}
	return s
}

// watch raises and clears alarms as the states of the mirrors change.
func (m *mirrors) watch(ctx context.Context) error {
	ticker := time.NewTicker(mirrorWatchInterval)
	defer ticker.Stop()
	for {
		for _, one := range m.list {
			s := one.Status()
			for _, bad := range alarmingStates {
				if s.State == bad {
					m.alarms.Raise("mirror-"+string(bad), one.title, s.LastError)
				} else if s.State != mirror.StateSyncing { // which says nothing yet
					m.alarms.Clear("mirror-"+string(bad), one.title)
				}
			}
			m.alarms.set("trigger-files", one.title, one.faulty)
			one.watchTriggers(m.alarms)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// watchTriggers raises an alarm for every command whose last run by a trigger failed.
func (one *configMirror) watchTriggers(alarms *Alarms) {
	if one.triggers == nil {
		return
	}
	why := map[string]string{} // of each command; several triggers may run it
	for _, t := range one.triggers.Status() {
		why[t.Command] = cmp.Or(t.LastError, why[t.Command])
	}
	for command, failed := range why {
		alarms.set("trigger-failed", one.title+": "+command, failed)
	}
}

// Confirm implements mirrorState.
func (m *mirrors) Confirm(title string) (removals int, err error) {
	var titles []string
	for _, one := range m.list {
		if one.title != title {
			titles = append(titles, one.title)
			continue
		}
		if removals = one.Mirror.Confirm(); removals == 0 {
			return 0, &Error{Code: CodePrecondition, Message: "mirror " + title + " holds no removals"}
		}
		return removals, nil
	}
	e := &Error{Code: CodeNotFound, Message: fmt.Sprintf("no mirror %q in the configuration of this agent", title)}
	if len(titles) > 0 {
		e.Hint = "its mirrors are " + strings.Join(titles, ", ")
	}
	return 0, e
}

// Status implements mirrorState.
func (m *mirrors) Status() (list []*apiv1.Mirror, triggers []*apiv1.Trigger) {
	for _, one := range m.list {
		s := one.Status()
		list = append(list, &apiv1.Mirror{
			Name: one.title, Prefix: s.Prefix, Dir: s.Dir, Mode: one.mode, State: string(s.State),
			Files: int64(s.Files), Pending: int64(s.Pending), LastError: s.LastError, LastOutput: s.LastOutput,
		})
		if one.triggers == nil {
			continue
		}
		for _, t := range one.triggers.Status() {
			out := &apiv1.Trigger{
				Path: t.Path, Command: t.Command, Runs: int64(t.Runs), Pending: t.Pending, LastOutput: string(bytes.ToValidUTF8(t.LastOutput, []byte("?"))),
			}
			if t.Runs > 0 {
				exit := int32(t.LastExit)
				out.LastExit = &exit
			}
			triggers = append(triggers, out)
		}
	}
	return list, triggers
}

// storeSource lets mirrors read the agent's own store.
type storeSource struct {
	store
	network record.NetworkID
}

// List implements mirror.Source.
func (s storeSource) List(ctx context.Context, prefix string, fn func(mirror.File) error) (string, error) {
	snap, err := s.Snapshot()
	if err != nil {
		return "", err
	}
	defer snap.Close()
	err = snap.List(prefix, false, func(i crdtstore.Item) error {
		if record.Reserved(i.Path) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(fileOf(&i))
	})
	return snap.Cursor(), err
}

// Fetch implements mirror.Source.
func (s storeSource) Fetch(ctx context.Context, paths []string, fn func(mirror.File, io.Reader) error) error {
	snap, err := s.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return err
		}
		item, err := snap.Get(path, true)
		var content io.ReadCloser
		switch {
		case errors.Is(err, crdtstore.ErrNotFound):
			continue
		case err != nil:
			item.Path, content = path, failedReader{err}
		default:
			content = s.Content(&item)
		}
		err = fn(fileOf(&item), content)
		_ = content.Close() // it is only read
		if err != nil {
			return err
		}
	}
	return nil
}

// Unknown implements mirror.Source.
func (s storeSource) Unknown(ctx context.Context, versions map[string]record.Version) (map[string]struct{}, error) {
	snap, err := s.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	unknown := map[string]struct{}{}
	for path, v := range versions {
		known, _, err := knows(snap, s.network, path, v)
		if err != nil {
			return nil, err
		}
		if !known {
			unknown[path] = struct{}{}
		}
	}
	return unknown, ctx.Err()
}

// failedReader reports what is wrong with one path to whoever reads it.
type failedReader struct{ err error }

func (r failedReader) Read([]byte) (int, error) { return 0, r.err }
func (failedReader) Close() error               { return nil }

// Watch implements mirror.Source.
func (s storeSource) Watch(ctx context.Context, prefix, cursor string, fn func(mirror.Change) error) error {
	o := watchOptions{prefixes: []string{prefix}, since: cursor, durable: true} // no file is ahead of its store
	err := s.store.Watch(ctx, o, func(e crdtstore.Event) error {
		switch e.Type {
		case crdtstore.EventReset:
			return mirror.ErrReset
		case crdtstore.EventPut, crdtstore.EventDelete:
			return fn(mirror.Change{File: fileOf(&e.Item), Deleted: e.Type == crdtstore.EventDelete, More: e.More})
		}
		return nil // synced, policy: what they change comes as events of its own
	})
	if errors.Is(err, crdtstore.ErrBadCursor) {
		return fmt.Errorf("%w: %w", mirror.ErrReset, err)
	}
	return err
}

func fileOf(i *crdtstore.Item) mirror.File {
	return mirror.File{Path: i.Path, Version: i.Version, Mode: i.Mode, Size: i.Size, Expires: i.Expires}
}
