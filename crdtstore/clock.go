package crdtstore

import (
	"time"

	"syncagent/crdtstore/fault"
)

// Clock is the time that a store goes by. It is a seam for tests.
type Clock interface {
	// Now gives the wall clock, which may jump, and a reading of a clock that only goes forward.
	Now() (wall time.Time, monotonic time.Duration)
}

type systemClock struct{ start time.Time }

func (c systemClock) Now() (time.Time, time.Duration) {
	now := time.Now()
	return now.Add(fault.ClockOffset()), now.Sub(c.start)
}

// tick gives agent time in Unix milliseconds: the wall clock, but never back, neither by a clock step nor over a
// restart.
func (s *Store) tick() int64 {
	wall, mono := s.clock.Now()
	s.clockMu.Lock()
	defer s.clockMu.Unlock()
	// Whole milliseconds only are carried over, so that many short calls do not lose time.
	elapsed := (mono - s.mono).Milliseconds()
	s.mono += time.Duration(elapsed) * time.Millisecond
	s.time = max(wall.UnixMilli(), s.time+elapsed)
	return s.time
}

// AgentTime gives the clock that writes are stamped with.
func (s *Store) AgentTime() time.Time { return time.UnixMilli(s.tick()).UTC() }
