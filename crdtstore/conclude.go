package crdtstore

import (
	"slices"
	"time"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// A turn that is committed is concluded: synced to disk if somebody counts on it, and told. While the owner has more to
// do, another goroutine does that; an idle owner does it itself, for to wake somebody takes as long as half a sync.
// Turns are concluded in order, and those that wait share one sync.

const (
	// maxOpen is how many committed turns may wait to be concluded; then the owner waits too.
	maxOpen = 8
	// crowd is how many local writes are worth a turn while an earlier one of ours is on its way to disk. Fewer wait for
	// it, and share one block and one sync with those that come meanwhile.
	crowd = record.MaxBundleWrites
)

// openTurn is a committed turn, and what is left to do of it.
type openTurn struct {
	sync    bool // to disk before anything is told
	dag     *dagState
	stats   *Stats
	feed    uint64 // last number of the change feed
	shown   bool   // the feed has a new row
	local   []*localWrite
	repeats []repeat
	ended   ended
	out     []record.Outgoing
}

// leave gives a committed turn to whoever concludes it.
func (s *Store) leave(o *openTurn) error {
	if o.sync {
		s.syncing.Add(1)
	}
	s.openMu.Lock()
	s.open = append(s.open, o)
	full := len(s.open) >= maxOpen
	s.openMu.Unlock()
	if full || len(s.inbox) == 0 && !s.busy() {
		return s.conclude()
	}
	select {
	case s.left <- struct{}{}:
	default:
	}
	return nil
}

// conclude syncs and tells what was committed so far. When it returns, all of that is told. An error means that it may
// not be on disk: nobody was told, and the process must start anew.
func (s *Store) conclude() error {
	s.concluding.Lock()
	defer s.concluding.Unlock()
	s.openMu.Lock()
	turns := s.open
	s.open = nil
	s.openMu.Unlock()
	if slices.ContainsFunc(turns, func(o *openTurn) bool { return o.sync }) {
		if err := s.kv.Sync(); err != nil {
			return err
		}
		fault.Point("turn.after-sync")
		s.noteSynced(turns[len(turns)-1].feed)
	}
	for _, o := range turns {
		s.tell(o)
		if o.sync && s.syncing.Add(-1) == 0 {
			select {
			case s.told <- struct{}{}:
			default:
			}
		}
	}
	return nil
}

// ripe tells whether the waiting local writes are to be taken now.
func (s *Store) ripe() bool {
	n := len(s.queue.writes)
	return n >= crowd || n > 0 && s.syncing.Load() == 0 && s.spacing() <= 0
}

// spacing is how long the waiting local writes are still to wait for more.
func (s *Store) spacing() time.Duration {
	_, now := s.clock.Now()
	return s.pace.wait(now)
}

// concludeAll concludes turns until stop is closed and none is left.
func (s *Store) concludeAll(stop <-chan struct{}) error {
	for {
		select {
		case <-s.left:
			if err := s.conclude(); err != nil {
				return err
			}
		case <-stop:
			return s.conclude()
		}
	}
}

// tell is the last step of a turn: only now does anybody hear of it.
func (s *Store) tell(o *openTurn) {
	o.dag.seal()
	s.dag.Store(o.dag)
	o.stats.BlockDigest = o.dag.digest
	s.stats.Store(o.stats)
	fault.Point("turn.before-acknowledge")
	if !fault.Planted("acknowledge-first") {
		acknowledge(o.local, o.repeats)
	}
	fault.Point("turn.after-acknowledge")
	for _, r := range o.ended.ingests {
		r.finish(nil)
	}
	for _, r := range o.ended.answers {
		r.done <- r.result
	}
	if len(o.out) > 0 && s.onCommit != nil {
		s.onCommit(o.out)
		fault.Point("turn.after-publish")
	}
	s.committed.Store(o.feed)
	if o.shown {
		s.ring()
	}
	if s.wants.rung() && s.onWants != nil {
		s.onWants()
	}
}

func acknowledge(local []*localWrite, repeats []repeat) {
	for _, l := range local {
		l.req.answer(writeResult{version: l.version})
	}
	for _, r := range repeats {
		r.req.answer(writeResult{version: r.version})
	}
}
