package crdtstore

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"syncagent/acl"
	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// Bounds of one turn. A transaction of badger with our settings holds about 1.2 MB. The largest block makes twice as much:
// parts.go commits that, at the price of two syncs.
const (
	turnBytes   = 700 << 10  // a turn takes no further item beyond this
	txnBytes    = 1100 << 10 // what a turn is planned to stay below
	turnRows    = 6_000      // with more of them the wants of a path are left to later turns; a transaction holds 13,000
	turnBlocks  = 512        // foreign blocks
	turnShare   = 4          // of them of one request, before others have their turn, and of one peer while local writes come
	turnPaths   = 512        // paths that are judged anew after a policy change
	turnSlots   = 8192       // slots that are looked at for it, but all of a path
	inlineEntry = 32 << 10   // a larger entry has a row of its own
	pathWindow  = 64         // slots of a path that a turn looks at, unless it needs more; a fourth if all are of one author
	maxHeads    = 1000       // a block links all heads, and may have record.MaxLinks
	hour        = int64(3600_000)
)

// turn collects the changes of one commit: foreign blocks, entries, policy, what fell due, local writes. It reads one
// view, and nothing that it does can be seen before the commit. If it fails the process stops and starts again from
// the state before it, so it may change the owner's memory as it goes.
type turn struct {
	s       *Store
	view    view
	now     int64 // agent time, Unix milliseconds
	policy  *acl.Policy
	paths   map[record.Tag]*pathState
	touched []record.Tag           // all of them in order, in the end
	blind   map[record.Tag][]*slot // new slots of paths that this agent may not read
	dag     *dagState
	fresh   map[record.Digest]*record.Block // blocks of this turn
	foreign []*record.Block                 // the same in the order in which go-ds-crdt gets them
	rows    *rows
	spill   map[record.ID][]byte // entries that go into rows of their own before the commit
	size    int                  // bytes of rows that are certain to come
	feed    []feedItem
	local   []*localWrite
	repeats []repeat     // requests for what is held already
	used    [][]chunkRef // chunks of values that the turn took in
	unused  [][]chunkRef // and of those that it dropped
	out     []record.Outgoing
}

func (s *Store) newTurn() *turn {
	return &turn{
		s: s, view: s.kv.View(), now: s.tick(), policy: s.Policy(),
		paths: make(map[record.Tag]*pathState), blind: make(map[record.Tag][]*slot), dag: s.last.clone(),
		fresh: make(map[record.Digest]*record.Block), rows: newRows(), spill: make(map[record.ID][]byte),
	}
}

func (t *turn) rules() *rules {
	return &rules{
		now: t.now, history: t.s.history, voided: t.s.counters.voided,
		allowed: func(s *slot) bool {
			return fault.Planted("anybody-writes") || t.policy.Allowed(s.author, s.tags, s.version)
		},
		reads: func(s *slot) bool { return t.policy.MayRead(t.s.self, s.tags) },
		ready: func(id record.ID) bool { return t.s.unready[id] == nil || fault.Planted("show-unready") },
	}
}

// elsewhere reads an entry that has a row of its own.
func (t *turn) elsewhere(id record.ID) ([]byte, error) {
	if b, ok := t.spill[id]; ok {
		return b, nil
	}
	return mustGet(t.view, entryKey(id))
}

// block takes a foreign block whose signatures were checked. Entries come with it, by ID. It returns a
// *record.MissingError if the block must wait, and an error wrapping record.ErrFormat if it is invalid.
func (t *turn) block(b *record.Block, entries map[record.ID][]byte) (isNew bool, err error) {
	if known, err := t.has(b); err != nil || known || t.s.aside[b.Digest] {
		return false, err
	}
	if err := t.checkLinks(b); err != nil {
		return false, err
	}
	if err := t.noteFork(b); err != nil {
		return false, err
	}
	t.accept(b)
	t.foreign = append(t.foreign, b)
	for _, w := range b.Writes {
		t.plan(w.Slots, func(i int) []byte { return entries[w.Slots[i].Entry] })
	}
	for _, w := range b.Writes {
		if err := t.write(w, b.Origin == t.s.self, entries); err != nil {
			return false, err
		}
	}
	return true, nil
}

