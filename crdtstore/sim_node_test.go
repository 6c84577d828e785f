package crdtstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// simNode is a host: a disk, and while it is up a store whose turns the simulator makes.
type simNode struct {
	sim     *sim
	id      int
	name    string
	key     record.PublicKey
	disk    *memKV
	store   *Store
	joined  bool
	offset  time.Duration // of its wall clock
	boot    int64         // simulated time of its start
	boots   uint64
	stepped int // commits at the last check

	writes  []*simWrite
	ingests []*simIngest
	others  []chan error // requests of which only the outcome matters
	old     *memKV       // an image to roll back to
	armed   int          // commits and syncs until the power fails in the middle of a turn, 0: not armed
	asks    int          // commits and syncs so far
	keep    *int         // commits that survive a power cut, nil: any number

	promised  map[record.ID]bool // writes that it acknowledged on this disk
	texts     map[[32]byte]bool  // policies that it acknowledged
	handed    map[string]bool    // values that clients handed to it
	last      map[string]record.Version
	lastGen   uint64
	before    map[string]record.Version // last, at the beginning of the turns
	beforeGen uint64
	seen      map[record.ID]uint64 // write -> generation of the policy when its slots came
	agent     int64                // agent time when it was looked at last
	durable   int64                // agent time at the last acknowledgement
	watchers  []*simWatcher
}

type simWrite struct {
	author int
	ops    []Op
	relay  *simRelay // nil: the host's own
	done   chan writeResult
}

// again tells whether the write may have been there already when the host was asked for it.
func (w *simWrite) again() bool { return w.relay != nil && w.relay.given > 1 }

type simIngest struct {
	from int
	done chan ingestResult
}

// simDisk lets the model see what is committed.
type simDisk struct {
	*memKV
	n *simNode
}

func (d *simDisk) Commit(r *rows) error {
	if err := d.memKV.Commit(r); err != nil {
		return err
	}
	d.n.learn(r)
	return nil
}

type simClock struct{ n *simNode }

func (c simClock) Now() (time.Time, time.Duration) {
	now := c.n.sim.now
	return time.UnixMilli(now).Add(c.n.offset), time.Duration(now-c.n.boot) * time.Millisecond
}

// start opens the store. It gives false when the power fails meanwhile.
func (n *simNode) start() bool {
	n.boot = n.sim.now
	n.boots++
	var src [32]byte
	binary.BigEndian.PutUint64(src[:], n.sim.seed)
	binary.BigEndian.PutUint64(src[8:], uint64(n.id))
	binary.BigEndian.PutUint64(src[16:], n.boots)
	n.disk.before = n.power
	n.disk.chunks.before = func() error { return n.power("chunk") }
	var s *Store
	err := died(func() (err error) {
		s, err = Open(Options{
			Network: n.sim.network, Key: testKey(n.name), Admins: []record.PublicKey{record.KeyOf(testKey("admin"))},
			Clock: simClock{n}, Rand: rand.NewChaCha8(src), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
			PeerOrigins: 3, window: int(n.sim.seed % 3 * 4), pathBytes: int(n.sim.seed % 2 * 2000), turnRows: int(n.sim.seed % 4 / 3 * 20), // small ones too
			OnCommit: n.announce, OnWants: func() { n.sim.wake(n.id) }, kv: &simDisk{n.disk, n}, chunks: n.disk.chunks,
		})
		return err
	})
	if err != nil {
		if !errors.Is(err, errPower) {
			n.sim.failf("%s does not start: %v", n.name, err)
		}
		n.disk = n.cut()
		n.armed = 0
		return false
	}
	n.store, n.stepped = s, -1
	if err := s.index.fill(s.kv.View(), make(chan struct{})); err != nil {
		n.sim.failf("%s: index: %v", n.name, err)
	}
	n.checkRestart()
	return true
}

