package crdtstore

import "syncagent/crdtstore/record"

// earlyEntries holds entries that came before the block that names them: pushed ones travel on another road. It is a
// cache, bounded; what falls out is asked for as a want.
type earlyEntries struct {
	byID  map[record.ID][]byte
	order []record.ID
	bytes int
}

const (
	earlyBytes = 8 << 20
	earlyCount = 16 << 10
)

func newEarlyEntries() *earlyEntries { return &earlyEntries{byID: make(map[record.ID][]byte)} }

func (c *earlyEntries) add(ids []record.ID, data []byte) {
	for _, id := range ids {
		if _, twice := c.byID[id]; twice {
			continue
		}
		c.byID[id] = data
		c.order = append(c.order, id)
		c.bytes += len(data)
	}
	for len(c.order) > 0 && (c.bytes > earlyBytes || len(c.order) > earlyCount) {
		c.remove(c.order[0])
		c.order = c.order[1:]
	}
}

func (c *earlyEntries) remove(id record.ID) {
	if data, ok := c.byID[id]; ok {
		c.bytes -= len(data)
		delete(c.byID, id)
	}
}

// take gives an entry that came with the block or before it, and nil if there is none.
func (c *earlyEntries) take(id record.ID, with map[record.ID][]byte) []byte {
	if data := with[id]; data != nil {
		return data
	}
	data := c.byID[id]
	if data != nil {
		c.remove(id)
	}
	return data
}

// parking holds blocks that name blocks which are not here yet. It is a cache, bounded by number and bytes: what falls
// out comes again with the next sync.
type parking struct {
	blocks  map[record.Digest]*parkedBlock
	waiting map[record.Digest][]record.Digest // missing block -> parked blocks that name it
	order   []record.Digest
	bytes   int
}

type parkedBlock struct {
	parcel  *parcel
	missing []record.Digest
}

const (
	parkedBlocks = 4096
	parkedBytes  = 16 << 20
)

func newParking() *parking {
	return &parking{blocks: make(map[record.Digest]*parkedBlock), waiting: make(map[record.Digest][]record.Digest)}
}

func (p *parking) add(c *parcel, missing []record.Digest) {
	d := c.block.Digest
	if p.blocks[d] != nil {
		return
	}
	p.blocks[d] = &parkedBlock{c, missing}
	for _, m := range missing {
		p.waiting[m] = append(p.waiting[m], d)
	}
	p.order = append(p.order, d)
	p.bytes += c.size()
	for len(p.blocks) > parkedBlocks || p.bytes > parkedBytes {
		p.remove(p.order[0])
		p.order = p.order[1:]
	}
	if len(p.order) > 2*parkedBlocks { // forget places of blocks that have left
		kept := p.order[:0]
		for _, d := range p.order {
			if p.blocks[d] != nil {
				kept = append(kept, d)
			}
		}
		p.order = kept
	}
}

func (p *parking) remove(d record.Digest) *parcel {
	b := p.blocks[d]
	if b == nil {
		return nil
	}
	delete(p.blocks, d)
	p.bytes -= b.parcel.size()
	for _, m := range b.missing {
		left := p.waiting[m][:0]
		for _, w := range p.waiting[m] {
			if w != d {
				left = append(left, w)
			}
		}
		if len(left) == 0 {
			delete(p.waiting, m)
		} else {
			p.waiting[m] = left
		}
	}
	return b.parcel
}

// arrived gives the blocks that waited for d. They may still wait for others and are then parked again.
func (p *parking) arrived(d record.Digest) []*parcel {
	var out []*parcel
	for _, w := range append([]record.Digest(nil), p.waiting[d]...) {
		if c := p.remove(w); c != nil {
			out = append(out, c)
		}
	}
	return out
}

// roots gives the blocks to ask for when these are missing: a parked one stands for what it waits for itself.
func (p *parking) roots(missing []record.Digest) []record.Digest {
	var out []record.Digest
	seen := map[record.Digest]bool{}
	for todo := missing; len(todo) > 0; {
		d := todo[0]
		todo = todo[1:]
		if seen[d] {
			continue
		}
		seen[d] = true
		if b := p.blocks[d]; b != nil {
			todo = append(append([]record.Digest(nil), todo...), b.missing...)
		} else {
			out = append(out, d)
		}
	}
	return out
}
