package crdtstore

import (
	"syncagent/crdtstore/record"
)

// simClients is how many clients there are that sign their own writes.
const simClients = 2

// simAsked is what a client or a host's user asked for.
type simAsked struct {
	host int // or client
	path string
}

// simRelay is a write that a client signed, with its entries.
type simRelay struct {
	author  int
	ops     []Op
	write   *record.Write
	entries [][]byte
	given   int // to how many hosts
}

// clientWrites has a client sign a write and hand it to a host, and sometimes to another one; or a write that hosts had
// before comes again.
func (s *sim) clientWrites(n *simNode) {
	var r *simRelay
	if len(s.relayed) > 0 && s.chance(4) {
		r = s.relayed[s.rand.IntN(len(s.relayed))]
	} else {
		r = s.sign(n)
		s.relayed = append(s.relayed, r)
	}
	n.relay(r)
	if s.chance(3) {
		other := s.nodes[s.rand.IntN(len(s.nodes))]
		if other.relay(r); s.chance(2) {
			other.drive()
		}
	}
	if !s.chance(4) {
		n.drive()
	}
}

// sign makes a write with the time that a host gives, most often.
func (s *sim) sign(n *simNode) *simRelay {
	r := &simRelay{author: len(s.keys) + s.rand.IntN(simClients), ops: s.ops(n)}
	var paths []string
	for i, op := range r.ops {
		paths = append(paths, op.Path)
		if len(op.Value) > record.MaxInlineValue { // large ones are uploaded by the hosts' own writes
			r.ops[i].Value = op.Value[:33<<10]
		}
	}
	hlc, err := n.store.HLCFor(paths)
	if err != nil {
		s.failf("%s gives no time: %v", n.name, err)
	}
	if s.chance(6) {
		hlc = record.HLCFromMilli(s.now + int64(s.rand.IntN(1_500_000)) - 500_000)
	}
	r.write = &record.Write{Author: s.identities[r.author], HLC: hlc}
	for _, op := range r.ops {
		e := &record.Entry{Kind: record.KindPut, Path: op.Path, Value: op.Value}
		if op.Delete {
			e.Kind = record.KindDelete
		} else if s.model.asked[string(op.Value)] = (simAsked{r.author, op.Path}); !op.Expires.IsZero() {
			e.Expires = uint64(op.Expires.UnixMilli())
		}
		for i := range e.Salt {
			e.Salt[i] = byte(s.rand.Uint32())
		}
		data := e.Encode()
		s.model.entry(data)
		r.entries = append(r.entries, data)
		r.write.Slots = append(r.write.Slots, record.Slot{Entry: e.ID(), Tags: s.network.Tags(op.Path)})
	}
	r.write.Sign(simKey(r.author), s.network)
	return r
}

// relay asks the host to publish a client's write, as Relay does.
func (n *simNode) relay(r *simRelay) {
	if n.store == nil {
		return
	}
	req, err := n.store.relayRequest(r.write, r.entries)
	if err != nil {
		n.sim.failf("%s: relay: %v", n.name, err)
	}
	r.given++
	for _, op := range r.ops {
		n.handed[string(op.Value)] = true
	}
	n.writes = append(n.writes, &simWrite{r.author, r.ops, r, req.done})
	n.store.queue.add(req)
}
