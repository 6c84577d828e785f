package crdtstore

import (
	"context"
	"fmt"
	"slices"

	"syncagent/acl"
	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// askChunkAgain is after how many milliseconds a chunk that nobody answered for is given out again.
const askChunkAgain = 30_000

// look tells whether there are wants for chunks whose files were not looked at since the last call.
func (w *wants) look() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	unseen := w.unseen
	w.unseen = false
	return unseen
}

// complete looks which chunks lack, and gives the values that lack none any more.
func (w *wants) complete(has func(chunkRef) bool) (whole []*chunkNews) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.large = slices.DeleteFunc(w.large, func(o *want) bool { return o.gone })
	if len(w.large) == 0 {
		clear(w.asked) // of values that were dropped before all was answered
	}
	for _, o := range w.large {
		if o.missing == nil {
			o.missing = make(map[record.ID]bool)
			for _, id := range o.chunks {
				if !has(chunkRef{o.PathKey, id}) {
					o.missing[id] = true
				}
			}
			w.bell = true
		}
		if len(o.missing) == 0 {
			whole = append(whole, &chunkNews{key: o.PathKey, version: o.Version})
		}
	}
	return whole
}

// chunksFor gives up to limit chunks that peer may be asked for now, those of one value after those of another, as they
// came: so that values become complete one by one. Of a path the highest version, a lower one only when somebody did
// not have the higher ones.
func (w *wants) chunksFor(peer record.PublicKey, p *acl.Policy, now int64, limit int, has func(chunkRef) bool) (out []record.ChunkWant, whole bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.large {
		if o.gone || o.missing == nil || o.refused[peer].until > now || !w.first(o) || !o.mayHave(peer, p, now) {
			continue
		}
		for _, id := range o.chunks {
			ref := chunkRef{o.PathKey, id}
			switch {
			case !o.missing[id] || w.asked[ref] > now:
			case has(ref): // it came for another version
				delete(o.missing, id)
			case len(out) == limit:
				return out, whole
			default:
				w.asked[ref] = now + askChunkAgain
				out = append(out, record.ChunkWant{PathKey: o.PathKey, Version: o.Version, Chunk: id})
			}
		}
		whole = whole || len(o.missing) == 0
	}
	return out, whole
}

// first tells whether nobody can be asked for a higher version of the path.
func (w *wants) first(o *want) bool {
	for _, above := range w.byPath[o.PathKey] {
		if above == o {
			return true
		}
		if len(above.refused) == 0 {
			return false
		}
	}
	return false
}

// find gives the want for the chunks of a version, nil if there is none.
func (w *wants) find(c record.ChunkWant) *want {
	if o := w.at(c.PathKey, c.Version); o != nil && o.chunks != nil {
		return o
	}
	return nil
}

// whole tells whether all chunks of a wanted value came.
func (w *wants) whole(key record.Tag, v record.Version) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.at(key, v)
	return o != nil && o.missing != nil && len(o.missing) == 0
}

// wanted tells whether a chunk is still lacking.
func (w *wants) wanted(c record.ChunkWant) (tags []record.Tag, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.find(c)
	if o == nil {
		return nil, false
	}
	return o.tags, o.missing[c.Chunk]
}

// came notes a chunk that is stored now. It tells whether the value is complete by it.
func (w *wants) came(c record.ChunkWant) (whole bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.find(c)
	if o == nil {
		return false
	}
	delete(o.missing, c.Chunk)
	return len(o.missing) == 0
}

// free lets others be asked for chunks at once.
func (w *wants) free(cs ...record.ChunkWant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range cs {
		delete(w.asked, chunkRef{c.PathKey, c.Chunk})
	}
}

// ChunkWants gives up to limit chunks to ask a peer for now, only such as the peer may read. None while the disk is
// nearly full.
func (s *Store) ChunkWants(peer record.PublicKey, limit int) []record.ChunkWant {
	if s.checkRoom() != nil {
		return nil
	}
	out, whole := s.wants.chunksFor(peer, s.Policy(), s.tick(), limit, s.chunks.has)
	if whole {
		s.chunks.ring()
	}
	return out
}

// TakeChunk brings a peer's answer to a chunk want; the chunk is durable when it returns. An error that wraps
// record.ErrFormat means that the peer sent something else than it was asked for.
func (s *Store) TakeChunk(_ context.Context, from record.PublicKey, want record.ChunkWant, a record.Answer) error {
	if a.Status != record.Here {
		s.wants.refused(from, record.Want{PathKey: want.PathKey, Version: want.Version}, s.tick())
		s.wants.free(want)
		return nil
	}
	if record.ChunkID(a.Entry) != want.Chunk {
		s.wants.free(want)
		return fmt.Errorf("%w: not the chunk that was asked for", record.ErrFormat)
	}
	ref := chunkRef{want.PathKey, want.Chunk}
	s.chunks.pin([]chunkRef{ref})
	defer s.chunks.unpin([]chunkRef{ref}) // and if the value was dropped meanwhile, the chunk goes again
	defer s.wants.free(want)
	if tags, ok := s.wants.wanted(want); !ok || !s.Policy().MayRead(s.self, tags) {
		return nil
	}
	if err := s.chunks.put(ref, a.Entry); err != nil {
		return err
	}
	if s.wants.came(want) {
		s.chunks.ring()
	}
	return nil
}

// GiveBack takes back wants that a peer did not answer: others may be asked at once.
func (s *Store) GiveBack(wants []record.ChunkWant) { s.wants.free(wants...) }

// ServeChunk answers another agent's chunk want. The right to read is checked on the path of the entry that names the
// chunk, and the chunk against its ID.
func (s *Store) ServeChunk(reader record.PublicKey, w record.ChunkWant) record.Answer {
	v := s.kv.View()
	defer v.Close()
	sl, err := loadSlot(v, w.PathKey, w.Version)
	if err != nil || !slices.Contains(sl.chunks, w.Chunk) {
		return record.Answer{}
	}
	if !s.Policy().MayRead(reader, s.network.Tags(sl.path)) && !fault.Planted("serve-anybody") {
		return record.Answer{Status: record.Denied}
	}
	data, err := s.chunks.get(chunkRef{w.PathKey, w.Chunk}, nil)
	if err != nil {
		_ = s.lost(sl, chunkRef{w.PathKey, w.Chunk}, err) // the peer asks another; here it is noted
		return record.Answer{}
	}
	return record.Answer{Status: record.Here, Entry: data}
}