// died turns the panic of a step at which a test lets the process die into an error.
func died(fn func() error) (err error) {
	defer func() {
		if r := recover(); r == errPower {
			err = errPower
		} else if r != nil {
			panic(r)
		}
	}()
	return fn()
}

// power is asked before every commit and sync.
func (n *simNode) power(string) error {
	n.asks++
	if n.armed == 0 {
		return nil
	}
	if n.armed--; n.armed > 0 {
		return nil
	}
	n.armed = -1
	return errPower
}

// drive makes turns until the host has nothing to do. False means that the power failed.
func (n *simNode) drive() {
	s := n.store
	if s == nil {
		return
	}
	n.before, n.beforeGen = n.last, n.lastGen
	for turns := 0; ; turns++ {
		if err := died(func() error { return n.step(turns) }); err != nil {
			if !errors.Is(err, errPower) {
				n.sim.failf("%s: a turn failed: %v", n.name, err)
			}
			n.crash()
			return
		}
		n.check()
		if !n.tend() {
			n.crash()
			return
		}
		if !s.busy() && (s.wake == 0 || s.wake > s.tick()) {
			if len(s.queue.writes) == 0 {
				break
			}
			n.sim.now++ // they wait for company
		}
		if turns > 2000 {
			n.sim.failf("%s does not come to rest", n.name)
		}
	}
	n.collect()
}

// step makes a turn, sometimes of one write although more wait, and concludes it, or leaves it open beside the next one.
func (n *simNode) step(turn int) error {
	s, choice := n.store, turn+int(n.boots)
	var wait []*writeRequest
	if w := s.queue.writes; len(w) > 1 && choice%2 == 0 {
		s.queue.writes, wait = w[:1:1], w[1:]
	}
	err := s.step()
	s.queue.writes = append(s.queue.writes, wait...)
	if err != nil || s.busy() && choice%3 != 0 {
		return err
	}
	return s.conclude()
}

// collect reads the answers to what the host was asked.
func (n *simNode) collect() {
	for _, w := range n.writes {
		select {
		case r := <-w.done:
			n.acknowledged(w, r)
		default:
			n.sim.failf("%s did not answer a write", n.name)
		}
	}
	for _, in := range n.ingests {
		select {
		case r := <-in.done:
			if r.err != nil {
				n.sim.failf("%s: ingest: %v", n.name, r.err)
			}
			if r.Invalid != nil && in.from != n.sim.evil {
				n.sim.failf("%s: invalid block of an honest host: %v", n.name, r.Invalid)
			}
			if len(r.Missing) > 0 {
				n.sim.send(simMsg{from: n.id, to: in.from, kind: simAsk, digests: r.Missing})
			}
		default:
			n.sim.failf("%s did not answer an ingest", n.name)
		}
	}
	for _, done := range n.others {
		select {
		case err := <-done:
			if err != nil && n.sim.evil < 0 {
				n.sim.failf("%s: answer: %v", n.name, err)
			}
		default:
			n.sim.failf("%s did not answer", n.name)
		}
	}
	n.writes, n.ingests, n.others = nil, nil, nil
}

// crash cuts the power: of the commits since the last sync some reached the disk.
func (n *simNode) crash() {
	s := n.store
	n.store = nil
	for _, w := range n.writes { // some were answered before the power failed
		select {
		case r := <-w.done:
			n.noteAcknowledged(w, r)
		default:
		}
	}
	n.writes, n.ingests, n.others = nil, nil, nil
	if err := s.engine.close(); err != nil {
		n.sim.failf("%s: %v", n.name, err)
	}
	n.armed = 0
	n.disk = n.cut()
	n.last = map[string]record.Version{}
	n.sim.tracef("crash %s", n.name)
}

// cut gives the disk after a power cut: some of the commits since the last sync, or as many as a test says.
func (n *simNode) cut() *memKV {
	keep := n.sim.rand.IntN(len(n.disk.commits) + 1)
	if n.keep != nil {
		keep = *n.keep
	}
	return n.disk.powerCut(keep)
}

