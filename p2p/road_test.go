package p2p

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"syncagent/crdtstore/record"
)

func TestG7_EntryGoesOnlyToWhoMayRead(t *testing.T) {
	ka, kb, kc := testKey(t), testKey(t), testKey(t)
	keys := []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb), record.KeyOf(kc)}
	policy := &fakePolicy{Number: 1, Keys: keys, Private: map[string][]record.PublicKey{"/secret": keys[:2]}}
	ra := newFake(ka, policy)
	ra.put([]byte("old"), "/secret/old", "/open/old") // will go by sync
	a := start(t, "a", ra, Options{})
	b := start(t, "b", newFake(kb, policy), Options{Bootstrap: a.node.Addrs()})
	c := start(t, "c", newFake(kc, policy), Options{Bootstrap: a.node.Addrs()})
	for _, h := range []*agent{a, b, c} {
		eventually(t, func() bool { return connectedPeers(h) == 2 }, "%s connects", h.name)
	}
	eventually(t, equal(a, b, c), "sync")
	a.publish([]byte("fresh"), "/secret/fresh", "/open/fresh")                  // pushed and gossiped
	a.publish(bytes.Repeat([]byte("large"), 5000), "/secret/large")             // pushed
	a.publish(bytes.Repeat([]byte("larger"), 20<<10), "/open/l", "/secret/big") // too large for the topic
	eventually(t, equal(a, b, c), "blocks go to all")
	eventually(t, func() bool { return b.holds("/secret") == 4 && b.holds("/open") == 3 && c.holds("/open") == 3 }, "entries go to those who may read")
	if got := c.holds("/secret"); got != 0 {
		t.Errorf("c holds %d entries that it may not read", got)
	}
	f := sneak(t, c, a, protoEntry)
	var wants []record.Want
	a.mu.Lock()
	for _, w := range a.slots {
		wants = append(wants, w)
	}
	a.mu.Unlock()
	if err := f.write(frameWants, encodeWants(wants)); err != nil {
		t.Fatal(err)
	}
	denied, here := 0, 0
	for denied+here < len(wants) {
		_, payload, err := f.read(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := decompress(payload)
		if err != nil {
			t.Fatal(err)
		}
		answers, err := parseAnswers(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range answers {
			switch x.Status {
			case record.Denied:
				denied++
			case record.Here:
				here++
			}
		}
	}
	if denied != 4 || here != 3 {
		t.Errorf("%d denied and %d here, want 4 and 3", denied, here)
	}
}

// sneak opens a stream from one agent to another past all rules, hello done.
func sneak(t *testing.T, from, to *agent, proto protocol.ID) *frames {
	t.Helper()
	eventually(t, func() bool { return from.node.session(to.self.PeerID()) != nil }, "%s knows that it is connected", from.name)
	s, err := from.node.host.NewStream(network.WithNoDial(t.Context(), "test"), to.self.PeerID(), proto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	f := newFrames(s, nil)
	if err := f.write(frameHello, from.node.hello(false).encode()); err != nil {
		t.Fatal(err)
	}
	if kind, _, err := f.read(time.Minute); err != nil || kind != frameHello {
		t.Fatalf("hello: frame %d, %v", kind, err)
	}
	return f
}

func TestWantsAreFetched(t *testing.T) {
	a, b := pair(t, nil)
	a.node.Pause()
	eventually(t, func() bool { return connectedPeers(b) == 0 }, "apart")
	for i := range 40 {
		a.put(bytes.Repeat([]byte{byte(i)}, 100<<10), fmt.Sprintf("/large/%d", i)) // the fake's sync leaves these out
	}
	a.node.Resume()
	eventually(t, equal(a, b), "blocks")
	eventually(t, func() bool { return b.holds("/large") == 40 }, "entries")
}

func TestForkIsFoundByHeads(t *testing.T) {
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	ra, rb := newFake(ka, policy), newFake(kb, policy)
	// The same origin, incarnation and sequence number twice: each holds one of the two blocks.
	other := newFake(ka, policy)
	fork := other.put([]byte("other"), "/x")
	ra.put([]byte("one"), "/x")
	var got Ingested
	block, err := record.ParseBlock(fork.Block)
	if err != nil {
		t.Fatal(err)
	}
	rb.take(block, &got)
	a := start(t, "a", ra, Options{})
	b := start(t, "b", rb, Options{Bootstrap: a.node.Addrs()})
	eventually(t, equal(a, b), "both hold both")
	if a.blockCount() != 3 || b.blockCount() != 3 {
		t.Errorf("%d and %d blocks, want 3", a.blockCount(), b.blockCount())
	}
}

func TestGapInGossipIsAskedFor(t *testing.T) {
	a, b := pair(t, nil)
	for i := range 100 {
		o := a.put([]byte("v"), fmt.Sprintf("/lost/%d", i))
		if i == 99 {
			a.node.Publish(o) // the 99 before were lost on the way
		}
	}
	eventually(t, equal(a, b), "the gap is closed")
}

// From the top down each block of a long gap would be parked, and more than can be would be forgotten, for ever.
func TestLongGapIsClosedFromBelow(t *testing.T) {
	a, b := pair(t, nil)
	var last Outgoing
	for i := range 1000 {
		last = a.put([]byte("v"), fmt.Sprintf("/lost/%d", i))
	}
	a.node.Publish(last)
	eventually(t, equal(a, b), "the gap is closed")
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked > gapRounds {
		t.Errorf("a was asked %d times for what lies below", a.asked)
	}
}

func TestStalledPeerIsPassedBy(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 5 s")
	}
	ka, kb, kc := testKey(t), testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb), record.KeyOf(kc)}}
	ra := newFake(ka, policy)
	for i := range 100 {
		ra.put([]byte("v"), fmt.Sprintf("/x/%d", i))
	}
	b := start(t, "b", newFake(kb, policy), Options{})
	// c says hello and that it has something, and never answers a pull.
	c := rawPeer(t, kc)
	c.SetStreamHandler(protoSync, func(s network.Stream) {
		f := newFrames(s, nil)
		if f.write(frameHello, (&hello{Network: testNetwork}).encode()) == nil && f.write(frameDigest, digestNote{Digest: [32]byte{1}}.encode()) == nil {
			_, _ = io.Copy(io.Discard, s)
		}
	})
	eventually(t, func() bool { return c.Connect(t.Context(), addrInfo(t, b.node.Addrs()[0])) == nil }, "c connects")
	eventually(t, func() bool { p := b.node.session(c.ID()); return p != nil && b.node.syncing(p) }, "b turns to c")
	a := start(t, "a", ra, Options{Bootstrap: b.node.Addrs()})
	eventuallyIn(t, 30*time.Second, equal(a, b), "b gets the blocks from a")
}

