package p2p

import (
	"context"
	"sync"
	"time"

	"syncagent/crdtstore/record"
)

const (
	storedRequest = 16 + record.VersionSize
	storedAsks    = 2 // streams to one peer at a time; sync needs the others
	storedHold    = 500 * time.Millisecond
	storedLeast   = 5 * time.Millisecond // between two questions
	storedMost    = 250 * time.Millisecond
)

// Stored asks peers whether they hold a write, again and again, and calls report for each that does, from several
// goroutines. It returns when all do, or ctx ends. A peer that is not connected is asked when it comes.
func (n *Node) Stored(ctx context.Context, peers []record.PublicKey, k record.Tag, v record.Version, report func(record.PublicKey)) {
	request := v.Append(append([]byte(nil), k[:]...))
	var all sync.WaitGroup
	for _, peer := range peers {
		all.Go(func() {
			for pause := storedLeast; ctx.Err() == nil; pause = min(2*pause, storedMost) {
				if s := n.session(peer.PeerID()); s != nil && s.standing == member && n.askStored(ctx, s, request) {
					report(peer)
					return
				}
				wait(ctx, pause)
			}
		})
	}
	all.Wait()
}

// askStored asks one peer for a while. A fault counts as no: it is asked again.
func (n *Node) askStored(ctx context.Context, s *session, request []byte) bool {
	select {
	case s.storedAsks <- struct{}{}:
		defer func() { <-s.storedAsks }()
	case <-ctx.Done():
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	f, done, err := n.openStream(ctx, s, protoSync)
	if err != nil {
		return false
	}
	defer done()
	began := time.Now()
	for pause := storedLeast; time.Since(began) < storedHold; pause = min(2*pause, storedMost) {
		if err := f.write(frameStored, request); err != nil {
			return false
		}
		kind, payload, err := f.read(helloTimeout)
		if err != nil || kind != frameStored || len(payload) != 1 {
			return false
		}
		if payload[0] == 1 {
			return true
		}
		wait(ctx, pause)
	}
	return false
}

// serveStored answers a question of Stored.
func (n *Node) serveStored(f *frames, payload []byte) error {
	if len(payload) != storedRequest {
		return frameError("question of %d bytes", len(payload))
	}
	v, err := record.VersionFrom(payload[16:])
	if err != nil {
		return frameError("question: %v", err)
	}
	holds, err := n.replica.Holds(record.Tag(payload[:16]), v)
	if err != nil {
		return err
	}
	answer := byte(0)
	if holds {
		answer = 1
	}
	return f.write(frameStored, []byte{answer})
}
