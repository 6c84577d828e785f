package agent

import (
	"bytes"
	"context"
	"errors"
	"strings"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// watcher gathers events for one caller into messages: one message a write once the present state is through.
type watcher struct {
	ctx     context.Context //nolint:containedctx // lives as long as the one call it serves
	caller  *caller
	all     bool // the caller acts as this agent: it sees what the store tells
	store   store
	out     func(context.Context, *apiv1.WatchResponse) error
	synced  bool
	labels  labels
	message *apiv1.WatchResponse
	size    int
}

func newWatcher(ctx context.Context, s store, out func(context.Context, *apiv1.WatchResponse) error) *watcher {
	c := callerOf(ctx)
	_, all := c.rights.(everything)
	return &watcher{ctx: ctx, caller: c, all: all, store: s, out: out, message: &apiv1.WatchResponse{}}
}

// errOtherRights ends a watch of the store whose caller may see something else from here on.
var errOtherRights = errors.New("rights changed")

// run watches until the context ends or out fails. The store tells what this agent sees; a caller who sees less gets
// the present state anew whenever a policy may have changed what that is, or its cursor was of other rights.
func (w *watcher) run(o watchOptions) error {
	cursor, mark, _ := strings.Cut(o.since, ".")
	o.since, w.synced = cursor, cursor != ""
	again := o.since != "" && mark != w.caller.mark
	for {
		if again {
			o.since = ""
			if err := w.event(crdtstore.Event{Type: crdtstore.EventReset}); err != nil {
				return err
			}
		}
		if err := w.store.Watch(w.ctx, o, w.event); !errors.Is(err, errOtherRights) {
			return err
		}
		again = true
	}
}

// cursorFor gives a cursor of the store to a caller.
func cursorFor(c *caller, cursor string) string {
	if cursor == "" || c.mark == "" {
		return cursor
	}
	return cursor + "." + c.mark
}

func (w *watcher) hidden(path string) bool {
	return path != "" && (record.Reserved(path) || !w.all && !w.caller.rights.reads(w.store.Policy(), path))
}

func (w *watcher) event(e crdtstore.Event) error {
	if e.Type == crdtstore.EventPolicy || w.labels.policy == nil {
		w.labels = labels{policy: w.store.Policy()}
	}
	hidden := w.hidden(e.Item.Path)
	if hidden && e.More {
		return nil
	}
	switch e.Type {
	case crdtstore.EventReset:
		w.synced = false
	case crdtstore.EventSynced:
		w.synced = true
	}
	if !hidden {
		e.Item.Value = bytes.Clone(e.Item.Value) // the store's until this returns
		e.Cursor = cursorFor(w.caller, e.Cursor)
		w.message.Events = append(w.message.Events, w.labels.event(&e))
		w.size += len(e.Item.Path) + len(e.Item.Value) + 320
	} else if n := len(w.message.Events); n > 0 { // the write's last event was not for this caller
		last := w.message.Events[n-1]
		last.More, last.Cursor = false, cursorFor(w.caller, e.Cursor)
	}
	n := len(w.message.Events)
	switch {
	case w.synced && !e.More || e.Type == crdtstore.EventReset:
		if err := w.flush(n); err != nil {
			return err
		}
	case w.size >= streamBytes:
		return w.flush(n - 1) // whether more of the write follows the last one is not known yet
	}
	if e.Type == crdtstore.EventPolicy && !w.all {
		return errOtherRights
	}
	return nil
}

// flush sends the first n events.
func (w *watcher) flush(n int) error {
	if n <= 0 {
		return nil
	}
	rest := w.message.Events[n:]
	w.message.Events = w.message.Events[:n:n]
	err := w.out(w.ctx, w.message)
	w.message, w.size = &apiv1.WatchResponse{Events: rest}, 0
	return err
}
