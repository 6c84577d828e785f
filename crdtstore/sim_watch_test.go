package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"syncagent/crdtstore/record"
)

// simWatcher is a client that keeps a copy of what it was told, and resumes with its cursor.
type simWatcher struct {
	n      *simNode
	prefix string
	w      *watch
	state  map[string]record.Version
	cursor string
	left   int // events until it breaks off
}

var errBreak = errors.New("client broke off")

func (n *simNode) watch() {
	for _, prefix := range []string{"/", "/b"} {
		w := &simWatcher{n: n, prefix: prefix, state: map[string]record.Version{}, left: 1 << 30}
		n.watchers = append(n.watchers, w)
		if n.store != nil {
			w.open()
		}
	}
}

func (n *simNode) resume() {
	if n.store == nil {
		return
	}
	if len(n.watchers) == 0 {
		n.watch()
		return
	}
	for _, w := range n.watchers {
		if n.store != nil {
			w.open()
		}
	}
}

// open begins as Watch does, with the cursor if there is one.
func (w *simWatcher) open() {
	w.w = &watch{s: w.n.store, o: WatchOptions{Prefixes: []string{w.prefix}, Since: w.cursor, Durable: w.prefix == "/"}, fn: w.take}
	if w.cursor != "" {
		number, run, mine, err := w.n.store.parseCursor(w.cursor)
		if err != nil {
			w.n.sim.failf("watch: %v", err)
		}
		w.w.number, w.w.run, w.w.resumed = number, run, mine
	}
	if !w.w.resumed {
		w.left = 1 << 30
		w.ended(w.w.present(context.Background(), w.cursor != ""))
	}
}

// ended looks at why a watch ended: the power may fail when it has the store synced.
func (w *simWatcher) ended(err error) {
	if errors.Is(err, errPower) {
		w.n.crash()
	} else if err != nil {
		w.n.sim.failf("watch: %v", err)
	}
}

func (w *simWatcher) take(e Event) error {
	if w.left--; w.left < 0 {
		return errBreak
	}
	switch e.Type {
	case EventPut:
		w.state[e.Item.Path] = e.Item.Version
	case EventDelete:
		delete(w.state, e.Item.Path)
	case EventReset:
		clear(w.state)
	}
	if e.Cursor != "" {
		w.cursor = e.Cursor
	}
	return nil
}

// pull takes what is new. A client that breaks off resumes with its cursor and has what it had.
func (w *simWatcher) pull(events int) {
	w.left = events
	for {
		more, err := w.w.next(context.Background())
		if errors.Is(err, errBreak) {
			w.open()
			return
		}
		if w.ended(err); !more {
			return
		}
	}
}

// differs compares the copy with the view.
func (w *simWatcher) differs() string {
	c := w.n.store.counters
	if c.judged != c.generation {
		return ""
	}
	now := map[string]record.Version{}
	for _, item := range w.n.list(w.prefix) {
		now[item.Path] = item.Version
	}
	if !maps.Equal(now, w.state) {
		return fmt.Sprintf("G12: a watch of %s on %s has %v, the view is %v", w.prefix, w.n.name, w.state, now)
	}
	return ""
}

// watchSome lets one watcher go on, to the end or not.
func (n *simNode) watchSome() {
	n.drive()
	if n.store == nil || len(n.watchers) == 0 {
		return
	}
	w := n.watchers[n.sim.rand.IntN(len(n.watchers))]
	if n.sim.chance(2) {
		w.pull(n.sim.rand.IntN(6))
		return
	}
	w.pull(1 << 30)
	if n.store == nil {
		return
	}
	if p := w.differs(); p != "" {
		n.sim.failf("%s", p)
	}
}
