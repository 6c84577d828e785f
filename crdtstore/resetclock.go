package crdtstore

import (
	"context"
	"time"

	"syncagent/crdtstore/record"
)

type clockRequest struct{ done chan clockResult }

type clockResult struct {
	back time.Duration
	err  error
}

// ResetClock sets agent time back to the wall clock and tells by how much; zero if it was not ahead. It is the cure after
// a clock that ran ahead, and the one thing beside a policy that lets versions go back (G4): what was written ahead of
// time is hidden until it is due. Watches are told as of a policy.
func (s *Store) ResetClock(ctx context.Context) (time.Duration, error) {
	req := &clockRequest{make(chan clockResult, 1)}
	if err := s.send(ctx, req); err != nil {
		return 0, err
	}
	r, err := await(ctx, s, req.done)
	if err != nil {
		return 0, err
	}
	return r.back, r.err
}

// resetClock is a turn of its own, like a policy switch. All paths are judged anew, because what was due is no longer.
func (s *Store) resetClock(req *clockRequest) error {
	if err := s.conclude(); err != nil {
		return err
	}
	now, _ := s.clock.Now()
	wall, ahead := now.UnixMilli(), time.Duration(s.tick()-now.UnixMilli())*time.Millisecond
	if ahead < time.Second {
		req.done <- clockResult{}
		return nil
	}
	r, c := newRows(), s.counters
	c.agentTime = wall
	c.judgeAnew()
	c.addFeed(r, s.run, []feedItem{{kind: feedPolicy}})
	r.set(countersKey, c.encode())
	if err := s.kv.Commit(r); err != nil {
		return err
	}
	if err := s.kv.Sync(); err != nil {
		return err
	}
	s.clockMu.Lock()
	s.time = wall
	s.clockMu.Unlock()
	s.counters, s.minute, s.rowsBy = c, 0, nil
	s.wants.forgetTimes()
	s.force.Store(&inForce{s.Policy(), c.generation})
	s.committed.Store(c.feed)
	s.stats.Store(s.newStats(s.last))
	s.ring()
	s.log.Warn("agent time was set back to the clock of this host", "by", ahead)
	req.done <- clockResult{back: ahead}
	return nil
}

// judgeAnew has all rows put right by later turns.
func (c *counters) judgeAnew() {
	c.generation++
	c.place = record.Tag{}
	c.withheld = 0
}

// forgetTimes ends all waiting, whose times lie in a future that was taken back.
func (w *wants) forgetTimes() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, list := range w.byPath {
		for _, o := range list {
			o.since, o.asked, o.refused = 0, 0, nil
		}
	}
	w.bell = true
}
