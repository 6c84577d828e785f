package crdtstore

import (
	"testing"
	"time"
)

func TestOwnBlocksAreSpacedWhileForeignOnesWait(t *testing.T) {
	clock := &offsetClock{testClock: &testClock{}}
	s := &Store{clock: clock}
	s.queue.writes = []*writeRequest{{}}
	clock.advance(time.Minute)
	_, s.lastOwn = clock.Now()
	if !s.ripe() {
		t.Error("a write waits although nothing comes")
	}
	s.coming.Store(5)
	if got := s.spacing(); got != 5*blockCost || s.ripe() {
		t.Errorf("five blocks come: %v, ripe %v", got, s.ripe())
	}
	s.coming.Store(1 << 40)
	if got := s.spacing(); got != maxSpacing {
		t.Errorf("a flood comes: %v", got)
	}
	if got := s.idle(); got != maxSpacing {
		t.Errorf("the owner sleeps for %v", got)
	}
	s.queue.writes = make([]*writeRequest, crowd)
	if !s.ripe() {
		t.Error("a full block waits")
	}
	s.queue.writes = s.queue.writes[:1]
	clock.advance(maxSpacing)
	if !s.ripe() {
		t.Errorf("it still waits: %v", s.spacing())
	}
}
