package p2p

import (
	"context"
	"errors"
	"fmt"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

const (
	maxMessage     = record.MaxBlock + 64<<10 // bytes of a gossip message
	nonceSize      = 8
	maxGossipEntry = 64 << 10
	gossipQueue    = 512      // messages, in each queue of pubsub
	smallMessage   = 16 << 10 // bytes: to tell that one has it costs as much as to get it twice
	seenFor        = 30 * time.Second
	maxInbox       = 1024
	maxInboxBytes  = 8 << 20
)

// topic is the gossip topic of the network.
type topic struct {
	topic *pubsub.Topic
	sub   *pubsub.Subscription
}

func (n *Node) topicName() string { return "/syncagent/1/" + n.o.Network.String() }

// joinTopic starts gossipsub. Blocks are signed by their origin: messages are not.
func (n *Node) joinTopic(ctx context.Context) (*topic, error) {
	params := pubsub.DefaultGossipSubParams()
	// Own messages are flooded, the mesh is for who is not connected to their origin: each link is a copy of each message.
	// With less than two links each the mesh may fall into pieces.
	params.D, params.Dlo, params.Dhi, params.Dout, params.Dlazy, params.Dscore = 3, 2, 6, 0, 4, 1
	params.IDontWantMessageThreshold = smallMessage
	// For so many seconds messages are held for who missed them, at up to 20 MB each. Later a sync brings them.
	params.HistoryLength, params.HistoryGossip = 3, 2
	ps, err := pubsub.NewGossipSub(ctx, n.host,
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithMessageIdFn(messageID),
		pubsub.WithGossipSubParams(params),
		pubsub.WithFloodPublish(true),
		// The peer filter alone is not enough: flood publishing and floodsub peers pass it by. Whose subscription is
		// never heard is never sent to.
		pubsub.WithAppSpecificRpcInspector(func(p peer.ID, _ *pubsub.RPC) error { return n.memberOnly(p) }),
		pubsub.WithPeerFilter(func(p peer.ID, _ string) bool { return n.memberOnly(p) == nil }),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(
			pubsub.NewAllowlistSubscriptionFilter(n.topicName()), 4)),
		pubsub.WithValidateQueueSize(gossipQueue),
		pubsub.WithPeerOutboundQueueSize(gossipQueue),
		pubsub.WithSeenMessagesTTL(seenFor),
		pubsub.WithMaxMessageSize(maxMessage+4<<10),
	)
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	if err := ps.RegisterTopicValidator(n.topicName(), n.validate, pubsub.WithValidatorInline(true)); err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	t, err := ps.Join(n.topicName())
	if err != nil {
		return nil, fmt.Errorf("join topic: %w", err)
	}
	sub, err := t.Subscribe(pubsub.WithBufferSize(gossipQueue))
	if err != nil {
		return nil, fmt.Errorf("join topic: %w", err)
	}
	return &topic{topic: t, sub: sub}, nil
}

func (n *Node) memberOnly(p peer.ID) error {
	if n.gate.standing(p) != member && !fault.Planted("anybody-on-topic") {
		return errors.New("not a member")
	}
	return nil
}

// messageID names a message by its nonce and a little of what follows. By content alone a repeated message would be
// swallowed; by nonce alone a member could have another's message dropped.
func messageID(m *pb.Message) string {
	if len(m.Data) <= nonceSize {
		return string(m.Data)
	}
	d := record.DigestOf(m.Data)
	return string(d[:16])
}

// gossip is a parsed message.
type gossip struct {
	parcels []record.Parcel
	blocks  []*record.Block
}

// parseGossip makes the cheap checks: everything but signatures and what the blocks name.
func parseGossip(b []byte) (*gossip, error) {
	if len(b) > maxMessage {
		return nil, frameError("message of %d bytes", len(b))
	}
	if len(b) <= nonceSize {
		return nil, frameError("message without parcels")
	}
	parcels, err := parseParcels(b[nonceSize:])
	if err != nil {
		return nil, err
	}
	g := &gossip{parcels: parcels}
	for _, p := range parcels {
		if len(p.Block) == 0 {
			return nil, frameError("parcel without a block")
		}
		block, err := record.ParseBlock(p.Block)
		if err != nil {
			return nil, frameError("block: %v", err)
		}
		if err := matchEntries(block, p.Entries); err != nil {
			return nil, err
		}
		g.blocks = append(g.blocks, block)
	}
	return g, nil
}

