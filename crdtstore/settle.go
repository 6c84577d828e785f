package crdtstore

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// settle finds the verdict of every touched path, and which writes became ready by it, until nothing changes. A write
// that becomes ready can raise what its paths show, which can settle slots of other writes below. Only the writes are
// looked at that wait for one of the paths: a path may have slots of thousands, and each of them slots of a thousand paths.
func (t *turn) settle() error {
	rules := t.rules()
	var touched []record.Tag
	for key, p := range t.paths {
		if p.dirty {
			touched = append(touched, key)
		}
	}
	for len(touched) > 0 {
		waiting := map[record.ID]*unreadyWrite{} // those that need not wait there any more
		for _, key := range touched {
			if _, err := t.judge(t.paths[key], rules); err != nil {
				return err
			}
			for id := range t.s.unreadyAt[key] {
				u := t.s.unready[id]
				if ok, err := t.slotSettled(u, rules); err != nil {
					return err
				} else if ok {
					waiting[id] = u
				}
			}
		}
		touched = touched[:0]
		for _, id := range slices.SortedFunc(maps.Keys(waiting), compareIDs) {
			u := waiting[id]
			ready, err := t.settled(u, rules)
			if err != nil {
				return err
			}
			if !ready {
				continue
			}
			cost, err := t.showCost(u)
			if err != nil {
				return err
			}
			if t.size > 0 && t.size+cost > txnBytes {
				t.s.postpone(u) // one turn cannot hold it all
				continue
			}
			t.size += cost
			t.s.dropUnready(u, t.rows)
			for _, key := range u.paths {
				p, err := t.path(key, false)
				if err != nil {
					return err
				}
				if !p.dirty {
					p.dirty = true
					touched = append(touched, key)
				}
			}
		}
	}
	return nil
}

func compareIDs(a, b record.ID) int { return bytes.Compare(a[:], b[:]) }

// showCost estimates the rows that showing all of a write makes: view, feed, slots.
func (t *turn) showCost(u *unreadyWrite) (int, error) {
	n := 0
	for _, key := range u.paths {
		p, err := t.path(key, false)
		if err != nil {
			return 0, err
		}
		n += 500 + len(p.name())
	}
	return n, nil
}

// settled tells whether nothing of a write is waited for any more. It goes on where it ended the last time, and once
// round before it says so.
func (t *turn) settled(u *unreadyWrite, r *rules) (bool, error) {
	for range u.paths {
		ok, err := t.slotSettled(u, r)
		if err != nil || !ok {
			return false, err
		}
		t.s.waitFor(u, (u.lacks+1)%len(u.paths))
	}
	return true, nil
}

// slotSettled tells whether the slot that a write waits for is settled.
func (t *turn) slotSettled(u *unreadyWrite, r *rules) (bool, error) {
	key, v := u.waitsAt(), record.Version{HLC: u.hlc, Write: u.id, Index: uint16(u.lacks)}
	p, s, err := t.slot(key, v)
	if err != nil {
		return false, err
	}
	if s == nil {
		return false, fmt.Errorf("%w: slot %s of an unready write is missing", ErrCorrupt, v)
	}
	if !p.judged { // a verdict that is older than what became ready in this round is found again for the next
		if p, err = t.judge(p, r); err != nil {
			return false, err
		}
	}
	switch {
	case r.holds(s) || s.state == slotVoid, !r.reads(s), !r.allowed(s):
		return true, nil
	case p.result.shown != nil && p.result.shown.version.Compare(v) > 0:
		return true, nil
	}
	return t.s.wants.hopeless(key, v, u, t.now), nil
}

