package crdtstore

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"slices"

	"syncagent/acl"
	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

const (
	serveBatch      = 256       // rows of a chain read at one go
	parcelEntries   = 512 << 10 // bytes of entries that travel with a block; the rest is asked for
	ancestorsServed = 64        // ancestors that come with a block asked for by digest
	viewBytes       = 4 << 20   // sent from one view of the rows: a slow reader must not keep what is dropped meanwhile
)

// BlockDigest is the SHA-256 of the heads' digests in ascending order: equal means the same blocks.
func (s *Store) BlockDigest() [32]byte { return s.dag.Load().digest }

// View is the digest of all that is shown; settled if nothing is missing, or waits to be judged by a new policy.
func (s *Store) View() (digest [32]byte, settled bool) {
	st := s.stats.Load()
	return st.ViewDigest, !st.Judging && st.Unready == 0 && s.wants.len() == 0
}

// Heads gives the blocks that no held block links to, ascending.
func (s *Store) Heads() []record.Digest { return s.dag.Load().sortedHeads() }

// Vector says which blocks are held, one position per origin and incarnation, in no order.
func (s *Store) Vector() []record.Position {
	d := s.dag.Load()
	all := make([]record.Position, 0, len(d.chains))
	for id, c := range d.chains {
		all = append(all, record.Position{Origin: id.origin, Incarnation: id.incarnation, Seq: c.seq, Mark: [8]byte(c.last[:8])})
	}
	return all
}

// Lacks gives those of the blocks that are not held.
func (s *Store) Lacks(blocks []record.Digest) (out []record.Digest, err error) {
	v := s.kv.View()
	defer v.Close()
	for _, d := range blocks {
		if _, ok, err := v.Get(blockKey(d)); err != nil {
			return nil, err
		} else if !ok {
			out = append(out, d)
		}
	}
	return out, nil
}

// Missing calls send for every held block that the vector lacks, in ascending height, each with the entries it holds
// and reader may read by the policy in force when it is sent.
func (s *Store) Missing(ctx context.Context, have []record.Position, reader record.PublicKey, send func(record.Parcel) error) error {
	v := s.kv.View()
	defer func() { v.Close() }()
	held := make(map[chainID]uint64, len(have))
	for _, p := range have {
		held[chainID{p.Origin, p.Incarnation}] = p.Seq
	}
	h, err := newChainHeap(v, s.dag.Load().chains, held)
	if err != nil {
		return err
	}
	for left := viewBytes; len(h) > 0; {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		size, err := s.sendBlock(v, h[0].row.digest, reader, send)
		if err != nil {
			return err
		}
		if left -= size; left <= 0 {
			v.Close()
			v, left = s.kv.View(), viewBytes
			h.read(v)
		}
		if err := h.next(); err != nil {
			return err
		}
	}
	return nil
}

// chainReader reads one chain in ascending number. It stops at what was published: an own block that is committed but
// not yet synced must not leave the host.
type chainReader struct {
	view  view
	id    chainID
	until uint64
	next  []byte
	rows  []chainRow
	row   chainRow
}

type chainRow struct {
	height uint64
	digest record.Digest
}

// advance moves on to the next row and says whether there is one.
func (c *chainReader) advance() (bool, error) {
	if len(c.rows) == 0 {
		if c.next == nil {
			return false, nil
		}
		from := c.next
		c.next = nil
		err := c.view.Scan(chainPrefix(c.id), from, false, func(k, value []byte) (bool, error) {
			_, seq, digest, ok := parseChainKey(k)
			if !ok || len(value) != 8 {
				return false, ErrCorrupt
			}
			if seq > c.until {
				return false, nil
			}
			if len(c.rows) == serveBatch {
				c.next = bytes.Clone(k)
				return false, nil
			}
			c.rows = append(c.rows, chainRow{be.Uint64(value), digest})
			return true, nil
		})
		if err != nil {
			return false, err
		}
	}
	if len(c.rows) == 0 {
		return false, nil
	}
	c.row, c.rows = c.rows[0], c.rows[1:]
	return true, nil
}

// chainHeap orders chains by the height of their next block.
type chainHeap []*chainReader

// newChainHeap gives the chains that go on after what is held.
func newChainHeap(v view, ends map[chainID]chain, held map[chainID]uint64) (h chainHeap, err error) {
	for id, end := range ends {
		if end.seq <= held[id] {
			continue
		}
		c := &chainReader{view: v, id: id, until: end.seq, next: chainKey(id, held[id]+1, record.Digest{})}
		if ok, err := c.advance(); err != nil {
			return nil, err
		} else if ok {
			h = append(h, c)
		}
	}
	heap.Init(&h)
	return h, nil
}

// read has the chains read on in a later view.
func (h chainHeap) read(v view) {
	for _, c := range h {
		c.view = v
	}
}

// next moves the first chain on to its next block.
func (h *chainHeap) next() error {
	ok, err := (*h)[0].advance()
	if err != nil {
		return err
	}
	if ok {
		heap.Fix(h, 0)
	} else {
		heap.Pop(h)
	}
	return nil
}

