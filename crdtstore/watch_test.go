package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// watcher collects what a watch tells.
type watcher struct {
	t      *testing.T
	events chan Event
	cancel context.CancelFunc
	done   chan error
}

func (nd *node) watch(t *testing.T, since string, prefixes ...string) *watcher {
	return nd.watchWith(t, WatchOptions{Prefixes: prefixes, Since: since, Values: true})
}

func (nd *node) watchWith(t *testing.T, o WatchOptions) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{t: t, events: make(chan Event, 10_000), cancel: cancel, done: make(chan error, 1)}
	go func() {
		w.done <- nd.Watch(ctx, o, func(e Event) error {
			w.events <- e
			return nil
		})
	}()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *watcher) stop() {
	w.cancel()
}

func (w *watcher) next() Event {
	w.t.Helper()
	select {
	case e := <-w.events:
		return e
	case <-time.After(20 * time.Second):
		w.t.Fatal("no event")
		return Event{}
	}
}

func (w *watcher) want(kind EventType, path, value string) Event {
	w.t.Helper()
	e := w.next()
	if e.Type != kind || e.Item.Path != path || string(e.Item.Value) != value {
		w.t.Fatalf("got event %d of %s=%q, want %d of %s=%q", e.Type, e.Item.Path, e.Item.Value, kind, path, value)
	}
	return e
}

func TestWatchTellsStateThenChanges(t *testing.T) {
	_, a, b, _ := three(t, 1)
	a.put("/w/1", "one")
	a.put("/other", "x")
	w := a.watch(t, "", "/w")
	w.want(EventPut, "/w/1", "one")
	w.want(EventSynced, "", "")
	a.put("/w/2", "two")
	a.put("/other", "y")
	w.want(EventPut, "/w/2", "two")
	if _, err := a.Write(context.Background(), []Op{{Path: "/w/1", Delete: true}, {Path: "/w/3", Value: []byte("three")}}); err != nil {
		t.Fatal(err)
	}
	first := w.want(EventDelete, "/w/1", "")
	second := w.want(EventPut, "/w/3", "three")
	if !first.More || second.More || first.Item.Version.Write != second.Item.Version.Write {
		t.Fatalf("the events of one write are not marked as such: %v %v", first.More, second.More)
	}
	b.put("/w/4", "from b")
	a.pull(b)
	w.want(EventPut, "/w/4", "from b")
}

func TestG12_ResumeMissesNothing(t *testing.T) {
	n := newTestNet(t, 1)
	dir := t.TempDir()
	a := n.startOn("a", nil, dir)
	a.apply(n.openPolicy())
	w := a.watch(t, "", "/")
	cursor := w.next().Cursor
	w.stop()
	for i := range 20 {
		a.put(fmt.Sprintf("/p/%d", i), "v")
	}
	a.stop()
	a = n.startOn("a", nil, dir)
	a.put("/p/last", "v")
	w = a.watch(t, cursor, "/p")
	for i := range 20 {
		e := w.want(EventPut, fmt.Sprintf("/p/%d", i), "v")
		cursor = e.Cursor
	}
	w.want(EventPut, "/p/last", "v")
	w = a.watch(t, cursor, "/p")
	w.want(EventPut, "/p/last", "v")
}

func TestG12_CursorOfALostPastStartsOver(t *testing.T) {
	n, a, b, _ := three(t, 1)
	a.put("/p", "1")
	n.clock.advance(time.Millisecond)
	// What came from others is not synced at once: a power cut takes the feed rows with it.
	b.put("/p", "2")
	b.put("/q", "2")
	a.pull(b)
	sn, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	cursor := sn.Cursor()
	sn.Close()
	cut := n.start("a", a.disk.powerCut(0))
	if cut.get("/p") != "1" {
		t.Fatal("the foreign write was synced already")
	}
	cut.put("/p", "3") // takes the same number in the feed
	again := cut.watch(t, cursor, "/p")
	again.want(EventReset, "", "")
	again.want(EventPut, "/p", "3")
	// A cursor of another agent, and rubbish.
	other := b.watch(t, cursor, "/p")
	other.want(EventReset, "", "")
	if err := b.Watch(context.Background(), WatchOptions{Prefixes: []string{"/"}, Since: "rubbish"}, nil); !errors.Is(err, ErrBadCursor) {
		t.Fatalf("rubbish as a cursor: %v", err)
	}
}

func TestG4_WhatADurableWatchToldSurvivesAPowerCut(t *testing.T) {
	n, a, b, _ := three(t, 1)
	w := a.watchWith(t, WatchOptions{Prefixes: []string{"/p"}, Values: true, Durable: true})
	w.next()
	b.put("/p", "told")
	a.pull(b)
	w.want(EventPut, "/p", "told")
	if cut := n.start("a", a.disk.powerCut(0)); cut.get("/p") != "told" {
		t.Fatal("a watcher was told of what the power cut took")
	}
}

func TestWatchTellsOfPolicyChanges(t *testing.T) {
	n, a, _, _ := three(t, 1)
	a.put("/p/1", "v")
	w := a.watch(t, "", "/p")
	w.want(EventPut, "/p/1", "v")
	w.next()
	a.apply(n.policy(hosts, "a peer", "a /q rw"))
	w.want(EventPolicy, "", "")
	w.want(EventDelete, "/p/1", "")
	a.apply(n.openPolicy())
	w.want(EventPolicy, "", "")
	w.want(EventPut, "/p/1", "v") // a made it, so a kept it
}

func TestWatchEndsWithTheStore(t *testing.T) {
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	a.apply(n.openPolicy())
	w := a.watch(t, "", "/")
	w.next()
	a.stop()
	if err := <-w.done; !errors.Is(err, ErrClosed) {
		t.Fatalf("watch of a stopped store: %v", err)
	}
}

func TestG12_CursorOlderThanTheFeedStartsOver(t *testing.T) {
	n := newTestNet(t, 1)
	o := n.options("a")
	o.kv, o.feedBytes = newMemKV(), 10_000
	a := n.run("a", o)
	a.apply(n.openPolicy())
	w := a.watch(t, "", "/p")
	cursor := w.next().Cursor
	w.stop()
	a.put("/p", "first")
	for i := range 300 { // until the first rows are dropped
		a.put(fmt.Sprintf("/p/%d", i), "v")
	}
	again := a.watch(t, cursor, "/p")
	again.want(EventReset, "", "")
	again.want(EventPut, "/p", "first")
}