// finish turns the verdicts into rows: slots, view, wants, times to look again, feed, counters.
func (t *turn) finish() error {
	if err := t.settle(); err != nil {
		return err
	}
	t.touched = make([]record.Tag, 0, len(t.paths))
	for k := range t.paths {
		t.touched = append(t.touched, k)
	}
	slices.SortFunc(t.touched, func(a, b record.Tag) int { return bytes.Compare(a[:], b[:]) })
	for _, k := range t.touched {
		if p := t.paths[k]; p.judged {
			if err := t.finishPath(p); err != nil {
				return err
			}
			if len(t.foreign) > 0 {
				t.giveWay()
			}
		}
	}
	if err := t.writeFeed(); err != nil {
		return err
	}
	t.s.counters.agentTime = t.now
	t.rows.set(countersKey, t.s.counters.encode())
	return nil
}

func (t *turn) finishPath(p *pathState) error {
	shown := p.result.shown
	if shown != nil {
		if err := shown.load(t.elsewhere); err != nil {
			return t.damaged(err)
		}
	}
	path, err := t.nameOf(p)
	if err != nil {
		return err
	}
	for _, s := range p.result.drops {
		if err := t.letGo(p, s); err != nil {
			return err
		}
		if !t.policy.MayRead(t.s.self, s.tags) {
			t.rows.set(scrubMark, nil) // the right to read it was withdrawn: no byte of it may stay
		}
		s.drop()
	}
	if shown != nil && shown.expires != 0 && int64(shown.expires) <= t.now && shown.state != slotStub {
		if err := t.expire(p, shown); err != nil {
			return err
		}
	}
	for _, s := range p.slots {
		if !s.changed {
			continue
		}
		if s.data == nil && (s.state == slotHeld || s.state == slotStub) {
			return fmt.Errorf("%w: changed slot without its data", ErrCorrupt) // only a bug gets here
		}
		t.rows.set(slotKey(p.key, s.version), s.encode())
		t.countChunks(p.key, s)
		s.changed = false
	}
	if t.want(p) {
		t.lookAgain(t.now+1, p.key)
	}
	t.schedule(p)
	if path == "" {
		return nil
	}
	return t.show(p, path, shown)
}

// want brings the wants of a path in line with its verdict, as far as the transaction has room for their rows, and tells
// whether some are left. At least one is done for each path, so that it comes to an end.
func (t *turn) want(p *pathState) (left bool) {
	const row = 100 // bytes
	rows := len(t.rows.m)
	left = t.s.wants.update(p.key, p.result.wants, t.rows, max(min(t.s.turnRows-rows, (txnBytes-t.size)/row), 1))
	t.size += row * (len(t.rows.m) - rows)
	return left
}

// nameOf gives the path's name, empty if no entry of it is held.
func (t *turn) nameOf(p *pathState) (string, error) {
	if name := p.name(); name != "" {
		return name, nil
	}
	for _, s := range p.slots {
		if s.has() {
			if err := s.load(t.elsewhere); err != nil {
				return "", t.damaged(err)
			}
			return p.name(), nil
		}
	}
	return "", nil
}

// damaged reports an entry that cannot be read back. The turn goes on without it only in reads; here it is fatal.
func (t *turn) damaged(err error) error {
	if errors.Is(err, ErrCorrupt) {
		t.s.alarm("corrupt", "a stored entry is damaged: "+err.Error())
	}
	return err
}

// expire replaces an entry that is over by its stub.
func (t *turn) expire(p *pathState, s *slot) error {
	data, err := t.data(p, s)
	if err != nil {
		return err
	}
	e, err := record.ParseEntry(data)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := t.letGo(p, s); err != nil {
		return err
	}
	s.state, s.data, s.changed = slotStub, e.Stub(), true
	s.unchunk()
	return nil
}

// data gives the bytes of a held entry.
func (t *turn) data(p *pathState, s *slot) ([]byte, error) {
	switch {
	case s.state == slotElsewhere:
		return t.elsewhere(s.entry)
	case s.data != nil:
		return s.data, nil
	}
	value, err := mustGet(t.view, slotKey(p.key, s.version))
	if err != nil {
		return nil, err
	}
	stored, err := decodeSlot(p.key, s.version, value)
	if err != nil {
		return nil, err
	}
	return stored.data, nil
}

