package p2p

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

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
	old := x.put([]byte("v"), "/old")
	eventually(t, func() bool { send(old); return c.holds("/old") != 0 }, "c gets it")
	passedOn := c.node.received.Load()
	eventually(t, func() bool {
		for range repeatsBurst {
			send(old)
		}
		return limited(t, a.node, limitRepeats) > 0
	}, "a stops to listen")
	if now := c.node.received.Load(); now > passedOn+4*int64(len(old.Block)) { // some were on their way
		t.Errorf("%d bytes of repetitions were passed on", now-passedOn)
	}
	fresh := x.put([]byte("v"), "/new")
	eventually(t, func() bool { send(old, fresh); return a.holds("/new") != 0 }, "a hears news")
}

// TestNews: what is not passed on, and who has to answer for it.
func TestNews(t *testing.T) {
	a, _ := pair(t, nil)
	block := func(raw []byte) *record.Block {
		t.Helper()
		b, err := record.ParseBlock(raw)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	recent := a.node.recent
	old := block(a.put([]byte("v"), "/old").Block)
	pushed := a.put([]byte("v"), "/pushed")
	a.node.came([]record.Parcel{{Block: pushed.Block}})
	own := a.put([]byte("v"), "/own")
	a.node.Publish(own)
	unknown := block(newFake(a.key, &fakePolicy{}).put([]byte("v"), "/unknown").Block)
	told := block(a.put([]byte("v"), "/told").Block)
	recent.see(told.Digest, told.Origin, "b")
	first := block(a.put([]byte("v"), "/first").Block)
	recent.see(first.Digest, first.Origin, "b")
	both := block(a.put([]byte("v"), "/both").Block)
	recent.see(both.Digest, both.Origin, "b")
	for _, c := range []struct {
		name        string
		from        peer.ID
		blocks      []*record.Block
		news, blame bool
	}{
		{"held for long", "b", []*record.Block{old}, false, true},
		{"pushed lately", "b", []*record.Block{block(pushed.Block)}, true, false},
		{"own", "b", []*record.Block{block(own.Block)}, true, false},
		{"unknown", "b", []*record.Block{unknown}, true, false},
		{"told by another", "c", []*record.Block{told}, false, false},
		{"of its own, told by another", a.self.PeerID(), []*record.Block{first}, true, false},
		{"told by itself", "c", []*record.Block{told}, false, true},
		{"told by itself and held for long", "c", []*record.Block{told, old}, false, true},
		{"told by itself and by another", "c", []*record.Block{told, both}, false, false},
		{"one of them unknown", "c", []*record.Block{told, old, unknown}, true, false},
		{"one of them pushed", "c", []*record.Block{told, old, block(pushed.Block)}, true, false},
	} {
		if news, blame := a.node.news(&gossip{blocks: c.blocks}, c.from); news != c.news || blame && !news != c.blame {
			t.Errorf("%s: news %v, blame %v", c.name, news, blame)
		}
	}
	for i := range recentBlocks { // so many that those of the last seconds are not all remembered
		recent.came(record.DigestOf([]byte{byte(i), byte(i >> 8)}))
	}
	if news, _ := a.node.news(&gossip{blocks: []*record.Block{old}}, "b"); !news {
		t.Error("a block that may have come a moment ago is not passed on")
	}
}
