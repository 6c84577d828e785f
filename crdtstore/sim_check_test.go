package crdtstore

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"syncagent/crdtstore/record"
)

// noteAcknowledged tells the model that a write is promised.
func (n *simNode) noteAcknowledged(w *simWrite, r writeResult) {
	if r.err != nil {
		return
	}
	m := n.sim.model
	made := m.writes[r.version.Write]
	if made == nil || len(made.Slots) != len(w.ops) {
		n.sim.failf("%s acknowledged %s, which it did not commit", n.name, r.version)
	}
	m.acked[r.version.Write], n.promised[r.version.Write] = n.id, true
	n.durable = max(n.durable, n.agent)
}

// acknowledged holds what an answer to a write must be.
func (n *simNode) acknowledged(w *simWrite, r writeResult) {
	n.noteAcknowledged(w, r)
	m, rights := n.sim.model, n.rights()
	if errors.Is(r.err, ErrDenied) {
		for _, op := range w.ops {
			if !m.mayWrite(rights, w.author, op.Path, forever) {
				return
			}
		}
		n.sim.failf("%s was denied a write that the policy allows", n.name)
	}
	if r.err != nil {
		if !errors.Is(r.err, ErrPrecondition) && !errors.Is(r.err, ErrNotFound) && !errors.Is(r.err, ErrNoPolicy) {
			n.sim.failf("%s: write: %v", n.name, r.err)
		}
		return
	}
	n.sim.tracef("%s wrote %s", n.name, r.version)
	made := m.writes[r.version.Write]
	for i, op := range w.ops {
		e := m.entries[made.Slots[i].Entry]
		if e == nil || e.Path != op.Path || !bytes.Equal(e.Value, entryValue(op.Value)) && op.Expires.IsZero() || m.pathOf(&made.Slots[i]) != op.Path {
			n.sim.failf("%s stored something else than %s: %v", n.name, op.Path, e)
		}
		v := r.version
		v.Index = uint16(i)
		if old := n.before[op.Path]; !w.again() && n.lastGen == n.beforeGen && old.Compare(v) >= 0 {
			n.sim.failf("G3: %s showed %s at %s, then wrote %s", n.name, old, op.Path, v)
		}
	}
	if !w.again() && made.HLC.Milli() > n.agent+dueAhead.Milliseconds()+1 {
		n.sim.failf("HLC: %s wrote %s at agent time %d", n.name, r.version, n.agent)
	}
}

func (n *simNode) rights() simRights { return n.sim.model.rights(slices.Collect(maps.Keys(n.texts))) }

// check holds the invariants that hold after every turn.
func (n *simNode) check() {
	s := n.store
	now := s.tick()
	if now < n.agent {
		n.sim.failf("agent time of %s went back from %d to %d", n.name, n.agent, now)
	}
	n.agent = now
	for _, p := range s.texts {
		n.texts[p.Hash] = true
	}
	if n.disk.commitN == n.stepped {
		return
	}
	n.stepped = n.disk.commitN
	r := n.rights()
	if p := s.Policy(); r.simPolicy != nil && (p == nil || p.Hash() != r.hash) {
		n.sim.failf("%s has another policy in force than %d", n.name, r.serial)
	}
	n.checkHeads()
	n.checkPaths()
	shown := n.shown()
	if s.counters.judged == n.lastGen {
		for path, old := range n.last {
			if now, ok := shown[path]; !ok || old.Compare(now.version) > 0 {
				n.sim.failf("G4: %s went back at %s from %s to %s", n.name, path, old, now.version)
			}
		}
	}
	n.lastGen, n.last = s.counters.judged, map[string]record.Version{}
	for path, row := range shown {
		n.last[path] = row.version
	}
	n.checkList(r)
	if s.counters.judged == s.counters.generation {
		n.checkAtomic(r, shown)
	}
}

// checkHeads holds the heads against those of go-ds-crdt, and against what the rows say.
func (n *simNode) checkHeads() {
	theirs, err := n.store.engine.heads()
	if err != nil {
		n.sim.failf("%s: %v", n.name, err)
	}
	ours := n.store.last.sortedHeads()
	slices.SortFunc(theirs, func(a, b record.Digest) int { return bytes.Compare(a[:], b[:]) })
	if !slices.Equal(ours, theirs) {
		n.sim.failf("%s has heads %v, go-ds-crdt has %v", n.name, ours, theirs)
	}
	v := n.disk.View()
	defer v.Close()
	if stored, err := storedHeads(v); err != nil || !slices.Equal(ours, stored) {
		n.sim.failf("%s has heads %v, its rows say %v, %v", n.name, ours, stored, err)
	}
}

