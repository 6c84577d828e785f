package p2p

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"syncagent/crdtstore/record"
)

// TestMemberRemovedWhileConnected: it is told why before its connections close, and nothing else flows from then on.
func TestMemberRemovedWhileConnected(t *testing.T) {
	a, b := pair(t, nil)
	a.setPolicy(&fakePolicy{Number: 2, Keys: []record.PublicKey{a.self, b.self}})
	eventually(t, func() bool { return b.Rights().Serial() == 2 && !swapping(a) && !swapping(b) }, "policies are swapped")
	a.setPolicy(&fakePolicy{Number: 3, Keys: []record.PublicKey{a.self}})
	a.publish([]byte("v"), "/after")
	b.publish([]byte("v"), "/bad")
	eventually(t, func() bool { return connectedPeers(a) == 0 && connectedPeers(b) == 0 }, "removed member is disconnected")
	eventually(t, func() bool { return b.Rights().Serial() == 3 }, "and was told so")
	b.node.PolicyChanged()
	time.Sleep(300 * time.Millisecond) // nothing may happen: there is no condition to wait for
	if a.holds("/bad") != 0 || b.holds("/after") != 0 || connectedPeers(a) != 0 {
		t.Error("a removed member still gets or gives blocks")
	}
}

// swapping tells whether a policy is on its way, or about to be.
func swapping(h *agent) bool {
	for _, s := range h.node.members() {
		if len(s.policyBell) > 0 {
			return true
		}
	}
	for _, c := range h.node.host.Network().Conns() {
		for _, st := range c.GetStreams() {
			if st.Protocol() == protoPolicy {
				return true
			}
		}
	}
	return false
}

// TestRemovedMemberThatDoesNotListen loses its connection all the same, and not only because it is silent.
func TestRemovedMemberThatDoesNotListen(t *testing.T) {
	ka, kx := testKey(t), testKey(t)
	var log lines
	a := start(t, "a", newFake(ka, &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kx)}}), Options{Log: log.logger()})
	x := rawPeer(t, kx)
	for _, proto := range []protocol.ID{protoPolicy, protoSync} {
		x.SetStreamHandler(proto, func(s network.Stream) { <-t.Context().Done() })
	}
	eventually(t, func() bool { return x.Connect(t.Context(), addrInfo(t, a.node.Addrs()[0])) == nil }, "x connects")
	eventually(t, func() bool { return connectedPeers(a) == 1 }, "connected")
	a.setPolicy(&fakePolicy{Number: 2, Keys: []record.PublicKey{a.self}})
	eventually(t, func() bool { return len(x.Network().Peers()) == 0 }, "closed")
	if !log.has("peer is no member any more, connection is closed") {
		t.Error("it was not closed because it is no member any more")
	}
}
