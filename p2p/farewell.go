package p2p

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// farewellTime is how long a peer whose membership ended may take to be told so.
const farewellTime = 700 * time.Millisecond

// leaves tells whether a peer is to be told that its membership ended, and then notes it and counts the goroutine that
// does so. The caller holds n.mu.
func (n *Node) leaves(s *session) bool {
	if n.closed || n.leaving[s.id] || s.standing != member || n.gate.standing(s.id) != stranger || n.replica.Rights().Member(s.key) {
		return false
	}
	n.leaving[s.id] = true
	n.handlers.Add(1)
	return true
}

// farewell hands a peer the policy that ends its membership, and closes its connections. Otherwise a removed host would
// be cut off without a word: nobody is left who may talk to it. Nothing else flows meanwhile: all other streams were
// reset, the gater refuses new ones. A peer that does not listen loses its connections all the same.
func (n *Node) farewell(ctx context.Context, s *session) {
	ctx, cancel := context.WithTimeout(ctx, farewellTime)
	defer cancel()
	if err := n.tellPolicies(ctx, s); err != nil {
		n.log.Debug("peer not told that it is no member any more", "peer", s.id, "err", err)
	}
	n.mu.Lock()
	delete(n.leaving, s.id)
	n.mu.Unlock()
	n.closePeer(s.id)
}

// tellPolicies swaps policies and waits until the peer has taken ours: it ends the stream when it has read to the end.
func (n *Node) tellPolicies(ctx context.Context, s *session) error {
	f, done, err := n.openStream(ctx, s, protoPolicy)
	if err != nil {
		return err
	}
	defer done()
	if err := n.swapOn(ctx, s, f); err != nil {
		return err
	}
	if err := f.write(frameHave, nil); err != nil {
		return err
	}
	for {
		if _, _, err := f.read(farewellTime); err != nil {
			return nil // the end, as it should be
		}
	}
}

// resetStreams ends whatever runs with a peer, in both directions, gossip too.
func (n *Node) resetStreams(p peer.ID) {
	for _, c := range n.host.Network().ConnsToPeer(p) {
		for _, st := range c.GetStreams() {
			_ = st.Reset()
		}
	}
}
