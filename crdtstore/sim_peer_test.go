package crdtstore

import (
	"context"
	"slices"

	"syncagent/crdtstore/record"
)

// receive handles one message.
func (n *simNode) receive(m simMsg) {
	s, sim := n.store, n.sim
	for _, text := range m.policies {
		n.offer(text)
	}
	if m.kind == simPolicies || !s.Policy().Member(sim.keys[m.from]) {
		return
	}
	peer := sim.keys[m.from]
	switch m.kind {
	case simParcels:
		req := &ingestRequest{from: peer, done: make(chan ingestResult, 1)}
		var invalid, err error
		req.parcels, _, invalid, err = s.check(peer, m.parcels)
		if err != nil {
			sim.failf("%s: %v", n.name, err)
		}
		if invalid != nil && m.from != sim.evil {
			sim.failf("%s: parcel of an honest host: %v", n.name, invalid)
		}
		if len(req.parcels) > 0 {
			n.ingests = append(n.ingests, &simIngest{m.from, req.done})
			s.queue.add(req)
		}
	case simVector:
		n.answerVector(m)
	case simAsk:
		n.stream(m.from, func(send func(record.Parcel) error) error {
			return s.Ancestors(context.Background(), m.digests, peer, send)
		})
	case simWants:
		sim.send(simMsg{from: n.id, to: m.from, kind: simAnswers, wants: m.wants, answers: s.Serve(peer, m.wants)})
	case simAnswers:
		done := make(chan error, 1)
		n.others = append(n.others, done)
		s.queue.add(&answerRequest{from: peer, wants: m.wants, answers: m.answers, done: done})
	case simChunkWants:
		n.serveChunks(m)
	case simChunks:
		n.takeChunks(m)
	}
}

func (n *simNode) answerVector(m simMsg) {
	s := n.store
	sent := n.stream(m.from, func(send func(record.Parcel) error) error {
		return s.Missing(context.Background(), m.vector, n.sim.keys[m.from], send)
	})
	if sent == 0 && s.BlockDigest() != m.digest {
		n.stream(m.from, func(send func(record.Parcel) error) error {
			return s.Ancestors(context.Background(), s.Heads(), n.sim.keys[m.from], send)
		})
	}
	if !m.reply {
		n.sync(m.from, true)
	}
}

// stream sends parcels, a few in each message.
func (n *simNode) stream(to int, from func(func(record.Parcel) error) error) int {
	var all []record.Parcel
	if err := from(func(p record.Parcel) error { all = append(all, p); return nil }); err != nil {
		n.sim.failf("%s: stream: %v", n.name, err)
	}
	for rest := all; len(rest) > 0; {
		k := min(1+n.sim.rand.IntN(8), len(rest))
		n.sim.send(simMsg{from: n.id, to: to, kind: simParcels, parcels: rest[:k]})
		rest = rest[k:]
	}
	return len(all)
}

// sync tells a peer what this host has.
func (n *simNode) sync(to int, reply bool) {
	s := n.store
	n.sim.send(simMsg{from: n.id, to: to, kind: simVector, vector: s.Vector(), digest: s.BlockDigest(), policies: s.Policies(), reply: reply})
}

// fetch asks a peer for what this host lacks.
func (n *simNode) fetch(to int) {
	wants := n.store.Wants(n.sim.keys[to], 1<<20)
	slices.SortFunc(wants, func(a, b record.Want) int { // the store keeps them in a map
		if c := slices.Compare(a.PathKey[:], b.PathKey[:]); c != 0 {
			return c
		}
		return b.Version.Compare(a.Version)
	})
	if len(wants) > 0 {
		n.sim.send(simMsg{from: n.id, to: to, kind: simWants, wants: wants})
	}
	n.fetchChunks(to)
}

// announce is called in the turn that made blocks durable: it sends them, with what each peer may read.
func (n *simNode) announce(out []record.Outgoing) {
	s := n.store
	p := s.Policy()
	for _, o := range out {
		for to := range n.sim.keys {
			if to == n.id || !p.Member(n.sim.keys[to]) {
				continue
			}
			parcel, late := record.Parcel{Block: o.Block}, record.Parcel{}
			for _, e := range o.Entries {
				if !p.MayRead(n.sim.keys[to], e.Tags) {
					continue
				}
				if n.sim.rand.IntN(4) == 0 {
					late.Entries = append(late.Entries, e.Bytes)
				} else {
					parcel.Entries = append(parcel.Entries, e.Bytes)
				}
			}
			n.sim.send(simMsg{from: n.id, to: to, kind: simParcels, parcels: []record.Parcel{parcel}})
			if late.Entries != nil {
				n.sim.send(simMsg{from: n.id, to: to, kind: simParcels, parcels: []record.Parcel{late}})
			}
		}
	}
}
