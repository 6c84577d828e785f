package p2p

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// alarmList keeps the message of each alarm that is raised.
type alarmList struct {
	mu  sync.Mutex
	now map[string]string
	all int
}

func (l *alarmList) set(code, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil {
		l.now = map[string]string{}
	}
	if delete(l.now, code); message != "" {
		l.now[code] = message
		l.all++
	}
}

func (l *alarmList) raised() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now[AlarmDiverged] != ""
}

// TestDivergenceIsReported holds that both sides raise the alarm when blocks or views differ and nothing explains it,
// that it ends when they are equal again, and that the normal course raises none.
func TestDivergenceIsReported(t *testing.T) {
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	ra, rb := newFake(ka, policy), newFake(kb, policy)
	var la, lb alarmList
	a := start(t, "a", ra, Options{Alarm: la.set})
	b := start(t, "b", rb, Options{Alarm: lb.set, Bootstrap: a.node.Addrs()})
	for i := range 20 { // no alarm in the normal course
		a.publish([]byte("v"), fmt.Sprintf("/a/%d", i))
		b.put([]byte("v"), fmt.Sprintf("/b/%d", i))
	}
	eventually(t, equal(a, b), "equal")
	if la.all+lb.all > 0 {
		t.Fatalf("alarms though the replicas agree: %v %v", la.now, lb.now)
	}
	set := func(change func()) {
		rb.mu.Lock()
		defer rb.mu.Unlock()
		change()
	}
	hurry := func(h, to *agent) { // not to wait for the next round
		if s := h.node.session(to.self.PeerID()); s != nil {
			s.mu.Lock()
			s.tellView, s.syncAfter = true, time.Time{}
			if !s.differsSince.IsZero() {
				s.differsSince = s.differsSince.Add(-viewLasts)
			}
			s.mu.Unlock()
			ring(s.hintBell)
		}
	}
	both := func(raised bool) func() bool {
		return func() bool {
			hurry(a, b)
			hurry(b, a)
			return la.raised() == raised && lb.raised() == raised
		}
	}
	set(func() { rb.rot = 1 })
	eventually(t, both(true), "other blocks raise the alarm on both sides")
	set(func() { rb.rot = 0 })
	eventually(t, both(false), "the alarm ends")
	set(func() { rb.shows = 1 })
	eventually(t, both(true), "another view raises the alarm on both sides")
	set(func() { rb.shows = 0 })
	eventually(t, both(false), "the alarm ends")
}

// TestViewsOfOtherRightsAreNotCompared holds that who may read something else, or has another policy or other blocks,
// is not taken for one that has diverged.
func TestViewsOfOtherRightsAreNotCompared(t *testing.T) {
	hs := cluster(t, 2)
	a, b := hs[0], hs[1]
	eventually(t, equal(a, b), "equal")
	s := a.node.session(b.self.PeerID())
	same := a.node.viewNote()
	differs := func(change func(*viewNote)) bool {
		v := same
		change(&v)
		a.node.noteView(s, v)
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.differsSince.IsZero()
	}
	other := func(v *viewNote) { v.View[0]++ }
	for name, change := range map[string]func(*viewNote){
		"same": func(*viewNote) {}, "blocks": func(v *viewNote) { other(v); v.Blocks[0]++ },
		"policy": func(v *viewNote) { other(v); v.Policy[0]++ }, "not settled": func(v *viewNote) { other(v); v.Settled = false },
	} {
		if differs(change) {
			t.Errorf("%s: taken for a difference", name)
		}
	}
	if !differs(other) {
		t.Error("a difference is not noted")
	}
	a.setPolicy(&fakePolicy{Number: 2, Keys: a.policy.Keys, Private: map[string][]record.PublicKey{"/x": {a.self}}})
	same = a.node.viewNote()
	if differs(other) {
		t.Error("other rights: taken for a difference")
	}
	for _, bad := range [][]byte{nil, {2}, append(same.encode(), 0), append([]byte{9}, same.encode()[1:]...)} {
		if _, err := parseViewNote(bad); err == nil {
			t.Errorf("%x is read", bad)
		}
	}
}