// plan counts the rows that slots will make, but for their values, before any value is placed: what is left of the
// transaction is for values, the others get rows of their own.
func (t *turn) plan(slots []record.Slot, entry func(i int) []byte) {
	for i := range slots {
		t.size += 440 + 16*len(slots[i].Tags) + min(len(entry(i)), record.MaxPath+100)
	}
}

// accept adds the rows that every block has.
func (t *turn) accept(b *record.Block) {
	t.fresh[b.Digest] = b
	t.dag.add(b)
	t.rows.set(blockKey(b.Digest), b.Raw)
	if b.Bundle != nil {
		t.rows.set(chainKey(chainID{b.Origin, b.Incarnation}, b.Seq, b.Digest), u64(b.Priority))
	}
	t.size += len(b.Raw) + 130
	t.s.headers.Add(b.Digest, b.Header())
	t.s.counters.blocks++
}

// noteFork reports a second block for one number of a chain, naming both: they are held, and their signatures are the
// proof. Both count.
func (t *turn) noteFork(b *record.Block) error {
	id := chainID{b.Origin, b.Incarnation}
	if id == t.s.chain {
		// Our own key and incarnation, but not from this store: it was rolled back, or the identity is used twice.
		t.s.alarm("identity-reused", "a block signed by this agent came back that this store does not have; "+
			"the store was rolled back or another agent uses the same identity.key")
		t.s.renew = true
		return nil
	}
	if t.madeByTwin(b) {
		t.s.alarm("identity-reused", "another agent writes with this agent's identity.key, since this one was started; "+
			"stop one of them, remove its identity.key and run syncagent join there again")
	}
	if c, ok := t.dag.chains[id]; !ok || b.Seq > c.seq {
		return nil
	}
	var other record.Digest
	for _, f := range t.fresh {
		if f.Bundle != nil && f.Origin == b.Origin && f.Incarnation == b.Incarnation && f.Seq == b.Seq {
			other = f.Digest
		}
	}
	number := chainKey(id, b.Seq, record.Digest{})
	err := t.view.Scan(number[:len(number)-32], nil, false, func(k, _ []byte) (bool, error) {
		_, _, other, _ = parseChainKey(k)
		return false, nil
	})
	t.s.alarm("fork", fmt.Sprintf("%s signed two blocks with number %d, %s and %s; its store was rolled back, "+
		"its identity is used twice, or it is hostile", b.Origin, b.Seq, b.Digest, other))
	return err
}

// madeByTwin tells whether a block has a write of our key, of another store, that is newer than the start of this one.
// What this host itself wrote into a store that it lost is older; a minute is for clocks that differed.
func (t *turn) madeByTwin(b *record.Block) bool {
	since := t.s.opened + time.Minute.Milliseconds()
	return b.Bundle != nil && b.Origin == t.s.self && slices.ContainsFunc(b.Writes, func(w *record.Write) bool {
		return w.Author == t.s.self && w.HLC.Milli() > since
	})
}

// has tells whether a block is held, in this turn too.
func (t *turn) has(b *record.Block) (bool, error) {
	if t.dag.ahead(b) {
		return false, nil
	}
	if t.fresh[b.Digest] != nil || t.s.headers.Contains(b.Digest) {
		return true, nil
	}
	_, ok, err := t.view.Get(blockKey(b.Digest))
	return ok, err
}

// checkLinks holds a block against those that it names. One that is here and cannot be read is not missing: no peer could
// help.
func (t *turn) checkLinks(b *record.Block) error {
	var failed error
	err := b.CheckLinks(func(d record.Digest) (h record.Header, ok bool) {
		if failed == nil {
			h, ok, failed = t.header(d)
		}
		return h, ok
	})
	return cmp.Or(failed, err)
}

