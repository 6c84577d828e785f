package crdtstore

import (
	"slices"

	"syncagent/crdtstore/record"
)

// lanes remember in which order each peer brought what is in a cache, and how many bytes. When the cache is full, the
// oldest of the peer with the most gives way, so that nobody can push out what others brought.
type lanes[K comparable] map[record.PublicKey]*lane[K]

type lane[K comparable] struct {
	order []K // some may have left the cache meanwhile
	bytes int
}

func (l lanes[K]) add(from record.PublicKey, k K, bytes int) *lane[K] {
	one := l[from]
	if one == nil {
		one = new(lane[K])
		l[from] = one
	}
	one.order = append(one.order, k)
	one.bytes += bytes
	return one
}

// left notes that something left the cache.
func (l lanes[K]) left(from record.PublicKey, bytes int) {
	if one := l[from]; one.bytes > bytes {
		one.bytes -= bytes
	} else {
		delete(l, from)
	}
}

// oldest names what gives way next. It may have left already.
func (l lanes[K]) oldest() (k K) {
	var most *lane[K]
	var whose record.PublicKey
	for from, one := range l {
		if most == nil || one.bytes > most.bytes || one.bytes == most.bytes && record.CompareKeys(from, whose) < 0 {
			most, whose = one, from
		}
	}
	k, most.order = most.order[0], most.order[1:]
	return k
}

// earlyEntries holds entries that came before the block that names them: pushed ones travel on another road. It is a
// cache, bounded; what falls out is asked for as a want.
type earlyEntries struct {
	byID  map[record.ID]earlyEntry
	lanes lanes[record.ID]
	bytes int
}

type earlyEntry struct {
	data []byte
	from record.PublicKey
}

const (
	earlyBytes = 8 << 20
	earlyCount = 16 << 10
)

func newEarlyEntries() *earlyEntries {
	return &earlyEntries{byID: make(map[record.ID]earlyEntry), lanes: make(lanes[record.ID])}
}

func (c *earlyEntries) add(from record.PublicKey, ids []record.ID, data []byte) {
	for _, id := range ids {
		if _, twice := c.byID[id]; twice {
			continue
		}
		c.byID[id] = earlyEntry{data, from}
		c.bytes += len(data)
		own := c.lanes.add(from, id, len(data))
		if len(own.order) > 2*earlyCount { // forget what has left
			own.order = slices.DeleteFunc(own.order, func(id record.ID) bool { _, here := c.byID[id]; return !here })
		}
	}
	for c.bytes > earlyBytes || len(c.byID) > earlyCount {
		c.remove(c.lanes.oldest())
	}
}

func (c *earlyEntries) remove(id record.ID) {
	if e, ok := c.byID[id]; ok {
		c.bytes -= len(e.data)
		c.lanes.left(e.from, len(e.data))
		delete(c.byID, id)
	}
}

// take gives an entry that came with the block or before it, and nil if there is none.
func (c *earlyEntries) take(id record.ID, with map[record.ID][]byte) []byte {
	if data := with[id]; data != nil {
		return data
	}
	data := c.byID[id].data
	c.remove(id)
	return data
}

// parking holds blocks that name blocks which are not here yet. It is a cache, bounded by number and bytes: what falls
// out comes again with the next sync.
type parking struct {
	blocks  map[record.Digest]*parkedBlock
	waiting map[record.Digest][]record.Digest // missing block -> parked blocks that name it
	lanes   lanes[record.Digest]
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
	return &parking{blocks: make(map[record.Digest]*parkedBlock), waiting: make(map[record.Digest][]record.Digest), lanes: make(lanes[record.Digest])}
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
	p.bytes += c.size()
	own := p.lanes.add(c.from, d, c.size())
	if len(own.order) > 2*parkedBlocks { // forget what has left
		own.order = slices.DeleteFunc(own.order, func(d record.Digest) bool { return p.blocks[d] == nil })
	}
	for len(p.blocks) > parkedBlocks || p.bytes > parkedBytes {
		p.remove(p.lanes.oldest())
	}
}

func (p *parking) remove(d record.Digest) *parcel {
	b := p.blocks[d]
	if b == nil {
		return nil
	}
	delete(p.blocks, d)
	p.bytes -= b.parcel.size()
	p.lanes.left(b.parcel.from, b.parcel.size())
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
	todo := slices.Clone(missing)
	for i := 0; i < len(todo); i++ {
		d := todo[i]
		if seen[d] {
			continue
		}
		seen[d] = true
		if b := p.blocks[d]; b != nil {
			todo = append(todo, b.missing...)
		} else {
			out = append(out, d)
		}
	}
	return out
}
