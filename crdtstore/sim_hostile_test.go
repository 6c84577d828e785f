package crdtstore

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// simKey gives the key of a host by its number.
func simKey(i int) ed25519.PrivateKey { return testKey(simName(i)) }

// simHostile is a member that keeps no rule: it forges, forks, replays, withholds and answers wrongly.
type simHostile struct {
	s           *sim
	key         ed25519.PrivateKey
	known       []*record.Block
	incarnation uint64
	chain       []*record.Block // of the present incarnation
	entries     [][]byte
	writes      []*record.Write // signed by another key of its own
}

func newHostile(s *sim) *simHostile { return &simHostile{s: s, key: simKey(s.evil), incarnation: 1} }

func (h *simHostile) receive(m simMsg) {
	for _, p := range m.parcels {
		if b, err := record.ParseBlock(p.Block); err == nil && len(h.known) < 300 {
			h.known = append(h.known, b)
		}
		h.entries = append(h.entries, p.Entries...)
	}
	reply := simMsg{from: h.s.evil, to: m.from}
	switch m.kind {
	case simVector, simAsk: // as many blocks as it likes, in any order
		reply.kind = simParcels
		for range h.s.rand.IntN(6) {
			if b := h.any(); b != nil {
				reply.parcels = append(reply.parcels, record.Parcel{Block: b.Raw, Entries: h.someEntries()})
			}
		}
		if reply.parcels != nil {
			h.s.send(reply)
		}
	case simWants:
		reply.kind, reply.wants = simAnswers, m.wants
		for range m.wants {
			a := record.Answer{Status: record.AnswerStatus(h.s.rand.IntN(5))}
			if e := h.someEntries(); e != nil {
				a.Entry = e[0]
			}
			reply.answers = append(reply.answers, a)
		}
		h.s.send(reply)
	}
}

func (h *simHostile) any() *record.Block {
	if len(h.known) == 0 {
		return nil
	}
	return h.known[h.s.rand.IntN(len(h.known))]
}

func (h *simHostile) someEntries() (out [][]byte) {
	for range h.s.rand.IntN(3) {
		if len(h.entries) > 0 {
			out = append(out, h.entries[h.s.rand.IntN(len(h.entries))])
		}
	}
	return out
}

// act does one bad thing.
func (h *simHostile) act() {
	s := h.s
	to := s.rand.IntN(len(s.nodes))
	msg := simMsg{from: s.evil, to: to, kind: simParcels}
	switch s.rand.IntN(10) {
	case 0:
		h.incarnation, h.chain = s.rand.Uint64(), nil
		return
	case 1:
		msg.kind, msg.policies = simPolicies, [][]byte{h.policy()}
	case 2:
		msg.parcels = []record.Parcel{{Entries: h.someEntries()}}
		if msg.parcels[0].Entries == nil {
			return
		}
	case 3:
		msg.parcels = []record.Parcel{h.impersonate()}
	default:
		b, entries := h.forge()
		msg.parcels = []record.Parcel{{Block: b.Raw, Entries: entries}}
		s.tracef("hostile block %s", b.Digest)
		if s.chance(2) { // to others too
			other := msg
			other.to = s.rand.IntN(len(s.nodes))
			s.send(other)
		}
	}
	s.send(msg)
}

// policy is its own, or an old one of the admin.
func (h *simHostile) policy() []byte {
	if h.s.chance(2) {
		return h.s.policy.text
	}
	text := fmt.Sprintf("syncagent-policy 1\nnetwork %s\nserial 1000000\nidentity evil %s\nevil / rw\n", h.s.network, record.KeyOf(h.key))
	return acl.Sign([]byte(text), h.s.network, h.key)
}

// impersonate makes a block with the name, not the signature, of another host.
func (h *simHostile) impersonate() record.Parcel {
	e, w := h.write(h.s.model.paths[h.s.rand.IntN(len(h.s.model.paths))])
	w.Author = h.s.keys[0]
	w.Sign(h.key, h.s.network)
	b := &record.Bundle{Origin: h.s.keys[h.s.rand.IntN(len(h.s.keys))], Incarnation: 1, Seq: 1, Writes: []*record.Write{w}}
	links := []record.Digest{record.DigestOf(record.GenesisBlock(h.s.network, 0))}
	b.Sign(h.key, h.s.network, links)
	return record.Parcel{Block: record.EncodeBlock(links, 2, b.Encode()), Entries: [][]byte{e}}
}

