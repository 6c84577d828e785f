package crdtstore

import (
	"fmt"
	"maps"
	"slices"

	"syncagent/crdtstore/record"
)

// What the turns have to do with chunks: they count who uses which, and learn from others what came and what was lost.
// No file is touched here.

// chunkNews tells the owner about the chunks of a slot: all are here now, or one was lost.
type chunkNews struct {
	key     record.Tag
	version record.Version
	lost    bool
}

// countChunks notes that a slot has, or no longer has, a value in chunks.
func (t *turn) countChunks(key record.Tag, s *slot) {
	now := s.chunked && s.has()
	switch {
	case now && !s.counted:
		t.rows.set(chunkedKey(key, s.version), nil)
		t.used = append(t.used, refsOf(key, s.chunks))
	case !now && s.counted:
		t.rows.delete(chunkedKey(key, s.version))
		t.unused = append(t.unused, refsOf(key, s.chunks))
	}
	s.counted = now
}

// takeChunks takes news of chunks until the turn is full.
func (t *turn) takeChunks() error {
	q := &t.s.queue
	for len(q.chunks) > 0 && t.size < turnBytes {
		n := q.chunks[0]
		q.chunks = q.chunks[1:]
		p, s, err := t.slot(n.key, n.version)
		if err != nil {
			return err
		}
		if s == nil || !s.chunked || n.lost == (s.torn || s.lacking) {
			continue // dropped meanwhile, or known
		}
		if !n.lost && !t.s.wants.whole(n.key, n.version) {
			continue // a chunk was lost after this was noted
		}
		if s.state == slotHeld {
			if s.data, err = t.data(p, s); err != nil {
				return err
			}
		}
		s.torn, s.lacking, s.changed, p.dirty = n.lost, false, true, true
		t.size += pathCost(p) + len(s.data)
	}
	return nil
}

// useChunks takes over what the commit said, before anybody is told of it.
func (t *turn) useChunks() {
	for _, refs := range t.used {
		t.s.chunks.use(refs)
	}
	for _, refs := range t.unused {
		t.s.chunks.unuse(refs)
	}
	if t.s.wants.look() {
		t.s.chunks.ring()
	}
}

// tend does the file work that turns leave behind: it removes chunks that nobody needs, and sees which values have come
// to be complete.
func (s *Store) tend() ([]*chunkNews, error) {
	return s.wants.complete(s.chunks.has), s.chunks.sweep(s.kv.Sync)
}

// keepChunks tends until stop is closed.
func (s *Store) keepChunks(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-s.chunks.bell:
		}
		whole, err := s.tend()
		if err != nil {
			s.log.Error("chunks not removed", "error", err)
		}
		for _, n := range whole {
			select {
			case s.inbox <- n:
			case <-stop:
				return
			}
		}
		if s.wants.rung() && s.onWants != nil {
			s.onWants()
		}
	}
}

// loadChunks counts the users of chunks, and compares them with the files: it removes what nobody uses and notes what is
// lost. It runs before anything else does.
func (s *Store) loadChunks() error {
	here, err := s.chunks.list()
	if err != nil {
		return err
	}
	s.chunks.forget()
	v := s.kv.View()
	defer v.Close()
	var hopeless []string
	err = v.Scan([]byte{'k'}, nil, false, func(k, _ []byte) (bool, error) {
		key, version, ok := parseSlotKey(k)
		if !ok {
			return false, fmt.Errorf("%w: row of a chunked value", ErrCorrupt)
		}
		sl, err := loadSlot(v, key, version)
		if err != nil {
			return false, err
		}
		refs := refsOf(key, sl.chunks)
		s.chunks.use(refs)
		lost := func(ref chunkRef) bool { return !here[ref] }
		if !sl.lacking && !sl.torn && slices.ContainsFunc(refs, lost) {
			s.queue.add(&chunkNews{key, version, true})
		}
		shown, err := shows(v, sl)
		if sl.torn && shown {
			hopeless = append(hopeless, sl.path)
		}
		return err == nil, err
	})
	if err != nil {
		return err
	}
	s.tellHopeless(hopeless)
	if len(s.queue.chunks) > 0 {
		s.alarm("corrupt", fmt.Sprintf("chunks of %d large values are missing in data_dir/chunks; they are fetched again", len(s.queue.chunks)))
	}
	for _, ref := range slices.SortedFunc(maps.Keys(here), compareRefs) {
		if err := s.chunks.removeIdle(ref); err != nil {
			return err
		}
	}
	s.chunks.ring() // wants may be complete
	return nil
}

// loadSlot reads a slot that has its entry.
func loadSlot(v view, key record.Tag, version record.Version) (*slot, error) {
	value, err := mustGet(v, slotKey(key, version))
	if err != nil {
		return nil, err
	}
	sl, err := decodeSlot(key, version, value)
	if err != nil {
		return nil, err
	}
	return sl, sl.load(func(id record.ID) ([]byte, error) { return mustGet(v, entryKey(id)) })
}

// carriedOver tells, while a damaged store is built anew, that all of these chunks are still here.
func (s *Store) carriedOver(key record.Tag, ids []record.ID) bool {
	return s.carried != nil && !slices.ContainsFunc(ids, func(id record.ID) bool { return !s.carried[chunkRef{key, id}] })
}
