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