func (h chainHeap) Len() int { return len(h) }
func (h chainHeap) Less(i, j int) bool {
	if c := cmp.Compare(h[i].row.height, h[j].row.height); c != 0 {
		return c < 0
	}
	return bytes.Compare(h[i].row.digest[:], h[j].row.digest[:]) < 0
}
func (h chainHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *chainHeap) Push(x any)   { *h = append(*h, x.(*chainReader)) }
func (h *chainHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// sendBlock judges by the policy of this moment: all that a slow reader asked for may take hours.
func (s *Store) sendBlock(v view, d record.Digest, reader record.PublicKey, send func(record.Parcel) error) (size int, err error) {
	raw, b, err := s.storedBlock(v, d)
	if err != nil {
		return 0, err
	}
	entries, size, err := s.entriesFor(v, s.Policy(), b, reader)
	if err != nil {
		return 0, err
	}
	return len(raw) + size, send(record.Parcel{Block: raw, Entries: entries})
}

// storedBlock reads a block that must be there.
func (s *Store) storedBlock(v view, d record.Digest) ([]byte, *record.Block, error) {
	raw, err := mustGet(v, blockKey(d))
	if err != nil {
		return nil, nil, err
	}
	b, err := record.ParseBlock(raw)
	if err != nil || b.Digest != d {
		s.alarm("corrupt", "stored block "+d.String()+" does not have its digest; the store is damaged")
		return nil, nil, ErrCorrupt
	}
	return raw, b, nil
}

// entriesFor gives the entries of a block that are held and that reader may read, as many as may travel with it.
func (s *Store) entriesFor(v view, p *acl.Policy, b *record.Block, reader record.PublicKey) (entries [][]byte, total int, err error) {
	for _, w := range b.Writes {
		err := s.heldEntries(v, p, w, reader, func(data []byte) bool {
			if total += len(data); total > parcelEntries {
				return false
			}
			entries = append(entries, data)
			return true
		})
		if err != nil || total > parcelEntries {
			return entries, total, err
		}
	}
	return entries, total, nil
}

// heldEntries calls fn for the entries of a write that are held and that reader may read, until fn says false.
func (s *Store) heldEntries(v view, p *acl.Policy, w *record.Write, reader record.PublicKey, fn func(data []byte) bool) error {
	id := w.ID()
	for i := range w.Slots {
		if !p.MayRead(reader, w.Slots[i].Tags) && !fault.Planted("serve-anybody") {
			continue
		}
		data, err := s.heldEntry(v, w.Slots[i].PathKey(), record.Version{HLC: w.HLC, Write: id, Index: uint16(i)})
		if err != nil {
			return err
		}
		if data != nil && !fn(data) {
			return nil
		}
	}
	return nil
}

// heldEntry gives the entry of a slot if it is held. A superseded one goes along too: asking for what the path shows
// costs as much as sending it, few are kept, and the receiver has them for its history.
func (s *Store) heldEntry(v view, k record.Tag, version record.Version) ([]byte, error) {
	raw, ok, err := v.Get(slotKey(k, version))
	if err != nil || !ok {
		return nil, err
	}
	sl, err := decodeSlot(k, version, raw)
	if err != nil || !sl.has() {
		return nil, err
	}
	data, err := entryData(v, sl)
	if err == nil {
		_, _, _, err = parseHeld(sl.entry, data)
	}
	if errors.Is(err, ErrCorrupt) || errors.Is(err, errWrongEntry) {
		s.alarm("corrupt", "a stored entry is missing or does not have its ID; the store is damaged")
		return nil, nil // others have it, and the block goes on without it
	}
	return data, err
}

// Ancestors calls send for the named blocks and up to 64 ancestors of each, as far as they are held, in ascending
// height.
func (s *Store) Ancestors(ctx context.Context, of []record.Digest, reader record.PublicKey, send func(record.Parcel) error) error {
	v := s.kv.View()
	defer v.Close()
	type found struct {
		digest   record.Digest
		priority uint64
	}
	var all []found
	seen := make(map[record.Digest]bool)
	for _, d := range of {
		todo := []record.Digest{d}
		for n := 0; len(todo) > 0 && n <= ancestorsServed; {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			d := todo[0]
			todo = todo[1:]
			if seen[d] {
				continue
			}
			seen[d] = true
			raw, ok, err := v.Get(blockKey(d))
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			b, err := record.ParseBlock(raw)
			if err != nil {
				continue // the genesis block: everybody has it
			}
			n++
			all = append(all, found{d, b.Priority})
			if b.Seq > 1 {
				todo = append(todo, b.Prev)
			}
			todo = append(todo, b.Links...)
		}
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(a.priority, b.priority) })
	for _, f := range all {
		if _, err := s.sendBlock(v, f.digest, reader, send); err != nil {
			return err
		}
	}
	return nil
}

// Serve answers another agent's wants. The right to read is checked on the entry's own path, so a slot with false tags
// gives nothing away.
func (s *Store) Serve(reader record.PublicKey, wants []record.Want) []record.Answer {
	v := s.kv.View()
	defer v.Close()
	policy := s.Policy()
	answers := make([]record.Answer, len(wants))
	for i, w := range wants {
		answers[i] = s.serve(v, policy, reader, w)
	}
	return answers
}

func (s *Store) serve(v view, p *acl.Policy, reader record.PublicKey, w record.Want) record.Answer {
	raw, ok, err := v.Get(slotKey(w.PathKey, w.Version))
	if err != nil || !ok {
		return record.Answer{}
	}
	sl, err := decodeSlot(w.PathKey, w.Version, raw)
	if err != nil || sl.entry != w.Entry || !sl.has() {
		return record.Answer{}
	}
	data, err := entryData(v, sl)
	if err != nil {
		return record.Answer{}
	}
	e, _, stub, err := parseHeld(sl.entry, data)
	if err != nil {
		s.alarm("corrupt", "a stored entry does not have its ID; the store is damaged")
		return record.Answer{}
	}
	switch {
	case !p.MayRead(reader, s.network.Tags(e.Path)) && !fault.Planted("serve-anybody"):
		return record.Answer{Status: record.Denied}
	case stub:
		return record.Answer{Status: record.HereStub, Entry: data}
	default:
		return record.Answer{Status: record.Here, Entry: data}
	}
}
