package p2p

import (
	"slices"
	"time"

	"syncagent/crdtstore/record"
)

// Gossip is for news. A message of what everybody has costs each agent that hears it a hash and a parse, and those that it
// is passed on to as much again: it is not passed on, and who sends many is not listened to for a moment.
const (
	repeatsBurst = 128
	repeatsEvery = time.Second / 16
	// onItsWay is how old the writes of a block may be that is held already: it came by a push or a sync, and there may be
	// agents to whom gossip has to bring it. After as long a sync does.
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

// news tells whether a message may have a block for somebody who lacks it.
func (n *Node) news(g *gossip) bool {
	var old []record.Digest
	horizon := record.NewHLC(n.replica.AgentTime().Add(-onItsWay))
	for _, b := range g.blocks {
		switch {
		case n.recent.saw(b.Digest): // and passed it on
		case slices.ContainsFunc(b.Writes, func(w *record.Write) bool { return w.HLC > horizon }):
			return true
		default:
			old = append(old, b.Digest)
		}
	}
	lacks, err := n.replica.Lacks(old)
	return len(lacks) > 0 || err != nil
}
