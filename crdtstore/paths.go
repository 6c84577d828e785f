package crdtstore

import (
	"fmt"
	"slices"

	"syncagent/crdtstore/record"
)

// pathState is a path that the turn touches: its slots in descending order, as far as loaded.
type pathState struct {
	key    record.Tag
	slots  []*slot
	whole  bool           // all slots are loaded
	floor  record.Version // else only those from here up; below may be some that came in this turn
	isNew  bool           // there is no row of it before this turn
	dirty  bool           // the verdict must be found (again)
	judged bool           // the verdict was found in this turn
	result verdict
	path   string // empty while no entry of it was ever seen
	view   viewRow
}

// viewRow is row v of a path as it was before the turn or, in the end, is after it.
type viewRow struct {
	path  string // empty: not read
	there bool
	shownRow
}

// extent measures the highest slots of a path that a turn looks at. What the path shows is among them, or else it is
// loaded whole, and so are the slots above. What lies below the window may be kept for longer than it must, until its time
// comes.
type extent struct {
	slots   int
	held    bool // the entry of one of them
	author  record.PublicKey
	several bool // authors
}

func (w *extent) add(s *slot) {
	w.several = w.several || w.slots > 0 && w.author != s.author
	w.slots, w.held, w.author = w.slots+1, w.held || s.holds(), s.author
}

// enough tells whether no more slots need be looked at. Paths that several write have more to be dropped.
func (w *extent) enough(most int) bool {
	return w.held && (w.slots >= most || w.slots >= most/4 && !w.several)
}

// path loads a path's slots, a window of the highest unless whole is asked for.
func (t *turn) path(key record.Tag, whole bool) (*pathState, error) {
	p := t.paths[key]
	if p != nil && (p.whole || !whole) {
		return p, nil
	}
	fresh := &pathState{key: key, whole: true}
	if p == nil && t.s.index.isNew(key) {
		fresh.isNew = true
		t.s.index.add(key)
		t.paths[key] = fresh
		return fresh, nil
	}
	if p == nil {
		if held := t.s.paths.take(key); held != nil && (held.whole || !whole) {
			t.paths[key] = held
			return held, nil
		}
	}
	var w extent
	err := t.view.Scan(slotKey(key, record.Version{})[:17], nil, true, func(k, value []byte) (bool, error) {
		if !whole && w.enough(t.s.window) {
			fresh.whole = false
			return false, nil
		}
		_, v, ok := parseSlotKey(k)
		if !ok {
			return false, fmt.Errorf("%w: slot key", ErrCorrupt)
		}
		s, err := decodeSlot(key, v, value)
		if err != nil {
			return false, err
		}
		if err := t.describe(s); err != nil {
			return false, err
		}
		s.data = nil // borrowed; read again if it is needed
		w.add(s)
		fresh.slots = append(fresh.slots, s)
		fresh.floor = v
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	if len(fresh.slots) == 0 {
		fresh.isNew = true
		t.s.index.add(key) // it may get some in this turn
	}
	for _, s := range t.blind[key] {
		fresh.insert(s)
	}
	if p != nil { // widened: keep what the turn changed
		for _, s := range p.slots {
			fresh.insert(s)
		}
	}
	fresh.dirty = p != nil && p.dirty
	t.paths[key] = fresh
	return fresh, nil
}

// reaches tells whether the slot of a version is loaded if there is one.
func (p *pathState) reaches(v record.Version) bool { return p.whole || v.Compare(p.floor) >= 0 }

// sees tells whether nothing can lie above a slot, nil for none at all, that is not loaded.
func (p *pathState) sees(s *slot) bool { return p.whole || s != nil && p.reaches(s.version) }

// judge finds the verdict on a path. What it shows may lie below the window; it is loaded whole then.
func (t *turn) judge(p *pathState, r *rules) (*pathState, error) {
	result := resolve(p.slots, r)
	if !p.sees(result.shown) {
		var err error
		if p, err = t.path(p.key, true); err != nil {
			return nil, err
		}
		result = resolve(p.slots, r)
	}
	p.result, p.dirty, p.judged = result, false, true
	return p, nil
}

// slot loads a path and finds one slot of it, which is nil if it is not held.
func (t *turn) slot(key record.Tag, v record.Version) (*pathState, *slot, error) {
	p, err := t.path(key, false)
	if err != nil {
		return nil, nil, err
	}
	if p.find(v) == nil {
		if p, err = t.path(key, true); err != nil {
			return nil, nil, err
		}
	}
	return p, p.find(v), nil
}

// describe notes what an inline entry says. An entry in a row of its own is read only when it is shown, or names chunks.
func (t *turn) describe(s *slot) error {
	if s.state == slotElsewhere && !s.chunked {
		return nil
	}
	return s.load(t.elsewhere)
}

// insert puts a slot at its place, replacing the same version.
func (p *pathState) insert(s *slot) {
	i, found := slices.BinarySearchFunc(p.slots, s, func(a, b *slot) int { return b.version.Compare(a.version) })
	if found {
		p.slots[i] = s
	} else {
		p.slots = slices.Insert(p.slots, i, s)
	}
	p.dirty = true
}

func (p *pathState) find(v record.Version) *slot {
	i, found := slices.BinarySearchFunc(p.slots, v, func(a *slot, v record.Version) int { return v.Compare(a.version) })
	if !found {
		return nil
	}
	return p.slots[i]
}

// name gives the path's name, if any slot tells it.
func (p *pathState) name() string {
	for _, s := range p.slots {
		if p.path != "" {
			break
		}
		if s.known && s.state != slotVoid {
			p.path = s.path
		}
	}
	return p.path
}
