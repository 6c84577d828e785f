package p2p

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

const (
	gossipGrace   = 200 * time.Millisecond // entries may come by themselves: pushed, or in the message
	fetchEvery    = 5 * time.Second        // look for wants again, whether or not a bell rang
	fetchMissMin  = time.Second            // back-off after a peer had nothing of what was asked
	fetchMissMax  = 5 * time.Second
	wantsAtOnce   = 128
	serveAtOnce   = 8 // wants handed to the replica at a time: up to 2 MiB of entries
	fetchRounds   = 100000
	originHeadway = 20 * time.Millisecond // that peers with blocks of their own have before others are asked
	recentGossip  = 2 * time.Second
)

// wantsLoop has the peers asked for entries: those whose blocks came by gossip just now first, then all.
func (n *Node) wantsLoop(ctx context.Context) error {
	tick := time.NewTicker(fetchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-n.wantsBell:
			n.ringFresh(func(s *session) { ring(s.chunkBell) }) // nobody sends chunks unasked
			if !wait(ctx, gossipGrace) {
				return ctx.Err()
			}
			n.ringFresh(func(s *session) { ring(s.fetchBell) })
			if !wait(ctx, originHeadway) {
				return ctx.Err()
			}
		}
		for _, s := range n.members() {
			ring(s.fetchBell)
			ring(s.chunkBell)
		}
	}
}

// ringFresh rings for the peers whose own blocks came just now.
func (n *Node) ringFresh(bell func(*session)) {
	for _, s := range n.members() {
		s.mu.Lock()
		origin := time.Since(s.lastFresh) < recentGossip
		s.mu.Unlock()
		if origin {
			bell(s)
		}
	}
}

// fetches asks one peer for entries, whenever its bell rings.
func (n *Node) fetches(ctx context.Context, s *session) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.fetchBell:
		}
		s.mu.Lock()
		early := time.Until(s.fetchAfter)
		s.mu.Unlock()
		if early > 0 && !wait(ctx, early) { // waited out: the bell may have rung for wants that came since
			return
		}
		found, asked, err := n.fetch(ctx, s)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			n.blame(s, err)
			n.log.Debug("entries not fetched", "peer", s.id, "err", err)
		}
		s.mu.Lock()
		if found > 0 && err == nil {
			s.fetchMiss = 0
		} else if asked > 0 || err != nil {
			bound := min(fetchMissMin<<min(s.fetchMiss, 5), fetchMissMax)
			s.fetchMiss++
			s.fetchAfter = time.Now().Add(bound/2 + rand.N(bound/2))
		}
		s.mu.Unlock()
	}
}

// fetch asks one peer for wants, in batches, as long as there are any and it has some of them.
func (n *Node) fetch(ctx context.Context, s *session) (found, asked int, err error) {
	wants := n.replica.Wants(s.key, wantsAtOnce)
	if len(wants) == 0 {
		return 0, 0, nil
	}
	f, done, err := n.openStream(ctx, s, protoEntry)
	if err != nil {
		return 0, len(wants), err
	}
	defer done()
	for range fetchRounds {
		asked += len(wants)
		if err := f.write(frameWants, encodeWants(wants)); err != nil {
			return found, asked, err
		}
		here, err := n.readAnswers(ctx, s, f, wants)
		found += here
		if err != nil || here == 0 {
			return found, asked, err
		}
		if wants = n.replica.Wants(s.key, wantsAtOnce); len(wants) == 0 {
			break
		}
	}
	return found, asked, nil
}

