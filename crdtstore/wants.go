package crdtstore

import (
	"slices"
	"sync"

	"syncagent/acl"
	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// Wants are entries, and chunks of values, that this agent may read and lacks. They follow from slots, view and policy;
// the rows n are their index, kept in step by every turn. What a peer refused is a back-off in memory, nothing more.
type wants struct {
	mu     sync.Mutex
	byPath map[record.Tag][]*want // highest version first
	large  []*want                // those for chunks, in the order in which they came; some are gone already
	unseen bool                   // of some of large the files were not looked at yet
	asked  map[chunkRef]int64     // chunks that were given out, until when nobody else is asked
	count  int
	bell   bool // wants were added since the bell was last read
}

type want struct {
	record.Want
	chunks  []record.ID        // of the value, when the entry is here and chunks lack; nil: the entry lacks
	missing map[record.ID]bool // those that lack; nil: not looked at yet
	gone    bool
	tags    []record.Tag
	author  record.PublicKey
	since   int64 // agent time in milliseconds at which it was first given out
	asked   int64 // not given out again before, agent time in milliseconds
	refused map[record.PublicKey]refusal
}

type refusal struct {
	until int64
	times int
}

const (
	askAnybody   = 5000   // milliseconds after which members that may not read it are asked too
	askAgain     = 3000   // milliseconds after which an unanswered want is given out again
	refusedFirst = 1000   // milliseconds of the first back-off of a peer for a want; it doubles
	refusedMost  = 60_000 // milliseconds
)

func newWants() *wants {
	return &wants{byPath: make(map[record.Tag][]*want), asked: make(map[chunkRef]int64)}
}

// update sets what is wanted of a path and keeps the rows in step. Slots come highest first. It adds and removes up to most
// wants, the highest first, and tells whether some are left to a later turn.
func (w *wants) update(key record.Tag, slots []*slot, r *rows, most int) (left bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.byPath[key]
	if len(old) == 0 && len(slots) == 0 {
		return false
	}
	now := make([]*want, 0, len(slots))
	for rest := old; len(rest) > 0 || len(slots) > 0; {
		switch order := nextWant(rest, slots); {
		case order > 0: // no longer wanted
			o := rest[0]
			rest = rest[1:]
			if most--; most < 0 {
				left = true
				now = append(now, o)
				continue
			}
			o.gone = true
			r.delete(wantKey(key, o.Version))
		case order == 0 && (rest[0].chunks != nil) == slots[0].chunked:
			now = append(now, rest[0])
			rest, slots = rest[1:], slots[1:]
		default:
			s := slots[0]
			slots = slots[1:]
			if order == 0 {
				rest[0].gone = true
				rest = rest[1:]
			} else if most <= 0 {
				left = true
				continue
			}
			most--
			now = append(now, w.add(key, s))
			r.set(wantKey(key, s.version), nil)
		}
	}
	w.count += len(now) - len(old)
	if len(now) == 0 {
		delete(w.byPath, key)
	} else {
		w.byPath[key] = now
	}
	return left
}

// nextWant compares the highest of the wants there were with the highest slot that is wanted now.
func nextWant(old []*want, slots []*slot) int {
	switch {
	case len(slots) == 0:
		return 1
	case len(old) == 0:
		return -1
	}
	return old[0].Version.Compare(slots[0].version)
}

// at gives the want for a version, nil if there is none.
func (w *wants) at(key record.Tag, v record.Version) *want {
	list := w.byPath[key]
	i, found := slices.BinarySearchFunc(list, v, func(o *want, v record.Version) int { return v.Compare(o.Version) })
	if !found {
		return nil
	}
	return list[i]
}

// add makes a want for a slot's entry, or for its chunks.
func (w *wants) add(key record.Tag, s *slot) *want {
	o := &want{Want: record.Want{PathKey: key, Version: s.version, Entry: s.entry}, tags: s.tags, author: s.author}
	if s.chunked {
		o.chunks = s.chunks
		w.large = append(w.large, o)
		w.unseen = true
	} else {
		w.bell = true
	}
	return o
}

// load adds a want found in the rows at start.
func (w *wants) load(key record.Tag, s *slot) {
	w.byPath[key] = append(w.byPath[key], w.add(key, s))
	w.count++
}

// rung tells whether wants were added since the last call.
func (w *wants) rung() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	rung := w.bell
	w.bell = false
	return rung
}

// forPeer gives up to limit wants that peer may be asked for now. Per path the highest first; a lower version only
// when somebody did not have the higher ones.
func (w *wants) forPeer(peer record.PublicKey, p *acl.Policy, now int64, limit int) []record.Want {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []record.Want
	if fault.Planted("forget-wants") {
		return nil
	}
	for _, list := range w.byPath {
		for _, o := range list {
			if len(out) >= limit {
				return out
			}
			if o.chunks == nil && o.asked <= now && o.refused[peer].until <= now && o.mayHave(peer, p, now) {
				o.asked = now + askAgain
				out = append(out, o.Want)
			}
			if len(o.refused) == 0 {
				break
			}
		}
	}
	return out
}

// mayHave tells whether a peer may hold the entry: who may read it, its author, and, when those were no help, everybody,
// because who relayed it keeps it too.
func (o *want) mayHave(peer record.PublicKey, p *acl.Policy, now int64) bool {
	if o.since == 0 {
		o.since = now
	}
	return peer == o.author || p.MayRead(peer, o.tags) || now-o.since > askAnybody && p.Member(peer)
}

// refused notes that a peer did not give an entry.
func (w *wants) refused(peer record.PublicKey, want record.Want, now int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.at(want.PathKey, want.Version)
	if o == nil {
		return
	}
	if o.refused == nil {
		o.refused = make(map[record.PublicKey]refusal)
	}
	r := o.refused[peer]
	r.until = now + min(int64(refusedFirst)<<min(r.times, 10), refusedMost)
	r.times++
	o.refused[peer] = r
	o.asked = 0 // others may be asked at once
}

// hopeless tells whether an unready write need not wait for this entry any longer: the write is older than the
// horizon, its block has been here for a minute, and since then somebody was asked and had nothing.
func (w *wants) hopeless(key record.Tag, v record.Version, u *unreadyWrite, now int64) bool {
	if now-u.hlc.Milli() <= horizon.Milliseconds() || now-u.arrived <= 60_000 {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.at(key, v)
	return o != nil && len(o.refused) > 0
}

func (w *wants) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}