// header gives the header of a held block.
func (t *turn) header(d record.Digest) (h record.Header, ok bool, err error) {
	if h, ok := t.s.headers.Get(d); ok {
		return h, true, nil
	}
	raw, ok, err := t.view.Get(blockKey(d))
	if err != nil || !ok {
		return h, false, err
	}
	b, err := record.ParseBlock(raw)
	if err != nil {
		b, err = record.ParseGenesisBlock(raw, t.s.network, 0)
	}
	if err != nil || b.Digest != d {
		t.s.alarm("corrupt", "a stored block does not have its digest; the store is damaged")
		return h, false, fmt.Errorf("%w: block %s does not have its digest", ErrCorrupt, d)
	}
	t.s.headers.Add(d, b.Header())
	return b.Header(), true, nil
}

// write takes the slots of a foreign write. One that is held already (another agent relayed it too) adds nothing. Own
// says that this agent made or relayed it, in a store that it lost since: it keeps such entries without the right to
// read them.
func (t *turn) write(w *record.Write, own bool, entries map[record.ID][]byte) error {
	id := w.ID()
	first := record.Version{HLC: w.HLC, Write: id}
	known, err := t.hasSlot(w.Slots[0].PathKey(), first)
	if err != nil || known {
		return err
	}
	lacks := -1 // a slot that is waited for
	for i := range w.Slots {
		v := record.Version{HLC: w.HLC, Write: id, Index: uint16(i)}
		s := &slot{version: v, author: w.Author, tags: w.Slots[i].Tags, entry: w.Slots[i].Entry, own: own, changed: true}
		if !own && !t.policy.MayRead(t.s.self, s.tags) {
			// None of our business: the row says where it belongs, no byte of path or value is kept.
			s.changed = false
			t.s.index.add(w.Slots[i].PathKey())
			t.s.paths.drop(w.Slots[i].PathKey())
			t.rows.set(slotKey(w.Slots[i].PathKey(), v), s.encode())
			t.blind[w.Slots[i].PathKey()] = append(t.blind[w.Slots[i].PathKey()], s)
			if t.counted(w.Slots[i].PathKey()) {
				t.s.counters.withheld++
			}
			if p := t.paths[w.Slots[i].PathKey()]; p != nil {
				p.insert(s)
			}
			continue
		}
		p, err := t.path(w.Slots[i].PathKey(), false)
		if err != nil {
			return err
		}
		p.insert(s)
		if !t.policy.Allowed(s.author, s.tags, s.version) {
			continue // what its author may not write is not stored; a later policy makes it a want
		}
		if data := t.s.early.take(s.entry, entries); data != nil {
			if err := t.deliver(p, s, data); err != nil {
				return err
			}
		}
		if !s.holds() && s.state != slotVoid && t.policy.MayRead(t.s.self, s.tags) {
			lacks = i
		}
	}
	if lacks >= 0 {
		t.s.addUnready(&unreadyWrite{id: id, hlc: w.HLC, arrived: t.now, paths: pathKeys(w), lacks: lacks}, t.rows)
	}
	return nil
}

func pathKeys(w *record.Write) []record.Tag {
	keys := make([]record.Tag, len(w.Slots))
	for i := range w.Slots {
		keys[i] = w.Slots[i].PathKey()
	}
	return keys
}

func (t *turn) hasSlot(path record.Tag, v record.Version) (bool, error) {
	p := t.paths[path]
	if p == nil && t.s.paths.holds(path) {
		var err error
		if p, err = t.path(path, false); err != nil {
			return false, err
		}
	}
	switch {
	case p != nil && p.find(v) != nil:
		return true, nil
	case p != nil && p.reaches(v) || p == nil && t.s.index.isNew(path):
		return false, nil
	}
	k := slotKey(path, v)
	if _, ok := t.rows.m[string(k)]; ok {
		return true, nil
	}
	_, ok, err := t.view.Get(k)
	return ok, err
}

