package p2p

import (
	"testing"

	"syncagent/crdtstore/record"
)

// TestRepeatedGossipIsNotListenedTo: who sends again and again what everybody has is not passed on, and soon not read; what
// it has to say afterwards is heard.
func TestRepeatedGossipIsNotListenedTo(t *testing.T) {
	kx := testKey(t)
	a, c := pair(t, func(p *fakePolicy, _, _ record.PublicKey) { p.Keys = append(p.Keys, record.KeyOf(kx)) })
	policy, _ := a.Rights().(*fakePolicy)
	x := newFake(kx, policy)
	host := rawPeer(t, kx)
	eventually(t, func() bool {
		return host.Connect(t.Context(), addrInfo(t, a.node.Addrs()[0])) == nil && connectedPeers(a) == 2
	}, "x connects")
	topic, _ := subscribe(t, host, a)
	send := func(out ...Outgoing) {
		t.Helper()
		for _, m := range pack(out, policy) {
			if err := topic.Publish(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
	}
	x.age = 2 * onItsWay
	old := x.put([]byte("v"), "/old")
	eventually(t, func() bool { send(old); return c.holds("/old") != 0 }, "c gets it by gossip of a")
	passedOn := c.node.received.Load()
	eventually(t, func() bool { send(old); return limited(t, a.node, limitRepeats) > 0 }, "a stops to listen")
	if now := c.node.received.Load(); now > passedOn+4*int64(len(old.Block)) { // some were on their way
		t.Errorf("%d bytes of repetitions were passed on", now-passedOn)
	}
	x.age = 0
	fresh := x.put([]byte("v"), "/new")
	eventually(t, func() bool { send(old, fresh); return a.holds("/new") != 0 }, "a hears news")
}

func TestNews(t *testing.T) {
	a, _ := pair(t, nil)
	block := func(o Outgoing) *record.Block {
		t.Helper()
		b, err := record.ParseBlock(o.Block)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	young := block(a.put([]byte("v"), "/young"))
	a.age = 2 * onItsWay
	old, seen := block(a.put([]byte("v"), "/old")), block(a.put([]byte("v"), "/seen"))
	other := newFake(a.key, &fakePolicy{})
	other.age = 2 * onItsWay
	unknown := block(other.put([]byte("v"), "/unknown"))
	a.age = 0
	seenYoung := block(a.put([]byte("v"), "/seen-young"))
	a.node.recent.see(seen.Digest, seen.Origin)
	a.node.recent.see(seenYoung.Digest, seen.Origin)
	for _, c := range []struct {
		name   string
		blocks []*record.Block
		want   bool
	}{
		{"held and old", []*record.Block{old}, false},
		{"held and young", []*record.Block{young}, true},
		{"old and unknown", []*record.Block{unknown}, true},
		{"gossiped before", []*record.Block{seen}, false},
		{"young and gossiped before", []*record.Block{seenYoung}, false},
		{"all old, one unknown", []*record.Block{old, seen, unknown}, true},
		{"all old, one young", []*record.Block{old, seen, young}, true},
		{"all known", []*record.Block{seen, old, seenYoung}, false},
	} {
		if got := a.node.news(&gossip{blocks: c.blocks}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