// matchEntries refuses entries that the block does not name: nobody is made to carry what was not signed.
func matchEntries(block *record.Block, entries [][]byte) error {
	if len(entries) == 0 {
		return nil
	}
	named := map[record.ID]bool{}
	for _, w := range block.Writes {
		for i := range w.Slots {
			named[w.Slots[i].Entry] = true
		}
	}
	for _, raw := range entries {
		if len(raw) > maxGossipEntry {
			return frameError("entry of %d bytes", len(raw))
		}
		e, err := record.ParseEntry(raw)
		if err != nil {
			return frameError("entry: %v", err)
		}
		if !named[e.ID()] {
			return frameError("entry that the block does not name")
		}
	}
	return nil
}

// validate is the topic validator: it decides whether a message is passed on.
func (n *Node) validate(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	if from == n.host.ID() {
		return pubsub.ValidationAccept
	}
	if n.gate.standing(from) != member {
		return pubsub.ValidationIgnore
	}
	n.received.Add(int64(len(m.Data)))
	if s := n.session(from); s != nil {
		s.touch()
		if !n.affords(s, len(m.Data)) || !n.listens(s) {
			return pubsub.ValidationIgnore // dropped, like a message that got lost: sync brings what it held
		}
	}
	g, err := parseGossip(m.Data)
	if err != nil { // nobody honest passes this on, so the sender is to blame
		n.stats.garbage.Inc()
		n.gate.strike(from)
		return pubsub.ValidationReject
	}
	if !n.byMembers(g) {
		return pubsub.ValidationIgnore
	}
	if news, blame := n.news(g, from); !news {
		if blame {
			n.budgets.of(from).repeats.Allow()
		}
		return pubsub.ValidationIgnore
	}
	m.ValidatorData = g
	return pubsub.ValidationAccept
}

// byMembers tells whether members alone made the blocks. Others come by sync, if somebody holds them: whoever passed on
// what a hostile member publishes by invented keys would be taken for the one who opens so many chains.
func (n *Node) byMembers(g *gossip) bool {
	rights := n.replica.Rights()
	for _, b := range g.blocks {
		if !rights.Member(b.Origin) {
			return false
		}
	}
	return true
}

// receiveLoop sorts gossiped blocks into the inboxes of the sessions that brought them.
func (n *Node) receiveLoop(ctx context.Context, t *topic) error {
	defer t.sub.Cancel()
	for {
		m, err := t.sub.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("receive gossip: %w", err)
		}
		g, ok := m.ValidatorData.(*gossip)
		if !ok || m.ReceivedFrom == n.host.ID() {
			continue
		}
		if s := n.session(m.ReceivedFrom); s == nil || !s.inbox.put(g, len(m.Data)) {
			n.stats.dropped.Inc()
			continue
		}
		for _, b := range g.blocks {
			n.recent.see(b.Digest, b.Origin, m.ReceivedFrom)
		}
	}
}

// gossipLoop hands one peer's gossiped blocks to the replica, all that came during a commit at once.
func (n *Node) gossipLoop(ctx context.Context, s *session) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.inbox.bell:
		}
		ask := s
		var parcels []record.Parcel
		relayed := false
		for _, g := range s.inbox.take() {
			ask = n.origin(s, g)
			relayed = relayed || ask != s
			parcels = append(parcels, g.parcels...)
		}
		if len(parcels) == 0 {
			continue
		}
		if err := n.ingestFresh(ctx, s, ask, relayed, parcels); err != nil && ctx.Err() == nil {
			n.log.Debug("gossiped blocks not taken", "peer", s.id, "err", err)
		}
	}
}

// origin gives the session to ask for what a message's blocks name: their origin's, because who passes a message on
// need not hold the block yet.
func (n *Node) origin(from *session, g *gossip) *session {
	origin := n.session(g.blocks[0].Origin.PeerID())
	if origin == nil || origin.standing != member {
		return from
	}
	origin.mu.Lock()
	origin.lastFresh = time.Now()
	origin.mu.Unlock()
	return origin
}