// schedule notes when the path must be looked at again: what falls due or expires to the millisecond, what may be
// dropped to the hour, so that a busy path costs few rows.
func (t *turn) schedule(p *pathState) {
	soonest := int64(0)
	if s := p.result.shown; s != nil && s.expires != 0 && int64(s.expires) > t.now {
		soonest = int64(s.expires)
	}
	sooner := func(ms int64) {
		if soonest == 0 || ms < soonest {
			soonest = ms
		}
	}
	for _, ms := range p.result.changes {
		sooner(ms)
	}
	for _, ms := range p.result.release {
		if ms-t.now <= hour {
			sooner(ms)
			continue
		}
		t.lookAgain((ms/hour+1)*hour, p.key)
	}
	if soonest != 0 {
		t.lookAgain(max(soonest, t.now+1), p.key)
	}
}

// lookAgain has a later turn look at a path.
func (t *turn) lookAgain(ms int64, path record.Tag) {
	t.rows.set(timerKey(ms, path), nil)
	t.s.wakeAt(ms)
}

// shownRow is the value of row v.
type shownRow struct {
	version record.Version
	visible bool // false: deleted or expired
}

func (r shownRow) encode() []byte {
	b := r.version.Append(make([]byte, 0, record.VersionSize+1))
	if r.visible {
		return append(b, 1)
	}
	return append(b, 0)
}

func decodeShown(b []byte) (r shownRow, err error) {
	if len(b) != record.VersionSize+1 {
		return r, fmt.Errorf("%w: view row", ErrCorrupt)
	}
	r.visible = b[record.VersionSize] == 1
	r.version, err = record.VersionFrom(b[:record.VersionSize])
	return r, err
}

// readView reads the view row of a path, unless it is known.
func (t *turn) readView(p *pathState, path string) error {
	if p.view.path == path {
		return nil
	}
	p.view = viewRow{path: path}
	if p.isNew {
		return nil
	}
	value, there, err := t.view.Get(shownKey(path))
	if err != nil || !there {
		return err
	}
	p.view.there = true
	p.view.shownRow, err = decodeShown(value)
	return err
}

// show brings the view row of a path in line with what is shown, and notes the change in digest, count and feed.
func (t *turn) show(p *pathState, path string, shown *slot) error {
	if err := t.readView(p, path); err != nil {
		return err
	}
	old, had := p.view.shownRow, p.view.there
	var now shownRow
	if shown != nil {
		now = shownRow{shown.version, shown.visible(t.now)}
	}
	if now == old || fault.Planted("hlc-only") && had && now.version.HLC == old.version.HLC {
		return nil
	}
	c := &t.s.counters
	if old.visible {
		entry, err := t.entryOf(p, old.version)
		if err != nil {
			return err
		}
		if !fault.Planted("digest-drift") {
			c.viewDigest = subDigest(c.viewDigest, digestTerm(path, old.version, entry))
		}
		c.entries--
	}
	if now.visible {
		c.viewDigest = addDigest(c.viewDigest, digestTerm(path, now.version, shown.entry))
		c.entries++
	}
	p.view = viewRow{path, shown != nil, now}
	if shown == nil {
		t.rows.delete(shownKey(path))
		t.feed = append(t.feed, feedItem{kind: feedGone, path: path})
		return nil
	}
	t.rows.set(shownKey(path), now.encode())
	t.feed = append(t.feed, feedItem{kind: feedShown, key: p.key, version: now.version, path: path})
	return nil
}

func (t *turn) entryOf(p *pathState, v record.Version) (record.ID, error) {
	if s := p.find(v); s != nil {
		return s.entry, nil
	}
	value, err := mustGet(t.view, slotKey(p.key, v))
	if err != nil {
		return record.ID{}, err
	}
	s, err := decodeSlot(p.key, v, value)
	if err != nil {
		return record.ID{}, err
	}
	return s.entry, nil
}
