package crdtstore

import (
	"errors"
	"fmt"
	"time"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// step is one turn: it takes what is ready and commits it at one go; conclude.go does the rest. An error means that the
// store is as it was before the turn, and that the process must start anew.
func (s *Store) step() error {
	if len(s.queue.policies) > 0 {
		req := s.queue.policies[0]
		s.queue.policies = s.queue.policies[1:]
		return s.switchPolicy(req)
	}
	if len(s.queue.clocks) > 0 {
		req := s.queue.clocks[0]
		s.queue.clocks = s.queue.clocks[1:]
		return s.resetClock(req)
	}
	t := s.newTurn()
	defer t.view.Close()
	s.turn = t
	full := s.diskIsFull()
	ended, err := t.collect(full)
	if err != nil {
		return err
	}
	fault.Point("turn.collected")
	if err := t.finish(); err != nil {
		return err
	}
	fault.Point("turn.finished")
	if err := t.commit(); err != nil {
		return err
	}
	_, now := s.clock.Now()
	s.pace.took(now, t.foreign, len(t.local) > 0, ended.ingests)
	t.tellAges()
	s.last, s.made = t.dag, len(t.local)
	return s.leave(&openTurn{
		sync: s.syncs(t), dag: t.dag, stats: s.newStats(t.dag), feed: s.counters.feed, shown: len(t.feed) > 0,
		local: t.local, repeats: t.repeats, ended: ended, out: t.out,
	})
}

// syncs tells whether a turn must be on disk before anybody hears of it: one that made writes, or the first for a while.
func (s *Store) syncs(t *turn) bool {
	_, mono := s.clock.Now()
	own := len(t.local) > 0 || len(t.out) > 0 || len(t.repeats) > 0 && !fault.Planted("repeat-unsynced")
	if (!own || fault.Planted("acknowledge-unsynced")) && mono-s.lastSync < syncWithin {
		return false
	}
	s.unsynced, s.lastSync = false, mono
	return true
}

// ended lists the requests that this turn finishes.
type ended struct {
	ingests []*ingestRequest
	answers []*answerRequest
}

// collect does steps 1 and 2 of a turn: everything from outside first, then this host's own writes. A write too large to
// share the last turn has this one to itself.
func (t *turn) collect(full bool) (done ended, err error) {
	if t.s.passedOver {
		t.s.passedOver = false
		return done, t.takeWrites(full)
	}
	if err := t.due(); err != nil {
		return done, err
	}
	if err := t.rejudge(); err != nil {
		return done, err
	}
	if err := t.takeChunks(); err != nil {
		return done, err
	}
	if done.answers, err = t.takeAnswers(full); err != nil {
		return done, err
	}
	if done.ingests, err = t.takeParcels(full); err != nil {
		return done, err
	}
	if err := t.merge(); err != nil {
		return done, err
	}
	return done, t.takeWrites(full)
}

// errFull is the answer to writes while the reserve of free disk is used up.
func (s *Store) errFull() error {
	return fmt.Errorf("%w: less than %d MiB free; free some space or lower store.min_free", ErrDiskFull, s.minFree>>20)
}

// checkRoom refuses to add to a disk whose reserve is used up.
func (s *Store) checkRoom() error {
	if free, ok := diskFree(s.dir); ok && free < s.minFree {
		return s.errFull()
	}
	return nil
}

// diskIsFull tells whether the reserve of free disk is used up.
func (s *Store) diskIsFull() bool {
	if s.minFree == 0 {
		return false
	}
	free, ok := diskFree(s.dir)
	full := ok && free < s.minFree
	if full == s.full {
		return full
	}
	s.full = full
	if !full {
		s.alarm("disk-full", "")
	} else {
		s.alarm("disk-full", fmt.Sprintf("%d MiB free, %d MiB are kept in reserve: nothing is taken in until there is more; "+
			"free some space or lower store.min_free", free>>20, s.minFree>>20))
	}
	return full
}

// commit makes the turn real: step 4. Entries too large for it go first; their list x lets a start after a crash
// remove them again.
func (t *turn) commit() error {
	s := t.s
	s.engine.overlay.take(t.rows)
	headRows(s.last, t.dag, t.rows)
	spilled, err := t.storeSpilled()
	if err != nil {
		return err
	}
	if spilled {
		t.rows.delete(key('x'))
	}
	if fault.Planted("acknowledge-first") {
		acknowledge(t.local, t.repeats)
	}
	if err := t.plantedCommit(); err != nil {
		return err
	}
	fault.Point("turn.before-commit")
	if err := s.kv.Commit(t.rows); err != nil {
		return err
	}
	fault.Point("turn.after-commit")
	t.remember()
	t.useChunks()
	s.unsynced = true
	return nil
}

// tellAges says how old the writes of others were when they were committed.
func (t *turn) tellAges() {
	if t.s.onForeign == nil {
		return
	}
	for _, b := range t.foreign {
		if len(b.Writes) > 0 {
			t.s.onForeign(time.Duration(t.now-b.Writes[0].HLC.Milli()) * time.Millisecond)
		}
	}
}

// newStats gives the counters as they are now, for a DAG that may not be sealed yet.
func (s *Store) newStats(d *dagState) *Stats {
	st := &Stats{
		Entries: int64(s.counters.entries), ViewDigest: s.counters.viewDigest, BlockDigest: d.digest,
		Blocks: int64(s.counters.blocks), Heads: len(d.heads), Parked: len(s.parked.blocks),
		Judging: s.counters.judged != s.counters.generation, Withheld: int64(s.counters.withheld), Unready: len(s.unready), Incarnation: s.chain.incarnation,
	}
	if p := s.Policy(); p != nil {
		st.Serial, st.PolicyHash = p.Serial(), p.Hash()
	}
	return st
}

// checkOwn is the block rule for blocks that go-ds-crdt made of our own bundles, but for the signature that this turn
// made: to check it costs more than the rest of a turn.
func (s *Store) checkOwn(b *record.Block) error {
	if b.Bundle == nil {
		if len(s.last.heads) > 0 {
			return errors.New("a second genesis block")
		}
		_, err := record.ParseGenesisBlock(b.Raw, s.network, 0)
		return err
	}
	return s.turn.checkLinks(b)
}
