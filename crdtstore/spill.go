package crdtstore

import (
	"maps"
	"slices"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// Entries too large for their turn's transaction have rows of their own, e, stored before it. Whoever may write a path can
// sign an entry of it again, so several slots may have one row. It goes with the last of them.

// putAside gives an entry a row of its own.
func (t *turn) putAside(id record.ID, data []byte) error {
	_, stored, err := t.view.Get(entryKey(id))
	if err != nil {
		return err
	}
	if stored || t.spill[id] != nil {
		t.rows.set(sharedKey(id), nil)
	}
	if !stored {
		t.spill[id] = data
	}
	return nil
}

// letGo removes the row of a slot's entry, if it has one that no other slot of the path has too. Of those that are not
// loaded only the mark tells, so that a path with a long history need not be read whole for each.
func (t *turn) letGo(p *pathState, s *slot) error {
	if s.state != slotElsewhere {
		return nil
	}
	same := func(o *slot) bool { return o.version != s.version && o.entry == s.entry && o.state == slotElsewhere }
	shared := slices.ContainsFunc(p.slots, same)
	_, marked := t.rows.m[string(sharedKey(s.entry))]
	var err error
	if !marked {
		_, marked, err = t.view.Get(sharedKey(s.entry))
	}
	if marked && !shared && err == nil {
		err = t.view.Scan(slotKey(p.key, record.Version{})[:17], nil, true, func(k, value []byte) (bool, error) {
			_, v, _ := parseSlotKey(k)
			o, err := decodeSlot(p.key, v, value)
			shared = err == nil && p.find(v) == nil && same(o)
			return !shared, err
		})
	}
	if err != nil || shared {
		return err
	}
	t.rows.delete(entryKey(s.entry))
	delete(t.spill, s.entry)
	if marked {
		t.rows.delete(sharedKey(s.entry))
	}
	return nil
}

// storeSpilled stores the entries that have rows of their own, a few at a time, with a list of them.
func (t *turn) storeSpilled() (bool, error) {
	if len(t.spill) == 0 {
		return false, nil
	}
	var list []byte
	for _, id := range slices.SortedFunc(maps.Keys(t.spill), compareIDs) {
		list = append(list, id[:]...)
	}
	fault.Point("spill.before")
	r := newRows()
	r.set(key('x'), list)
	for ; len(list) > 0; list = list[32:] { // in the order of the list, so that a run can be repeated
		id := record.ID(list[:32])
		if r.size > turnBytes-len(t.spill[id]) {
			if err := t.s.kv.Commit(r); err != nil {
				return false, err
			}
			fault.Point("spill.between")
			r = newRows()
		}
		r.set(entryKey(id), t.spill[id])
	}
	if err := t.s.kv.Commit(r); err != nil {
		return false, err
	}
	fault.Point("spill.after")
	return true, nil
}

// dropSpilled removes entries that were stored ahead of a turn which was never committed.
func (s *Store) dropSpilled(v view) error {
	r := newRows()
	err := v.Scan([]byte{'x'}, nil, false, func(k, value []byte) (bool, error) {
		for ; len(value) >= 32; value = value[32:] {
			r.delete(entryKey(record.ID(value[:32])))
		}
		r.delete(append([]byte(nil), k...))
		return true, nil
	})
	if err != nil || r.empty() {
		return err
	}
	fault.Point("start.drop-spilled")
	return s.kv.Commit(r)
}
