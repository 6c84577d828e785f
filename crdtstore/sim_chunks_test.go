package crdtstore

import (
	"bytes"
	"context"
	"errors"
	"io"

	"syncagent/crdtstore/record"
)

// Large values in the simulation: uploads before a write, chunks on their way, and the file work after every turn.

// simLarge is the size of a large value: a chunk that begins with the value's mark, and an end that all of them share.
const simLarge = record.ChunkSize + 4096

// upload stores the large values of ops as a client's upload does, and gives what it pinned. False: the power failed.
func (n *simNode) upload(ops []Op) (pins []chunkRef, ok bool) {
	for i := range ops {
		op := &ops[i]
		if len(op.Value) <= record.MaxInlineValue {
			continue
		}
		u, err := n.store.Upload(context.Background(), op.Path, bytes.NewReader(op.Value))
		if errors.Is(err, errPower) {
			return nil, false
		}
		if err != nil {
			n.sim.failf("%s: upload: %v", n.name, err)
		}
		op.Value, op.Upload = nil, u
		pins = append(pins, u.pins...)
		n.store.chunks.pin(u.pins)
		u.Close()
	}
	return pins, true
}

// tend does the file work that a turn left behind. False: the power failed.
func (n *simNode) tend() bool {
	select {
	case <-n.store.chunks.bell:
	default:
		return true
	}
	whole, err := n.store.tend()
	if errors.Is(err, errPower) {
		return false
	}
	if err != nil {
		n.sim.failf("%s: %v", n.name, err)
	}
	for _, news := range whole {
		n.store.queue.add(news)
	}
	if n.store.wants.rung() {
		n.sim.wake(n.id)
	}
	return true
}

// fetchChunks asks a peer for the chunks that this host lacks.
func (n *simNode) fetchChunks(to int) {
	if wants := n.store.ChunkWants(n.sim.keys[to], 1<<20); len(wants) > 0 {
		n.sim.send(simMsg{from: n.id, to: to, kind: simChunkWants, chunkWants: wants})
	}
}

func (n *simNode) serveChunks(m simMsg) {
	out := simMsg{from: n.id, to: m.from, kind: simChunks, chunkWants: m.chunkWants}
	for _, w := range m.chunkWants {
		out.answers = append(out.answers, n.store.ServeChunk(n.sim.keys[m.from], w))
	}
	n.sim.send(out)
}

// takeChunks stores what came. The power may fail at each.
func (n *simNode) takeChunks(m simMsg) {
	for i, w := range m.chunkWants {
		err := n.store.TakeChunk(context.Background(), n.sim.keys[m.from], w, m.answers[i])
		if errors.Is(err, errPower) {
			n.crash()
			return
		}
		if err != nil && m.from != n.sim.evil {
			n.sim.failf("%s: chunk of an honest host: %v", n.name, err)
		}
	}
}

// content reads the value of an item, of any size.
func (n *simNode) content(i *Item) []byte {
	r := n.store.Content(i)
	defer r.Close()
	value, err := io.ReadAll(r)
	if err != nil {
		n.sim.failf("%s: read %s: %v", n.name, i.Path, err)
	}
	return value
}

// entryValue is what the entry of a value holds: the value, or its chunk list.
func entryValue(value []byte) []byte {
	if len(value) <= record.MaxInlineValue {
		return value
	}
	list := record.ChunkList{Size: uint64(len(value))}
	for rest := value; len(rest) > 0; {
		k := min(len(rest), record.ChunkSize)
		list.Chunks = append(list.Chunks, record.ChunkID(rest[:k]))
		rest = rest[k:]
	}
	return list.Encode()
}
