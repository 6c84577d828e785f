package crdtstore

import (
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// traffic lets windows pass in which own blocks are made and others' come, each so long after its delivery.
func traffic(p *pace, now time.Duration, windows, mine, origins, blocks int, lag time.Duration) time.Duration {
	for range windows {
		now += paceWindow
		for range mine {
			p.took(now, nil, true, nil)
		}
		for i := range blocks {
			b := &record.Block{Bundle: &record.Bundle{Origin: record.PublicKey{byte(i % origins)}}}
			done := &ingestRequest{came: now - lag, done: make(chan ingestResult, 1)}
			p.took(now, []*record.Block{b}, false, []*ingestRequest{done})
		}
	}
	return now
}

func TestOwnBlocksAreSpacedWhileTooManyComeFromOthers(t *testing.T) {
	const late = 10 * paceLag
	for _, c := range []struct {
		name                           string
		windows, mine, origins, blocks int
		lag                            time.Duration
		least, most                    time.Duration
	}{
		{"nothing", 10, 1, 1, 0, 0, 0, 0},
		{"many that flow", 10, 25, 4, 100, paceLag / 2, 0, 0},
		{"few that lag", 10, 1, 2, 2, late, 0, 0},
		{"one window", 2, 5, 4, 20, late, minSpacing, minSpacing},
		{"a load that all share", 12, 1, 4, 4, late, 15 * time.Millisecond, maxSpacing},
		{"two that make many", 12, 25, 1, 25, late, paceWindow * 2 / 50, paceWindow * 3 / 50},
		{"one that floods", 12, 10, 1, 100, late, 0, 0},
		{"mine alone, beside some that come late", 12, 25, 2, 6, late, 0, 0},
	} {
		var p pace
		now := traffic(&p, time.Minute, c.windows, c.mine, c.origins, c.blocks, c.lag)
		p.own = now
		if got := p.wait(now); got < c.least || got > c.most {
			t.Errorf("%s: a write waits %v, want %v to %v", c.name, got, c.least, c.most)
		}
	}
}

func TestSpacingEndsWhenBlocksFlow(t *testing.T) {
	var p pace
	now := traffic(&p, time.Minute, 12, 1, 4, 4, 10*paceLag)
	now = traffic(&p, now, 40, 1, 4, 4, 0)
	if p.own = now; p.wait(now) != 0 {
		t.Errorf("a second later a write waits %v", p.wait(now))
	}
	now = traffic(&p, now, 12, 1, 4, 4, 10*paceLag)
	now += 2 * time.Second // no turn at all
	if p.own = now; p.wait(now) > 0 {
		t.Errorf("after silence a write waits %v", p.wait(now))
	}
}

func TestOwnerWaitsForCompany(t *testing.T) {
	clock := &offsetClock{testClock: &testClock{}}
	clock.advance(time.Minute)
	s := &Store{clock: clock}
	s.queue.writes = []*writeRequest{{}}
	if !s.ripe() {
		t.Error("a write waits although nothing comes")
	}
	_, now := clock.Now()
	s.pace.spacing, s.pace.own = 8*time.Millisecond, now
	if s.ripe() || s.idle() != 8*time.Millisecond {
		t.Errorf("spaced: ripe %v, the owner sleeps for %v", s.ripe(), s.idle())
	}
	s.queue.writes = make([]*writeRequest, crowd)
	if !s.ripe() {
		t.Error("a full block waits")
	}
	s.queue.writes = s.queue.writes[:1]
	clock.advance(8 * time.Millisecond)
	if !s.ripe() {
		t.Errorf("it still waits: %v", s.spacing())
	}
}