// syncing tells whether a sync with the peer has begun: it is not waiting for one any more.
func (n *Node) syncing(s *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hasDigest && !s.needSync
}

func TestSlowReplicaHoldsTheSenderBack(t *testing.T) {
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	ra, rb := newFake(ka, policy), newFake(kb, policy)
	value := make([]byte, 1900)
	for i := range 3000 {
		if _, err := rand.Read(value); err != nil {
			t.Fatal(err)
		}
		ra.put(value, fmt.Sprintf("/x/%d", i))
	}
	rb.slow = 200 * time.Millisecond
	a := start(t, "a", ra, Options{})
	b := start(t, "b", rb, Options{Bootstrap: a.node.Addrs()})
	eventually(t, equal(a, b), "all arrives")
}

func TestG10_GarbageOnEveryStream(t *testing.T) {
	a, b := pair(t, nil)
	good := b.node.hello(true).encode()
	frame := func(kind byte, payload []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload))), payload...)
	}
	random := make([]byte, 4096)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	bomb := compress(make([]byte, 64<<20))
	cases := map[string][]byte{
		"nothing":            {},
		"random":             random,
		"half a header":      {frameHello, 0},
		"giant length":       {frameHello, 0xff, 0xff, 0xff, 0xff},
		"half a frame":       {frameHello, 0, 0, 1, 0, 7},
		"empty hello":        frame(frameHello, nil),
		"hello of zeros":     frame(frameHello, make([]byte, 100)),
		"only unknown":       bytes.Repeat(frame(99, random[:10]), 100),
		"good then random":   append(frame(frameHello, good), random...),
		"good then silence":  frame(frameHello, good),
		"hello twice":        append(frame(frameHello, good), frame(frameHello, good)...),
		"bad address record": frame(frameHello, (&hello{Network: testNetwork, Record: random}).encode()),
	}
	for kind := range byte(64) {
		cases[fmt.Sprintf("frame %d of random", kind)] = append(frame(frameHello, good), frame(kind, random)...)
		cases[fmt.Sprintf("frame %d of nothing", kind)] = append(frame(frameHello, good), frame(kind, nil)...)
		cases[fmt.Sprintf("frame %d of a bomb", kind)] = append(frame(frameHello, good), frame(kind, bomb)...)
		cases[fmt.Sprintf("frame %d of compressed random", kind)] = append(frame(frameHello, good), frame(kind, compress(random))...)
	}
	for _, proto := range []protocol.ID{protoSync, protoEntry, protoPolicy} {
		for name, bytes := range cases {
			s, err := b.node.host.NewStream(t.Context(), a.self.PeerID(), proto)
			if err != nil {
				continue // banned for a while: as it should be
			}
			_ = s.SetDeadline(time.Now().Add(time.Second))
			_, _ = s.Write(bytes)
			_ = s.CloseWrite()
			_, _ = io.Copy(io.Discard, io.LimitReader(s, 1<<20))
			_ = s.Reset()
			_ = name
			a.node.gate.forgive()
		}
	}
	a.node.gate.forgive()
	eventually(t, func() bool { return connectedPeers(a) == 1 }, "still or again connected")
	a.publish([]byte("v"), "/after/a")
	b.publish([]byte("v"), "/after/b")
	eventually(t, equal(a, b), "and in sync")
}

