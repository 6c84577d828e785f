package p2p

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"

	"syncagent/crdtstore/record"
)

const (
	maxMessage     = record.MaxBlock + 64<<10 // bytes of a gossip message
	nonceSize      = 8
	maxGossipEntry = 64 << 10
	gossipQueue    = 512 // messages, in each queue of pubsub
	seenFor        = 30 * time.Second
	recentBlocks   = 4096

	// The publisher's pace: a burst goes out at once, then so many messages a second in the whole network, divided
	// by the number of agents that publish. What waits is joined into one message.
	paceBurst = 32
	paceTotal = 2000
	paceLeast = 50
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
	// Own messages are flooded, the mesh is for repair: fewer links, fewer copies of each message.
	params.D, params.Dlo, params.Dhi, params.Dout, params.Dlazy, params.Dscore = 4, 3, 8, 1, 4, 2
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
	if n.gate.standing(p) != member {
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
	if s := n.session(from); s != nil {
		s.touch()
	}
	n.received.Add(int64(len(m.Data)))
	g, err := parseGossip(m.Data)
	if err != nil { // nobody honest passes this on, so the sender is to blame
		n.stats.garbage.Inc()
		n.gate.strike(from)
		return pubsub.ValidationReject
	}
	m.ValidatorData = g
	return pubsub.ValidationAccept
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
			n.out.see(b.Digest, b.Origin)
		}
	}
}

// inbox holds gossiped messages of one peer until the replica takes them. Each peer has its own, so that a flood or a
// slow commit of one's blocks does not hold up the others'.
type inbox struct {
	bell chan struct{}

	mu    sync.Mutex
	queue []*gossip
	bytes int
}

const (
	maxInbox      = 1024    // messages
	maxInboxBytes = 8 << 20 // of them
)

// put takes a message; false if the inbox is full.
func (i *inbox) put(g *gossip, size int) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.queue) >= maxInbox || i.bytes+size > maxInboxBytes {
		return false
	}
	i.queue = append(i.queue, g)
	i.bytes += size
	ring(i.bell)
	return true
}

// take empties the inbox.
func (i *inbox) take() []*gossip {
	i.mu.Lock()
	defer i.mu.Unlock()
	q := i.queue
	i.queue, i.bytes = nil, 0
	return q
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
		for _, g := range s.inbox.take() {
			ask = n.origin(s, g)
			parcels = append(parcels, g.parcels...)
		}
		if len(parcels) == 0 {
			continue
		}
		if err := n.ingestFresh(ctx, s, ask, parcels); err != nil && ctx.Err() == nil {
			n.log.Warn("gossiped blocks not taken", "peer", s.id, "err", err)
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
	origin.lastGossip = time.Now()
	origin.mu.Unlock()
	return origin
}

// unseen drops blocks that came by gossip in the meantime. Should one have been lost after all, the next digest tells.
func (n *Node) unseen(ds []record.Digest) []record.Digest {
	n.out.mu.Lock()
	defer n.out.mu.Unlock()
	return slices.DeleteFunc(ds, func(d record.Digest) bool { _, ok := n.out.recent[d]; return ok })
}

// outbox holds own blocks that are to be announced.
type outbox struct {
	bell chan struct{}

	mu      sync.Mutex
	queue   []Outgoing
	bytes   int
	recent  map[record.Digest]struct{} // blocks that gossip brought lately
	order   []record.Digest
	authors map[record.PublicKey]time.Time // who published lately
}

const (
	maxOutbox      = 4096
	maxOutboxBytes = 32 << 20
)

func (o *outbox) init() {
	o.bell = make(chan struct{}, 1)
	o.recent = map[record.Digest]struct{}{}
	o.authors = map[record.PublicKey]time.Time{}
}

// see notes a gossiped block.
func (o *outbox) see(d record.Digest, origin record.PublicKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.recent[d]; !known {
		if o.recent[d] = struct{}{}; len(o.order) >= recentBlocks {
			delete(o.recent, o.order[0])
			o.order = o.order[1:]
		}
		o.order = append(o.order, d)
	}
	if _, known := o.authors[origin]; known || len(o.authors) < 1024 {
		o.authors[origin] = time.Now()
	}
}

// pace gives the interval between messages under load.
func (o *outbox) pace(now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, t := range o.authors {
		if now.Sub(t) > time.Second {
			delete(o.authors, k)
		}
	}
	return time.Second / time.Duration(max(paceTotal/(1+len(o.authors)), paceLeast))
}

// Publish announces own blocks to the connected members. It never blocks: what does not fit into the queue is dropped,
// sync brings it later.
func (n *Node) Publish(o Outgoing) {
	size := len(o.Block)
	for _, e := range o.Entries {
		size += len(e.Bytes)
	}
	n.noteBlocks()
	n.out.mu.Lock()
	full := len(n.out.queue) >= maxOutbox || n.out.bytes+size > maxOutboxBytes
	if !full {
		n.out.queue = append(n.out.queue, o)
		n.out.bytes += size
	}
	n.out.mu.Unlock()
	if full {
		n.stats.dropped.Inc()
	}
	ring(n.out.bell)
}

// take empties the queue.
func (o *outbox) take() []Outgoing {
	o.mu.Lock()
	defer o.mu.Unlock()
	q := o.queue
	o.queue, o.bytes = nil, 0
	return q
}

// publishLoop sends what Publish queued: at once while the load is light, joined and paced when it is not.
func (n *Node) publishLoop(ctx context.Context, t *topic) error {
	tokens, last := float64(paceBurst), time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.out.bell:
		}
		for {
			queue := n.out.take()
			if len(queue) == 0 {
				break
			}
			n.push(queue)
			for _, message := range pack(queue, n.replica.Rights()) {
				pace := n.out.pace(time.Now())
				now := time.Now()
				tokens = min(tokens+float64(now.Sub(last))/float64(pace), paceBurst)
				last = now
				if tokens--; tokens < 0 && !wait(ctx, time.Duration(-tokens*float64(pace))) {
					return ctx.Err()
				}
				if err := t.topic.Publish(ctx, message); err != nil && !errors.Is(err, ctx.Err()) {
					n.log.Debug("blocks not published", "err", err)
				}
			}
		}
	}
}

