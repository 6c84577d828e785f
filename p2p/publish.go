package p2p

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"syncagent/crdtstore/record"
)

const (
	maxOutbox      = 4096
	maxOutboxBytes = 32 << 20
	maxPushes      = 256
	maxPushBytes   = 4 << 20

	// The publisher's pace: a burst goes out at once, then so many messages a second in the whole network, divided
	// by the number of agents that publish. What waits is joined into one message.
	paceBurst = 32
	paceTotal = 2000
	paceLeast = 50
	joinUpTo  = 128 << 10 // bytes of joined blocks and entries in one message
)

// Publish announces own blocks to the connected members. It never blocks: what does not fit into the queue is dropped,
// sync brings it later.
func (n *Node) Publish(o Outgoing) {
	size := len(o.Block)
	for _, e := range o.Entries {
		size += len(e.Bytes)
	}
	n.noteBlocks()
	n.recent.came(record.DigestOf(o.Block))
	if !n.outbox.put(o, size) {
		n.stats.dropped.Inc()
	}
}

// publishLoop sends what Publish queued: at once while the load is light, joined and paced when it is not.
func (n *Node) publishLoop(ctx context.Context, t *topic) error {
	tokens, last := float64(paceBurst), time.Now()
	var serial uint64
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.outbox.bell:
		}
		queue := n.outbox.take()
		rights := n.replica.Rights()
		if rights.Serial() != serial { // gossip goes to all that are connected: nobody who lost its membership may be
			serial = rights.Serial()
			n.reconcile(ctx)
		}
		n.push(queue, rights)
		if len(n.members()) == 0 {
			continue // gossip would hold for seconds what nobody hears
		}
		for _, message := range pack(queue, rights) {
			now := time.Now()
			pace := n.recent.pace(now)
			tokens = min(tokens+float64(now.Sub(last))/float64(pace), paceBurst) - 1
			last = now
			if tokens < 0 && !wait(ctx, time.Duration(-tokens*float64(pace))) {
				return ctx.Err()
			}
			if err := t.topic.Publish(ctx, message); err != nil && !errors.Is(err, ctx.Err()) {
				n.log.Debug("blocks not published", "err", err)
			}
		}
	}
}

// split says which entries of a block go on the topic: those that every member may read, as far as they fit.
func split(o Outgoing, rights Rights) (public, private []OutgoingEntry) {
	size := nonceSize + len(o.Block) + 16
	for _, e := range o.Entries {
		if len(e.Bytes) <= maxGossipEntry && size+len(e.Bytes)+8 <= maxMessage && rights.MembersMayRead(e.Tags) {
			public = append(public, e)
			size += len(e.Bytes) + 8
		} else {
			private = append(private, e)
		}
	}
	return public, private
}

// pack joins blocks, each with its public entries, into messages.
func pack(queue []Outgoing, rights Rights) [][]byte {
	var out [][]byte
	var m []byte
	for _, o := range queue {
		p := record.Parcel{Block: o.Block}
		public, _ := split(o, rights)
		size := len(o.Block) + 16
		for _, e := range public {
			p.Entries = append(p.Entries, e.Bytes)
			size += len(e.Bytes) + 8
		}
		if m != nil && len(m)+size > joinUpTo {
			out, m = append(out, m), nil
		}
		if m == nil {
			m = be.AppendUint64(make([]byte, 0, nonceSize+size), rand.Uint64())
		}
		m = appendParcel(m, p)
	}
	if m != nil {
		out = append(out, m)
	}
	return out
}

// push sends the other entries straight to the connected members that may read them, with their block, so that neither
// has to wait for the other.
func (n *Node) push(queue []Outgoing, rights Rights) {
	var sessions []*session
	for _, o := range queue {
		_, private := split(o, rights)
		if len(private) == 0 {
			continue
		}
		if sessions == nil {
			sessions = n.members()
		}
		frames := map[string][][]byte{} // by which entries they hold: most members may read the same
		for _, s := range sessions {
			may := make([]byte, len(private))
			for i, e := range private {
				if rights.MayRead(s.key, e.Tags) {
					may[i] = 1
				}
			}
			if _, known := frames[string(may)]; !known {
				frames[string(may)] = pushFrames(o.Block, private, may)
			}
			for _, payload := range frames[string(may)] {
				if !s.pushes.put(payload, len(payload)) {
					n.stats.dropped.Inc() // it will want them
				}
			}
		}
	}
}

// pushFrames packs the entries marked in may, the block before the first of them; nothing if none is.
func pushFrames(block []byte, entries []OutgoingEntry, may []byte) [][]byte {
	var out [][]byte
	p := record.Parcel{Block: block}
	size := len(block)
	flush := func() {
		if len(p.Entries) > 0 {
			out = append(out, compress(appendParcel(nil, p)))
			p, size = record.Parcel{}, 0
		}
	}
	for i, e := range entries {
		if may[i] == 0 {
			continue
		}
		if size+len(e.Bytes) > parcelsTarget {
			flush()
		}
		p.Entries = append(p.Entries, e.Bytes)
		size += len(e.Bytes) + 8
	}
	flush()
	return out
}

// pushLoop sends queued pushes to a peer over one kept stream.
func (n *Node) pushLoop(ctx context.Context, s *session) {
	var f *frames
	done := func() {}
	defer func() { done() }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.pushes.bell:
		}
		for _, payload := range s.pushes.take() {
			if f != nil && f.write(framePush, payload) == nil {
				continue
			}
			done() // there was none, or it ended for idleness
			var err error
			if f, done, err = n.openStream(ctx, s, protoEntry); err != nil {
				f, done = nil, func() {}
			} else if err = f.greeted(); err == nil { // nothing else is read on this stream
				err = f.write(framePush, payload)
			}
			if err != nil {
				done()
				f, done = nil, func() {}
				n.blame(s, err)
				n.log.Debug("entries not pushed", "peer", s.id, "err", err)
				break // it will want the rest
			}
		}
	}
}
