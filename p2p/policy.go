package p2p

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"time"

	"syncagent/crdtstore/fault"
)

const (
	policyEvery = 30 * time.Second // swaps with a bootstrap peer, who sends no hints
	policyRetry = 500 * time.Millisecond
)

// policyLoop puts connections right when the policy, the bootstrap list or the pause changed.
func (n *Node) policyLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.policyBell:
		}
		n.reconcile(ctx)
		n.mu.Lock()
		for _, s := range n.sessions {
			ring(s.policyBell)
			ring(s.hintBell) // it names the serial that we go by
		}
		n.mu.Unlock()
		ring(n.dialBell)
	}
}

// reconcile closes connections whose peer may do more or less than when it connected, and sees that every connected
// peer has a session. Somebody who became a member has to connect anew, too: gossipsub asks once whom it may trust.
func (n *Node) reconcile(ctx context.Context) {
	n.reconciling.Lock()
	defer n.reconciling.Unlock()
	var ended, left []*session
	n.mu.Lock()
	for id, s := range n.sessions {
		if n.gate.standing(id) != s.standing && !fault.Planted("keep-connections") {
			delete(n.sessions, id) // a second connection may come up while we close the first
			if n.leaves(s) {
				left = append(left, s)
			} else {
				ended = append(ended, s)
			}
		}
	}
	n.mu.Unlock()
	for _, s := range ended {
		s.cancel()
		n.log.Info("standing of a peer changed, connection closed", "peer", s.id, "member", n.gate.standing(s.id) == member)
		n.closePeer(s.id)
	}
	for _, s := range left {
		s.cancel()
		n.log.Info("peer is no member any more, connection is closed", "peer", s.id)
		n.resetStreams(s.id)
		go func() {
			defer n.handlers.Done()
			n.farewell(ctx, s)
		}()
	}
	for _, id := range n.host.Network().Peers() {
		n.connected(ctx, id)
	}
}

// policySwaps swaps policies with a peer: at once, when ours changed, and when the peer has a higher one.
func (n *Node) policySwaps(ctx context.Context, s *session) {
	var periodic <-chan time.Time
	if s.standing != member {
		t := time.NewTicker(policyEvery)
		defer t.Stop()
		periodic = t.C
	}
	for {
		if err := n.swapPolicies(ctx, s); err != nil && ctx.Err() == nil {
			n.log.Debug("policies not swapped", "peer", s.id, "err", err)
			if !wait(ctx, policyRetry+rand.N(policyRetry)) {
				return
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-s.policyBell:
		case <-periodic:
		}
	}
}

// swapPolicies asks for the texts that we lack and gives those that the peer lacks.
func (n *Node) swapPolicies(ctx context.Context, s *session) error {
	f, done, err := n.openStream(ctx, s, protoPolicy)
	if err != nil {
		return err
	}
	defer done()
	return n.swapOn(ctx, s, f)
}

func (n *Node) swapOn(ctx context.Context, s *session, f *frames) error {
	if err := f.write(frameHave, encodeHaves(n.replica.Policies())); err != nil {
		return err
	}
	theirs, err := n.readPolicies(ctx, s, f)
	if err != nil {
		n.blame(s, err)
		return err
	}
	return n.sendPolicies(f, theirs)
}

// servePolicy is the other side of swapPolicies.
func (n *Node) servePolicy(ctx context.Context, s *session, f *frames) error {
	theirs, err := n.readPolicies(ctx, s, f)
	if err != nil {
		return err
	}
	ours := n.replica.Policies()
	if err := n.sendPolicies(f, theirs); err != nil {
		return err
	}
	if err := f.write(frameHave, encodeHaves(ours)); err != nil {
		return err
	}
	_, err = n.readPolicies(ctx, s, f)
	return err
}

// readPolicies takes texts until the peer says what it has, or ends the stream.
func (n *Node) readPolicies(ctx context.Context, s *session, f *frames) (map[[32]byte]bool, error) {
	for range maxHaves {
		kind, payload, err := f.read(frameTimeout)
		if err != nil {
			return nil, err
		}
		switch kind {
		case frameHave:
			return parseHaves(payload)
		case framePolicy:
			text, err := n.inflate(ctx, s, payload)
			if err != nil {
				return nil, err
			}
			if delay := n.budgets.of(s.id).policies.Reserve().Delay(); delay > 0 {
				n.stats.limited.WithLabelValues(limitPolicies).Inc()
				wait(ctx, delay)
			}
			if err := n.replica.OfferPolicy(ctx, s.key, text); err != nil && ctx.Err() == nil && !n.gate.quietly("policy of "+s.id) {
				n.log.Warn("policy from a peer not taken", "peer", s.id, "err", err)
			}
		}
	}
	return nil, frameError("too many policies")
}

func (n *Node) sendPolicies(f *frames, theirs map[[32]byte]bool) error {
	for _, text := range n.replica.Policies() {
		if theirs[sha256.Sum256(text)] {
			continue
		}
		payload := compress(text)
		if len(text) > maxPolicyText || len(payload) > maxFrame {
			n.log.Warn("policy is too large to be sent", "bytes", len(text))
			continue
		}
		if err := f.write(framePolicy, payload); err != nil {
			return err
		}
	}
	return nil
}

func encodeHaves(texts [][]byte) []byte {
	var b []byte
	for _, t := range texts[:min(len(texts), maxHaves)] {
		h := sha256.Sum256(t)
		b = append(b, h[:]...)
	}
	return b
}

func parseHaves(b []byte) (map[[32]byte]bool, error) {
	if len(b)%32 != 0 || len(b) > 32*maxHaves {
		return nil, frameError("list of policies of %d bytes", len(b))
	}
	have := map[[32]byte]bool{}
	for r := (wireReader{b: b}); len(r.b) > 0; {
		have[r.array()] = true
	}
	return have, nil
}