// errWrongEntry says that bytes from outside are not the entry that was asked for.
var errWrongEntry = errors.New("not the entry that the slot names")

// deliver gives a slot its entry, or the stub of one that expired. An entry whose path does not give the slot's tags
// makes the slot void.
func (t *turn) deliver(p *pathState, s *slot, data []byte) error {
	e, _, isStub, err := parseHeld(s.entry, data)
	if err != nil {
		return err
	}
	p.dirty = true
	s.changed = true
	if !(&record.Slot{Entry: s.entry, Tags: s.tags}).Matches(t.s.network, e.Path) {
		s.state, s.data = slotVoid, nil
		return nil
	}
	s.describe(e)
	s.lacking = s.chunked && !isStub && !t.s.carriedOver(p.key, s.chunks)
	return t.keep(s, data, isStub)
}

// parseHeld reads an entry or a stub that must have this ID. Both begin alike; the ID tells them apart.
func parseHeld(id record.ID, data []byte) (e *record.Entry, size int64, isStub bool, err error) {
	if e, err := record.ParseEntry(data); err == nil && e.ID() == id {
		return e, e.Size(), false, nil
	}
	if e, size, got, err := record.ParseStub(data); err == nil && got == id {
		return e, int64(size), true, nil
	}
	return nil, 0, false, errWrongEntry
}

// keep decides where the bytes of an entry go: into the slot's row, or, when they are many, into a row of their own.
func (t *turn) keep(s *slot, data []byte, isStub bool) error {
	s.changed = true
	switch {
	case isStub:
		s.state, s.data = slotStub, data
	case len(data) <= inlineEntry && t.size+len(data) <= txnBytes:
		s.state, s.data = slotHeld, data
	default:
		s.state, s.data = slotElsewhere, nil
		return t.putAside(s.entry, data)
	}
	t.size += len(data)
	return nil
}

// entry takes an entry that came without its block: pushed, or as the answer to a want.
func (t *turn) entry(from record.PublicKey, data []byte) error {
	path, ids, err := entryIDs(data)
	if err != nil {
		return err
	}
	tags := t.s.network.Tags(path)
	if !t.policy.MayRead(t.s.self, tags) {
		return nil // its sender has another policy; ours says that no byte of it may lie here
	}
	p, err := t.path(tags[len(tags)-1], false)
	if err != nil {
		return err
	}
	for _, s := range p.slots {
		if !slices.Contains(ids, s.entry) {
			continue
		}
		if s.state != slotAbsent || !t.policy.Allowed(s.author, s.tags, s.version) {
			return nil // held already, or not to be held
		}
		return t.deliver(p, s, data)
	}
	t.s.early.add(from, ids, data)
	return nil
}

// entryIDs gives the path of an entry or stub and the IDs that it may stand for.
func entryIDs(data []byte) (path string, ids []record.ID, err error) {
	e, err := record.ParseEntry(data)
	if err == nil {
		path, ids = e.Path, append(ids, e.ID())
		if len(e.Value) != sha256.Size {
			return path, ids, nil // a stub ends in a hash
		}
	}
	if stub, _, id, stubErr := record.ParseStub(data); stubErr == nil {
		path, ids, err = stub.Path, append(ids, id), nil
	}
	return path, ids, err
}

// answer takes a peer's answer to a want.
func (t *turn) answer(from record.PublicKey, w record.Want, a record.Answer) error {
	if a.Status != record.Here && a.Status != record.HereStub {
		t.s.wants.refused(from, w, t.now)
		return nil
	}
	p, s, err := t.slot(w.PathKey, w.Version)
	if err != nil {
		return err
	}
	if s == nil || s.state != slotAbsent || s.entry != w.Entry || !t.policy.MayRead(t.s.self, s.tags) ||
		!t.policy.Allowed(s.author, s.tags, s.version) {
		return nil // no longer wanted
	}
	if err := t.deliver(p, s, a.Entry); err != nil {
		t.s.wants.refused(from, w, t.now)
		return err
	}
	return nil
}
