package p2p

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"syncagent/crdtstore/record"
)

// Gossip is for news. A message of what everybody has costs each agent that hears it a hash and a parse, and those that it
// is passed on to as much again: it is not passed on, and who is to blame for many is not listened to for a moment.
// Nobody is to blame for what another made it pass on, or a hostile member could come between two honest ones: a member
// passes a block on once, when it is news to it, and what one has had for long is news to no other.
const (
	repeatsBurst = 128
	repeatsEvery = time.Second / 16
	// onItsWay is for how long gossip may still have to bring a block to others that came here by a push or a sync. After
	// as long a sync brings it.
	onItsWay = 10 * time.Second
)

// listens tells whether the next message of a peer is worth reading. What is dropped sync brings; as soon as one brings
// something, so do all after it.
func (n *Node) listens(s *session) bool {
	if n.budgets.of(s.id).repeats.Tokens() >= 1 {
		return true
	}
	n.stats.limited.WithLabelValues(limitRepeats).Inc()
	return false
}

// news tells whether a message may have a block for somebody who lacks it. If not, blame says that its sender has to
// answer for it: it sent each of the blocks before, or they came long ago.
func (n *Node) news(g *gossip, from peer.ID) (news, blame bool) {
	before, otherwise, unknown, complete := n.recent.told(g.blocks, from)
	if otherwise > 0 || len(unknown) > 0 && !complete {
		return true, false
	}
	lacks, err := n.replica.Lacks(unknown)
	return len(lacks) > 0 || err != nil, before+len(unknown) == len(g.blocks)
}

// came notes blocks that a push or a sync brought.
func (n *Node) came(parcels []record.Parcel) {
	for _, p := range parcels {
		if p.Block != nil {
			n.recent.came(record.DigestOf(p.Block))
		}
	}
}