// shown reads the view rows and holds the counters against them.
func (n *simNode) shown() map[string]shownRow {
	v := n.disk.View()
	defer v.Close()
	var digest [32]byte
	var visible uint64
	out := map[string]shownRow{}
	err := v.Scan([]byte{'v'}, nil, false, func(k, value []byte) (bool, error) {
		row, err := decodeShown(value)
		if err != nil {
			return false, err
		}
		path := string(k[1:])
		out[path] = row
		if row.visible {
			slot := n.sim.model.writes[row.version.Write].Slots[row.version.Index]
			digest = addDigest(digest, digestTerm(path, row.version, slot.Entry))
			visible++
		}
		return true, nil
	})
	c := n.store.counters
	if err != nil || visible != c.entries || digest != c.viewDigest {
		n.sim.failf("%s: counters say %d entries, the rows %d, or the digest is wrong (%v)", n.name, c.entries, visible, err)
	}
	return out
}

// checkList holds G6 and G7 for what readers see: everything is what somebody wrote who may, where this host may read.
func (n *simNode) checkList(r simRights) {
	m := n.sim.model
	for _, item := range n.list("/") {
		w := m.writes[item.Version.Write]
		if w == nil || int(item.Version.Index) >= len(w.Slots) {
			n.sim.failf("%s shows %s at %s, which nobody wrote", n.name, item.Version, item.Path)
		}
		slot := &w.Slots[item.Version.Index]
		author := m.number(w.Author)
		e, value := m.entries[slot.Entry], n.content(&item)
		switch {
		case m.pathOf(slot) != item.Path || item.Author != w.Author || item.Entry != slot.Entry || e == nil || !bytes.Equal(entryValue(value), e.Value):
			n.sim.failf("%s shows something else at %s than %s says", n.name, item.Path, item.Version)
		case !m.allowed(r, author, item.Path, item.Version):
			n.sim.failf("G6: %s shows %s at %s, whose author n%d may not write there", n.name, item.Version, item.Path, author)
		case !m.reads(r, n.id, item.Path):
			n.sim.failf("G7: %s shows %s, which it may not read", n.name, item.Path)
		case w.HLC.Milli() > n.agent+dueAhead.Milliseconds():
			n.sim.failf("%s shows %s at %s before it is due", n.name, item.Version, item.Path)
		}
		if asked, ok := m.asked[string(value)]; author != n.sim.evil && (!ok || asked.host != author || asked.path != item.Path) {
			n.sim.failf("%s shows a value at %s that nobody asked n%d for", n.name, item.Path, author)
		}
	}
}

func (n *simNode) list(prefix string) []Item {
	snap, err := n.store.Snapshot()
	if err != nil {
		n.sim.failf("%s: %v", n.name, err)
	}
	defer snap.Close()
	var items []Item
	if err := snap.List(prefix, true, func(i Item) error { items = append(items, i); return nil }); err != nil {
		n.sim.failf("%s: list: %v", n.name, err)
	}
	return items
}

// checkAtomic holds G5: of a write that shows anywhere, everything shows that is allowed and readable here, unless
// something newer does. After a policy change slots may come one by one.
func (n *simNode) checkAtomic(r simRights, shown map[string]shownRow) {
	m := n.sim.model
	for _, row := range shown {
		w := m.writes[row.version.Write]
		if len(w.Slots) == 1 || n.seen[row.version.Write] != n.store.counters.generation ||
			n.agent-w.HLC.Milli() > horizon.Milliseconds() {
			continue
		}
		for i := range w.Slots {
			path := m.pathOf(&w.Slots[i])
			v := record.Version{HLC: w.HLC, Write: row.version.Write, Index: uint16(i)}
			if path != "" && shown[path].version.Compare(v) < 0 &&
				m.reads(r, n.id, path) && m.allowed(r, m.number(w.Author), path, v) {
				n.sim.failf("G5: %s shows a part of write %s, but not %s", n.name, v.WriteString(), path)
			}
		}
	}
}

