package p2p

import (
	"context"
	"math/rand/v2"
	"time"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

const (
	syncEvery    = 10 * time.Second       // our digest to one random peer, jittered
	hintEvery    = time.Second            // our digest to all peers, if it changed
	quietEnough  = 250 * time.Millisecond // gossip has settled: a digest that differs still means something
	waitAtMost   = 3 * time.Second        // for quiet
	syncFaultMin = time.Second
	syncFaultMax = 30 * time.Second
	gapDelay     = 20 * time.Millisecond // what a gap lacks may be under way
	maxGaps      = 1024
)

// digestNote says what we hold.
func (n *Node) digestNote(ask bool) digestNote {
	return digestNote{Ask: ask, Serial: n.replica.Rights().Serial(), Digest: n.replica.BlockDigest()}
}

// noteDigest takes what a peer says it holds and has it synced if that differs from ours.
func (n *Node) noteDigest(s *session, d digestNote) {
	if fault.Planted("no-sync") {
		return
	}
	ours := n.replica.BlockDigest()
	serial := n.replica.Rights().Serial()
	s.mu.Lock()
	first := !s.hasDigest
	s.digest, s.serial, s.hasDigest = d.Digest, d.Serial, true
	if d.Digest != ours {
		s.want(first)
	} else {
		s.needSync, s.lastSync, s.sameRounds = false, time.Now(), 0
	}
	s.mu.Unlock()
	if d.Digest != ours {
		ring(n.syncBell)
	} else if n.hasDiverged() {
		n.tellDiverged()
	}
	if d.Serial > serial {
		ring(s.policyBell)
	}
}

// want has the peer synced with, when it is its turn. The session's lock is held.
func (s *session) want(urgent bool) {
	if !s.needSync {
		s.needSync, s.needSince = true, time.Now()
	}
	s.urgent = s.urgent || urgent
}

// noteGap has blocks asked for that a peer's block names.
func (n *Node) noteGap(s *session, missing []record.Digest) {
	s.mu.Lock()
	if len(s.gaps) == 0 {
		s.needSince = time.Now()
	}
	s.gaps = append(s.gaps, missing[:min(len(missing), maxGaps-min(len(s.gaps), maxGaps))]...)
	s.mu.Unlock()
	ring(n.syncBell)
}

// syncLoop brings what we lack, from one peer at a time: blocks of several peers overlap, and links cross origins.
func (n *Node) syncLoop(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s, gaps, next := n.nextSync(time.Now())
		if s == nil {
			timer.Reset(next)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-n.syncBell:
			case <-timer.C:
			}
			continue
		}
		r, err := n.sync(ctx, s, gaps)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.noteSync(s, r, err)
	}
}

// nextSync picks the next session to sync with and the blocks to ask it for, or says when to look again.
func (n *Node) nextSync(now time.Time) (pick *session, gaps []record.Digest, next time.Duration) {
	next = time.Minute
	var ours [32]byte
	known := false
	for _, s := range n.members() {
		s.mu.Lock()
		ready := s.syncAfter
		switch {
		case len(s.gaps) > 0:
			ready = later(ready, s.needSince.Add(gapDelay))
		case s.needSync:
			if !known {
				ours, known = n.replica.BlockDigest(), true
			}
			if s.hasDigest && s.digest == ours {
				s.needSync, s.urgent = false, false
				s.mu.Unlock()
				continue
			}
			if !s.urgent {
				quiet := now.Add(quietEnough - n.quietFor())
				if limit := s.needSince.Add(waitAtMost); quiet.After(limit) {
					quiet = limit
				}
				ready = later(ready, quiet)
			}
		default:
			s.mu.Unlock()
			continue
		}
		if d := ready.Sub(now); d > 0 {
			next = min(next, d)
			s.mu.Unlock()
			continue
		}
		gaps, s.gaps = s.gaps, nil
		if gaps == nil {
			s.needSync, s.urgent = false, false
		}
		s.mu.Unlock()
		return s, gaps, 0
	}
	return nil, nil, next
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// noteSync takes the outcome of a sync.
func (n *Node) noteSync(s *session, r synced, err error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.syncFaults++
		bound := min(syncFaultMin<<min(s.syncFaults, 5), syncFaultMax)
		s.syncAfter = now.Add(bound/2 + rand.N(bound/2))
		s.want(true)
		n.stats.syncs.WithLabelValues("failed").Inc()
		n.log.Debug("sync failed", "peer", s.id, "blocks", r.blocks, "err", err)
		return
	}
	n.stats.syncs.WithLabelValues("done").Inc()
	s.syncFaults, s.syncAfter, s.lastSync = 0, time.Time{}, now
	ring(s.fetchBell)
	ring(s.chunkBell)
	if s.sameRounds > 0 && s.sameRounds < sameRounds { // make sure of it
		s.syncAfter = now.Add(roundPause)
		s.want(false)
	}
	if r.blocks > 0 {
		s.fetchAfter, s.fetchMiss = time.Time{}, 0
		n.log.Debug("synced", "peer", s.id, "blocks", r.blocks)
		if s.digest != n.replica.BlockDigest() {
			s.want(false) // once more: if then nothing new comes, the heads are compared
		}
	}
}
