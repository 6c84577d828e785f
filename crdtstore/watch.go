package crdtstore

import (
	"context"
	"encoding/base64"
	"fmt"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// WatchOptions say what to watch.
type WatchOptions struct {
	Prefixes []string // at least one
	Since    string   // cursor of an earlier event; empty: tell the present state first
	Values   bool     // bring values
	Durable  bool     // tell of a change only once it survives a power cut: what is told may be carried on, to a file say

	// Reached, if set, is called when everything up to a Snapshot with this number was told.
	Reached func(number uint64)
}

// cursor names a place in this agent's change feed: agent, store, run and number.
func (s *Store) cursor(number, run uint64) string {
	b := append([]byte(nil), s.self[:8]...)
	b = be.AppendUint64(b, s.Incarnation())
	b = be.AppendUint64(b, run)
	b = be.AppendUint64(b, number)
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseCursor gives the number and run of a cursor. Mine is false for one of another agent or store.
func (s *Store) parseCursor(text string) (number, run uint64, mine bool, err error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) != 32 || base64.RawURLEncoding.EncodeToString(b) != text { // it lets line ends and spare bits pass
		return 0, 0, false, fmt.Errorf("%w: %q was not given out by an agent", ErrBadCursor, text)
	}
	mine = string(b[:8]) == string(s.self[:8]) && be.Uint64(b[8:]) == s.Incarnation()
	return be.Uint64(b[24:]), be.Uint64(b[16:]), mine, nil
}

// Watch tells fn of every change below the prefixes until ctx ends or fn fails. First the present state, then
// EventSynced, then changes; with Since only the changes after it, or EventReset and the present state if that is no
// longer possible. The events of one write come together, all but the last with More. Between two events of a path
// intermediate versions may be left out; the last is always told. What came from others is told up to a second before it
// survives a power cut, unless Durable asks for more; a cursor of what was lost leads to EventReset. Fn is called by one
// goroutine; a slow one delays nobody else.
func (s *Store) Watch(ctx context.Context, o WatchOptions, fn func(Event) error) error {
	bell, cancel := s.bell()
	defer cancel()
	w := &watch{s: s, o: o, fn: fn}
	if o.Since != "" {
		number, run, mine, err := s.parseCursor(o.Since)
		if err != nil {
			return err
		}
		w.number, w.run, w.resumed = number, run, mine
	}
	if !w.resumed {
		if err := w.present(ctx, o.Since != ""); err != nil {
			return err
		}
	}
	for {
		if o.Reached != nil {
			o.Reached(w.number)
		}
		more, err := w.next(ctx)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		if o.Reached != nil {
			o.Reached(w.number)
		}
		select {
		case <-bell:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stopped:
			return ErrClosed
		}
	}
}

// watch is one caller's place in the feed.
type watch struct {
	s       *Store
	o       WatchOptions
	fn      func(Event) error
	number  uint64 // last row that was told
	run     uint64 // run that wrote it
	resumed bool
}

func (w *watch) wanted(path string) bool {
	for _, p := range w.o.Prefixes {
		if record.Covers(p, path) {
			return true
		}
	}
	return false
}

// present tells the state as it is, and goes on from there.
func (w *watch) present(ctx context.Context, reset bool) error {
	n, err := w.s.Snapshot()
	if err != nil {
		return err
	}
	defer n.Close()
	if reset {
		if err := w.fn(Event{Type: EventReset}); err != nil {
			return err
		}
	}
	for i, p := range w.o.Prefixes {
		err := n.List(p, w.o.Values, func(item Item) error {
			for _, before := range w.o.Prefixes[:i] {
				if record.Covers(before, item.Path) {
					return ctx.Err() // told already
				}
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return w.fn(Event{Type: EventPut, Item: item})
		})
		if err != nil {
			return err
		}
	}
	w.number, w.run = n.counters.feed, n.runOf(n.counters.feed)
	return w.fn(Event{Type: EventSynced, Cursor: w.s.cursor(w.number, w.run)})
}

// next tells the next row of the feed. It says whether there may be more.
func (w *watch) next(ctx context.Context) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	n, err := w.s.Snapshot()
	if err != nil {
		return false, err
	}
	events, more, lost, err := w.read(n)
	n.Close() // before fn, which may be slow
	if err != nil {
		return false, err
	}
	if lost {
		return true, w.present(ctx, true)
	}
	if len(events) > 0 && w.o.Durable {
		if err := w.s.durable(w.number); err != nil {
			return false, err
		}
	}
	for _, e := range events {
		if err := w.fn(e); err != nil {
			return false, err
		}
	}
	return more, nil
}

// read gives the events of the next row that has any. Lost means that the row of the cursor is not there any more, or
// was written by another run than the cursor says.
func (w *watch) read(n *Snapshot) (events []Event, more, lost bool, err error) {
	if w.number > n.counters.feed || n.runOf(w.number) != w.run && !fault.Planted("trust-cursor") {
		return nil, false, true, nil
	}
	for w.number < n.counters.feed && len(events) == 0 {
		raw, ok, err := n.view.Get(feedKey(w.number + 1))
		if err != nil || !ok {
			return nil, false, err == nil, err
		}
		run, items, err := decodeFeed(raw)
		if err != nil {
			return nil, false, false, err
		}
		if events, err = w.events(n, items); err != nil {
			return nil, false, false, err
		}
		before := w.s.cursor(w.number, w.run)
		w.number, w.run = w.number+1, run
		for i := range events {
			// Only the last event of a row moves the cursor on: who stops in the middle gets the row again.
			events[i].Cursor = before
			if i+1 < len(events) {
				events[i].More = events[i].Item.Version.Write == events[i+1].Item.Version.Write &&
					events[i].Type != EventPolicy && events[i+1].Type != EventPolicy
			} else {
				events[i].Cursor = w.s.cursor(w.number, w.run)
			}
		}
	}
	return events, w.number < n.counters.feed, false, nil
}

func (w *watch) events(n *Snapshot, items []feedItem) ([]Event, error) {
	var events []Event
	for _, i := range items {
		switch i.kind {
		case feedPolicy:
			events = append(events, Event{Type: EventPolicy})
		case feedGone:
			if w.wanted(i.path) {
				events = append(events, Event{Type: EventDelete, Item: Item{Path: i.path, Deleted: true}})
			}
		case feedShown:
			e, ok, err := w.shown(n, i)
			if err != nil {
				return nil, err
			}
			if ok {
				events = append(events, e)
			}
		}
	}
	return events, nil
}

// shown makes the event of a slot that was shown. A slot whose entry is gone was superseded, and a later row tells
// what is shown now.
func (w *watch) shown(n *Snapshot, i feedItem) (Event, bool, error) {
	raw, ok, err := n.view.Get(slotKey(i.key, i.version))
	if err != nil || !ok {
		return Event{}, false, err
	}
	s, err := decodeSlot(i.key, i.version, raw)
	if err != nil || !s.holds() || !n.may(s) {
		return Event{}, false, err
	}
	data, err := entryData(n.view, s)
	if err != nil {
		return Event{}, false, n.corrupt("a watched path", err)
	}
	e, _, _, err := parseHeld(s.entry, data)
	if err != nil {
		return Event{}, false, n.corrupt("a watched path", fmt.Errorf("%w: the entry does not have its ID", ErrCorrupt))
	}
	if !w.wanted(e.Path) {
		return Event{}, false, nil
	}
	item, err := n.itemOf(e.Path, s, w.o.Values)
	if err != nil {
		return Event{}, false, err
	}
	if item.Deleted {
		return Event{Type: EventDelete, Item: item}, true, nil
	}
	return Event{Type: EventPut, Item: item}, true, nil
}
