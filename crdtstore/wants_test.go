package crdtstore

import (
	"context"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// TestRefusalIsABackOff: the only host that has an entry is behind with the policy by which another may read it, and says
// no, however often it is asked. A minute after the last time at most it is asked again.
func TestRefusalIsABackOff(t *testing.T) {
	n := newTestNet(t, 1)
	a, b := n.start("a", nil), n.start("b", nil)
	before := n.policy(hosts, "* peer", "a /p rw")
	a.apply(before)
	b.apply(before)
	a.put("/p", "v")
	b.pull(a)
	after := n.policy(hosts, "* peer", "a /p rw", "b /p read")
	b.apply(after)
	ask := func(want int, status record.AnswerStatus) {
		t.Helper()
		wants := b.Wants(a.self, 10)
		if len(wants) != want {
			t.Fatalf("a is asked for %d entries, want %d", len(wants), want)
		}
		answers := a.Serve(b.self, wants)
		for _, answer := range answers {
			if answer.Status != status {
				t.Fatalf("a answers %d, want %d", answer.Status, status)
			}
		}
		if err := b.Answered(context.Background(), a.self, wants, answers); err != nil {
			t.Fatal(err)
		}
	}
	ask(1, record.Denied)
	for range 20 {
		ask(0, record.Denied)
		n.clock.advance(refusedMost * time.Millisecond)
		ask(1, record.Denied)
	}
	a.apply(after)
	n.clock.advance(refusedMost * time.Millisecond)
	ask(1, record.Here)
	if got := b.get("/p"); got != "v" {
		t.Errorf("b shows %q", got)
	}
}