// readAnswers takes the answers to wants, frame by frame, and hands each frame's to the replica.
func (n *Node) readAnswers(ctx context.Context, s *session, f *frames, wants []record.Want) (here int, err error) {
	for len(wants) > 0 {
		kind, payload, err := f.read(stallTimeout)
		if err != nil {
			return here, err
		}
		if kind != frameAnswers {
			continue
		}
		raw, err := n.inflate(ctx, s, payload)
		if err != nil {
			return here, err
		}
		answers, err := parseAnswers(raw)
		if err != nil {
			return here, err
		}
		if len(answers) == 0 || len(answers) > len(wants) {
			return here, frameError("%d answers to %d wants", len(answers), len(wants))
		}
		for _, a := range answers {
			if a.Status == record.Here || a.Status == record.HereStub {
				here++
			}
		}
		fault.Point("fetch.answered")
		err = n.replica.Answered(ctx, s.key, wants[:len(answers)], answers)
		if errors.Is(err, record.ErrFormat) {
			return here, frameError("answers: %v", err)
		}
		if err != nil {
			return here, err
		}
		wants = wants[len(answers):]
	}
	n.stats.entries.Add(float64(here))
	return here, nil
}

// serveEntries answers a member's wants and takes its pushes.
func (n *Node) serveEntries(ctx context.Context, s *session, f *frames) error {
	for {
		kind, payload, err := f.read(streamIdle)
		if err != nil {
			return err
		}
		if n.gate.standing(s.id) != member {
			return f.write(frameRefuse, []byte("not a member"))
		}
		switch kind {
		case frameWants:
			err = n.answer(ctx, s, f, payload)
		case frameChunkWants:
			err = n.serveChunks(ctx, s, f, payload)
		case framePush:
			err = n.takePush(ctx, s, payload)
		}
		if err != nil {
			return err
		}
	}
}

// answer serves wants in order; the replica checks the rights.
func (n *Node) answer(ctx context.Context, s *session, f *frames, payload []byte) error {
	wants, err := parseWants(payload)
	if err != nil {
		return err
	}
	var buf []byte
	for len(wants) > 0 {
		part := wants[:min(serveAtOnce, len(wants))]
		wants = wants[len(part):]
		for _, a := range n.replica.Serve(s.key, part) {
			if len(buf) > 0 && len(buf)+len(a.Entry)+16 > parcelsTarget {
				n.spend(ctx, s, len(buf))
				if err := f.write(frameAnswers, compress(buf)); err != nil {
					return err
				}
				buf = buf[:0]
			}
			buf = appendAnswer(buf, a)
		}
	}
	if len(buf) == 0 {
		return nil
	}
	n.spend(ctx, s, len(buf))
	return f.write(frameAnswers, compress(buf))
}

// takePush hands a fresh block and its entries, or entries alone, to the replica.
func (n *Node) takePush(ctx context.Context, s *session, payload []byte) error {
	raw, err := n.inflate(ctx, s, payload)
	if err != nil {
		return err
	}
	parcels, err := parseParcels(raw)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.lastFresh = time.Now()
	s.mu.Unlock()
	n.came(parcels)
	return n.ingestFresh(ctx, s, s, false, parcels)
}

// ingestFresh takes parcels that came by push or gossip. Blocks that are missing before them are asked of another
// session than the one that delivered, if that is likelier to have them. Who only relays is not to blame for what breaks
// the block rule: it is passed on before it is checked.
func (n *Node) ingestFresh(ctx context.Context, from, ask *session, relayed bool, parcels []record.Parcel) error {
	if err := n.stillMember(from); err != nil {
		return err
	}
	got, err := n.replica.Ingest(ctx, from.key, parcels)
	if err != nil {
		return err
	}
	if got.New > 0 {
		n.noteBlocks()
		n.stats.blocks.WithLabelValues("gossip").Add(float64(got.New))
	}
	if got.Invalid != nil {
		n.stats.garbage.Inc()
		n.log.Debug("invalid data from a peer", "peer", from.id, "relayed", relayed, "err", got.Invalid)
		if !relayed {
			n.gate.strike(from.id)
		}
	}
	n.notePutOff(from, got.Delayed)
	if len(got.Missing) > 0 {
		n.noteGap(ask, got.Missing)
	}
	return nil
}
