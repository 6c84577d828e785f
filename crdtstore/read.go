package crdtstore

import (
	"bytes"
	"errors"
	"fmt"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// Snapshot is one state of the view: everything read through it belongs together. It must be closed soon, it keeps the
// store from forgetting old rows. Not safe for concurrent use.
type Snapshot struct {
	s        *Store
	view     view
	counters counters
	policy   *acl.Policy
	judge    bool // the rows are being put right after a policy change or a reset of the clock: judge what they say
	synced   bool // what it shows survives a power cut
	now      int64
}

// Snapshot gives the present state.
func (s *Store) Snapshot() (*Snapshot, error) {
	// The view first: rows that are newer than the policy are never read by an older one.
	v := s.kv.View()
	n := &Snapshot{s: s, view: v, now: s.tick()}
	f := s.force.Load()
	if f != nil {
		n.policy = f.policy
	}
	raw, err := mustGet(v, countersKey)
	if err == nil {
		n.counters, err = decodeCounters(raw)
	}
	if err != nil {
		v.Close()
		return nil, err
	}
	n.judge = n.counters.judged != n.counters.generation
	if f != nil && f.generation != n.counters.generation {
		n.judge = true // the view is older than the policy
	}
	return n, nil
}

// Close ends the snapshot.
func (n *Snapshot) Close() { n.view.Close() }

// Cursor says where in the change feed the snapshot stands: a watch since it tells what came after.
func (n *Snapshot) Cursor() string { return n.s.cursor(n.counters.feed, n.runOf(n.counters.feed)) }

// Number counts the changes of the view. It is for WatchOptions.Reached.
func (n *Snapshot) Number() uint64 { return n.counters.feed }

func (n *Snapshot) runOf(number uint64) uint64 {
	raw, ok, err := n.view.Get(feedKey(number))
	if err != nil || !ok || len(raw) < 8 {
		return 0
	}
	return be.Uint64(raw)
}

// Get reads one path. It fails with ErrNotFound, or ErrCorrupt if what is stored does not have its hash.
func (n *Snapshot) Get(path string, value bool) (Item, error) {
	row, ok, err := n.view.Get(shownKey(path))
	if err != nil {
		return Item{}, err
	}
	if !ok {
		return Item{}, fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	shown, err := decodeShown(row)
	if err != nil {
		return Item{}, err
	}
	item, err := n.item(path, shown, value)
	if err == nil && item.Deleted {
		return Item{}, fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	return item, err
}

// item reads the slot that a path shows, or, while a new policy is being applied, the one that it should show.
func (n *Snapshot) item(path string, shown shownRow, value bool) (Item, error) {
	k := n.s.network.PathKey(path)
	raw, err := mustGet(n.view, slotKey(k, shown.version))
	if err != nil {
		return Item{}, n.corrupt(path, err)
	}
	s, err := decodeSlot(k, shown.version, raw)
	if err != nil {
		return Item{}, n.corrupt(path, err)
	}
	if n.judge && !(n.may(s) && n.rules().due(s.version)) {
		if s, err = n.next(k); err != nil {
			return Item{}, err
		}
		if s == nil {
			return Item{Path: path, Deleted: true}, nil
		}
	}
	return n.itemOf(path, s, value)
}

func (n *Snapshot) may(s *slot) bool {
	return n.policy.MayRead(n.s.self, s.tags) && n.policy.Allowed(s.author, s.tags, s.version)
}

// next finds what a path shows by the policy in force, whatever its rows say.
func (n *Snapshot) next(k record.Tag) (*slot, error) {
	slots, err := n.slots(k)
	if err != nil {
		return nil, err
	}
	var failed error
	return resolve(slots, n.viewRules(&failed)).shown, failed
}

// viewRules is all that the view depends on. What fails goes to failed.
func (n *Snapshot) viewRules(failed *error) *rules {
	r := n.rules()
	r.ready = func(id record.ID) bool {
		_, waits, err := n.view.Get(unreadyKey(id))
		if err != nil {
			*failed = err
		}
		return !waits
	}
	return r
}

// slots reads all slots of a path, highest first.
func (n *Snapshot) slots(k record.Tag) ([]*slot, error) {
	var slots []*slot
	err := n.view.Scan(slotKey(k, record.Version{})[:17], nil, true, func(row, value []byte) (bool, error) {
		_, v, _ := parseSlotKey(row)
		s, err := decodeSlot(k, v, bytes.Clone(value))
		slots = append(slots, s)
		return true, err
	})
	return slots, err
}

// rules is what the view depends on, without readiness.
func (n *Snapshot) rules() *rules {
	return &rules{
		now: n.now, history: n.s.history, voided: n.counters.voided,
		allowed: func(s *slot) bool { return n.policy.Allowed(s.author, s.tags, s.version) },
		reads:   func(s *slot) bool { return n.policy.MayRead(n.s.self, s.tags) },
	}
}

// itemOf reads a slot's entry and checks it against its ID: a damaged one is an error, never a wrong answer.
func (n *Snapshot) itemOf(path string, s *slot, value bool) (Item, error) {
	item := Item{Path: path, Version: s.version, Author: s.author, Entry: s.entry}
	data, err := entryData(n.view, s)
	if err != nil {
		return Item{}, n.corrupt(path, err)
	}
	if data == nil {
		return Item{}, fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	e, size, stub, err := parseHeld(s.entry, data)
	if err != nil || e.Path != path {
		return Item{}, n.corrupt(path, fmt.Errorf("%w: the entry does not have its ID", ErrCorrupt))
	}
	item.Mode, item.Expires, item.Size = e.Mode, e.ExpiresAt(), size
	item.Deleted = stub || e.Kind == record.KindDelete || e.Expired(n.now)
	if l, large := e.Chunks(); large && !item.Deleted {
		item.Chunks = l.Chunks
	} else if value && !item.Deleted {
		item.Value = e.Value
	}
	return item, nil
}

// entryData gives the bytes that are held for a slot, nil if none are.
func entryData(v view, s *slot) ([]byte, error) {
	switch s.state {
	case slotHeld, slotStub:
		return s.data, nil
	case slotElsewhere:
		return mustGet(v, entryKey(s.entry))
	default:
		return nil, nil
	}
}

func (n *Snapshot) corrupt(path string, err error) error {
	if errors.Is(err, ErrCorrupt) {
		n.s.alarm("corrupt", "what is stored for "+path+" is damaged; stop the agent, move its store away, start it: "+
			"the other agents fill it again")
	}
	return fmt.Errorf("read %s: %w", path, err)
}

// List calls fn for every visible path that prefix covers, in ascending order of bytes. An error of fn ends it.
func (n *Snapshot) List(prefix string, values bool, fn func(Item) error) error {
	return n.scan(prefix, func(path string, shown shownRow) error {
		item, err := n.item(path, shown, values)
		if err != nil {
			return err
		}
		if item.Deleted {
			return nil
		}
		return fn(item)
	})
}

// Count gives the number of visible paths that prefix covers.
func (n *Snapshot) Count(prefix string) (count int64, err error) {
	err = n.scan(prefix, func(path string, shown shownRow) error {
		if n.judge {
			item, err := n.item(path, shown, false)
			if err != nil || item.Deleted {
				return err
			}
		}
		count++
		return nil
	})
	return count, err
}

// scan goes over the view rows that prefix covers: the path itself, then all below it.
func (n *Snapshot) scan(prefix string, fn func(path string, shown shownRow) error) error {
	visit := func(k, value []byte) error {
		shown, err := decodeShown(value)
		if err != nil || !shown.visible {
			return err
		}
		return fn(string(k[1:]), shown)
	}
	if prefix == "/" {
		prefix = ""
	} else if row, ok, err := n.view.Get(shownKey(prefix)); err != nil {
		return err
	} else if ok {
		if err := visit(shownKey(prefix), row); err != nil {
			return err
		}
	}
	return n.view.Scan(shownKey(prefix+"/"), nil, false, func(k, value []byte) (bool, error) {
		return true, visit(k, value)
	})
}

// History gives the known versions of a path, newest first: what the path shows, what it showed, and what lost. Values
// come along as far as they are still held; Size is -1 for a version whose entry is not. It fails with ErrNotFound if
// nothing is known of the path. What the agent may not read is left out.
func (n *Snapshot) History(path string, values bool) ([]Item, error) {
	var items []Item
	k := n.s.network.PathKey(path)
	err := n.view.Scan(slotKey(k, record.Version{})[:17], nil, true, func(row, value []byte) (bool, error) {
		_, version, _ := parseSlotKey(row)
		s, err := decodeSlot(k, version, bytes.Clone(value))
		if err != nil {
			return false, n.corrupt(path, err)
		}
		if s.state == slotVoid || !n.may(s) {
			return true, nil
		}
		if !s.holds() {
			items = append(items, Item{Path: path, Version: version, Author: s.author, Entry: s.entry, Size: -1})
			return true, nil
		}
		item, err := n.itemOf(path, s, values)
		items = append(items, item)
		return true, err
	})
	if err == nil && len(items) == 0 {
		err = fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	return items, err
}
