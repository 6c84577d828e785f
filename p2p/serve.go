package p2p

import (
	"context"
	"runtime"

	"syncagent/crdtstore/record"
)

// serveSync answers a member's requests on one stream, in order: control frames, and on other streams its syncs.
func (n *Node) serveSync(ctx context.Context, s *session, f *frames) error {
	var have []record.Position
	vectors := 0
	for {
		kind, payload, err := f.read(streamIdle)
		if err != nil {
			return err
		}
		if n.gate.standing(s.id) != member {
			return f.write(frameRefuse, []byte("not a member"))
		}
		switch kind {
		case framePing:
			if len(payload) != 8 {
				return frameError("ping of %d bytes", len(payload))
			}
			err = f.write(framePong, be.AppendUint64(payload, uint64(n.agentMilli())))
		case frameDigest:
			var d digestNote
			if d, err = parseDigestNote(payload); err == nil {
				n.noteDigest(s, d)
				if d.Ask {
					err = f.write(frameDigest, n.digestNote(false).encode())
				}
			}
		case frameView:
			var v viewNote
			if v, err = parseViewNote(payload); err == nil {
				n.noteView(s, v)
			}
		case framePeers:
			err = n.noteRecords(payload)
		case frameVector:
			if vectors++; vectors > maxVector {
				return frameError("vector of more than %d frames", maxVector)
			}
			var part []record.Position
			part, err = n.readVector(ctx, s, payload)
			have = append(have, part...)
		case framePull:
			err = oneAtATime(ctx, s.serving, func() error { return n.servePull(ctx, s, f, have) })
			have, vectors = nil, 0
		case frameProgress:
			err = n.serveProgress(ctx, s, f, payload)
		case frameCompare:
			err = n.serveCompare(ctx, s, f, payload)
		case frameAsk:
			err = oneAtATime(ctx, s.serving, func() error { return n.serveAsk(ctx, s, f, payload) })
		case frameHeads:
			err = oneAtATime(ctx, s.serving, func() error { return n.serveHeads(f, payload) })
		}
		if err != nil {
			return err
		}
	}
}

// readVector takes a frame of the peer's vector.
func (n *Node) readVector(ctx context.Context, s *session, payload []byte) ([]record.Position, error) {
	raw, err := n.inflate(ctx, s, payload)
	if err != nil {
		return nil, err
	}
	return parseVector(raw)
}

// oneAtATime answers a request of a peer when no other one holds its token: each keeps a core busy, on however many
// streams it asks. Honest peers ask on one.
func oneAtATime(ctx context.Context, token chan struct{}, answer func() error) error {
	select {
	case token <- struct{}{}:
		defer func() { <-token }()
		return answer()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// servePull sends our vector and what theirs lacks, in ascending height.
func (n *Node) servePull(ctx context.Context, s *session, f *frames, have []record.Position) error {
	note := n.digestNote(false)
	for _, part := range encodeVector(n.replica.Vector()) {
		if err := f.write(frameVector, part); err != nil {
			return err
		}
	}
	w := parcelWriter{f: f, spend: n.sends(ctx, s)}
	if err := n.replica.Missing(ctx, have, s.key, w.add); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	return f.write(frameDone, note.encode())
}

// sends charges a peer for blocks before they are sent. One that is no member any more gets none of those that came since.
func (n *Node) sends(ctx context.Context, s *session) func(bytes int) error {
	return func(bytes int) error {
		n.spend(ctx, s, bytes)
		return n.stillMember(s)
	}
}

// stillMember tells whether blocks may flow: an answer may take longer than a membership.
func (n *Node) stillMember(s *session) error {
	if n.gate.standing(s.id) != member {
		return errNoMember
	}
	return nil
}

// serveAsk sends the named blocks and some of their ancestors.
func (n *Node) serveAsk(ctx context.Context, s *session, f *frames, payload []byte) error {
	of, err := parseDigests(payload)
	if err != nil {
		return err
	}
	w := parcelWriter{f: f, spend: n.sends(ctx, s)}
	if err := n.replica.Ancestors(ctx, of, s.key, w.add); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	return f.write(frameDone, n.digestNote(false).encode())
}

// serveHeads answers the peer's heads with ours and says how many of the peer's we do not hold.
func (n *Node) serveHeads(f *frames, payload []byte) error {
	theirs, err := parseDigests(payload)
	if err != nil {
		return err
	}
	unknown, err := n.replica.Lacks(theirs)
	if err != nil {
		return err
	}
	before, heads, after := n.digestNote(false), n.replica.Heads(), n.digestNote(false)
	count := uint32(len(unknown))
	if before != after {
		count = ^uint32(0) // blocks come in: the answer proves nothing
	}
	if err := f.write(frameHeads, encodeDigests(heads)); err != nil {
		return err
	}
	return f.write(frameDone, be.AppendUint32(after.encode(), count))
}

// parcelWriter packs parcels into compressed frames. A parcel with more entries than fit goes out in several: the
// block first, so that the receiver knows where the entries belong. The first frames are small: the receiver is at work
// while the next ones are read.
type parcelWriter struct {
	f     *frames
	spend func(bytes int) error // called before they are sent
	buf   []byte
	sent  int // frames
}

// add takes a parcel, which may be reused afterwards. It blocks on the flow control of the stream.
func (w *parcelWriter) add(p record.Parcel) error {
	runtime.Gosched() // who puts or reads meanwhile does not wait for all of them
	size := len(p.Block) + 16
	first := record.Parcel{Block: p.Block}
	for len(p.Entries) > 0 && size+len(p.Entries[0])+8 <= parcelsTarget {
		size += len(p.Entries[0]) + 8
		first.Entries, p.Entries = append(first.Entries, p.Entries[0]), p.Entries[1:]
	}
	if len(first.Block) > 0 || len(first.Entries) > 0 {
		if err := w.put(first, size); err != nil {
			return err
		}
	}
	for _, e := range p.Entries {
		if err := w.put(record.Parcel{Entries: [][]byte{e}}, len(e)+16); err != nil {
			return err
		}
	}
	return nil
}

func (w *parcelWriter) put(p record.Parcel, size int) error {
	if len(w.buf) > 0 && len(w.buf)+size > min(parcelsFirst<<min(w.sent, 8), parcelsTarget) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.buf = appendParcel(w.buf, p)
	return nil
}

func (w *parcelWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if err := w.spend(len(w.buf)); err != nil {
		return err
	}
	err := w.f.write(frameParcels, compress(w.buf))
	w.buf = w.buf[:0]
	w.sent++
	return err
}
