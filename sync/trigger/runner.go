package trigger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// Change is one path that changed on disk.
type Change struct {
	Path  string // in the store
	Write string // version of the write that changed it; empty if unknown
}

// Options of a Runner. Zero durations mean the defaults.
type Options struct {
	Specs  []Spec
	Prefix string // of the mirror, for SYNCAGENT_PREFIX
	Dir    string // of the mirror, for SYNCAGENT_DIR
	// A command starts when nothing changed for DebounceMin (100 ms), but at the latest DebounceMax (2 s) after the
	// first change that it has not seen.
	DebounceMin, DebounceMax time.Duration
	// A failed run is repeated after RetryMin (1 s), then twice as long each time up to RetryMax (5 min).
	RetryMin, RetryMax time.Duration
	Log                *slog.Logger
}

// maxParallel bounds the commands of one Runner that run at the same time.
const maxParallel = 8

// Runner runs the triggers of one mirror. Its methods are safe for concurrent use.
type Runner struct {
	o        Options
	triggers []*state
	slots    chan struct{}
}

// Done is called after a run of the named trigger succeeded that saw all changes up to seq.
type Done func(name string, seq uint64)

// Status tells about one trigger.
type Status struct {
	Name, Path, Command string
	Runs                int  // finished runs since the start
	LastExit            int  // exit code of the last run; -1 if it was killed or could not be started
	Pending             bool // changes wait for a run, or for the end of one
	LastError           string
	LastOutput          []byte // at most 64 KiB
	LastRun             time.Time
	LastTook            time.Duration
}

