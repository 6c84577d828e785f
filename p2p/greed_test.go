package p2p

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// Who asks for everything on several streams is answered on one after the other, and others are answered meanwhile.
func TestPeerIsServedOneAtATime(t *testing.T) {
	ka, kb, kx := testKey(t), testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb), record.KeyOf(kx)}}
	ra := newFake(ka, policy)
	var held, most atomic.Int32
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	defer let()
	greedy := record.KeyOf(kx)
	ra.pulled = func(reader record.PublicKey) {
		if reader != greedy {
			return
		}
		if n := held.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-release
		held.Add(-1)
	}
	a := start(t, "a", ra, Options{})
	b := start(t, "b", newFake(kb, policy), Options{Bootstrap: a.node.Addrs()})
	x := start(t, "x", newFake(kx, policy), Options{Bootstrap: a.node.Addrs()})
	eventually(t, func() bool { return connectedPeers(a) == 2 }, "all connect")
	const streams = 4
	var pulls []*frames
	for range streams {
		f := sneak(t, x, a, protoSync)
		if err := f.write(framePull, nil); err != nil {
			t.Fatal(err)
		}
		pulls = append(pulls, f)
	}
	eventually(t, func() bool { return held.Load() > 0 }, "x is served")
	b.node.Pause()
	eventually(t, func() bool { return connectedPeers(b) == 0 }, "b is apart")
	a.put([]byte("v"), "/while-x-asks")
	b.node.Resume()
	eventually(t, func() bool { return b.holds("/while-x-asks") == 1 }, "b is served meanwhile")
	let()
	for _, f := range pulls {
		for {
			kind, _, err := f.read(time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			if kind == frameDone {
				break
			}
		}
	}
	if n := most.Load(); n != 1 {
		t.Errorf("%d requests of one peer were answered at a time", n)
	}
}

// The topic carries what members made. Who passed on what a hostile member publishes by invented keys would have to
// answer for it.
func TestTopicCarriesBlocksOfMembersOnly(t *testing.T) {
	ka, kx, stranger := testKey(t), testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kx)}}
	a := start(t, "a", newFake(ka, policy), Options{})
	topic := joinRaw(t, a, rawPeer(t, kx))
	for _, o := range []Outgoing{newFake(stranger, policy).put([]byte("v"), "/stranger"), newFake(kx, policy).put([]byte("v"), "/member")} {
		if err := topic.Publish(t.Context(), pack([]Outgoing{o}, policy)[0]); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool { return a.holds("/member") == 1 }, "a member's block is taken")
	if a.holds("/stranger") != 0 || a.blockCount() != 2 { // the genesis block and the member's
		t.Errorf("a stranger's block came by the topic; %d blocks", a.blockCount())
	}
}