// pack joins blocks, each with the entries that every member may read, into messages.
func pack(queue []Outgoing, rights Rights) [][]byte {
	var out [][]byte
	var m []byte
	for _, o := range queue {
		p := record.Parcel{Block: o.Block}
		size := len(o.Block) + 16
		for _, e := range o.Entries {
			if len(e.Bytes) <= maxGossipEntry && rights.MembersMayRead(e.Tags) && nonceSize+size+len(e.Bytes)+8 <= maxMessage {
				p.Entries = append(p.Entries, e.Bytes)
				size += len(e.Bytes) + 8
			}
		}
		if len(m) > 0 && len(m)+size > maxMessage/4 {
			out, m = append(out, m), nil
		}
		if m == nil {
			m = be.AppendUint64(nil, rand.Uint64())
		}
		m = appendParcel(m, p)
	}
	if m != nil {
		out = append(out, m)
	}
	return out
}

// push sends entries that do not go on the topic straight to the connected members that may read them, each with its
// block, so that neither has to wait for the other.
func (n *Node) push(queue []Outgoing) {
	rights := n.replica.Rights()
	var sessions []*session
	for _, o := range queue {
		private := slices.DeleteFunc(slices.Clone(o.Entries), func(e OutgoingEntry) bool {
			return len(e.Bytes) <= maxGossipEntry && rights.MembersMayRead(e.Tags)
		})
		if len(private) == 0 {
			continue
		}
		if sessions == nil {
			sessions = n.members()
		}
		for _, s := range sessions {
			for _, payload := range pushFrames(o.Block, private, func(e OutgoingEntry) bool { return rights.MayRead(s.key, e.Tags) }) {
				select {
				case s.pushes <- payload:
				default:
					n.stats.dropped.Inc() // it will want them
				}
			}
		}
	}
}

// pushFrames packs what one member may read; nothing if that is nothing.
func pushFrames(block []byte, entries []OutgoingEntry, may func(OutgoingEntry) bool) [][]byte {
	var out [][]byte
	p := record.Parcel{Block: block}
	size := len(block)
	flush := func() {
		if len(p.Entries) > 0 {
			out = append(out, compress(appendParcel(nil, p)))
			p, size = record.Parcel{}, 0
		}
	}
	for _, e := range entries {
		if !may(e) {
			continue
		}
		if size+len(e.Bytes) > pushOfferLimit {
			flush()
		}
		p.Entries = append(p.Entries, e.Bytes)
		size += len(e.Bytes) + 8
	}
	flush()
	return out
}
