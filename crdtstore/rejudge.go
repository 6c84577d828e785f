package crdtstore

import (
	"bytes"
	"fmt"
	"slices"

	"syncagent/acl"
	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// Once a policy is in force every read judges by it, and a pass over all slots, some in each turn, puts the rows right.
// Most policies change little: a path stays as it is if the new policy judges each of its slots as those did by which
// its rows were made.

// rowsByMost is by how many policies the rows may be at a time; with more, every path is judged.
const rowsByMost = 4

// judgesOfRows gives the policies by which the rows are before one more comes into force: several if a pass has not
// ended, none if they are not known.
func (s *Store) judgesOfRows() []*acl.Policy {
	switch {
	case s.counters.judged == s.counters.generation:
		return []*acl.Policy{s.Policy()}
	case len(s.rowsBy) == 0 || len(s.rowsBy) == rowsByMost:
		return nil
	}
	return append(slices.Clone(s.rowsBy), s.Policy())
}

// judgeAlike tells whether two policies come to the same about a slot, for an agent with key self.
func judgeAlike(a, b *acl.Policy, self record.PublicKey, s *slot) bool {
	return a.MayRead(self, s.tags) == b.MayRead(self, s.tags) &&
		a.Allowed(s.author, s.tags, s.version) == b.Allowed(s.author, s.tags, s.version)
}

// passed is a path that the pass looks at.
type passed struct {
	key      record.Tag
	slots    []*slot // ascending; of a path with many the first few
	withheld uint64  // of all its slots, those of others that the agent may not read
	differs  bool    // it must be judged anew
}

// rejudge brings the next paths in line with the policy in force. The place reached is stored with the turn.
func (t *turn) rejudge() error {
	c := &t.s.counters
	if fault.Planted("skip-rejudge") {
		c.judged = c.generation
	}
	if c.judged == c.generation {
		return nil
	}
	paths, next, err := t.lookOn(c.place)
	if err != nil {
		return err
	}
	for i, p := range paths {
		if t.size > turnBytes/2 && i > 0 {
			next = &p.key
			break
		}
		c.withheld += p.withheld
		if !p.differs {
			continue
		}
		state, err := t.reopen(p)
		if err != nil {
			return err
		}
		state.dirty = true
		t.size += pathCost(state)
	}
	if next != nil {
		c.place = *next
	} else {
		c.judged, c.place = c.generation, record.Tag{}
	}
	return nil
}

// lookOn looks at the paths from a key on, as many as one turn can bear. Next is where to go on, nil if none is left.
func (t *turn) lookOn(from record.Tag) (paths []*passed, next *record.Tag, err error) {
	var p *passed
	slots, differing := 0, 0
	err = t.view.Scan([]byte{'s'}, key('s', from[:]), false, func(k, value []byte) (bool, error) {
		path, v, ok := parseSlotKey(k)
		if !ok {
			return false, fmt.Errorf("%w: slot key", ErrCorrupt)
		}
		if p == nil || path != p.key {
			if slots >= turnSlots || differing >= turnPaths {
				next = &path
				return false, nil
			}
			p = &passed{key: path}
			paths = append(paths, p)
		}
		slots++
		s, err := decodeSlot(path, v, value)
		if err != nil {
			return false, err
		}
		if !s.own && !t.policy.MayRead(t.s.self, s.tags) {
			p.withheld++
		}
		if !p.differs && t.judgesAnew(s) {
			p.differs = true
			differing++
		}
		if len(p.slots) > t.s.window {
			return true, nil
		}
		err = t.describe(s)
		s.data = nil // borrowed
		p.slots = append(p.slots, s)
		return true, err
	})
	return paths, next, err
}

// judgesAnew tells whether the policy in force may judge a slot in another way than its row says.
func (t *turn) judgesAnew(s *slot) bool {
	by := t.s.rowsBy
	return len(by) == 0 || slices.ContainsFunc(by, func(p *acl.Policy) bool { return !judgeAlike(p, t.policy, t.s.self, s) })
}

// reopen gives the state of a path, from what the pass read if that is all.
func (t *turn) reopen(p *passed) (*pathState, error) {
	if t.paths[p.key] != nil || len(p.slots) > t.s.window {
		return t.path(p.key, false)
	}
	slices.Reverse(p.slots)
	state := &pathState{key: p.key, slots: p.slots, whole: true}
	t.paths[p.key] = state
	return state, nil
}

// counted tells whether the pass over all rows has counted, or will not count, new slots of this path.
func (t *turn) counted(path record.Tag) bool {
	c := &t.s.counters
	return c.judged == c.generation || bytes.Compare(path[:], c.place[:]) < 0
}