// write makes an entry and a write of one slot for a path.
func (h *simHostile) write(path string) ([]byte, *record.Write) {
	s := h.s
	e := &record.Entry{Kind: record.KindPut, Path: path, Value: s.value()}
	if s.chance(4) {
		e.Kind, e.Value = record.KindDelete, nil
	}
	for i := range e.Salt {
		e.Salt[i] = byte(s.rand.Uint32())
	}
	s.model.asked[string(e.Value)] = simAsked{s.evil, path}
	ahead := []int64{0, 0, 0, -3600_000, 300_000, 660_000, 3600_000, 400 * 24 * 3600_000}
	hlc := record.HLCFromMilli(s.now+ahead[s.rand.IntN(len(ahead))]) + record.HLC(s.rand.IntN(3))
	data := e.Encode()
	s.model.entry(data)
	return data, &record.Write{Author: record.KeyOf(h.key), HLC: hlc, Slots: []record.Slot{{Entry: e.ID(), Tags: s.network.Tags(path)}}}
}

// forge makes a valid block with a bad mind.
func (h *simHostile) forge() (*record.Block, [][]byte) {
	s := h.s
	paths := s.rand.Perm(len(s.model.paths))
	data, w := h.write(s.model.paths[paths[0]])
	entries := [][]byte{data}
	switch s.rand.IntN(8) {
	case 0: // a second slot
		more, x := h.write(s.model.paths[paths[1]])
		w.Slots = append(w.Slots, x.Slots[0])
		entries = append(entries, more)
	case 1: // under another path
		w.Slots[0].Tags = s.network.Tags(s.model.paths[paths[1]])
	case 2: // halfway under another path
		w.Slots[0].Tags = []record.Tag{s.network.TagOf("/a"), w.Slots[0].PathKey()}
	case 3: // an old entry again
		if len(h.entries) > 0 {
			old := h.entries[s.rand.IntN(len(h.entries))]
			if e, err := record.ParseEntry(old); err == nil {
				w.Slots[0], entries[0] = record.Slot{Entry: e.ID(), Tags: s.network.Tags(e.Path)}, old
			}
		}
	case 4: // somebody else's entries, or none
		entries = h.someEntries()
	}
	h.entries = append(h.entries, data)
	writes := []*record.Write{w}
	if len(h.writes) > 0 && s.chance(4) {
		writes = append(writes, h.writes[s.rand.IntN(len(h.writes))]) // relayed again
	}
	if s.chance(4) { // one with a signature of its own can be relayed by anybody
		w.Sign(h.key, s.network)
		h.writes = append(h.writes, w)
		writes = writes[:1]
	}
	return h.block(writes), entries
}

// block puts writes on top of blocks that it knows, and on its chain, at the end or where it has gone on already.
func (h *simHostile) block(writes []*record.Write) *record.Block {
	s := h.s
	links := []record.Digest{record.DigestOf(record.GenesisBlock(s.network, 0))}
	priority := uint64(1)
	link := func(b *record.Block) {
		if b == nil || slices.Contains(links, b.Digest) {
			return
		}
		if priority == 1 {
			links = nil
		}
		links, priority = append(links, b.Digest), max(priority, b.Priority)
	}
	for range s.rand.IntN(3) {
		link(h.any())
	}
	u := &record.Bundle{Origin: record.KeyOf(h.key), Incarnation: h.incarnation, Seq: 1, Writes: writes}
	if n := len(h.chain); n > 0 && !s.chance(8) {
		prev := h.chain[n-1]
		if s.chance(5) {
			prev = h.chain[s.rand.IntN(n)]
		}
		u.Seq, u.Prev = prev.Seq+1, prev.Digest
		link(prev)
	}
	slices.SortFunc(links, func(a, b record.Digest) int { return bytes.Compare(a[:], b[:]) })
	u.Sign(h.key, s.network, links)
	b, err := record.ParseBlock(record.EncodeBlock(links, priority+1, u.Encode()))
	if err != nil {
		s.failf("hostile: %v", err)
	}
	h.chain, h.known = append(h.chain, b), append(h.known, b)
	return b
}
