package crdtstore

import (
	"context"
	"testing"
	"time"
)

// TestG4_ResetClockHidesWhatIsNotDue: the clock of a host ran two days ahead. Mending it does not move agent time; the
// reset does, and what was written ahead of time waits until it is due, on that host as everywhere.
func TestG4_ResetClockHidesWhatIsNotDue(t *testing.T) {
	n := newTestNet(t, 1)
	a, b := n.start("a", nil), n.start("b", nil)
	policy := n.policy([]string{"a", "b"}, "* peer", "* / rw")
	a.apply(policy)
	b.apply(policy)
	a.put("/x", "good")
	a.clock.setOffset(48 * time.Hour)
	a.put("/x", "ahead")
	w := a.watch(t, "", "/")
	w.want(EventPut, "/x", "ahead")
	w.want(EventSynced, "", "")
	a.clock.setOffset(0)
	if skew := a.AgentTime().Sub(time.UnixMilli(n.clock.wall)); skew < 47*time.Hour {
		t.Fatalf("agent time is %s ahead", skew)
	}

	back, err := a.ResetClock(context.Background())
	if err != nil || back < 47*time.Hour || back > 49*time.Hour {
		t.Fatalf("set back by %s, %v", back, err)
	}
	if got := a.get("/x"); got != "good" {
		t.Errorf("before the rows are put right /x shows %q", got)
	}
	a.settle()
	if got := a.get("/x"); got != "good" {
		t.Errorf("/x shows %q", got)
	}
	w.want(EventPolicy, "", "")
	w.want(EventPut, "/x", "good")
	a.put("/x", "new")
	b.pull(a)
	if a.get("/x") != "new" || b.get("/x") != "new" {
		t.Errorf("a shows %q, b %q", a.get("/x"), b.get("/x"))
	}
	if again, err := a.ResetClock(context.Background()); err != nil || again != 0 {
		t.Errorf("a second reset sets back by %s, %v", again, err)
	}
	disk := a.disk
	a.stop()
	a = n.start("a", disk)
	if skew := a.AgentTime().Sub(time.UnixMilli(n.clock.wall)); skew > time.Second || a.get("/x") != "new" {
		t.Errorf("after a restart agent time is %s ahead, /x shows %q", skew, a.get("/x"))
	}
	n.clock.advance(48 * time.Hour)
	a.put("/y", "a turn")
	b.pull(a)
	b.put("/z", "a turn")
	waitFor(t, func() bool { return a.get("/x") == "ahead" && b.get("/x") == "ahead" })
}