// forgive ends a ban.
func (g *gater) forgive() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.strikes)
}

// joinRaw has a peer that is no agent connect to a and join its topic.
func joinRaw(t *testing.T, a *agent, x host.Host) *pubsub.Topic {
	t.Helper()
	for _, proto := range []protocol.ID{protoSync, protoEntry, protoPolicy} {
		x.SetStreamHandler(proto, func(s network.Stream) { _, _ = io.Copy(io.Discard, s) })
	}
	eventually(t, func() bool { return x.Connect(t.Context(), addrInfo(t, a.node.Addrs()[0])) == nil }, "x connects")
	ps, err := pubsub.NewGossipSub(t.Context(), x, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithFloodPublish(true))
	if err != nil {
		t.Fatal(err)
	}
	topic, err := ps.Join(a.node.topicName())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(topic.ListPeers()) > 0 }, "x sees a's subscription")
	return topic
}

func TestG10_GarbageOnTheTopicAndTheSenderIsShutOut(t *testing.T) {
	ka, kx := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kx)}}
	a := start(t, "a", newFake(ka, policy), Options{})
	x := rawPeer(t, kx)
	topic := joinRaw(t, a, x)
	r := newFake(kx, policy)
	good := pack([]Outgoing{r.put([]byte("v"), "/good")}, policy)[0]
	if err := topic.Publish(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return a.holds("/good") == 1 }, "a member's block is taken")
	stranger := pack([]Outgoing{r.put([]byte("v"), "/stray")}, policy)[0]
	e := record.Entry{Kind: record.KindPut, Path: "/not/named"}
	for i := range maxStrikes {
		b := append([]byte{byte(i)}, stranger[1:]...)
		switch i % 4 {
		case 0:
			b = b[:len(b)-1]
		case 1:
			b = append(b, 0)
		case 2:
			b = b[:8]
		case 3:
			b = appendParcel(b[:8:8], record.Parcel{Block: r.put([]byte("v"), "/y").Block, Entries: [][]byte{e.Encode()}})
		}
		if err := topic.Publish(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool { return a.node.gate.standing(x.ID()) == standing(0) && connectedPeers(a) == 0 }, "x is shut out")
	if a.holds("/not") != 0 {
		t.Error("an entry that no block names was taken")
	}
}

func TestIdlePairIsCheap(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 12 s")
	}
	a, b := pair(t, nil)
	a.publish([]byte("v"), "/x")
	eventually(t, func() bool { return a.node.Peers()[0].Equal && b.node.Peers()[0].Equal }, "equal")
	began := a.node.received.Load() + b.node.received.Load()
	time.Sleep(12 * time.Second)
	perSecond := (a.node.received.Load() + b.node.received.Load() - began) / 12
	t.Logf("%d bytes/s", perSecond)
	if perSecond > 100 {
		t.Errorf("idle traffic %d bytes/s, want under 100", perSecond)
	}
}

func TestPublishNeverBlocks(t *testing.T) {
	n, err := New(Options{Key: testKey(t), Network: testNetwork})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	r := newFake(n.o.Key, nil)
	o := r.put(make([]byte, 100<<10), "/x")
	for range 2 * maxOutbox { // nobody takes them: Run is not called
		n.Publish(o)
	}
	if queue := n.outbox.take(); len(queue) == 0 || len(queue)*len(o.Entries[0].Bytes) > maxOutboxBytes || len(queue) > maxOutbox {
		t.Errorf("%d blocks wait", len(queue))
	}
}

func TestStopBeforeItHasBegunIsClean(t *testing.T) {
	n, err := New(Options{Key: testKey(t), Network: testNetwork})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.Run(ctx, newFake(n.o.Key, nil)); err != nil {
		t.Error(err)
	}
}

func TestCleanStop(t *testing.T) {
	a, b := pair(t, nil)
	for i := range 100 {
		a.publish([]byte("v"), fmt.Sprintf("/x/%d", i))
	}
	b.stop() // fails the test if it takes more than 2 s
	a.stop()
	a.node.Publish(Outgoing{})
	a.node.PolicyChanged()
	a.node.Pause()
	_ = a.node.Peers()
	if err := a.node.Run(context.Background(), a.fakeReplica); err == nil {
		t.Error("a node ran twice")
	}
	stacks := make([]byte, 4<<20)
	eventually(t, func() bool {
		return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("p2p.(*Node)."))
	}, "no goroutine is left")
}
