package crdtstore

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// PathChange is what another policy would change at one path.
type PathChange struct {
	Path      string // empty: this agent may not read it, or holds nothing of it
	Now, Then *Item  // what it shows, without values; nil: nothing
	// Lost is the version that wins the path now, if it is a live value for all that this agent knows and would not be
	// allowed any more; else nil. An agent that does not hold the entry cannot tell a value from a delete.
	Lost *record.Version
}

// Preview calls fn for every path that would show something else here, or lose its value, if next were in force. It
// reads all slots: seconds for a million. An error of fn ends it, and so does ctx.
func (n *Snapshot) Preview(ctx context.Context, next *acl.Policy, fn func(PathChange) error) error {
	var failed error
	now, then := n.viewRules(&failed), n.viewRules(&failed)
	then.allowed = func(s *slot) bool { return next.Allowed(s.author, s.tags, s.version) }
	then.reads = func(s *slot) bool { return next.MayRead(n.s.self, s.tags) }
	return n.eachPath(ctx, func(slots []*slot) error {
		if !slices.ContainsFunc(slots, func(s *slot) bool { return !judgeAlike(n.policy, next, n.s.self, s) }) {
			return nil
		}
		path := n.nameOf(slots, now, then) // what this agent wrote it holds, even if it may not read it yet
		change := PathChange{Path: path}
		before, after := resolve(slots, now).shown, resolve(slots, then).shown
		var err error
		if change.Now, err = n.liveItem(path, before); err != nil {
			return err
		}
		if change.Then, err = n.liveItem(path, after); err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
		if winner := winnerOf(slots, now); winner != nil && !then.allowed(winner) {
			if winner != before || change.Now != nil {
				change.Lost = &winner.version
			}
		}
		if change.Lost == nil && (before == after || change.Now == nil && change.Then == nil) {
			return nil
		}
		return fn(change)
	})
}

// winnerOf gives the slot that wins a path by policy and time alone, whether or not this agent may read it.
func winnerOf(slots []*slot, r *rules) *slot {
	for _, s := range slots {
		if s.state != slotVoid && r.due(s.version) && r.allowed(s) {
			return s
		}
	}
	return nil
}

// liveItem tells what a path shows by a slot. Nil: nothing.
func (n *Snapshot) liveItem(path string, s *slot) (*Item, error) {
	if s == nil {
		return nil, nil
	}
	item, err := n.itemOf(path, s, false)
	if err != nil || item.Deleted {
		return nil, err
	}
	return &item, nil
}

// Written calls fn for every slot that author wrote with a time of since or later, all versions of a path together,
// newest first. Shown tells that the path shows it. Path is empty when the agent may not read it or holds nothing of it,
// Size is -1 when it does not hold this version. It reads all slots. An error of fn ends it, and so does ctx.
func (n *Snapshot) Written(ctx context.Context, author record.PublicKey, since record.HLC, fn func(item Item, shown bool) error) error {
	var failed error
	rules := n.viewRules(&failed)
	return n.eachPath(ctx, func(slots []*slot) error {
		if !slices.ContainsFunc(slots, func(s *slot) bool { return s.author == author && s.version.HLC >= since }) {
			return nil
		}
		path, shown := n.nameOf(slots, rules), resolve(slots, rules).shown
		if failed != nil {
			return failed
		}
		for _, s := range slots {
			if s.author != author || s.version.HLC < since {
				continue
			}
			item := Item{Path: path, Version: s.version, Author: author, Entry: s.entry, Size: -1}
			if path != "" && s.holds() {
				var err error
				if item, err = n.itemOf(path, s, false); err != nil {
					return err
				}
			}
			if err := fn(item, s == shown); err != nil {
				return err
			}
		}
		return nil
	})
}

// nameOf gives the path of slots of one path key, if it may be told by one of the rules and any of its entries is held.
func (n *Snapshot) nameOf(slots []*slot, rules ...*rules) string {
	for _, s := range slots {
		if s.state == slotVoid || !s.has() || !anyReads(rules, s) {
			continue
		}
		if err := s.load(func(id record.ID) ([]byte, error) { return mustGet(n.view, entryKey(id)) }); err == nil {
			return s.path
		}
	}
	return ""
}

func anyReads(all []*rules, s *slot) bool {
	return slices.ContainsFunc(all, func(r *rules) bool { return r.reads(s) })
}

// eachPath calls fn with all slots of each path, in descending order.
func (n *Snapshot) eachPath(ctx context.Context, fn func([]*slot) error) error {
	var slots []*slot
	flush := func() error {
		if len(slots) == 0 {
			return nil
		}
		slices.Reverse(slots)
		err := fn(slots)
		slots = nil
		return err
	}
	var key record.Tag
	err := n.view.Scan([]byte{'s'}, nil, false, func(row, value []byte) (bool, error) {
		path, version, ok := parseSlotKey(row)
		if !ok {
			return false, ErrCorrupt
		}
		if path != key {
			if err := errors.Join(ctx.Err(), flush()); err != nil {
				return false, err
			}
			key = path
		}
		s, err := decodeSlot(path, version, bytes.Clone(value))
		slots = append(slots, s)
		return true, err
	})
	if err != nil {
		return err
	}
	return flush()
}
