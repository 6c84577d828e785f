package crdtstore

import (
	"fmt"

	"syncagent/crdtstore/record"
)

// Which writes wait for entries, and where: rows u, in memory by ID and by the path of one slot that lacks. settle.go
// decides when a wait has ended.

// unreadyWrite is a write of which this agent still lacks something: nothing of it is shown (G5).
type unreadyWrite struct {
	id      record.ID
	hlc     record.HLC
	arrived int64 // agent time at which its block came, Unix milliseconds
	paths   []record.Tag
	lacks   int // number of a slot that is waited for, or was when it was looked at last; not stored
}

// waitsAt gives the path whose change may end the wait.
func (u *unreadyWrite) waitsAt() record.Tag { return u.paths[u.lacks] }

func (u *unreadyWrite) encode() []byte {
	b := u64(uint64(u.hlc))
	b = be.AppendUint64(b, uint64(u.arrived))
	for _, p := range u.paths {
		b = append(b, p[:]...)
	}
	return b
}

func decodeUnready(id record.ID, b []byte) (*unreadyWrite, error) {
	if len(b) < 32 || len(b)%16 != 0 {
		return nil, fmt.Errorf("%w: row of an unready write", ErrCorrupt)
	}
	u := &unreadyWrite{id: id, hlc: record.HLC(be.Uint64(b)), arrived: int64(be.Uint64(b[8:]))}
	for b = b[16:]; len(b) > 0; b = b[16:] {
		u.paths = append(u.paths, record.Tag(b[:16]))
	}
	return u, nil
}

func (s *Store) rememberUnready(u *unreadyWrite) {
	s.unready[u.id] = u
	s.listUnready(u)
}

// listUnready notes at which path a write waits.
func (s *Store) listUnready(u *unreadyWrite) {
	at := s.unreadyAt[u.waitsAt()]
	if at == nil {
		at = make(map[record.ID]bool)
		s.unreadyAt[u.waitsAt()] = at
	}
	at[u.id] = true
}

func (s *Store) unlistUnready(u *unreadyWrite) {
	at := s.unreadyAt[u.waitsAt()]
	delete(at, u.id)
	if len(at) == 0 {
		delete(s.unreadyAt, u.waitsAt())
	}
}

// waitFor has an unready write wait for its slot i.
func (s *Store) waitFor(u *unreadyWrite, i int) {
	s.unlistUnready(u)
	u.lacks = i
	s.listUnready(u)
}

// postpone has the next turns look at a write again.
func (s *Store) postpone(u *unreadyWrite) {
	if n := len(s.postponed); n == 0 || s.postponed[n-1] != u.waitsAt() {
		s.postponed = append(s.postponed, u.waitsAt())
	}
}

func (s *Store) addUnready(u *unreadyWrite, r *rows) {
	s.rememberUnready(u)
	r.set(unreadyKey(u.id), u.encode())
}

func (s *Store) dropUnready(u *unreadyWrite, r *rows) {
	delete(s.unready, u.id)
	s.unlistUnready(u)
	r.delete(unreadyKey(u.id))
}