// checkRestart holds what must be there after a start: what was acknowledged, whole writes, policies.
func (n *simNode) checkRestart() {
	m := n.sim.model
	for _, id := range m.order {
		held := n.heldSlots(id)
		if held != 0 && held != len(m.writes[id].Slots) {
			n.sim.failf("%s has %d of %d slots of write %s", n.name, held, len(m.writes[id].Slots), id)
		}
		if n.promised[id] && held == 0 {
			n.sim.failf("G1: %s lost write %s, which it acknowledged", n.name, id)
		}
	}
	r := n.rights()
	if p := n.store.Policy(); r.simPolicy != nil && (p == nil || p.Serial() < r.serial) {
		n.sim.failf("%s lost policy %d", n.name, r.serial)
	}
	if n.store.tick() < n.durable {
		n.sim.failf("agent time of %s went back over a restart, from %d to %d", n.name, n.durable, n.store.tick())
	}
	n.agent = n.store.tick()
}

func (n *simNode) heldSlots(id record.ID) int { return n.slotsIn(n.disk.View(), id) }

func (n *simNode) slotsIn(v view, id record.ID) int {
	defer v.Close()
	w, held := n.sim.model.writes[id], 0
	for i := range w.Slots {
		if _, ok, _ := v.Get(slotKey(w.Slots[i].PathKey(), record.Version{HLC: w.HLC, Write: id, Index: uint16(i)})); ok {
			held++
		}
	}
	return held
}

// heldAnywhere tells whether a write survives if all hosts lose power now.
func (s *sim) heldAnywhere(id record.ID) bool {
	return slices.ContainsFunc(s.nodes, func(n *simNode) bool { return n.slotsIn(&memView{n.disk.synced}, id) > 0 })
}

// checkSent holds G7 on the wire: no entry goes to who may not read it by the sender's policy.
func (n *simNode) checkSent(msg simMsg) {
	r := n.rights()
	for _, p := range n.store.texts {
		if n.sim.model.policies[p.Hash] == nil {
			n.sim.failf("%s has a policy that no admin signed", n.name)
		}
	}
	hold := func(data []byte) {
		path, _, err := entryIDs(data)
		if err != nil || !n.sim.model.reads(r, msg.to, path) {
			n.sim.failf("G7: %s sends n%d an entry of %s", n.name, msg.to, path)
		}
	}
	for _, p := range msg.parcels {
		for _, e := range p.Entries {
			hold(e)
		}
	}
	for i, a := range msg.answers {
		switch {
		case a.Entry == nil:
		case msg.kind != simChunks:
			hold(a.Entry)
		case !n.sim.model.reads(r, msg.to, n.sim.model.pathAt[msg.chunkWants[i].PathKey]):
			n.sim.failf("G7: %s sends n%d a chunk of %s", n.name, msg.to, n.sim.model.pathAt[msg.chunkWants[i].PathKey])
		}
	}
}

// checkDisk holds G7 at rest: no value lies where it may not be read, except at its origin.
func (n *simNode) checkDisk() string {
	if n.store.counters.judged != n.store.counters.generation {
		return ""
	}
	r := n.rights()
	problem := ""
	look := func(where string, data []byte) bool {
		for rest := data; problem == ""; {
			i := bytes.Index(rest, []byte(valueMark))
			if i < 0 {
				return true
			}
			end := i + len(valueMark) + 16
			value := string(rest[i:end]) //nolint:staticcheck // it is used twice more
			asked, ok := n.sim.model.asked[value]
			rest = rest[end:]
			if ok && asked.host != n.id && !n.handed[value] && !n.sim.model.reads(r, n.id, asked.path) {
				problem = fmt.Sprintf("G7: a value of %s lies on the disk of %s in %s", asked.path, n.name, where)
			}
		}
		return false
	}
	n.disk.rows.Scan(func(row memRow) bool { return look(fmt.Sprintf("row %q", row.key[:1]), row.value) })
	for _, ref := range n.disk.chunks.refs() {
		if look("a chunk", n.disk.chunks.files[ref]); problem == "" && !n.store.chunks.isUsed(ref) {
			problem = fmt.Sprintf("a chunk that nobody needs lies on the disk of %s", n.name)
		}
	}
	return problem
}
