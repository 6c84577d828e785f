package crdtstore

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"syncagent/crdtstore/record"
)

// Chains cost memory on every agent for good: a place in the vector, which every sync sends, and one in the state that
// every turn copies. Keys and incarnations can be had for nothing, so whoever delivers blocks has an allowance of chains
// that they may open. What is over it is left out, with all that builds on it, and comes again with a later sync: slower,
// never lost, and never invalid, or replicas would split. It is charged to the peer that delivers, because an origin
// that nobody knows can be held to account for nothing.

// allowanceTime is how long a spent allowance takes to fill up.
const allowanceTime = time.Hour

// maxAllowances bounds the peers that are remembered. They are members: the policy bounds them too.
const maxAllowances = 4096

// allowances counts the chains that each peer has opened lately. It is safe for concurrent use.
type allowances struct {
	mu     sync.Mutex
	most   int // 0: no limit
	byPeer map[record.PublicKey]*rate.Limiter
}

func (a *allowances) set(most int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if most != a.most {
		a.most, a.byPeer = most, make(map[record.PublicKey]*rate.Limiter)
	}
}

// take tells whether the peer may open one more chain now, and counts it.
func (a *allowances) take(from record.PublicKey, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.most == 0 {
		return true
	}
	l := a.byPeer[from]
	if l == nil {
		for k, l := range a.byPeer {
			if len(a.byPeer) >= maxAllowances || l.TokensAt(now) >= float64(a.most) {
				delete(a.byPeer, k)
			}
		}
		l = rate.NewLimiter(rate.Every(allowanceTime/time.Duration(a.most)), a.most)
		a.byPeer[from] = l
	}
	return l.AllowN(now, 1)
}

// LimitOrigins sets how many chains of blocks each peer may open at once, see Options.PeerOrigins.
func (s *Store) LimitOrigins(most int) { s.allowances.set(most) }

// admit leaves out the blocks that open more chains than the peer may, and those that build on them.
func (s *Store) admit(from record.PublicKey, parcels []*parcel) (kept []*parcel, delayed int, err error) {
	_, mono := s.clock.Now()
	now := time.Unix(0, 0).Add(mono)
	out := make(map[record.Digest]bool)
	kept = parcels[:0]
	for _, p := range parcels {
		late := p.block != nil && !p.held && buildsOn(p.block, out)
		if p.block != nil && !p.held && !late {
			opens, err := s.opens(p.block)
			if err != nil {
				return nil, 0, err
			}
			late = opens && !s.allowances.take(from, now)
		}
		if late {
			out[p.block.Digest] = true
			delayed++
			continue
		}
		kept = append(kept, p)
	}
	return kept, delayed, nil
}

func buildsOn(b *record.Block, out map[record.Digest]bool) bool {
	if len(out) == 0 {
		return false
	}
	for _, l := range b.Links {
		if out[l] {
			return true
		}
	}
	return b.Bundle != nil && out[b.Prev]
}

// opens tells whether a block begins a chain that is charged for, or a branch of one. The first chain of a key that a
// policy names is free: the policy bounds those.
func (s *Store) opens(b *record.Block) (bool, error) {
	if b.Bundle == nil {
		return false, nil
	}
	chains := s.dag.Load().chains
	if c, known := chains[chainID{b.Origin, b.Incarnation}]; known {
		if b.Seq > c.seq {
			return false, nil
		}
		held, err := s.holds(b) // it may have come on another road just now
		return !held, err
	}
	if b.Seq != 1 {
		return false, nil
	}
	if !s.Policy().Known(b.Origin) {
		return true, nil
	}
	for id := range chains {
		if id.origin == b.Origin {
			return true, nil
		}
	}
	return false, nil
}