// New makes a Runner for the given specs, whose names must be distinct.
func New(o Options) *Runner {
	setDefault := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	setDefault(&o.DebounceMin, 100*time.Millisecond)
	setDefault(&o.DebounceMax, 2*time.Second)
	setDefault(&o.RetryMin, time.Second)
	setDefault(&o.RetryMax, 5*time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Runner{o: o, slots: make(chan struct{}, maxParallel)}
	for _, s := range o.Specs {
		r.triggers = append(r.triggers, &state{
			spec: s, bell: make(chan struct{}, 1), waiting: batch{paths: map[string]string{}},
			status: Status{Name: s.Name, Path: s.Path, Command: s.title()},
		})
	}
	return r
}

// Covering gives the names of the triggers whose path covers the changed path.
func (r *Runner) Covering(path string) []string {
	var names []string
	for _, t := range r.triggers {
		if record.Covers(t.spec.Path, path) {
			names = append(names, t.spec.Name)
		}
	}
	return names
}

// Has tells whether there is a trigger of this name.
func (r *Runner) Has(name string) bool {
	for _, t := range r.triggers {
		if t.spec.Name == name {
			return true
		}
	}
	return false
}

// Notify tells of changes that are in place. Seq grows from call to call. Every covering trigger will run for them.
// It does not block.
func (r *Runner) Notify(seq uint64, changes []Change) {
	now := time.Now()
	for _, t := range r.triggers {
		t.add(now, seq, changes)
	}
}

// Restore tells one trigger of changes that no finished run has seen before the last stop. Others do not hear of it.
func (r *Runner) Restore(name string, seq uint64, changes []Change) {
	for _, t := range r.triggers {
		if t.spec.Name == name {
			t.add(time.Now(), seq, changes)
		}
	}
}

// Run runs commands as changes come, until ctx ends. It then kills what still runs, waits for it and returns nil.
func (r *Runner) Run(ctx context.Context, done Done) error {
	var wg sync.WaitGroup
	for _, t := range r.triggers {
		wg.Go(func() { r.loop(ctx, t, done) })
	}
	wg.Wait()
	return nil
}

// RunPending runs every trigger that has changes waiting once, without delay, one after the other, and returns the
// joined errors of those that failed. Their changes stay waiting.
func (r *Runner) RunPending(ctx context.Context, done Done) error {
	var faults []error
	for _, t := range r.triggers {
		if !t.pending() {
			continue
		}
		if err := r.runOnce(ctx, t, done, false); err != nil {
			faults = append(faults, fmt.Errorf("trigger %s: %w", t.spec.Name, err))
		}
	}
	return errors.Join(faults...)
}

// Status tells about all triggers, in the order of the specs.
func (r *Runner) Status() []Status {
	out := make([]Status, len(r.triggers))
	for i, t := range r.triggers {
		t.mu.Lock()
		out[i] = t.status
		out[i].Pending = len(t.waiting.paths) > 0 || t.running
		t.mu.Unlock()
	}
	return out
}

// Failed tells why the last run of a trigger that saw this change of a path, or a later one, failed; empty if none did.
func (r *Runner) Failed(c Change) string {
	for _, t := range r.triggers {
		t.mu.Lock()
		write, seen := t.failed[c.Path]
		why := t.status.LastError
		t.mu.Unlock()
		if seen && write >= c.Write {
			return fmt.Sprintf("trigger %q: %s", t.spec.Name, why)
		}
	}
	return ""
}

func (r *Runner) loop(ctx context.Context, t *state, done Done) {
	failures, notBefore := 0, time.Time{}
	minimum, maximum := r.debounce(t.spec)
	for ctx.Err() == nil {
		at, ok := t.due(minimum, maximum)
		if at.Before(notBefore) {
			at = notBefore
		}
		if wait := time.Until(at); !ok || wait > 0 {
			t.sleep(ctx, ok, wait)
			continue // what came meanwhile may have moved the time
		}
		failures++
		final := failures == t.spec.Attempts
		if r.runOnce(ctx, t, done, final) == nil || final {
			failures = 0
		}
		notBefore = time.Now().Add(backoff(failures, r.o.RetryMin, r.o.RetryMax))
	}
}

// debounce gives the settle window of a trigger.
func (r *Runner) debounce(s Spec) (minimum, maximum time.Duration) {
	minimum, maximum = r.o.DebounceMin, r.o.DebounceMax
	if s.DebounceMin > 0 {
		minimum = s.DebounceMin
	}
	if s.DebounceMax > 0 {
		maximum = s.DebounceMax
	}
	return minimum, max(minimum, maximum)
}

// runOnce runs the command for everything that waits. If it is the final attempt, that counts as seen even when it fails.
func (r *Runner) runOnce(ctx context.Context, t *state, done Done, final bool) error {
	if !t.spec.Turn.take(ctx) {
		return ctx.Err()
	}
	defer t.spec.Turn.giveBack()
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	b := t.take()
	res := t.spec.command().Run(ctx, b.stdin(t.spec.Null),
		"SYNCAGENT_PREFIX="+r.o.Prefix, "SYNCAGENT_DIR="+r.o.Dir,
		"SYNCAGENT_CHANGED="+strconv.Itoa(len(b.paths)), "SYNCAGENT_WRITE="+b.writes())
	final = final && ctx.Err() == nil // a run that the stop cut off was no attempt
	fault.Point("trigger.ran")
	t.finish(b, res, final || fault.Planted("no-retry"))
	if res.Err != nil {
		r.o.Log.Warn("trigger failed", "trigger", t.spec.Name, "exit", res.Exit, "error", res.Err, "took", res.Took,
			"gives_up", final)
	} else {
		r.o.Log.Info("trigger ran", "trigger", t.spec.Name, "changed", len(b.paths), "took", res.Took)
	}
	if done != nil && (res.Err == nil || final) {
		done(t.spec.Name, b.seq)
		fault.Point("trigger.noted")
	}
	return res.Err
}

// runAt is the time to start a command whose unseen changes came between first and last.
func runAt(first, last time.Time, minimum, maximum time.Duration) time.Time {
	quiet, latest := last.Add(minimum), first.Add(maximum)
	if latest.Before(quiet) {
		return latest
	}
	return quiet
}

// backoff is the delay before the next attempt after so many failures in a row, with up to a quarter of jitter off it.
func backoff(failures int, minimum, maximum time.Duration) time.Duration {
	if failures == 0 {
		return 0
	}
	d := min(minimum<<min(failures-1, 20), maximum)
	return d - rand.N(d/4+1)
}

// state is one trigger and what it has not seen yet.
type state struct {
	spec Spec
	bell chan struct{} // rings when something was added

	mu          sync.Mutex
	waiting     batch
	first, last time.Time // of the changes that wait
	running     bool
	failed      map[string]string // path -> write: what the last run was for, if it failed
	status      Status
}

func (t *state) add(now time.Time, seq uint64, changes []Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := len(t.waiting.paths)
	hit := false
	for _, c := range changes {
		if record.Covers(t.spec.Path, c.Path) {
			t.waiting.paths[c.Path] = c.Write
			hit = true
		}
	}
	if !hit {
		return
	}
	if before == 0 {
		t.first = now
	}
	t.last = now
	t.waiting.seq = max(t.waiting.seq, seq)
	select {
	case t.bell <- struct{}{}:
	default:
	}
}

func (t *state) pending() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting.paths) > 0
}

// due says when the command is to start; false if there is nothing to run for.
func (t *state) due(minimum, maximum time.Duration) (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return runAt(t.first, t.last, minimum, maximum), len(t.waiting.paths) > 0
}

// sleep waits for the bell or the end of ctx, and if timed for at most wait.
func (t *state) sleep(ctx context.Context, timed bool, wait time.Duration) {
	var alarm <-chan time.Time
	if timed {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-ctx.Done():
	case <-t.bell:
	case <-alarm:
	}
}

func (t *state) take() batch {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.waiting
	t.waiting = batch{paths: map[string]string{}}
	t.running = true
	return b
}

// finish notes the outcome; after a failure that is not final the changes wait again, together with what came meanwhile.
func (t *state) finish(b batch, res Result, final bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.running = false
	t.status.Runs++
	t.status.LastExit, t.status.LastOutput = res.Exit, res.Output
	t.status.LastRun, t.status.LastTook = now.Add(-res.Took), res.Took
	t.status.LastError, t.failed = "", nil
	if res.Err == nil {
		return
	}
	t.status.LastError, t.failed = res.Err.Error(), b.paths
	if final {
		t.status.LastError += ", given up"
		return
	}
	if len(t.waiting.paths) == 0 {
		t.first, t.last = now, now
	}
	for p, w := range b.paths {
		if _, newer := t.waiting.paths[p]; !newer {
			t.waiting.paths[p] = w
		}
	}
	t.waiting.seq = max(t.waiting.seq, b.seq)
}
