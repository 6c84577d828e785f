package p2p

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	libhost "github.com/libp2p/go-libp2p/core/host"

	"syncagent/crdtstore/record"
)

// subscribe joins the topic of an agent with a host that keeps no rules of ours.
func subscribe(t *testing.T, x libhost.Host, a *agent) (*pubsub.Topic, *pubsub.Subscription) {
	t.Helper()
	ps, err := pubsub.NewGossipSub(t.Context(), x, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign))
	if err != nil {
		t.Fatal(err)
	}
	topic, err := ps.Join(a.node.topicName())
	if err != nil {
		t.Fatal(err)
	}
	sub, err := topic.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	return topic, sub
}

// TestRemovedMemberHearsNoGossip, not even what is written right after the policy that removes it.
func TestRemovedMemberHearsNoGossip(t *testing.T) {
	kx := testKey(t)
	a, c := pair(t, func(p *fakePolicy, _, _ record.PublicKey) { p.Keys = append(p.Keys, record.KeyOf(kx)) })
	x := rawPeer(t, kx)
	eventually(t, func() bool {
		return x.Connect(t.Context(), addrInfo(t, a.node.Addrs()[0])) == nil && connectedPeers(a) == 2
	}, "x connects")
	_, sub := subscribe(t, x, a)
	heard := make(chan *pubsub.Message, 100)
	go func() {
		for m, err := sub.Next(t.Context()); err == nil; m, err = sub.Next(t.Context()) {
			heard <- m
		}
	}()
	n := 0
	eventually(t, func() bool { a.publish([]byte("v"), fmt.Sprint("/before/", n)); n++; return len(heard) > 0 }, "x hears what a writes")
	a.publish([]byte("v"), "/last")
	for m := range heard {
		if bytes.Contains(m.Data, []byte("/last")) {
			break
		}
	}

	a.mu.Lock() // the policy is in force; that the node was not told yet is the worst that can be
	a.policy = &fakePolicy{Number: 2, Keys: []record.PublicKey{a.self, c.self}}
	a.mu.Unlock()
	for i := range 20 {
		a.publish([]byte("v"), fmt.Sprint("/after/", i))
	}
	eventually(t, func() bool { return c.holds("/after/19") != 0 }, "c gets it")
	select {
	case <-heard:
		t.Error("a message reached a peer that is no member any more")
	case <-time.After(300 * time.Millisecond): // nothing may happen: there is no condition to wait for
	}
}

// TestNothingIsPublishedToNobody: gossip would hold for seconds what an agent without members writes, at up to 20 MB each.
func TestNothingIsPublishedToNobody(t *testing.T) {
	r := newFake(testKey(t), &fakePolicy{Number: 1})
	n, err := New(Options{Key: r.key, Network: testNetwork})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	n.replica = r
	topic, err := n.joinTopic(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = n.publishLoop(t.Context(), topic) }()
	for range 2 { // when the second was taken the first is done with
		n.Publish(r.put([]byte("v"), "/alone"))
		eventually(t, func() bool {
			n.outbox.mu.Lock()
			defer n.outbox.mu.Unlock()
			return len(n.outbox.items) == 0
		}, "the publisher takes it")
	}
	if err := topic.topic.Publish(t.Context(), []byte("by the test itself")); err != nil {
		t.Fatal(err)
	}
	m, err := topic.sub.Next(t.Context()) // an agent hears what it publishes
	if err != nil || string(m.Data) != "by the test itself" {
		t.Errorf("it published %q, %v", m.Data, err)
	}
}
