package p2p

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

const (
	budgetBurst    = 64      // seconds of the rate that may be spent at once: a catch-up
	budgetLeast    = 4 << 10 // bytes that a frame or message counts for at least: it costs work, however short
	policyBurst    = 256     // texts that a peer may offer at once, then one a second: each is parsed and verified
	signsBurst     = 64      // hellos and frames of control streams that cost nothing, then some a second
	signsEvery     = time.Second / 8
	maxBudgetPeers = 4096
)

// What limited_total counts, by the limit that a peer met.
const (
	limitBytes    = "bytes"
	limitGossip   = "gossip"
	limitStreams  = "streams"
	limitPolicies = "policies"
	limitRepeats  = "repeats"
	limitOrigins  = "origins"
)

// budget is what one peer may make this agent receive, unpack and serve. It outlives connections: dialling anew does not
// fill it up.
type budget struct {
	bytes    *rate.Limiter
	policies *rate.Limiter
	signs    *rate.Limiter
	repeats  *rate.Limiter // gossip that brought nothing
}

// budgets keeps those of all peers, but full ones, which it makes again. It is safe for concurrent use.
type budgets struct {
	mu        sync.Mutex
	perSecond int64 // bytes; 0: no limit
	byPeer    map[peer.ID]*budget
}

func newBudgets(perSecond int64) *budgets {
	return &budgets{perSecond: perSecond, byPeer: map[peer.ID]*budget{}}
}

func (b *budgets) of(p peer.ID) *budget {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known := b.byPeer[p]; known != nil {
		return known
	}
	for id, old := range b.byPeer {
		if len(b.byPeer) >= maxBudgetPeers || old.full() {
			delete(b.byPeer, id) // who comes back has a full one anyhow
		}
	}
	fresh := &budget{bytes: rate.NewLimiter(rateOf(b.perSecond)), policies: rate.NewLimiter(rate.Every(time.Second), policyBurst),
		signs: rate.NewLimiter(rate.Every(signsEvery), signsBurst), repeats: rate.NewLimiter(rate.Every(repeatsEvery), repeatsBurst)}
	b.byPeer[p] = fresh
	return fresh
}

// set changes the rate of all peers. What was spent stays spent.
func (b *budgets) set(perSecond int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.perSecond = perSecond
	limit, burst := rateOf(perSecond)
	for _, one := range b.byPeer {
		one.bytes.SetLimit(limit)
		one.bytes.SetBurst(burst)
	}
}

func rateOf(perSecond int64) (limit rate.Limit, burst int) {
	if perSecond == 0 {
		return rate.Inf, 0
	}
	return rate.Limit(perSecond), int(perSecond * budgetBurst)
}

func (b *budget) full() bool {
	return b.bytes.Tokens() >= float64(b.bytes.Burst()) && b.policies.Tokens() >= policyBurst && b.signs.Tokens() >= signsBurst &&
		b.repeats.Tokens() >= repeatsBurst
}

// spend charges bytes to a peer and waits when it has had more than its rate: whoever calls does not read on from it,
// or does not send on to it. Nobody else waits.
func (n *Node) spend(ctx context.Context, s *session, bytes int) {
	l := n.budgets.of(s.id).bytes
	delay := l.ReserveN(time.Now(), charge(bytes, l)).Delay()
	if delay <= 0 || delay == rate.InfDuration {
		return
	}
	n.stats.limited.WithLabelValues(limitBytes).Inc()
	wait(ctx, delay)
}

// affords is spend for messages that cannot wait: false when there is nothing left.
func (n *Node) affords(s *session, bytes int) bool {
	l := n.budgets.of(s.id).bytes
	if l.AllowN(time.Now(), charge(bytes, l)) {
		return true
	}
	n.stats.limited.WithLabelValues(limitGossip).Inc()
	return false
}

func charge(bytes int, l *rate.Limiter) int {
	bytes = max(bytes, budgetLeast)
	if l.Limit() == rate.Inf {
		return bytes
	}
	return min(bytes, l.Burst())
}

// inflate unpacks a payload. What it grows to is charged too: a megabyte of zeroes is a few bytes on the wire.
func (n *Node) inflate(ctx context.Context, s *session, payload []byte) ([]byte, error) {
	raw, err := decompress(payload)
	if err == nil && len(raw) > len(payload) {
		n.spend(ctx, s, len(raw)-len(payload))
	}
	return raw, err
}

// notePutOff tells of blocks that were left out because the peer opens too many chains.
func (n *Node) notePutOff(s *session, blocks int) {
	if blocks == 0 {
		return
	}
	n.stats.limited.WithLabelValues(limitOrigins).Add(float64(blocks))
	if !n.gate.quietly("origins of " + s.id) {
		n.log.Warn("blocks of a peer are put off, they open too many chains by new keys or stores", "peer", s.id, "blocks", blocks,
			"hint", "if one member makes them, revoke it: syncagent acl revoke; if all is honest, raise limits.peer_origins")
	}
}

// SetPeerBytes changes how many bytes a second each peer may make this agent move for long, see Options.PeerBytes.
func (n *Node) SetPeerBytes(perSecond int64) { n.budgets.set(perSecond) }