// rollback starts the host from an old image.
func (n *simNode) rollback() {
	if n.store != nil {
		n.crash()
	}
	n.disk = n.old.powerCut(1 << 30)
	n.seen, n.promised = map[record.ID]uint64{}, map[record.ID]bool{}
	n.texts = map[[32]byte]bool{}
	n.agent, n.durable = 0, 0
	n.sim.model.lost[n.id] = true
	for id := range n.sim.model.acked {
		if !n.sim.heldAnywhere(id) { // it was only here, or with others who have not synced it yet
			delete(n.sim.model.acked, id)
		}
	}
	n.sim.tracef("rollback %s", n.name)
}

// learn shows the model what the host commits: blocks, entries, which slots it has.
func (n *simNode) learn(r *rows) {
	m := n.sim.model
	var blocks []*record.Block
	for k, v := range r.m {
		if v == nil {
			continue
		}
		switch k[0] {
		case 'b':
			if b, err := record.ParseBlock(v); err == nil && b.Bundle != nil {
				blocks = append(blocks, b)
			}
		case 'e':
			m.entry(v)
		case 's':
			path, version, _ := parseSlotKey([]byte(k))
			if s, err := decodeSlot(path, version, v); err == nil && (s.state == slotHeld || s.state == slotStub) {
				m.entry(s.data)
			}
			if _, ok := n.seen[version.Write]; !ok && n.store != nil {
				n.seen[version.Write] = n.store.counters.generation
			}
		}
	}
	slices.SortFunc(blocks, func(a, b *record.Block) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	for _, b := range blocks {
		for _, w := range b.Writes {
			m.wrote(w)
		}
	}
}

func (m *simModel) entry(data []byte) {
	if e, err := record.ParseEntry(slices.Clone(data)); err == nil {
		m.entries[e.ID()] = e
	}
	if e, _, id, err := record.ParseStub(slices.Clone(data)); err == nil && m.entries[id] == nil {
		m.entries[id] = e // expired when it was written: nobody ever sees its value
	}
}

func (m *simModel) wrote(w *record.Write) {
	id := w.ID()
	if m.writes[id] == nil {
		m.writes[id] = w
		m.order = append(m.order, id)
	}
}

// put asks the host to write.
func (n *simNode) put(ops []Op) {
	if n.store == nil {
		return
	}
	taken := slices.Clone(ops)
	pins, ok := n.upload(taken)
	if !ok {
		n.crash()
		return
	}
	req, err := n.store.request(taken)
	if err != nil {
		n.store.chunks.unpin(pins)
		return
	}
	req.chunks, req.pins = n.store.chunks, pins
	for _, op := range ops {
		if !op.Delete {
			asked := simAsked{n.id, op.Path}
			n.sim.model.asked[string(op.Value)] = asked
			n.sim.model.asked[string(op.Value[:min(len(op.Value), len(valueMark)+16)])] = asked // as it is found on a disk
		}
	}
	n.writes = append(n.writes, &simWrite{n.id, ops, nil, req.done})
	n.store.queue.add(req)
}

// offer hands the host a policy, as SetPolicy does.
func (n *simNode) offer(text []byte) {
	if n.store == nil {
		return
	}
	p := n.sim.signed(text)
	if p == nil {
		return
	}
	done := make(chan error, 1)
	n.others = append(n.others, done)
	n.store.queue.add(&policyRequest{signed: p, done: done})
}

// signed gives a text that the admin signed, nil otherwise. Every text is looked at once.
func (s *sim) signed(text []byte) *acl.Signed {
	p, seen := s.parsed[string(text)]
	if seen {
		return p
	}
	p, err := acl.ParseSigned(text)
	if err == nil {
		if _, ok := p.SignedBy(s.network, s.genesis.Admins); !ok {
			p = nil
		}
	}
	s.parsed[string(text)] = p
	return p
}
